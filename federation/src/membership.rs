//! The federation as this cluster is in it: founding, joining, leaving, and what the store says.
//!
//! A [`node::Node`] is this cluster in a federation, or alone, for as long as it has one federation
//! key. It follows its own store while it is in the Raft group, and others' watch while it is not;
//! both end in one verified state, from which everything else follows: whom the transport speaks
//! with, what gateways are told, what this cluster still has to publish, who votes.

mod attempts;
mod change;
mod contacts;
mod control;
mod current;
mod departed;
mod error;
mod exports;
mod grants;
mod join_client;
mod join_server;
mod linear;
mod machine;
mod mark;
mod node;
mod pending;
mod propose;
mod publish;
mod revocations;
mod service;
mod start;
mod store_ops;
mod tasks;
mod tokens;
mod types;
mod voters;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use model::code::DATA_FOLDER_UNUSABLE;
use model::{ClusterId, ClusterName, Revision, ServiceName};
use tokio::sync::mpsc;
use wire::store::TokenId;

use current::Current;
use node::Node;

pub use error::MembershipError;
pub use exports::ExportRow;
pub(crate) use join_server::JoinServer;
pub(crate) use node::Advertised;
pub(crate) use service::StoreServer;
pub(crate) use start::Ground;
pub(crate) use tasks::take_heard;
pub use types::{
    AddressReport, Answered, Founded, IssuedToken, JoinCheck, JoinProgress, Joined, LeaveRequest,
    MemberRow, Mode, PendingJoin, RevokeRequest, RevokeTarget, Revoked, SnapshotFacts, StoreRole,
    StoreView, TokenFacts, TokenRequest, TokenRow, TokenState, TokenText,
};

/// What operators ask of the federation. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Membership {
    ground: Arc<Ground>,
    current: Current,
}

impl Membership {
    /// Starts the node with the key and the store that are on disk.
    pub(crate) async fn start(ground: Ground) -> anyhow::Result<Self> {
        let node = ground.start().await?;
        Ok(Self { ground: Arc::new(ground), current: Current::new(node) })
    }

    /// Ends the store's tasks; the node has been told to stop.
    pub(crate) async fn end_store(&self) {
        self.node().store().shutdown().await;
    }

    /// Ends the store and lets go of its folder, also if a task that nobody waits for still holds it:
    /// openraft's worker of the state ends some time after openraft's end was awaited.
    pub(crate) async fn close(&self) {
        let node = self.node();
        node.store().shutdown().await;
        let disk = node.disk.clone();
        if let Err(problem) = tokio::task::spawn_blocking(move || disk.close()).await {
            tracing::error!(%problem, "the store was not closed");
        }
    }

    pub(crate) fn current(&self) -> &Current {
        &self.current
    }

    pub(crate) fn node(&self) -> Arc<Node> {
        self.current.node()
    }

    /// This cluster's id; another one after leaving a federation.
    pub fn own(&self) -> ClusterId {
        self.node().own.id
    }

    pub fn name(&self) -> &ClusterName {
        &self.ground.name
    }

    pub fn mode(&self) -> Mode {
        self.node().mode()
    }

    /// Why the store takes no more writes, if it has refused one: only another process brings it back.
    pub fn store_fault(&self) -> Option<String> {
        self.node().store_fault()
    }

    /// The verified state with its revision; `None` while alone.
    pub fn state(&self) -> Option<(Revision, Arc<crate::fleet::Fleet>)> {
        self.node().state()
    }

    /// Founds a federation with this cluster as its root and its store's one voter.
    pub async fn init(&self) -> Result<Founded, MembershipError> {
        self.node().init().await
    }

    /// Makes a token for one new cluster, after this cluster's addresses have been tried.
    pub async fn issue_token(&self, request: TokenRequest) -> Result<IssuedToken, MembershipError> {
        self.node().issue_token(request).await
    }

    pub fn tokens(&self) -> Result<Vec<TokenRow>, MembershipError> {
        self.node().tokens()
    }

    /// As [`Self::tokens`], with everything that any node acknowledged before.
    pub async fn tokens_now(&self) -> Result<Vec<TokenRow>, MembershipError> {
        let node = self.node();
        node.catch_up().await?;
        node.tokens()
    }

    pub async fn revoke_token(&self, id: TokenId) -> Result<Revision, MembershipError> {
        self.node().revoke_token(id).await
    }

    /// What the token says; asks nobody.
    pub fn read_token(&self, text: &TokenText) -> Result<TokenFacts, MembershipError> {
        join_client::parse(text).map(|token| join_client::facts(&token))
    }

    /// Tries every address of the token and asks the inviter for its verdict. Changes nothing.
    pub async fn check_token(&self, text: &TokenText) -> Result<JoinCheck, MembershipError> {
        self.node().check_token(text).await
    }

    /// Joins by the token. May be called again after any failure. The receiver may be dropped.
    pub async fn join(
        &self,
        text: &TokenText,
        progress: mpsc::Sender<JoinProgress>,
    ) -> Result<Joined, MembershipError> {
        self.node().join(text, progress).await
    }

    /// Clusters that wait at this node for approval.
    pub fn pending(&self) -> Vec<PendingJoin> {
        self.node().pending.list(Instant::now())
    }

    pub fn approve(&self, cluster: ClusterId) -> Result<(), MembershipError> {
        self.decide(cluster, true)
    }

    pub fn deny(&self, cluster: ClusterId) -> Result<(), MembershipError> {
        self.decide(cluster, false)
    }

    fn decide(&self, cluster: ClusterId, approved: bool) -> Result<(), MembershipError> {
        let decided = self.node().pending.decide(&cluster, approved);
        decided.then_some(()).ok_or(MembershipError::NotPending { cluster })
    }

    /// Takes this cluster out of the federation; it is alone afterwards, with a new federation key.
    /// `Ok(None)`: it left by force and told nobody.
    pub async fn leave(&self, request: LeaveRequest) -> Result<Option<Revision>, MembershipError> {
        let node = self.node();
        let Ok(_one) = node.changing.try_lock() else { return Err(MembershipError::Busy) };
        if let Err(error) = node.fleet()
            && (error == MembershipError::Alone || !request.force)
        {
            return Err(error);
        }
        let revision = node.leave_federation(request).await?;
        let next = self.ground.begin_anew(&node).await.map_err(|error| MembershipError::Store {
            code: DATA_FOLDER_UNUSABLE,
            problem: format!("{error:#}; start the node again"),
        })?;
        self.current.replace(next);
        tracing::info!(target: "fedgate::audit", "this cluster has left its federation");
        Ok(revision)
    }

    /// Takes another cluster out, as an admin; it may join again by a new token.
    pub async fn remove(&self, name: &ClusterName) -> Result<Revision, MembershipError> {
        self.node().remove(name).await
    }

    /// Active members that the cluster admitted: each is to be re-anchored or revoked with it.
    pub fn admitted_by(&self, name: &ClusterName) -> Result<Vec<MemberRow>, MembershipError> {
        let node = self.node();
        let fleet = node.fleet()?;
        let member = fleet.member_named(name).ok_or_else(|| change::unknown(name))?;
        let children: Vec<ClusterId> = fleet.children(&member.cluster).map(|m| m.cluster).collect();
        let rows = node.members().into_iter();
        Ok(rows.filter(|row| children.contains(&row.cluster)).collect())
    }

    /// Shuts a cluster or trust domain out at once, here and by any path.
    pub async fn revoke(&self, request: RevokeRequest) -> Result<Revoked, MembershipError> {
        self.node().revoke(request).await
    }

    /// Every member ever, in order of names.
    pub fn members(&self) -> Vec<MemberRow> {
        self.node().members()
    }

    /// Who exports a service, as this cluster may see it.
    pub fn exports(&self, service: &ServiceName) -> Vec<ExportRow> {
        self.node().exports(service)
    }

    pub fn store_status(&self) -> Result<StoreView, MembershipError> {
        self.node().store_status()
    }

    /// Hands leadership to a voter, or to the one that is furthest ahead.
    pub async fn transfer(&self, to: Option<&ClusterName>) -> Result<ClusterName, MembershipError> {
        self.node().transfer(to).await
    }

    /// Names the standbys, as an admin; an empty list means none.
    pub async fn set_standbys(&self, names: &[ClusterName]) -> Result<Revision, MembershipError> {
        self.node().set_standbys(names).await
    }

    /// Writes the state into a new file (mode 0600), read back and verified.
    pub async fn save_snapshot(&self, path: &Path) -> Result<SnapshotFacts, MembershipError> {
        self.node().save_snapshot(path).await
    }

    /// Verifies every checksum, signature and digest of a file.
    pub async fn verify_snapshot(&self, path: &Path) -> Result<SnapshotFacts, MembershipError> {
        Node::verify_snapshot(path).await
    }

    /// Replaces the state by that of a file, in a new store epoch with this node as the one voter.
    pub async fn restore(&self, path: &Path) -> Result<Revision, MembershipError> {
        self.node().restore(path).await
    }

    /// Goes on from this node's own state when the quorum is lost for good: a new store epoch with
    /// this node as the one voter. What only the lost voters had is gone.
    pub async fn recover(&self) -> Result<Revision, MembershipError> {
        self.node().recover().await
    }

    /// Lays every member's Heads beside this node's own, which are verified again.
    pub async fn verify_all(&self) -> Result<crate::replica::VerifyReport, MembershipError> {
        let node = self.node();
        let fleet = node.fleet()?;
        Ok(node.verify_all(&fleet).await)
    }
}
