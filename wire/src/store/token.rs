//! Tokens: what the store knows of one, and its secret, which the store does not know.

use std::fmt;

use model::{ClusterId, ClusterName, FederationId, RoleSet};
use prost::Message as _;
use zeroize::Zeroizing;

use super::convert::{self, cluster, copied, federation, fixed, message, positive};
use super::limits;
use super::member::depth;
use super::merkle::Hash;
use super::proto;
use crate::error::{At, WireError};
use crate::resource::convert::parse;

/// Names a token; not a secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; 16]);

impl TokenId {
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Parses the 32 hexadecimal digits that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whoever knows it may redeem the token. Never shown, wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret(Zeroizing<[u8; 32]>);

impl TokenSecret {
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// For the HMAC and for the text of the token; nothing else.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

/// What [`TokenGrant::secret_hmac`] is over; the secret is the HMAC's key.
pub fn hmac_input(id: &TokenId, federation: &FederationId, name: &ClusterName) -> Vec<u8> {
    [id.as_bytes(), &federation.as_bytes()[..], name.as_str().as_bytes()].concat()
}

/// The payload of [`super::Domain::Token`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenGrant {
    pub federation: FederationId,
    pub token_id: TokenId,
    /// Of the cluster that may join with it.
    pub name: ClusterName,
    pub roles: RoleSet,
    pub delegation_depth: u32,
    pub issued_at_unix_ms: u64,
    pub expires_at_unix_ms: u64,
    /// HMAC-SHA256 of [`hmac_input`].
    pub secret_hmac: Hash,
    /// A person must say yes when it is redeemed.
    pub approval_needed: bool,
    pub issuer: ClusterId,
}

impl TokenGrant {
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let at = At::message("TokenGrant");
        let sent: proto::TokenGrant = message(&at, payload, limits::PAYLOAD_BYTES_MAX)?;
        let issued = at.field("issued_at_unix_ms");
        check_lifetime(&at, sent.issued_at_unix_ms, sent.expires_at_unix_ms)?;
        Ok(Self {
            federation: federation(at.field("federation"), &sent.federation)?,
            token_id: TokenId::from_bytes(fixed(at.field("token_id"), &sent.token_id)?),
            name: parse(at.field("name"), &sent.name, ClusterName::parse)?,
            roles: convert::roles(&at, &sent.roles)?,
            delegation_depth: depth(at.field("delegation_depth"), sent.delegation_depth)?,
            issued_at_unix_ms: positive(issued, sent.issued_at_unix_ms)?,
            expires_at_unix_ms: sent.expires_at_unix_ms,
            secret_hmac: fixed(at.field("secret_hmac"), &sent.secret_hmac)?,
            approval_needed: sent.approval_needed,
            issuer: cluster(at.field("issuer"), &sent.issuer)?,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let grant = proto::TokenGrant {
            federation: copied(self.federation.as_bytes()),
            token_id: copied(self.token_id.as_bytes()),
            name: self.name.to_string(),
            roles: convert::encode_roles(self.roles),
            delegation_depth: self.delegation_depth,
            issued_at_unix_ms: self.issued_at_unix_ms,
            expires_at_unix_ms: self.expires_at_unix_ms,
            secret_hmac: copied(&self.secret_hmac),
            approval_needed: self.approval_needed,
            issuer: copied(self.issuer.as_bytes()),
        };
        grant.encode_to_vec()
    }
}

fn check_lifetime(at: &At<'_>, issued: u64, expires: u64) -> Result<(), WireError> {
    let max = limits::TOKEN_LIFETIME_MS_MAX;
    if expires <= issued || expires - issued > max {
        let problem = format!("a token lives at least 1 ms and at most {max} ms from its issue on");
        return Err(at.field("expires_at_unix_ms").refuse(expires, problem));
    }
    Ok(())
}
