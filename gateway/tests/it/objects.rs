//! Resources in one line each. Everything is in namespace `shop`.

use std::net::SocketAddr;

use model::catalog::AllowedNamespaces;
use model::{
    AccessPolicy, AllowEntry, AppProtocol, BackendKind, BackendTarget, ClusterName, ClusterPeer,
    EndpointSlice, GatewaySpec, Hostname, HttpPathPrefix, HttpRoute, HttpRule, ListenerProtocol,
    ListenerSpec, Namespace, ObjectName, ParentTarget, PeerAddress, Resource, Service,
    ServiceExport, ServiceImport, ServiceName, ServicePort, SliceEndpoint, SlicePort, TcpRoute,
    Transport, TrustBundle,
};

pub(crate) fn namespace() -> Namespace {
    Namespace::parse("shop").unwrap()
}

pub(crate) fn object(name: &str) -> ObjectName {
    ObjectName::parse(name).unwrap()
}

pub(crate) fn service_name(name: &str) -> ServiceName {
    ServiceName::new(namespace(), object(name))
}

pub(crate) fn cluster(name: &str) -> ClusterName {
    ClusterName::parse(name).unwrap()
}

/// A Service with port 80, and its endpoints.
pub(crate) fn service(
    name: &str,
    protocol: AppProtocol,
    endpoints: &[SocketAddr],
) -> Vec<Resource> {
    let port = ServicePort { name: None, port: 80, protocol };
    let mut objects =
        vec![Resource::Service(Service { name: service_name(name), ports: vec![port] })];
    for (index, endpoint) in endpoints.iter().enumerate() {
        objects.push(slice(name, index, *endpoint, true));
    }
    objects
}

pub(crate) fn slice(service: &str, index: usize, endpoint: SocketAddr, ready: bool) -> Resource {
    Resource::EndpointSlice(EndpointSlice {
        namespace: namespace(),
        name: object(&format!("{service}-{index}")),
        service: object(service),
        ports: vec![SlicePort { name: None, port: endpoint.port() }],
        endpoints: vec![SliceEndpoint {
            addresses: vec![endpoint.ip()],
            ready,
            terminating: false,
        }],
    })
}

pub(crate) fn gateway(listeners: &[(&str, u16, ListenerProtocol)]) -> Resource {
    let listener = |(name, port, protocol): &(&str, u16, ListenerProtocol)| ListenerSpec {
        name: object(name),
        hostname: None,
        port: *port,
        protocol: *protocol,
        allowed_namespaces: AllowedNamespaces::Same,
    };
    Resource::Gateway(GatewaySpec {
        namespace: namespace(),
        name: object("gw"),
        listeners: listeners.iter().map(listener).collect(),
    })
}

fn parent(section: &str) -> ParentTarget {
    let section_name = Some(object(section));
    ParentTarget { namespace: namespace(), name: object("gw"), section_name, port: None }
}

fn target(kind: BackendKind, service: &str) -> BackendTarget {
    BackendTarget { kind, service: service_name(service), port: 80 }
}

pub(crate) fn http_route(host: &str, prefix: &str, kind: BackendKind, service: &str) -> Resource {
    let prefixes = vec![HttpPathPrefix(prefix.into())];
    Resource::HttpRoute(HttpRoute {
        namespace: namespace(),
        name: object(&format!("{service}-{}", host.replace('*', "any"))),
        parents: vec![parent("http")],
        hostnames: vec![Hostname::parse(host).unwrap()],
        rules: vec![HttpRule { prefixes, backend: target(kind, service) }],
    })
}

pub(crate) fn tcp_route(kind: BackendKind, service: &str) -> Resource {
    Resource::TcpRoute(TcpRoute {
        namespace: namespace(),
        name: object(service),
        parents: vec![parent("tcp")],
        backend: target(kind, service),
    })
}

pub(crate) fn export(service: &str) -> Resource {
    Resource::ServiceExport(ServiceExport { name: service_name(service), ports: vec![] })
}

pub(crate) fn import(service: &str, protocol: AppProtocol, clusters: &[&str]) -> Resource {
    Resource::ServiceImport(ServiceImport {
        name: service_name(service),
        ports: vec![ServicePort { name: None, port: 80, protocol }],
        clusters: clusters.iter().map(|name| cluster(name)).collect(),
    })
}

/// Lets a whole cluster in.
pub(crate) fn allow_cluster(service: &str, name: &str) -> Resource {
    let entry = AllowEntry { cluster: Some(cluster(name)), ..AllowEntry::default() };
    Resource::AccessPolicy(AccessPolicy {
        namespace: namespace(),
        name: object(&format!("{service}-{name}")),
        targets: vec![object(service)],
        allow: vec![entry],
    })
}

pub(crate) fn peer(name: &str, tunnel: SocketAddr, bundle: TrustBundle) -> Resource {
    let (transport, host, port) = (Transport::Quic, tunnel.ip().to_string(), tunnel.port());
    Resource::ClusterPeer(ClusterPeer {
        name: cluster(name),
        addresses: vec![PeerAddress { transport, host, port }],
        trust_bundles: vec![bundle],
        cordoned: false,
        revoked_svids: Vec::new(),
    })
}
