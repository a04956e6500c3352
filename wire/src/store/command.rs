//! Commands: what one log entry holds.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;

use super::convert::{copied, fixed, message, positive, required};
use super::key::StoreKey;
use super::limits;
use super::member::SignedMember;
use super::proto::{self, command};
use super::signed::Signed;
use super::token::TokenId;
use crate::error::{At, WireError};

/// One proposal. Applied whole or refused whole, alike on every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Random; a retry has the same one and takes effect once.
    pub request_id: [u8; 16],
    /// The proposer's clock.
    pub proposed_at_unix_ms: u64,
    pub change: Change,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The first entry of a federation: its root.
    Found(SignedMember),
    Publish(Publish),
    /// A [`super::TokenGrant`].
    IssueToken(Signed),
    Redeem(Redeem),
    UpdateMember(SignedMember),
    /// A [`super::Leave`].
    Leave(Signed),
    /// A [`super::Revocation`].
    Revoke(Signed),
    /// An [`super::AdminStatement`].
    Admin(Signed),
}

impl Change {
    /// For logs, audit and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Found(_) => "found",
            Self::Publish(_) => "publish",
            Self::IssueToken(_) => "issue-token",
            Self::Redeem(_) => "redeem",
            Self::UpdateMember(_) => "update-member",
            Self::Leave(_) => "leave",
            Self::Revoke(_) => "revoke",
            Self::Admin(_) => "admin",
        }
    }
}

/// An owner's step to a new [`super::Head`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub head: Signed,
    pub puts: Vec<RecordPut>,
    pub removes: Vec<StoreKey>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPut {
    pub key: StoreKey,
    /// The bytes that the leaf is over, see [`super::Record`].
    pub record: Bytes,
}

/// A token becomes a member, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redeem {
    pub token_id: TokenId,
    /// Signed by the token's issuer, with the joiner's consent.
    pub member: SignedMember,
    pub first: Option<Publish>,
}

impl Command {
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        use command::Change as Sent;
        let at = At::message("Command");
        let sent: proto::Command = message(&at, bytes, limits::COMMAND_BYTES_MAX)?;
        let signed = |name, signed| Signed::from_proto(at.field(name), signed);
        let member = |name, member| SignedMember::required(at.field(name), Some(member));
        let change = match sent.change {
            Some(Sent::Found(x)) => Change::Found(member("found", x)?),
            Some(Sent::Publish(x)) => Change::Publish(Publish::from_proto(at.field("publish"), x)?),
            Some(Sent::IssueToken(x)) => Change::IssueToken(signed("issue_token", x)?),
            Some(Sent::Redeem(x)) => Change::Redeem(redeem(at.field("redeem"), x)?),
            Some(Sent::UpdateMember(x)) => Change::UpdateMember(member("update_member", x)?),
            Some(Sent::Leave(x)) => Change::Leave(signed("leave", x)?),
            Some(Sent::Revoke(x)) => Change::Revoke(signed("revoke", x)?),
            Some(Sent::Admin(x)) => Change::Admin(signed("admin", x)?),
            None => {
                let fix = "it is empty or newer than this build; every node must know it";
                return Err(at.field("change").missing(fix));
            }
        };
        let proposed_at = at.field("proposed_at_unix_ms");
        Ok(Self {
            request_id: fixed(at.field("request_id"), &sent.request_id)?,
            proposed_at_unix_ms: positive(proposed_at, sent.proposed_at_unix_ms)?,
            change,
        })
    }

    /// Whether it is short enough is for [`Self::decode`] to say.
    pub fn encode(&self) -> Vec<u8> {
        use command::Change as Sent;
        let change = match &self.change {
            Change::Found(x) => Sent::Found(x.to_proto()),
            Change::Publish(x) => Sent::Publish(x.to_proto()),
            Change::IssueToken(x) => Sent::IssueToken(x.to_proto()),
            Change::Redeem(x) => Sent::Redeem(proto::Redeem {
                token_id: copied(x.token_id.as_bytes()),
                member: Some(x.member.to_proto()),
                first: x.first.as_ref().map(Publish::to_proto),
            }),
            Change::UpdateMember(x) => Sent::UpdateMember(x.to_proto()),
            Change::Leave(x) => Sent::Leave(x.to_proto()),
            Change::Revoke(x) => Sent::Revoke(x.to_proto()),
            Change::Admin(x) => Sent::Admin(x.to_proto()),
        };
        let command = proto::Command {
            request_id: copied(&self.request_id),
            proposed_at_unix_ms: self.proposed_at_unix_ms,
            change: Some(change),
        };
        command.encode_to_vec()
    }
}

fn redeem(at: At<'_>, sent: proto::Redeem) -> Result<Redeem, WireError> {
    let first = sent.first.map(|first| Publish::from_proto(at.field("first"), first));
    Ok(Redeem {
        token_id: TokenId::from_bytes(fixed(at.field("token_id"), &sent.token_id)?),
        member: SignedMember::required(at.field("member"), sent.member)?,
        first: first.transpose()?,
    })
}

impl Publish {
    pub(super) fn from_proto(at: At<'_>, sent: proto::Publish) -> Result<Self, WireError> {
        let changes = sent.puts.len() + sent.removes.len();
        at.field("puts and removes").check_len(changes, limits::RECORDS_PER_CLUSTER_MAX)?;
        let mut publish = Self {
            head: Signed::required(at.field("head"), sent.head)?,
            puts: Vec::with_capacity(sent.puts.len()),
            removes: Vec::with_capacity(sent.removes.len()),
        };
        let mut named = BTreeSet::new();
        let mut unique = |at: At<'_>, key: &StoreKey| {
            if named.insert(key.clone()) {
                return Ok(());
            }
            Err(at.refuse(format_args!("{key}"), "name each key once, as a put or as a remove"))
        };
        for (index, put) in sent.puts.into_iter().enumerate() {
            let at = at.entry("puts", index);
            let key = StoreKey::decode_at(at.field("key"), &put.key)?;
            unique(at.field("key"), &key)?;
            at.field("record").check_bytes(put.record.len(), limits::RECORD_BYTES_MAX)?;
            if put.record.is_empty() {
                return Err(at.field("record").missing("send the record, or a remove"));
            }
            publish.puts.push(RecordPut { key, record: put.record });
        }
        for (index, key) in sent.removes.into_iter().enumerate() {
            let at = at.entry("removes", index);
            let key = StoreKey::decode_at(at, &key)?;
            unique(at, &key)?;
            publish.removes.push(key);
        }
        Ok(publish)
    }

    pub(super) fn required(at: At<'_>, sent: Option<proto::Publish>) -> Result<Self, WireError> {
        Self::from_proto(at, required(at, sent, "send head, puts and removes")?)
    }

    pub(super) fn to_proto(&self) -> proto::Publish {
        let put = |put: &RecordPut| proto::RecordPut {
            key: put.key.encode().into(),
            record: put.record.clone(),
        };
        proto::Publish {
            head: Some(self.head.to_proto()),
            puts: self.puts.iter().map(put).collect(),
            removes: self.removes.iter().map(|key| key.encode().into()).collect(),
        }
    }
}
