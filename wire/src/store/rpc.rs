//! Questions and answers of the store's services.

use bytes::Bytes;
use model::code::Code;
use model::{ClusterId, Revision};

use super::convert::{cluster, copied};
use super::key::StoreKey;
use super::limits;
use super::proto::{self, propose_reply, read_reply};
use super::signed::Signed;
use super::watch::{RecordEntry, signed_list};
use crate::error::{At, WireError};
use crate::resource::convert::{encode_revision, list, revision};

/// Which of Raft's calls a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RaftCall {
    Append,
    Vote,
    Snapshot,
}

impl RaftCall {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Vote => "vote",
            Self::Snapshot => "snapshot",
        }
    }

    /// Reads a request: the call, and its body in the store's own format.
    pub fn decode(request: proto::RaftRequest) -> Result<(Self, Bytes), WireError> {
        let at = At::message("RaftRequest");
        let call = match proto::RaftCall::try_from(request.call) {
            Ok(proto::RaftCall::Append) => Self::Append,
            Ok(proto::RaftCall::Vote) => Self::Vote,
            Ok(proto::RaftCall::Snapshot) => Self::Snapshot,
            _ => {
                let problem = "use APPEND (1), VOTE (2) or SNAPSHOT (3)";
                return Err(at.field("call").refuse(request.call, problem));
            }
        };
        at.field("body").check_bytes(request.body.len(), limits::RAFT_BODY_BYTES_MAX)?;
        Ok((call, request.body))
    }

    pub fn encode(self, body: Bytes) -> proto::RaftRequest {
        let call = match self {
            Self::Append => proto::RaftCall::Append,
            Self::Vote => proto::RaftCall::Vote,
            Self::Snapshot => proto::RaftCall::Snapshot,
        };
        proto::RaftRequest { call: call.into(), body }
    }
}

/// Why the store said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `None` when the node is newer and its code unknown here; the text is there all the same.
    pub code: Option<Code>,
    pub text: String,
}

impl Refusal {
    pub fn from_proto(sent: proto::Refusal) -> Result<Self, WireError> {
        Self::decode_at(At::message("Refusal"), sent)
    }

    pub(super) fn decode_at(at: At<'_>, sent: proto::Refusal) -> Result<Self, WireError> {
        at.field("text").check_bytes(sent.text.len(), limits::TEXT_BYTES_MAX)?;
        let code = Code::parse(&sent.code.to_string());
        Ok(Self { code, text: sent.text })
    }

    /// The text is cut to its limit.
    pub fn to_proto(&self) -> proto::Refusal {
        let mut text = self.text.clone();
        text.truncate(text.floor_char_boundary(limits::TEXT_BYTES_MAX));
        proto::Refusal { code: self.code.map_or(0, |code| code.number().into()), text }
    }
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProposeReply {
    Accepted(Revision),
    Refused(Refusal),
    NotLeader(Option<ClusterId>),
    /// It may have taken effect: ask again with the same request id.
    Unknown(Refusal),
}

impl ProposeReply {
    pub fn decode(reply: proto::ProposeReply) -> Result<Self, WireError> {
        use propose_reply::Outcome;
        let at = At::message("ProposeReply");
        match reply.outcome {
            Some(Outcome::Accepted(x)) => {
                revision(at.field("accepted"), Some(x)).map(Self::Accepted)
            }
            Some(Outcome::Refused(x)) => {
                Refusal::decode_at(at.field("refused"), x).map(Self::Refused)
            }
            Some(Outcome::NotLeader(x)) => {
                leader(at.field("not_leader").field("leader"), &x.leader).map(Self::NotLeader)
            }
            Some(Outcome::Unknown(x)) => {
                Refusal::decode_at(at.field("unknown"), x).map(Self::Unknown)
            }
            None => Err(at.field("outcome").missing("a reply says what became of the proposal")),
        }
    }

    pub fn encode(&self) -> proto::ProposeReply {
        use propose_reply::Outcome;
        let outcome = match self {
            Self::Accepted(revision) => Outcome::Accepted(encode_revision(*revision)),
            Self::Refused(refusal) => Outcome::Refused(refusal.to_proto()),
            Self::NotLeader(leader) => Outcome::NotLeader(encode_leader(*leader)),
            Self::Unknown(refusal) => Outcome::Unknown(refusal.to_proto()),
        };
        proto::ProposeReply { outcome: Some(outcome) }
    }
}

fn leader(at: At<'_>, bytes: &[u8]) -> Result<Option<ClusterId>, WireError> {
    if bytes.is_empty() { Ok(None) } else { cluster(at, bytes).map(Some) }
}

fn encode_leader(leader: Option<ClusterId>) -> proto::NotLeader {
    let leader = leader.map_or_else(Default::default, |id| copied(id.as_bytes()));
    proto::NotLeader { leader }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    pub linearizable: bool,
    /// `None`: only the revision is asked for.
    pub key: Option<StoreKey>,
}

impl ReadRequest {
    pub fn decode(request: proto::ReadRequest) -> Result<Self, WireError> {
        let at = At::message("ReadRequest");
        let key = match &request.key[..] {
            [] => None,
            key => Some(StoreKey::decode_at(at.field("key"), key)?),
        };
        Ok(Self { linearizable: request.linearizable, key })
    }

    pub fn encode(&self) -> proto::ReadRequest {
        let key = self.key.as_ref().map(StoreKey::encode).unwrap_or_default();
        proto::ReadRequest { linearizable: self.linearizable, key: key.into() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadReply {
    Answer { revision: Revision, record: Option<RecordEntry> },
    Refused(Refusal),
    NotLeader(Option<ClusterId>),
}

impl ReadReply {
    pub fn decode(reply: proto::ReadReply) -> Result<Self, WireError> {
        use read_reply::Outcome;
        let at = At::message("ReadReply");
        match reply.outcome {
            Some(Outcome::Answer(x)) => {
                let at = at.field("answer");
                let record =
                    x.record.map(|record| RecordEntry::from_proto(at.field("record"), record));
                let revision = revision(at.field("revision"), x.revision)?;
                Ok(Self::Answer { revision, record: record.transpose()? })
            }
            Some(Outcome::Refused(x)) => {
                Refusal::decode_at(at.field("refused"), x).map(Self::Refused)
            }
            Some(Outcome::NotLeader(x)) => {
                leader(at.field("not_leader").field("leader"), &x.leader).map(Self::NotLeader)
            }
            None => Err(at.field("outcome").missing("a reply has an answer or says why not")),
        }
    }

    pub fn encode(&self) -> proto::ReadReply {
        use read_reply::Outcome;
        let outcome = match self {
            Self::Answer { revision, record } => Outcome::Answer(proto::ReadAnswer {
                revision: Some(encode_revision(*revision)),
                record: record.as_ref().map(RecordEntry::to_proto),
            }),
            Self::Refused(refusal) => Outcome::Refused(refusal.to_proto()),
            Self::NotLeader(leader) => Outcome::NotLeader(encode_leader(*leader)),
        };
        proto::ReadReply { outcome: Some(outcome) }
    }
}

/// The newest Heads and the revocations that one side knows: request and reply alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heads {
    pub heads: Vec<Signed>,
    pub revocations: Vec<Signed>,
}

impl Heads {
    pub fn decode_request(request: proto::HeadsRequest) -> Result<Self, WireError> {
        Self::decode(At::message("HeadsRequest"), request.heads, request.revocations)
    }

    pub fn decode_reply(reply: proto::HeadsReply) -> Result<Self, WireError> {
        Self::decode(At::message("HeadsReply"), reply.heads, reply.revocations)
    }

    fn decode(
        at: At<'_>,
        heads: Vec<proto::Signed>,
        revocations: Vec<proto::Signed>,
    ) -> Result<Self, WireError> {
        let heads = list(&at, "heads", heads, limits::HEADS_MAX, Signed::from_proto)?;
        Ok(Self { heads, revocations: signed_list(&at, revocations)? })
    }

    pub fn encode_request(&self) -> proto::HeadsRequest {
        let heads = self.heads.iter().map(Signed::to_proto).collect();
        let revocations = self.revocations.iter().map(Signed::to_proto).collect();
        proto::HeadsRequest { heads, revocations }
    }

    pub fn encode_reply(&self) -> proto::HeadsReply {
        let proto::HeadsRequest { heads, revocations } = self.encode_request();
        proto::HeadsReply { heads, revocations }
    }
}
