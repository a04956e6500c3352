//! What a cluster's gateways are told of the rest of the federation: its ClusterPeers, and the
//! ServiceImports that follow from what serves (KEP-1645).

use std::collections::{BTreeMap, BTreeSet};

use model::code::{EXPORT_PORTS_DIFFER, LOCAL_OBJECT_WINS, OBJECT_INVALID, TRUST_DOMAIN_TAKEN};
use model::{
    ClusterId, ClusterPeer, Diagnostic, Namespace, ObjectName, Resource, ResourceKind, ResourceSet,
    ServiceImport, ServiceName, ServicePort, Severity,
};

use super::filter::Visibility;
use super::limits::DIAGNOSTICS_MAX;
use super::serving::{Exporter, serving};
use super::{Fleet, Record};

/// What `own` is to be told: a ClusterPeer of every other active member that published one, and a
/// ServiceImport of every service that serves and that `own` may see. Diagnostics are those about
/// objects of `own`, and about what it imports.
pub fn resources_for(fleet: &Fleet, own: &ClusterId) -> (Vec<Resource>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let mut resources = peers(fleet, own, &mut diagnostics);
    let serving = serving(fleet);
    let reach = Reach::of(fleet, own);
    for (service, exporters) in serving.services() {
        let seen = |exporter: &&Exporter| reach.contains(exporter, service);
        let seen: Vec<&Exporter> = exporters.iter().filter(seen).collect();
        if !seen.is_empty() {
            let import = import(service, &seen, &mut diagnostics);
            resources.push(Resource::ServiceImport(import));
        }
    }
    let own_findings = serving.findings().iter().filter(|finding| finding.cluster == *own);
    diagnostics.extend(own_findings.map(|finding| finding.diagnostic.clone()));
    diagnostics.truncate(DIAGNOSTICS_MAX);
    (resources, diagnostics)
}

/// Puts what the federation says beside a cluster's own objects. A local object wins over one of
/// the same key from the federation, with a warning where the two differ.
pub fn merge(local: &ResourceSet, fleet: Vec<Resource>) -> (ResourceSet, Vec<Diagnostic>) {
    let (mut merged, mut diagnostics) = (local.clone(), Vec::new());
    for resource in fleet {
        let key = resource.key();
        match local.get(&key) {
            None => merged.upsert(resource),
            Some(mine) if **mine == resource => {}
            Some(mine) => {
                diagnostics.push(Diagnostic {
                    severity: Severity::Warning,
                    code: LOCAL_OBJECT_WINS,
                    object: key.to_string(),
                    field: String::new(),
                    message: "the federation has an object of this key, which is not in service"
                        .into(),
                    fix: "remove the local object".into(),
                });
                if let Some(peer) = with_revoked_svids(mine, resource) {
                    merged.upsert(Resource::ClusterPeer(peer));
                }
            }
        }
    }
    diagnostics.truncate(DIAGNOSTICS_MAX);
    (merged, diagnostics)
}

/// No manifest says which SVIDs a cluster denies: its word in the federation counts in any case.
fn with_revoked_svids(mine: &Resource, theirs: Resource) -> Option<ClusterPeer> {
    match (mine, theirs) {
        (Resource::ClusterPeer(mine), Resource::ClusterPeer(theirs))
            if !theirs.revoked_svids.is_empty() =>
        {
            Some(ClusterPeer { revoked_svids: theirs.revoked_svids, ..mine.clone() })
        }
        _ => None,
    }
}

/// The ClusterPeers of the other members. What a member says of itself counts for its own name and
/// its own trust domains only.
fn peers(fleet: &Fleet, own: &ClusterId, diagnostics: &mut Vec<Diagnostic>) -> Vec<Resource> {
    let mut peers = Vec::new();
    for member in fleet.members().filter(|member| member.cluster != *own) {
        let mut records = fleet.records(&member.cluster);
        let Some(record) = records.find(|record| record.kind() == Some(ResourceKind::ClusterPeer))
        else {
            continue; // It has joined, but published nothing yet.
        };
        let Some(Resource::ClusterPeer(peer)) = record.resource() else {
            let problem = record.problem().unwrap_or("it is newer than this version reads");
            let message = format!("{} cannot be reached: {problem}", member.name);
            diagnostics.push(error(record, OBJECT_INVALID, message, "mend it in its cluster"));
            continue;
        };
        let mut peer = ClusterPeer { name: member.name.clone(), ..peer.clone() };
        peer.trust_bundles.retain(|bundle| {
            let domain = &bundle.trust_domain;
            let its_own = member.trust_domains.contains(domain) && !fleet.is_domain_revoked(domain);
            if !its_own {
                let message = format!("{domain} is no trust domain of {}", member.name);
                let fix = "each cluster publishes the bundles of its own trust domains";
                diagnostics.push(error(record, TRUST_DOMAIN_TAKEN, message, fix));
            }
            its_own
        });
        peer.revoked_svids.retain(|revoked| {
            let its_own = member.trust_domains.contains(revoked.id.trust_domain());
            if !its_own {
                let message = format!(
                    "revoked_svids: {} is no SVID of {}, and is not revoked by it",
                    revoked.id, member.name
                );
                let fix = "each cluster revokes SVIDs of its own trust domains";
                diagnostics.push(error(record, TRUST_DOMAIN_TAKEN, message, fix));
            }
            its_own
        });
        peers.push(Resource::ClusterPeer(peer));
    }
    peers
}

/// Which exports a cluster has or could be allowed to reach.
struct Reach<'a> {
    own: &'a ClusterId,
    targets: BTreeMap<(ClusterId, &'a Namespace), BTreeSet<&'a ObjectName>>,
}

impl<'a> Reach<'a> {
    fn of(fleet: &'a Fleet, own: &'a ClusterId) -> Self {
        let visibility = Visibility::of(fleet, own);
        let mut targets = BTreeMap::new();
        for owner in fleet.owners() {
            for records in owner.namespaces() {
                let Some(namespace) = records.namespace() else { continue };
                let key = (owner.head().cluster, namespace);
                targets.insert(key, visibility.targets(records));
            }
        }
        Self { own, targets }
    }

    fn contains(&self, exporter: &Exporter, service: &ServiceName) -> bool {
        let targets = self.targets.get(&(exporter.cluster, &service.namespace));
        exporter.cluster == *self.own || targets.is_some_and(|it| it.contains(&service.name))
    }
}

/// KEP-1645, "Service Port": the union of all ports; where exports disagree the oldest one's word
/// counts.
fn import(
    service: &ServiceName,
    exports: &[&Exporter],
    diagnostics: &mut Vec<Diagnostic>,
) -> ServiceImport {
    let mut ports = BTreeMap::<u16, &ServicePort>::new();
    for exporter in exports {
        for port in &exporter.ports {
            let clash = |other: &&&ServicePort| {
                let same_name = port.name.is_some() && other.name == port.name;
                (other.port == port.port || same_name) && **other != port
            };
            let Some(older) = ports.values().find(clash) else {
                ports.entry(port.port).or_insert(port);
                continue;
            };
            diagnostics.push(Diagnostic {
                severity: Severity::Warning,
                code: EXPORT_PORTS_DIFFER,
                object: format!("ServiceImport/{service}"),
                field: "spec.ports".into(),
                message: format!(
                    "{} has port {} ({}), an older export has {} ({})",
                    exporter.name,
                    port.port,
                    port.protocol.as_str(),
                    older.port,
                    older.protocol.as_str()
                ),
                fix: "make the Service's ports the same in all clusters that export it".into(),
            });
        }
    }
    ServiceImport {
        name: service.clone(),
        ports: ports.into_values().cloned().collect(),
        clusters: exports.iter().map(|exporter| exporter.name.clone()).collect(),
    }
}

fn error(record: &Record, code: model::code::Code, message: String, fix: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code,
        object: record.key().to_string(),
        field: String::new(),
        message,
        fix: fix.into(),
    }
}
