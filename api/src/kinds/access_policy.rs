//! `fedgate.dev/v1alpha1 AccessPolicy`: who may reach a ServiceExport.
//!
//! An unknown field may have been meant to narrow what is allowed, so it costs the whole policy: the
//! default is deny.

use model::{AllowEntry, ClusterName, ObjectName, Resource, SpiffeId, TrustDomain};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Kind, MCS_GROUP, OWN_VERSIONS, Reading};
use crate::limits;
use crate::metadata::Identity;
use crate::report::Treatment::Refuse;
use crate::report::{FieldRules, Report, quoted};

pub(crate) const KIND: Kind = Kind {
    kind: "AccessPolicy",
    api_versions: OWN_VERSIONS,
    namespaced: true,
    parts: &[],
    rules: RULES,
    read,
};

const RULES: FieldRules = &[("*", Refuse("remove it, or mend its spelling"))];

#[derive(Debug, Deserialize)]
struct Document {
    spec: Spec,
}

/// Who may reach which exports of this namespace. The default is deny.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec {
    /// The ServiceExports that the policy is for, in the policy's own namespace. An export that no
    /// policy is for is reached by nobody.
    #[schemars(
        length(min = 1, max = limits::TARGET_REFS_MAX),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    target_refs: Vec<TargetRef>,
    /// Who may reach them. One entry that matches is enough, and the entries of all policies for one
    /// export add up. An empty list allows nobody.
    #[schemars(
        length(max = limits::ALLOW_ENTRIES_MAX),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    #[serde(default)]
    allow: Vec<Allow>,
}

/// Names a ServiceExport.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.group == 'multicluster.x-k8s.io' && self.kind == 'ServiceExport'",
    "message": "write group: multicluster.x-k8s.io and kind: ServiceExport"
}]))]
struct TargetRef {
    /// The API group of the target: "multicluster.x-k8s.io".
    #[schemars(length(max = 253))]
    group: String,
    /// The kind of the target: "ServiceExport".
    #[schemars(length(min = 1, max = 63))]
    kind: String,
    /// The name of a ServiceExport in the policy's namespace.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    name: String,
}

/// Some callers. At least one field is set, and all that are set must match.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.cluster) || has(self.trustDomain) || has(self.spiffeId)",
        "message": "the entry names nobody: set cluster, trustDomain or spiffeId"
    },
    {
        "rule": concat!(
            "!has(self.trustDomain) || !has(self.spiffeId) || ",
            "(self.spiffeId.lowerAscii() + '/').startsWith('spiffe://' + self.trustDomain + '/')"
        ),
        "message": "the SPIFFE ID is of another trust domain: remove trustDomain, or mend one of the two"
    }
]))]
struct Allow {
    /// Callers of this cluster, by its name in the federation or that of its ClusterPeer.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    cluster: Option<String>,
    /// Callers whose identity is in this trust domain, such as "west.example".
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9._-]+$"))]
    trust_domain: Option<String>,
    /// The caller with exactly this SPIFFE ID, such as "spiffe://west.example/ns/shop/sa/web". Callers
    /// without an identity of their own travel as their gateway, and match no SPIFFE ID.
    #[schemars(
        length(min = 1, max = 2048),
        regex(pattern = r"^(?i:spiffe://[a-z0-9._-]+)(/[A-Za-z0-9._-]+)*$")
    )]
    spiffe_id: Option<String>,
}

fn read(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Reading {
    Reading::of(translate(kind, identity, report))
}

fn translate(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Option<Resource> {
    let Document { spec } = report.read(kind.rules)?;
    let targets = targets(report, &spec.target_refs);
    let allow = allow(report, &spec.allow);
    let (namespace, name) = (identity.namespace.clone(), identity.name.clone());
    Some(Resource::AccessPolicy(model::AccessPolicy { namespace, name, targets, allow }))
}

fn targets(report: &mut Report<'_>, refs: &[TargetRef]) -> Vec<ObjectName> {
    let field = "spec.targetRefs";
    if !report.bounded(field, refs.len(), limits::TARGET_REFS_MAX) {
        return Vec::new();
    }
    if refs.is_empty() {
        report.invalid(field, "the list is empty", "name the ServiceExport that the policy is for");
    }
    let mut targets = Vec::new();
    for (index, target) in refs.iter().enumerate() {
        let at = format!("{field}[{index}]");
        if target.group != MCS_GROUP || target.kind != "ServiceExport" {
            let TargetRef { group, kind, .. } = target;
            let message = format!("kind {} of group {} is no target", quoted(kind), quoted(group));
            let fix = format!("write group: {MCS_GROUP} and kind: ServiceExport");
            report.invalid(&format!("{at}.kind"), message, &fix);
        }
        let fix = "write the name of a ServiceExport";
        let name = report.parse(&format!("{at}.name"), &target.name, ObjectName::parse, fix);
        targets.extend(name);
    }
    targets
}

fn allow(report: &mut Report<'_>, listed: &[Allow]) -> Vec<AllowEntry> {
    if !report.bounded("spec.allow", listed.len(), limits::ALLOW_ENTRIES_MAX) {
        return Vec::new();
    }
    let mut entries = Vec::new();
    for (index, entry) in listed.iter().enumerate() {
        let at = format!("spec.allow[{index}]");
        let field = format!("{at}.cluster");
        let fix = "write the cluster's name, as its ClusterPeer has it";
        let cluster = entry.cluster.as_deref();
        let cluster = cluster.map(|text| report.parse(&field, text, ClusterName::parse, fix));
        let field = format!("{at}.trustDomain");
        let fix = "write a trust domain such as \"east.example\"";
        let domain = entry.trust_domain.as_deref();
        let domain = domain.map(|text| report.parse(&field, text, TrustDomain::parse, fix));
        let field = format!("{at}.spiffeId");
        let fix = "write an ID such as \"spiffe://east.example/ns/shop/sa/web\"";
        let id = entry.spiffe_id.as_deref();
        let id = id.map(|text| report.parse(&field, text, SpiffeId::parse, fix));
        if cluster.is_none() && domain.is_none() && id.is_none() {
            let fix = "set cluster, trustDomain or spiffeId; fields of one entry must all match";
            report.invalid(&at, "the entry names nobody", fix);
        }
        let entry = AllowEntry {
            cluster: cluster.flatten(),
            trust_domain: domain.flatten(),
            spiffe_id: id.flatten(),
        };
        check_agreement(report, &at, &entry);
        entries.push(entry);
    }
    entries
}

/// An entry that can never match is a mistake.
fn check_agreement(report: &mut Report<'_>, at: &str, entry: &AllowEntry) {
    if let (Some(domain), Some(id)) = (&entry.trust_domain, &entry.spiffe_id)
        && domain != id.trust_domain()
    {
        let message = format!("the ID's trust domain is {}, not {domain}", id.trust_domain());
        let fix = "remove trustDomain, or mend one of the two";
        report.invalid(&format!("{at}.spiffeId"), message, fix);
    }
}
