//! `fedgate.dev/v1alpha1 NamespaceGrant`: which clusters may export in which namespaces.
//!
//! An unknown field may have been meant to narrow what is granted, so it costs the whole grant.

use std::collections::BTreeSet;

use model::{ClusterName, Namespace, NamespaceMatch, NamespacePrefix, Resource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Kind, OWN_VERSIONS, Reading};
use crate::limits;
use crate::metadata::Identity;
use crate::report::Treatment::Refuse;
use crate::report::{FieldRules, Report, quoted};

pub(crate) const KIND: Kind = Kind {
    kind: "NamespaceGrant",
    api_versions: OWN_VERSIONS,
    namespaced: false,
    parts: &[],
    rules: RULES,
    read,
};

const RULES: FieldRules = &[("*", Refuse("remove it, or mend its spelling"))];

#[derive(Debug, Deserialize)]
struct Document {
    spec: Spec,
}

/// Which clusters may export services in which namespaces. It counts if the cluster that declares it
/// has the role "admin" in the federation.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Spec {
    /// The namespaces that the grant is about. In those that no grant names, the cluster that exported
    /// a service first serves it.
    #[schemars(
        length(min = 1, max = limits::GRANT_ENTRIES_MAX),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub(crate) namespaces: Vec<Entry>,
    /// The names of the clusters that may export there, each listed once. An empty list means that
    /// nobody may.
    #[schemars(
        length(max = limits::GRANT_ENTRIES_MAX),
        inner(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub(crate) clusters: Vec<String>,
}

/// One namespace, or all whose names begin alike: exactly one field is set.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.name) != has(self.prefix)",
    "message": "set either name or prefix"
}]))]
pub(crate) struct Entry {
    /// A namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// What the names of several namespaces begin with, such as "team-a-".
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9][-a-z0-9]*$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prefix: Option<String>,
}

fn read(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Reading {
    Reading::of(translate(kind, identity, report))
}

fn translate(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Option<Resource> {
    let Document { spec } = report.read(kind.rules)?;
    let namespaces = namespaces(report, &spec.namespaces);
    let clusters = clusters(report, &spec.clusters);
    let name = identity.name.clone();
    Some(Resource::NamespaceGrant(model::NamespaceGrant { name, namespaces, clusters }))
}

fn namespaces(report: &mut Report<'_>, listed: &[Entry]) -> Vec<NamespaceMatch> {
    let field = "spec.namespaces";
    if !report.bounded(field, listed.len(), limits::GRANT_ENTRIES_MAX) {
        return Vec::new();
    }
    if listed.is_empty() {
        report.invalid(field, "the list is empty", "list a namespace, as a name or as a prefix");
    }
    let mut namespaces = Vec::new();
    for (index, entry) in listed.iter().enumerate() {
        let at = format!("{field}[{index}]");
        let found = match (entry.name.as_deref(), entry.prefix.as_deref()) {
            (Some(name), None) => {
                let fix = "write a namespace such as \"shop\", or use prefix";
                let name = report.parse(&format!("{at}.name"), name, Namespace::parse, fix);
                name.map(NamespaceMatch::Name)
            }
            (None, Some(prefix)) => {
                let fix = "write what the namespaces' names begin with, such as \"team-a-\"";
                let at = format!("{at}.prefix");
                report.parse(&at, prefix, NamespacePrefix::parse, fix).map(NamespaceMatch::Prefix)
            }
            (Some(_), Some(_)) => {
                report.invalid(&at, "it has both name and prefix", "write two entries");
                None
            }
            (None, None) => {
                report.invalid(&at, "the entry names nothing", "set name or prefix");
                None
            }
        };
        namespaces.extend(found);
    }
    namespaces
}

fn clusters(report: &mut Report<'_>, listed: &[String]) -> Vec<ClusterName> {
    let field = "spec.clusters";
    if !report.bounded(field, listed.len(), limits::GRANT_ENTRIES_MAX) {
        return Vec::new();
    }
    let (mut clusters, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, text) in listed.iter().enumerate() {
        let at = format!("{field}[{index}]");
        let fix = "write the cluster's name, as its Member has it";
        let Some(name) = report.parse(&at, text, ClusterName::parse, fix) else { continue };
        if !seen.insert(name.clone()) {
            let message = format!("cluster {} is listed twice", quoted(text));
            report.invalid(&at, message, "remove one of the two");
        }
        clusters.push(name);
    }
    clusters
}
