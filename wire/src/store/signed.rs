//! The envelope of everything that is signed.

use std::fmt;

use bytes::Bytes;
use model::KeyId;
use prost::Message as _;

use super::convert::{copied, fixed, key_id, message};
use super::limits::PAYLOAD_BYTES_MAX;
use super::proto;
use crate::error::{At, WireError};

/// Length of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// An Ed25519 signature.
pub type Signature = [u8; SIGNATURE_BYTES];

/// What a signature is for. Each has a string of its own before the payload, so that bytes signed
/// for one purpose are worthless for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    Head,
    Member,
    Token,
    Revocation,
    Leave,
    Admin,
    /// A key agrees to be a Member's key.
    Join,
    /// A key is on this TLS connection: the payload is the connection's exporter.
    Possession,
}

impl Domain {
    pub const ALL: [Self; 8] = [
        Self::Head,
        Self::Member,
        Self::Token,
        Self::Revocation,
        Self::Leave,
        Self::Admin,
        Self::Join,
        Self::Possession,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Head => "fedgate/head/v1",
            Self::Member => "fedgate/member/v1",
            Self::Token => "fedgate/token/v1",
            Self::Revocation => "fedgate/revocation/v1",
            Self::Leave => "fedgate/leave/v1",
            Self::Admin => "fedgate/admin/v1",
            Self::Join => "fedgate/join/v1",
            Self::Possession => "fedgate/possession/v1",
        }
    }
}

/// What a signature in `domain` is over.
pub fn signed_bytes(domain: Domain, payload: &[u8]) -> Vec<u8> {
    [domain.as_str().as_bytes(), &[0], payload].concat()
}

/// Raw bytes and who says that they are so. Not checked yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    pub payload: Bytes,
    pub key_id: KeyId,
    pub signature: Signature,
}

impl Signed {
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let at = At::message("Signed");
        Self::from_proto(at, message(&at, bytes, Self::BYTES_MAX)?)
    }

    /// Longest encoding.
    pub const BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 128;

    pub fn encode(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    pub fn to_proto(&self) -> proto::Signed {
        proto::Signed {
            payload: self.payload.clone(),
            key_id: copied(self.key_id.as_bytes()),
            signature: copied(&self.signature),
        }
    }

    pub(crate) fn from_proto(at: At<'_>, signed: proto::Signed) -> Result<Self, WireError> {
        let payload = at.field("payload");
        payload.check_bytes(signed.payload.len(), PAYLOAD_BYTES_MAX)?;
        if signed.payload.is_empty() {
            return Err(payload.missing("send the bytes that were signed"));
        }
        Ok(Self {
            payload: signed.payload,
            key_id: key_id(at.field("key_id"), &signed.key_id)?,
            signature: fixed(at.field("signature"), &signed.signature)?,
        })
    }

    pub(crate) fn required(at: At<'_>, signed: Option<proto::Signed>) -> Result<Self, WireError> {
        let signed = signed.ok_or_else(|| at.missing("send payload, key_id and signature"))?;
        Self::from_proto(at, signed)
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({} bytes by key {})", self.payload.len(), self.key_id)
    }
}
