//! Clients that issue, revoke and list tokens through whatever node, and write down what they saw.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fedctl::operator::Operator;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use wire::operator::proto::{IssueTokenRequest, ListTokensRequest, RevokeTokenRequest};

use super::history::{Answered, Asked, Operation, Tokens};

/// Names in use at a time, and so how much clients get into each other's way.
const NAMES: usize = 12;
/// After so many operations a name has had its time. What the checker looks at stays small.
const OPERATIONS_PER_NAME: usize = 60;
const TOKENS_PER_NAME: usize = 3;
const READ_SHARE: f64 = 0.7;
/// Longer than any pause of a node.
const TIMEOUT: Duration = Duration::from_secs(8);

/// What all clients share.
#[derive(Debug)]
pub(super) struct Work {
    sockets: Vec<PathBuf>,
    start: Instant,
    names: Mutex<Vec<Name>>,
    history: Mutex<Vec<Operation>>,
    done: AtomicUsize,
    next_name: AtomicUsize,
    stop: AtomicBool,
}

/// A name in use: its tokens, with who issued each, and whether somebody has set out to revoke it.
#[derive(Debug)]
struct Name {
    text: String,
    operations: usize,
    tokens: BTreeMap<String, (usize, bool)>,
    issues: usize,
}

impl Work {
    pub(super) fn new(sockets: Vec<PathBuf>) -> Arc<Self> {
        let work = Self {
            sockets,
            start: Instant::now(),
            names: Mutex::default(),
            history: Mutex::default(),
            done: AtomicUsize::new(0),
            next_name: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        };
        let names = (0..NAMES).map(|_| work.fresh_name()).collect();
        *work.names.lock().unwrap() = names;
        Arc::new(work)
    }

    /// Operations with an answer so far.
    pub(super) fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn history(&self) -> Vec<Operation> {
        self.history.lock().unwrap().clone()
    }

    /// One client, until all are stopped.
    pub(super) async fn client(self: Arc<Self>, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut nodes: Vec<Option<Operator>> = vec![None; self.sockets.len()];
        while !self.stop.load(Ordering::Relaxed) {
            let (slot, name, asked, at) = self.choose(&mut random);
            let node = match nodes[at].take() {
                Some(node) => node,
                // It is down: nothing was asked.
                None => match Operator::connect(&self.sockets[at]).await {
                    Ok(node) => node,
                    Err(_) => continue,
                },
            };
            let begun = self.now();
            let answer = tokio::time::timeout(TIMEOUT, ask(&node, &name, &asked, true)).await;
            let ended = answer.ok().flatten().map(|answer| (self.now(), answer));
            if ended.is_some() {
                nodes[at] = Some(node);
                self.done.fetch_add(1, Ordering::Relaxed);
            }
            self.note(slot, &name, at, &asked, ended.as_ref());
            self.history.lock().unwrap().push(Operation { name, asked, begun, ended });
        }
    }

    /// One operation by hand.
    pub(super) async fn operate(
        &self,
        node: &Operator,
        name: &str,
        asked: Asked,
        linearizable: bool,
    ) -> Operation {
        let begun = self.now();
        let answer = ask(node, name, &asked, linearizable).await;
        let ended = answer.map(|answer| (self.now(), answer));
        Operation { name: name.into(), asked, begun, ended }
    }

    /// A name, what to do with it, and at which node.
    fn choose(&self, random: &mut StdRng) -> (usize, String, Asked, usize) {
        let mut names = self.names.lock().unwrap();
        let slot = random.random_range(0..names.len());
        let name = &mut names[slot];
        name.operations += 1;
        let anywhere = random.random_range(0..self.sockets.len());
        let old = name.operations > OPERATIONS_PER_NAME;
        let open = name.tokens.iter_mut().find(|(_, (_, revoking))| !*revoking);
        if old && open.is_none() {
            *name = self.fresh_name();
        } else if let Some((id, (issuer, revoking))) =
            open.filter(|_| old || random.random_bool(0.15))
        {
            *revoking = true;
            return (slot, name.text.clone(), Asked::Revoke(id.clone()), *issuer);
        }
        if random.random_bool(READ_SHARE) {
            return (slot, name.text.clone(), Asked::List, anywhere);
        }
        if name.issues < TOKENS_PER_NAME {
            name.issues += 1;
            return (slot, name.text.clone(), Asked::Issue, anywhere);
        }
        // Once more, which changes nothing but is a write all the same.
        let count = name.tokens.len().max(1);
        match name.tokens.iter().nth(random.random_range(0..count)) {
            Some((id, (issuer, true))) => {
                (slot, name.text.clone(), Asked::Revoke(id.clone()), *issuer)
            }
            _ => (slot, name.text.clone(), Asked::List, anywhere),
        }
    }

    /// A name with an operation of unknown outcome is given up.
    fn note(
        &self,
        slot: usize,
        text: &str,
        at: usize,
        asked: &Asked,
        ended: Option<&(u64, Answered)>,
    ) {
        let mut names = self.names.lock().unwrap();
        let name = &mut names[slot];
        if name.text != text {
            return;
        }
        match ended {
            Some((_, Answered::Issued(id))) => {
                name.tokens.insert(id.clone(), (at, false));
            }
            None if *asked != Asked::List => *name = self.fresh_name(),
            _ => {}
        }
    }

    fn fresh_name(&self) -> Name {
        let text = format!("n-{}", self.next_name.fetch_add(1, Ordering::Relaxed));
        Name { text, operations: 0, tokens: BTreeMap::new(), issues: 0 }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap()
    }
}

/// `None`: whether it was done is not known.
async fn ask(node: &Operator, name: &str, asked: &Asked, linearizable: bool) -> Option<Answered> {
    match asked {
        Asked::Issue => {
            let request = IssueTokenRequest {
                name: name.into(),
                roles: "export".into(),
                lifetime_s: 3600,
                ..IssueTokenRequest::default()
            };
            Some(Answered::Issued(node.issue_token(request).await.ok()?.id))
        }
        Asked::Revoke(id) => {
            node.revoke_token(RevokeTokenRequest { id: id.clone() }).await.ok()?;
            Some(Answered::Revoked)
        }
        Asked::List => {
            let request = ListTokensRequest { name: name.into(), linearizable };
            let tokens = node.list_tokens(request).await.ok()?.tokens;
            let revoked = |state: &str| match state {
                "open" => false,
                "revoked" => true,
                other => panic!("nobody has made a token {other}"),
            };
            let row = |token: wire::operator::proto::TokenStatus| (token.id, revoked(&token.state));
            Some(Answered::Listed(tokens.into_iter().map(row).collect::<Tokens>()))
        }
    }
}
