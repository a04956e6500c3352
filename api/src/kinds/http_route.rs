//! `gateway.networking.k8s.io/v1 HTTPRoute`: host names, path prefixes, one backend for each rule.

use model::{Hostname, HttpPathPrefix, HttpRule, Namespace, Resource};
use serde::Deserialize;

use super::route::{self, BackendRef, ParentRef};
use super::{Kind, Reading};
use crate::limits;
use crate::metadata::Identity;
use crate::report::Treatment::{Refuse, Silent, Warn};
use crate::report::{FieldRules, Report, quoted};

pub(crate) const KIND: Kind = Kind {
    kind: "HTTPRoute",
    api_versions: &["gateway.networking.k8s.io/v1"],
    namespaced: true,
    parts: &["spec.rules[]", "spec.parentRefs[]"],
    rules: RULES,
    read,
};

const RULES: FieldRules = &[
    ("spec.rules[].name", Silent),
    ("spec.rules[].retry", Warn("a gateway tries again by its own rules")),
    ("spec.rules[].matches[].*", Refuse("match by path only")),
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
    #[serde(default)]
    hostnames: Vec<String>,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    matches: Vec<Match>,
    #[serde(default)]
    backend_refs: Vec<BackendRef>,
}

#[derive(Debug, Deserialize)]
struct Match {
    path: Option<PathMatch>,
}

#[derive(Debug, Deserialize)]
struct PathMatch {
    r#type: Option<String>,
    value: Option<String>,
}

fn read(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Reading {
    Reading::of(translate(kind, identity, report))
}

fn translate(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Option<Resource> {
    let Document { spec } = report.read(kind.rules)?;
    let parents = route::parents(report, &identity.namespace, &spec.parent_refs);
    let hostnames = hostnames(report, &spec.hostnames);
    let rules = rules(report, &identity.namespace, &spec.rules);
    // Without a parent or a rule nothing of the route is in service; the report says why.
    (!parents.is_empty() && !rules.is_empty()).then(|| {
        let (namespace, name) = (identity.namespace.clone(), identity.name.clone());
        Resource::HttpRoute(model::HttpRoute { namespace, name, parents, hostnames, rules })
    })
}

fn hostnames(report: &mut Report<'_>, listed: &[String]) -> Vec<Hostname> {
    let field = "spec.hostnames";
    if !report.bounded(field, listed.len(), limits::HOSTNAMES_MAX) {
        return Vec::new();
    }
    let mut hostnames = Vec::new();
    for (index, text) in listed.iter().enumerate() {
        let fix = "write a name such as \"shop.example\" or \"*.shop.example\"";
        let parsed = report.parse(&format!("{field}[{index}]"), text, Hostname::parse, fix);
        hostnames.extend(parsed);
    }
    hostnames
}

fn rules(report: &mut Report<'_>, own: &Namespace, listed: &[Rule]) -> Vec<HttpRule> {
    if !report.bounded("spec.rules", listed.len(), limits::RULES_MAX) {
        return Vec::new();
    }
    if listed.is_empty() {
        report.invalid("spec.rules", "the list is empty", "add a rule with one backendRef");
    }
    let mut rules = Vec::new();
    for (index, rule) in listed.iter().enumerate() {
        let at = format!("spec.rules[{index}]");
        let prefixes = prefixes(report, &at, &rule.matches);
        let backend = route::backend(report, own, &at, &rule.backend_refs);
        if let Some(backend) = backend
            && !report.is_left_out(&at)
        {
            rules.push(HttpRule { prefixes, backend });
        }
    }
    rules
}

/// Any of a rule's matches applies, so one that is not served costs the whole rule.
fn prefixes(report: &mut Report<'_>, rule: &str, matches: &[Match]) -> Vec<HttpPathPrefix> {
    let field = format!("{rule}.matches");
    if !report.bounded(&field, matches.len(), limits::MATCHES_MAX) {
        return Vec::new();
    }
    let mut prefixes = Vec::new();
    for (index, entry) in matches.iter().enumerate() {
        let at = format!("{field}[{index}].path");
        let (kind, value) = match &entry.path {
            Some(path) => (path.r#type.as_deref(), path.value.as_deref()),
            None => (None, None),
        };
        match kind.unwrap_or("PathPrefix") {
            "PathPrefix" => prefixes.extend(prefix(report, &at, value.unwrap_or("/"))),
            other @ ("Exact" | "RegularExpression") => {
                let message = format!("path type {other} is not served");
                report.refuse(&format!("{at}.type"), message, "use PathPrefix");
            }
            other => {
                let message = format!("{} is no path type", quoted(other));
                report.invalid(&format!("{at}.type"), message, "use PathPrefix");
            }
        }
    }
    prefixes
}

/// A prefix without its final slash: `/a` and `/a/` match the same paths (Gateway API).
fn prefix(report: &mut Report<'_>, at: &str, value: &str) -> Option<HttpPathPrefix> {
    let field = format!("{at}.value");
    let lower = value.to_ascii_lowercase();
    let problem = if value.len() > limits::PATH_BYTES_MAX {
        Some("is longer than 1024 bytes")
    } else if !value.starts_with('/') {
        Some("does not begin with /")
    } else if value.bytes().any(|byte| matches!(byte, b'?' | b'#' | 0..=b' ' | 0x7f..)) {
        Some("has a character that no path has")
    } else if value.split('/').any(|element| matches!(element, "." | "..")) {
        Some("has an element . or ..")
    } else if value.contains("//") || lower.contains("%2f") {
        Some("has an empty element or an encoded slash")
    } else {
        None
    };
    if let Some(problem) = problem {
        let message = format!("{} {problem}", quoted(value));
        report.invalid(&field, message, "write a prefix such as \"/api\"");
        return None;
    }
    let trimmed = value.trim_end_matches('/');
    Some(HttpPathPrefix(if trimmed.is_empty() { "/" } else { trimmed }.to_string()))
}
