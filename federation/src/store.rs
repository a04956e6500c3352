//! The federation store's consensus: openraft behind a facade, its types nowhere else.
//!
//! A [`Store`] keeps one [`Machine`] the same on all its members. A proposal is acknowledged when a
//! quorum has it on the device. Times are those of a [`Profile`]. The seams ([`Machine`], [`Disk`],
//! [`Peers`]), tokio's clock and the seed are all that it touches of the world.

mod applied;
mod ballot;
mod format;
mod health;
mod log;
mod members;
mod network;
mod receive;
mod record;
mod recover;
mod rocks;
mod rpc;
mod seam;
mod serve;
mod status;
#[cfg(test)]
mod suite;
mod timing;
mod types;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::Revision;
use openraft::error::{CheckIsLeaderError, ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::{Config, Raft, SnapshotPolicy};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::applied::AppliedCommand;
use self::applied::{Applier, Replica};
use self::ballot::Ballot;
pub use self::ballot::Leadership;
use self::log::{Log, Media, put_meta};
pub use self::members::{MembersError, ReadmitError, TransferError};
use self::network::{Links, Network};
use self::receive::Receiver;
use self::record::{EPOCH_KEY, NODE_KEY};
pub use self::recover::{
    RecoverError, Recovered, SnapshotInfo, inspect_snapshot, load_snapshot, recover,
    replace_by_snapshot, reseed, restore_snapshot, verify_snapshot,
};
pub use self::rocks::{RocksDisk, set_aside};
pub use self::seam::{
    CallError, Disk, DiskError, Family, KvWrite, Machine, Outcome, Pair, Peers, RpcKind, Step,
};
pub use self::status::{PeerStatus, Role, StoreStatus};
pub use self::timing::Profile;
use self::types::{LogId, ReadError, Types};
use crate::limits::{
    STORE_CATCH_UP_TIMEOUT, STORE_COMMAND_BYTES_MAX, STORE_ENTRIES_PER_APPEND_MAX,
    STORE_LOG_ENTRIES, STORE_LOG_ENTRIES_KEPT, STORE_PROPOSALS_MAX,
};

/// Log positions that one purge takes.
const PURGE_BATCH: u64 = 64;

/// What a store is opened with.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// This node's number; never 0.
    pub node_id: u64,
    /// The epoch of a store that is founded here. One that exists has its own, on its disk.
    pub epoch: u64,
    pub profile: Profile,
    /// Where this node's election pauses come from.
    pub seed: u64,
    /// Entries after which the log's beginning may go, and how many of them stay.
    pub log_entries: u64,
    pub log_entries_kept: u64,
}

impl StoreConfig {
    pub fn new(node_id: u64, epoch: u64, profile: Profile, seed: u64) -> Self {
        Self {
            node_id,
            epoch,
            profile,
            seed,
            log_entries: STORE_LOG_ENTRIES,
            log_entries_kept: STORE_LOG_ENTRIES_KEPT,
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("node_id is 0, which stands for nobody; take the first 8 bytes of the ClusterId")]
    NodeId,
    /// The node neither votes nor serves with what is on this disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the store did not start: {0}")]
    Start(String),
}

/// A proposal that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    pub revision: Revision,
    /// The machine's reply; a refusal is one too.
    pub reply: Vec<u8>,
}

/// Why a proposal or a read was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was proposed.
    #[error("this node does not lead; {}", match leader {
        Some(leader) => format!("ask node {leader:016x}"),
        None => "no leader is known: ask again".to_owned(),
    })]
    NotLeader { leader: Option<u64> },
    /// Nothing was proposed: this node led, but no quorum follows it any more.
    #[error("no quorum of the voters answers; nothing was changed")]
    NoQuorum,
    /// It may yet be applied, or already have been.
    #[error("no quorum acknowledged within {} ms; the outcome is unknown", .0.as_millis())]
    Timeout(Duration),
    /// As with `Timeout`, if the proposal had begun.
    #[error("the store has stopped: {0}")]
    Closed(String),
    #[error(
        "the command has {bytes} bytes, at most {STORE_COMMAND_BYTES_MAX} are allowed: split it"
    )]
    TooLarge { bytes: usize },
    #[error("this node's store is already part of a federation; it can found no other")]
    AlreadyMember,
}

/// A node of the store. Clones are handles to the same node.
pub struct Store<M> {
    inner: Arc<Inner<M>>,
}

struct Inner<M> {
    config: StoreConfig,
    media: Media,
    raft: Raft<Types>,
    replica: Arc<Replica<M>>,
    links: Arc<Links>,
    ballot: Arc<Ballot>,
    epoch: watch::Sender<u64>,
    /// It led this term when it was last stopped, and its log ended there.
    resumed: Option<(u64, u64)>,
    /// It lost its log: it takes part in nothing until the members have let it go.
    reseeding: AtomicBool,
    /// A higher epoch that another node spoke of, 0 for none: the federation was recovered without us.
    fenced: AtomicU64,
    /// Why a leader's last snapshot was not taken over.
    distrusted: Mutex<Option<String>>,
    receiver: Mutex<Receiver>,
    proposals: Semaphore,
    calls: Semaphore,
    /// Held by the one change of members or leader in progress.
    changing: tokio::sync::Mutex<()>,
    /// Held while a transfer goes on, so that proposals wait; they go on in the order in which they came.
    gate: tokio::sync::RwLock<()>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl<M> Inner<M> {
    /// What was set before.
    fn set_distrusted(&self, problem: Option<String>) -> Option<String> {
        let mut known = self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut known, problem)
    }
}

/// Calls from other nodes that are worked on at the same time.
const CALLS_MAX: usize = 64;

impl<M: Machine> Store<M> {
    /// Checks all that is on the disk and starts. An empty disk gives a node that waits to found a
    /// store or to be taken into one. A damaged one gives [`DiskError::Damaged`].
    pub async fn open(
        config: StoreConfig,
        disk: Arc<dyn Disk>,
        peers: Arc<dyn Peers>,
    ) -> Result<Self, StoreError> {
        if config.node_id == 0 {
            return Err(StoreError::NodeId);
        }
        let (media, node_id) = (Media::new(disk), config.node_id);
        let loaded = media.run(move |disk| {
            let loaded = health::check::<M>(disk, node_id)?;
            let own = put_meta(NODE_KEY, record::encode_number(NODE_KEY, node_id));
            disk.write(vec![own], true)?;
            Ok(loaded)
        });
        let loaded = loaded.await?;
        let epoch = watch::Sender::new(loaded.epoch);
        let replica =
            Replica::new(media.clone(), epoch.subscribe(), loaded.machine, loaded.applied);
        let replica = Arc::new(replica);
        let links = Links::new(node_id, config.profile, peers, media.clone(), epoch.subscribe());
        let links = Arc::new(links);
        let raft = start(&config, &media, &replica, &links).await?;
        let ballot =
            Ballot::new(node_id, config.profile, config.seed, raft.clone(), Arc::clone(&links));
        let (ballot, stop) = (Arc::new(ballot), CancellationToken::new());
        let task = tokio::spawn(Arc::clone(&ballot).run(stop.clone()));
        let inner = Inner {
            config,
            media,
            raft,
            replica,
            links,
            ballot,
            epoch,
            resumed: loaded.resumed,
            reseeding: AtomicBool::new(loaded.reseeding),
            fenced: AtomicU64::new(0),
            distrusted: Mutex::default(),
            receiver: Mutex::default(),
            proposals: Semaphore::new(STORE_PROPOSALS_MAX),
            calls: Semaphore::new(CALLS_MAX),
            changing: tokio::sync::Mutex::default(),
            gate: tokio::sync::RwLock::default(),
            stop,
            task: Mutex::new(Some(task)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Founds a store with this node as its only voter, and proposes its first command. If it was
    /// founded already and no other node has come, this proposes only.
    pub async fn found(&self, first_command: Vec<u8>) -> Result<Proposed, ProposeError> {
        let inner = &*self.inner;
        if inner.reseeding.load(Ordering::Acquire) {
            return Err(ProposeError::AlreadyMember);
        }
        if *inner.epoch.borrow() == 0 {
            self.adopt_epoch(inner.config.epoch.max(1)).await?;
        }
        match inner.raft.initialize(BTreeSet::from([inner.config.node_id])).await {
            Ok(()) => {}
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                let own = Vec::from([inner.config.node_id]);
                if self.status().voters != own {
                    return Err(ProposeError::AlreadyMember);
                }
            }
            Err(RaftError::APIError(error)) => return Err(ProposeError::Closed(error.to_string())),
            Err(RaftError::Fatal(error)) => return Err(closed(&error)),
        }
        let timeout = inner.config.profile.propose_timeout();
        let mut leadership = self.leadership();
        // Without the watch's guard, so that this future may go to another thread.
        let led = async { leadership.wait_for(|now| now.own).await.map(|_| ()) };
        match tokio::time::timeout(timeout, led).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(ProposeError::Closed("it is shutting down".into())),
            Err(_) => return Err(ProposeError::Timeout(timeout)),
        }
        self.propose(first_command).await
    }

    /// Replicates a command and applies it. It returns when a quorum has it on the device and this
    /// node, which must be the leader, has applied it.
    pub async fn propose(&self, command: Vec<u8>) -> Result<Proposed, ProposeError> {
        let bytes = command.len();
        if bytes > STORE_COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes });
        }
        let timeout = self.inner.config.profile.propose_timeout();
        match tokio::time::timeout(timeout, self.write(command)).await {
            Ok(done) => done,
            Err(_) => Err(ProposeError::Timeout(timeout)),
        }
    }

    async fn write(&self, command: Vec<u8>) -> Result<Proposed, ProposeError> {
        let inner = &*self.inner;
        let stopping = || ProposeError::Closed("it is shutting down".into());
        drop(inner.gate.read().await);
        let _place = inner.proposals.acquire().await.map_err(|_| stopping())?;
        self.check_leads()?;
        let epoch = *inner.epoch.borrow();
        match inner.raft.client_write(command).await {
            Ok(done) => {
                let revision = Revision { epoch, index: done.log_id.index };
                Ok(Proposed { revision, reply: done.data })
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(other))) => {
                Err(ProposeError::NotLeader { leader: other.leader_id })
            }
            Err(RaftError::APIError(error)) => Err(ProposeError::Closed(error.to_string())),
            Err(RaftError::Fatal(error)) => Err(closed(&error)),
        }
    }

    fn check_leads(&self) -> Result<(), ProposeError> {
        let metrics = self.inner.raft.metrics().borrow().clone();
        if let Err(error) = &metrics.running_state {
            return Err(closed(error));
        }
        if metrics.current_leader != Some(self.inner.config.node_id) {
            return Err(ProposeError::NotLeader { leader: metrics.current_leader });
        }
        if self.inner.ballot.leads() { Ok(()) } else { Err(ProposeError::NoQuorum) }
    }

    /// Waits until this node's state has everything that was acknowledged before the call. A quorum
    /// must confirm that this node still leads.
    pub async fn linearizable(&self) -> Result<Revision, ProposeError> {
        self.check_leads()?;
        let timeout = self.inner.config.profile.propose_timeout();
        let confirmed = tokio::time::timeout(timeout, self.confirm()).await;
        let epoch = *self.inner.epoch.borrow();
        match confirmed {
            Err(_) => Err(ProposeError::Timeout(timeout)),
            Ok(Ok(id)) => Ok(Revision { epoch, index: id.map_or(0, |id| id.index) }),
            Ok(Err(RaftError::Fatal(error))) => Err(closed(&error)),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) => {
                Err(ProposeError::NoQuorum)
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(other)))) => {
                Err(ProposeError::NotLeader { leader: other.leader_id })
            }
        }
    }

    /// openraft 0.9 lets a leader that was restarted go on in its term, but no longer knows then how
    /// far it had committed, and acknowledged: it would read what was true before. All that it had in
    /// its log must be applied again first.
    async fn confirm(&self) -> Result<Option<LogId>, ReadError> {
        let inner = &*self.inner;
        let confirmed = inner.raft.ensure_linearizable().await?;
        let term = inner.raft.metrics().borrow().current_term;
        if let Some((_, last)) = inner.resumed.filter(|(led, _)| *led == term) {
            let mut applied = inner.replica.revision();
            let reached = applied.wait_for(|revision| revision.index >= last).await;
            reached.map_err(|_| RaftError::Fatal(Fatal::Stopped))?;
        }
        Ok(confirmed)
    }

    /// The state as this node has it, which may be behind the leader's.
    pub fn state(&self) -> Arc<M> {
        self.inner.replica.state().1
    }

    /// The state together with its revision.
    pub fn state_at(&self) -> (Revision, Arc<M>) {
        self.inner.replica.state()
    }

    /// The revision of the state, each time that it grows. It is sent after the state has changed.
    pub fn changes(&self) -> watch::Receiver<Revision> {
        self.inner.replica.revision()
    }

    /// The commands applied after `since`, in order. `None` if some of them are no longer known or
    /// came as a snapshot: take the whole state then. A revision of another epoch is one of these.
    pub fn applied_since(&self, since: Revision) -> Option<Vec<AppliedCommand>> {
        self.inner.replica.changes_since(since)
    }

    /// Who leads, each time that it changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.ballot.leadership()
    }

    pub fn node_id(&self) -> u64 {
        self.inner.config.node_id
    }

    /// The store's epoch, 0 before this node belongs to a store.
    pub fn epoch(&self) -> u64 {
        *self.inner.epoch.borrow()
    }

    /// Ends the node: what it has acknowledged is on the disk already. Then the disk may be closed.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.proposals.close();
        let task = self.inner.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "the store's task had failed");
        }
    }

    /// On the disk before it is used.
    async fn adopt_epoch(&self, epoch: u64) -> Result<(), ProposeError> {
        let put = put_meta(EPOCH_KEY, record::encode_number(EPOCH_KEY, epoch));
        let kept = self.inner.media.run(|disk| disk.write(vec![put], true)).await;
        kept.map_err(|error| ProposeError::Closed(error.to_string()))?;
        self.inner.epoch.send_replace(epoch);
        Ok(())
    }
}

async fn start<M: Machine>(
    config: &StoreConfig,
    media: &Media,
    replica: &Arc<Replica<M>>,
    links: &Arc<Links>,
) -> Result<Raft<Types>, StoreError> {
    let profile = config.profile;
    let millis = |duration: Duration| duration.as_millis() as u64;
    let raft_config = Config {
        cluster_name: "fedgate".into(),
        heartbeat_interval: millis(profile.heartbeat()),
        election_timeout_min: millis(profile.election_min()),
        election_timeout_max: millis(profile.election_max()),
        install_snapshot_timeout: millis(STORE_CATCH_UP_TIMEOUT),
        max_payload_entries: STORE_ENTRIES_PER_APPEND_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.log_entries),
        replication_lag_threshold: config.log_entries.saturating_mul(2),
        max_in_snapshot_log_to_keep: config.log_entries_kept,
        purge_batch_size: PURGE_BATCH.min(config.log_entries.max(1)),
        // `Ballot` says when.
        enable_elect: false,
        ..Config::default()
    };
    let raft_config =
        raft_config.validate().map_err(|error| StoreError::Start(error.to_string()))?;
    let log = Log::behind(media.clone(), replica.revision());
    let applier = Applier(Arc::clone(replica));
    let network = Network(Arc::clone(links));
    let raft = Raft::new(config.node_id, Arc::new(raft_config), network, log, applier).await;
    raft.map_err(|error| StoreError::Start(error.to_string()))
}

fn closed(error: &Fatal<u64>) -> ProposeError {
    ProposeError::Closed(error.to_string())
}

impl<M> Clone for Store<M> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<M> fmt::Debug for Store<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("config", &self.inner.config).finish_non_exhaustive()
    }
}
