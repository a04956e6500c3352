//! Encoding objects: the exact mirror of `object.rs`.

use std::net::IpAddr;

use model::catalog::AllowedNamespaces;
use model::{
    AllowEntry, BackendKind, BackendTarget, ClusterPeer, EndpointSlice, HttpRoute, ListenerSpec,
    NamespaceMatch, ParentTarget, PeerAddress, ReferenceSource, ReferenceTarget, Resource,
    RevokedSvid, RouteKind, ServicePort, SliceEndpoint, TrustBundle,
};

use super::convert::{encode_app_protocol, encode_listener_protocol, encode_transport};
use super::delta::encode_key;
use super::object::SCHEMA_VERSION;
use super::proto::{self, resource::Spec};

/// Encodes one object. Whether it is within the limits is for [`super::decode_resource`] to say.
pub fn encode_resource(resource: &Resource) -> proto::Resource {
    let spec = match resource {
        Resource::ClusterPeer(peer) => Spec::ClusterPeer(cluster_peer(peer)),
        Resource::Service(x) => Spec::Service(proto::Service { ports: service_ports(&x.ports) }),
        Resource::EndpointSlice(slice) => Spec::EndpointSlice(endpoint_slice(slice)),
        Resource::ServiceExport(x) => {
            Spec::ServiceExport(proto::ServiceExport { ports: service_ports(&x.ports) })
        }
        Resource::ServiceImport(x) => Spec::ServiceImport(proto::ServiceImport {
            ports: service_ports(&x.ports),
            clusters: x.clusters.iter().map(ToString::to_string).collect(),
        }),
        Resource::Gateway(x) => {
            let listeners = x.listeners.iter().map(listener).collect();
            Spec::Gateway(proto::GatewaySpec { listeners })
        }
        Resource::HttpRoute(route) => Spec::HttpRoute(http_route(route)),
        Resource::TcpRoute(x) => Spec::TcpRoute(proto::TcpRoute {
            parents: parents(&x.parents),
            backend: Some(backend(&x.backend)),
        }),
        Resource::AccessPolicy(x) => Spec::AccessPolicy(proto::AccessPolicy {
            targets: x.targets.iter().map(ToString::to_string).collect(),
            allow: x.allow.iter().map(allow_entry).collect(),
        }),
        Resource::NamespaceGrant(x) => Spec::NamespaceGrant(proto::NamespaceGrant {
            namespaces: x.namespaces.iter().map(namespace_match).collect(),
            clusters: x.clusters.iter().map(ToString::to_string).collect(),
        }),
        Resource::ReferenceGrant(x) => Spec::ReferenceGrant(proto::ReferenceGrant {
            from: x.from.iter().map(reference_source).collect(),
            to: x.to.iter().map(reference_target).collect(),
        }),
    };
    let key = Some(encode_key(&resource.key()));
    proto::Resource { key, schema: SCHEMA_VERSION, spec: Some(spec) }
}

fn cluster_peer(peer: &ClusterPeer) -> proto::ClusterPeer {
    proto::ClusterPeer {
        addresses: peer.addresses.iter().map(peer_address).collect(),
        trust_bundles: peer.trust_bundles.iter().map(encode_bundle).collect(),
        cordoned: peer.cordoned,
        revoked_svids: peer.revoked_svids.iter().map(revoked_svid).collect(),
    }
}

/// Encodes a revoked SVID, as ClusterPeers and a node's news carry it.
pub(super) fn revoked_svid(revoked: &RevokedSvid) -> proto::RevokedSvid {
    proto::RevokedSvid {
        spiffe_id: revoked.id.to_string(),
        not_before_unix_s: revoked.not_before_unix_s,
    }
}

/// Encodes an address, as ClusterPeers and tokens carry it.
pub(crate) fn peer_address(address: &PeerAddress) -> proto::PeerAddress {
    proto::PeerAddress {
        transport: encode_transport(address.transport).into(),
        host: address.host.clone(),
        port: address.port.into(),
    }
}

/// Encodes a trust bundle, as ClusterPeers and enrolment answers carry it.
pub fn encode_bundle(bundle: &TrustBundle) -> proto::TrustBundle {
    proto::TrustBundle {
        trust_domain: bundle.trust_domain.to_string(),
        sequence: bundle.sequence,
        refresh_hint_seconds: bundle.refresh_hint_seconds,
        x509_authorities: bundle.x509_authorities.clone(),
    }
}

/// Encodes a service's port, as Services, ServiceImports and the operator API carry it.
pub fn encode_service_port(port: &ServicePort) -> proto::ServicePort {
    proto::ServicePort {
        name: port.name.clone().unwrap_or_default(),
        port: port.port.into(),
        protocol: encode_app_protocol(port.protocol).into(),
    }
}

fn service_ports(ports: &[ServicePort]) -> Vec<proto::ServicePort> {
    ports.iter().map(encode_service_port).collect()
}

fn endpoint_slice(slice: &EndpointSlice) -> proto::EndpointSlice {
    let port = |port: &model::SlicePort| proto::SlicePort {
        name: port.name.clone().unwrap_or_default(),
        port: port.port.into(),
    };
    let endpoint = |endpoint: &SliceEndpoint| proto::SliceEndpoint {
        addresses: endpoint.addresses.iter().map(ip_address).collect(),
        ready: endpoint.ready,
        terminating: endpoint.terminating,
    };
    proto::EndpointSlice {
        service: slice.service.to_string(),
        ports: slice.ports.iter().map(port).collect(),
        endpoints: slice.endpoints.iter().map(endpoint).collect(),
    }
}

fn ip_address(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn listener(listener: &ListenerSpec) -> proto::ListenerSpec {
    let allowed_namespaces = match listener.allowed_namespaces {
        AllowedNamespaces::Same => proto::AllowedNamespaces::Same,
        AllowedNamespaces::All => proto::AllowedNamespaces::All,
    };
    proto::ListenerSpec {
        name: listener.name.to_string(),
        hostname: listener.hostname.as_ref().map(ToString::to_string).unwrap_or_default(),
        port: listener.port.into(),
        protocol: encode_listener_protocol(listener.protocol).into(),
        allowed_namespaces: allowed_namespaces.into(),
    }
}

fn parents(parents: &[ParentTarget]) -> Vec<proto::ParentTarget> {
    let parent = |parent: &ParentTarget| proto::ParentTarget {
        namespace: parent.namespace.to_string(),
        name: parent.name.to_string(),
        section_name: parent.section_name.as_ref().map(ToString::to_string).unwrap_or_default(),
        port: parent.port.map(u32::from),
    };
    parents.iter().map(parent).collect()
}

fn http_route(route: &HttpRoute) -> proto::HttpRoute {
    let rule = |rule: &model::HttpRule| proto::HttpRule {
        prefixes: rule.prefixes.iter().map(|prefix| prefix.0.clone()).collect(),
        backend: Some(backend(&rule.backend)),
    };
    proto::HttpRoute {
        parents: parents(&route.parents),
        hostnames: route.hostnames.iter().map(ToString::to_string).collect(),
        rules: route.rules.iter().map(rule).collect(),
    }
}

fn backend(target: &BackendTarget) -> proto::BackendTarget {
    proto::BackendTarget {
        kind: backend_kind(target.kind).into(),
        namespace: target.service.namespace.to_string(),
        name: target.service.name.to_string(),
        port: target.port.into(),
    }
}

fn backend_kind(kind: BackendKind) -> proto::BackendKind {
    match kind {
        BackendKind::Service => proto::BackendKind::Service,
        BackendKind::ServiceImport => proto::BackendKind::ServiceImport,
    }
}

fn allow_entry(entry: &AllowEntry) -> proto::AllowEntry {
    proto::AllowEntry {
        cluster: entry.cluster.as_ref().map(ToString::to_string).unwrap_or_default(),
        trust_domain: entry.trust_domain.as_ref().map(ToString::to_string).unwrap_or_default(),
        spiffe_id: entry.spiffe_id.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn namespace_match(entry: &NamespaceMatch) -> proto::NamespaceMatch {
    use proto::namespace_match::Match;
    let r#match = match entry {
        NamespaceMatch::Name(name) => Match::Name(name.to_string()),
        NamespaceMatch::Prefix(prefix) => Match::Prefix(prefix.to_string()),
    };
    proto::NamespaceMatch { r#match: Some(r#match) }
}

fn reference_source(source: &ReferenceSource) -> proto::ReferenceSource {
    let kind = match source.kind {
        RouteKind::Http => proto::RouteKind::Http,
        RouteKind::Tcp => proto::RouteKind::Tcp,
    };
    proto::ReferenceSource { kind: kind.into(), namespace: source.namespace.to_string() }
}

fn reference_target(target: &ReferenceTarget) -> proto::ReferenceTarget {
    proto::ReferenceTarget {
        kind: backend_kind(target.kind).into(),
        name: target.name.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}
