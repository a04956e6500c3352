//! Who votes and who stands by; handing leadership over; coming back after a lost log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, EmptyNode};
use tokio::sync::RwLockWriteGuard;
use tokio::time::Instant;

use super::record::RESEED_KEY;
use super::rpc::{Call, Reply};
use super::seam::{Family, Machine, RpcKind, Step};
use super::{ProposeError, Store, closed};
use crate::limits::{STORE_CATCH_UP_TIMEOUT, STORE_MEMBERS_MAX};

/// Entries that a new voter may be behind when it begins to vote.
const NEAR_ENTRIES: u64 = 64;

/// Why the members were not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    #[error("the members are wrong: {0}")]
    Wrong(&'static str),
    #[error("node {0:016x} leads and is not among the new voters: transfer leadership first")]
    LeaderLeaves(u64),
    /// It is left out of the members again.
    #[error("node {node:016x} did not catch up within {} s; is it reachable?", timeout.as_secs())]
    Behind { node: u64, timeout: Duration },
    #[error("another change of members is in progress; try again")]
    InProgress,
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// Why leadership was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error("node {0:016x} is no voter; voters are listed by `fedctl store peers`")]
    NotVoter(u64),
    #[error("node {0:016x} did not take leadership over; this node goes on leading")]
    NotTaken(u64),
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// Why a node that lost its log may not come back yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadmitError {
    #[error("this node is still a member, with the log it lost: remove it, then add it again")]
    StillMember,
    #[error("no leader answered: {0}")]
    NoLeader(String),
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

impl<M: Machine> Store<M> {
    /// Makes these nodes the voters and those the standbys: new ones first as standbys until they
    /// have caught up, then the voters by joint consensus, then whoever is neither goes. It can be
    /// called again after a failure.
    pub async fn set_members(
        &self,
        voters: BTreeSet<u64>,
        standbys: BTreeSet<u64>,
    ) -> Result<(), MembersError> {
        check_members(&voters, &standbys)?;
        let Ok(_one) = self.inner.changing.try_lock() else {
            return Err(MembersError::InProgress);
        };
        self.check_leads()?;
        if !voters.contains(&self.node_id()) {
            return Err(MembersError::LeaderLeaves(self.node_id()));
        }
        let wanted: BTreeSet<u64> = voters.union(&standbys).copied().collect();
        let held = self.members();
        let new: BTreeSet<u64> = wanted.difference(&held.all).copied().collect();
        if !new.is_empty() {
            let nodes: BTreeMap<u64, EmptyNode> =
                new.iter().map(|id| (*id, EmptyNode {})).collect();
            self.change(ChangeMembers::AddNodes(nodes)).await?;
        }
        for voter in voters.difference(&held.voters) {
            if let Err(error) = self.catch_up(*voter).await {
                if !new.is_empty() {
                    let _ = self.change(ChangeMembers::RemoveNodes(new.clone())).await;
                }
                return Err(error);
            }
        }
        if held.voters != voters || held.joint {
            self.change(ChangeMembers::ReplaceAllVoters(voters)).await?;
        }
        let gone: BTreeSet<u64> = self.members().all.difference(&wanted).copied().collect();
        if !gone.is_empty() {
            self.change(ChangeMembers::RemoveNodes(gone)).await?;
        }
        Ok(())
    }

    async fn change(&self, change: ChangeMembers<u64, EmptyNode>) -> Result<(), MembersError> {
        let timeout = self.inner.config.profile.propose_timeout();
        let changed = self.inner.raft.change_membership(change, true);
        match tokio::time::timeout(timeout, changed).await {
            Err(_) => Err(ProposeError::Timeout(timeout).into()),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::Fatal(error))) => Err(closed(&error).into()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(other)))) => {
                Err(ProposeError::NotLeader { leader: other.leader_id }.into())
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error)))) => {
                Err(match error {
                    ChangeMembershipError::InProgress(_) => MembersError::InProgress,
                    other => ProposeError::Closed(other.to_string()).into(),
                })
            }
        }
    }

    async fn catch_up(&self, node: u64) -> Result<(), MembersError> {
        let node_id = self.node_id();
        let mut metrics = self.inner.raft.metrics();
        let near = metrics.wait_for(|metrics| {
            let matched = metrics.replication.as_ref().and_then(|all| all.get(&node).copied());
            let last = metrics.last_log_index.unwrap_or(0);
            let near = matched
                .flatten()
                .is_some_and(|matched| matched.index.saturating_add(NEAR_ENTRIES) >= last);
            near || metrics.current_leader != Some(node_id)
        });
        // Without the watch's guard: what follows looks at the metrics again.
        let near = async { near.await.map(|_| ()) };
        match tokio::time::timeout(STORE_CATCH_UP_TIMEOUT, near).await {
            Ok(Ok(())) => Ok(self.check_leads()?),
            Ok(Err(_)) => Err(ProposeError::Closed("it is shutting down".into()).into()),
            Err(_) => Err(MembersError::Behind { node, timeout: STORE_CATCH_UP_TIMEOUT }),
        }
    }

    /// Hands leadership to another voter. openraft 0.9 has no call for it: this node pauses its
    /// proposals and heartbeats until nobody is bound to it any more, then the other one stands.
    /// Proposals wait meanwhile, for about an election time.
    pub async fn transfer(&self, to: u64) -> Result<(), TransferError> {
        let inner = &*self.inner;
        let _one = inner.changing.lock().await;
        self.check_leads()?;
        if to == self.node_id() {
            return Ok(());
        }
        if !self.members().voters.contains(&to) {
            return Err(TransferError::NotVoter(to));
        }
        // Undone also if the caller gives up in the middle.
        let _paused = Paused::begin(self, to).await;
        self.hand_over(to).await
    }

    async fn hand_over(&self, to: u64) -> Result<(), TransferError> {
        let inner = &*self.inner;
        let profile = inner.config.profile;
        let mut metrics = inner.raft.metrics();
        let term = metrics.borrow().current_term;
        let has_all = metrics.wait_for(|metrics| {
            let matched = metrics.replication.as_ref().and_then(|all| all.get(&to).copied());
            matched.flatten().map(|matched| matched.index) >= metrics.last_log_index
        });
        let not_taken = |_| TransferError::NotTaken(to);
        let in_time = tokio::time::timeout(profile.election_max(), has_all).await;
        in_time.map_err(not_taken)?.map_err(|_| TransferError::NotTaken(to))?;
        // All leases end: that of the last append that a voter took, wherever it was on its way.
        loop {
            let voters = self.members().voters;
            let newest = voters.iter().filter_map(|voter| inner.links.acked(*voter)).max();
            let end = newest.map(|sent| sent + profile.heartbeat() / 2 + profile.election_max());
            match end.filter(|end| *end > Instant::now()) {
                Some(end) => tokio::time::sleep_until(end).await,
                None => break,
            }
        }
        let call = Call::Campaign { term };
        let called = inner.links.call(to, RpcKind::Vote, call, profile.election_min()).await;
        if let Err(error) = called {
            tracing::warn!(to, %error, "leadership was not handed over");
            return Err(TransferError::NotTaken(to));
        }
        let taken = metrics.wait_for(|metrics| metrics.current_leader == Some(to));
        let in_time = tokio::time::timeout(profile.election_max(), taken).await;
        in_time.map_err(not_taken)?.map_err(|_| TransferError::NotTaken(to))?;
        Ok(())
    }

    /// After [`reseed`](super::reseed): asks these nodes' leader whether the members have let this
    /// node go. If so it is an empty node from now on, and can be added again.
    pub async fn readmit(&self, peers: &[u64]) -> Result<(), ReadmitError> {
        let inner = &*self.inner;
        if !inner.reseeding.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut last = "no peer was given".to_owned();
        for peer in peers {
            let timeout = inner.config.profile.propose_timeout();
            match inner.links.call(*peer, RpcKind::Vote, Call::Standing, timeout).await {
                Ok(Reply::Standing { member: true }) => return Err(ReadmitError::StillMember),
                Ok(Reply::Standing { member: false }) => {
                    let marker = Step::Delete { family: Family::Meta, key: RESEED_KEY.to_vec() };
                    let gone = inner.media.run(|disk| disk.write(vec![marker], true)).await;
                    gone.map_err(|error| ProposeError::Closed(error.to_string()))?;
                    inner.reseeding.store(false, Ordering::Release);
                    return Ok(());
                }
                Ok(_) => last = format!("node {peer:016x} gave another call's answer"),
                Err(error) => last = format!("node {peer:016x}: {error}"),
            }
        }
        Err(ReadmitError::NoLeader(last))
    }

    pub(super) fn members(&self) -> Members {
        let metrics = self.inner.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        Members {
            // While the voters change, those of the new set.
            voters: membership.get_joint_config().last().cloned().unwrap_or_default(),
            all: membership.nodes().map(|(id, _)| *id).collect(),
            joint: membership.get_joint_config().len() > 1,
        }
    }
}

pub(super) struct Members {
    pub(super) voters: BTreeSet<u64>,
    pub(super) all: BTreeSet<u64>,
    joint: bool,
}

/// While it lives, this node sends no heartbeats and its proposals wait.
struct Paused<'a, M: Machine> {
    store: &'a Store<M>,
    _gate: RwLockWriteGuard<'a, ()>,
}

impl<'a, M: Machine> Paused<'a, M> {
    async fn begin(store: &'a Store<M>, to: u64) -> Self {
        let gate = store.inner.gate.write().await;
        store.inner.ballot.transferring_to.store(to, Ordering::Release);
        store.inner.raft.runtime_config().heartbeat(false);
        Self { store, _gate: gate }
    }
}

impl<M: Machine> Drop for Paused<'_, M> {
    fn drop(&mut self) {
        self.store.inner.raft.runtime_config().heartbeat(true);
        self.store.inner.ballot.end_transfer();
    }
}

fn check_members(voters: &BTreeSet<u64>, standbys: &BTreeSet<u64>) -> Result<(), MembersError> {
    if voters.is_empty() {
        return Err(MembersError::Wrong("there must be at least one voter"));
    }
    if !voters.is_disjoint(standbys) {
        return Err(MembersError::Wrong("a node is voter and standby: choose one"));
    }
    if voters.contains(&0) || standbys.contains(&0) {
        return Err(MembersError::Wrong("0 is no node"));
    }
    if voters.len() + standbys.len() > STORE_MEMBERS_MAX {
        return Err(MembersError::Wrong("there are more than STORE_MEMBERS_MAX"));
    }
    Ok(())
}
