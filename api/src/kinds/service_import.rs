//! `multicluster.x-k8s.io ServiceImport` (KEP-1645).

use std::collections::BTreeSet;

use model::{ClusterName, Resource, ServiceName};
use serde::Deserialize;

use super::ports::{self, Port};
use super::service::check_affinity;
use super::{Kind, MCS_VERSIONS, Reading};
use crate::limits;
use crate::metadata::Identity;
use crate::report::Treatment::{Silent, Warn};
use crate::report::{FieldRules, Report, quoted};

pub(crate) const KIND: Kind = Kind {
    kind: "ServiceImport",
    api_versions: MCS_VERSIONS,
    namespaced: true,
    parts: &["spec.ports[]"],
    rules: RULES,
    read,
};

const RULES: FieldRules = &[
    ("spec.ips", Silent),
    ("spec.ipFamilies", Silent),
    ("spec.sessionAffinityConfig", Warn("requests of one client may reach different endpoints")),
    ("spec.internalTrafficPolicy", Warn("every cluster that exports the service may be chosen")),
    ("spec.trafficDistribution", Warn("every cluster that exports the service may be chosen")),
];

#[derive(Debug, Deserialize)]
struct Document {
    spec: Spec,
    status: Option<Status>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    r#type: Option<String>,
    #[serde(default)]
    ports: Vec<Port>,
    session_affinity: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Status {
    #[serde(default)]
    clusters: Vec<Cluster>,
}

#[derive(Debug, Deserialize)]
struct Cluster {
    cluster: String,
}

fn read(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Reading {
    Reading::of(translate(kind, identity, report))
}

fn translate(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Option<Resource> {
    let Document { spec, status } = report.read(kind.rules)?;
    match spec.r#type.as_deref() {
        Some("ClusterSetIP") | None => {}
        Some("Headless") => {
            let fix = "use ClusterSetIP";
            report.refuse("spec.type", "a Headless import is not served", fix);
            return None;
        }
        Some(other) => {
            let message = format!("{} is no type of a ServiceImport", quoted(other));
            report.invalid("spec.type", message, "use ClusterSetIP");
        }
    }
    check_affinity(report, spec.session_affinity.as_deref());
    let ports = ports::read(report, &spec.ports);
    let clusters = clusters(report, status.as_ref().map_or(&[][..], |status| &status.clusters));
    let name = ServiceName::new(identity.namespace.clone(), identity.name.clone());
    Some(Resource::ServiceImport(model::ServiceImport { name, ports, clusters }))
}

fn clusters(report: &mut Report<'_>, listed: &[Cluster]) -> Vec<ClusterName> {
    let field = "status.clusters";
    if !report.bounded(field, listed.len(), limits::IMPORT_CLUSTERS_MAX) {
        return Vec::new();
    }
    let (mut clusters, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, entry) in listed.iter().enumerate() {
        let field = format!("{field}[{index}].cluster");
        let fix = "write the cluster's name, as its ClusterPeer has it";
        let name = report.parse(&field, &entry.cluster, ClusterName::parse, fix);
        let Some(name) = name else { continue };
        if seen.insert(name.clone()) {
            clusters.push(name);
        } else {
            let message = format!("cluster {:?} is listed twice", name.as_str());
            report.invalid(&field, message, "remove one of the two");
        }
    }
    clusters
}
