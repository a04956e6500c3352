//! One object of the API server: what is kept of it, and what the catalog gets of it.

use std::fmt;
use std::sync::Arc;

use api::GatewayClasses;
use api::kubernetes::{MANAGED_BY, MANAGED_BY_LABEL};
use kube::core::DynamicObject;
use model::{Diagnostic, Resource};
use serde_json::{Map, Value, json};

use super::kinds::WatchedKind;

/// Namespace (none for cluster-wide kinds) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub namespace: Option<Arc<str>>,
    pub name: Arc<str>,
}

impl ObjectKey {
    pub fn new(namespace: Option<&str>, name: &str) -> Self {
        Self { namespace: namespace.map(Into::into), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

/// An object as its writers need to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRef {
    pub kind: WatchedKind,
    pub api_version: Arc<str>,
    pub key: ObjectKey,
    pub uid: String,
    /// `None` where the API server counts none, as for Services.
    pub generation: Option<i64>,
    pub resource_version: String,
    /// The lowest `observedGeneration` anywhere in its status.
    pub status_observed: Option<i64>,
    /// It has a `deletionTimestamp`.
    pub deleting: bool,
    /// One of Fedgate's controllers made it: it is not in the catalog.
    pub managed: bool,
}

impl ObjectRef {
    pub fn namespace(&self) -> Option<&str> {
        self.key.namespace.as_deref()
    }

    pub fn name(&self) -> &str {
        &self.key.name
    }
}

/// An object as it came, without what nobody needs.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) object: ObjectRef,
    /// The whole object, as JSON.
    pub(super) body: Value,
}

/// An object with what the catalog gets of it.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) object: Arc<ObjectRef>,
    /// The object's JSON text, if the cache keeps it.
    pub(super) body: Option<Box<str>>,
    /// Length of the JSON text, kept or not.
    pub(super) bytes: usize,
    pub(super) reading: Reading,
}

/// What the catalog gets of an object: nothing of ours, of others' Gateways, and of a bad one.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) resource: Option<Resource>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// Takes an object apart. `None` if it has no name or no version: an API server sends none such.
pub(super) fn receive(
    kind: WatchedKind,
    api_version: &Arc<str>,
    object: DynamicObject,
) -> Option<Received> {
    let DynamicObject { mut metadata, data, .. } = object;
    let key = ObjectKey::new(metadata.namespace.as_deref(), metadata.name.as_deref()?);
    let Value::Object(mut body) = data else { return None };
    let labels = metadata.labels.as_ref();
    let object = ObjectRef {
        kind,
        api_version: api_version.clone(),
        key,
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation,
        resource_version: metadata.resource_version.clone()?,
        status_observed: body.get("status").and_then(lowest_observed),
        deleting: metadata.deletion_timestamp.is_some(),
        managed: labels.and_then(|all| all.get(MANAGED_BY_LABEL)).is_some_and(|x| x == MANAGED_BY),
    };
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    strip(kind, &mut body);
    body.insert("apiVersion".into(), json!(&**api_version));
    body.insert("kind".into(), json!(kind.as_str()));
    body.insert("metadata".into(), serde_json::to_value(metadata).ok()?);
    Some(Received { object, body: Value::Object(body) })
}

/// A Node's list of images and a Pod's specification are the largest parts of a cluster's state.
fn strip(kind: WatchedKind, body: &mut Map<String, Value>) {
    let mut keep = |part: &str, fields: &[&str]| {
        if let Some(Value::Object(part)) = body.get_mut(part) {
            part.retain(|field, _| fields.contains(&field.as_str()));
        }
    };
    match kind {
        WatchedKind::Node => {
            keep("spec", &["unschedulable"]);
            keep("status", &["addresses", "conditions"]);
        }
        WatchedKind::GatewayPod => {
            keep("spec", &["nodeName", "hostNetwork", "containers"]);
            keep("status", &["phase", "conditions", "hostIP", "podIP", "podIPs"]);
            let containers = body.get_mut("spec").and_then(|spec| spec.get_mut("containers"));
            for container in containers.and_then(Value::as_array_mut).into_iter().flatten() {
                if let Value::Object(container) = container {
                    container.retain(|field, _| matches!(field.as_str(), "name" | "ports"));
                }
            }
        }
        _ => {}
    }
}

fn lowest_observed(status: &Value) -> Option<i64> {
    match status {
        Value::Object(fields) => {
            let own = fields.get("observedGeneration").and_then(Value::as_i64);
            fields.values().filter_map(lowest_observed).chain(own).min()
        }
        Value::Array(items) => items.iter().filter_map(lowest_observed).min(),
        _ => None,
    }
}

/// Reads what the catalog gets of an object.
pub(super) fn read(object: &ObjectRef, body: &Value, classes: &GatewayClasses) -> Reading {
    if object.managed || object.kind.catalog_kind().is_none() {
        return Reading::default();
    }
    let manifest = api::parse_object_of("kubernetes", body, classes);
    let resource = manifest.objects.into_iter().next().map(|object| object.resource);
    Reading { resource, diagnostics: manifest.diagnostics }
}

impl Received {
    /// Reads it, unless it is a Gateway: whose it is depends on the GatewayClasses, which only the
    /// keeper knows for certain.
    pub(super) fn parse(self, own_namespace: &str) -> Parsed {
        let Self { object, body } = self;
        let reading = match object.kind {
            WatchedKind::Gateway => Reading::default(),
            _ => read(&object, &body, &GatewayClasses::default()),
        };
        let text = body.to_string();
        let bytes = text.len();
        let body = keeps_body(&object, own_namespace).then(|| text.into_boxed_str());
        Parsed { object: Arc::new(object), body, bytes, reading }
    }
}

/// Users' EndpointSlices are most of a large cluster's state, and nobody reads more of them than the
/// catalog has.
fn keeps_body(object: &ObjectRef, own_namespace: &str) -> bool {
    object.kind != WatchedKind::EndpointSlice
        || object.managed
        || object.namespace() == Some(own_namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    fn receive_one(kind: WatchedKind, value: Value) -> Received {
        receive(kind, &Arc::from(kind.api_resource(kind.versions()[0]).api_version), object(value))
            .unwrap()
    }

    #[test]
    fn what_nobody_needs_is_left_out() {
        let node = receive_one(
            WatchedKind::Node,
            json!({
                "metadata": {
                    "name": "a", "resourceVersion": "1", "uid": "u",
                    "managedFields": [{"manager": "kubelet"}],
                    "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
                    "labels": {"topology.kubernetes.io/zone": "z"}
                },
                "spec": {"podCIDR": "10.0.0.0/24", "unschedulable": true},
                "status": {"images": [1, 2, 3], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}
            }),
        );
        assert_eq!(
            node.body,
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {
                    "name": "a", "resourceVersion": "1", "uid": "u", "annotations": {},
                    "labels": {"topology.kubernetes.io/zone": "z"}
                },
                "spec": {"unschedulable": true},
                "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}
            })
        );
    }

    #[test]
    fn a_list_item_without_type_is_read_as_its_kind() {
        let item = json!({
            "metadata": {"name": "api", "namespace": "shop", "resourceVersion": "7"},
            "spec": {"ports": [{"port": 80}]}
        });
        let parsed = receive_one(WatchedKind::Service, item).parse("fedgate-system");
        assert_eq!(parsed.reading.diagnostics, []);
        assert_eq!(parsed.reading.resource.unwrap().key().to_string(), "Service/shop/api");
        assert_eq!(parsed.object.key, ObjectKey::new(Some("shop"), "api"));
    }

    #[test]
    fn our_own_objects_are_not_in_the_catalog() {
        let ours = json!({
            "metadata": {
                "name": "imported-api", "namespace": "shop", "resourceVersion": "7",
                "labels": {"app.kubernetes.io/managed-by": "fedgate"}
            },
            "spec": {"ports": [{"port": 80}]}
        });
        let parsed = receive_one(WatchedKind::Service, ours).parse("fedgate-system");
        assert!(parsed.object.managed);
        assert_eq!(parsed.reading.resource, None);
        assert!(parsed.body.is_some());
    }

    #[test]
    fn only_slices_that_somebody_reads_keep_their_body() {
        let slice = |namespace: &str, managed_by: &str| {
            let value = json!({
                "metadata": {
                    "name": "api-1", "namespace": namespace, "resourceVersion": "7",
                    "labels": {
                        "app.kubernetes.io/managed-by": managed_by,
                        "kubernetes.io/service-name": "api"
                    }
                },
                "addressType": "IPv4", "ports": [], "endpoints": []
            });
            receive_one(WatchedKind::EndpointSlice, value).parse("fedgate-system").body.is_some()
        };
        assert!(!slice("shop", "Helm"));
        assert!(slice("fedgate-system", "Helm"));
        assert!(slice("shop", "fedgate"));
    }

    #[test]
    fn the_lowest_observed_generation_counts() {
        let status = json!({"parents": [
            {"conditions": [{"observedGeneration": 4}, {"observedGeneration": 3}]},
            {"conditions": [{"type": "Accepted"}]}
        ]});
        assert_eq!(lowest_observed(&status), Some(3));
        assert_eq!(lowest_observed(&json!({"loadBalancer": {}})), None);
    }
}
