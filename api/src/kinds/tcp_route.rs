//! `gateway.networking.k8s.io TCPRoute` with one backend.

use model::Resource;
use serde::Deserialize;

use super::route::{self, BackendRef, ParentRef};
use super::{Kind, Reading};
use crate::metadata::Identity;
use crate::report::Treatment::{Refuse, Silent, Warn};
use crate::report::{FieldRules, Report};

pub(crate) const KIND: Kind = Kind {
    kind: "TCPRoute",
    api_versions: &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha2"],
    namespaced: true,
    parts: &["spec.parentRefs[]"],
    rules: RULES,
    read,
};

const RULES: FieldRules = &[
    ("spec.rules[].name", Silent),
    ("spec.rules[].*", Refuse("remove it; the rule cannot be served without its meaning")),
    ("spec.parentRefs[].*", Refuse("remove it")),
    ("spec.useDefaultGateways", Warn("the route is attached where parentRefs say")),
];

#[derive(Debug, Deserialize)]
struct Document {
    spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    parent_refs: Vec<ParentRef>,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    backend_refs: Vec<BackendRef>,
}

fn read(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Reading {
    Reading::of(translate(kind, identity, report))
}

fn translate(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Option<Resource> {
    let Document { spec } = report.read(kind.rules)?;
    let parents = route::parents(report, &identity.namespace, &spec.parent_refs);
    let [rule] = &spec.rules[..] else {
        let message = format!("the route has {} rules, exactly one is served", spec.rules.len());
        report.refuse("spec.rules", message, "write one rule");
        return None;
    };
    let backend = route::backend(report, &identity.namespace, "spec.rules[0]", &rule.backend_refs)?;
    (!parents.is_empty()).then(|| {
        let (namespace, name) = (identity.namespace.clone(), identity.name.clone());
        Resource::TcpRoute(model::TcpRoute { namespace, name, parents, backend })
    })
}
