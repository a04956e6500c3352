//! The state that a node serves to watchers, and the last few states before it.
//!
//! Nothing queues up for a watcher. A delta is made when there is room for it, from the state that
//! the watcher has to the one in force then; states share everything that did not change. A watcher
//! further behind than the states reach back gets a snapshot.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use model::{ClusterId, Revision};
use tokio::sync::watch;

use crate::fleet::{Fleet, Serving, serving};

use super::limits::WATCH_STATES_MAX;

/// What a node says of itself in the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standpoint {
    /// The store had a quorum a moment ago.
    pub quorum: bool,
    /// The node is itself fed by a watch, and may not have all that a watcher may see.
    pub relayed: bool,
    pub voters: BTreeSet<ClusterId>,
}

/// Shared by the node's state and its watchers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    states: Mutex<VecDeque<State>>,
    revision: watch::Sender<Option<Revision>>,
    standpoint: watch::Sender<Standpoint>,
    states_max: usize,
}

/// A state of the federation, and which exports serve in it, which is the same for all viewers.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) revision: Revision,
    pub(crate) fleet: Arc<Fleet>,
    serving: Arc<OnceLock<Serving>>,
}

impl State {
    fn new(fleet: Arc<Fleet>) -> Self {
        Self { revision: fleet.revision(), fleet, serving: Arc::default() }
    }

    /// Computed once, when the first watcher asks.
    pub(crate) fn serving(&self) -> &Serving {
        self.serving.get_or_init(|| serving(&self.fleet))
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::with_states(WATCH_STATES_MAX)
    }
}

impl Feed {
    pub(crate) fn with_states(states_max: usize) -> Self {
        Self(Arc::new(Shared {
            states: Mutex::default(),
            revision: watch::Sender::new(None),
            standpoint: watch::Sender::new(Standpoint::default()),
            states_max,
        }))
    }

    /// The node's state is another one now. One that is not newer begins the history anew: after a
    /// restore, or where a Replica became a voter, the states before do not lead to it.
    ///
    /// A voter publishes after every command, not only after some: a watcher that comes from another
    /// node resumes from a revision that was published here.
    pub fn publish(&self, fleet: Arc<Fleet>) {
        let (revision, mut states) = (fleet.revision(), self.lock());
        match states.back().map(|last| last.revision) {
            Some(last) if last == revision => {
                states.pop_back();
            }
            Some(last) if last > revision || last.epoch != revision.epoch => states.clear(),
            _ => {}
        }
        states.push_back(State::new(fleet));
        while states.len() > self.0.states_max {
            states.pop_front();
        }
        drop(states);
        self.0.revision.send_replace(Some(revision));
    }

    /// Forgets everything, as after leaving.
    pub fn clear(&self) {
        self.lock().clear();
        self.0.revision.send_replace(None);
    }

    pub fn set_standpoint(&self, standpoint: Standpoint) {
        self.0.standpoint.send_if_modified(|known| {
            let changed = *known != standpoint;
            *known = standpoint;
            changed
        });
    }

    pub fn standpoint(&self) -> Standpoint {
        self.0.standpoint.borrow().clone()
    }

    /// `None` while the node is in no federation.
    pub fn revision(&self) -> watch::Receiver<Option<Revision>> {
        self.0.revision.subscribe()
    }

    pub(crate) fn standpoints(&self) -> watch::Receiver<Standpoint> {
        self.0.standpoint.subscribe()
    }

    pub(crate) fn current(&self) -> Option<State> {
        self.lock().back().cloned()
    }

    /// Whether the history reaches back to a revision.
    pub(crate) fn reaches(&self, revision: Revision) -> bool {
        self.lock().front().is_some_and(|first| first.revision <= revision)
    }

    /// The state at a revision, if it is still known.
    pub(crate) fn at(&self, revision: Revision) -> Option<State> {
        self.lock().iter().find(|state| state.revision == revision).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<State>> {
        self.0.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
