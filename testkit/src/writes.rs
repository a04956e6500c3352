//! A ledger of writes to the store that were acknowledged: clients at all nodes issue and revoke tokens
//! all the time, whoever dies, and what they were told is compared with what is there in the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fedctl::operator::Operator;
use tokio::task::JoinHandle;
use wire::operator::proto::{IssueTokenRequest, ListTokensRequest, RevokeTokenRequest};

use crate::Sites;

/// The store remembers no more than some thousands of tokens, those that were revoked included.
const PAUSE: Duration = Duration::from_millis(60);
/// Longer than an election.
const TIMEOUT: Duration = Duration::from_secs(6);
const NAME: &str = "ledger";

/// Writers at work.
#[derive(Debug)]
pub struct Writes {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    ledger: Mutex<Acknowledged>,
}

/// What the writers were told.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged {
    /// Each token whose issue was acknowledged, and whether its revocation was.
    tokens: BTreeMap<String, bool>,
    /// Acknowledged writes.
    pub writes: u64,
    /// Writes of unknown outcome.
    pub unknown: u64,
    /// When each was.
    times: Vec<Instant>,
}

impl Writes {
    /// A writer at each node.
    pub fn start(sites: &Sites) -> Self {
        let shared = Arc::new(Shared::default());
        let start = |site: &crate::Site| {
            let socket = site.spec.folder.join("operator.sock");
            sites.runtime.spawn(write(socket, shared.clone()))
        };
        let writers = sites.iter().map(start).collect();
        Self { shared, writers }
    }

    pub fn acknowledged(&self) -> Acknowledged {
        self.shared.lock().clone()
    }

    /// When the first write after this moment was acknowledged.
    pub fn first_after(&self, moment: Instant) -> Option<Instant> {
        self.shared.lock().times.iter().copied().find(|time| *time > moment)
    }

    /// Stops the writers, and returns what they were told.
    pub fn end(self, sites: &Sites) -> Acknowledged {
        self.shared.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            // What it panicked with has been printed.
            let _ended = sites.runtime.block_on(writer);
        }
        self.shared.lock().clone()
    }
}

impl Acknowledged {
    /// Each acknowledged write that a site's node does not have; it is asked what a quorum has.
    pub fn missing(&self, sites: &Sites, place: usize) -> anyhow::Result<Vec<String>> {
        let request = ListTokensRequest { name: NAME.into(), linearizable: true };
        let node = sites.operator(place)?;
        let listed = sites.runtime.block_on(node.list_tokens(request));
        let listed = listed.map_err(anyhow::Error::msg)?.tokens;
        let there: BTreeMap<String, String> =
            listed.into_iter().map(|token| (token.id, token.state)).collect();
        let lost = |(id, revoked): (&String, &bool)| match there.get(id) {
            None => Some(format!("{id} is gone")),
            Some(state) if *revoked && state != "revoked" => Some(format!("{id} is {state} again")),
            Some(_) => None,
        };
        Ok(self.tokens.iter().filter_map(lost).collect())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Acknowledged> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, id: Option<String>, revoked: bool) {
        let mut ledger = self.lock();
        match id {
            Some(id) => {
                ledger.tokens.insert(id, revoked);
                ledger.writes += 1;
                ledger.times.push(Instant::now());
            }
            None => ledger.unknown += 1,
        }
    }
}

/// One writer, until all are stopped. A node that is down is asked again until it is there.
async fn write(socket: PathBuf, shared: Arc<Shared>) {
    let mut node = None;
    while !shared.stop.load(Ordering::Relaxed) {
        tokio::time::sleep(PAUSE).await;
        let Some(operator) = node.take() else {
            node = Operator::connect(&socket).await.ok();
            continue;
        };
        let issued = tokio::time::timeout(TIMEOUT, issue(&operator)).await.ok().flatten();
        shared.note(issued.clone(), false);
        let Some(id) = issued else { continue };
        let request = RevokeTokenRequest { id: id.clone() };
        let revoked = tokio::time::timeout(TIMEOUT, operator.revoke_token(request)).await;
        let done = matches!(revoked, Ok(Ok(_)));
        shared.note(done.then_some(id), true);
        if done {
            node = Some(operator);
        }
    }
}

async fn issue(node: &Operator) -> Option<String> {
    let request = IssueTokenRequest {
        name: NAME.into(),
        roles: "none".into(),
        lifetime_s: 3600,
        force: true,
        ..IssueTokenRequest::default()
    };
    Some(node.issue_token(request).await.ok()?.id)
}
