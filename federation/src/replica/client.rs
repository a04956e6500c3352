//! The reading side of the watch stream: verifies every event, puts it on disk, then into service.
//!
//! Whoever sends what does not verify is named and left. A stream that breaks, falls silent or has a
//! gap is taken up again, there or elsewhere. Through all of it the last good state stays.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::code::EVENT_REFUSED;
use model::{ClusterId, ClusterName, Revision};
use rand::RngCore as _;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use wire::store::proto::store_service_client::StoreServiceClient;
use wire::store::{Alive, Signed, WatchEvent, limits::MESSAGE_BYTES_MAX, proto};

use crate::fleet::ViewError;
use crate::transport::{Transport, node_id};

use super::feed::Standpoint;
use super::limits::{
    GAPS_MAX, RELAY_PATIENCE, WATCH_OPEN_TIMEOUT, WATCH_SILENCE_TIMEOUT, WATCH_TICK_INTERVAL,
};
use super::observer::{Now, Observer};
use super::pick::{Candidate, Left, Sources};
use super::state::{ReadError, Reading, Replica};

/// The way to the other members' nodes.
pub trait Links: Send + Sync + 'static {
    /// For short questions. `None`: no way is known. A channel connects when it is used, and again
    /// when it broke.
    fn channel(&self, cluster: &ClusterId) -> Option<Channel>;
    /// For the watch, whose snapshots are large.
    fn bulk_channel(&self, cluster: &ClusterId) -> Option<Channel>;
}

/// The ways of [`Transport`], which knows members by their names.
#[derive(Debug, Clone)]
pub struct TransportLinks {
    transport: Transport,
    observer: Observer,
}

impl TransportLinks {
    pub fn new(transport: Transport, observer: Observer) -> Self {
        Self { transport, observer }
    }

    /// A node that has lost its state knows no member, only whom it may speak with.
    fn name(&self, cluster: &ClusterId) -> Option<ClusterName> {
        let named = self.observer.member_name(cluster);
        named.or_else(|| self.transport.cluster_of_node(node_id(cluster)))
    }
}

impl Links for TransportLinks {
    fn channel(&self, cluster: &ClusterId) -> Option<Channel> {
        self.transport.channel(&self.name(cluster)?).ok()
    }

    fn bulk_channel(&self, cluster: &ClusterId) -> Option<Channel> {
        self.transport.bulk_channel(&self.name(cluster)?).ok()
    }
}

/// Why a source was left.
#[derive(Debug)]
enum Ended {
    /// Not reachable, silent, or closed.
    Broken(String),
    /// There is a gap in what it sends; a snapshot mends that.
    Gap(ViewError),
    /// What is here came from a Replica; a voter's deltas would not mend that.
    Partial,
    /// It sent what does not verify.
    Lied(ViewError),
    /// It has not delivered what others hold.
    Late,
    /// It is a Replica itself, and perhaps a voter can be reached by now.
    Relayed,
    /// The node's own disk refused.
    Disk(String),
}

/// Follows one source after the other until it is told to stop.
pub(super) async fn follow(replica: Replica, links: Arc<dyn Links>, stop: CancellationToken) {
    let mut follower =
        Follower { replica, links, sources: Sources::default(), gaps: 0, fresh: false };
    tokio::select! {
        () = follower.run() => {}
        () = stop.cancelled() => {}
    }
    follower.replica.set_source(None);
}

struct Follower {
    replica: Replica,
    links: Arc<dyn Links>,
    sources: Sources,
    /// In a row.
    gaps: u32,
    /// The next stream is to begin with a snapshot.
    fresh: bool,
}

impl Follower {
    async fn run(&mut self) {
        loop {
            tokio::time::sleep(self.sources.pause(lot())).await;
            let candidates = self.candidates();
            let now = Instant::now().into_std();
            let Some(source) = self.sources.pick(&candidates, now, lot()) else {
                // Nobody else is a member yet, or no way to anybody is known.
                tokio::time::sleep(WATCH_TICK_INTERVAL).await;
                continue;
            };
            let ended = self.watch(source).await;
            self.leave(source, ended);
        }
    }

    /// Members to which there is a way. Which of them vote is what the last source said.
    fn candidates(&self) -> Vec<Candidate> {
        let voters = self.replica.feed().standpoint().voters;
        let others = self.replica.members().into_iter();
        let reachable = others.filter(|cluster| self.links.bulk_channel(cluster).is_some());
        reachable.map(|cluster| Candidate { cluster, voter: voters.contains(&cluster) }).collect()
    }

    fn leave(&mut self, source: ClusterId, ended: Ended) {
        let (now, name) = (Now::read(), self.replica.observer().name(&source));
        self.replica.set_source(None);
        let left = match ended {
            Ended::Broken(reason) => {
                tracing::warn!(source = %name, %reason, "the watch broke");
                Left::Broken
            }
            Ended::Relayed => {
                tracing::info!(source = %name, "looking for a voter to be fed from");
                Left::Broken
            }
            Ended::Partial => {
                self.fresh = true;
                return;
            }
            Ended::Gap(error) => {
                tracing::warn!(source = %name, reason = %error.text, "the watch has a gap");
                (self.gaps, self.fresh) = (self.gaps + 1, true);
                if self.gaps < GAPS_MAX {
                    return;
                }
                self.gaps = 0;
                self.replica.observer().refused(source, &error, now);
                Left::Lied
            }
            Ended::Lied(error) => {
                self.replica.observer().refused(source, &error, now);
                Left::Lied
            }
            Ended::Late => Left::Lied,
            Ended::Disk(problem) => {
                tracing::error!(%problem, "the replica's state cannot be written");
                Left::Broken
            }
        };
        self.sources.left(source, left, now.instant);
    }

    /// Reads from one source for as long as that goes well.
    async fn watch(&mut self, source: ClusterId) -> Ended {
        let Some(mut reading) = self.replica.reading(source) else {
            return Ended::Broken("this node is in no federation".into());
        };
        let resume = if self.fresh { None } else { reading.resume() };
        let mut events = match self.open(source, resume).await {
            Ok(events) => events,
            Err(status) => return Ended::Broken(status.to_string()),
        };
        self.replica.set_source(Some(source));
        self.replica.observer().source_changed(source, Now::read());
        let mut turn = Turn { resumed: resume, since: Instant::now(), heard: Instant::now() };
        let mut ticks = tokio::time::interval(WATCH_TICK_INTERVAL);
        loop {
            tokio::select! {
                event = events.message() => {
                    turn.heard = Instant::now();
                    self.replica.source_heard();
                    let event = match event {
                        Ok(Some(event)) => event,
                        Ok(None) => return Ended::Broken("the source ended the stream".into()),
                        Err(status) => return Ended::Broken(status.to_string()),
                    };
                    if let Err(ended) = self.take(source, &mut reading, &turn, event).await {
                        return ended;
                    }
                }
                _ = ticks.tick() => {
                    if let Err(ended) = self.judge(source, &reading, &turn) {
                        return ended;
                    }
                }
            }
        }
    }

    async fn open(
        &self,
        source: ClusterId,
        resume: Option<Revision>,
    ) -> Result<Streaming<proto::WatchEvent>, Status> {
        let channel = self.links.bulk_channel(&source);
        let channel = channel.ok_or_else(|| Status::unavailable("no way to it is known"))?;
        let mut client =
            StoreServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let resume =
            resume.map(|at| wire::resource::proto::Revision { epoch: at.epoch, index: at.index });
        let asked = client.watch(proto::WatchRequest { resume });
        let late = |_| Status::deadline_exceeded("it did not answer in time");
        Ok(timeout(WATCH_OPEN_TIMEOUT, asked).await.map_err(late)??.into_inner())
    }

    async fn take(
        &mut self,
        source: ClusterId,
        reading: &mut Reading,
        turn: &Turn,
        event: proto::WatchEvent,
    ) -> Result<(), Ended> {
        let event = WatchEvent::decode(event).map_err(malformed)?;
        if let WatchEvent::Alive { alive, .. } = event {
            return self.heard_alive(reading, turn, alive);
        }
        let heads = heads_of(&event);
        match reading.take(event).await {
            Ok(false) => Ok(()),
            Ok(true) => {
                self.sources.delivered(&source);
                (self.gaps, self.fresh) = (0, false);
                Ok(())
            }
            Err(ReadError::View(error)) if error.is_gap() => Err(Ended::Gap(error)),
            Err(ReadError::View(error)) => {
                // What owners did sign of it may prove more than that this source is at fault.
                self.replica.observer().tell(source, &heads, Now::read());
                Err(Ended::Lied(error))
            }
            Err(ReadError::Partial) => {
                Err(Ended::Broken("it is a Replica, and would give less than is here".into()))
            }
            Err(ReadError::Disk(problem)) => Err(Ended::Disk(problem)),
        }
    }

    fn heard_alive(
        &mut self,
        reading: &mut Reading,
        turn: &Turn,
        alive: Alive,
    ) -> Result<(), Ended> {
        reading.set_relayed(alive.relayed);
        if !alive.relayed && turn.resumed.is_some() && !reading.is_whole() {
            return Err(Ended::Partial);
        }
        if alive.quorum {
            self.replica.observer().quorum_heard(Now::read());
        }
        let voters: BTreeSet<ClusterId> = alive.voters.into_iter().collect();
        let standpoint = Standpoint { quorum: alive.quorum, relayed: true, voters };
        self.replica.feed().set_standpoint(standpoint);
        Ok(())
    }

    /// What only time can show.
    fn judge(&self, source: ClusterId, reading: &Reading, turn: &Turn) -> Result<(), Ended> {
        if turn.heard.elapsed() >= WATCH_SILENCE_TIMEOUT {
            let seconds = WATCH_SILENCE_TIMEOUT.as_secs();
            return Err(Ended::Broken(format!("it said nothing for {seconds} s")));
        }
        self.replica.observer().tick(Now::read());
        if self.replica.observer().found_late(source, turn.since.into_std()) {
            return Err(Ended::Late);
        }
        let better = self.candidates().iter().any(|other| other.voter);
        if reading.is_relayed() && better && turn.since.elapsed() >= RELAY_PATIENCE {
            return Err(Ended::Relayed);
        }
        Ok(())
    }
}

fn lot() -> u64 {
    rand::rng().next_u64()
}

fn malformed(error: wire::WireError) -> Ended {
    Ended::Lied(ViewError { code: EVENT_REFUSED, text: error.to_string() })
}

/// The Heads that an event brings.
fn heads_of(event: &WatchEvent) -> Vec<Signed> {
    match event {
        WatchEvent::SnapshotPart { update, .. } | WatchEvent::Delta { update, .. } => {
            update.owners.iter().map(|owner| owner.head.clone()).collect()
        }
        _ => vec![],
    }
}

/// One stream's beginning, and when something last came.
struct Turn {
    resumed: Option<Revision>,
    since: Instant,
    heard: Instant,
}
