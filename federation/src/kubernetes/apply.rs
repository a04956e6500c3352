//! What a writer wants to be there, and whether that needs a call to the API server. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::kubernetes::{FIELD_MANAGER, MANAGED_BY, MANAGED_BY_LABEL};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Map, Value, json};

use super::WRITER_LABEL;
use super::kinds::Kind;

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) kind: &'static Kind,
    /// `None` for kinds without namespaces.
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    /// The status, which is a subresource with fields of its own.
    pub(crate) status: bool,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind.kind, self.name),
            None => write!(f, "{}/{}", self.kind.kind, self.name),
        }
    }
}

/// Whose object a [`Write`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// Ours: made if it is missing, deleted once no writer wants it.
    Whole,
    /// A user's, of which some fields are ours.
    Part,
}

/// Fields that a writer wants an object to have. Of one object each of the main part and the status
/// may be written by one writer only: server-side apply takes back what is no longer listed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Write {
    pub(crate) target: Target,
    pub(crate) ownership: Ownership,
    /// The document without apiVersion, kind, `metadata.name` and `metadata.namespace`.
    pub(crate) fields: Map<String, Value>,
    /// The object as the cache has it, which spares calls that would change nothing.
    pub(crate) seen: Option<Arc<Value>>,
}

impl Write {
    /// An object of ours. `fields`: `metadata` (labels, annotations), `spec`, `data` and so on; the
    /// labels that mark it as ours are added.
    pub(crate) fn whole(
        kind: &'static Kind,
        namespace: Option<&str>,
        name: &str,
        fields: Value,
    ) -> Self {
        let (namespace, name) = (namespace.map(str::to_string), name.to_string());
        let target = Target { kind, namespace, name, status: false };
        Self { target, ownership: Ownership::Whole, fields: map(fields), seen: None }
    }

    /// The status of a user's object. `resource_version`: refuse it if the object has changed since,
    /// for lists that others write too.
    pub(crate) fn status(
        kind: &'static Kind,
        namespace: Option<&str>,
        name: &str,
        resource_version: Option<&str>,
        status: Value,
    ) -> Self {
        let fields = json!({ "status": status });
        let mut write =
            Self { ownership: Ownership::Part, ..Self::whole(kind, namespace, name, fields) };
        write.target.status = true;
        if let Some(version) = resource_version {
            write.metadata().insert("resourceVersion".into(), version.into());
        }
        write
    }

    pub(crate) fn seen(mut self, object: Arc<Value>) -> Self {
        self.seen = Some(object);
        self
    }

    /// Who takes it along when it goes. A user's object is the user's.
    pub(super) fn owned_by(&mut self, owner: &OwnerReference) {
        if self.ownership == Ownership::Whole {
            self.metadata().insert("ownerReferences".into(), json!([owner]));
        }
    }

    fn metadata(&mut self) -> &mut Map<String, Value> {
        let metadata = self.fields.entry("metadata").or_insert_with(|| json!({}));
        if !metadata.is_object() {
            *metadata = json!({});
        }
        metadata.as_object_mut().expect("it was just made an object")
    }

    /// The whole document, as it is applied.
    pub(super) fn document(&self, writer: &str) -> Value {
        let mut write = self.clone();
        let metadata = write.metadata();
        metadata.insert("name".into(), self.target.name.clone().into());
        if let Some(namespace) = &self.target.namespace {
            metadata.insert("namespace".into(), namespace.clone().into());
        }
        if self.ownership == Ownership::Whole {
            let labels = metadata.entry("labels").or_insert_with(|| json!({}));
            if let Some(labels) = labels.as_object_mut() {
                labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
                labels.insert(WRITER_LABEL.into(), writer.into());
            }
        }
        write.fields.insert("apiVersion".into(), self.target.kind.api_version().into());
        write.fields.insert("kind".into(), self.target.kind.kind.into());
        Value::Object(write.fields)
    }
}

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The objects of a writer's own, as the API server had them last.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(super) objects: BTreeMap<Target, Value>,
}

impl Observed {
    pub(crate) fn get(
        &self,
        kind: &'static Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<&Value> {
        let (namespace, name) = (namespace.map(str::to_string), name.to_string());
        self.objects.get(&Target { kind, namespace, name, status: false })
    }

    /// All of one kind.
    pub(crate) fn of(&self, kind: &'static Kind) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |(target, _)| target.kind == kind).map(|(_, object)| object)
    }
}

/// Lists to which others add entries of their own.
const SHARED: [&str; 2] = ["conditions", "ownerReferences"];

/// Whether `there` has everything that `wanted` has. Fields that the API server or others add do not
/// count; lists are equally long, except that there may be conditions and owners of others' making.
pub(super) fn covers(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            wanted.iter().all(|(field, wanted)| match (there.get(field), wanted) {
                (None, wanted) => is_empty(wanted),
                (Some(Value::Array(there)), Value::Array(wanted)) if SHARED.contains(&&**field) => {
                    let has = |wanted: &Value| there.iter().any(|there| covers(there, wanted));
                    wanted.iter().all(has)
                }
                // An atomic map (API reference, ServiceSpec): one label more selects other pods.
                (Some(there), wanted) if field == "selector" => there == wanted,
                (Some(there), wanted) => covers(there, wanted),
            })
        }
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len()
                && there.iter().zip(wanted).all(|(there, wanted)| covers(there, wanted))
        }
        _ => there == wanted,
    }
}

/// The API server leaves empty lists and maps out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Apply {
        target: Target,
        document: Value,
        /// The object is ours.
        whole: bool,
        /// It was there when the writer's own objects were listed.
        known: bool,
    },
    Delete {
        target: Target,
        uid: String,
    },
}

impl Step {
    pub(super) fn target(&self) -> &Target {
        match self {
            Self::Apply { target, .. } | Self::Delete { target, .. } => target,
        }
    }
}

/// The calls that lead from what is to what should be.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) wanted: BTreeSet<Target>,
}

/// `applied`: documents that were applied lately. What a cache has may be older than that, and a
/// webhook may have changed it: neither is a reason to apply the same again at once.
pub(super) fn plan(
    writer: &str,
    desired: Vec<Write>,
    own: &Observed,
    applied: &BTreeMap<&Target, &Value>,
) -> Plan {
    let mut plan = Plan { steps: Vec::new(), wanted: BTreeSet::new() };
    for write in desired {
        let document = write.document(writer);
        let Write { target, ownership, seen, .. } = write;
        let whole = ownership == Ownership::Whole;
        let mine = own.objects.get(&target).filter(|_| whole);
        let there = mine.or(seen.as_deref());
        let known = mine.is_some();
        let is_done = match applied.get(&target) {
            Some(last) if **last == document => true,
            Some(last) => same_but_version(last, &document) && has_all(there, &document),
            None => has_all(there, &document) && !there.is_some_and(|t| owns_more(t, &document)),
        };
        plan.wanted.insert(target.clone());
        if !is_done {
            plan.steps.push(Step::Apply { target, document, whole, known });
        }
    }
    for (target, object) in own.objects.iter().filter(|(target, _)| !plan.wanted.contains(target)) {
        let uid = object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        let is_going = object.pointer("/metadata/deletionTimestamp").is_some();
        if !is_going {
            plan.steps.push(Step::Delete { target: target.clone(), uid: uid.into() });
        }
    }
    plan
}

/// Items of a list do not say of which kind they are.
fn has_all(there: Option<&Value>, document: &Value) -> bool {
    let mut wanted = document.clone();
    if let Some(wanted) = wanted.as_object_mut() {
        wanted.retain(|field, _| field != "apiVersion" && field != "kind");
    }
    there.is_some_and(|there| covers(there, &wanted))
}

/// The version only says of which state of the object the rest speaks.
fn same_but_version(last: &Value, document: &Value) -> bool {
    let without = |document: &Value| {
        let mut document = document.clone();
        if let Some(metadata) = document.pointer_mut("/metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
        }
        document
    };
    without(last) == without(document)
}

/// Whether we once applied a field that the document no longer has (`metadata.managedFields`): then
/// it is to be applied again, so that the API server takes the field back.
fn owns_more(there: &Value, document: &Value) -> bool {
    let managed = there.pointer("/metadata/managedFields").and_then(Value::as_array);
    let ours = |entry: &&Value| {
        let is = |field: &str, value: &str| entry.get(field).is_some_and(|found| found == value);
        is("manager", FIELD_MANAGER)
            && is("operation", "Apply")
            && entry.get("subresource").is_none()
    };
    let entry = managed.and_then(|entries| entries.iter().find(ours));
    entry.and_then(|entry| entry.get("fieldsV1")).is_some_and(|fields| lacks(document, fields))
}

/// `fields`: a FieldsV1 set. Elements of lists are compared by [`covers`].
fn lacks(document: &Value, fields: &Value) -> bool {
    let Value::Object(fields) = fields else { return false };
    fields.iter().any(|(field, within)| match field.strip_prefix("f:") {
        Some(name) => document.get(name).is_none_or(|value| lacks(value, within)),
        None => false,
    })
}

#[cfg(test)]
mod tests;
