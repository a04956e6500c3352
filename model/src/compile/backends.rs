//! What requests can go to: this cluster's Services, the clusterset's ServiceImports, and which of
//! this cluster's Services others may reach.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Findings;
use super::peers::Peers;
use crate::catalog::{
    AccessPolicy, BackendKind, BackendTarget, Resource, ResourceKey, ResourceKind, ResourceSet,
    Service, ServiceImport,
};
use crate::code;
use crate::name::{ClusterName, ServiceName};
use crate::snapshot::{Backend, Export};

pub(super) type Exports = HashMap<ServiceName, Export>;
pub(super) type Backends = HashMap<BackendTarget, Arc<Backend>>;

pub(super) fn compile_exports(
    resources: &ResourceSet,
    peers: &Peers,
    findings: &mut Findings,
) -> Exports {
    let mut exports = Exports::new();
    for resource in resources.values() {
        let Resource::ServiceExport(export) = resource else { continue };
        let Some(service) = find_service(resources, &export.name) else {
            let message = format!("there is no Service {}", export.name);
            let fix = "create the Service with the same namespace and name, or mend the name";
            findings.error(resource, "metadata.name", code::SERVICE_NOT_FOUND, message, fix);
            continue;
        };
        let ports = service.ports.iter().map(|port| (port.port, port.protocol)).collect();
        exports.insert(export.name.clone(), Export { ports, targeted: false, allow: vec![] });
    }
    for resource in resources.values() {
        if let Resource::AccessPolicy(policy) = resource {
            apply_policy(resource, policy, peers, &mut exports, findings);
        }
    }
    warn_of_untargeted(resources, &exports, findings);
    exports
}

fn apply_policy(
    resource: &Resource,
    policy: &AccessPolicy,
    peers: &Peers,
    exports: &mut Exports,
    findings: &mut Findings,
) {
    for (index, entry) in policy.allow.iter().enumerate() {
        let Some(cluster) = entry.cluster.as_ref() else { continue };
        if !peers.contains_key(cluster) {
            let field = format!("spec.allow[{index}].cluster");
            let message = format!("{:?} is no peer of this cluster", cluster.as_str());
            let fix =
                "create its ClusterPeer, or mend the name; until then the entry allows nobody";
            findings.warning(resource, &field, code::CLUSTER_NOT_FOUND, message, fix);
        }
    }
    for (index, target) in policy.targets.iter().enumerate() {
        let name = ServiceName::new(policy.namespace.clone(), target.clone());
        match exports.get_mut(&name) {
            Some(export) => {
                export.targeted = true;
                export.allow.extend(policy.allow.iter().cloned());
            }
            None => {
                let field = format!("spec.targetRefs[{index}].name");
                let message = format!("there is no ServiceExport {name} in service");
                let fix = "export the Service, or mend the name";
                findings.warning(resource, &field, code::SERVICE_NOT_FOUND, message, fix);
            }
        }
    }
}

fn warn_of_untargeted(resources: &ResourceSet, exports: &Exports, findings: &mut Findings) {
    for resource in resources.values() {
        let Resource::ServiceExport(export) = resource else { continue };
        if exports.get(&export.name).is_some_and(|export| !export.targeted) {
            let message = format!("no AccessPolicy targets {}: nobody can reach it", export.name);
            let fix = "add an AccessPolicy with a targetRef to this ServiceExport";
            findings.warning(resource, "", code::EXPORT_WITHOUT_POLICY, message, fix);
        }
    }
}

pub(super) fn compile(
    own: &ClusterName,
    resources: &ResourceSet,
    peers: &Peers,
    exports: &Exports,
    findings: &mut Findings,
) -> Backends {
    let mut backends = Backends::new();
    for resource in resources.values() {
        match resource {
            Resource::Service(service) => add_service(service, &mut backends),
            Resource::ServiceImport(import) => {
                let clusters = import_clusters(own, resource, import, peers, findings);
                let export = exports.get(&import.name);
                check_exporters(own, resource, import, export, findings);
                add_import(import, export, clusters, &mut backends);
            }
            _ => {}
        }
    }
    backends
}

fn add_service(service: &Service, backends: &mut Backends) {
    for port in &service.ports {
        let (service, port, protocol) = (service.name.clone(), port.port, port.protocol);
        let target = BackendTarget { kind: BackendKind::Service, service: service.clone(), port };
        let backend = Backend { service, port, protocol, local: true, clusters: vec![] };
        backends.insert(target, Arc::new(backend));
    }
}

/// The cluster's own export takes part whether or not the import's status lists it already.
fn add_import(
    import: &ServiceImport,
    export: Option<&Export>,
    clusters: Vec<ClusterName>,
    backends: &mut Backends,
) {
    for port in &import.ports {
        let local = export.is_some_and(|export| export.ports.contains_key(&port.port));
        let (service, port, protocol) = (import.name.clone(), port.port, port.protocol);
        let target =
            BackendTarget { kind: BackendKind::ServiceImport, service: service.clone(), port };
        let backend = Backend { service, port, protocol, local, clusters: clusters.clone() };
        backends.insert(target, Arc::new(backend));
    }
}

/// The exporting clusters that are peers and not cordoned; our own name is not among them (`local`
/// says it).
fn import_clusters(
    own: &ClusterName,
    resource: &Resource,
    import: &ServiceImport,
    peers: &Peers,
    findings: &mut Findings,
) -> Vec<ClusterName> {
    let mut clusters = BTreeSet::new();
    for (index, cluster) in import.clusters.iter().enumerate().filter(|(_, name)| *name != own) {
        if let Some(peer) = peers.get(cluster) {
            // That it is cordoned is a finding of its ClusterPeer, not of each import.
            if !peer.cordoned {
                clusters.insert(cluster.clone());
            }
            continue;
        }
        let field = format!("status.clusters[{index}].cluster");
        let message = format!("{:?} is no peer of this cluster", cluster.as_str());
        let fix = "create its ClusterPeer, or mend the name";
        findings.warning(resource, &field, code::CLUSTER_NOT_FOUND, message, fix);
    }
    clusters.into_iter().collect()
}

/// An import that leads nowhere would be found out by its callers only.
fn check_exporters(
    own: &ClusterName,
    resource: &Resource,
    import: &ServiceImport,
    export: Option<&Export>,
    findings: &mut Findings,
) {
    let own_index = import.clusters.iter().position(|cluster| cluster == own);
    if let (Some(index), None) = (own_index, export) {
        let field = format!("status.clusters[{index}].cluster");
        let message = format!("this cluster does not export {}", import.name);
        let fix = "add a Service and a ServiceExport of that name, or remove the entry";
        findings.warning(resource, &field, code::SERVICE_NOT_FOUND, message, fix);
    } else if import.clusters.is_empty() && export.is_none() {
        let message = format!("no cluster exports {}", import.name);
        let fix = "list the clusters that export it";
        findings.warning(resource, "status.clusters", code::CLUSTER_NOT_FOUND, message, fix);
    }
}

fn find_service<'a>(resources: &'a ResourceSet, name: &ServiceName) -> Option<&'a Service> {
    let key = ResourceKey {
        kind: ResourceKind::Service,
        namespace: Some(name.namespace.clone()),
        name: name.name.clone(),
    };
    match resources.get(&key).map(|resource| &**resource) {
        Some(Resource::Service(service)) => Some(service),
        _ => None,
    }
}
