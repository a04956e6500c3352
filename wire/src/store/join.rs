//! `fedgate.join.v1`: a joiner and the node of the cluster that invited it.

use bytes::Bytes;
use model::{ClusterId, ClusterName, FederationId, Revision};

use super::command::Publish;
use super::convert::{cluster, copied, federation, fixed, positive, required};
use super::join_proto::{self as proto, redeem_event};
use super::limits;
use super::member::MemberChain;
use super::rpc::Refusal;
use super::signed::Signature;
use super::token::{TokenId, TokenSecret};
use super::watch::WatchEvent;
use crate::error::{At, WireError};
use crate::resource::convert::{encode_revision, parse, revision, text};

/// What a token is worth at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenState {
    Open,
    Expired,
    Used,
    Revoked,
    Unknown,
}

impl TokenState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Expired => "expired",
            Self::Used => "used",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
        }
    }
}

/// The inviter's answer before anything is at stake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReply {
    pub federation: FederationId,
    pub cluster: ClusterId,
    pub name: ClusterName,
    pub now_unix_ms: u64,
    pub token: TokenState,
    pub members: u32,
    pub version: String,
}

impl CheckReply {
    /// Reads a CheckRequest: which token it is about.
    pub fn decode_request(request: &proto::CheckRequest) -> Result<TokenId, WireError> {
        let at = At::message("CheckRequest");
        fixed(at.field("token_id"), &request.token_id).map(TokenId::from_bytes)
    }

    pub fn decode(reply: proto::CheckReply) -> Result<Self, WireError> {
        let at = At::message("CheckReply");
        let token = match proto::TokenState::try_from(reply.token) {
            Ok(proto::TokenState::Open) => TokenState::Open,
            Ok(proto::TokenState::Expired) => TokenState::Expired,
            Ok(proto::TokenState::Used) => TokenState::Used,
            Ok(proto::TokenState::Revoked) => TokenState::Revoked,
            Ok(proto::TokenState::Unknown) => TokenState::Unknown,
            _ => {
                let problem = "use OPEN (1), EXPIRED (2), USED (3), REVOKED (4) or UNKNOWN (5)";
                return Err(at.field("token").refuse(reply.token, problem));
            }
        };
        Ok(Self {
            federation: federation(at.field("federation"), &reply.federation)?,
            cluster: cluster(at.field("cluster"), &reply.cluster)?,
            name: parse(at.field("name"), &reply.name, ClusterName::parse)?,
            now_unix_ms: positive(at.field("now_unix_ms"), reply.now_unix_ms)?,
            token,
            members: reply.members,
            version: text(at.field("version"), reply.version)?,
        })
    }

    pub fn encode(&self) -> proto::CheckReply {
        let token = match self.token {
            TokenState::Open => proto::TokenState::Open,
            TokenState::Expired => proto::TokenState::Expired,
            TokenState::Used => proto::TokenState::Used,
            TokenState::Revoked => proto::TokenState::Revoked,
            TokenState::Unknown => proto::TokenState::Unknown,
        };
        proto::CheckReply {
            federation: copied(self.federation.as_bytes()),
            cluster: copied(self.cluster.as_bytes()),
            name: self.name.to_string(),
            now_unix_ms: self.now_unix_ms,
            token: token.into(),
            members: self.members,
            version: self.version.clone(),
        }
    }
}

/// A joiner's one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedeemRequest {
    pub token_id: TokenId,
    pub secret: TokenSecret,
    /// The payload of a [`super::Member`] that the issuer is to sign.
    pub member: Bytes,
    /// The joiner's key over `member`, domain [`super::Domain::Join`].
    pub key_proof: Signature,
    /// The joiner's key over the TLS exporter, domain [`super::Domain::Possession`].
    pub possession: Signature,
    pub first: Publish,
}

impl RedeemRequest {
    pub fn decode(request: proto::RedeemRequest) -> Result<Self, WireError> {
        let at = At::message("RedeemRequest");
        let member = at.field("member");
        member.check_bytes(request.member.len(), limits::PAYLOAD_BYTES_MAX)?;
        if request.member.is_empty() {
            return Err(member.missing("send the Member that is to be signed"));
        }
        Ok(Self {
            token_id: TokenId::from_bytes(fixed(at.field("token_id"), &request.token_id)?),
            secret: TokenSecret::from_bytes(fixed(at.field("secret"), &request.secret)?),
            member: request.member,
            key_proof: fixed(at.field("key_proof"), &request.key_proof)?,
            possession: fixed(at.field("possession"), &request.possession)?,
            first: Publish::required(at.field("first"), request.first)?,
        })
    }

    pub fn encode(&self) -> proto::RedeemRequest {
        proto::RedeemRequest {
            token_id: copied(self.token_id.as_bytes()),
            secret: copied(self.secret.expose()),
            member: self.member.clone(),
            key_proof: copied(&self.key_proof),
            possession: copied(&self.possession),
            first: Some(self.first.to_proto()),
        }
    }
}

/// Where a redemption is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    WaitingForApproval,
    Redeeming,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WaitingForApproval => "waiting for approval",
            Self::Redeeming => "redeeming",
        }
    }
}

/// The answer, in order: progress; then Joined or Refused; after Joined a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedeemEvent {
    /// A stage that this build does not know is `None`.
    Progress {
        stage: Option<Stage>,
        text: String,
    },
    Joined(Joined),
    Refused(Refusal),
    Snapshot(WatchEvent),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub revision: Revision,
    pub member: MemberChain,
    pub root: MemberChain,
}

impl RedeemEvent {
    pub fn decode(event: proto::RedeemEvent) -> Result<Self, WireError> {
        use redeem_event::Event;
        let at = At::message("RedeemEvent");
        match event.event {
            Some(Event::Progress(x)) => {
                let stage = match proto::Stage::try_from(x.stage) {
                    Ok(proto::Stage::WaitingForApproval) => Some(Stage::WaitingForApproval),
                    Ok(proto::Stage::Redeeming) => Some(Stage::Redeeming),
                    _ => None,
                };
                let text = text(at.field("progress").field("text"), x.text)?;
                Ok(Self::Progress { stage, text })
            }
            Some(Event::Joined(x)) => joined(at.field("joined"), x).map(Self::Joined),
            Some(Event::Refused(x)) => {
                Refusal::decode_at(at.field("refused"), x).map(Self::Refused)
            }
            Some(Event::Snapshot(x)) => {
                WatchEvent::decode_at(at.field("snapshot"), x).map(Self::Snapshot)
            }
            None => Err(at.field("event").missing("it is empty or newer than this build")),
        }
    }

    pub fn encode(&self) -> proto::RedeemEvent {
        use redeem_event::Event;
        let event = match self {
            Self::Progress { stage, text } => {
                let stage = stage.map_or(proto::Stage::Unspecified, |stage| match stage {
                    Stage::WaitingForApproval => proto::Stage::WaitingForApproval,
                    Stage::Redeeming => proto::Stage::Redeeming,
                });
                Event::Progress(proto::Progress { stage: stage.into(), text: text.clone() })
            }
            Self::Joined(x) => Event::Joined(proto::Joined {
                revision: Some(encode_revision(x.revision)),
                member: Some(x.member.to_proto()),
                root: Some(x.root.to_proto()),
            }),
            Self::Refused(refusal) => Event::Refused(refusal.to_proto()),
            Self::Snapshot(event) => Event::Snapshot(event.encode()),
        };
        proto::RedeemEvent { event: Some(event) }
    }
}

fn joined(at: At<'_>, sent: proto::Joined) -> Result<Joined, WireError> {
    let chain = |at: At<'_>, chain| {
        MemberChain::from_proto(at, required(at, chain, "send the member's chain")?)
    };
    Ok(Joined {
        revision: revision(at.field("revision"), sent.revision)?,
        member: chain(at.field("member"), sent.member)?,
        root: chain(at.field("root"), sent.root)?,
    })
}
