//! Applying a command: the whole of it or nothing, alike on every node.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::code::COMMAND_INVALID;
use model::{ClusterId, Revision};
use wire::store::{self, Command, TokenId};

use super::member::MemberEntry;
use super::owner::Owner;
use super::proof::malformed;
use super::requests::RequestId;
use super::state::FleetState;
use super::token::TokenEntry;
use super::{Refusal, kv};

pub use crate::store::KvWrite;

/// An accepted command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Where it took effect: for a request that was sent again, where it did the first time.
    pub revision: Revision,
    /// Empty for a request that was sent again.
    pub changes: Vec<Change>,
    /// What is to be written to disk, together with the position in the log, in order of keys.
    pub writes: Vec<KvWrite>,
}

/// What a command changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A member was added, changed, left or was revoked.
    Member(ClusterId),
    /// An owner's Head and records, or that they are gone.
    Owner(ClusterId),
    Token(TokenId),
    Revocation,
    Standbys,
}

impl FleetState {
    /// Carries out a command, which is [`Command`]'s bytes. Total and deterministic: what it does
    /// depends on the state and its arguments only. A refused command changes nothing.
    ///
    /// # Errors
    /// Says which guard refused the command, with a registered code.
    pub fn apply(&mut self, revision: Revision, command: &[u8]) -> Result<Applied, Refusal> {
        let command = Command::decode(command).map_err(malformed)?;
        if let Some(first) = self.requests.get(&command.request_id) {
            return Ok(Applied { revision: first, changes: vec![], writes: vec![] });
        }
        if revision <= self.revision() {
            let text = format!("revision {revision}: {} is applied already", self.revision());
            return Err(Refusal::new(COMMAND_INVALID, text));
        }
        let mut draft = Draft::new(self, revision, command.proposed_at_unix_ms);
        draft.carry_out(&command.change)?;
        draft.remember(command.request_id);
        let Draft { state, changes, writes, .. } = draft;
        *self = state;
        let writes = writes.into_iter().map(|(key, value)| KvWrite { key, value }).collect();
        Ok(Applied { revision, changes, writes })
    }
}

/// The state as a command would leave it. Thrown away when the command is refused.
pub(super) struct Draft {
    pub(super) state: FleetState,
    pub(super) revision: Revision,
    pub(super) proposed_at_unix_ms: u64,
    pub(super) changes: Vec<Change>,
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Draft {
    pub(super) fn new(before: &FleetState, revision: Revision, proposed_at_unix_ms: u64) -> Self {
        let mut state = before.clone();
        state.fleet.revision = revision;
        let (changes, writes) = (Vec::new(), BTreeMap::new());
        Self { state, revision, proposed_at_unix_ms, changes, writes }
    }

    fn carry_out(&mut self, change: &store::Change) -> Result<(), Refusal> {
        use store::Change;
        match change {
            Change::Found(root) => self.found(root),
            Change::Publish(publish) => self.publish(publish),
            Change::IssueToken(grant) => self.issue_token(grant),
            Change::Redeem(redeem) => self.redeem(redeem),
            Change::UpdateMember(link) => self.update_member(link),
            Change::Leave(leave) => self.leave(leave),
            Change::Revoke(revocation) => self.revoke(revocation),
            Change::Admin(statement) => self.admin(statement),
        }
    }

    fn remember(&mut self, id: RequestId) {
        let forgotten = Arc::make_mut(&mut self.state.requests).insert(id, self.revision);
        self.write(kv::request_key(self.revision), Some(id.to_vec()));
        if let Some(forgotten) = forgotten {
            self.write(kv::request_key(forgotten), None);
        }
        self.write(kv::place_key(), Some(kv::place(&self.state.fleet)));
    }

    pub(super) fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.writes.insert(key, value);
    }

    pub(super) fn put_member(&mut self, entry: MemberEntry) {
        let cluster = entry.member().cluster;
        self.write(kv::member_key(&cluster), Some(kv::member(entry.chain())));
        if let Some(mark) = entry.high_water() {
            self.write(kv::mark_key(&cluster), Some(kv::mark(mark)));
        }
        Arc::make_mut(&mut self.state.fleet.members).insert(cluster, Arc::new(entry));
        self.changes.push(Change::Member(cluster));
    }

    /// Takes a cluster's Head and records out.
    pub(super) fn remove_owner(&mut self, cluster: &ClusterId) {
        let Some(owner) = Arc::make_mut(&mut self.state.fleet.owners).remove(cluster) else {
            return;
        };
        for record in owner.records() {
            self.write(kv::record_key(record.key()), None);
        }
        self.write(kv::head_key(cluster), None);
        self.changes.push(Change::Owner(*cluster));
    }

    pub(super) fn put_owner(&mut self, owner: Owner) {
        let cluster = owner.head().cluster;
        self.write(kv::head_key(&cluster), Some(owner.signed_head().encode()));
        Arc::make_mut(&mut self.state.fleet.owners).insert(cluster, Arc::new(owner));
        self.changes.push(Change::Owner(cluster));
    }

    pub(super) fn put_token(&mut self, token: TokenEntry) {
        let id = token.grant.token_id;
        self.write(kv::token_key(&id), Some(kv::token(&token)));
        Arc::make_mut(&mut self.state.tokens).insert(id, Arc::new(token));
        self.changes.push(Change::Token(id));
    }

    pub(super) fn remove_token(&mut self, id: &TokenId) {
        self.write(kv::token_key(id), None);
        Arc::make_mut(&mut self.state.tokens).remove(id);
        self.changes.push(Change::Token(*id));
    }
}
