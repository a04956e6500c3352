//! The Multi-Cluster Services API (KEP-1645): status of ServiceExports, and for each import a
//! ServiceImport with a Service that every pod can use.
//!
//! ```text
//! cache, federation, findings --sources--> World --desired (pure)--> objects --writer--> API server
//! derived Services in the cache + imports --derived (pure)--> listeners and routes for gateways
//! ```
//!
//! Pods know nothing of the federation: they connect to the derived Service `imported-<name>`, whose
//! endpoints are the gateways, on a port of a pool that stands for the import. Which port stands for
//! what is written on the derived Services and nowhere else, so that every node of the cluster and
//! each of its successors knows it. `docs/concepts/multicluster-services.md` is for users.

mod condition;
mod derived;
mod exports;
mod imports;
mod names;
mod pool;
mod sources;
mod world;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use discovery::Catalog;
use discovery::kubernetes::{Cache, WatchedKind};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use super::kinds::{ENDPOINT_SLICE, Kind, SERVICE};
use super::{Cluster, Observed, Owned, Write, Writer, changed};
use crate::intake::{Catalogs, Findings, Shared};
use sources::{KINDS, Sources};
use world::Memory;

pub(crate) use derived::Derived;
use pool::Pool;

const GROUP: &str = "multicluster.x-k8s.io";
const NAME: &str = "mcs";

static EXPORT_V1BETA1: Kind = kind("v1beta1", "ServiceExport", "serviceexports");
static EXPORT_V1ALPHA1: Kind = kind("v1alpha1", "ServiceExport", "serviceexports");
static IMPORT_V1BETA1: Kind = kind("v1beta1", "ServiceImport", "serviceimports");
static IMPORT_V1ALPHA1: Kind = kind("v1alpha1", "ServiceImport", "serviceimports");

const fn kind(version: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind { group: GROUP, version, kind, plural }
}

/// The two kinds in the versions that the API server has; `None` where it has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct McsKinds {
    export: Option<&'static Kind>,
    import: Option<&'static Kind>,
}

impl McsKinds {
    fn served(cache: &Cache) -> Self {
        let of = |kind, known: [&'static Kind; 2]| {
            let version = cache.api_resource(kind)?.version;
            known.into_iter().find(|kind| kind.version == version)
        };
        Self {
            export: of(WatchedKind::ServiceExport, [&EXPORT_V1BETA1, &EXPORT_V1ALPHA1]),
            import: of(WatchedKind::ServiceImport, [&IMPORT_V1BETA1, &IMPORT_V1ALPHA1]),
        }
    }
}

/// Keeps imports and the status of exports.
#[derive(Debug)]
pub(super) struct McsWriter {
    cluster: Cluster,
    /// In which versions its own objects were listed last: they are looked for under these.
    kinds: Mutex<McsKinds>,
    sources: Sources,
    memory: Memory,
    wakes: Wakes,
    leader: watch::Receiver<bool>,
}

impl McsWriter {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Self {
            cluster: cluster.clone(),
            kinds: Mutex::default(),
            sources: Sources::default(),
            memory: Memory::default(),
            wakes: Wakes::new(cluster),
            leader: cluster.leader.clone(),
        }
    }
}

impl Writer for McsWriter {
    const NAME: &'static str = NAME;

    fn owned(&self) -> Vec<Owned> {
        let served = McsKinds::served(&self.cluster.cache);
        *self.kinds.lock().unwrap_or_else(PoisonError::into_inner) = served;
        let kinds = [Some(&SERVICE), Some(&ENDPOINT_SLICE), served.import];
        kinds.into_iter().flatten().map(|kind| Owned { kind, namespace: None }).collect()
    }

    fn desired(&mut self, own: &Observed, now: Timestamp) -> Option<Vec<Write>> {
        let kinds = *self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if self.leader.has_changed().unwrap_or_default() {
            // Another node may have written meanwhile.
            self.leader.mark_unchanged();
            self.memory = Memory::default();
        }
        self.wakes.note(&self.cluster.cache);
        let world = self.sources.world(&self.cluster, kinds)?;
        let writes = world.desired(own, &mut self.memory, now);
        (self.wakes.on_catalog, self.wakes.after) = (self.memory.is_waiting, self.memory.wake_in);
        Some(writes)
    }

    async fn changed(&mut self) {
        self.wakes.changed(&self.cluster.cache).await;
    }
}

/// What there was when the writer looked last, and what makes it look again. Endpoints change all the
/// time in a large cluster, and mean nothing here.
#[derive(Debug)]
struct Wakes {
    cache: watch::Receiver<u64>,
    catalogs: Catalogs,
    shared: watch::Receiver<Arc<Shared>>,
    findings: watch::Receiver<Arc<Findings>>,
    changes: Vec<u64>,
    catalog: Option<Arc<Catalog>>,
    found: Arc<Findings>,
    /// The catalog is about to have what the cache has.
    on_catalog: bool,
    after: Option<Duration>,
}

impl Wakes {
    fn new(cluster: &Cluster) -> Self {
        let around = &cluster.around;
        Self {
            cache: cluster.cache.changes(),
            catalogs: around.catalogs.clone(),
            shared: around.shared.clone(),
            findings: around.findings.clone(),
            changes: Vec::new(),
            catalog: None,
            found: Arc::default(),
            on_catalog: true,
            after: None,
        }
    }

    /// What comes after this is new.
    fn note(&mut self, cache: &Cache) {
        self.cache.mark_unchanged();
        self.shared.mark_unchanged();
        self.catalog.clone_from(&self.catalogs.borrow_and_update());
        self.found = self.findings.borrow_and_update().clone();
        self.changes = cache.changes_of_each(&KINDS);
        (self.on_catalog, self.after) = (true, None);
    }

    async fn changed(&mut self, cache: &Cache) {
        let patience = self.after.unwrap_or(Duration::MAX);
        let patience = tokio::time::sleep(patience);
        tokio::pin!(patience);
        loop {
            let is_news = tokio::select! {
                () = changed(&mut self.shared) => true,
                () = &mut patience => true,
                () = changed(&mut self.cache) => cache.changes_of_each(&KINDS) != self.changes,
                () = changed(&mut self.catalogs) => {
                    let found = |catalog: &Option<Arc<Catalog>>| {
                        catalog.as_ref().map(|catalog| catalog.diagnostics.clone())
                    };
                    self.on_catalog || found(&self.catalogs.borrow()) != found(&self.catalog)
                }
                () = changed(&mut self.findings) => {
                    self.findings.borrow().compile != self.found.compile
                }
            };
            if is_news {
                return;
            }
        }
    }
}

/// Tells this node's gateways which port stands for which import, whether or not it is this node
/// that writes: the derived Services say so.
pub(super) async fn keep_derived(cluster: Cluster) {
    let cache = &cluster.cache;
    let (mut changes, mut shared) = (cache.changes(), cluster.around.shared.clone());
    let mut catalogs = cluster.around.catalogs.clone();
    let (mut services, mut listening) = (None, derived::Listening::default());
    loop {
        changes.mark_unchanged();
        let added = shared.borrow_and_update().clone();
        if !added.awaited && cache.is_known(WatchedKind::Service) {
            services = Some(cache.changes_of(WatchedKind::Service));
            let recorded =
                world::recorded(cache.list_managed::<Value>(WatchedKind::Service).iter());
            let pool = Pool::from(cluster.config.import_ports);
            let recorded = listening.settle(recorded, pool);
            let resources = derived::resources(sources::imports(&added), recorded);
            let derived = Arc::new(Derived::Imports { pool, resources });
            cluster.derived.send_if_modified(|known| {
                let is_new = *known != derived;
                *known = derived;
                is_new
            });
        }
        loop {
            let is_news = tokio::select! {
                () = changed(&mut shared) => true,
                // That a kind is known changes no object; it is so with the first catalog.
                () = changed(&mut catalogs), if services.is_none() => true,
                () = changed(&mut changes) => {
                    Some(cache.changes_of(WatchedKind::Service)) != services
                }
                () = cluster.around.stop.cancelled() => return,
            };
            if is_news {
                break;
            }
        }
    }
}
