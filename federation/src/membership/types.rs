//! What [`super::Membership`] is asked for, and what it answers.

use std::fmt;
use std::time::{Duration, SystemTime};

use model::code::Code;
use model::{
    ClusterId, ClusterName, FederationId, PeerAddress, Revision, RoleSet, Transport, TrustDomain,
};
use wire::store::TokenId;

use crate::replica::Standing;

/// How this node takes part in a federation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// In no federation: peers come from ClusterPeer objects alone.
    Alone,
    /// In the store's Raft group, as a voter or a standby.
    Member,
    /// Fed by the watch stream of another node.
    Replica,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Member => "member",
            Self::Replica => "replica",
        }
    }
}

/// What [`super::Membership::init`] founded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founded {
    pub federation: FederationId,
    pub cluster: ClusterId,
    pub revision: Revision,
}

/// A token that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// The name that the new cluster will have.
    pub name: ClusterName,
    pub roles: RoleSet,
    /// How many generations of clusters the new one may admit.
    pub delegation_depth: u32,
    /// `None`: the default of 15 minutes.
    pub lifetime: Option<Duration>,
    /// Redeeming waits until a person has approved it.
    pub approval_needed: bool,
    /// Make the token even though none of this cluster's addresses answers.
    pub force: bool,
}

/// A token as a person carries it. Its text is a secret: it is shown by [`TokenText::expose`] only.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText(String);

impl TokenText {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(..)")
    }
}

/// A new token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedToken {
    pub text: TokenText,
    pub id: TokenId,
    pub name: ClusterName,
    pub expires: SystemTime,
    /// Every address that this cluster advertises, and whether it answered.
    pub addresses: Vec<AddressReport>,
    pub revision: Revision,
}

/// Whether an address led to the inviter, and what went wrong if not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressReport {
    pub address: PeerAddress,
    /// Why it did not answer, if it did not.
    pub outcome: Result<Answered, String>,
}

impl AddressReport {
    /// Of all addresses that were tried at once, of which the last one was done `after` the start.
    pub(super) fn all(
        attempts: Vec<(PeerAddress, Result<Transport, String>)>,
        after: Duration,
    ) -> Vec<Self> {
        let answered = |over| Answered { after, over };
        let report =
            |(address, over): (_, Result<_, _>)| Self { address, outcome: over.map(answered) };
        attempts.into_iter().map(report).collect()
    }
}

/// An inviter that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    pub after: Duration,
    /// TCP also at an address of QUIC, where UDP does not pass.
    pub over: Transport,
}

/// What has become of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    Open,
    Expired,
    /// The cluster that redeemed it.
    Redeemed(ClusterId),
    Revoked,
}

/// A token as the store knows it: everything but the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    pub id: TokenId,
    pub name: ClusterName,
    pub roles: RoleSet,
    pub issuer: ClusterId,
    pub issued: SystemTime,
    pub expires: SystemTime,
    pub approval_needed: bool,
    pub state: TokenState,
}

/// What a token says, before anybody is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFacts {
    pub id: TokenId,
    pub federation: FederationId,
    pub name: ClusterName,
    pub roles: RoleSet,
    /// The inviter's federation SPIFFE ID.
    pub inviter: String,
    pub addresses: Vec<PeerAddress>,
    pub expires: SystemTime,
}

/// What `join --pre` found; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinCheck {
    pub facts: TokenFacts,
    pub addresses: Vec<AddressReport>,
    /// The inviter would admit this cluster, or why not.
    pub verdict: Result<(), (Code, String)>,
}

/// What happens while a cluster joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinProgress {
    TokenRead(TokenFacts),
    AddressTried(AddressReport),
    /// The inviter waits for a person.
    WaitingForApproval,
    Redeemed {
        revision: Revision,
    },
    /// Everything received was verified and is on disk.
    Stored {
        members: usize,
        revision: Revision,
    },
    /// This cluster's own records are in the store.
    Published {
        revision: Revision,
    },
}

/// A finished join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub federation: FederationId,
    pub cluster: ClusterId,
    pub inviter: ClusterName,
    pub members: usize,
    pub revision: Revision,
}

/// A cluster that waits at this node for a person's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingJoin {
    pub cluster: ClusterId,
    pub name: ClusterName,
    pub token: TokenId,
    pub trust_domains: Vec<TrustDomain>,
    /// Where it called from.
    pub remote: String,
    pub waiting: Duration,
}

/// How this cluster is to leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeaveRequest {
    /// Withdraw all exports, and wait this long before leaving.
    pub drain: Option<Duration>,
    /// Leave even if nobody can be told.
    pub force: bool,
}

/// Whom a revocation is aimed at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevokeTarget {
    Cluster(ClusterName),
    TrustDomain(TrustDomain),
}

/// A revocation that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokeRequest {
    pub target: RevokeTarget,
    pub reason: String,
    /// Members that the target had admitted and that stay: this cluster becomes their issuer.
    pub reanchor: Vec<ClusterName>,
}

/// A revocation in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Absent while no quorum has logged it; it is in force here, and told to every peer, anyway.
    pub revision: Option<Revision>,
    /// Peers that have confirmed it, and those that could not be told yet.
    pub told: Vec<ClusterName>,
    pub untold: Vec<ClusterName>,
}

/// One member of the federation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRow {
    pub cluster: ClusterId,
    pub name: ClusterName,
    pub trust_domains: Vec<TrustDomain>,
    pub roles: RoleSet,
    pub delegation_depth: u32,
    /// The root is its own issuer.
    pub issuer: ClusterId,
    pub active: bool,
    pub revoked: bool,
    pub own: bool,
    /// Of its last Head: epoch and generation.
    pub head: Option<(u64, u64)>,
    pub records: usize,
    pub store_role: StoreRole,
    /// Since anything new was heard of it, and what that means; absent for this cluster itself.
    pub heard: Option<(Duration, Standing)>,
    /// How this node reaches the member's, for people; empty: not at all.
    pub path: String,
}

/// What a cluster is to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreRole {
    Leader,
    Voter,
    Standby,
    Replica,
    /// This node cannot tell.
    Unknown,
}

impl StoreRole {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Voter => "voter",
            Self::Standby => "standby",
            Self::Replica => "replica",
            Self::Unknown => "unknown",
        }
    }
}

/// The store as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreView {
    pub mode: Mode,
    /// `None` while alone.
    pub federation: Option<FederationId>,
    pub role: StoreRole,
    pub leader: Option<ClusterName>,
    /// Raft's, for a member of the group.
    pub term: Option<u64>,
    pub last_log: Option<u64>,
    /// The newest revision that this node has applied or received.
    pub applied: Revision,
    pub voters: Vec<ClusterName>,
    pub standbys: Vec<ClusterName>,
    /// On the leader: since a quorum last confirmed it.
    pub quorum_age: Option<Duration>,
    /// On a Replica: whom the watch comes from, and since when nothing came.
    pub source: Option<ClusterName>,
    pub source_age: Option<Duration>,
    /// On a member of the group that does not lead: since it heard of the leader.
    pub leader_age: Option<Duration>,
    /// What stops the node from taking part, for instance a damaged log.
    pub problem: Option<String>,
}

/// A file that holds a snapshot of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFacts {
    pub revision: Revision,
    /// Keys and values together.
    pub bytes: u64,
    /// How many keys.
    pub pairs: u64,
    /// SHA-256 over them.
    pub digest: [u8; 32],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_shows_in_debug_output() {
        let text = TokenText::new("fedgate1.c2VjcmV0");
        assert_eq!(format!("{text:?}"), "TokenText(..)");
        assert_eq!(text.expose(), "fedgate1.c2VjcmV0");
    }
}
