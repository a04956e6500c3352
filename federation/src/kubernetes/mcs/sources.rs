//! Where the facts come from: the provider's cache, the federation's state, the findings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use discovery::kubernetes::{Cache, WatchedKind};
use k8s_openapi::api::core::v1::Pod;
use model::{ClusterId, Diagnostic, Resource, ResourceKind, Revision, ServiceImport, ServiceName};
use serde_json::Value;
use wire::store::StoreKey;

use super::names::derived;
use super::world::{Member, World, key, name_of};
use super::{McsKinds, Pool};
use crate::fleet::{Fleet, serving};
use crate::intake::{Findings, Shared};
use crate::kubernetes::Cluster;
use crate::limits::IMPORT_GATEWAYS_MAX;

/// Kinds whose objects matter here.
pub(super) const KINDS: [WatchedKind; 5] = [
    WatchedKind::Namespace,
    WatchedKind::GatewayPod,
    WatchedKind::Service,
    WatchedKind::ServiceExport,
    WatchedKind::ServiceImport,
];

/// What was read before, as long as it is still so.
#[derive(Debug, Default)]
pub(super) struct Sources {
    exports: Read,
    imports: Read,
    member: Option<(ClusterId, Revision, Arc<Member>)>,
}

impl Sources {
    /// Everything as of now. `None` while something of it is not known: then nothing is to change.
    pub(super) fn world(&mut self, cluster: &Cluster, kinds: McsKinds) -> Option<World> {
        let (around, cache) = (&cluster.around, &*cluster.cache);
        let (shared, catalog) = (around.shared.borrow().clone(), around.catalogs.borrow().clone()?);
        if shared.awaited || !KINDS.into_iter().all(|kind| cache.is_known(kind)) {
            return None;
        }
        let imports = imports(&shared).cloned().collect::<Vec<_>>();
        let exports = self.exports.of_users(cache, WatchedKind::ServiceExport);
        let names = imports.iter().map(|import| import.name.clone());
        let derived = imports.iter().map(|import| derived(&import.name));
        Some(World {
            own: around.name.clone(),
            pool: Pool::from(cluster.config.import_ports),
            kinds,
            namespaces: cache.namespaces().into_iter().collect(),
            gateways: gateways(&cache.gateway_pods()),
            member: self.member(cluster),
            foreign_imports: foreign(cache, WatchedKind::ServiceImport, names),
            foreign_services: foreign(cache, WatchedKind::Service, derived),
            services: foreign(cache, WatchedKind::Service, exports.keys().cloned()),
            imports,
            import_objects: self.imports.of_ours(cache, WatchedKind::ServiceImport),
            exports,
            publishing: publishing(&shared, &around.findings.borrow()),
            catalog,
        })
    }

    fn member(&mut self, cluster: &Cluster) -> Option<Arc<Member>> {
        let own = cluster.around.membership.own();
        let (revision, fleet) = cluster.around.membership.state()?;
        if let Some((of, at, known)) = &self.member
            && (*of, *at) == (own, revision)
        {
            return Some(known.clone());
        }
        let member = Arc::new(member(&fleet, own));
        self.member = Some((own, revision, member.clone()));
        Some(member)
    }
}

/// Decoded objects of a kind, and the number of changes after which they were read.
#[derive(Debug, Default)]
struct Read {
    changes: Option<u64>,
    objects: Arc<BTreeMap<ServiceName, Arc<Value>>>,
}

impl Read {
    fn of_users(
        &mut self,
        cache: &Cache,
        kind: WatchedKind,
    ) -> Arc<BTreeMap<ServiceName, Arc<Value>>> {
        self.objects(cache, kind, |kind| {
            let objects = cache.objects(kind).into_iter().filter(|object| !object.managed);
            objects.filter_map(|of| cache.get(kind, of.namespace(), of.name())).collect()
        })
    }

    fn of_ours(
        &mut self,
        cache: &Cache,
        kind: WatchedKind,
    ) -> Arc<BTreeMap<ServiceName, Arc<Value>>> {
        self.objects(cache, kind, |kind| cache.list_managed(kind))
    }

    fn objects(
        &mut self,
        cache: &Cache,
        kind: WatchedKind,
        read: impl FnOnce(WatchedKind) -> Vec<Value>,
    ) -> Arc<BTreeMap<ServiceName, Arc<Value>>> {
        // Before the objects: a change in between is read twice then, instead of never.
        let changes = cache.changes_of(kind);
        if self.changes != Some(changes) {
            let objects = read(kind).into_iter();
            let named = objects.filter_map(|object| Some((name_of(&object)?, Arc::new(object))));
            self.objects = Arc::new(named.collect());
            self.changes = Some(changes);
        }
        self.objects.clone()
    }
}

/// What the federation exports to this cluster.
pub(super) fn imports(shared: &Shared) -> impl Iterator<Item = &ServiceImport> {
    shared.resources.iter().filter_map(|resource| match resource {
        Resource::ServiceImport(import) => Some(import),
        _ => None,
    })
}

/// Those of the names that objects have which Fedgate did not make.
fn foreign(
    cache: &Cache,
    kind: WatchedKind,
    names: impl Iterator<Item = ServiceName>,
) -> BTreeSet<ServiceName> {
    let is_foreign = |name: &ServiceName| {
        let object = cache.object(kind, Some(name.namespace.as_str()), name.name.as_str());
        object.is_some_and(|object| !object.managed)
    };
    names.filter(is_foreign).collect()
}

/// The fleet's own decisions about the exports of `own`.
fn member(fleet: &Fleet, own: ClusterId) -> Member {
    let serving = serving(fleet);
    let mut member = Member::default();
    let findings = serving.findings().iter().filter(|finding| finding.cluster == own);
    let findings: BTreeMap<&str, &Diagnostic> =
        findings.map(|finding| (&*finding.diagnostic.object, &finding.diagnostic)).collect();
    for record in fleet.records(&own) {
        let Some(Resource::ServiceExport(export)) = record.resource() else { continue };
        let name = &export.name;
        member.acknowledged.insert(name.clone());
        member.exporters.insert(name.clone(), serving.exporters(name).to_vec());
        let object = StoreKey::of(own, &key(ResourceKind::ServiceExport, name)).to_string();
        if let Some(idle) = findings.get(&*object) {
            member.idle.insert(name.clone(), (*idle).clone());
        }
    }
    member
}

/// What was found about exports behind the provider.
fn publishing(shared: &Shared, findings: &Findings) -> Vec<Diagnostic> {
    let all = shared.diagnostics.iter().chain(&findings.compile);
    all.filter(|found| found.object.starts_with("ServiceExport/")).cloned().collect()
}

/// The addresses of pods that are ready and stay, in their order.
pub(super) fn gateways(pods: &[Pod]) -> Vec<IpAddr> {
    let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
    for pod in pods.iter().filter(|pod| is_ready(pod)) {
        let ips = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
        addresses.extend(ips.filter_map(|ip| ip.ip.parse::<IpAddr>().ok()));
    }
    addresses.into_iter().take(IMPORT_GATEWAYS_MAX).collect()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|found| found.type_ == "Ready" && found.status == "True")
}
