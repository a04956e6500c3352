//! Gateway API 1.6: status of GatewayClasses, Gateways and routes, and a Service for each Gateway.
//!
//! Nothing is decided here about what is in service: that is what the provider and `compile` said.
//! The status says it in the words of the API.

mod condition;
mod gateways;
mod routes;
mod services;
mod wakes;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::GatewayClasses;
use api::kubernetes::{CONTROLLER_NAME, GatewayClassCondition, GatewayClassReason};
use discovery::Catalog;
use discovery::kubernetes::{Cache, NodeInfo, WatchedKind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use model::{Diagnostic, Namespace, ObjectName, Resource, ResourceKey, ResourceKind, Severity};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::kinds::{Kind, SERVICE};
use super::{Cluster, Observed, Owned, Write, Writer};
use crate::config::KubernetesConfig;
use crate::intake::{Catalogs, Findings};
use condition::Condition;
use gateways::Gateway;
use wakes::Wakes;

/// Keeps statuses and Services.
#[derive(Debug)]
pub(super) struct GatewayApiWriter {
    config: Arc<KubernetesConfig>,
    cache: Arc<Cache>,
    catalogs: Catalogs,
    findings: watch::Receiver<Arc<Findings>>,
    wakes: Wakes,
    /// What was said last. What the cache has may be older, and would make conditions begin anew.
    said: BTreeMap<(&'static Kind, Option<String>, String), Value>,
}

impl GatewayApiWriter {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Self {
            config: cluster.config.clone(),
            cache: cluster.cache.clone(),
            catalogs: cluster.around.catalogs.clone(),
            findings: cluster.around.findings.clone(),
            wakes: Wakes::new(cluster),
            said: BTreeMap::new(),
        }
    }

    fn facts(&self) -> Option<Facts> {
        let catalog = self.catalogs.borrow().clone()?;
        let list = |kind| self.cache.list::<Value>(kind);
        let routes = [WatchedKind::HttpRoute, WatchedKind::TcpRoute];
        Some(Facts {
            classes: list(WatchedKind::GatewayClass),
            gateways: list(WatchedKind::Gateway),
            routes: routes
                .into_iter()
                .flat_map(|kind| list(kind).into_iter().map(move |object| (kind, object)))
                .collect(),
            nodes: self.cache.nodes(),
            ..Facts::new(catalog, &self.findings.borrow())
        })
    }

    /// The write of a status, if the kind is served in a version that is understood.
    fn status(&self, kind: WatchedKind, object: &Value, status: Value) -> Option<Write> {
        let kind = Kind::served(&self.cache, kind)?;
        let (namespace, name) =
            (text(object, "/metadata/namespace"), text(object, "/metadata/name")?);
        // Of routes' parents there is one list for all controllers.
        let version = text(object, "/metadata/resourceVersion");
        let version = version.filter(|_| status.get("parents").is_some());
        let write = Write::status(kind, namespace, name, version, status);
        Some(write.seen(Arc::new(object.clone())))
    }

    fn there<'a>(&'a self, kind: WatchedKind, object: &'a Value) -> Option<&'a Value> {
        let of = Kind::served(&self.cache, kind)?;
        let said = self.said.get(&subject(of, object)?);
        said.or_else(|| object.get("status"))
    }
}

fn subject(kind: &'static Kind, object: &Value) -> Option<(&'static Kind, Option<String>, String)> {
    let namespace = text(object, "/metadata/namespace").map(str::to_string);
    Some((kind, namespace, text(object, "/metadata/name")?.to_string()))
}

impl Writer for GatewayApiWriter {
    const NAME: &'static str = "gateway-api";

    fn owned(&self) -> Vec<Owned> {
        let namespace = Some(self.config.namespace.to_string());
        vec![Owned { kind: &SERVICE, namespace }]
    }

    fn desired(&mut self, own: &Observed, now: Timestamp) -> Option<Vec<Write>> {
        self.wakes.note(&self.cache);
        let facts = self.facts()?;
        let namespace = self.config.namespace.as_str();
        let service = |name: &str| {
            let in_cache = self.cache.service(namespace, name);
            let in_own = || own.get(&SERVICE, Some(namespace), name).cloned();
            in_cache.or_else(|| serde_json::from_value(in_own()?).ok())
        };
        let there = |kind, object: &Value| self.there(kind, object).cloned();
        let Decided { statuses, services } = decide(&facts, &self.config, service, there, now);
        let mut writes: Vec<Write> = services;
        let mut said = BTreeMap::new();
        for (kind, object, status) in statuses {
            if let Some(key) = Kind::served(&self.cache, kind).and_then(|of| subject(of, object)) {
                said.insert(key, status.clone());
            }
            writes.extend(self.status(kind, object, status));
        }
        self.said = said;
        Some(writes)
    }

    async fn changed(&mut self) {
        self.wakes.changed(&self.cache).await;
    }
}

/// Everything that the statuses follow from.
#[derive(Debug, Default)]
struct Facts {
    classes: Vec<Value>,
    gateways: Vec<Value>,
    routes: Vec<(WatchedKind, Value)>,
    nodes: Vec<NodeInfo>,
    catalog: Arc<Catalog>,
    reading: BTreeMap<String, Vec<Diagnostic>>,
    compile: BTreeMap<String, Vec<Diagnostic>>,
}

/// What was found about one object.
struct Found<'a> {
    /// When it was read: fields count as they were written.
    reading: Vec<&'a Diagnostic>,
    /// When all was put together: fields count what was read of the object.
    compile: Vec<&'a Diagnostic>,
}

impl Facts {
    fn new(catalog: Arc<Catalog>, findings: &Findings) -> Self {
        let of_kind = |diagnostic: &&Diagnostic| {
            ["Gateway/", "HTTPRoute/", "TCPRoute/"]
                .iter()
                .any(|kind| diagnostic.object.starts_with(kind))
        };
        let index = |diagnostics: &[Diagnostic]| {
            let mut index = BTreeMap::<String, Vec<Diagnostic>>::new();
            for diagnostic in diagnostics.iter().filter(of_kind) {
                index.entry(diagnostic.object.clone()).or_default().push(diagnostic.clone());
            }
            index
        };
        let (reading, compile) = (index(&catalog.diagnostics), index(&findings.compile));
        Self { catalog, reading, compile, ..Self::default() }
    }

    fn resource(&self, key: &ResourceKey) -> Option<&Resource> {
        self.catalog.resources.get(key).map(|resource| &**resource)
    }

    fn found(&self, key: &ResourceKey) -> Found<'_> {
        let key = key.to_string();
        let errors = |d: &&Diagnostic| d.severity == Severity::Error;
        Found {
            reading: self.reading.get(&key).into_iter().flatten().collect(),
            compile: self.compile.get(&key).into_iter().flatten().filter(errors).collect(),
        }
    }
}

/// What is to be written.
struct Decided<'a> {
    statuses: Vec<(WatchedKind, &'a Value, Value)>,
    services: Vec<Write>,
}

/// `service`: a Service of ours by name, as the API server has it. `there`: the status of an object
/// as it was said last.
fn decide<'a>(
    facts: &'a Facts,
    config: &KubernetesConfig,
    service: impl Fn(&str) -> Option<Service>,
    there: impl Fn(WatchedKind, &Value) -> Option<Value>,
    now: Timestamp,
) -> Decided<'a> {
    let mut decided = Decided { statuses: Vec::new(), services: Vec::new() };
    let classes = GatewayClasses::of_objects(&facts.classes);
    for class in &facts.classes {
        let before = there(WatchedKind::GatewayClass, class);
        if let Some(status) = class_status(class, before.as_ref(), now) {
            decided.statuses.push((WatchedKind::GatewayClass, class, status));
        }
    }
    let mut gateways: Vec<Gateway<'a>> = gateways::ours(facts, &classes);
    for (kind, object) in &facts.routes {
        let Some(route) = routes::read(facts, *kind, object) else { continue };
        let before = there(*kind, object);
        if let Some(status) = route.status(before.as_ref(), &mut gateways, now) {
            decided.statuses.push((*kind, object, status));
        }
    }
    // What is in the catalog alone, since its removal is held, keeps its Service.
    for (key, resource) in facts.catalog.resources.iter() {
        if let Resource::Gateway(gateway) = &**resource {
            let ports = facts.found(key).ports(gateway);
            decided.services.extend(services::service(gateway, &ports, config));
        }
    }
    for gateway in gateways.iter().filter(|gateway| !gateway.is_pending) {
        let service = service(&services::name(gateway.namespace, gateway.name));
        let reach = services::reach(service.as_ref(), config.gateway_service_type, &facts.nodes);
        let before = there(WatchedKind::Gateway, gateway.object);
        let status = gateway.status(before.as_ref(), &reach, now);
        decided.statuses.push((WatchedKind::Gateway, gateway.object, status));
    }
    decided
}

/// `None` for a class of another controller's.
fn class_status(class: &Value, there: Option<&Value>, now: Timestamp) -> Option<Value> {
    if text(class, "/spec/controllerName") != Some(CONTROLLER_NAME) {
        return None;
    }
    let condition = |kind: GatewayClassCondition, holds, reason: GatewayClassReason, message| {
        Condition::new(kind.as_str(), holds, reason.as_str(), message)
    };
    let accepted = GatewayClassCondition::Accepted;
    let accepted = match class.pointer("/spec/parametersRef") {
        Some(_) => {
            let message = "spec.parametersRef: parameters are not served; remove the field";
            condition(accepted, false, GatewayClassReason::InvalidParameters, message)
        }
        None => {
            condition(accepted, true, GatewayClassReason::Accepted, "Gateways of it are served")
        }
    };
    let version = condition(
        GatewayClassCondition::SupportedVersion,
        true,
        GatewayClassReason::SupportedVersion,
        "the API server has gateway.networking.k8s.io/v1",
    );
    let generation = class.pointer("/metadata/generation").and_then(Value::as_i64);
    let old = there.and_then(|there| there.get("conditions"));
    let conditions = condition::list(&[accepted, version], old, generation.unwrap_or(0), now);
    Some(json!({ "conditions": conditions }))
}

fn namespaced_key(kind: ResourceKind, namespace: &str, name: &str) -> Option<ResourceKey> {
    let namespace = Some(Namespace::parse(namespace).ok()?);
    Some(ResourceKey { kind, namespace, name: ObjectName::parse(name).ok()? })
}

fn text<'a>(object: &'a Value, path: &str) -> Option<&'a str> {
    object.pointer(path).and_then(Value::as_str)
}
