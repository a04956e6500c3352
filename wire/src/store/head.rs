//! An owner's Head: its word on everything that it has in the store.

use std::fmt;

use model::{ClusterId, FederationId, KeyId};
use prost::Message as _;

use super::convert::{cluster, copied, federation, fixed, key_id, message, positive};
use super::limits::{PAYLOAD_BYTES_MAX, RECORDS_PER_CLUSTER_MAX};
use super::merkle::{EMPTY_DIGEST, Hash};
use super::proto;
use super::signed::Signed;
use crate::error::{At, WireError};

/// A position in an owner's history. Whoever saw one takes nothing below it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    pub epoch: u64,
    pub generation: u64,
}

impl Mark {
    pub(super) fn from_proto(at: At<'_>, mark: proto::Mark) -> Result<Self, WireError> {
        Ok(Self { epoch: positive(at.field("epoch"), mark.epoch)?, generation: mark.generation })
    }

    pub(super) fn to_proto(self) -> proto::Mark {
        proto::Mark { epoch: self.epoch, generation: self.generation }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.generation)
    }
}

/// The payload of [`super::Domain::Head`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub federation: FederationId,
    pub cluster: ClusterId,
    pub mark: Mark,
    /// The owner's clock. Re-signed with the same mark, only this grows.
    pub issued_at_unix_ms: u64,
    pub key_id: KeyId,
    pub digest: Hash,
    pub records: u32,
}

impl Head {
    /// Reads the Head inside an envelope, whose signature is not checked here.
    pub fn of(signed: &Signed) -> Result<Self, WireError> {
        let head = Self::decode(&signed.payload)?;
        if head.key_id != signed.key_id {
            let problem =
                format!("the envelope names key {}; both are the signer's", signed.key_id);
            return Err(At::message("Head").field("key_id").refuse(head.key_id, problem));
        }
        Ok(head)
    }

    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let at = At::message("Head");
        let head: proto::Head = message(&at, payload, PAYLOAD_BYTES_MAX)?;
        let mark = proto::Mark { epoch: head.epoch, generation: head.generation };
        let decoded = Self {
            federation: federation(at.field("federation"), &head.federation)?,
            cluster: cluster(at.field("cluster"), &head.cluster)?,
            mark: Mark::from_proto(at, mark)?,
            issued_at_unix_ms: positive(at.field("issued_at_unix_ms"), head.issued_at_unix_ms)?,
            key_id: key_id(at.field("key_id"), &head.key_id)?,
            digest: fixed(at.field("digest"), &head.digest)?,
            records: head.records,
        };
        positive(at.field("generation"), head.generation)?;
        decoded.check_records(&at)?;
        Ok(decoded)
    }

    fn check_records(&self, at: &At<'_>) -> Result<(), WireError> {
        if self.records as usize > RECORDS_PER_CLUSTER_MAX {
            let problem = format!("a cluster has at most {RECORDS_PER_CLUSTER_MAX} records");
            return Err(at.field("records").refuse(self.records, problem));
        }
        if (self.records == 0) != (self.digest == EMPTY_DIGEST) {
            let problem = "0 records and the digest of the empty set belong together";
            return Err(at.field("records").refuse(self.records, problem));
        }
        Ok(())
    }

    pub fn encode(&self) -> Vec<u8> {
        let head = proto::Head {
            federation: copied(self.federation.as_bytes()),
            cluster: copied(self.cluster.as_bytes()),
            epoch: self.mark.epoch,
            generation: self.mark.generation,
            issued_at_unix_ms: self.issued_at_unix_ms,
            key_id: copied(self.key_id.as_bytes()),
            digest: copied(&self.digest),
            records: self.records,
        };
        head.encode_to_vec()
    }
}
