//! Answers other nodes' calls.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use model::code::ROLLED_BACK;
use openraft::ServerState;
use openraft::raft::{AppendEntriesResponse, VoteRequest, VoteResponse};

use super::receive::{Took, decode_pairs};
use super::rpc::{self, Call, PartReply, Refusal, Reply, SnapshotPart};
use super::seam::{DiskError, Machine};
use super::types::{Image, Snapshot, SnapshotMeta, Vote};
use super::{Store, closed};

impl<M: Machine> Store<M> {
    /// Answers a call of node `from`, as the transport has authenticated it.
    ///
    /// The body is what that node gave to [`Peers::call`](super::Peers::call). Every body gets an
    /// answer; one that makes no sense gets a refusal.
    pub async fn handle(&self, from: u64, body: Bytes) -> Bytes {
        let reply = match self.answer(from, &body).await {
            Ok(reply) => reply,
            Err((refusal, text)) => {
                tracing::debug!(from, ?refusal, text, "a node's call was refused");
                Reply::Refused { refusal, text }
            }
        };
        rpc::encode_reply(&reply)
    }

    async fn answer(&self, from: u64, body: &[u8]) -> Result<Reply, (Refusal, String)> {
        let inner = &*self.inner;
        if inner.stop.is_cancelled() {
            return Err((Refusal::Stopped, "this node is shutting down".into()));
        }
        if let Some(damage) = inner.media.damage() {
            return Err((Refusal::Unfit, format!("this node's store is damaged: {damage}")));
        }
        let Ok(_place) = inner.calls.try_acquire() else {
            return Err((Refusal::NotNow, "too many calls are being worked on".into()));
        };
        let request = rpc::decode_request(body);
        let request = request.map_err(|error| (Refusal::Malformed, error.to_string()))?;
        if inner.reseeding.load(Ordering::Acquire) {
            let text =
                "this node lost its log, and is still a member: remove it, then add it again";
            return Err((Refusal::Unfit, text.into()));
        }
        check_sender(from, &request.call)?;
        if !matches!(request.call, Call::Standing) {
            self.check_insider(from)?;
            self.check_epoch(request.epoch, &request.call).await?;
        }
        match request.call {
            Call::Append(append) => {
                let reply = inner.raft.append_entries(append).await;
                let reply = reply.map_err(|error| (Refusal::Stopped, error.to_string()))?;
                if !matches!(reply, AppendEntriesResponse::HigherVote(_)) {
                    inner.ballot.hear();
                }
                if matches!(reply, AppendEntriesResponse::Success) {
                    // The log here goes on: whoever leads now has what is here.
                    inner.set_distrusted(None);
                }
                Ok(Reply::Append(reply))
            }
            Call::Vote(request) => self.answer_vote(from, request).await,
            Call::PreVote { last_log_id } => {
                let granted = inner.ballot.would_vote(from, last_log_id);
                Ok(Reply::PreVote { granted })
            }
            Call::Campaign { term } => self.answer_campaign(from, term).await,
            Call::Part(part) => self.take_part(from, part).await,
            Call::Standing => self.answer_standing(from).await,
        }
    }

    /// Who leads knows its group, and nobody else can lead in its place: a call of another node with
    /// a higher term must not depose it. (A follower may be behind, and not know its leader.)
    fn check_insider(&self, from: u64) -> Result<(), (Refusal, String)> {
        let metrics = self.inner.raft.metrics().borrow().clone();
        let leads = metrics.state == ServerState::Leader;
        if !leads || metrics.membership_config.membership().get_node(&from).is_some() {
            return Ok(());
        }
        let text = format!("node {from:016x} is not in the group that this node leads");
        Err((Refusal::Sender, text))
    }

    /// Nodes of different epochs have nothing to do with each other. An empty node takes that of the
    /// first leader that calls it.
    async fn check_epoch(&self, epoch: u64, call: &Call) -> Result<(), (Refusal, String)> {
        let own = self.epoch();
        if own == epoch && own != 0 {
            return Ok(());
        }
        let leader_calls = matches!(call, Call::Append(_) | Call::Part(_));
        if own == 0 && epoch != 0 && leader_calls {
            let adopted = self.adopt_epoch(epoch).await;
            return adopted.map_err(|error| (Refusal::Stopped, error.to_string()));
        }
        if epoch > own && own != 0 {
            self.inner.fenced.fetch_max(epoch, Ordering::AcqRel);
        }
        let text = format!(
            "store epoch is {own} here, {epoch} in the call; the node with the older one is to be \
             re-seeded"
        );
        Err((Refusal::Epoch, text))
    }

    async fn answer_vote(
        &self,
        from: u64,
        request: VoteRequest<u64>,
    ) -> Result<Reply, (Refusal, String)> {
        let inner = &*self.inner;
        if inner.ballot.leader_present(from) {
            // Not even the term is taken up: that would depose the leader on its next append.
            let vote = inner.raft.metrics().borrow().vote;
            let last_log_id = inner.raft.data_metrics().borrow().last_log;
            return Ok(Reply::Vote(VoteResponse::new(vote, last_log_id, false)));
        }
        let reply = inner.raft.vote(request).await;
        let reply = reply.map_err(|error| (Refusal::Stopped, error.to_string()))?;
        if reply.vote_granted {
            inner.ballot.voted();
        }
        Ok(Reply::Vote(reply))
    }

    async fn answer_campaign(&self, from: u64, term: u64) -> Result<Reply, (Refusal, String)> {
        let metrics = self.inner.raft.metrics().borrow().clone();
        if metrics.current_leader != Some(from) || metrics.current_term != term {
            let text = format!("node {from:016x} is not the leader of term {term} here");
            return Err((Refusal::NotNow, text));
        }
        let started = self.inner.raft.trigger().elect().await;
        started.map_err(|error| (Refusal::Stopped, error.to_string()))?;
        Ok(Reply::Campaign)
    }

    async fn take_part(&self, from: u64, part: SnapshotPart) -> Result<Reply, (Refusal, String)> {
        let inner = &*self.inner;
        let vote = inner.raft.metrics().borrow().vote;
        if part.vote < vote {
            return Ok(Reply::Part(PartReply::Done(vote)));
        }
        let (leader, meta) = (part.vote, meta_of(&part));
        let took = {
            let mut receiver = inner.receiver.lock().unwrap_or_else(PoisonError::into_inner);
            receiver.take(from, part)
        };
        match took.map_err(|error| (Refusal::Malformed, error.to_string()))? {
            Took::Next(offset) => Ok(Reply::Part(PartReply::Next(offset))),
            Took::Whole(bytes) => self.install(leader, meta, bytes).await,
        }
    }

    async fn install(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        bytes: Vec<u8>,
    ) -> Result<Reply, (Refusal, String)> {
        let (applied, before) = self.inner.replica.position();
        // An older one is not put in place of anything.
        let is_newer = meta.last_log_id > applied.log_id;
        // The machine verifies the state before any of it is put in place of the old one.
        let loaded = self.inner.media.compute(move || {
            let pairs = decode_pairs(&bytes).map_err(|error| error.to_string());
            let machine = pairs.and_then(M::load).map_err(DiskError::Damaged)?;
            let follows = if is_newer { machine.follows(&before) } else { Ok(()) };
            Ok(follows.map(|()| machine))
        });
        let loaded = loaded.await.map_err(|error| {
            (Refusal::Malformed, format!("the snapshot's state was refused: {error}"))
        })?;
        let machine = loaded.map_err(|lost| (Refusal::Malformed, self.distrust(&vote, lost)))?;
        let snapshot =
            Snapshot { meta, snapshot: Box::new(Image::of(std::sync::Arc::new(machine))) };
        let installed = self.inner.raft.install_full_snapshot(vote, snapshot).await;
        let installed =
            installed.map_err(|error| (Refusal::Stopped, closed(&error).to_string()))?;
        self.inner.set_distrusted(None);
        self.inner.ballot.hear();
        Ok(Reply::Part(PartReply::Done(installed.vote)))
    }

    /// A leader is believed what was signed, not that what was agreed on never was. It may send the
    /// same again and again; that is said once.
    fn distrust(&self, leader: &Vote, lost: String) -> String {
        let node = leader.leader_id.node_id;
        let text = format!("the snapshot of node {node:016x} does not follow what is here: {lost}");
        let known = self.inner.set_distrusted(Some(text.clone()));
        if known.as_ref() != Some(&text) {
            tracing::error!(code = %ROLLED_BACK, problem = text, "the store's state is kept");
        }
        text
    }

    /// Only a leader that a quorum confirms can say who is a member.
    async fn answer_standing(&self, from: u64) -> Result<Reply, (Refusal, String)> {
        let confirmed = self.linearizable().await;
        confirmed.map_err(|error| (Refusal::NotNow, error.to_string()))?;
        let metrics = self.inner.raft.metrics().borrow().clone();
        let member = metrics.membership_config.membership().get_node(&from).is_some();
        Ok(Reply::Standing { member })
    }
}

/// No node speaks for another.
fn check_sender(from: u64, call: &Call) -> Result<(), (Refusal, String)> {
    let named = match call {
        Call::Append(append) => append.vote.leader_id.node_id,
        Call::Vote(request) => request.vote.leader_id.node_id,
        Call::Part(part) => part.vote.leader_id.node_id,
        Call::PreVote { .. } | Call::Campaign { .. } | Call::Standing => from,
    };
    if named == from {
        return Ok(());
    }
    Err((Refusal::Sender, format!("node {from:016x} called in the name of node {named:016x}")))
}

fn meta_of(part: &SnapshotPart) -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: part.last_log_id,
        last_membership: part.membership.clone(),
        snapshot_id: match part.last_log_id {
            Some(id) => id.to_string(),
            None => "empty".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use model::Revision;
    use openraft::raft::AppendEntriesRequest;

    use super::super::network::encode_pairs;
    use super::super::rpc::Request;
    use super::super::types::{LogId, Membership, StoredMembership};
    use super::super::{
        CallError, Outcome, Pair, Peers, Profile, RocksDisk, RpcKind, Store, StoreConfig,
    };
    use super::*;

    #[derive(Clone, Debug)]
    struct Nothing;

    impl Machine for Nothing {
        fn load(_: Vec<Pair>) -> Result<Self, String> {
            Ok(Self)
        }

        fn to_kv(&self) -> Vec<Pair> {
            Vec::new()
        }

        fn apply(&mut self, _: Revision, _: &[u8]) -> Outcome {
            Outcome::default()
        }
    }

    struct Nobody;

    impl Peers for Nobody {
        fn call(
            &self,
            _: u64,
            _: RpcKind,
            _: Bytes,
            _: Duration,
        ) -> BoxFuture<'static, Result<Bytes, CallError>> {
            std::future::ready(Err(CallError::Unreachable("nobody is there".into()))).boxed()
        }
    }

    /// Of what was agreed on, only how much it was.
    #[derive(Clone, Debug)]
    struct Height(u8);

    impl Machine for Height {
        fn load(pairs: Vec<Pair>) -> Result<Self, String> {
            Ok(Self(pairs.first().map_or(0, |(_, value)| value[0])))
        }

        fn to_kv(&self) -> Vec<Pair> {
            vec![(b"height".to_vec(), vec![self.0])]
        }

        fn apply(&mut self, _: Revision, _: &[u8]) -> Outcome {
            Outcome::default()
        }

        fn follows(&self, before: &Self) -> Result<(), String> {
            match self.0 < before.0 {
                true => Err(format!("it has {} of {}", self.0, before.0)),
                false => Ok(()),
            }
        }
    }

    fn snapshot(leader: u64, voter: u64, index: u64, height: u8) -> Call {
        let bytes = encode_pairs(Height(height).to_kv());
        let log_id = LogId::new(openraft::CommittedLeaderId::new(3, leader), index);
        let voters = std::collections::BTreeSet::from([leader, voter]);
        Call::Part(SnapshotPart {
            vote: Vote::new_committed(3, leader),
            transfer: index,
            last_log_id: Some(log_id),
            membership: StoredMembership::new(Some(log_id), Membership::new(vec![voters], None)),
            offset: 0,
            total: bytes.len() as u64,
            digest: <sha2::Sha256 as sha2::Digest>::digest(&bytes).into(),
            bytes,
        })
    }

    /// Each part of an older state was signed once; a leader that was broken into could send it.
    #[tokio::test]
    async fn a_snapshot_that_has_lost_something_is_refused() {
        const OWN: u64 = 7;
        const LEADER: u64 = 9;
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(RocksDisk::open(folder.path()).unwrap());
        let config = StoreConfig::new(OWN, 1, Profile::Lan, 1);
        let store = Store::<Height>::open(config, disk, Arc::new(Nobody)).await.unwrap();
        let send = async |index, height| {
            let call = snapshot(LEADER, OWN, index, height);
            let body = rpc::encode_request(&Request { epoch: 1, call });
            rpc::decode_reply(&store.handle(LEADER, body).await).unwrap()
        };
        let now = || (store.state().0, store.status().applied.index, store.status().distrusted);
        let reply = send(5, 50).await;
        assert!(matches!(reply, Reply::Part(PartReply::Done(_))), "{reply:?}");
        assert_eq!(now(), (50, 5, None));
        let wanted = "the snapshot of node 0000000000000009 does not follow what is here: it has \
                      40 of 50";
        for index in [6, 7] {
            let reply = send(index, 40).await;
            let Reply::Refused { refusal: Refusal::Malformed, text } = &reply else {
                panic!("{reply:?}");
            };
            assert_eq!(text, wanted);
            assert_eq!(now(), (50, 5, Some(wanted.into())));
        }
        // One that was long on its way is no longer needed; it proves nothing.
        let reply = send(4, 40).await;
        assert!(matches!(reply, Reply::Part(PartReply::Done(_))), "{reply:?}");
        assert_eq!(now().0, 50);
        let reply = send(8, 60).await;
        assert!(matches!(reply, Reply::Part(PartReply::Done(_))), "{reply:?}");
        assert_eq!(now(), (60, 8, None));
        store.shutdown().await;
    }

    /// A member of the federation that is not in the group reaches a leader with the one question
    /// that it may ask. What else it sends must not take the log over.
    #[tokio::test]
    async fn an_outsider_cannot_depose_a_leader() {
        const OWN: u64 = 7;
        const OUTSIDER: u64 = 9;
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(RocksDisk::open(folder.path()).unwrap());
        let config = StoreConfig::new(OWN, 1, Profile::Lan, 1);
        let store = Store::<Nothing>::open(config, disk, Arc::new(Nobody)).await.unwrap();
        store.found(b"first".to_vec()).await.unwrap();
        let vote = Vote::new_committed(99, OUTSIDER);
        let log_id = LogId::new(openraft::CommittedLeaderId::new(99, OUTSIDER), 1);
        let append = Call::Append(AppendEntriesRequest {
            vote,
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: Some(log_id),
        });
        let part = Call::Part(SnapshotPart {
            vote,
            transfer: 1,
            last_log_id: Some(log_id),
            membership: StoredMembership::default(),
            offset: 0,
            total: 0,
            digest: sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new()).into(),
            bytes: Vec::new(),
        });
        let stand = Call::Vote(VoteRequest::new(Vote::new(99, OUTSIDER), Some(log_id)));
        for call in [append, part, stand, Call::PreVote { last_log_id: Some(log_id) }] {
            let body = rpc::encode_request(&Request { epoch: store.epoch(), call });
            let reply = rpc::decode_reply(&store.handle(OUTSIDER, body).await).unwrap();
            let Reply::Refused { refusal: Refusal::Sender, text } = &reply else {
                panic!("{reply:?}");
            };
            assert_eq!(text, "node 0000000000000009 is not in the group that this node leads");
            assert_eq!(store.status().leader, Some(OWN));
        }
        store.propose(b"second".to_vec()).await.unwrap();
        let asked = Request { epoch: 0, call: Call::Standing };
        let reply = store.handle(OUTSIDER, rpc::encode_request(&asked)).await;
        let reply = rpc::decode_reply(&reply).unwrap();
        assert!(matches!(reply, Reply::Standing { member: false }), "{reply:?}");
        store.shutdown().await;
    }
}
