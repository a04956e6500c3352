//! What one node says, as far as the engine needs it. Ages and lifetimes are durations: whoever
//! collects facts has a clock, the engine has none.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::catalog::{
    AllowEntry, Resource, ResourceKey, ResourceKind, ResourceSet, Service, ServiceImport,
    ServicePort,
};
use crate::code::Code;
use crate::compile::compile;
use crate::diagnostic::Diagnostic;
use crate::endpoint::{EndpointTable, endpoint_table};
use crate::id::Revision;
use crate::name::{ClusterName, ServiceName};
use crate::snapshot::Snapshot;
use crate::spiffe::{SpiffeId, TrustDomain};

/// What a cluster's federation node says of itself and of others.
#[derive(Debug)]
pub struct NodeFacts {
    pub cluster: ClusterName,
    pub trust_domain: TrustDomain,
    /// Objects in service, whatever way they came.
    pub resources: ResourceSet,
    /// How many more there are than the node tells.
    pub left_out: u32,
    /// What gateways serve by these objects.
    pub snapshot: Snapshot,
    pub endpoints: EndpointTable,
    /// What was found wrong with the objects.
    pub findings: Vec<Diagnostic>,
    /// Those that are connected or were, with their last reports.
    pub gateways: Vec<GatewayFacts>,
    pub links: Vec<LinkFacts>,
    pub trust: Vec<TrustFacts>,
    /// Clusters to which no new exchanges are to be sent, and why.
    pub cordoned: BTreeMap<ClusterName, String>,
    /// The federation; `None` while the cluster is in none.
    pub store: Option<StoreFacts>,
}

/// A gateway as its node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayFacts {
    pub name: String,
    pub connected: bool,
    /// Since it connected, or since it went.
    pub since: Duration,
    /// Of its last report; `None` before the first.
    pub report_age: Option<Duration>,
    pub ready: bool,
    pub draining: bool,
    pub spiffe_id: Option<SpiffeId>,
    pub svid: SvidFacts,
    pub listeners: Vec<ListenerFacts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SvidFacts {
    Missing,
    Expired { ago: Duration },
    Valid { left: Duration },
}

/// A port towards applications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerFacts {
    pub address: SocketAddr,
    /// Why it is not bound.
    pub error: Option<String>,
}

/// A connection between a gateway of the node's and another cluster's, or one that is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkFacts {
    pub gateway: String,
    /// The gateway is connected to its node, so that the link is as it was a moment ago.
    pub current: bool,
    pub cluster: ClusterName,
    pub address: String,
    pub transport: &'static str,
    pub state: LinkState,
    pub rtt: Option<Duration>,
    pub fault: Option<LinkFault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    Dialling,
    Live,
    Draining,
    Down,
}

/// What last went wrong with a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkFault {
    pub code: Option<Code>,
    pub text: String,
    pub age: Duration,
}

/// A trust domain that the node's cluster accepts, its own among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustFacts {
    pub trust_domain: TrustDomain,
    pub cluster: ClusterName,
    pub sequence: u64,
    pub authorities: Vec<Authority>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// SHA-256 of the certificate.
    pub fingerprint: Vec<u8>,
    pub expired: bool,
}

/// The federation as a node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFacts {
    pub revision: Revision,
    pub feed: Feed,
    pub members: Vec<MemberFacts>,
    /// Of the service that was asked for, as far as the node's cluster may see.
    pub offers: Vec<OfferFacts>,
}

/// Where a node has the federation's state from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feed {
    /// The store, which has a leader.
    Store { leader: ClusterName },
    /// The store, which nobody leads now.
    Leaderless,
    /// The watch of another member.
    Watch { source: ClusterName },
    /// Nobody, at the moment.
    Cut,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberFacts {
    pub name: ClusterName,
    pub state: MemberState,
    /// Since the node heard of it, and what that means; absent for its own cluster.
    pub heard: Option<(Duration, Standing)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    Active,
    Left,
    Revoked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Fresh,
    Stale,
    /// Its exports are out of service until it is heard of again.
    Withdrawn,
}

/// A cluster's export of the service, as its signed records in the store say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferFacts {
    pub cluster: ClusterName,
    /// Why it does not serve.
    pub idle: Option<Diagnostic>,
    pub ports: Vec<ServicePort>,
    /// Whether an AccessPolicy that the node's cluster may see targets it.
    pub targeted: bool,
    pub allow: Vec<AllowEntry>,
}

impl NodeFacts {
    /// A node without gateways, links, trust and store; the caller adds these.
    pub fn new(
        cluster: ClusterName,
        trust_domain: TrustDomain,
        revision: Revision,
        resources: ResourceSet,
    ) -> Self {
        let (snapshot, findings) = compile(&cluster, revision, &resources);
        let endpoints = endpoint_table(&resources);
        Self {
            cluster,
            trust_domain,
            resources,
            left_out: 0,
            snapshot,
            endpoints,
            findings,
            gateways: vec![],
            links: vec![],
            trust: vec![],
            cordoned: BTreeMap::new(),
            store: None,
        }
    }

    pub(super) fn service(&self, name: &ServiceName) -> Option<&Service> {
        match self.object(ResourceKind::Service, name) {
            Some(Resource::Service(service)) => Some(service),
            _ => None,
        }
    }

    pub(super) fn import(&self, name: &ServiceName) -> Option<&ServiceImport> {
        match self.object(ResourceKind::ServiceImport, name) {
            Some(Resource::ServiceImport(import)) => Some(import),
            _ => None,
        }
    }

    pub(super) fn declares_export(&self, name: &ServiceName) -> bool {
        self.object(ResourceKind::ServiceExport, name).is_some()
    }

    pub(super) fn has_peer(&self, cluster: &ClusterName) -> bool {
        let named = |resource: &Resource| matches!(resource, Resource::ClusterPeer(peer) if peer.name == *cluster);
        self.resources.values().any(named)
    }

    fn object(&self, kind: ResourceKind, name: &ServiceName) -> Option<&Resource> {
        let (namespace, name) = (Some(name.namespace.clone()), name.name.clone());
        self.resources.get(&ResourceKey { kind, namespace, name }).map(|resource| &**resource)
    }

    pub(super) fn connected(&self) -> impl Iterator<Item = &GatewayFacts> {
        self.gateways.iter().filter(|gateway| gateway.connected)
    }

    pub(super) fn links_to<'a>(
        &'a self,
        cluster: &'a ClusterName,
    ) -> impl Iterator<Item = &'a LinkFacts> {
        self.links.iter().filter(move |link| link.current && link.cluster == *cluster)
    }

    /// The bundles that this node's cluster has of another one.
    pub(super) fn trust_of<'a>(
        &'a self,
        cluster: &'a ClusterName,
    ) -> impl Iterator<Item = &'a TrustFacts> {
        self.trust.iter().filter(move |row| row.cluster == *cluster)
    }
}

impl StoreFacts {
    /// A name may have been a member's before: who is active counts.
    pub fn member(&self, name: &ClusterName) -> Option<&MemberFacts> {
        let named = || self.members.iter().filter(|member| member.name == *name);
        let active = named().find(|member| member.state == MemberState::Active);
        active
            .or_else(|| named().find(|member| member.state == MemberState::Revoked))
            .or_else(|| named().next())
    }

    pub(super) fn offer(&self, cluster: &ClusterName) -> Option<&OfferFacts> {
        self.offers.iter().find(|offer| offer.cluster == *cluster)
    }
}
