//! A node: its disk, and while it lives, its store on a runtime with a clock of its own.
//!
//! One runtime for each life has two uses. Dropping it ends the life at once, wherever its tasks
//! are. And its paused clock is turned by the simulation alone, so that a node can be slow, stand
//! still, or find that much time has passed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use federation::store::{
    CallError, DiskError, Peers, Profile, RpcKind, Store, StoreConfig, StoreError, StoreStatus,
};
use futures_util::future::BoxFuture;
use model::Revision;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use super::bus::Bus;
use super::client::Done;
use super::disk::{End, Platter, SimDisk};
use super::plant::{self, Plant};
use super::subject::Subject;

#[derive(Debug)]
pub(crate) struct Node<S> {
    pub(crate) id: u64,
    pub(crate) platter: Arc<Platter>,
    pub(crate) life: Option<Life<S>>,
    /// It stands still until then.
    pub(crate) asleep: Option<Sleep>,
    pub(crate) lives: u64,
    /// It works on a change of members or leader.
    pub(crate) changing: bool,
}

/// How a node stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sleep {
    pub(crate) since_ms: u64,
    pub(crate) until_ms: u64,
    /// Whether its clock stands still too, as that of a suspended virtual machine.
    pub(crate) clock_stops: bool,
}

pub(crate) struct Life<S> {
    runtime: Runtime,
    pub(crate) store: Store<S>,
    begin: Instant,
    /// Where the node's own clock is.
    local_ms: u64,
    rate: Rate,
    /// What was compared last.
    pub(crate) seen: Revision,
}

/// How a node's clock follows the real one.
#[derive(Clone, Copy, Debug)]
struct Rate {
    permille: u64,
    now_ms: u64,
    local_ms: u64,
}

impl Rate {
    fn local(&self, now_ms: u64) -> u64 {
        self.local_ms + now_ms.saturating_sub(self.now_ms) * self.permille / 1000
    }
}

/// How a life begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Birth {
    pub(crate) now_ms: u64,
    pub(crate) seed: u64,
    pub(crate) profile: Profile,
    pub(crate) log_entries: u64,
    pub(crate) permille: u64,
    pub(crate) plant: Option<Plant>,
}

impl<S: Subject> Node<S> {
    pub(crate) fn new(id: u64, seed: u64) -> Self {
        Self {
            id,
            platter: Platter::new(id, seed),
            life: None,
            asleep: None,
            lives: 0,
            changing: false,
        }
    }

    /// Begins a life. A disk error is the caller's to judge.
    pub(crate) fn open(&mut self, bus: &Arc<Bus>, birth: Birth) -> Result<(), StoreError> {
        plant::enter(self.id);
        self.asleep = None;
        self.lives += 1;
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.unwrap();
        let disk = Arc::new(self.platter.open(bus, birth.plant));
        let peers = SimPeers {
            node: self.id,
            bus: Arc::clone(bus),
            platter: Arc::clone(&self.platter),
            life: self.lives,
        };
        let mut config = StoreConfig::new(self.id, 1, birth.profile, birth.seed ^ self.lives);
        config.log_entries = birth.log_entries;
        config.log_entries_kept = birth.log_entries / 4;
        let opened = runtime.block_on(async {
            let begin = Instant::now();
            let store = Store::open(config, disk, Arc::new(peers)).await?;
            Ok::<_, StoreError>((begin, store, begin.elapsed()))
        });
        let (begin, store, took) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.platter.end(End::Kill, birth.plant);
                return Err(error);
            }
        };
        let local_ms = took.as_millis() as u64 + 1;
        let rate = Rate { permille: birth.permille, now_ms: birth.now_ms, local_ms };
        let seen = store.state_at().0;
        self.life = Some(Life { runtime, store, begin, local_ms, rate, seen });
        Ok(())
    }

    /// A life that only looks at the disk.
    pub(crate) fn open_disk(&mut self, bus: &Arc<Bus>) -> SimDisk {
        self.lives += 1;
        self.platter.open(bus, None)
    }

    /// Ends the life, if there is one.
    pub(crate) fn end(&mut self, how: End, plant: Option<Plant>) {
        self.platter.end(how, plant);
        plant::enter(self.id);
        if let Some(life) = self.life.take() {
            let Life { runtime, store, .. } = life;
            let inside = runtime.enter();
            drop(store);
            drop(inside);
            drop(runtime);
        }
        self.changing = false;
        self.asleep = None;
    }

    /// Lets everything run that can, until its clock is where the real one says.
    pub(crate) fn run(&mut self, now_ms: u64) {
        let Some(life) = &mut self.life else { return };
        plant::enter(self.id);
        let target = life.rate.local(now_ms);
        if target > life.local_ms {
            life.local_ms = target;
            life.turn(Duration::ZERO);
        }
    }

    /// Wakes a node that stood still.
    pub(crate) fn wake(&mut self, now_ms: u64) {
        let Some(sleep) = self.asleep.take() else { return };
        let Some(life) = &mut self.life else { return };
        plant::enter(self.id);
        if sleep.clock_stops {
            life.rate = Rate { now_ms, local_ms: life.local_ms, ..life.rate };
            return;
        }
        let target = life.rate.local(now_ms);
        if target > life.local_ms + 1 {
            let jump = target - life.local_ms - 1;
            life.local_ms = target;
            life.turn(Duration::from_millis(jump));
        }
    }

    /// Whether it can take something up now: its clock is behind what it will be.
    pub(crate) fn ready(&self, now_ms: u64) -> bool {
        self.asleep.is_none()
            && self.life.as_ref().is_some_and(|life| life.rate.local(now_ms) > life.local_ms)
    }

    pub(crate) fn set_rate(&mut self, now_ms: u64, permille: u64) {
        if let Some(life) = &mut self.life {
            life.rate = Rate { permille, now_ms, local_ms: life.local_ms };
        }
    }

    pub(crate) fn status(&self) -> Option<StoreStatus> {
        let life = self.life.as_ref()?;
        let _inside = life.runtime.enter();
        Some(life.store.status())
    }

    /// Begins something on the node; it runs when the node runs.
    pub(crate) fn begin(
        &self,
        bus: &Arc<Bus>,
        work: impl FnOnce(Store<S>) -> BoxFuture<'static, Done>,
    ) {
        let Some(life) = &self.life else { return };
        let (bus, platter) = (Arc::clone(bus), Arc::clone(&self.platter));
        let (node, lives) = (self.id, self.lives);
        let work = work(life.store.clone());
        life.runtime.spawn(async move {
            let done = work.await;
            if platter.lives(lives) {
                bus.finish(node, done);
            }
        });
    }

    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(life) = &self.life {
            life.runtime.spawn(work);
        }
    }
}

impl<S> Life<S> {
    /// `jump` comes at once, the rest of the way timer by timer.
    fn turn(&mut self, jump: Duration) {
        let target = self.begin + Duration::from_millis(self.local_ms);
        self.runtime.block_on(async move {
            if !jump.is_zero() {
                tokio::time::advance(jump).await;
            }
            // A paused clock moves only when no task can run.
            tokio::time::sleep_until(target).await;
        });
    }
}

impl<S> std::fmt::Debug for Life<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Life").field("local_ms", &self.local_ms).finish_non_exhaustive()
    }
}

/// Whether a disk was found damaged.
pub(crate) fn damaged(error: &StoreError) -> bool {
    matches!(error, StoreError::Disk(DiskError::Damaged(_)))
}

/// The way to the other nodes, of one life.
#[derive(Debug)]
struct SimPeers {
    node: u64,
    bus: Arc<Bus>,
    platter: Arc<Platter>,
    life: u64,
}

impl Peers for SimPeers {
    fn call(
        &self,
        target: u64,
        kind: RpcKind,
        body: Bytes,
        _: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        if !self.platter.lives(self.life) {
            return Box::pin(std::future::pending());
        }
        let answer = self.bus.call(self.node, target, kind, body);
        Box::pin(async move {
            match answer.await {
                Ok(answer) => answer,
                // Lost on its way: the caller's own timeout ends it.
                Err(_) => std::future::pending().await,
            }
        })
    }
}
