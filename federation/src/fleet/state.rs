//! The state machine's state: the fleet, and what only the log's keepers need besides.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Revision;
use wire::store::TokenId;

use super::Fleet;
use super::requests::{RequestId, Requests};
use super::token::TokenEntry;

/// What the log has led to. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct FleetState {
    pub(super) fleet: Fleet,
    pub(super) tokens: Arc<BTreeMap<TokenId, Arc<TokenEntry>>>,
    pub(super) requests: Arc<Requests>,
}

impl FleetState {
    /// Before a federation is founded.
    pub fn empty() -> Self {
        Self::default()
    }

    /// What readers read.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The last command that was accepted.
    pub fn revision(&self) -> Revision {
        self.fleet.revision
    }

    /// Tokens that are remembered, in order of their ids.
    pub fn tokens(&self) -> impl Iterator<Item = &TokenEntry> {
        self.tokens.values().map(|token| &**token)
    }

    pub fn token(&self, id: &TokenId) -> Option<&TokenEntry> {
        self.tokens.get(id).map(|token| &**token)
    }

    /// Where a request took effect, while it is remembered.
    pub fn applied(&self, request_id: &RequestId) -> Option<Revision> {
        self.requests.get(request_id)
    }
}
