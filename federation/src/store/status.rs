//! How a node of the store is doing, for operators.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::Revision;
use openraft::ServerState;
use tokio::time::Instant;

use super::Store;
use super::seam::Machine;

/// What a node is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It belongs to no store yet.
    Empty,
    Leader,
    Follower,
    Candidate,
    /// It has the log, but no vote.
    Standby,
    /// It lost its log and takes part in nothing until the members have let it go.
    Reseeding,
    /// Its disk failed or was found damaged while it ran.
    Failed,
    Stopped,
}

/// How another member is doing, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    pub node_id: u64,
    pub voter: bool,
    /// The last entry that it is known to have.
    pub matched: Option<u64>,
    /// How long ago the newest append that it answered was sent.
    pub acked_age: Option<Duration>,
}

/// A node of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    pub node_id: u64,
    pub role: Role,
    pub leader: Option<u64>,
    pub term: u64,
    pub epoch: u64,
    pub last_log: Option<u64>,
    pub applied: Revision,
    /// Entries up to this one are no longer in the log.
    pub purged: Option<u64>,
    /// The last snapshot's entry.
    pub snapshot: Option<u64>,
    pub voters: Vec<u64>,
    pub standbys: Vec<u64>,
    /// On others than a leader: how long ago one was heard, or how long ago this node started.
    /// `leader` stays who it was, also for a node that was taken out of the group and not told so.
    pub silence: Option<Duration>,
    /// On a leader: how long ago a quorum followed it.
    pub quorum_ack_age: Option<Duration>,
    /// On a leader: the other members.
    pub peers: Vec<PeerStatus>,
    /// Why the node does not work, if it does not.
    pub fault: Option<String>,
    /// A higher epoch that another node spoke of: the store was recovered without this node.
    pub fenced_by: Option<u64>,
    /// Why a leader's snapshot was refused, while nothing of a leader has been taken since.
    pub distrusted: Option<String>,
}

impl<M: Machine> Store<M> {
    pub fn status(&self) -> StoreStatus {
        let inner = &*self.inner;
        let metrics = inner.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let standbys: Vec<u64> = membership.learner_ids().collect();
        let damage = inner.media.damage().map(str::to_owned);
        let stopped = inner.stop.is_cancelled();
        let fault = damage.or_else(|| match &metrics.running_state {
            Err(error) if !stopped => Some(error.to_string()),
            _ => None,
        });
        let reseeding = inner.reseeding.load(Ordering::Acquire);
        let role = match metrics.state {
            _ if stopped => Role::Stopped,
            _ if fault.is_some() => Role::Failed,
            _ if reseeding => Role::Reseeding,
            _ if voters.is_empty() => Role::Empty,
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Standby,
            ServerState::Shutdown => Role::Stopped,
        };
        let now = Instant::now();
        let matched = metrics.replication.clone().unwrap_or_default();
        let peer = |(node_id, matched): (u64, Option<super::types::LogId>)| PeerStatus {
            node_id,
            voter: voters.contains(&node_id),
            matched: matched.map(|id| id.index),
            acked_age: inner.links.acked(node_id).map(|acked| now - acked),
        };
        let others = matched.into_iter().filter(|(id, _)| *id != inner.config.node_id);
        let peers = others.map(peer).collect();
        let fenced = inner.fenced.load(Ordering::Acquire);
        StoreStatus {
            node_id: inner.config.node_id,
            role,
            leader: metrics.current_leader,
            term: metrics.current_term,
            epoch: self.epoch(),
            last_log: metrics.last_log_index,
            applied: self.state_at().0,
            purged: metrics.purged.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            silence: (metrics.state != ServerState::Leader).then(|| inner.ballot.silence()),
            quorum_ack_age: inner.ballot.quorum_age(&metrics),
            peers,
            fault,
            distrusted: inner.distrusted.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            fenced_by: (fenced > self.epoch()).then_some(fenced),
            voters,
            standbys,
        }
    }
}
