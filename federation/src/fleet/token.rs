//! Tokens as the store knows them: what they grant and what became of them, never their secrets.

use model::{ClusterId, Revision};
use wire::store::{Signed, TokenGrant};

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEntry {
    pub grant: TokenGrant,
    /// The grant as its issuer signed it.
    pub signed: Signed,
    pub used: TokenUse,
}

/// What became of a token. That it has expired is for whoever has a clock to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenUse {
    Open,
    /// Redeemed by this cluster.
    Used {
        by: ClusterId,
        at: Revision,
    },
    Revoked {
        at: Revision,
    },
}

impl TokenEntry {
    pub fn is_open_at(&self, unix_ms: u64) -> bool {
        self.used == TokenUse::Open && unix_ms < self.grant.expires_at_unix_ms
    }
}
