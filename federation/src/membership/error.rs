//! Why something about the federation could not be done.

use std::fmt::Write as _;

use model::code::{self, Code};
use model::{ClusterId, ClusterName, FederationId};

use super::types::AddressReport;

/// Why [`super::Membership`] could not do as asked. Each has a registered code and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    #[error(
        "this cluster is in no federation; run `fedctl init` to found one, or `fedctl join TOKEN`"
    )]
    Alone,
    #[error(
        "this cluster is in the federation {federation} already; `fedctl leave` first to found or \
         join another one"
    )]
    AlreadyMember { federation: FederationId },
    #[error(
        "this cluster was taken out of its federation, or revoked; `fedctl leave --force` forgets \
         the federation, then it may join anew"
    )]
    Excluded,
    #[error("another founding, join, leave or restore is in progress here; wait for it to end")]
    Busy,
    /// The store's own answer: the proposal broke a rule, and nothing changed.
    #[error("{text}")]
    Refused { code: Code, text: String },
    #[error(
        "no quorum of the store answered ({detail}), so it is not known whether the change was \
         made; traffic goes on; `fedctl store status` shows who is missing, then try again"
    )]
    NoQuorum { detail: String },
    #[error("the token cannot be read: {problem}; copy it again, whole")]
    TokenMalformed { problem: String },
    #[error("the token has expired {ago_s} s ago; ask the inviter for a new one")]
    TokenExpired { ago_s: u64 },
    #[error("no address of the {whose} answered:{}\n{fix}", listed(reports))]
    NoAddressAnswered { whose: &'static str, reports: Vec<AddressReport>, fix: &'static str },
    #[error("the inviter refused: {text}")]
    JoinRefused { code: Code, text: String },
    #[error("what the inviter sent cannot be trusted: {problem}; nothing was stored")]
    JoinUntrusted { problem: String },
    #[error(
        "the connection to the inviter ended ({problem}); run the same `fedctl join` again, the \
         token is still this cluster's"
    )]
    JoinInterrupted { problem: String },
    #[error("no cluster of the federation has the name {name}; `fedctl clusters` lists them")]
    UnknownCluster { name: ClusterName },
    #[error("no cluster {cluster} waits for approval here; `fedctl join --list` shows who does")]
    NotPending { cluster: ClusterId },
    #[error("{problem}; {fix}")]
    NotAllowed { code: Code, problem: String, fix: &'static str },
    #[error("the store of this node: {problem}")]
    Store { code: Code, problem: String },
    #[error("cannot keep this on disk: {problem}")]
    Disk { problem: String },
}

impl MembershipError {
    /// The registered code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Alone => code::FEDERATION_NONE,
            Self::Busy => code::MEMBERSHIP_BUSY,
            Self::Excluded => code::NOT_A_MEMBER,
            Self::AlreadyMember { .. } => code::FEDERATION_JOINED,
            Self::NoQuorum { .. } => code::STORE_NO_QUORUM,
            Self::TokenMalformed { .. } | Self::TokenExpired { .. } => code::TOKEN_REFUSED,
            Self::NoAddressAnswered { .. } => code::JOIN_UNREACHABLE,
            Self::JoinUntrusted { .. } => code::JOIN_UNTRUSTED,
            Self::JoinInterrupted { .. } => code::JOIN_UNREACHABLE,
            Self::UnknownCluster { .. } => code::CLUSTER_NOT_FOUND,
            Self::NotPending { .. } => code::JOIN_NOT_PENDING,
            Self::Refused { code, .. }
            | Self::JoinRefused { code, .. }
            | Self::NotAllowed { code, .. }
            | Self::Store { code, .. } => *code,
            Self::Disk { .. } => code::DATA_FOLDER_UNUSABLE,
        }
    }
}

fn listed(reports: &[AddressReport]) -> String {
    let mut text = String::new();
    for report in reports {
        let address = &report.address;
        let outcome = match &report.outcome {
            Ok(answered) => format!("answered in {} ms", answered.after.as_millis()),
            Err(why) => why.clone(),
        };
        // Writing to a String does not fail.
        let transport = address.transport.as_str();
        let _ = write!(text, "\n  {transport} {}:{}: {outcome}", address.host, address.port);
    }
    if reports.is_empty() {
        text.push_str("\n  (there is none)");
    }
    text
}
