//! Tokens: what the store knows of one, and its secret, which the store does not know.

use std::fmt;

use model::{ClusterId, ClusterName, FederationId, RoleSet};
use prost::Message as _;
use sha2::{Digest, Sha256};
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

    /// For the text of the token; nothing else.
    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the store keeps of it: HMAC-SHA256 (RFC 2104), the secret as key, over token id,
    /// federation id and name.
    pub fn hmac(&self, id: &TokenId, federation: &FederationId, name: &ClusterName) -> Hash {
        let input = [id.as_bytes(), &federation.as_bytes()[..], name.as_str().as_bytes()].concat();
        hmac_sha256(&self.0, &input)
    }
}

/// RFC 2104 with SHA-256, whose block has 64 bytes; the key is shorter than that.
fn hmac_sha256(key: &[u8; 32], input: &[u8]) -> Hash {
    let pad = |byte: u8| {
        let mut block = Zeroizing::new([byte; 64]);
        block.iter_mut().zip(key).for_each(|(block, key)| *block ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36).as_slice()).chain_update(input).finalize();
    Sha256::new().chain_update(pad(0x5c).as_slice()).chain_update(inner).finalize().into()
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
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
    /// [`TokenSecret::hmac`].
    pub secret_hmac: Hash,
    /// A person must say yes when it is redeemed.
    pub approval_needed: bool,
    pub issuer: ClusterId,
}

impl TokenGrant {
    /// Whether this is the token's secret. Takes equally long for every wrong one.
    pub fn fits(&self, secret: &TokenSecret) -> bool {
        let found = secret.hmac(&self.token_id, &self.federation, &self.name);
        found.iter().zip(&self.secret_hmac).fold(0, |wrong, (a, b)| wrong | (a ^ b)) == 0
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231 has no key of 32 bytes that HMAC does not pad; test case 2 and 4 do for shorter
    /// ones, which are padded with zeros all the same.
    #[test]
    fn the_hmac_is_that_of_rfc_4231() {
        let hex = |hash: Hash| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let key = |bytes: &[u8]| {
            let mut key = [0; 32];
            key[..bytes.len()].copy_from_slice(bytes);
            key
        };
        assert_eq!(
            hex(hmac_sha256(&key(b"Jefe"), b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        let counting: Vec<u8> = (1..=25).collect();
        assert_eq!(
            hex(hmac_sha256(&key(&counting), &[0xcd; 50])),
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"
        );
    }

    #[test]
    fn a_secret_fits_its_own_token_only() {
        let name = ClusterName::parse("west").unwrap();
        let (id, federation) = (TokenId::from_bytes([1; 16]), FederationId::from_bytes([2; 16]));
        let secret = TokenSecret::from_bytes([3; 32]);
        let grant = TokenGrant {
            federation,
            token_id: id,
            name: name.clone(),
            roles: RoleSet::NONE,
            delegation_depth: 0,
            issued_at_unix_ms: 1,
            expires_at_unix_ms: 2,
            secret_hmac: secret.hmac(&id, &federation, &name),
            approval_needed: false,
            issuer: ClusterId::from_bytes([4; 16]),
        };
        assert!(grant.fits(&secret));
        assert!(!grant.fits(&TokenSecret::from_bytes([4; 32])));
        let other = ClusterName::parse("wes").unwrap();
        assert!(!TokenGrant { name: other, ..grant.clone() }.fits(&secret));
        let other = TokenId::from_bytes([9; 16]);
        assert!(!TokenGrant { token_id: other, ..grant.clone() }.fits(&secret));
        let other = FederationId::from_bytes([9; 16]);
        assert!(!TokenGrant { federation: other, ..grant }.fits(&secret));
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", TokenSecret::from_bytes([7; 32])), "TokenSecret(..)");
        let id = TokenId::from_bytes([0xab; 16]);
        assert_eq!(TokenId::parse(&id.to_string()), Some(id));
        for text in ["", "ab", &"+".repeat(32), &"g".repeat(32), &"a".repeat(33)] {
            assert_eq!(TokenId::parse(text), None, "{text}");
        }
    }
}
