//! The serving side of the watch stream, and of the question for Heads.
//!
//! One task per watcher, and between it and the wire a queue of a few events. A delta is made only
//! when there is room for it, so whoever reads slowly gets fewer and larger steps, and one that fell
//! behind the history that [`Feed`] keeps gets a snapshot. Nobody else notices.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use model::code::{EVENT_OUT_OF_ORDER, FEDERATION_NONE, FEDERATION_UNREACHABLE, NOT_A_MEMBER};
use model::{ClusterId, Revision};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use wire::store::{Alive, FleetUpdate, Heads, Signed, WatchEvent, proto};

use crate::fleet::{View, ViewStep};
use crate::refusal::refuse;

use super::feed::{Feed, State};
use super::limits::{
    WATCH_HEARTBEAT_INTERVAL, WATCH_IDLE_REVISIONS_MAX, WATCH_QUEUE_EVENTS_MAX,
    WATCHER_STALL_TIMEOUT, WATCHERS_MAX, WATCHERS_PER_CLUSTER_MAX,
};
use super::observer::{Now, Observer};

/// What a watcher reads.
pub type WatchStream = ReceiverStream<Result<proto::WatchEvent, Status>>;

/// Serves the state of a node to other members' nodes, whether it votes or is a Replica.
#[derive(Debug, Clone)]
pub struct WatchServer {
    feed: Feed,
    observer: Observer,
    watchers: Watchers,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl WatchServer {
    /// Watchers' streams end when `stop` is cancelled; their tasks are in `tasks`.
    pub fn new(
        feed: Feed,
        observer: Observer,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self { feed, observer, watchers: Watchers::default(), stop, tasks }
    }

    /// `caller` is whom the inner TLS has proved the other side to be: what it may see follows from
    /// that alone.
    pub fn watch(
        &self,
        caller: ClusterId,
        request: proto::WatchRequest,
    ) -> Result<WatchStream, Status> {
        let resume = request.resume.map(|at| Revision { epoch: at.epoch, index: at.index });
        let state = self.feed.current().ok_or_else(no_state)?;
        check_member(&state, &caller)?;
        if let Some(resume) = resume
            && resume > state.revision
        {
            let text = format!(
                "WatchRequest.resume = {resume}: this node is at {} and has yet to come there; \
                 watch from another one meanwhile",
                state.revision
            );
            return Err(refuse(tonic::Code::FailedPrecondition, EVENT_OUT_OF_ORDER, text));
        }
        let place = self.watchers.enter(caller)?;
        let (outgoing, receiver) = mpsc::channel(WATCH_QUEUE_EVENTS_MAX);
        let watcher =
            Watcher { feed: self.feed.clone(), caller, sent: resume, view: None, outgoing };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let outgoing = watcher.outgoing.clone();
            let ended = tokio::select! {
                ended = watcher.serve() => ended,
                () = stop.cancelled() => Err(stopping()),
            };
            drop(place);
            if let Err(status) = ended {
                tracing::info!(watcher = %caller, %status, "a watch ends");
                // Whoever reads no more is not waited for.
                let _ = outgoing.try_send(Err(status));
            }
        });
        Ok(ReceiverStream::new(receiver))
    }

    /// The Heads that this node holds, for those that the caller told. The revocations that came
    /// with them are for the caller of this function to judge.
    pub fn heads(
        &self,
        caller: ClusterId,
        request: proto::HeadsRequest,
    ) -> Result<(proto::HeadsReply, Vec<Signed>), Status> {
        let state = self.feed.current().ok_or_else(no_state)?;
        check_member(&state, &caller)?;
        let malformed = |error: wire::WireError| Status::invalid_argument(error.to_string());
        let told = Heads::decode_request(request).map_err(malformed)?;
        self.observer.tell(caller, &told.heads, Now::read());
        Ok((self.observer.word().encode_reply(), told.revocations))
    }

    /// How many watch streams are open.
    pub fn watchers(&self) -> usize {
        self.watchers.count()
    }
}

/// One watch stream.
struct Watcher {
    feed: Feed,
    caller: ClusterId,
    /// What the reader has when it has read everything that was sent.
    sent: Option<Revision>,
    /// The same, as it sees it: perhaps later, where nothing since then concerned it.
    view: Option<View>,
    outgoing: mpsc::Sender<Result<proto::WatchEvent, Status>>,
}

impl Watcher {
    async fn serve(mut self) -> Result<(), Status> {
        let (mut revisions, mut standpoints) = (self.feed.revision(), self.feed.standpoints());
        self.say_alive().await?;
        loop {
            revisions.mark_unchanged();
            standpoints.mark_unchanged();
            let state = self.feed.current().ok_or_else(no_state)?;
            check_member(&state, &self.caller)?;
            if self.view.as_ref().map(View::revision) != Some(state.revision) {
                self.send_state(&state).await?;
                continue;
            }
            tokio::select! {
                changed = revisions.changed() => changed.map_err(|_| stopping())?,
                changed = standpoints.changed() => {
                    changed.map_err(|_| stopping())?;
                    self.say_alive().await?;
                }
                () = tokio::time::sleep(WATCH_HEARTBEAT_INTERVAL) => self.say_alive().await?,
                () = self.outgoing.closed() => return Ok(()),
            }
        }
    }

    /// The step to a state, or all of it where no step leads there.
    async fn send_state(&mut self, state: &State) -> Result<(), Status> {
        let before = self.view.take().filter(|view| self.feed.reaches(view.revision()));
        let before = before.or_else(|| {
            let resumed = self.feed.at(self.sent?)?;
            Some(View::of(&resumed.fleet, resumed.serving(), &self.caller))
        });
        let now = match &before {
            Some(before) => before.at(&state.fleet, state.serving()),
            None => View::of(&state.fleet, state.serving(), &self.caller),
        };
        let step = match (&before, self.sent) {
            (Some(before), Some(sent)) => now.step_from(before, sent),
            _ => ViewStep::Snapshot,
        };
        match step {
            ViewStep::Nothing => self.send_nothing(now.revision()).await?,
            ViewStep::Delta(event) => {
                self.send(event.encode()).await?;
                self.sent = Some(now.revision());
            }
            ViewStep::Snapshot => {
                if let Some(sent) = self.sent {
                    tracing::info!(watcher = %self.caller, have = %sent, "resync by a snapshot");
                }
                for event in now.snapshot() {
                    self.send(event.encode()).await?;
                }
                self.sent = Some(now.revision());
            }
        }
        self.view = Some(now);
        Ok(())
    }

    /// What is of no concern to a reader is not sent; but its revision is not to fall out of the
    /// history from which it could resume.
    async fn send_nothing(&mut self, revision: Revision) -> Result<(), Status> {
        let Some(from) = self.sent else { return Ok(()) };
        if revision.index.saturating_sub(from.index) >= WATCH_IDLE_REVISIONS_MAX {
            let update = FleetUpdate::default();
            self.send(WatchEvent::Delta { from, revision, update }.encode()).await?;
            self.sent = Some(revision);
        }
        Ok(())
    }

    async fn say_alive(&self) -> Result<(), Status> {
        let revision = self.feed.current().ok_or_else(no_state)?.revision;
        let standpoint = self.feed.standpoint();
        let voters = standpoint.voters.into_iter().collect();
        let alive = Alive { quorum: standpoint.quorum, relayed: standpoint.relayed, voters };
        self.send(WatchEvent::Alive { revision, alive }.encode()).await
    }

    async fn send(&self, event: proto::WatchEvent) -> Result<(), Status> {
        let sent = tokio::time::timeout(WATCHER_STALL_TIMEOUT, self.outgoing.send(Ok(event))).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::cancelled("the watcher has gone")),
            Err(_) => {
                let seconds = WATCHER_STALL_TIMEOUT.as_secs();
                let text = format!("nothing was read for {seconds} s; watch again and resume");
                Err(refuse(tonic::Code::ResourceExhausted, EVENT_OUT_OF_ORDER, text))
            }
        }
    }
}

/// Who watches: bounded in all, and for each cluster.
#[derive(Debug, Clone, Default)]
struct Watchers(Arc<Mutex<BTreeMap<ClusterId, usize>>>);

/// A watcher's place; its drop frees it.
#[derive(Debug)]
struct Place {
    watchers: Watchers,
    cluster: ClusterId,
}

impl Watchers {
    fn enter(&self, cluster: ClusterId) -> Result<Place, Status> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (counts.values().sum::<usize>(), counts.entry(cluster).or_default());
        let limit = |what: String| Status::resource_exhausted(format!("{what}; try another node"));
        if *own >= WATCHERS_PER_CLUSTER_MAX {
            return Err(limit(format!("{own} watches of one cluster are open here")));
        }
        if all >= WATCHERS_MAX {
            return Err(limit(format!("{all} watches are open here")));
        }
        *own += 1;
        Ok(Place { watchers: self.clone(), cluster })
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.watchers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.cluster) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.cluster);
            }
        }
    }
}

fn check_member(state: &State, caller: &ClusterId) -> Result<(), Status> {
    if state.fleet.member(caller).is_some() {
        return Ok(());
    }
    let text = format!("cluster {caller} is no active member of this federation");
    Err(refuse(tonic::Code::PermissionDenied, NOT_A_MEMBER, text))
}

fn no_state() -> Status {
    let text = "this node has no state of a federation to serve";
    refuse(tonic::Code::FailedPrecondition, FEDERATION_NONE, text)
}

fn stopping() -> Status {
    let text = "this federation node is stopping; watch from another one";
    refuse(tonic::Code::Unavailable, FEDERATION_UNREACHABLE, text)
}
