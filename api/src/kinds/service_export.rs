//! `multicluster.x-k8s.io ServiceExport` (KEP-1645).

use model::{Resource, ServiceName};
use serde::Deserialize;

use super::{Kind, MCS_VERSIONS, Reading};
use crate::metadata::Identity;
use crate::report::Treatment::Warn;
use crate::report::{FieldRules, Report};

pub(crate) const KIND: Kind = Kind {
    kind: "ServiceExport",
    api_versions: MCS_VERSIONS,
    namespaced: true,
    parts: &[],
    rules: RULES,
    read,
};

const RULES: FieldRules = &[
    ("spec.exportedLabels", Warn("other clusters do not see it")),
    ("spec.exportedAnnotations", Warn("other clusters do not see it")),
];

#[derive(Debug, Deserialize)]
struct Document {
    #[expect(dead_code, reason = "its type is checked; none of its fields is served")]
    spec: Option<Spec>,
}

#[derive(Debug, Deserialize)]
struct Spec {}

fn read(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Reading {
    let document: Option<Document> = report.read(kind.rules);
    let name = ServiceName::new(identity.namespace.clone(), identity.name.clone());
    let export = model::ServiceExport { name, ports: Vec::new() };
    Reading::of(document.map(|_| Resource::ServiceExport(export)))
}
