//! The federation as this cluster is in it: founding, joining, leaving, and what the store says.

mod error;
mod types;

use std::path::Path;
use std::sync::Arc;

use model::{ClusterId, ClusterName, Revision};
use tokio::sync::mpsc;

pub use error::MembershipError;
pub use types::{
    AddressReport, Founded, IssuedToken, JoinCheck, JoinProgress, Joined, LeaveRequest,
    MemberRow, Mode, PendingJoin, RevokeRequest, RevokeTarget, Revoked, SnapshotFacts,
    StoreRole, StoreView, TokenFacts, TokenRequest, TokenRow, TokenState, TokenText,
};
use wire::store::TokenId;

/// What operators ask of the federation. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Membership(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    own: ClusterId,
    name: ClusterName,
}

/// So far the node is alone; each answer says so until the parts below it are wired.
impl Membership {
    pub(crate) fn alone(own: ClusterId, name: ClusterName) -> Self {
        Self(Arc::new(Shared { own, name }))
    }

    pub fn own(&self) -> ClusterId {
        self.0.own
    }

    pub fn name(&self) -> &ClusterName {
        &self.0.name
    }

    pub fn mode(&self) -> Mode {
        Mode::Alone
    }

    /// Founds a federation with this cluster as its root and its store's one voter.
    pub async fn init(&self) -> Result<Founded, MembershipError> {
        Err(MembershipError::Alone)
    }

    /// Makes a token for one new cluster, after this cluster's addresses have been tried.
    pub async fn issue_token(&self, _: TokenRequest) -> Result<IssuedToken, MembershipError> {
        Err(MembershipError::Alone)
    }

    pub fn tokens(&self) -> Result<Vec<TokenRow>, MembershipError> {
        Err(MembershipError::Alone)
    }

    pub async fn revoke_token(&self, _: TokenId) -> Result<Revision, MembershipError> {
        Err(MembershipError::Alone)
    }

    /// What the token says; asks nobody.
    pub fn read_token(&self, _: &TokenText) -> Result<TokenFacts, MembershipError> {
        Err(MembershipError::Alone)
    }

    /// Tries every address of the token and asks the inviter for its verdict. Changes nothing.
    pub async fn check_token(&self, _: &TokenText) -> Result<JoinCheck, MembershipError> {
        Err(MembershipError::Alone)
    }

    /// Joins by the token. May be called again after any failure. The receiver may be dropped.
    pub async fn join(
        &self,
        _: &TokenText,
        _: mpsc::Sender<JoinProgress>,
    ) -> Result<Joined, MembershipError> {
        Err(MembershipError::Alone)
    }

    /// Clusters that wait at this node for approval.
    pub fn pending(&self) -> Vec<PendingJoin> {
        Vec::new()
    }

    pub fn approve(&self, cluster: ClusterId) -> Result<(), MembershipError> {
        Err(MembershipError::NotPending { cluster })
    }

    pub fn deny(&self, cluster: ClusterId) -> Result<(), MembershipError> {
        Err(MembershipError::NotPending { cluster })
    }

    /// Takes this cluster out of the federation. `Ok(None)`: it left by force and told nobody.
    pub async fn leave(&self, _: LeaveRequest) -> Result<Option<Revision>, MembershipError> {
        Err(MembershipError::Alone)
    }

    /// Takes another cluster out, as an admin; it may join again by a new token.
    pub async fn remove(&self, _: &ClusterName) -> Result<Revision, MembershipError> {
        Err(MembershipError::Alone)
    }

    /// Active members that the cluster admitted: each is to be re-anchored or revoked with it.
    pub fn admitted_by(&self, _: &ClusterName) -> Result<Vec<MemberRow>, MembershipError> {
        Err(MembershipError::Alone)
    }

    /// Shuts a cluster or trust domain out at once, here and by any path.
    pub async fn revoke(&self, _: RevokeRequest) -> Result<Revoked, MembershipError> {
        Err(MembershipError::Alone)
    }

    /// Every member ever, in order of names.
    pub fn members(&self) -> Vec<MemberRow> {
        Vec::new()
    }

    pub fn store_status(&self) -> Result<StoreView, MembershipError> {
        Err(MembershipError::Alone)
    }

    /// Hands leadership to a voter, or to the one that is furthest ahead.
    pub async fn transfer(&self, _: Option<&ClusterName>) -> Result<ClusterName, MembershipError> {
        Err(MembershipError::Alone)
    }

    /// Names the standbys, as an admin; an empty list means none.
    pub async fn set_standbys(&self, _: &[ClusterName]) -> Result<Revision, MembershipError> {
        Err(MembershipError::Alone)
    }

    /// Writes the state into a new file (mode 0600), read back and verified.
    pub async fn save_snapshot(&self, _: &Path) -> Result<SnapshotFacts, MembershipError> {
        Err(MembershipError::Alone)
    }

    /// Verifies every checksum, signature and digest of a file.
    pub async fn verify_snapshot(&self, _: &Path) -> Result<SnapshotFacts, MembershipError> {
        Err(MembershipError::Alone)
    }

    /// Replaces the state by that of a file, in a new store epoch with this node as the one voter.
    pub async fn restore(&self, _: &Path) -> Result<Revision, MembershipError> {
        Err(MembershipError::Alone)
    }

    /// Goes on from this node's own state when the quorum is lost for good: a new store epoch with
    /// this node as the one voter. What only the lost voters had is gone.
    pub async fn recover(&self) -> Result<Revision, MembershipError> {
        Err(MembershipError::Alone)
    }
}
