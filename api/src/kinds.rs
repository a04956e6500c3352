//! The kinds that are served, one module each: the serde types of the served fields, what happens to
//! the others, and the translation into `model`.

pub(crate) mod access_policy;
pub(crate) mod cluster_peer;
pub(crate) mod controlled;
pub(crate) mod endpoint_slice;
pub mod federation;
pub(crate) mod gateway;
pub(crate) mod gateway_class;
pub(crate) mod http_route;
pub mod join_grant;
pub(crate) mod namespace_grant;
pub(crate) mod ports;
pub(crate) mod reference_grant;
pub(crate) mod route;
pub(crate) mod service;
pub(crate) mod service_export;
pub(crate) mod service_import;
pub mod status;
pub(crate) mod tcp_route;

use model::Resource;

use crate::metadata::Identity;
use crate::report::{FieldRules, Report};

/// How a kind is read.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) kind: &'static str,
    pub(crate) api_versions: &'static [&'static str],
    pub(crate) namespaced: bool,
    /// What [`Report::refuse`] may leave out alone.
    pub(crate) parts: &'static [&'static str],
    /// What happens to the fields that the serde type does not have.
    pub(crate) rules: FieldRules,
    pub(crate) read: fn(&Self, &Identity, &mut Report<'_>) -> Reading,
}

/// What became of an object.
#[derive(Debug)]
pub(crate) enum Reading {
    /// In service, unless the report says that it failed.
    Served(Box<Resource>),
    /// Another implementation's: nothing is said of it.
    NotOurs,
    /// The report says why.
    Invalid,
}

impl Reading {
    pub(crate) fn of(resource: Option<Resource>) -> Self {
        resource.map_or(Self::Invalid, |resource| Self::Served(Box::new(resource)))
    }
}

pub(crate) const ALL: &[Kind] = &[
    service::KIND,
    endpoint_slice::KIND,
    service_export::KIND,
    service_import::KIND,
    gateway::KIND,
    http_route::KIND,
    tcp_route::KIND,
    reference_grant::KIND,
    access_policy::KIND,
    namespace_grant::KIND,
    cluster_peer::KIND,
];

pub(crate) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
pub(crate) const MCS_GROUP: &str = "multicluster.x-k8s.io";
pub(crate) const MCS_VERSIONS: &[&str] =
    &["multicluster.x-k8s.io/v1beta1", "multicluster.x-k8s.io/v1alpha1"];
pub(crate) const OWN_VERSIONS: &[&str] = &["fedgate.dev/v1alpha1"];

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::metadata::METADATA_FIELDS;
    use crate::report::Treatment;

    /// Both parts in one test, since both write the page.
    #[test]
    fn the_reference_page_lists_every_rule_and_every_field() {
        for (part, want) in [("own", own_fields()), ("fields", table())] {
            settle(part, &want);
        }
    }

    fn settle(part: &str, want: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/kinds.md");
        let (begin, end) = (format!("<!-- begin: {part} -->\n"), format!("<!-- end: {part} -->"));
        let page = fs::read_to_string(&path).unwrap();
        let (head, rest) = page.split_once(&begin).unwrap();
        let (found, tail) = rest.split_once(&end).unwrap();
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, format!("{head}{begin}{want}{end}{tail}")).unwrap();
        } else {
            assert_eq!(found, want, "UPDATE=1 cargo test -p api rewrites docs/reference/kinds.md");
        }
    }

    /// What `kubectl explain` prints of the kinds that are Fedgate's own.
    fn own_fields() -> String {
        let mut text = "| kind | field | type | what it says |\n|---|---|---|---|\n".to_string();
        for definition in crate::crd::all() {
            let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
            for field in crate::crd::fields(&definition) {
                let crate::crd::Field { path, r#type, description } = field;
                let description = description.replace('|', "\\|");
                writeln!(text, "| {kind} | `{path}` | {type} | {description} |").unwrap();
            }
        }
        text
    }

    /// Every block of YAML on the page, each by the reader of its kind.
    #[test]
    fn the_examples_of_the_reference_page_are_in_service() {
        let page = include_str!("../../docs/reference/kinds.md");
        let mut seen = std::collections::BTreeSet::new();
        for block in page.split("```yaml\n").skip(1) {
            let text = block.split("```").next().unwrap();
            let object: serde_json::Value = serde_saphyr::from_str(text).unwrap();
            let kind = object["kind"].as_str().unwrap().to_string();
            let (served, diagnostics) = match kind.as_str() {
                "Federation" => {
                    let (spec, diagnostics) = federation::read("page", &object);
                    (spec.is_some(), diagnostics)
                }
                "JoinGrant" => {
                    let (grant, diagnostics) = join_grant::read("page", &object);
                    (grant.is_some(), diagnostics)
                }
                "GatewayClass" => {
                    let classes = gateway_class::GatewayClasses::of_objects([&object]);
                    (classes.contains("fedgate"), vec![])
                }
                _ => {
                    let manifest = crate::parse_manifest("page", text).unwrap();
                    (manifest.objects.len() == 1, manifest.diagnostics)
                }
            };
            assert!(served && diagnostics.is_empty(), "{text}{diagnostics:#?}");
            seen.insert(kind);
        }
        let all = ALL.iter().map(|kind| kind.kind);
        let all = all.chain(controlled::ALL.iter().map(|kind| kind.kind));
        assert_eq!(seen, all.map(str::to_string).collect());
    }

    fn table() -> String {
        let mut text = "| kind | field | what happens |\n|---|---|---|\n".to_string();
        let of_all = METADATA_FIELDS.iter().map(|rule| ("all", rule));
        let of_kinds = ALL.iter().flat_map(|kind| kind.rules.iter().map(|rule| (kind.kind, rule)));
        for (kind, (field, treatment)) in of_all.chain(of_kinds) {
            if kind == "all" && *field == "*" {
                continue; // not metadata's
            }
            let what = match treatment {
                Treatment::Silent => "accepted, not read".to_string(),
                Treatment::Warn(text) => format!("warning: {text}"),
                Treatment::Refuse(fix) => format!("error: {fix}"),
            };
            writeln!(text, "| {kind} | `{field}` | {what} |").unwrap();
        }
        text
    }

    #[test]
    fn kinds_are_those_of_the_model() {
        let mut served: Vec<_> = ALL.iter().map(|kind| kind.kind).collect();
        let mut known: Vec<_> = model::ResourceKind::ALL.iter().map(|kind| kind.as_str()).collect();
        served.sort_unstable();
        known.sort_unstable();
        assert_eq!(served, known);
    }
}
