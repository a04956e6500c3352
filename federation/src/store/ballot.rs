//! When to stand for election, when to vote, and when to lay leadership down.
//!
//! openraft 0.9 lets any node that has not heard of a leader raise its term, and a leader that meets
//! a higher term steps down: a node that was cut off would depose a healthy leader on its return. So
//! openraft's own election timer is off, and this one asks first (pre-vote): only when a quorum
//! hears no leader and would vote for this node does it stand. For the same reason nobody votes while
//! a leader is heard. And a leader that no quorum has followed for an election time steps down.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use openraft::{Raft, ServerState};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::network::Links;
use super::rpc::{Call, Reply};
use super::seam::RpcKind;
use super::timing::Profile;
use super::types::{LogId, Membership, Metrics, Types};

/// Who leads, as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub leader: Option<u64>,
    pub term: u64,
    /// This node leads, and a quorum followed it within an election time.
    pub own: bool,
}

pub(super) struct Ballot {
    node_id: u64,
    profile: Profile,
    raft: Raft<Types>,
    links: Arc<Links>,
    times: Mutex<Times>,
    leadership: watch::Sender<Leadership>,
    /// To whom leadership is being handed over; 0 is nobody.
    pub(super) transferring_to: AtomicU64,
}

#[derive(Debug)]
struct Times {
    /// When a leader was last heard; the start counts as that, since a restarted node does not know.
    heard: Instant,
    /// When to ask for votes, if nothing is heard until then.
    campaign: Instant,
    /// Not before this, even as the only voter.
    pause: Instant,
    /// Since when this node has been leader, of which term.
    leading: Option<(u64, Instant)>,
    /// How many votes were given to others.
    votes: u64,
    dice: Dice,
}

impl Ballot {
    pub(super) fn new(
        node_id: u64,
        profile: Profile,
        seed: u64,
        raft: Raft<Types>,
        links: Arc<Links>,
    ) -> Self {
        let now = Instant::now();
        let mut times = Times {
            heard: now,
            campaign: now,
            pause: now,
            leading: None,
            votes: 0,
            dice: Dice(seed ^ node_id),
        };
        times.hear(now, profile);
        Self {
            node_id,
            profile,
            raft,
            links,
            times: Mutex::new(times),
            leadership: watch::Sender::default(),
            transferring_to: AtomicU64::new(0),
        }
    }

    pub(super) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// A leader's append or snapshot was taken.
    pub(super) fn hear(&self) {
        self.times().hear(Instant::now(), self.profile);
    }

    /// How long ago a leader was heard.
    pub(super) fn silence(&self) -> Duration {
        self.times().heard.elapsed()
    }

    /// A leader that goes on leading has an election time to gather its followers again.
    pub(super) fn end_transfer(&self) {
        if let Some((_, since)) = &mut self.times().leading {
            *since = Instant::now();
        }
        self.transferring_to.store(0, Ordering::Release);
    }

    /// Whether a leader is known to be there, so that `candidate` gets no vote: it was heard within
    /// the lease, or it is this node, and a quorum follows or another one is to be its successor.
    pub(super) fn leader_present(&self, candidate: u64) -> bool {
        let now = Instant::now();
        let metrics = self.raft.metrics().borrow().clone();
        if metrics.state != ServerState::Leader {
            return now <= self.times().heard + self.profile.election_max();
        }
        match self.transferring_to.load(Ordering::Acquire) {
            0 => self.quorum_fresh(&metrics, now),
            successor => successor != candidate,
        }
    }

    /// Whether this node leads and a quorum followed within an election time.
    pub(super) fn leads(&self) -> bool {
        let metrics = self.raft.metrics().borrow().clone();
        metrics.state == ServerState::Leader && self.quorum_fresh(&metrics, Instant::now())
    }

    /// Would this node vote for a candidate with such a log?
    pub(super) fn would_vote(&self, candidate: u64, last_log_id: Option<LogId>) -> bool {
        let own = self.raft.data_metrics().borrow().last_log;
        let granted = !self.leader_present(candidate) && last_log_id >= own;
        if granted {
            // The candidate is about to stand; two at a time only keep each other from winning.
            self.times().hold(self.profile.heartbeat());
        }
        granted
    }

    /// Another node got this one's vote, and has an election time to lead.
    pub(super) fn voted(&self) {
        let mut times = self.times();
        let wait = self.profile.election_max() + times.dice.below(self.profile.election_min());
        times.hold(wait);
        times.votes += 1;
    }

    /// Runs until `stop`.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut changed = self.raft.server_metrics();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                alive = changed.changed() => if alive.is_err() { return },
                () = tokio::time::sleep(self.profile.heartbeat() / 2) => {}
            }
            let standing = self.tick();
            if let Some(metrics) = standing {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = self.campaign(&metrics) => {}
                }
            }
        }
    }

    /// Returns the metrics if it is time to ask for votes.
    fn tick(&self) -> Option<Metrics> {
        let metrics = self.raft.metrics().borrow().clone();
        let now = Instant::now();
        let leads = metrics.state == ServerState::Leader;
        let mut times = self.times();
        match (leads, times.leading) {
            (true, Some((term, _))) if term == metrics.current_term => {}
            (true, _) => times.leading = Some((metrics.current_term, now)),
            (false, Some(_)) => {
                // Give those who deposed it their time.
                times.leading = None;
                times.hear(now, self.profile);
            }
            (false, None) => {}
        }
        // A vote that is still on its way to the disk is not to be overtaken by the next.
        let settled = metrics.vote.leader_id.term == metrics.current_term;
        let may_stand = !leads && settled && now >= times.pause;
        let due = now >= times.campaign;
        drop(times);
        let membership = metrics.membership_config.membership();
        self.links.retain(membership);
        let fresh = leads && self.quorum_fresh(&metrics, now);
        if leads && !fresh && self.transferring_to.load(Ordering::Acquire) == 0 {
            self.step_down(metrics.current_term);
        }
        let now_leads =
            Leadership { leader: metrics.current_leader, term: metrics.current_term, own: fresh };
        self.leadership.send_if_modified(|held| std::mem::replace(held, now_leads) != now_leads);
        let voter = membership.voter_ids().any(|id| id == self.node_id);
        // The only voter need not wait for anybody.
        let alone = membership.voter_ids().count() == 1;
        (voter && may_stand && (due || alone)).then_some(metrics)
    }

    fn step_down(&self, term: u64) {
        if self.links.give_up(term) {
            tracing::warn!(term, "no quorum followed for an election time; stepping down");
        }
        let raft = self.raft.clone();
        // The next heartbeat brings openraft the answer that makes it step down.
        tokio::spawn(async move { raft.trigger().heartbeat().await });
    }

    fn quorum_fresh(&self, metrics: &Metrics, now: Instant) -> bool {
        let acked = self.links.quorum_acked(metrics.membership_config.membership(), now);
        let since = self.times().leading;
        let since = since.filter(|(term, _)| *term == metrics.current_term).map(|(_, since)| since);
        // A new leader has as long to gather its followers as an old one to lose them.
        let newest = acked.max(since);
        newest.is_some_and(|newest| now <= newest + self.profile.election_max())
    }

    /// How long ago a quorum followed this leader, if it leads.
    pub(super) fn quorum_age(&self, metrics: &Metrics) -> Option<Duration> {
        let now = Instant::now();
        let acked = self.links.quorum_acked(metrics.membership_config.membership(), now)?;
        (metrics.state == ServerState::Leader).then(|| now - acked)
    }

    async fn campaign(&self, metrics: &Metrics) {
        let membership = metrics.membership_config.membership();
        let (heard, votes) = self.past();
        // Whoever led or got this node's vote meanwhile is not to be deposed by its own candidacy.
        if self.would_win(membership).await && self.past() == (heard, votes) {
            tracing::info!(term = metrics.current_term, "a quorum hears no leader; standing");
            let _ = self.raft.trigger().elect().await;
        }
        let mut times = self.times();
        let pause = self.profile.heartbeat() + times.dice.below(self.profile.election_min());
        times.pause = Instant::now() + pause;
    }

    fn past(&self) -> (Instant, u64) {
        let times = self.times();
        (times.heard, times.votes)
    }

    async fn would_win(&self, membership: &Membership) -> bool {
        let last_log_id = self.raft.data_metrics().borrow().last_log;
        let ask = |id: u64| async move {
            let call = Call::PreVote { last_log_id };
            let timeout = self.profile.election_min();
            let reply = self.links.call(id, RpcKind::Vote, call, timeout).await;
            matches!(reply, Ok(Reply::PreVote { granted: true })).then_some(id)
        };
        let others = membership.voter_ids().filter(|id| *id != self.node_id);
        let mut answers: FuturesUnordered<_> = others.map(ask).collect();
        let mut granted = vec![self.node_id];
        loop {
            let has = |id: &u64| granted.contains(id);
            let majority = |config: &std::collections::BTreeSet<u64>| {
                config.iter().filter(|id| has(id)).count() > config.len() / 2
            };
            if membership.get_joint_config().iter().all(majority) {
                return true;
            }
            match answers.next().await {
                Some(answer) => granted.extend(answer),
                None => return false,
            }
        }
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Ballot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ballot").field("times", &self.times).finish_non_exhaustive()
    }
}

impl Times {
    fn hear(&mut self, now: Instant, profile: Profile) {
        self.heard = now;
        // A heartbeat beyond the lease, for whom the leader chose, then by lot.
        let wait = profile.election_max() + profile.heartbeat();
        self.campaign = now + wait + self.dice.below(profile.election_min());
    }

    /// Does not campaign for so long.
    fn hold(&mut self, wait: Duration) {
        self.campaign = self.campaign.max(Instant::now() + wait);
    }
}

/// SplitMix64: small, and the same for the same seed.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        Duration::from_micros(mixed % (most.as_micros() as u64).max(1))
    }
}
