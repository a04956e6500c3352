//! JoinGrants: for each a token, in a Secret where Fedgate itself runs.
//!
//! ```text
//! cache, tokens, own Secrets --decide (pure)--> statuses and Secrets --writer--> API server
//!                                 '--> Asks --issue--> membership --> Progress --'
//! ```
//!
//! The Secret is the only place that has a token: of what was issued but is not in its Secret yet,
//! this process alone knows the text. The Secret also outlives its JoinGrant until the token is
//! revoked or of no use, so that no node that ends in between forgets one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::kinds::join_grant::{self, JoinGrant, State};
use api::kubernetes::{
    ConditionStatus, MANAGED_BY, MANAGED_BY_LABEL, OwnCondition, OwnReason, TOKEN_ID_ANNOTATION,
    TOKEN_SECRET_KEY,
};
use discovery::kubernetes::WatchedKind;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use model::{Diagnostic, ObjectName};
use serde_json::{Value, json};
use tokio::sync::watch;
use wire::store::TokenId;

use super::status::{Said, conditions, generation, listed, text};
use crate::kubernetes::calls::Failure;
use crate::kubernetes::kinds::{Kind, SECRET};
use crate::kubernetes::{Cluster, Observed, Owned, WRITER_LABEL, Write, Writer, changed};
use crate::limits::OWN_KINDS_LOOK_INTERVAL;
use crate::membership::{IssuedToken, MembershipError, TokenRequest, TokenRow, TokenState};

pub(super) const NAME: &str = "join-grants";
/// On the Secret: the `metadata.uid` of the JoinGrant that it was made for.
const GRANT_ANNOTATION: &str = "fedgate.dev/join-grant";

/// What there is to do beside writing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asks {
    pub(super) issue: Vec<Ask>,
    pub(super) revoke: BTreeSet<TokenId>,
}

/// One token that is to be issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    /// `metadata.uid` and name of the JoinGrant.
    pub(super) uid: String,
    pub(super) name: String,
    pub(super) secret: String,
    pub(super) request: TokenRequest,
}

/// What has come of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// Tokens whose Secret is not known to be there, by `metadata.uid`.
    pub(super) fresh: BTreeMap<String, IssuedToken>,
    pub(super) troubles: BTreeMap<String, Failure>,
}

/// Keeps statuses and Secrets.
#[derive(Debug)]
pub(super) struct JoinGrantWriter {
    cluster: Cluster,
    asks: watch::Sender<Asks>,
    progress: Arc<watch::Sender<Progress>>,
    news: watch::Receiver<Progress>,
    cache: watch::Receiver<u64>,
    changes: u64,
    /// What was said last, by `metadata.uid`.
    said: BTreeMap<String, Value>,
}

impl JoinGrantWriter {
    pub(super) fn new(
        cluster: &Cluster,
        asks: watch::Sender<Asks>,
        progress: Arc<watch::Sender<Progress>>,
    ) -> Self {
        Self {
            cluster: cluster.clone(),
            asks,
            news: progress.subscribe(),
            progress,
            cache: cluster.cache.changes(),
            changes: 0,
            said: BTreeMap::new(),
        }
    }
}

impl Writer for JoinGrantWriter {
    const NAME: &'static str = NAME;

    fn owned(&self) -> Vec<Owned> {
        let namespace = Some(self.cluster.config.namespace.to_string());
        vec![Owned { kind: &SECRET, namespace }]
    }

    fn desired(&mut self, own: &Observed, now: Timestamp) -> Option<Vec<Write>> {
        let cache = &self.cluster.cache;
        self.cache.mark_unchanged();
        self.changes = cache.changes_of(WatchedKind::JoinGrant);
        let progress = self.news.borrow_and_update().clone();
        if !cache.is_known(WatchedKind::JoinGrant) {
            return None;
        }
        let tokens = match self.cluster.around.membership.tokens() {
            Ok(rows) => Some(rows.into_iter().map(|row| (row.id, row)).collect()),
            Err(MembershipError::Alone) => None,
            Err(_) => return None,
        };
        let facts = Facts {
            kind: Kind::served(cache, WatchedKind::JoinGrant),
            namespace: self.cluster.config.namespace.as_str(),
            grants: cache.list(WatchedKind::JoinGrant).into_iter().map(Arc::new).collect(),
            tokens,
            progress: &progress,
            said: &self.said,
        };
        let Decided { writes, asks, said, kept } = decide(&facts, own, now);
        self.said = said;
        self.progress.send_if_modified(|progress| {
            progress.fresh.retain(|uid, _| !kept.contains(uid));
            false
        });
        self.asks.send_if_modified(|known| {
            let is_new = *known != asks;
            *known = asks;
            is_new
        });
        Some(writes)
    }

    async fn changed(&mut self) {
        // Tokens are used, and end, without a word.
        let look = tokio::time::sleep(OWN_KINDS_LOOK_INTERVAL);
        tokio::pin!(look);
        loop {
            tokio::select! {
                () = changed(&mut self.cache) => {
                    let changes = self.cluster.cache.changes_of(WatchedKind::JoinGrant);
                    if changes == self.changes { continue }
                }
                () = changed(&mut self.news) => {}
                () = &mut look => {}
            }
            return;
        }
    }
}

/// Everything that is decided from.
pub(super) struct Facts<'a> {
    pub(super) kind: Option<&'static Kind>,
    pub(super) namespace: &'a str,
    pub(super) grants: Vec<Arc<Value>>,
    /// `None`: the cluster is in no federation.
    pub(super) tokens: Option<BTreeMap<TokenId, TokenRow>>,
    pub(super) progress: &'a Progress,
    pub(super) said: &'a BTreeMap<String, Value>,
}

#[derive(Debug, Default)]
pub(super) struct Decided {
    pub(super) writes: Vec<Write>,
    pub(super) asks: Asks,
    pub(super) said: BTreeMap<String, Value>,
    /// JoinGrants whose token is in its Secret.
    pub(super) kept: BTreeSet<String>,
}

pub(super) fn decide(facts: &Facts<'_>, own: &Observed, now: Timestamp) -> Decided {
    let mut decided = Decided::default();
    let secrets: BTreeMap<&str, Secret<'_>> = own
        .of(&SECRET)
        .filter_map(|object| Some((text(object, "/metadata/name")?, Secret::of(object))))
        .collect();
    let mut taken = BTreeSet::new();
    for object in holders_first(facts, &secrets) {
        let Some(uid) = text(object, "/metadata/uid") else { continue };
        let (grant, findings) = join_grant::read("kubernetes", object);
        let accepted = accepted(grant.as_ref(), &findings, &mut taken);
        let grant = grant.filter(|_| accepted.status == ConditionStatus::True);
        let secret = grant.as_ref().and_then(|grant| secrets.get(grant.secret.as_str()));
        let mine = secret.filter(|secret| secret.grant == Some(uid));
        let fresh = facts.progress.fresh.get(uid);
        let there = facts.said.get(uid).or_else(|| object.get("status"));
        let id = id_of(mine, fresh, there);
        let life = match &grant {
            None => {
                Life::pending(OwnReason::Failed, "no token is issued, since it is not accepted")
            }
            Some(_) => life(facts, uid, id, mine.is_some() || fresh.is_some(), there, now),
        };
        let status = status(object, accepted, life, id, there, now);
        decided.say(facts.kind, object, uid, status);
        let Some(grant) = grant else { continue };
        match (mine, fresh) {
            (Some(secret), _) => {
                decided.kept.insert(uid.to_string());
                decided.writes.push(secret.again(facts.namespace, grant.secret.as_str()));
            }
            (None, Some(token)) if secret.is_none() => {
                decided.writes.push(secret_of(facts.namespace, &grant, uid, token));
            }
            // What an earlier JoinGrant of the name had is to go first.
            (None, None) if id.is_none() && secret.is_none() => {
                decided.asks.issue.push(ask(uid, &grant));
            }
            (None, _) => {}
        }
    }
    orphans(facts, &secrets, &mut decided);
    decided
}

/// A JoinGrant that comes later does not take the Secret of one that has it.
fn holders_first<'a>(
    facts: &'a Facts<'_>,
    secrets: &BTreeMap<&str, Secret<'_>>,
) -> Vec<&'a Arc<Value>> {
    let holds = |object: &&Arc<Value>| {
        let uid = text(object, "/metadata/uid").unwrap_or_default();
        let secret = text(object, "/spec/secretRef/name").and_then(|name| secrets.get(name));
        facts.progress.fresh.contains_key(uid)
            || secret.is_some_and(|secret| secret.grant == Some(uid))
    };
    let (mut first, others): (Vec<_>, Vec<_>) = facts.grants.iter().partition(holds);
    first.extend(others);
    first
}

impl Decided {
    fn say(&mut self, kind: Option<&'static Kind>, object: &Arc<Value>, uid: &str, status: Value) {
        if let (Some(kind), Some(name)) = (kind, text(object, "/metadata/name")) {
            let write = Write::status(kind, None, name, None, status.clone());
            self.writes.push(write.seen(object.clone()));
        }
        self.said.insert(uid.to_string(), status);
    }
}

/// `taken`: Secrets of the JoinGrants before this one.
fn accepted(
    grant: Option<&JoinGrant>,
    findings: &[Diagnostic],
    taken: &mut BTreeSet<ObjectName>,
) -> Said {
    let accepted = |holds, reason: OwnReason, message: String| {
        Said::new(OwnCondition::Accepted.as_str(), holds, reason.as_str(), message)
    };
    let Some(grant) = grant else {
        return accepted(false, OwnReason::Invalid, listed(findings));
    };
    if !taken.insert(grant.secret.clone()) {
        let message = format!(
            "spec.secretRef.name: another JoinGrant has its token in Secret {}; create this one \
             again with another name",
            grant.secret
        );
        return accepted(false, OwnReason::Conflicted, message);
    }
    match findings.is_empty() {
        true => accepted(true, OwnReason::Accepted, "it can be read".into()),
        false => accepted(true, OwnReason::Accepted, listed(findings)),
    }
}

fn status(
    object: &Value,
    accepted: Said,
    life: Life,
    id: Option<TokenId>,
    there: Option<&Value>,
    now: Timestamp,
) -> Value {
    let Life { state, expires, ready } = life;
    let old = there.and_then(|there| there.get("conditions"));
    let mut status = json!({
        "observedGeneration": generation(object),
        "state": state,
        "conditions": conditions(&[accepted, ready], object, old, now),
    });
    if let Some(id) = id {
        status["tokenId"] = json!(id.to_string());
    }
    if let Some(expires) = expires {
        status["expiresAt"] = json!(expires);
    }
    status
}

/// Secrets whose JoinGrant is gone stay until nobody can use their tokens.
fn orphans(facts: &Facts<'_>, secrets: &BTreeMap<&str, Secret<'_>>, decided: &mut Decided) {
    let uids: BTreeSet<&str> =
        facts.grants.iter().filter_map(|object| text(object, "/metadata/uid")).collect();
    for (name, secret) in secrets {
        if let Some(grant) = secret.grant.filter(|grant| uids.contains(grant)) {
            // One that cannot be read any more keeps what it has.
            if !decided.kept.contains(grant) {
                decided.writes.push(secret.again(facts.namespace, name));
            }
            continue;
        }
        let row = secret.token.and_then(|id| facts.tokens.as_ref()?.get(&id));
        if let Some(row) = row.filter(|row| row.state == TokenState::Open) {
            decided.asks.revoke.insert(row.id);
            decided.writes.push(secret.again(facts.namespace, name));
        }
    }
    // Issued, and its JoinGrant was deleted before the Secret was written.
    let fresh = facts.progress.fresh.iter().filter(|(uid, _)| !uids.contains(&***uid));
    for (uid, token) in fresh {
        let row = facts.tokens.as_ref().and_then(|tokens| tokens.get(&token.id));
        match row.filter(|row| row.state == TokenState::Open) {
            Some(row) => drop(decided.asks.revoke.insert(row.id)),
            None => drop(decided.kept.insert(uid.clone())),
        }
    }
}

/// A Secret of ours.
struct Secret<'a> {
    object: &'a Value,
    grant: Option<&'a str>,
    token: Option<TokenId>,
}

impl<'a> Secret<'a> {
    fn of(object: &'a Value) -> Self {
        let annotation = |name: &str| {
            object.pointer("/metadata/annotations").and_then(|all| all.get(name)?.as_str())
        };
        let token = annotation(TOKEN_ID_ANNOTATION).and_then(TokenId::parse);
        Self { object, grant: annotation(GRANT_ANNOTATION), token }
    }

    /// The write that leaves it as it is.
    fn again(&self, namespace: &str, name: &str) -> Write {
        let annotations = json!({
            TOKEN_ID_ANNOTATION: self.token.map(|id| id.to_string()).unwrap_or_default(),
            GRANT_ANNOTATION: self.grant.unwrap_or_default(),
        });
        let data = self.object.get("data").cloned().unwrap_or_else(|| json!({}));
        secret(namespace, name, &annotations, &data)
    }
}

fn secret_of(namespace: &str, grant: &JoinGrant, uid: &str, token: &IssuedToken) -> Write {
    let annotations = json!({ TOKEN_ID_ANNOTATION: token.id.to_string(), GRANT_ANNOTATION: uid });
    let data = json!({ TOKEN_SECRET_KEY: ByteString(token.text.expose().as_bytes().to_vec()) });
    secret(namespace, grant.secret.as_str(), &annotations, &data)
}

fn secret(namespace: &str, name: &str, annotations: &Value, data: &Value) -> Write {
    let fields =
        json!({ "metadata": { "annotations": annotations }, "type": "Opaque", "data": data });
    Write::whole(&SECRET, Some(namespace), name, fields)
}

fn ask(uid: &str, grant: &JoinGrant) -> Ask {
    Ask {
        uid: uid.to_string(),
        name: grant.name.to_string(),
        secret: grant.secret.to_string(),
        request: TokenRequest {
            name: grant.cluster.clone(),
            roles: grant.roles,
            delegation_depth: grant.delegation_depth,
            lifetime: Some(grant.lifetime),
            approval_needed: grant.approve,
            force: false,
        },
    }
}

fn id_of(
    secret: Option<&Secret<'_>>,
    fresh: Option<&IssuedToken>,
    there: Option<&Value>,
) -> Option<TokenId> {
    let in_status = || TokenId::parse(text(there?, "/tokenId")?);
    secret.and_then(|it| it.token).or_else(|| fresh.map(|it| it.id)).or_else(in_status)
}

/// What has become of a token.
struct Life {
    state: State,
    expires: Option<String>,
    ready: Said,
}

impl Life {
    fn new(state: State, holds: bool, reason: OwnReason, message: impl Into<String>) -> Self {
        let ready = Said::new(OwnCondition::Ready.as_str(), holds, reason.as_str(), message);
        Self { state, expires: None, ready }
    }

    fn pending(reason: OwnReason, message: impl Into<String>) -> Self {
        Self::new(State::Pending, false, reason, message)
    }
}

fn life(
    facts: &Facts<'_>,
    uid: &str,
    id: Option<TokenId>,
    has_secret: bool,
    there: Option<&Value>,
    now: Timestamp,
) -> Life {
    let Some(id) = id else {
        return match facts.progress.troubles.get(uid) {
            Some(trouble) => Life::pending(OwnReason::Failed, trouble.to_string()),
            None => Life::pending(OwnReason::Pending, "the token is about to be issued"),
        };
    };
    let row = facts.tokens.as_ref().and_then(|tokens| tokens.get(&id));
    let fresh = facts.progress.fresh.get(uid);
    let expires = row.map(|row| row.expires).or_else(|| fresh.map(|token| token.expires));
    let expires = expires.and_then(|at| Timestamp::try_from(at).ok());
    let told = there.and_then(|there| text(there, "/expiresAt"));
    let expires = expires.or_else(|| told?.parse().ok());
    let before = there.and_then(|there| there.get("state"));
    let before = before.and_then(|state| serde_json::from_value::<State>(state.clone()).ok());
    let state = match (row.map(|row| row.state), before) {
        (Some(TokenState::Open), _) => State::Issued,
        (Some(TokenState::Expired), _) => State::Expired,
        (Some(TokenState::Redeemed(_)), _) => State::Redeemed,
        (Some(TokenState::Revoked), _) => State::Revoked,
        // The store forgets tokens long after their time.
        (None, Some(state @ (State::Redeemed | State::Revoked | State::Expired))) => state,
        (None, _) if expires.is_some_and(|at| at <= now) => State::Expired,
        (None, _) if facts.tokens.is_none() => State::Revoked,
        (None, _) => State::Issued,
    };
    let mut life = match state {
        State::Issued if has_secret => {
            Life::new(state, true, OwnReason::Ready, "the token is in its Secret, and unused")
        }
        State::Issued | State::Pending => {
            let message = "its Secret is gone, and nobody else has the token; delete this object, \
                           which revokes the token, and create another one";
            Life::new(State::Issued, false, OwnReason::Failed, message)
        }
        State::Redeemed => {
            Life::new(state, false, OwnReason::Redeemed, "the cluster has joined with it")
        }
        State::Expired => {
            let message = "nobody used the token in time; create another JoinGrant";
            Life::new(state, false, OwnReason::Expired, message)
        }
        State::Revoked => {
            let message = "the token was revoked, or this cluster has left its federation; create \
                           another JoinGrant";
            Life::new(state, false, OwnReason::Revoked, message)
        }
    };
    life.expires = expires.map(|at| format!("{at:.0}"));
    life
}

/// Whether an object of the name is there that is none of this writer's.
pub(super) fn is_foreign(labels: &BTreeMap<String, String>) -> bool {
    let is = |label: &str, value: &str| labels.get(label).is_some_and(|found| found == value);
    !is(MANAGED_BY_LABEL, MANAGED_BY) || !is(WRITER_LABEL, NAME)
}

#[cfg(test)]
mod tests;
