//! `fedgate.dev/v1alpha1 Federation`: whether this cluster founds a federation, and how the one that it
//! is in fares. Only a node that watches Kubernetes acts on it.

use model::Diagnostic;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::Condition;
use super::{OWN_VERSIONS, controlled};
use crate::kubernetes::FEDERATION_NAME;
use crate::limits;
use crate::report::Treatment::Refuse;
use crate::report::{FieldRules, Report, quoted};

pub(crate) const KIND: controlled::Kind = controlled::Kind {
    kind: "Federation",
    api_versions: OWN_VERSIONS,
    instead: "`fedctl init` founds a federation where there is no Kubernetes",
};

const RULES: FieldRules = &[("*", Refuse("remove it, or mend its spelling"))];

#[derive(Debug, Deserialize)]
struct Document {
    #[serde(default)]
    spec: Spec,
}

/// What is wanted of the federation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// What people call the federation. It is only shown: a federation is known by its id.
    #[schemars(length(min = 1, max = limits::FEDERATION_NAME_CHARS_MAX))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether this cluster founds a federation, with itself as the root, if it is in none. It happens
    /// once: a cluster that is in a federation stays there, whatever stands here later. Exactly one
    /// cluster of a federation has true; the others join it with a token.
    #[serde(default)]
    pub found: bool,
}

/// The federation as this cluster sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The `metadata.generation` that this status is about.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The federation's id: the hash of its root key, in hexadecimal digits. Absent while this
    /// cluster is in no federation.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How many clusters are active members, this one included.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clusters: Option<i64>,
    /// Names of the clusters that vote on what the federation's store takes in: one, three or five.
    #[schemars(
        length(max = limits::VOTERS_SHOWN_MAX),
        inner(length(min = 1, max = 63)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voters: Vec<String>,
    /// The name of the cluster that leads the voters. Absent while there is none or it is not known.
    #[schemars(length(max = 63))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Accepted: the object is right in itself. Ready: this cluster is in a federation and hears it.
    #[schemars(length(max = limits::CONDITIONS_MAX), extend(
        "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]
    ))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Reads a Federation strictly; `place` is what findings show as its place. `None` if it is not in
/// service, and the findings say why.
pub fn read(place: &str, object: &serde_json::Value) -> (Option<Spec>, Vec<Diagnostic>) {
    controlled::read(place, object, &KIND, |identity, report| {
        let Document { spec } = report.read(RULES)?;
        if identity.name.as_str() != FEDERATION_NAME {
            let message = format!("{} is not {FEDERATION_NAME:?}", quoted(identity.name.as_str()));
            let fix = "a cluster is in one federation at a time: name the object \"default\"";
            report.invalid("metadata.name", message, fix);
        }
        if let Some(name) = &spec.name {
            check_name(report, name);
        }
        Some(spec)
    })
}

fn check_name(report: &mut Report<'_>, name: &str) {
    let (count, max) = (name.chars().count(), limits::FEDERATION_NAME_CHARS_MAX);
    if count == 0 || count > max || name.chars().any(char::is_control) {
        let fix = format!("write 1 to {max} printable characters, or remove the field");
        report.invalid("spec.name", format!("{} is no name", quoted(name)), &fix);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found_in(name: &str, spec: Value) -> (Option<Spec>, String) {
        let metadata = json!({"name": name});
        let kind = "Federation";
        let (spec, diagnostics) = read(
            "kubernetes",
            &json!({"apiVersion": OWN_VERSIONS[0], "kind": kind, "metadata": metadata, "spec": spec}),
        );
        (spec, diagnostics.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn there_is_one_and_nothing_is_founded_unasked() {
        assert_eq!(found_in("default", json!(null)).0, Some(Spec::default()));
        let (spec, _) = found_in("default", json!({"name": "The shop", "found": true}));
        assert_eq!(spec, Some(Spec { name: Some("The shop".into()), found: true }));
        for (name, spec, want) in [
            ("other", json!({"found": true}), "metadata.name: \"other\" is not \"default\""),
            (
                "default",
                json!({"found": "yes"}),
                "spec.found: the text \"yes\" does not belong here",
            ),
            ("default", json!({"name": ""}), "spec.name: \"\" is no name"),
            ("default", json!({"name": "a\nb"}), "is no name"),
            ("default", json!({"name": "x".repeat(64)}), "is no name"),
            ("default", json!({"founded": true}), "spec.founded: the field is not served or is"),
        ] {
            let (spec, message) = found_in(name, spec);
            assert!(spec.is_none() && message.contains(want), "{message} is without {want}");
        }
    }
}
