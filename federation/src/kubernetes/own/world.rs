//! What the statuses follow from, as of one moment.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use discovery::Catalog;
use discovery::kubernetes::{Cache, WatchedKind};
use model::snapshot::Export;
use model::{
    ClusterName, ClusterPeer, Diagnostic, NamespaceGrant, Resource, ResourceKey, ResourceKind,
    Revision, Role, ServiceName,
};
use serde_json::Value;
use wire::resource::{Link, LinkState};

use super::federation::Fared;
use super::status::Object;
use crate::gateways::GatewayView;
use crate::kubernetes::Cluster;

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) policies: Arc<Vec<Object>>,
    pub(super) grants: Arc<Vec<Object>>,
    /// Users' ClusterPeers ...
    pub(super) peers: Arc<Vec<Object>>,
    /// ... and those of ours, by name.
    pub(super) own_peers: BTreeMap<String, Arc<Value>>,
    pub(super) federations: Vec<Arc<Value>>,
    /// This cluster's own objects that are in service.
    pub(super) catalog: Arc<Catalog>,
    /// What the federation adds to them.
    pub(super) shared: Vec<Resource>,
    /// What `compile` said, by object.
    pub(super) compile: BTreeMap<String, Vec<Diagnostic>>,
    pub(super) exports: HashMap<ServiceName, Export>,
    /// Of the snapshot that has these exports.
    pub(super) revision: Revision,
    pub(super) gateways: Vec<Gateway>,
    pub(super) member: Option<Member>,
    pub(super) fared: Fared,
}

/// What a gateway of this cluster says of itself.
#[derive(Debug, Clone)]
pub(super) struct Gateway {
    pub(super) name: String,
    pub(super) connected: bool,
    pub(super) acknowledged: Option<Revision>,
    /// `None` before its first report.
    pub(super) links: Option<Vec<Link>>,
}

/// This cluster as the federation has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Member {
    pub(super) is_admin: bool,
    pub(super) grants: Vec<NamespaceGrant>,
}

impl World {
    pub(super) fn resource(&self, key: &ResourceKey) -> Option<&Resource> {
        self.catalog.resources.get(key).map(|resource| &**resource)
    }

    pub(super) fn compiled(&self, key: &ResourceKey) -> impl Iterator<Item = &Diagnostic> {
        self.compile.get(&key.to_string()).into_iter().flatten()
    }

    pub(super) fn has_export(&self, name: &ServiceName) -> bool {
        let key = ResourceKey {
            kind: ResourceKind::ServiceExport,
            namespace: Some(name.namespace.clone()),
            name: name.name.clone(),
        };
        self.resource(&key).is_some()
    }

    pub(super) fn has_peer(&self, name: &ClusterName) -> bool {
        let of_name = |peer: &ClusterPeer| peer.name == *name;
        self.catalog.resources.values().any(|resource| match resource {
            Resource::ClusterPeer(peer) => of_name(peer),
            _ => false,
        })
    }

    /// The other members.
    pub(super) fn members(&self) -> impl Iterator<Item = &ClusterPeer> {
        self.shared.iter().filter_map(|resource| match resource {
            Resource::ClusterPeer(peer) => Some(peer),
            _ => None,
        })
    }

    /// How many services come from a cluster.
    pub(super) fn services_of(&self, name: &ClusterName) -> usize {
        let comes = |resource: &&Resource| match resource {
            Resource::ServiceImport(import) => import.clusters.contains(name),
            _ => false,
        };
        let own = self.catalog.resources.values();
        own.chain(&self.shared).filter(comes).count()
    }
}

impl Gateway {
    pub(super) fn links_to<'a>(
        &'a self,
        cluster: &'a ClusterName,
    ) -> impl Iterator<Item = &'a Link> {
        let links = self.links.iter().flatten();
        links.filter(move |link| link.cluster == *cluster)
    }

    pub(super) fn has_live_link_to(&self, cluster: &ClusterName) -> bool {
        self.links_to(cluster).any(|link| link.state == LinkState::Live)
    }
}

impl From<GatewayView> for Gateway {
    fn from(view: GatewayView) -> Self {
        Self {
            name: view.name.to_string(),
            connected: view.connected,
            acknowledged: view.acknowledged,
            links: view.report.map(|(report, _)| report.links),
        }
    }
}

/// What was read before, as long as it is still so.
#[derive(Debug, Default)]
pub(super) struct Sources {
    policies: Read,
    grants: Read,
    peers: Read,
}

#[derive(Debug, Default)]
struct Read {
    changes: Option<u64>,
    objects: Arc<Vec<Object>>,
}

impl Read {
    fn of_users(&mut self, cache: &Cache, kind: WatchedKind) -> Arc<Vec<Object>> {
        // Before the objects: a change in between is read twice then, instead of never.
        let changes = cache.changes_of(kind);
        if self.changes != Some(changes) {
            let of_users = cache.objects(kind).into_iter().filter(|object| !object.managed);
            let objects = of_users.filter_map(|of| cache.get(kind, of.namespace(), of.name()));
            self.objects = Arc::new(objects.map(Object::read).collect());
            self.changes = Some(changes);
        }
        self.objects.clone()
    }
}

/// Kinds that are looked at.
pub(super) const KINDS: [WatchedKind; 4] = [
    WatchedKind::AccessPolicy,
    WatchedKind::NamespaceGrant,
    WatchedKind::ClusterPeer,
    WatchedKind::Federation,
];

impl Sources {
    /// Everything as of now. `None` while something of it is not known: then nothing is to change.
    pub(super) fn world(&mut self, cluster: &Cluster, fared: Fared) -> Option<World> {
        let (around, cache) = (&cluster.around, &*cluster.cache);
        let (shared, catalog) = (around.shared.borrow().clone(), around.catalogs.borrow().clone()?);
        if shared.awaited || !KINDS.into_iter().all(|kind| cache.is_known(kind)) {
            return None;
        }
        let findings = around.findings.borrow().clone();
        let mut compile = BTreeMap::<String, Vec<Diagnostic>>::new();
        for found in &findings.compile {
            compile.entry(found.object.clone()).or_default().push(found.clone());
        }
        let own_peers = cache.list_managed::<Value>(WatchedKind::ClusterPeer).into_iter();
        let named = |object: Value| {
            let name = super::status::text(&object, "/metadata/name")?.to_string();
            Some((name, Arc::new(object)))
        };
        let gateways = around.gateways.view(std::time::Instant::now());
        Some(World {
            policies: self.policies.of_users(cache, WatchedKind::AccessPolicy),
            grants: self.grants.of_users(cache, WatchedKind::NamespaceGrant),
            peers: self.peers.of_users(cache, WatchedKind::ClusterPeer),
            own_peers: own_peers.filter_map(named).collect(),
            federations: cache.list(WatchedKind::Federation).into_iter().map(Arc::new).collect(),
            catalog,
            shared: shared.resources.clone(),
            compile,
            exports: findings.snapshot.exports.clone(),
            revision: findings.snapshot.revision,
            gateways: gateways.into_iter().map(Gateway::from).collect(),
            member: member(cluster),
            fared,
        })
    }
}

fn member(cluster: &Cluster) -> Option<Member> {
    let own = cluster.around.membership.own();
    let (_, fleet) = cluster.around.membership.state()?;
    let member = fleet.member(&own)?;
    let grants = fleet.records(&own).filter_map(|record| match record.resource() {
        Some(Resource::NamespaceGrant(grant)) => Some(grant.clone()),
        _ => None,
    });
    Some(Member { is_admin: member.roles.contains(Role::Admin), grants: grants.collect() })
}
