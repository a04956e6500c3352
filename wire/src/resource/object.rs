//! Decoding objects: every kind of [`model::Resource`].

use model::catalog::AllowedNamespaces;
use model::{
    AccessPolicy, AllowEntry, BackendKind, BackendTarget, ClusterName, ClusterPeer, EndpointSlice,
    GatewaySpec, Hostname, HttpPathPrefix, HttpRoute, HttpRule, ListenerSpec, Namespace,
    NamespaceGrant, NamespaceMatch, NamespacePrefix, ObjectName, ParentTarget, PeerAddress,
    ReferenceGrant, ReferenceSource, ReferenceTarget, Resource, ResourceKey, ResourceKind,
    RevokedSvid, RouteKind, Service, ServiceExport, ServiceImport, ServiceName, ServicePort,
    SliceEndpoint, SlicePort, SpiffeId, TcpRoute, TrustBundle, TrustDomain,
};
use prost::Message as _;

use super::convert::{self, list, parse, parse_optional};
use super::delta::decode_key_at;
use super::limits::{self, LIST_ENTRIES_MAX};
use super::proto::{self, resource::Spec};
use crate::error::{At, WireError};

/// The version of the objects' schema that this build reads.
pub const SCHEMA_VERSION: u32 = 1;

/// Decodes one object; `None` when its kind or schema is newer than this build.
pub fn decode_resource(object: proto::Resource) -> Result<Option<Resource>, WireError> {
    match decode_at(&At::message("Resource"), object)? {
        Decoded::Resource(resource) => Ok(Some(resource)),
        Decoded::NewerKind | Decoded::NewerSchema(_) => Ok(None),
    }
}

/// What an object turned out to be.
pub(super) enum Decoded {
    Resource(Resource),
    NewerKind,
    /// Known by key only: an older version of the object must not stay in service in its place.
    NewerSchema(ResourceKey),
}

pub(super) fn decode_at(at: &At<'_>, object: proto::Resource) -> Result<Decoded, WireError> {
    at.check_bytes(object.encoded_len(), limits::RESOURCE_BYTES_MAX)?;
    let Some(key) = decode_key_at(&at.field("key"), object.key)? else {
        return Ok(Decoded::NewerKind);
    };
    if object.schema > SCHEMA_VERSION {
        return Ok(Decoded::NewerSchema(key));
    }
    if object.schema == 0 {
        return Err(at.field("schema").refuse(0, "schema versions begin with 1"));
    }
    let Some(spec) = object.spec else {
        return Err(at.field("spec").missing("send the object of the key's kind"));
    };
    decode_spec(at, key, spec).map(Decoded::Resource)
}

fn decode_spec(at: &At<'_>, key: ResourceKey, spec: Spec) -> Result<Resource, WireError> {
    use ResourceKind as Kind;
    let name = Name { at: *at, key };
    Ok(match (name.key.kind, spec) {
        (Kind::ClusterPeer, Spec::ClusterPeer(x)) => {
            Resource::ClusterPeer(cluster_peer(at.field("cluster_peer"), &name, x)?)
        }
        (Kind::Service, Spec::Service(x)) => {
            let ports = service_ports(&at.field("service"), x.ports)?;
            Resource::Service(Service { name: name.service()?, ports })
        }
        (Kind::EndpointSlice, Spec::EndpointSlice(x)) => {
            Resource::EndpointSlice(endpoint_slice(at.field("endpoint_slice"), name, x)?)
        }
        (Kind::ServiceExport, Spec::ServiceExport(x)) => {
            let ports = service_ports(&at.field("service_export"), x.ports)?;
            Resource::ServiceExport(ServiceExport { name: name.service()?, ports })
        }
        (Kind::ServiceImport, Spec::ServiceImport(x)) => {
            Resource::ServiceImport(service_import(at.field("service_import"), &name, x)?)
        }
        (Kind::Gateway, Spec::Gateway(x)) => {
            let listeners =
                list(&at.field("gateway"), "listeners", x.listeners, LIST_ENTRIES_MAX, listener)?;
            let (namespace, name) = name.object()?;
            Resource::Gateway(GatewaySpec { namespace, name, listeners })
        }
        (Kind::HttpRoute, Spec::HttpRoute(x)) => {
            Resource::HttpRoute(http_route(at.field("http_route"), name, x)?)
        }
        (Kind::TcpRoute, Spec::TcpRoute(x)) => {
            Resource::TcpRoute(tcp_route(at.field("tcp_route"), name, x)?)
        }
        (Kind::AccessPolicy, Spec::AccessPolicy(x)) => {
            Resource::AccessPolicy(access_policy(at.field("access_policy"), name, x)?)
        }
        (Kind::NamespaceGrant, Spec::NamespaceGrant(x)) => {
            let name = name.key.name;
            Resource::NamespaceGrant(namespace_grant(at.field("namespace_grant"), name, x)?)
        }
        (Kind::ReferenceGrant, Spec::ReferenceGrant(x)) => {
            Resource::ReferenceGrant(reference_grant(at.field("reference_grant"), name, x)?)
        }
        (kind, _) => {
            let problem = "the spec is of another kind than the key says";
            return Err(at.field("spec").refuse(kind.as_str(), problem));
        }
    })
}

/// The key of the object being decoded, in the shapes that objects want it.
struct Name<'a> {
    at: At<'a>,
    key: ResourceKey,
}

impl Name<'_> {
    fn service(&self) -> Result<ServiceName, WireError> {
        Ok(ServiceName::new(self.namespace()?, self.key.name.clone()))
    }

    fn object(self) -> Result<(Namespace, ObjectName), WireError> {
        Ok((self.namespace()?, self.key.name))
    }

    fn namespace(&self) -> Result<Namespace, WireError> {
        let missing = || self.at.field("key.namespace").missing("this kind has a namespace");
        self.key.namespace.clone().ok_or_else(missing)
    }
}

fn cluster_peer(
    at: At<'_>,
    name: &Name<'_>,
    peer: proto::ClusterPeer,
) -> Result<ClusterPeer, WireError> {
    let cluster = name.key.name.as_str();
    Ok(ClusterPeer {
        name: parse(name.at.field("key.name"), cluster, ClusterName::parse)?,
        addresses: list(&at, "addresses", peer.addresses, LIST_ENTRIES_MAX, peer_address)?,
        trust_bundles: list(&at, "trust_bundles", peer.trust_bundles, LIST_ENTRIES_MAX, bundle)?,
        cordoned: peer.cordoned,
        revoked_svids: revoked_svids(&at, peer.revoked_svids)?,
    })
}

/// Whose they are is for readers to judge, who know which trust domains a cluster owns.
pub(super) fn revoked_svids(
    at: &At<'_>,
    sent: Vec<proto::RevokedSvid>,
) -> Result<Vec<RevokedSvid>, WireError> {
    list(at, "revoked_svids", sent, limits::REVOKED_SVIDS_MAX, |at, entry| {
        let id = at.field("spiffe_id");
        id.check_bytes(entry.spiffe_id.len(), limits::REVOKED_SVID_ID_BYTES_MAX)?;
        if entry.not_before_unix_s == 0 {
            let fix = "say from when on certificates of this name are good again";
            return Err(at.field("not_before_unix_s").missing(fix));
        }
        Ok(RevokedSvid {
            id: parse(id, &entry.spiffe_id, SpiffeId::parse)?,
            not_before_unix_s: entry.not_before_unix_s,
        })
    })
}

pub(crate) fn peer_address(
    at: At<'_>,
    address: proto::PeerAddress,
) -> Result<PeerAddress, WireError> {
    Ok(PeerAddress {
        transport: convert::transport(at.field("transport"), address.transport)?,
        host: convert::host(at.field("host"), &address.host)?,
        port: convert::port(at.field("port"), address.port)?,
    })
}

pub(super) fn bundle(at: At<'_>, bundle: proto::TrustBundle) -> Result<TrustBundle, WireError> {
    let max = limits::CERTIFICATES_MAX;
    Ok(TrustBundle {
        trust_domain: parse(at.field("trust_domain"), &bundle.trust_domain, TrustDomain::parse)?,
        sequence: bundle.sequence,
        refresh_hint_seconds: bundle.refresh_hint_seconds,
        x509_authorities: list(&at, "x509_authorities", bundle.x509_authorities, max, certificate)?,
    })
}

/// A certificate's bytes are judged by `identity`; here only what can be one at all passes.
pub(super) fn certificate(at: At<'_>, der: Vec<u8>) -> Result<Vec<u8>, WireError> {
    at.check_bytes(der.len(), limits::CERTIFICATE_BYTES_MAX)?;
    if der.is_empty() {
        return Err(at.refuse(der, "a DER certificate cannot be empty"));
    }
    Ok(der)
}

fn service_ports(
    at: &At<'_>,
    ports: Vec<proto::ServicePort>,
) -> Result<Vec<ServicePort>, WireError> {
    list(at, "ports", ports, LIST_ENTRIES_MAX, |at, port| {
        Ok(ServicePort {
            name: convert::port_name(at.field("name"), &port.name)?,
            port: convert::port(at.field("port"), port.port)?,
            protocol: convert::app_protocol(at.field("protocol"), port.protocol)?,
        })
    })
}

fn endpoint_slice(
    at: At<'_>,
    name: Name<'_>,
    slice: proto::EndpointSlice,
) -> Result<EndpointSlice, WireError> {
    let (namespace, name) = name.object()?;
    Ok(EndpointSlice {
        namespace,
        name,
        service: parse(at.field("service"), &slice.service, ObjectName::parse)?,
        ports: list(&at, "ports", slice.ports, LIST_ENTRIES_MAX, |at, port| {
            Ok(SlicePort {
                name: convert::port_name(at.field("name"), &port.name)?,
                port: convert::port(at.field("port"), port.port)?,
            })
        })?,
        endpoints: list(&at, "endpoints", slice.endpoints, LIST_ENTRIES_MAX, |at, endpoint| {
            let ip = |at: At<'_>, address: Vec<u8>| convert::ip_address(at, &address);
            Ok(SliceEndpoint {
                addresses: list(&at, "addresses", endpoint.addresses, LIST_ENTRIES_MAX, ip)?,
                ready: endpoint.ready,
                terminating: endpoint.terminating,
            })
        })?,
    })
}

fn service_import(
    at: At<'_>,
    name: &Name<'_>,
    import: proto::ServiceImport,
) -> Result<ServiceImport, WireError> {
    let cluster = |at: At<'_>, name: String| parse(at, &name, ClusterName::parse);
    Ok(ServiceImport {
        name: name.service()?,
        ports: service_ports(&at, import.ports)?,
        clusters: list(&at, "clusters", import.clusters, LIST_ENTRIES_MAX, cluster)?,
    })
}

fn listener(at: At<'_>, listener: proto::ListenerSpec) -> Result<ListenerSpec, WireError> {
    let allowed = listener.allowed_namespaces;
    let allowed_namespaces = match proto::AllowedNamespaces::try_from(allowed) {
        Ok(proto::AllowedNamespaces::Same) => AllowedNamespaces::Same,
        Ok(proto::AllowedNamespaces::All) => AllowedNamespaces::All,
        _ => {
            let problem = "use SAME (1) or ALL (2)";
            return Err(at.field("allowed_namespaces").refuse(allowed, problem));
        }
    };
    Ok(ListenerSpec {
        name: parse(at.field("name"), &listener.name, ObjectName::parse)?,
        hostname: parse_optional(at.field("hostname"), &listener.hostname, Hostname::parse)?,
        port: convert::port(at.field("port"), listener.port)?,
        protocol: convert::listener_protocol(at.field("protocol"), listener.protocol)?,
        allowed_namespaces,
    })
}

fn parents(at: &At<'_>, parents: Vec<proto::ParentTarget>) -> Result<Vec<ParentTarget>, WireError> {
    list(at, "parents", parents, LIST_ENTRIES_MAX, |at, parent| {
        let port = parent.port.map(|port| convert::port(at.field("port"), port));
        let section = at.field("section_name");
        Ok(ParentTarget {
            namespace: parse(at.field("namespace"), &parent.namespace, Namespace::parse)?,
            name: parse(at.field("name"), &parent.name, ObjectName::parse)?,
            section_name: parse_optional(section, &parent.section_name, ObjectName::parse)?,
            port: port.transpose()?,
        })
    })
}

fn http_route(at: At<'_>, name: Name<'_>, route: proto::HttpRoute) -> Result<HttpRoute, WireError> {
    let (namespace, name) = name.object()?;
    let hostname = |at: At<'_>, host: String| parse(at, &host, Hostname::parse);
    Ok(HttpRoute {
        namespace,
        name,
        parents: parents(&at, route.parents)?,
        hostnames: list(&at, "hostnames", route.hostnames, LIST_ENTRIES_MAX, hostname)?,
        rules: list(&at, "rules", route.rules, LIST_ENTRIES_MAX, |at, rule| {
            Ok(HttpRule {
                prefixes: list(&at, "prefixes", rule.prefixes, LIST_ENTRIES_MAX, path_prefix)?,
                backend: backend(at.field("backend"), rule.backend)?,
            })
        })?,
    })
}

fn path_prefix(at: At<'_>, prefix: String) -> Result<HttpPathPrefix, WireError> {
    at.check_bytes(prefix.len(), limits::PATH_PREFIX_BYTES_MAX)?;
    if !prefix.starts_with('/') {
        return Err(at.refuse(prefix, "a path prefix begins with '/'"));
    }
    if prefix.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#')) {
        let problem = "a path prefix has no spaces, control characters, '?' or '#'; write other \
                       characters as %XX";
        return Err(at.refuse(prefix, problem));
    }
    Ok(HttpPathPrefix(prefix))
}

fn tcp_route(at: At<'_>, name: Name<'_>, route: proto::TcpRoute) -> Result<TcpRoute, WireError> {
    let (namespace, name) = name.object()?;
    Ok(TcpRoute {
        namespace,
        name,
        parents: parents(&at, route.parents)?,
        backend: backend(at.field("backend"), route.backend)?,
    })
}

fn backend(at: At<'_>, target: Option<proto::BackendTarget>) -> Result<BackendTarget, WireError> {
    let target = target.ok_or_else(|| at.missing("a route names one backend"))?;
    let kind = backend_kind(&at, target.kind)?;
    let namespace = parse(at.field("namespace"), &target.namespace, Namespace::parse)?;
    let name = parse(at.field("name"), &target.name, ObjectName::parse)?;
    let port = convert::port(at.field("port"), target.port)?;
    Ok(BackendTarget { kind, service: ServiceName::new(namespace, name), port })
}

fn backend_kind(at: &At<'_>, kind: i32) -> Result<BackendKind, WireError> {
    match proto::BackendKind::try_from(kind) {
        Ok(proto::BackendKind::Service) => Ok(BackendKind::Service),
        Ok(proto::BackendKind::ServiceImport) => Ok(BackendKind::ServiceImport),
        _ => Err(at.field("kind").refuse(kind, "use SERVICE (1) or SERVICE_IMPORT (2)")),
    }
}

fn access_policy(
    at: At<'_>,
    name: Name<'_>,
    policy: proto::AccessPolicy,
) -> Result<AccessPolicy, WireError> {
    let (namespace, name) = name.object()?;
    let target = |at: At<'_>, name: String| parse(at, &name, ObjectName::parse);
    Ok(AccessPolicy {
        namespace,
        name,
        targets: list(&at, "targets", policy.targets, LIST_ENTRIES_MAX, target)?,
        allow: list(&at, "allow", policy.allow, LIST_ENTRIES_MAX, allow_entry)?,
    })
}

fn namespace_grant(
    at: At<'_>,
    name: ObjectName,
    grant: proto::NamespaceGrant,
) -> Result<NamespaceGrant, WireError> {
    use proto::namespace_match::Match;
    let namespace = |at: At<'_>, entry: proto::NamespaceMatch| match entry.r#match {
        Some(Match::Name(name)) => {
            parse(at.field("name"), &name, Namespace::parse).map(NamespaceMatch::Name)
        }
        Some(Match::Prefix(prefix)) => {
            parse(at.field("prefix"), &prefix, NamespacePrefix::parse).map(NamespaceMatch::Prefix)
        }
        None => Err(at.missing("set name or prefix")),
    };
    let cluster = |at: At<'_>, name: String| parse(at, &name, ClusterName::parse);
    Ok(NamespaceGrant {
        name,
        namespaces: list(&at, "namespaces", grant.namespaces, LIST_ENTRIES_MAX, namespace)?,
        clusters: list(&at, "clusters", grant.clusters, LIST_ENTRIES_MAX, cluster)?,
    })
}

fn reference_grant(
    at: At<'_>,
    name: Name<'_>,
    grant: proto::ReferenceGrant,
) -> Result<ReferenceGrant, WireError> {
    let (namespace, name) = name.object()?;
    let source = |at: At<'_>, source: proto::ReferenceSource| {
        let kind = match proto::RouteKind::try_from(source.kind) {
            Ok(proto::RouteKind::Http) => RouteKind::Http,
            Ok(proto::RouteKind::Tcp) => RouteKind::Tcp,
            _ => return Err(at.field("kind").refuse(source.kind, "use HTTP (1) or TCP (2)")),
        };
        let namespace = parse(at.field("namespace"), &source.namespace, Namespace::parse)?;
        Ok(ReferenceSource { kind, namespace })
    };
    let target = |at: At<'_>, target: proto::ReferenceTarget| {
        let kind = backend_kind(&at, target.kind)?;
        let name = match target.name.as_str() {
            "" => None,
            name => Some(parse(at.field("name"), name, ObjectName::parse)?),
        };
        Ok(ReferenceTarget { kind, name })
    };
    Ok(ReferenceGrant {
        namespace,
        name,
        from: list(&at, "from", grant.from, LIST_ENTRIES_MAX, source)?,
        to: list(&at, "to", grant.to, LIST_ENTRIES_MAX, target)?,
    })
}

/// An empty entry would allow everybody, so it is refused rather than understood.
fn allow_entry(at: At<'_>, entry: proto::AllowEntry) -> Result<AllowEntry, WireError> {
    let domain = &entry.trust_domain;
    let converted = AllowEntry {
        cluster: parse_optional(at.field("cluster"), &entry.cluster, ClusterName::parse)?,
        trust_domain: parse_optional(at.field("trust_domain"), domain, TrustDomain::parse)?,
        spiffe_id: parse_optional(at.field("spiffe_id"), &entry.spiffe_id, SpiffeId::parse)?,
    };
    if converted == AllowEntry::default() {
        return Err(at.missing("set at least one of cluster, trust_domain and spiffe_id"));
    }
    Ok(converted)
}
