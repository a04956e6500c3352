//! What a request reads: immutable, loaded once per request, so that no request sees two revisions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::catalog::{AllowEntry, AppProtocol, BackendTarget, ClusterPeer, ListenerProtocol};
use crate::id::Revision;
use crate::name::{ClusterName, ServiceName};
use crate::policy::{self, Caller, Decision};
use crate::route::RouteTable;
use crate::spiffe::TrustDomain;

/// The compiled intent of one revision.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub revision: Revision,
    /// By port: there is one entry per port that the gateway must listen on.
    pub listeners: BTreeMap<u16, Listener>,
    pub peers: BTreeMap<ClusterName, Arc<ClusterPeer>>,
    /// Exactly one owner per trust domain, our own cluster's not included.
    pub trust_domain_owners: BTreeMap<TrustDomain, ClusterName>,
    pub exports: HashMap<ServiceName, Export>,
    /// Every port of every import and local service, whether or not a route names it.
    pub backends: HashMap<BackendTarget, Arc<Backend>>,
}

/// One port of the gateway's, towards local applications or the outside.
#[derive(Debug, Clone)]
pub struct Listener {
    /// `Gateway/namespace/name/listener`, for logs; the first one, where several share the port.
    pub name: String,
    pub port: u16,
    /// A port of the pool, through which pods reach an import. What a user declares is none.
    pub is_for_import: bool,
    pub routing: ListenerRouting,
}

/// The namespace of the Gateways that a node makes for imports; users' objects in it do not count.
pub const IMPORTS_NAMESPACE: &str = "fedgate-imports";

impl Listener {
    pub fn protocol(&self) -> ListenerProtocol {
        match self.routing {
            ListenerRouting::Http(_) => ListenerProtocol::Http,
            ListenerRouting::Tcp(_) => ListenerProtocol::Tcp,
        }
    }
}

#[derive(Debug, Clone)]
pub enum ListenerRouting {
    Http(RouteTable),
    /// `None`: the listener has no accepted TCPRoute, and its connections are closed with a record.
    Tcp(Option<TcpTarget>),
}

#[derive(Debug, Clone)]
pub struct TcpTarget {
    /// `TCPRoute/namespace/name`, for logs and metrics.
    pub route: Arc<str>,
    pub destination: Destination,
}

/// Where a route leads.
#[derive(Debug, Clone)]
pub enum Destination {
    Backend(Arc<Backend>),
    /// The backend is missing, speaks another protocol, or its namespace does not let the route use
    /// it. The route keeps its place all the same, and what it matches is refused: the next route
    /// would send it where nobody meant it to go (Gateway API, `HTTPRouteRule.backendRefs`).
    Unresolved(BackendTarget),
}

impl Destination {
    pub fn backend(&self) -> Option<&Arc<Backend>> {
        match self {
            Self::Backend(backend) => Some(backend),
            Self::Unresolved(_) => None,
        }
    }

    /// The service and port that the route names.
    pub fn service(&self) -> (&ServiceName, u16) {
        match self {
            Self::Backend(backend) => (&backend.service, backend.port),
            Self::Unresolved(target) => (&target.service, target.port),
        }
    }
}

/// A service's port that requests can go to, and the clusters that can serve it.
///
/// (Envoy calls this a cluster; here "cluster" always means a Kubernetes cluster, VM group or
/// datacentre.)
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    pub service: ServiceName,
    pub port: u16,
    pub protocol: AppProtocol,
    /// This cluster's own endpoints may serve it.
    pub local: bool,
    /// Peers that export it, in the order of their names; round-trip time decides at run time.
    pub clusters: Vec<ClusterName>,
}

/// A service of this cluster that others may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    pub ports: BTreeMap<u16, AppProtocol>,
    /// Whether any AccessPolicy targets the export.
    pub targeted: bool,
    pub allow: Vec<AllowEntry>,
}

impl Export {
    pub fn decide(&self, caller: &Caller) -> Decision {
        policy::decide(&self.allow, self.targeted, caller)
    }
}

impl Snapshot {
    /// The cluster that owns a trust domain, if it is a peer.
    pub fn owner_of(&self, trust_domain: &TrustDomain) -> Option<&ClusterName> {
        self.trust_domain_owners.get(trust_domain)
    }
}
