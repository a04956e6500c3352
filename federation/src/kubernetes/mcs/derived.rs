//! What the gateways are told for imports: a listener on each port of the pool that is in use, and
//! a route from it to the ServiceImport.

use std::collections::BTreeMap;

use model::code::{LISTENER_CONFLICT, OBJECT_INVALID};
use model::{
    AllowedNamespaces, BackendKind, BackendTarget, Diagnostic, GatewaySpec, HttpRoute, HttpRule,
    ListenerProtocol, ListenerSpec, ParentTarget, Resource, ResourceSet, ServiceImport,
    ServiceName, ServicePort, Severity, TcpRoute,
};

use super::names;
use super::pool::{Pool, PoolPorts};

/// Which derived Service has which ports, as this node's gateways were told last.
#[derive(Debug, Default)]
pub(super) struct Listening(BTreeMap<ServiceName, PoolPorts>);

impl Listening {
    /// Takes up what stands on the derived Services. Whoever may edit Services in one namespace could
    /// write a port there that stands for an import in another: who has a port keeps it as long as
    /// it is written on his Service, and nobody has one outside of the pool.
    pub(super) fn settle(
        &mut self,
        recorded: BTreeMap<ServiceName, PoolPorts>,
        pool: Pool,
    ) -> &BTreeMap<ServiceName, PoolPorts> {
        let mut owners = BTreeMap::<u16, ServiceName>::new();
        let claims = |all: &BTreeMap<ServiceName, PoolPorts>| {
            let claims = all.iter().flat_map(|(service, ports)| {
                ports.values().map(move |pool_port| (*pool_port, service.clone()))
            });
            claims.collect::<Vec<_>>()
        };
        let is_recorded = |(pool_port, service): &(u16, ServiceName)| {
            recorded.get(service).is_some_and(|ports| ports.values().any(|it| it == pool_port))
        };
        let before = claims(&self.0).into_iter().filter(is_recorded);
        for (pool_port, service) in before.chain(claims(&recorded)) {
            owners.entry(pool_port).or_insert(service);
        }
        let mut settled = recorded;
        for (service, ports) in &mut settled {
            ports.retain(|_, pool_port| {
                pool.contains(*pool_port) && owners.get(pool_port) == Some(service)
            });
        }
        self.0 = settled;
        &self.0
    }
}

/// The Gateway and the routes of every import that has ports of the pool. `recorded`: by derived
/// Service, as it stands on them, so that every node of the cluster, whichever of them writes, tells
/// its gateways the same.
pub(super) fn resources<'a>(
    imports: impl IntoIterator<Item = &'a ServiceImport>,
    recorded: &BTreeMap<ServiceName, PoolPorts>,
) -> Vec<Resource> {
    let mut resources = Vec::new();
    for import in imports {
        let Some(pool_ports) = recorded.get(&names::derived(&import.name)) else { continue };
        let placed: Vec<(&ServicePort, u16)> = import
            .ports
            .iter()
            .filter_map(|port| Some((port, *pool_ports.get(&port.port)?)))
            .collect();
        if placed.is_empty() {
            continue;
        }
        resources.push(gateway(import, &placed));
        resources.extend(placed.iter().map(|(port, _)| route(import, port)));
    }
    resources
}

fn gateway(import: &ServiceImport, placed: &[(&ServicePort, u16)]) -> Resource {
    let listener = |(port, pool_port): &(&ServicePort, u16)| ListenerSpec {
        name: names::listener(port.port),
        hostname: None,
        port: *pool_port,
        protocol: if port.protocol.is_http() {
            ListenerProtocol::Http
        } else {
            ListenerProtocol::Tcp
        },
        allowed_namespaces: AllowedNamespaces::Same,
    };
    Resource::Gateway(GatewaySpec {
        namespace: names::imports_namespace(),
        name: names::gateway(&import.name),
        listeners: placed.iter().map(listener).collect(),
    })
}

/// An HTTP listener takes HTTP/1.1 and HTTP/2 with prior knowledge alike, so that gRPC and h2c need
/// nothing else.
fn route(import: &ServiceImport, port: &ServicePort) -> Resource {
    let namespace = names::imports_namespace();
    let name = names::route(&import.name, port.port);
    let parents = vec![ParentTarget {
        namespace: namespace.clone(),
        name: names::gateway(&import.name),
        section_name: Some(names::listener(port.port)),
        port: None,
    }];
    let backend = BackendTarget {
        kind: BackendKind::ServiceImport,
        service: import.name.clone(),
        port: port.port,
    };
    if !port.protocol.is_http() {
        return Resource::TcpRoute(TcpRoute { namespace, name, parents, backend });
    }
    let rules = vec![HttpRule { prefixes: vec![], backend }];
    Resource::HttpRoute(HttpRoute { namespace, name, parents, hostnames: vec![], rules })
}

/// Takes out of a cluster's own objects what would get between an import and its callers:
///
/// - whatever is in the namespace `fedgate-imports`. A Gateway there could have the name of one of
///   ours, and a route there may attach to ours, which takes routes of its own namespace;
/// - a listener on a port of the pool. Of two listeners on one port the first in the order of names
///   has it, and that could be the user's.
///
/// Kubernetes lets whoever may create namespaces have any name, so no name is out of reach: this
/// function is what keeps it. What comes from the federation needs no such care, since only
/// ClusterPeers and ServiceImports come that way.
pub(crate) fn reserve(catalog: &ResourceSet, pool: Option<Pool>) -> (ResourceSet, Vec<Diagnostic>) {
    let Some(pool) = pool else { return (catalog.clone(), Vec::new()) };
    let (mut kept, mut diagnostics) = (catalog.clone(), Vec::new());
    for (key, resource) in catalog.iter() {
        if key.namespace.as_ref().is_some_and(|it| it.as_str() == names::IMPORTS_NAMESPACE) {
            kept.remove(key);
            diagnostics.push(Diagnostic {
                severity: Severity::Error,
                code: OBJECT_INVALID,
                object: key.to_string(),
                field: "metadata.namespace".into(),
                message: format!("the namespace {} is kept for imports", names::IMPORTS_NAMESPACE),
                fix: "use another namespace".into(),
            });
            continue;
        }
        let Resource::Gateway(gateway) = &**resource else { continue };
        if gateway.listeners.iter().any(|listener| pool.contains(listener.port)) {
            let (gateway, found) = without_pool_ports(gateway, pool);
            kept.upsert(Resource::Gateway(gateway));
            diagnostics.extend(found);
        }
    }
    (kept, diagnostics)
}

fn without_pool_ports(gateway: &GatewaySpec, pool: Pool) -> (GatewaySpec, Vec<Diagnostic>) {
    let object = Resource::Gateway(gateway.clone()).key().to_string();
    let listeners = gateway.listeners.iter().enumerate();
    let taken = listeners.filter(|(_, listener)| pool.contains(listener.port));
    let diagnostics = taken.map(|(index, listener)| Diagnostic {
        severity: Severity::Error,
        code: LISTENER_CONFLICT,
        object: object.clone(),
        field: format!("spec.listeners[{index}].port"),
        message: format!("port {} is one of {pool}, which are kept for imports", listener.port),
        fix: "choose another port, or move importPorts in the federation node's configuration"
            .into(),
    });
    let diagnostics = diagnostics.collect();
    let mut gateway = gateway.clone();
    gateway.listeners.retain(|listener| !pool.contains(listener.port));
    (gateway, diagnostics)
}
