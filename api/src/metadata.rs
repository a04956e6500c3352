//! `apiVersion`, `kind` and `metadata`: what every object has.

use std::collections::BTreeMap;

use model::{Namespace, ObjectName};
use serde::Deserialize;

use crate::report::{FieldRules, Report, Treatment};

/// The name and labels of an object whose kind is known.
#[derive(Debug)]
pub(crate) struct Identity {
    /// `default` where a namespaced object names none, as `kubectl` has it.
    pub(crate) namespace: Namespace,
    pub(crate) name: ObjectName,
    pub(crate) labels: BTreeMap<String, String>,
}

/// What is read first, to find the kind.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TypeMeta {
    pub(crate) api_version: Option<String>,
    pub(crate) kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct WithMetadata {
    metadata: Metadata,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    namespace: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

pub(crate) const METADATA_FIELDS: FieldRules = &[
    ("metadata.annotations", Treatment::Silent),
    ("metadata.uid", Treatment::Silent),
    ("metadata.resourceVersion", Treatment::Silent),
    ("metadata.generation", Treatment::Silent),
    ("metadata.creationTimestamp", Treatment::Silent),
    ("metadata.deletionTimestamp", Treatment::Silent),
    ("metadata.deletionGracePeriodSeconds", Treatment::Silent),
    ("metadata.managedFields", Treatment::Silent),
    ("metadata.ownerReferences", Treatment::Silent),
    ("metadata.finalizers", Treatment::Silent),
    ("metadata.generateName", Treatment::Silent),
    ("metadata.selfLink", Treatment::Silent),
    ("metadata.*", Treatment::Warn("Kubernetes has no such field")),
    ("*", Treatment::Silent), // the kind's own reading judges the rest
];

/// Reads `metadata`; diagnostics name the object by `kind` and whatever could be read.
pub(crate) fn read(
    report: &mut Report<'_>,
    kind: &'static str,
    namespaced: bool,
    parts: &'static [&'static str],
) -> Option<Identity> {
    let WithMetadata { metadata } = report.read::<WithMetadata>(METADATA_FIELDS)?;
    let name = report.parse(
        "metadata.name",
        &metadata.name,
        ObjectName::parse,
        "name the object as Kubernetes does, such as \"api\"",
    )?;
    if !namespaced {
        report.identify(format!("{kind}/{name}"), parts);
        if metadata.namespace.is_some() {
            let message = format!("a {kind} is in no namespace");
            report.invalid("metadata.namespace", message, "remove the field");
        }
    }
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let fix = "name it as Kubernetes does, such as \"shop\"";
    let namespace = report.parse("metadata.namespace", namespace, Namespace::parse, fix)?;
    if namespaced {
        report.identify(format!("{kind}/{namespace}/{name}"), parts);
    }
    Some(Identity { namespace, name, labels: metadata.labels })
}
