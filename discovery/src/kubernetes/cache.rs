//! The shared cache: what the API server has, for whoever writes to it.
//!
//! It shows objects as the API server said last, without the guard: what the catalog holds back is
//! gone from here. Bodies are kept as JSON text and read on demand, since a decoded object takes
//! several times its text.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ApiResource;
use model::ResourceKey;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

use super::kinds::WatchedKind;
use super::object::{ObjectKey, ObjectRef};
use super::store::{Store, Stored};

/// Everything that is watched.
#[derive(Debug)]
pub struct Cache {
    store: RwLock<Store>,
    changes: watch::Sender<u64>,
}

/// A node, as far as addresses and localities need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    pub name: String,
    /// From the label `topology.kubernetes.io/region`.
    pub region: Option<String>,
    /// From the label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    pub internal_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    pub ready: bool,
    pub unschedulable: bool,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self { store: RwLock::default(), changes: watch::Sender::new(0) }
    }

    /// Tells that something changed, a few milliseconds later at most. The value grows.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Grows with each change of one kind: to skip work when another kind changed.
    pub fn changes_of(&self, kind: WatchedKind) -> u64 {
        self.read().kind(kind).changes
    }

    /// [`Self::changes_of`] each of some kinds, all at one time.
    pub fn changes_of_each(&self, kinds: &[WatchedKind]) -> Vec<u64> {
        let store = self.read();
        kinds.iter().map(|kind| store.kind(*kind).changes).collect()
    }

    /// Whether absence means anything: a complete list was seen once, or that the API server has no
    /// such kind. Whoever removes orphans asks this first.
    pub fn is_known(&self, kind: WatchedKind) -> bool {
        self.read().kind(kind).known
    }

    /// The kind in the version that the API server serves; `None` as long as it serves none.
    pub fn api_resource(&self, kind: WatchedKind) -> Option<ApiResource> {
        self.read().kind(kind).version.map(|version| kind.api_resource(version))
    }

    pub fn object(
        &self,
        kind: WatchedKind,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<Arc<ObjectRef>> {
        let key = ObjectKey::new(namespace, name);
        self.read().kind(kind).objects.get(&key).map(|stored| stored.object.clone())
    }

    /// All objects of a kind, in the order of their keys.
    pub fn objects(&self, kind: WatchedKind) -> Vec<Arc<ObjectRef>> {
        self.read().kind(kind).objects.values().map(|stored| stored.object.clone()).collect()
    }

    /// An object, decoded: a `k8s_openapi` type, [`kube::core::DynamicObject`] or a
    /// [`serde_json::Value`]. `None` if there is none, if it is a user's EndpointSlice (the catalog
    /// has those), or if the type does not fit, which is logged.
    pub fn get<K: DeserializeOwned>(
        &self,
        kind: WatchedKind,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<K> {
        decode(self.read().kind(kind).objects.get(&ObjectKey::new(namespace, name))?)
    }

    /// All objects of a kind, decoded.
    pub fn list<K: DeserializeOwned>(&self, kind: WatchedKind) -> Vec<K> {
        self.read().kind(kind).objects.values().filter_map(decode).collect()
    }

    /// The objects of a kind that Fedgate's controllers made, decoded.
    pub fn list_managed<K: DeserializeOwned>(&self, kind: WatchedKind) -> Vec<K> {
        let store = self.read();
        let managed = store.kind(kind).objects.values().filter(|stored| stored.object.managed);
        managed.filter_map(decode).collect()
    }

    /// The names of all namespaces that are not being deleted.
    pub fn namespaces(&self) -> Vec<String> {
        let store = self.read();
        let objects = store.kind(WatchedKind::Namespace).objects.values();
        let alive = objects.filter(|stored| !stored.object.deleting);
        alive.map(|stored| stored.object.name().to_string()).collect()
    }

    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.list(WatchedKind::Node).iter().map(node_info).collect()
    }

    pub fn service(&self, namespace: &str, name: &str) -> Option<v1::Service> {
        self.get(WatchedKind::Service, Some(namespace), name)
    }

    /// The gateways' pods.
    pub fn gateway_pods(&self) -> Vec<v1::Pod> {
        self.list(WatchedKind::GatewayPod)
    }

    /// Whether the cache has an object just as it is.
    pub(super) fn has(
        &self,
        kind: WatchedKind,
        key: &ObjectKey,
        metadata: &ObjectMeta,
        api_version: &str,
    ) -> bool {
        let store = self.read();
        let Some(Stored { object, .. }) = store.kind(kind).objects.get(key) else { return false };
        metadata.resource_version.as_ref() == Some(&object.resource_version)
            && metadata.uid.as_ref() == Some(&object.uid)
            && *object.api_version == *api_version
    }

    /// Whether a limit kept objects of the last list out.
    pub(super) fn is_incomplete(&self, kind: WatchedKind) -> bool {
        self.read().kind(kind).incomplete
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Store> {
        // The store is whole between any two statements of its writer.
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits for changes, if there were any.
    pub(super) fn notify(&self) {
        let changes = self.read().changes();
        self.changes.send_if_modified(|last| std::mem::replace(last, changes) != changes);
    }
}

fn decode<K: DeserializeOwned>(stored: &Stored) -> Option<K> {
    match serde_json::from_str(stored.body.as_deref()?) {
        Ok(object) => Some(object),
        Err(error) => {
            let object = &stored.object;
            let (kind, name) = (object.kind.as_str(), object.name());
            tracing::warn!(%error, kind, namespace = object.namespace(), name, "not decoded");
            None
        }
    }
}

fn node_info(node: &v1::Node) -> NodeInfo {
    let label = |name: &str| node.metadata.labels.as_ref()?.get(name).cloned();
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let ips = |kind: &str| {
        let of_kind = addresses.iter().filter(|address| address.type_ == kind);
        of_kind.filter_map(|address| address.address.parse().ok()).collect()
    };
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    NodeInfo {
        name: node.metadata.name.clone().unwrap_or_default(),
        region: label("topology.kubernetes.io/region"),
        zone: label("topology.kubernetes.io/zone"),
        internal_ips: ips("InternalIP"),
        external_ips: ips("ExternalIP"),
        ready: conditions.iter().any(|found| found.type_ == "Ready" && found.status == "True"),
        unschedulable: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
    }
}

/// The cache by the catalog's keys, for whoever writes status.
#[derive(Debug, Clone)]
pub struct Objects {
    cache: Arc<Cache>,
}

impl Objects {
    pub(super) fn new(cache: Arc<Cache>) -> Self {
        Self { cache }
    }

    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    pub fn get(&self, key: &ResourceKey) -> Option<Arc<ObjectRef>> {
        let namespace = key.namespace.as_ref().map(|namespace| namespace.as_str());
        self.cache.object(WatchedKind::of(key.kind), namespace, key.name.as_str())
    }

    /// The whole object, decoded.
    pub fn body<K: DeserializeOwned>(&self, key: &ResourceKey) -> Option<K> {
        let namespace = key.namespace.as_ref().map(|namespace| namespace.as_str());
        self.cache.get(WatchedKind::of(key.kind), namespace, key.name.as_str())
    }

    /// Its `status`, if it has one.
    pub fn status(&self, key: &ResourceKey) -> Option<Value> {
        self.body::<Value>(key)?.get_mut("status").map(Value::take)
    }
}
