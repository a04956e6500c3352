//! Listeners by port, with the routes that attach to them.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use super::backends::Backends;
use super::grants::Grants;
use crate::catalog::{
    AllowedNamespaces, BackendTarget, GatewaySpec, HttpPathPrefix, HttpRoute, ListenerProtocol,
    ListenerSpec, ParentTarget, Resource, ResourceSet, TcpRoute,
};
use crate::code;
use crate::name::{Hostname, Namespace, ServiceName};
use crate::route::{RouteEntry, RouteTable};
use crate::snapshot::{Destination, IMPORTS_NAMESPACE, Listener, ListenerRouting, TcpTarget};

type Listeners = BTreeMap<u16, Listener>;

pub(super) fn compile(
    resources: &ResourceSet,
    backends: &Backends,
    findings: &mut Findings,
) -> Listeners {
    let (mut listeners, accepted) = open_ports(resources, findings);
    let targets = Targets { backends, grants: Grants::of(resources) };
    for resource in resources.values() {
        match resource {
            Resource::HttpRoute(route) => {
                add_http_route(resource, route, &accepted, &targets, &mut listeners, findings);
            }
            Resource::TcpRoute(route) => {
                add_tcp_route(resource, route, &accepted, &targets, &mut listeners, findings);
            }
            _ => {}
        }
    }
    listeners
}

/// What routes may lead to.
struct Targets<'a> {
    backends: &'a Backends,
    grants: Grants<'a>,
}

/// A listener that was given its port, and the Gateway that it is of.
struct Accepted<'a> {
    gateway: &'a GatewaySpec,
    listener: &'a ListenerSpec,
}

/// HTTP listeners may share a port when their host names differ (Gateway API "compatible"
/// listeners); a TCP listener has its port alone.
fn open_ports<'a>(
    resources: &'a ResourceSet,
    findings: &mut Findings,
) -> (Listeners, Vec<Accepted<'a>>) {
    let mut listeners = Listeners::new();
    let mut accepted: Vec<Accepted<'a>> = Vec::new();
    for resource in resources.values() {
        let Resource::Gateway(gateway) = resource else { continue };
        for (index, listener) in gateway.listeners.iter().enumerate() {
            let taken = accepted.iter().find(|other| conflict(other.listener, listener));
            if let Some(other) = taken {
                let message = format!(
                    "port {} is taken by listener {} of Gateway {}/{}",
                    listener.port, other.listener.name, other.gateway.namespace, other.gateway.name
                );
                let field = format!("spec.listeners[{index}].port");
                let fix = "choose another port, or for HTTP another hostname";
                findings.error(resource, &field, code::LISTENER_CONFLICT, message, fix);
                continue;
            }
            listeners.entry(listener.port).or_insert_with(|| Listener {
                name: format!("{}/{}", resource.key(), listener.name),
                port: listener.port,
                is_for_import: gateway.namespace.as_str() == IMPORTS_NAMESPACE,
                routing: match listener.protocol {
                    ListenerProtocol::Http => ListenerRouting::Http(RouteTable::default()),
                    ListenerProtocol::Tcp => ListenerRouting::Tcp(None),
                },
            });
            accepted.push(Accepted { gateway, listener });
        }
    }
    (listeners, accepted)
}

fn conflict(a: &ListenerSpec, b: &ListenerSpec) -> bool {
    let both_http = a.protocol == ListenerProtocol::Http && b.protocol == ListenerProtocol::Http;
    a.port == b.port && !(both_http && a.hostname != b.hostname)
}

fn add_http_route(
    resource: &Resource,
    route: &HttpRoute,
    accepted: &[Accepted<'_>],
    targets: &Targets<'_>,
    listeners: &mut Listeners,
    findings: &mut Findings,
) {
    let from = &route.namespace;
    let parents =
        attach(resource, from, &route.parents, ListenerProtocol::Http, accepted, findings);
    let attached = fit_hosts(resource, &parents, &route.hostnames, findings);
    for (rule, spec) in route.rules.iter().enumerate() {
        let destination = http_destination(resource, rule, &spec.backend, targets, findings);
        for (listener, hosts) in &attached {
            let Some(Listener { routing: ListenerRouting::Http(table), .. }) =
                listeners.get_mut(&listener.port)
            else {
                continue;
            };
            for (host, prefix) in pairs(hosts, &spec.prefixes) {
                let entry = RouteEntry {
                    prefix: prefix.into(),
                    route: resource.key().to_string().into(),
                    rule,
                    destination: destination.clone(),
                };
                if !table.insert(host, entry) {
                    let host = host.map_or_else(|| "*".to_string(), Hostname::to_string);
                    let message = format!("{host}{prefix} on port {} is taken", listener.port);
                    let field = format!("spec.rules[{rule}].matches");
                    let fix = "make host or path more specific, or remove one of the two routes";
                    findings.error(resource, &field, code::ROUTE_CONFLICT, message, fix);
                }
            }
        }
    }
}

fn http_destination(
    resource: &Resource,
    rule: usize,
    target: &BackendTarget,
    targets: &Targets<'_>,
    findings: &mut Findings,
) -> Destination {
    match find_backend(resource, rule, target, targets, findings) {
        Destination::Backend(backend) if !backend.protocol.is_http() => {
            let message = format!("port {} of {} is not HTTP", backend.port, backend.service);
            let field = format!("spec.rules[{rule}].backendRefs[0].port");
            let fix = "set the port's appProtocol to http or kubernetes.io/h2c, or use a TCPRoute";
            findings.error(resource, &field, code::PORT_NOT_FOUND, message, fix);
            Destination::Unresolved(target.clone())
        }
        destination => destination,
    }
}

/// The hosts that a route serves at each listener. A listener whose hostname fits none of the
/// route's is left out; it is an error only when no listener is left (Gateway API
/// `NoMatchingListenerHostname`).
fn fit_hosts<'a>(
    resource: &Resource,
    parents: &[&'a ListenerSpec],
    hostnames: &[Hostname],
    findings: &mut Findings,
) -> Vec<(&'a ListenerSpec, Vec<Option<Hostname>>)> {
    let fitting: Vec<_> = parents
        .iter()
        .filter_map(|listener| {
            Some((*listener, effective_hosts(listener.hostname.as_ref(), hostnames)?))
        })
        .collect();
    if fitting.is_empty() && !parents.is_empty() {
        let names: Vec<_> = parents.iter().map(|listener| listener.name.as_str()).collect();
        let message = format!("no hostname of the route fits listener {}", names.join(", "));
        let fix = "mend spec.hostnames, or the listener's hostname";
        findings.error(resource, "spec.hostnames", code::ROUTE_NOT_ACCEPTED, message, fix);
    }
    fitting
}

fn add_tcp_route(
    resource: &Resource,
    route: &TcpRoute,
    accepted: &[Accepted<'_>],
    targets: &Targets<'_>,
    listeners: &mut Listeners,
    findings: &mut Findings,
) {
    let from = &route.namespace;
    let parents = attach(resource, from, &route.parents, ListenerProtocol::Tcp, accepted, findings);
    let destination = find_backend(resource, 0, &route.backend, targets, findings);
    for listener in parents {
        let Some(Listener { routing: ListenerRouting::Tcp(target), .. }) =
            listeners.get_mut(&listener.port)
        else {
            continue;
        };
        if let Some(TcpTarget { route: other, .. }) = target {
            let message = format!("listener {} already belongs to {other}", listener.name);
            let fix = "a TCP listener has one TCPRoute: remove one, or add a listener";
            findings.error(resource, "spec.parentRefs", code::ROUTE_CONFLICT, message, fix);
            continue;
        }
        let route = resource.key().to_string().into();
        *target = Some(TcpTarget { route, destination: destination.clone() });
    }
}

/// The accepted listeners that a route's parentRefs name and that take routes of its namespace.
fn attach<'a>(
    resource: &Resource,
    from: &Namespace,
    parents: &[ParentTarget],
    protocol: ListenerProtocol,
    accepted: &[Accepted<'a>],
    findings: &mut Findings,
) -> Vec<&'a ListenerSpec> {
    let mut attached: Vec<&'a ListenerSpec> = Vec::new();
    for (index, parent) in parents.iter().enumerate() {
        let named: Vec<_> = accepted
            .iter()
            .filter(|candidate| names(parent, candidate))
            .filter(|candidate| candidate.listener.protocol == protocol)
            .collect();
        let allowed: Vec<_> =
            named.iter().filter(|candidate| allows(candidate, from)).copied().collect();
        if allowed.is_empty() {
            let field = format!("spec.parentRefs[{index}]");
            let (message, fix) = refusal(parent, protocol, !named.is_empty());
            findings.error(resource, &field, code::ROUTE_NOT_ACCEPTED, message, fix);
        }
        for candidate in allowed {
            if !attached.iter().any(|known| std::ptr::eq(*known, candidate.listener)) {
                attached.push(candidate.listener);
            }
        }
    }
    attached
}

fn names(parent: &ParentTarget, candidate: &Accepted<'_>) -> bool {
    candidate.gateway.namespace == parent.namespace
        && candidate.gateway.name == parent.name
        && parent.section_name.as_ref().is_none_or(|name| *name == candidate.listener.name)
        && parent.port.is_none_or(|port| port == candidate.listener.port)
}

fn allows(candidate: &Accepted<'_>, route_namespace: &Namespace) -> bool {
    match candidate.listener.allowed_namespaces {
        AllowedNamespaces::Same => candidate.gateway.namespace == *route_namespace,
        AllowedNamespaces::All => true,
    }
}

fn refusal(
    parent: &ParentTarget,
    protocol: ListenerProtocol,
    foreign: bool,
) -> (String, &'static str) {
    let section = parent.section_name.as_ref().map(|name| format!(" section {name}"));
    let section = section.unwrap_or_default();
    let gateway = format!("Gateway {}/{}{section}", parent.namespace, parent.name);
    if foreign {
        let message = format!("{gateway} takes routes of its own namespace only");
        let fix = "move the route, or set the listener's allowedRoutes.namespaces.from to All";
        return (message, fix);
    }
    let message = format!("no {} listener in service matches {gateway}", protocol.as_str());
    (message, "mend the parentRef, or add such a listener to the Gateway")
}

fn find_backend(
    resource: &Resource,
    rule: usize,
    target: &BackendTarget,
    targets: &Targets<'_>,
    findings: &mut Findings,
) -> Destination {
    // Before anything else: who may not use a namespace is not told what is in it (GEP-709).
    if !targets.grants.permit(resource, target) {
        let field = format!("spec.rules[{rule}].backendRefs[0].namespace");
        let ServiceName { namespace, name } = &target.service;
        let kind = target.kind.as_str();
        let message =
            format!("namespace {namespace} does not let this route use its {kind} {name}");
        let fix = "create a ReferenceGrant there, or put the route into the backend's namespace";
        findings.error(resource, &field, code::REF_NOT_PERMITTED, message, fix);
        return Destination::Unresolved(target.clone());
    }
    if let Some(backend) = targets.backends.get(target) {
        return Destination::Backend(backend.clone());
    }
    let mut ports: Vec<u16> = targets
        .backends
        .keys()
        .filter(|known| known.kind == target.kind && known.service == target.service)
        .map(|known| known.port)
        .collect();
    ports.sort_unstable();
    let kind = target.kind.as_str();
    if ports.is_empty() {
        let field = format!("spec.rules[{rule}].backendRefs[0].name");
        let message = format!("there is no {kind} {}", target.service);
        let fix = "create it, or mend kind, namespace and name";
        findings.error(resource, &field, code::SERVICE_NOT_FOUND, message, fix);
    } else {
        let field = format!("spec.rules[{rule}].backendRefs[0].port");
        let message = format!("{kind} {} has no port {}", target.service, target.port);
        let fix = format!("use one of {ports:?}");
        findings.error(resource, &field, code::PORT_NOT_FOUND, message, &fix);
    }
    Destination::Unresolved(target.clone())
}

/// The intersection of a listener's hostname and a route's (Gateway API, `HTTPRoute.hostnames`);
/// `None` when it is empty. An entry of `None` stands for every host.
fn effective_hosts(
    listener: Option<&Hostname>,
    route: &[Hostname],
) -> Option<Vec<Option<Hostname>>> {
    let Some(listener) = listener else {
        let all: Vec<_> = route.iter().cloned().map(Some).collect();
        return Some(if all.is_empty() { vec![None] } else { all });
    };
    if route.is_empty() {
        return Some(vec![Some(listener.clone())]);
    }
    // Two wildcards of one route may come down to the same name here.
    let hosts: BTreeSet<_> = route.iter().filter_map(|host| narrower(listener, host)).collect();
    (!hosts.is_empty()).then(|| hosts.into_iter().map(Some).collect())
}

fn narrower(a: &Hostname, b: &Hostname) -> Option<Hostname> {
    match (a, b) {
        (_, Hostname::Exact(name)) => a.matches(name).then(|| b.clone()),
        (Hostname::Exact(name), Hostname::Wildcard(_)) => b.matches(name).then(|| a.clone()),
        (Hostname::Wildcard(x), Hostname::Wildcard(y)) if x == y => Some(a.clone()),
        (Hostname::Wildcard(x), Hostname::Wildcard(y)) => {
            // One suffix within the other: the longer one is the narrower.
            if b.matches(x) {
                Some(a.clone())
            } else if a.matches(y) {
                Some(b.clone())
            } else {
                None
            }
        }
    }
}

fn pairs<'a>(
    hosts: &'a [Option<Hostname>],
    prefixes: &'a [HttpPathPrefix],
) -> Vec<(Option<&'a Hostname>, &'a str)> {
    // A rule that names one prefix twice is not in conflict with itself.
    let prefixes: BTreeSet<&str> = match prefixes {
        [] => BTreeSet::from(["/"]),
        some => some.iter().map(|prefix| prefix.0.as_str()).collect(),
    };
    hosts
        .iter()
        .flat_map(|host| prefixes.iter().map(move |prefix| (host.as_ref(), *prefix)))
        .collect()
}
