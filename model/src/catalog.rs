//! What users declare, one [`Resource`] per object of theirs, with parsed fields only.
//!
//! The same types serve the file provider, Kubernetes and the stream to gateways: a child points at
//! its parent, and nothing is merged before [`crate::compile()`] (which drops a bad object alone).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::name::{ClusterName, Hostname, Namespace, NamespacePrefix, ObjectName, ServiceName};
use crate::reference::ReferenceGrant;
use crate::spiffe::{SpiffeId, TrustDomain};

/// Kinds have registered numbers: they are in store keys and on the wire, and are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum ResourceKind {
    ClusterPeer = 1,
    Service = 2,
    EndpointSlice = 3,
    ServiceExport = 4,
    ServiceImport = 5,
    Gateway = 6,
    HttpRoute = 7,
    TcpRoute = 8,
    AccessPolicy = 9,
    NamespaceGrant = 10,
    ReferenceGrant = 11,
}

impl ResourceKind {
    pub const ALL: [Self; 11] = [
        Self::ClusterPeer,
        Self::Service,
        Self::EndpointSlice,
        Self::ServiceExport,
        Self::ServiceImport,
        Self::Gateway,
        Self::HttpRoute,
        Self::TcpRoute,
        Self::AccessPolicy,
        Self::NamespaceGrant,
        Self::ReferenceGrant,
    ];

    pub fn number(self) -> u16 {
        self as u16
    }

    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// The kind as Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterPeer => "ClusterPeer",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::ServiceExport => "ServiceExport",
            Self::ServiceImport => "ServiceImport",
            Self::Gateway => "Gateway",
            Self::HttpRoute => "HTTPRoute",
            Self::TcpRoute => "TCPRoute",
            Self::AccessPolicy => "AccessPolicy",
            Self::NamespaceGrant => "NamespaceGrant",
            Self::ReferenceGrant => "ReferenceGrant",
        }
    }

    /// Whether its objects live in a namespace; the others are cluster-wide.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::ClusterPeer | Self::NamespaceGrant)
    }
}

/// Identifies an object: kind, namespace (none for cluster-wide kinds), name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    pub kind: ResourceKind,
    pub namespace: Option<Namespace>,
    pub name: ObjectName,
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind.as_str(), self.name),
            None => write!(f, "{}/{}", self.kind.as_str(), self.name),
        }
    }
}

/// One object of a user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    ClusterPeer(ClusterPeer),
    Service(Service),
    EndpointSlice(EndpointSlice),
    ServiceExport(ServiceExport),
    ServiceImport(ServiceImport),
    Gateway(GatewaySpec),
    HttpRoute(HttpRoute),
    TcpRoute(TcpRoute),
    AccessPolicy(AccessPolicy),
    NamespaceGrant(NamespaceGrant),
    ReferenceGrant(ReferenceGrant),
}

impl Resource {
    pub fn key(&self) -> ResourceKey {
        let key = |kind, namespace: &Namespace, name: &ObjectName| ResourceKey {
            kind,
            namespace: Some(namespace.clone()),
            name: name.clone(),
        };
        let service = |kind, name: &ServiceName| key(kind, &name.namespace, &name.name);
        match self {
            Self::ClusterPeer(peer) => ResourceKey {
                kind: ResourceKind::ClusterPeer,
                namespace: None,
                name: ObjectName::parse(peer.name.as_str())
                    .expect("every RFC 1123 label is an RFC 1123 subdomain"),
            },
            Self::Service(x) => service(ResourceKind::Service, &x.name),
            Self::EndpointSlice(x) => key(ResourceKind::EndpointSlice, &x.namespace, &x.name),
            Self::ServiceExport(x) => service(ResourceKind::ServiceExport, &x.name),
            Self::ServiceImport(x) => service(ResourceKind::ServiceImport, &x.name),
            Self::Gateway(x) => key(ResourceKind::Gateway, &x.namespace, &x.name),
            Self::HttpRoute(x) => key(ResourceKind::HttpRoute, &x.namespace, &x.name),
            Self::TcpRoute(x) => key(ResourceKind::TcpRoute, &x.namespace, &x.name),
            Self::AccessPolicy(x) => key(ResourceKind::AccessPolicy, &x.namespace, &x.name),
            Self::ReferenceGrant(x) => key(ResourceKind::ReferenceGrant, &x.namespace, &x.name),
            Self::NamespaceGrant(grant) => ResourceKey {
                kind: ResourceKind::NamespaceGrant,
                namespace: None,
                name: grant.name.clone(),
            },
        }
    }
}

/// Everything a proxy was sent, in the order of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceSet {
    resources: BTreeMap<ResourceKey, Arc<Resource>>,
}

impl ResourceSet {
    /// One of another set is shared with it, which also makes comparing the two cheap.
    pub fn upsert(&mut self, resource: impl Into<Arc<Resource>>) {
        let resource = resource.into();
        self.resources.insert(resource.key(), resource);
    }

    pub fn remove(&mut self, key: &ResourceKey) -> bool {
        self.resources.remove(key).is_some()
    }

    pub fn get(&self, key: &ResourceKey) -> Option<&Arc<Resource>> {
        self.resources.get(key)
    }

    pub fn len(&self) -> usize {
        self.resources.len()
    }

    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&ResourceKey, &Arc<Resource>)> {
        self.resources.iter()
    }

    pub fn values(&self) -> impl Iterator<Item = &Resource> {
        self.resources.values().map(|resource| &**resource)
    }
}

impl FromIterator<Resource> for ResourceSet {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        let mut set = Self::default();
        resources.into_iter().for_each(|resource| set.upsert(resource));
        set
    }
}

/// `fedgate.dev/v1alpha1 ClusterPeer`: another cluster, where its gateways are and whom they trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPeer {
    pub name: ClusterName,
    /// Tried in order; names are resolved again at each dial.
    pub addresses: Vec<PeerAddress>,
    /// The bundles of the trust domains that this cluster owns.
    pub trust_bundles: Vec<TrustBundle>,
    /// An operator, here or there, wants no new exchanges to be sent to it. No manifest says it.
    pub cordoned: bool,
    /// Certificates of its own trust domains that it denies. No manifest says it.
    pub revoked_svids: Vec<RevokedSvid>,
}

/// Certificates that the cluster which had issued them denies: those of this name from before a
/// moment. A later one of the same name is good.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevokedSvid {
    pub id: SpiffeId,
    /// Seconds since the Unix epoch: a certificate whose notBefore is earlier is refused.
    pub not_before_unix_s: u64,
}

/// How a gateway can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    Quic,
    /// TLS on TCP, where UDP does not pass.
    Tcp,
}

impl Transport {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    pub transport: Transport,
    /// An IP address or a DNS name.
    pub host: String,
    pub port: u16,
}

/// A trust domain's X.509 authorities (SPIFFE bundle). Never pooled with another domain's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    pub trust_domain: TrustDomain,
    /// `spiffe_sequence`: a lower one than that in force is refused.
    pub sequence: u64,
    /// `spiffe_refresh_hint`.
    pub refresh_hint_seconds: Option<u64>,
    /// CA certificates, DER. Empty means that every SVID of the domain is invalid.
    pub x509_authorities: Vec<Vec<u8>>,
}

/// `v1 Service`, as far as routing needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub name: ServiceName,
    pub ports: Vec<ServicePort>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// `None` only when the service has a single port.
    pub name: Option<String>,
    pub port: u16,
    pub protocol: AppProtocol,
}

/// What an application speaks on a port (`appProtocol`, KEP-3726's names).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AppProtocol {
    /// HTTP/1.1 to the endpoint.
    Http,
    /// HTTP/2 with prior knowledge to the endpoint (`kubernetes.io/h2c`, `grpc`).
    H2c,
    /// Opaque bytes.
    Tcp,
}

impl AppProtocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::H2c => "h2c",
            Self::Tcp => "tcp",
        }
    }

    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::H2c)
    }
}

/// `discovery.k8s.io/v1 EndpointSlice`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    pub namespace: Namespace,
    pub name: ObjectName,
    /// From the label `kubernetes.io/service-name`.
    pub service: ObjectName,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<SliceEndpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    pub name: Option<String>,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    pub addresses: Vec<IpAddr>,
    /// `conditions.ready`, where absent means ready.
    pub ready: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
}

/// `multicluster.x-k8s.io ServiceExport`: the Service of the same name may be reached from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceExport {
    pub name: ServiceName,
    /// The Service's ports. Empty in what a user declares; filled when the export leaves its cluster.
    pub ports: Vec<ServicePort>,
}

/// `multicluster.x-k8s.io ServiceImport`: a service of the clusterset, and who exports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceImport {
    pub name: ServiceName,
    pub ports: Vec<ServicePort>,
    /// `status.clusters[].cluster`.
    pub clusters: Vec<ClusterName>,
}

/// `gateway.networking.k8s.io/v1 Gateway`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySpec {
    pub namespace: Namespace,
    pub name: ObjectName,
    pub listeners: Vec<ListenerSpec>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSpec {
    pub name: ObjectName,
    pub hostname: Option<Hostname>,
    pub port: u16,
    pub protocol: ListenerProtocol,
    pub allowed_namespaces: AllowedNamespaces,
}

/// `allowedRoutes.namespaces.from`: whose routes a listener takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AllowedNamespaces {
    /// Routes in the Gateway's own namespace.
    #[default]
    Same,
    All,
}

impl AllowedNamespaces {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "Same",
            Self::All => "All",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerProtocol {
    Http,
    Tcp,
}

impl ListenerProtocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Tcp => "TCP",
        }
    }
}

/// A route's `parentRefs[]` entry that names a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentTarget {
    pub namespace: Namespace,
    pub name: ObjectName,
    pub section_name: Option<ObjectName>,
    pub port: Option<u16>,
}

/// `gateway.networking.k8s.io/v1 HTTPRoute` with host names and path prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRoute {
    pub namespace: Namespace,
    pub name: ObjectName,
    pub parents: Vec<ParentTarget>,
    pub hostnames: Vec<Hostname>,
    pub rules: Vec<HttpRule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRule {
    /// Any of them; empty means every path.
    pub prefixes: Vec<HttpPathPrefix>,
    pub backend: BackendTarget,
}

/// `path: {type: PathPrefix}`: matches whole elements, `/a` covers `/a` and `/a/b` but not `/ab`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpPathPrefix(pub String);

/// `gateway.networking.k8s.io TCPRoute` with one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpRoute {
    pub namespace: Namespace,
    pub name: ObjectName,
    pub parents: Vec<ParentTarget>,
    pub backend: BackendTarget,
}

/// A `backendRefs[]` entry: a Service of this cluster or a ServiceImport (GEP-1748).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendTarget {
    pub kind: BackendKind,
    pub service: ServiceName,
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackendKind {
    Service,
    ServiceImport,
}

impl BackendKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::ServiceImport => "ServiceImport",
        }
    }
}

/// `fedgate.dev/v1alpha1 AccessPolicy`: who may reach a ServiceExport. The default is deny.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessPolicy {
    pub namespace: Namespace,
    pub name: ObjectName,
    /// Names of ServiceExports in the policy's namespace.
    pub targets: Vec<ObjectName>,
    /// Any of them; an entry's own fields must all match. Empty allows nobody.
    pub allow: Vec<AllowEntry>,
}

/// At least one field is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowEntry {
    pub cluster: Option<ClusterName>,
    pub trust_domain: Option<TrustDomain>,
    pub spiffe_id: Option<SpiffeId>,
}

/// `fedgate.dev/v1alpha1 NamespaceGrant`: which clusters may export services in which namespaces.
/// It counts if the cluster that declares it has the role admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceGrant {
    pub name: ObjectName,
    pub namespaces: Vec<NamespaceMatch>,
    pub clusters: Vec<ClusterName>,
}

impl NamespaceGrant {
    /// Whether it speaks of this namespace at all.
    pub fn covers(&self, namespace: &Namespace) -> bool {
        self.namespaces.iter().any(|entry| entry.matches(namespace))
    }
}

/// One namespace, or all whose names begin alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceMatch {
    Name(Namespace),
    Prefix(NamespacePrefix),
}

impl NamespaceMatch {
    pub fn matches(&self, namespace: &Namespace) -> bool {
        match self {
            Self::Name(name) => name == namespace,
            Self::Prefix(prefix) => namespace.as_str().starts_with(prefix.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_covers_what_it_names() {
        let name = |text| Namespace::parse(text).unwrap();
        let grant = NamespaceGrant {
            name: ObjectName::parse("shops").unwrap(),
            namespaces: vec![
                NamespaceMatch::Name(name("shop")),
                NamespaceMatch::Prefix(NamespacePrefix::parse("team-").unwrap()),
            ],
            clusters: vec![],
        };
        for (namespace, covered) in
            [("shop", true), ("team-a", true), ("shops", false), ("team", false), ("a", false)]
        {
            assert_eq!(grant.covers(&name(namespace)), covered, "{namespace}");
        }
    }

    #[test]
    fn kinds_have_their_numbers_for_ever() {
        let numbers: Vec<u16> = ResourceKind::ALL.into_iter().map(ResourceKind::number).collect();
        assert_eq!(numbers, (1..=11).collect::<Vec<u16>>());
        for kind in ResourceKind::ALL {
            assert_eq!(ResourceKind::from_number(kind.number()), Some(kind));
        }
    }
}
