//! Hop 1: what the client calls leads to a service, by a listener and a route of its own cluster.

use super::{Broken, Entry, Facts, NodeFacts, Question, Seen, Target};
use crate::catalog::{HttpRoute, Resource};
use crate::code::{
    ADDRESS_IN_USE, BACKEND_UNRESOLVED, LISTENER_CONFLICT, NO_ROUTE, REF_NOT_PERMITTED,
    ROUTE_CONFLICT, ROUTE_NOT_ACCEPTED,
};
use crate::diagnostic::{Diagnostic, Severity};
use crate::name::{ClusterName, Hostname, ServiceName};
use crate::route::RouteEntry;
use crate::snapshot::{Destination, Listener, ListenerRouting, TcpTarget};

/// Where the name leads; without a service nothing more can be said.
pub(super) struct Named {
    pub(super) seen: Seen,
    pub(super) service: Option<ServiceName>,
    pub(super) port: Option<u16>,
    pub(super) entry: Option<Entry>,
}

/// The service that a question is about, as far as its name is known to lead to one.
pub fn service_of(question: &Question, facts: &Facts) -> Option<ServiceName> {
    if let Target::Service { service, .. } = &question.target {
        return Some(service.clone());
    }
    let from = question.source.cluster(facts).ok()?;
    let Target::Host { host, port } = &question.target else { return None };
    let node = facts.get(&from)?;
    let found = by_host(node, host, *port, &question.path)?;
    Some(found.destination.service().0.clone())
}

pub(super) fn check(
    question: &Question,
    from: &ClusterName,
    facts: &Facts,
) -> Result<Named, Broken> {
    match (&question.target, facts.get(from)) {
        (Target::Service { service, port, .. }, None) => Ok(Named {
            seen: Seen::Unknown(format!(
                "which names lead to {service} in {from}, only the node of {from} knows; it was \
                 not asked"
            )),
            service: Some(service.clone()),
            port: *port,
            entry: None,
        }),
        (Target::Host { host, .. }, None) => {
            let text =
                format!("where {host} leads, only the node of {from} knows; it was not asked");
            Ok(Named { seen: Seen::Unknown(text), service: None, port: None, entry: None })
        }
        (Target::Service { service, port, .. }, Some(node)) => of_service(node, service, *port),
        (Target::Host { host, port }, Some(node)) => of_host(node, host, *port, &question.path),
    }
}

/// A listener's route, and where it leads.
struct Found<'a> {
    listener: &'a Listener,
    /// Host and path of a request that takes the route; `None` for TCP.
    http: Option<(String, String)>,
    route: &'a str,
    destination: &'a Destination,
}

fn of_host(node: &NodeFacts, host: &str, port: Option<u16>, path: &str) -> Result<Named, Broken> {
    let Some(found) = by_host(node, host, port, path) else {
        return Err(no_route(node, host, port, path));
    };
    let called = match found.listener.routing {
        ListenerRouting::Http(_) => format!("http://{host}:{}{path}", found.listener.port),
        ListenerRouting::Tcp(_) => format!("tcp://{host}:{}", found.listener.port),
    };
    leads(node, &found, &called)
}

fn by_host<'a>(
    node: &'a NodeFacts,
    host: &str,
    port: Option<u16>,
    path: &str,
) -> Option<Found<'a>> {
    let listeners = node.snapshot.listeners.values();
    let wanted = listeners.filter(|listener| match port {
        Some(port) => listener.port == port,
        // A port of the pool takes whatever name: it must be meant.
        None => !listener.is_for_import,
    });
    let routed = wanted.filter_map(|listener| match &listener.routing {
        ListenerRouting::Http(table) => table.find(host, path).map(|entry| Found {
            listener,
            http: Some((host.to_owned(), path.to_owned())),
            route: &entry.route,
            destination: &entry.destination,
        }),
        ListenerRouting::Tcp(Some(target)) if port.is_some() => Some(of_tcp(listener, target)),
        ListenerRouting::Tcp(_) => None,
    });
    let mut routed = routed;
    routed.next().or_else(|| {
        // A name of the clusterset resolves to the derived Service, and that to a port of the pool.
        let service = clusterset_service(host)?;
        all_routes(node)
            .find(|found| found.listener.is_for_import && *found.destination.service().0 == service)
    })
}

/// `<service>.<namespace>.svc.clusterset.local` (KEP-1645).
fn clusterset_service(host: &str) -> Option<ServiceName> {
    let (name, namespace) = host.strip_suffix(".svc.clusterset.local")?.split_once('.')?;
    ServiceName::parse(&format!("{namespace}/{name}")).ok()
}

/// Every place that a route leads to.
fn all_routes(node: &NodeFacts) -> impl Iterator<Item = Found<'_>> {
    node.snapshot.listeners.values().flat_map(|listener| match &listener.routing {
        ListenerRouting::Http(table) => {
            let hosts = table.entries().into_iter();
            hosts.flat_map(|(host, entries)| of_http(listener, &host, entries)).collect::<Vec<_>>()
        }
        ListenerRouting::Tcp(target) => {
            target.iter().map(|target| of_tcp(listener, target)).collect()
        }
    })
}

fn of_http<'a>(listener: &'a Listener, host: &str, entries: &'a [RouteEntry]) -> Vec<Found<'a>> {
    // Any name that a pattern covers will do.
    let host = host.replacen('*', "any", 1);
    let found = |entry: &'a RouteEntry| Found {
        listener,
        http: Some((host.clone(), entry.prefix.clone())),
        route: &entry.route,
        destination: &entry.destination,
    };
    entries.iter().map(found).collect()
}

fn of_tcp<'a>(listener: &'a Listener, target: &'a TcpTarget) -> Found<'a> {
    Found { listener, http: None, route: &target.route, destination: &target.destination }
}

fn of_service(node: &NodeFacts, service: &ServiceName, port: Option<u16>) -> Result<Named, Broken> {
    let found = all_routes(node).find(|found| {
        let (leads_to, at) = found.destination.service();
        leads_to == service && port.is_none_or(|port| port == at)
    });
    let Some(found) = found else {
        let shown = port.map_or_else(String::new, |port| format!(":{port}"));
        if node.import(service).is_some() || node.service(service).is_some() {
            let fix = format!(
                "add an HTTPRoute or TCPRoute to {service}{shown} in {}; `fedctl services` shows \
                 what is routed",
                node.cluster
            );
            let text = format!("no listener of {} leads to {service}{shown}", node.cluster);
            return Err(Broken::new(NO_ROUTE, text, fix));
        }
        // Without an import there is nothing that a route could lead to: the catalog says more.
        let text = format!("{service}{shown} is called by its own name");
        let (seen, service) = (Seen::Ok(text), Some(service.clone()));
        return Ok(Named { seen, service, port, entry: None });
    };
    let called = match found.listener.routing {
        ListenerRouting::Http(_) => format!("HTTP port {}", found.listener.port),
        ListenerRouting::Tcp(_) => format!("TCP port {}", found.listener.port),
    };
    leads(node, &found, &called)
}

fn leads(node: &NodeFacts, found: &Found<'_>, called: &str) -> Result<Named, Broken> {
    check_bound(node, found.listener)?;
    let (service, port) = found.destination.service();
    if let Destination::Unresolved(target) = found.destination {
        let of_route = |code| finding(node, found.route, |finding| finding.code == code);
        if let Some(refused) = of_route(REF_NOT_PERMITTED) {
            return Err(broken_by(found.route, refused));
        }
        // The backend is there, and speaks another protocol than the route.
        if node.snapshot.backends.contains_key(target) {
            let text = format!("{} cannot use {service}:{port}", found.route);
            let fix = "`fedctl diagnostics` shows what is wrong with the route";
            let error = finding(node, found.route, |_| true);
            return Err(error.map_or_else(
                || Broken::new(BACKEND_UNRESOLVED, text, fix),
                |error| broken_by(found.route, error),
            ));
        }
    }
    Ok(Named {
        seen: Seen::Ok(format!("{called} leads to {service}:{port} ({})", found.route)),
        service: Some(service.clone()),
        port: Some(port),
        entry: Some(Entry { port: found.listener.port, http: found.http.clone() }),
    })
}

/// No gateway of the cluster listens, as all that say anything of the port say.
fn check_bound(node: &NodeFacts, listener: &Listener) -> Result<(), Broken> {
    let reports = node.gateways.iter().flat_map(|gateway| &gateway.listeners);
    let mut unbound = None;
    for row in reports.filter(|row| row.address.port() == listener.port) {
        match &row.error {
            Some(error) => unbound = Some((row.address, error)),
            None => return Ok(()),
        }
    }
    let Some((address, error)) = unbound else { return Ok(()) };
    let error = error.trim_start_matches(&format!("{ADDRESS_IN_USE}: "));
    let text = format!("no gateway of {} listens on {address}: {error}", node.cluster);
    let fix =
        format!("free the port (`ss -lntp` shows who has it), or give {} another", listener.name);
    Err(Broken::new(ADDRESS_IN_USE, text, fix))
}

fn no_route(node: &NodeFacts, host: &str, port: Option<u16>, path: &str) -> Broken {
    let cluster = &node.cluster;
    // A route that would match, but is not in service, says itself what is wrong with it.
    let meant = node.resources.values().filter(|resource| match resource {
        Resource::HttpRoute(HttpRoute { hostnames, .. }) => {
            hostnames.iter().any(|name| match name {
                Hostname::Exact(name) => &**name == host,
                Hostname::Wildcard(_) => name.matches(host),
            })
        }
        _ => false,
    });
    for route in meant {
        let key = route.key().to_string();
        let codes = [ROUTE_NOT_ACCEPTED, ROUTE_CONFLICT, LISTENER_CONFLICT];
        if let Some(error) = finding(node, &key, |finding| codes.contains(&finding.code)) {
            return broken_by(&key, error);
        }
    }
    let listens =
        node.snapshot.listeners.values().any(|it| port.is_none_or(|port| port == it.port));
    let text = match (listens, port) {
        (false, Some(port)) => format!("no Gateway of {cluster} has a listener on port {port}"),
        (false, None) => format!("{cluster} has no Gateway with a listener"),
        (true, Some(port)) => format!("port {port} of {cluster} has no route for {host}{path}"),
        (true, None) => format!("no listener of {cluster} has a route for {host}{path}"),
    };
    let fix = format!(
        "add an HTTPRoute with the hostname {host} in {cluster}; `fedctl services` shows what is routed"
    );
    Broken::new(NO_ROUTE, text, fix)
}

fn finding<'a>(
    node: &'a NodeFacts,
    object: &str,
    wanted: impl Fn(&Diagnostic) -> bool,
) -> Option<&'a Diagnostic> {
    let errors = node.findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.into_iter().find(|finding| finding.object == object && wanted(finding))
}

fn broken_by(object: &str, finding: &Diagnostic) -> Broken {
    Broken::new(finding.code, format!("{object}: {}", finding.message), &*finding.fix)
}
