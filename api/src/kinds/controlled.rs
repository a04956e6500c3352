//! Kinds that only controllers act on: they never become a [`model::Resource`], and go to no gateway.

use model::Diagnostic;

use super::gateway_class::GatewayClasses;
use crate::metadata::{self, Identity, TypeMeta};
use crate::report::{FieldRules, Place, Report, Treatment, quoted};
use crate::tree::Node;

/// How such a kind is called, and what does its work outside of Kubernetes.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) kind: &'static str,
    pub(crate) api_versions: &'static [&'static str],
    pub(crate) instead: &'static str,
}

/// All of them; none is in a namespace.
pub(crate) const ALL: &[Kind] = &[
    super::federation::KIND,
    super::join_grant::KIND,
    Kind {
        kind: "GatewayClass",
        api_versions: &["gateway.networking.k8s.io/v1"],
        instead: "Gateways of the class \"fedgate\" are ours where there is no Kubernetes",
    },
];

/// Reads an object of the kind; `translate` says what it means. Whatever is found wrong with it costs
/// the whole object.
pub(crate) fn read<T>(
    place: &str,
    object: &serde_json::Value,
    kind: &Kind,
    translate: impl FnOnce(&Identity, &mut Report<'_>) -> Option<T>,
) -> (Option<T>, Vec<Diagnostic>) {
    let node = Node::of_object(object);
    let classes = GatewayClasses::default();
    let mut report = Report::new(Place { file: place, classes: &classes }, &node);
    let found = is_of(kind, &mut report)
        .then(|| metadata::read(&mut report, kind.kind, false, &[]))
        .flatten()
        .and_then(|identity| translate(&identity, &mut report));
    let found = found.filter(|_| !report.failed());
    (found, report.into_diagnostics())
}

fn is_of(kind: &Kind, report: &mut Report<'_>) -> bool {
    const REST: FieldRules = &[("*", Treatment::Silent)];
    let Some(TypeMeta { api_version, kind: found }) = report.read(REST) else { return false };
    let (version, found) = (api_version.unwrap_or_default(), found.unwrap_or_default());
    let is_of = found == kind.kind && kind.api_versions.contains(&version.as_str());
    if !is_of {
        let message = format!("{} of {} is no {}", quoted(&found), quoted(&version), kind.kind);
        let fix = format!("write apiVersion: {}, kind: {}", kind.api_versions[0], kind.kind);
        report.invalid("kind", message, &fix);
    }
    is_of
}
