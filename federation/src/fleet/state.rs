//! The state machine's state: the fleet, and what only the log's keepers need besides.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Revision;
use wire::store::TokenId;

use super::Fleet;
use super::requests::{RequestId, Requests};
use super::token::{TokenEntry, TokenUse};

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

    /// As [`Fleet::rolls_back`]; besides, a token that was redeemed or revoked opens no more.
    pub fn rolls_back(&self, before: &Self) -> Option<String> {
        let reopened = |was: &&TokenEntry| {
            let is = self.token(&was.grant.token_id);
            was.used != TokenUse::Open && is.is_some_and(|is| is.used == TokenUse::Open)
        };
        self.fleet.rolls_back(&before.fleet).or_else(|| {
            let reopened = before.tokens().find(reopened)?;
            Some(format!("the token {} is open in it again", reopened.grant.token_id))
        })
    }

    /// Where a request took effect, while it is remembered.
    pub fn applied(&self, request_id: &RequestId) -> Option<Revision> {
        self.requests.get(request_id)
    }
}
