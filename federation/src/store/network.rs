//! openraft's calls to other nodes, over the [`Peers`] seam.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError,
};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, EmptyNode};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use super::format::{FormatError, Writer};
use super::log::Media;
use super::rpc::{self, Call, PartReply, Refusal, Reply, Request, SnapshotPart};
use super::seam::{CallError, Pair, Peers, RpcKind};
use super::timing::Profile;
use super::types::{Membership, Snapshot, Types, Vote};
use crate::limits::{
    STORE_SNAPSHOT_BYTES_MAX, STORE_SNAPSHOT_PART_BYTES_MAX, STORE_SNAPSHOT_PART_TIMEOUT,
};

/// Tries of one part of a snapshot.
const PART_TRIES: u32 = 3;
/// A node that verifies and installs a snapshot is at least so fast.
const INSTALL_BYTES_PER_S: u64 = 8 * 1024 * 1024;

/// Why another node's answer is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("its answer cannot be read: {0}")]
    Format(#[from] FormatError),
    #[error("it refuses ({refusal:?}): {text}")]
    Refused { refusal: Refusal, text: String },
    #[error("its answer contradicts the question: {0}")]
    Absurd(&'static str),
    #[error("a snapshot of {bytes} bytes is over the limit of {STORE_SNAPSHOT_BYTES_MAX}")]
    SnapshotTooLarge { bytes: usize },
}

/// What is known of the ways to the other nodes.
pub(super) struct Links {
    node_id: u64,
    profile: Profile,
    peers: Arc<dyn Peers>,
    media: Media,
    epoch: watch::Receiver<u64>,
    /// When the newest append that a node answered was sent.
    acked: Mutex<BTreeMap<u64, Instant>>,
    /// The term whose leadership is to be laid down, 0 for none.
    given_up: AtomicU64,
    transfers: AtomicU64,
}

impl Links {
    pub(super) fn new(
        node_id: u64,
        profile: Profile,
        peers: Arc<dyn Peers>,
        media: Media,
        epoch: watch::Receiver<u64>,
    ) -> Self {
        Self {
            node_id,
            profile,
            peers,
            media,
            epoch,
            acked: Mutex::default(),
            given_up: AtomicU64::new(0),
            transfers: AtomicU64::new(0),
        }
    }

    pub(super) async fn call(
        &self,
        target: u64,
        kind: RpcKind,
        call: Call,
        timeout: Duration,
    ) -> Result<Reply, LinkError> {
        let body = rpc::encode_request(&Request { epoch: *self.epoch.borrow(), call });
        let answer = self.peers.call(target, kind, body, timeout);
        let answer = match tokio::time::timeout(timeout, answer).await {
            Ok(answer) => answer?,
            Err(_) => return Err(CallError::Timeout(timeout).into()),
        };
        match rpc::decode_reply(&answer)? {
            Reply::Refused { refusal, text } => Err(LinkError::Refused { refusal, text }),
            reply => Ok(reply),
        }
    }

    /// The time up to which a quorum is known to have followed this leader.
    pub(super) fn quorum_acked(&self, membership: &Membership, now: Instant) -> Option<Instant> {
        let acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        let of_config = |config: &std::collections::BTreeSet<u64>| {
            let of_voter = |id: &u64| match *id == self.node_id {
                true => Some(now),
                false => acked.get(id).copied(),
            };
            let mut times: Vec<Option<Instant>> = config.iter().map(of_voter).collect();
            times.sort_unstable_by(|a, b| b.cmp(a));
            // With n voters, the (n/2 + 1)th newest is what a majority has reached.
            times.get(config.len() / 2).copied().flatten()
        };
        let mut oldest = Some(now);
        for config in membership.get_joint_config() {
            oldest = oldest.min(of_config(config));
        }
        oldest
    }

    pub(super) fn acked(&self, target: u64) -> Option<Instant> {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner).get(&target).copied()
    }

    /// Forgets who no longer is a member.
    pub(super) fn retain(&self, membership: &Membership) {
        let mut acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        acked.retain(|id, _| membership.get_node(id).is_some());
    }

    /// Lays down the leadership of this term: openraft 0.9 has no call for it, but steps down when
    /// it hears of a higher vote. The vote is node 0's, which is nobody, so that it stands below any
    /// real one of the next term and a leader elected meanwhile is followed at once.
    /// Returns whether that is news.
    pub(super) fn give_up(&self, term: u64) -> bool {
        self.given_up.swap(term, Ordering::AcqRel) != term
    }

    fn gave_up(&self, term: u64) -> bool {
        self.given_up.load(Ordering::Acquire) == term
    }

    fn note_acked(&self, target: u64, sent: Instant) {
        let mut acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = acked.entry(target).or_insert(sent);
        *newest = sent.max(*newest);
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

/// Makes a link for openraft.
#[derive(Debug)]
pub(super) struct Network(pub(super) Arc<Links>);

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Link {
        Link { links: Arc::clone(&self.0), target }
    }
}

/// The way to one node.
#[derive(Debug)]
pub(super) struct Link {
    links: Arc<Links>,
    target: u64,
}

impl Link {
    /// openraft tries again at once. A node that refuses in a microsecond must not make a busy loop
    /// of that; and openraft's own backoff draws from a generator that no seed reaches.
    async fn fail<E: std::error::Error>(
        &self,
        error: LinkError,
    ) -> RPCError<u64, EmptyNode, RaftError<u64, E>> {
        tracing::debug!(target = self.target, %error, "a call to a voter failed");
        tokio::time::sleep(self.links.profile.heartbeat() / 2).await;
        RPCError::Network(NetworkError::new(&AnyError::error(error)))
    }

    async fn send_snapshot(&self, vote: Vote, snapshot: Snapshot) -> Result<Vote, LinkError> {
        let image = *snapshot.snapshot;
        let encoded = self.links.media.compute(move || Ok(encode_pairs(image.to_kv()))).await;
        let whole = encoded.map_err(|error| CallError::Refused(error.to_string()))?;
        if whole.len() > STORE_SNAPSHOT_BYTES_MAX {
            return Err(LinkError::SnapshotTooLarge { bytes: whole.len() });
        }
        let digest: [u8; 32] = Sha256::digest(&whole).into();
        let transfer = self.links.transfers.fetch_add(1, Ordering::Relaxed);
        let mut offset = 0;
        loop {
            let end = whole.len().min(offset + STORE_SNAPSHOT_PART_BYTES_MAX);
            let part = SnapshotPart {
                vote,
                transfer,
                last_log_id: snapshot.meta.last_log_id,
                membership: snapshot.meta.last_membership.clone(),
                offset: offset as u64,
                total: whole.len() as u64,
                digest,
                bytes: whole[offset..end].to_vec(),
            };
            match self.send_part(part, end == whole.len()).await? {
                PartReply::Done(vote) => return Ok(vote),
                PartReply::Next(next) if next == end as u64 && end < whole.len() => offset = end,
                PartReply::Next(_) => return Err(LinkError::Absurd("another offset is next")),
            }
        }
    }

    async fn send_part(&self, part: SnapshotPart, last: bool) -> Result<PartReply, LinkError> {
        // The answer to the last one comes when the snapshot is verified and installed.
        // It grows with the snapshot: a small one's loss is not to be waited for long.
        let install = Duration::from_secs(part.total / INSTALL_BYTES_PER_S);
        let timeout = STORE_SNAPSHOT_PART_TIMEOUT + if last { install } else { Duration::ZERO };
        let mut tries = 1;
        loop {
            let call = Call::Part(part.clone());
            match self.links.call(self.target, RpcKind::Snapshot, call, timeout).await {
                Ok(Reply::Part(reply)) => return Ok(reply),
                Ok(_) => return Err(LinkError::Absurd("another call's answer")),
                Err(LinkError::Call(error)) if tries < PART_TRIES => {
                    tracing::debug!(target = self.target, %error, "a snapshot's part is sent again");
                    tries += 1;
                    tokio::time::sleep(self.links.profile.heartbeat()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A machine's pairs as one run of bytes.
pub(super) fn encode_pairs(pairs: Vec<Pair>) -> Vec<u8> {
    let mut out = Writer::default();
    for (key, value) in pairs {
        out.pair(&key, &value);
    }
    out.take()
}

impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64>>> {
        let vote = rpc.vote;
        let term = vote.leader_id.term;
        if self.links.gave_up(term) {
            return Ok(AppendEntriesResponse::HigherVote(Vote::new(term + 1, 0)));
        }
        let first = rpc.prev_log_id;
        let last = rpc.entries.last().map(|entry| entry.log_id).or(first);
        let sent = Instant::now();
        let timeout = option.hard_ttl();
        let reply = self.links.call(self.target, RpcKind::Append, Call::Append(rpc), timeout).await;
        let reply = match reply {
            Ok(Reply::Append(reply)) => reply,
            Ok(_) => return Err(self.fail(LinkError::Absurd("another call's answer")).await),
            Err(error) => return Err(self.fail(error).await),
        };
        // openraft takes an answer's sense for granted.
        let sense = match &reply {
            AppendEntriesResponse::Success => true,
            AppendEntriesResponse::PartialSuccess(id) => (first..=last).contains(id),
            AppendEntriesResponse::Conflict => first.is_some(),
            AppendEntriesResponse::HigherVote(higher) => *higher > vote,
        };
        if !sense {
            return Err(self.fail(LinkError::Absurd("a position or vote that cannot be")).await);
        }
        if !matches!(reply, AppendEntriesResponse::HigherVote(_)) {
            self.links.note_acked(self.target, sent);
        }
        Ok(reply)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64>>> {
        let timeout = option.hard_ttl();
        match self.links.call(self.target, RpcKind::Vote, Call::Vote(rpc), timeout).await {
            Ok(Reply::Vote(reply)) => Ok(reply),
            Ok(_) => Err(self.fail(LinkError::Absurd("another call's answer")).await),
            Err(error) => Err(self.fail(error).await),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let mut cancel = pin!(cancel);
        let sent = tokio::select! {
            biased;
            closed = &mut cancel => return Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot) => sent,
        };
        match sent {
            Ok(vote) => Ok(SnapshotResponse::new(vote)),
            Err(error) => {
                tracing::warn!(target = self.target, %error, "a snapshot did not get through");
                tokio::time::sleep(self.links.profile.election_min()).await;
                Err(StreamingError::Network(NetworkError::new(&AnyError::error(error))))
            }
        }
    }
}
