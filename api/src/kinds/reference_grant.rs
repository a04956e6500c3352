//! `gateway.networking.k8s.io ReferenceGrant`: which routes may lead to a namespace's backends (GEP-709).
//!
//! A grant is for every implementation in the cluster, and may speak of kinds that are not served
//! here (a Gateway's Secrets): such entries permit nothing here, and nothing is said of them.

use model::{
    BackendKind, Namespace, ObjectName, ReferenceSource, ReferenceTarget, Resource, RouteKind,
};
use serde::Deserialize;

use super::{GATEWAY_GROUP, Kind, MCS_GROUP, Reading};
use crate::limits;
use crate::metadata::Identity;
use crate::report::Treatment::Refuse;
use crate::report::{FieldRules, Report};

pub(crate) const KIND: Kind = Kind {
    kind: "ReferenceGrant",
    api_versions: &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"],
    namespaced: true,
    parts: &[],
    rules: RULES,
    read,
};

/// An unknown field may have been meant to narrow what is granted, so it costs the whole grant.
const RULES: FieldRules = &[("*", Refuse("remove it, or mend its spelling"))];

#[derive(Debug, Deserialize)]
struct Document {
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Spec {
    from: Vec<From>,
    to: Vec<To>,
}

#[derive(Debug, Deserialize)]
struct From {
    group: String,
    kind: String,
    namespace: String,
}

#[derive(Debug, Deserialize)]
struct To {
    group: String,
    kind: String,
    name: Option<String>,
}

fn read(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Reading {
    let Some(Document { spec }) = report.read(kind.rules) else { return Reading::Invalid };
    if !report.bounded("spec.from", spec.from.len(), limits::REFERENCE_GRANT_ENTRIES_MAX)
        || !report.bounded("spec.to", spec.to.len(), limits::REFERENCE_GRANT_ENTRIES_MAX)
    {
        return Reading::Invalid;
    }
    if spec.from.is_empty() {
        report.invalid("spec.from", "the list is empty", "say whose routes may refer");
    }
    if spec.to.is_empty() {
        report.invalid("spec.to", "the list is empty", "say what they may refer to");
    }
    let (from, to) = (sources(report, &spec.from), targets(report, &spec.to));
    if from.is_empty() || to.is_empty() {
        return if report.failed() { Reading::Invalid } else { Reading::NotOurs };
    }
    let (namespace, name) = (identity.namespace.clone(), identity.name.clone());
    Reading::of(Some(Resource::ReferenceGrant(model::ReferenceGrant { namespace, name, from, to })))
}

fn sources(report: &mut Report<'_>, listed: &[From]) -> Vec<ReferenceSource> {
    let mut sources = Vec::new();
    for (index, entry) in listed.iter().enumerate() {
        let fix = "write the namespace of the routes";
        let field = format!("spec.from[{index}].namespace");
        let namespace = report.parse(&field, &entry.namespace, Namespace::parse, fix);
        let kind = match (entry.group.as_str(), entry.kind.as_str()) {
            (GATEWAY_GROUP, "HTTPRoute") => RouteKind::Http,
            (GATEWAY_GROUP, "TCPRoute") => RouteKind::Tcp,
            _ => continue,
        };
        sources.extend(namespace.map(|namespace| ReferenceSource { kind, namespace }));
    }
    sources
}

fn targets(report: &mut Report<'_>, listed: &[To]) -> Vec<ReferenceTarget> {
    let mut targets = Vec::new();
    for (index, entry) in listed.iter().enumerate() {
        let kind = match (entry.group.as_str(), entry.kind.as_str()) {
            ("", "Service") => BackendKind::Service,
            (MCS_GROUP, "ServiceImport") => BackendKind::ServiceImport,
            _ => continue,
        };
        // An empty name is the same as none (GEP-709).
        let name = match entry.name.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => {
                let field = format!("spec.to[{index}].name");
                let fix = "write the name of an object, or remove it to mean all of the kind";
                let Some(name) = report.parse(&field, name, ObjectName::parse, fix) else {
                    continue;
                };
                Some(name)
            }
            None => None,
        };
        targets.push(ReferenceTarget { kind, name });
    }
    targets
}
