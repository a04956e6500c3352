//! A Replica's own state: loaded from the disk, moved on by verified events, put on the disk before
//! anybody sees it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use model::code::{
    DATA_FOLDER_UNUSABLE, EVENT_REFUSED, FEDERATION_NONE, RECORDS_WITHHELD, STATE_DAMAGED,
};
use model::{ClusterId, FederationId, ResourceKind, Revision};
use tokio_util::sync::CancellationToken;
use wire::replica::KeptPlace;
use wire::store::WatchEvent;

use crate::fleet::{Fleet, VerifiedView, ViewError};
use crate::store::{Disk, KvWrite};

use super::client::{self, Links};
use super::feed::{Feed, Standpoint};
use super::freshness::FreshnessConfig;
use super::observer::{Now, Observer};
use super::shelf::{Shelf, ShelfError};

/// The state of the federation in a cluster that is not in Raft. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Replica(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    own: ClusterId,
    shelf: Shelf,
    feed: Feed,
    observer: Observer,
    /// `None` outside of a federation.
    kept: Mutex<Option<Kept>>,
    source: Mutex<Option<(ClusterId, Instant)>>,
    /// Whom to ask while nothing is known yet.
    introduced: Mutex<Vec<ClusterId>>,
    /// There was a state on the disk, and it was refused.
    damaged: AtomicBool,
}

/// What is on the disk, and so in service.
#[derive(Debug)]
struct Kept {
    view: VerifiedView,
    fleet: Arc<Fleet>,
    place: Option<KeptPlace>,
}

/// Why an event was not taken up.
#[derive(Debug)]
pub(super) enum ReadError {
    View(ViewError),
    /// A Replica's snapshot would take the place of more than it has.
    Partial,
    Disk(String),
}

/// What a Replica is opened with.
#[derive(Clone)]
pub struct ReplicaConfig {
    pub own: ClusterId,
    pub disk: Arc<dyn Disk>,
    pub freshness: FreshnessConfig,
}

impl std::fmt::Debug for ReplicaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { own, disk: _, freshness } = self;
        f.debug_struct("ReplicaConfig").field("own", own).field("freshness", freshness).finish()
    }
}

impl Replica {
    /// Takes the last good state from the disk, verifies it and puts it into service; no other node
    /// is needed for that. What does not verify stays out of service; see [`Self::is_damaged`].
    pub fn open(config: ReplicaConfig) -> Result<Self, ShelfError> {
        let shelf = Shelf::new(config.disk);
        let observer = Observer::open(config.own, shelf.clone(), config.freshness, Now::read())?;
        let replica = Self(Arc::new(Shared {
            own: config.own,
            shelf,
            feed: Feed::default(),
            observer,
            kept: Mutex::new(None),
            source: Mutex::new(None),
            introduced: Mutex::default(),
            damaged: AtomicBool::new(false),
        }));
        if let Some(federation) = replica.0.shelf.federation()? {
            replica.load(federation);
        }
        Ok(replica)
    }

    /// Enters a federation, as the token or the founder names it: from now on its root alone is
    /// believed. What is known of another one is forgotten.
    pub fn begin(&self, federation: FederationId) {
        if self.federation() == Some(federation) {
            return;
        }
        if let Err(problem) = self.0.shelf.begin(&federation) {
            // The first state that is to be put there will fail, and stay out of service.
            tracing::error!(%problem, "the replica's part of the disk cannot be written");
        }
        // A voter that never was a Replica has its state in service already: it stays there.
        let served = self.0.feed.current().and_then(|state| state.fleet.federation());
        if served != Some(federation) {
            self.0.feed.clear();
        }
        self.start_with(VerifiedView::new(self.0.own, federation));
    }

    /// Names members to begin with, for a node that has lost its state.
    pub(crate) fn introduce(&self, members: Vec<ClusterId>) {
        *self.0.introduced.lock().unwrap_or_else(PoisonError::into_inner) = members;
    }

    fn load(&self, federation: FederationId) {
        let loaded = self.0.shelf.state().map_err(|error| error.to_string());
        let verified = loaded.and_then(|(pairs, place)| {
            if place.is_none() && !pairs.is_empty() {
                return Err("its place in the stream is missing".to_string());
            }
            let view = VerifiedView::load(self.0.own, federation, pairs);
            view.map(|view| (view, place)).map_err(|error| error.to_string())
        });
        match verified {
            Ok((view, Some(place))) => self.put(view, place, Now::read()),
            Ok((view, None)) => self.start_with(view),
            Err(problem) => {
                tracing::error!(code = %STATE_DAMAGED, %problem, "the replica's state is refused");
                self.start_with(VerifiedView::new(self.0.own, federation));
                self.0.damaged.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Whether the state was found damaged, and nothing has come in its place: whom to fetch it from
    /// was part of it.
    pub(crate) fn is_damaged(&self) -> bool {
        self.0.damaged.load(Ordering::Relaxed)
    }

    fn start_with(&self, view: VerifiedView) {
        *self.lock() = Some(Kept { view, fleet: Arc::default(), place: None });
    }

    /// Takes up a snapshot that came by another way than the watch: with the answer to a join.
    pub async fn seed(
        &self,
        source: ClusterId,
        events: Vec<WatchEvent>,
        whole: bool,
    ) -> Result<(), ViewError> {
        let refused = |code, text: String| ViewError { code, text };
        let Some(mut reading) = self.reading(source) else {
            return Err(refused(FEDERATION_NONE, "this node is in no federation".into()));
        };
        reading.set_relayed(!whole);
        for event in events {
            reading.take(event).await.map_err(|error| match error {
                ReadError::View(error) => error,
                ReadError::Partial => {
                    refused(EVENT_REFUSED, "more is known here than the snapshot has".into())
                }
                ReadError::Disk(problem) => refused(DATA_FOLDER_UNUSABLE, problem),
            })?;
        }
        Ok(())
    }

    /// Follows the watch streams of other members until `stop`: for as long as this node is not in
    /// Raft itself.
    pub async fn follow(&self, links: Arc<dyn Links>, stop: CancellationToken) {
        client::follow(self.clone(), links, stop).await;
    }

    /// The verified state in service; of nothing outside of a federation.
    pub fn state(&self) -> Arc<Fleet> {
        self.lock().as_ref().map(|kept| kept.fleet.clone()).unwrap_or_default()
    }

    /// The state of a node that is in Raft, for watchers and for the observer: after every command.
    /// `leader` is whom it came from.
    pub fn serve(&self, fleet: Arc<Fleet>, leader: ClusterId, standpoint: Standpoint) {
        self.0.observer.hold(&fleet, leader, Now::read());
        self.0.feed.set_standpoint(standpoint);
        self.0.feed.publish(fleet);
    }

    /// The state as the watch stream serves it on: `revision()` of it tells of changes.
    pub fn feed(&self) -> &Feed {
        &self.0.feed
    }

    pub fn observer(&self) -> &Observer {
        &self.0.observer
    }

    /// Who feeds this node at the moment, and when something last came from it.
    pub fn source(&self) -> Option<(ClusterId, Instant)> {
        *self.0.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the federation, as after leaving it. High-water marks go with it: the cluster would
    /// come back only as a new member.
    pub fn forget(&self) -> Result<(), ShelfError> {
        self.0.shelf.clear()?;
        *self.lock() = None;
        self.0.damaged.store(false, Ordering::Relaxed);
        self.0.feed.clear();
        Ok(())
    }

    pub(super) fn shelf(&self) -> &Shelf {
        &self.0.shelf
    }

    pub(super) fn own(&self) -> ClusterId {
        self.0.own
    }

    /// The other active members; while there is no state, those to begin with.
    pub(super) fn members(&self) -> Vec<ClusterId> {
        let fleet = self.state();
        if fleet.federation().is_none() {
            return self.0.introduced.lock().unwrap_or_else(PoisonError::into_inner).clone();
        }
        let others = fleet.members().map(|member| member.cluster);
        others.filter(|cluster| *cluster != self.0.own).collect()
    }

    pub(super) fn set_source(&self, source: Option<ClusterId>) {
        let mut known = self.0.source.lock().unwrap_or_else(PoisonError::into_inner);
        *known = source.map(|cluster| (cluster, Instant::now()));
    }

    /// Something came from the source.
    pub(super) fn source_heard(&self) {
        let mut known = self.0.source.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, heard)) = known.as_mut() {
            *heard = Instant::now();
        }
    }

    /// `None` outside of a federation.
    pub(super) fn reading(&self, source: ClusterId) -> Option<Reading> {
        let kept = self.lock();
        let Kept { view, place, .. } = kept.as_ref()?;
        let (view, place) = (view.clone(), *place);
        Some(Reading { replica: self.clone(), source, view, place, relayed: false })
    }

    pub(super) fn federation(&self) -> Option<FederationId> {
        self.lock().as_ref().map(|kept| kept.view.anchor())
    }

    /// Puts what is on the disk into service.
    fn put(&self, view: VerifiedView, place: KeptPlace, now: Now) {
        let fleet = Arc::new(view.fleet().clone());
        *self.lock() = Some(Kept { view, fleet: fleet.clone(), place: Some(place) });
        self.0.damaged.store(false, Ordering::Relaxed);
        self.0.observer.hold(&fleet, place.source, now);
        let standpoint = Standpoint { relayed: true, ..self.0.feed.standpoint() };
        self.0.feed.set_standpoint(standpoint);
        self.0.feed.publish(fleet);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Kept>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream's events on their way into service.
pub(super) struct Reading {
    replica: Replica,
    source: ClusterId,
    view: VerifiedView,
    place: Option<KeptPlace>,
    relayed: bool,
}

impl Reading {
    /// Where the reader is, if the next events can go on from there.
    pub(super) fn resume(&self) -> Option<Revision> {
        self.place.map(|place| place.revision)
    }

    /// Whether the state has everything that this cluster may see.
    pub(super) fn is_whole(&self) -> bool {
        self.place.is_some_and(|place| place.whole)
    }

    pub(super) fn is_relayed(&self) -> bool {
        self.relayed
    }

    pub(super) fn set_relayed(&mut self, relayed: bool) {
        self.relayed = relayed;
    }

    /// Verifies an event, writes what it changes, and puts that into service. `false`: more of a
    /// snapshot is to come, or there is no change.
    pub(super) async fn take(&mut self, event: WatchEvent) -> Result<bool, ReadError> {
        let begins = matches!(event, WatchEvent::SnapshotBegin { .. });
        if begins && self.relayed && self.is_whole() {
            return Err(ReadError::Partial);
        }
        let ends = matches!(event, WatchEvent::SnapshotEnd { .. });
        let before = ends.then(|| self.view.fleet().clone());
        let Some(change) = self.view.apply(&event).map_err(ReadError::View)? else {
            return Ok(false);
        };
        if let Some(before) = before.filter(|_| !self.relayed)
            && let Some(text) = hidden_policy(&self.replica.0.own, &before, self.view.fleet())
        {
            return Err(ReadError::View(ViewError { code: RECORDS_WITHHELD, text }));
        }
        let whole = !self.relayed && (ends || self.is_whole());
        let place = KeptPlace { revision: change.revision, source: self.source, whole };
        self.write(change.writes, ends, place).await?;
        self.place = Some(place);
        self.replica.put(self.view.clone(), place, Now::read());
        Ok(true)
    }

    /// What nobody may see before it is on the disk: high-water marks are part of the state.
    async fn write(
        &self,
        writes: Vec<KvWrite>,
        replace: bool,
        place: KeptPlace,
    ) -> Result<(), ReadError> {
        let (shelf, view) = (self.replica.shelf().clone(), self.view.clone());
        let write = move || {
            if replace {
                shelf.replace(&view.to_kv(), &place)
            } else {
                shelf.advance(&writes, &place)
            }
        };
        let written = tokio::task::spawn_blocking(write).await;
        let failed = |problem: &dyn std::fmt::Display| ReadError::Disk(problem.to_string());
        written.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }
}

/// A snapshot can show a hash instead of any record, as if the reader might not see it. A policy
/// that allowed this cluster and stands unchanged in its owner's tree is for this cluster to see
/// still, so one that is hidden shows what the source is worth.
fn hidden_policy(own: &ClusterId, before: &Fleet, now: &Fleet) -> Option<String> {
    let (was, is) = (before.member(own)?, now.member(own)?);
    if was.name != is.name || was.trust_domains != is.trust_domains {
        return None;
    }
    for owner in before.owners() {
        let cluster = &owner.head().cluster;
        let Some(now) = now.owner(cluster) else { continue };
        for node in owner.nodes() {
            let records = node.shown().into_iter().flat_map(|namespace| namespace.records());
            let policies = records.filter(|it| it.kind() == Some(ResourceKind::AccessPolicy));
            for policy in policies.filter(|policy| now.record(policy.key()).is_none()) {
                let stands = now.nodes().iter().any(|other| match other.shown() {
                    Some(shown) => shown.entries().iter().any(|it| it.leaf() == policy.leaf()),
                    None => other.hash() == node.hash(),
                });
                if stands {
                    let key = policy.key();
                    return Some(format!(
                        "{key} is only a hash now, though it is as it was before"
                    ));
                }
            }
        }
    }
    None
}
