//! `fedgate.store.v1` and `fedgate.join.v1`: what members of a federation sign, replicate and ask
//! each other, as `docs/reference/store.md` has it.
//!
//! Bytes that somebody signed ([`Signed::payload`]) or that a digest is over (a record) are kept as
//! they came and never encoded again. Nothing here checks a signature: keys are `identity`'s.
//!
//! Every log entry must mean the same on every node, so an unknown enum value or command is an error
//! here, while unknown fields are passed over.

mod command;
mod convert;
mod head;
mod join;
mod key;
pub mod limits;
mod member;
mod merkle;
mod record;
mod rpc;
mod signed;
mod statement;
mod token;
mod token_text;
mod watch;

pub use crate::error::WireError;
pub use crate::grpc::fedgate::join::v1 as join_proto;
pub use crate::grpc::fedgate::store::v1 as proto;
pub use command::{Change, Command, Publish, RecordPut, Redeem};
pub use head::{Head, Mark};
pub use join::{CheckReply, Joined, RedeemEvent, RedeemRequest, Stage, TokenState};
pub use key::StoreKey;
pub use member::{Member, MemberChain, MemberKey, SignedMember, SpkiBytes};
pub use merkle::{
    EMPTY_DIGEST, Hash, digest_of_nodes, digest_of_records, leaf_hash, namespace_node,
};
pub use record::Record;
pub use rpc::{Heads, ProposeReply, RaftCall, ReadReply, ReadRequest, Refusal};
pub use signed::{Domain, SIGNATURE_BYTES, Signature, Signed, signed_bytes};
pub use statement::{AdminChange, AdminStatement, Leave, Reanchor, Revocation, RevocationTarget};
pub use token::{TokenGrant, TokenId, TokenSecret};
pub use token_text::{JoinToken, TOKEN_PREFIX, TokenTextError};
pub use watch::{Alive, Entry, FleetUpdate, NamespaceUpdate, OwnerUpdate, RecordEntry, WatchEvent};
