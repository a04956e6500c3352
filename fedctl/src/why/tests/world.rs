//! Two clusters in one federation, and everything that can be wrong with them.

use std::collections::BTreeMap;
use std::time::Duration;

use api::parse_manifest;
use model::why::{
    Authority, Facts, Feed, GatewayFacts, LinkFacts, LinkFault, LinkState, ListenerFacts,
    MemberFacts, MemberState, NodeFacts, OfferFacts, Standing, StoreFacts, SvidFacts, TrustFacts,
};
use model::{AllowEntry, ClusterName, ResourceSet, Revision, SpiffeId, TrustDomain};
use wire::resource::{decode_resource, proto};

use super::name;

pub(super) const EAST_GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: fedgate, namespace: shop}
spec:
  gatewayClassName: fedgate
  listeners:
  - {name: http, port: 8080, protocol: HTTP}
";
pub(super) const EAST_ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api, namespace: shop}
spec:
  parentRefs: [{name: fedgate}]
  hostnames: [api.shop.svc.clusterset.local]
  rules:
  - backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: api, port: 80}]
";
pub(super) const EAST_IMPORT: &str = "\
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {name: api, namespace: shop}
spec:
  type: ClusterSetIP
  ports:
  - {name: main, port: 80, appProtocol: http}
status:
  clusters:
  - {cluster: west}
";
pub(super) const WEST_SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec:
  ports:
  - {name: main, port: 80, appProtocol: http}
";
pub(super) const WEST_SLICE: &str = "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: api-1
  namespace: shop
  labels: {kubernetes.io/service-name: api}
addressType: IPv4
ports:
- {name: main, port: 9}
endpoints:
- {addresses: [10.0.0.9], conditions: {ready: true}}
";
pub(super) const WEST_EXPORT: &str = "\
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: api, namespace: shop}
";
pub(super) const WEST_POLICY: &str = "\
apiVersion: fedgate.dev/v1alpha1
kind: AccessPolicy
metadata: {name: api, namespace: shop}
spec:
  targetRefs:
  - {group: multicluster.x-k8s.io, kind: ServiceExport, name: api}
  allow:
  - {cluster: east}
";

/// What one node would say, to be spoilt.
pub(super) struct Node {
    name: &'static str,
    manifests: Vec<String>,
    /// By name, with the byte that stands for the CA; the trust domain is that byte's cluster's.
    pub(super) peers: Vec<(&'static str, u8)>,
    pub(super) gateways: Vec<GatewayFacts>,
    pub(super) links: Vec<LinkFacts>,
    pub(super) trust: Vec<TrustFacts>,
    pub(super) cordoned: BTreeMap<ClusterName, String>,
    store: Option<StoreFacts>,
}

pub(super) struct World {
    pub(super) east: Node,
    pub(super) west: Node,
    asked: Vec<&'static str>,
}

const REVISION: Revision = Revision { epoch: 3, index: 17 };
const NAMES: [&str; 4] = ["", "east", "west", "south"];

fn domain(cluster: &str) -> TrustDomain {
    TrustDomain::parse(&format!("{cluster}.example")).unwrap()
}

impl World {
    /// Everything is as it should be.
    pub(super) fn sound() -> Self {
        let east = Node::sound("east", &[EAST_GATEWAY, EAST_ROUTE, EAST_IMPORT], ("west", 2));
        let west = [WEST_SERVICE, WEST_SLICE, WEST_EXPORT, WEST_POLICY];
        let west = Node::sound("west", &west, ("east", 1));
        Self { east, west, asked: vec!["east", "west"] }
    }

    pub(super) fn facts(&self) -> Facts {
        let nodes = [&self.east, &self.west].into_iter();
        let asked = nodes.filter(|node| self.asked.contains(&node.name));
        asked.map(|node| (name(node.name), node.facts())).collect()
    }

    pub(super) fn only_east(&mut self) {
        self.asked = vec!["east"];
    }

    /// A third cluster, which sees what east sees of the federation.
    pub(super) fn third(mut self) -> Self {
        let mut south = Node::sound("south", &[], ("west", 2));
        south.peers.push(("east", 1));
        (self.east, self.asked) = (south, vec!["south"]);
        self
    }

    /// No federation: the clusters know each other by manifests.
    pub(super) fn by_hand(&mut self) {
        (self.east.store, self.west.store) = (None, None);
    }

    pub(super) fn cut_tunnel(&mut self, fault: Option<LinkFault>) {
        for node in [&mut self.east, &mut self.west] {
            for link in &mut node.links {
                (link.state, link.rtt, link.fault) = (LinkState::Down, None, fault.clone());
            }
        }
    }
}

impl Node {
    fn sound(name: &'static str, manifests: &[&str], peer: (&'static str, u8)) -> Self {
        let own = NAMES.iter().position(|known| *known == name).unwrap();
        let own = u8::try_from(own).unwrap();
        let id = format!("spiffe://{name}.example/fedgate/gateway/gw-0");
        let gateway = GatewayFacts {
            name: "gw-0".into(),
            connected: true,
            since: Duration::from_secs(4),
            report_age: Some(Duration::from_millis(400)),
            ready: true,
            draining: false,
            spiffe_id: Some(SpiffeId::parse(&id).unwrap()),
            svid: SvidFacts::Valid { left: Duration::from_secs(23 * 3600) },
            listeners: vec![ListenerFacts { address: ([10, 0, 0, 1], 8080).into(), error: None }],
        };
        let link = LinkFacts {
            gateway: "gw-0".into(),
            current: true,
            cluster: super::name(peer.0),
            address: "203.0.113.7:8443".into(),
            transport: "quic",
            state: LinkState::Live,
            rtt: Some(Duration::from_millis(18)),
            fault: None,
        };
        Self {
            name,
            manifests: manifests.iter().map(ToString::to_string).collect(),
            peers: vec![peer],
            gateways: vec![gateway],
            links: vec![link],
            trust: vec![bundle(name, own), bundle(peer.0, peer.1)],
            cordoned: BTreeMap::new(),
            store: Some(store(name)),
        }
    }

    pub(super) fn store(&mut self) -> &mut StoreFacts {
        self.store.as_mut().unwrap()
    }

    pub(super) fn remove(&mut self, manifest: &str) {
        let before = self.manifests.len();
        self.manifests.retain(|known| known != manifest);
        assert_eq!(self.manifests.len() + 1, before, "{manifest}");
    }

    pub(super) fn replace(&mut self, from: &str, to: &str) {
        let before = self.manifests.clone();
        for manifest in &mut self.manifests {
            *manifest = manifest.replace(from, to);
        }
        assert_ne!(self.manifests, before, "{from}");
    }

    fn facts(&self) -> NodeFacts {
        let mut resources = ResourceSet::default();
        let text = self.manifests.join("---\n");
        let read = parse_manifest(self.name, &text).unwrap();
        assert!(read.diagnostics.is_empty(), "{:?}", read.diagnostics);
        read.objects.into_iter().for_each(|object| resources.upsert(object.resource));
        for (peer, authority) in &self.peers {
            resources.upsert(cluster_peer(peer, *authority));
        }
        let facts = NodeFacts::new(name(self.name), domain(self.name), REVISION, resources);
        NodeFacts {
            gateways: self.gateways.clone(),
            links: self.links.clone(),
            trust: self.trust.clone(),
            cordoned: self.cordoned.clone(),
            store: self.store.clone(),
            ..facts
        }
    }
}

fn bundle(cluster: &str, authority: u8) -> TrustFacts {
    TrustFacts {
        trust_domain: domain(cluster),
        cluster: name(cluster),
        sequence: 1,
        authorities: vec![Authority { fingerprint: vec![authority; 32], expired: false }],
    }
}

fn store(own: &str) -> StoreFacts {
    let heard = Some((Duration::from_secs(12), Standing::Fresh));
    let member = |cluster: &str| MemberFacts {
        name: name(cluster),
        state: MemberState::Active,
        heard: heard.filter(|_| cluster != own),
    };
    let allow = AllowEntry { cluster: Some(name("east")), ..AllowEntry::default() };
    StoreFacts {
        revision: Revision { epoch: 1, index: 23 },
        feed: Feed::Store { leader: name("east") },
        members: ["east", "west", "south"].map(member).to_vec(),
        offers: vec![OfferFacts {
            cluster: name("west"),
            idle: None,
            ports: vec![],
            targeted: true,
            allow: vec![allow],
        }],
    }
}

/// A peer whose trust domain is that of the cluster to which the authority belongs.
fn cluster_peer(peer: &str, authority: u8) -> model::Resource {
    let owner = NAMES.get(usize::from(authority)).copied().unwrap_or("other");
    let bundle = proto::TrustBundle {
        trust_domain: domain(owner).to_string(),
        sequence: 1,
        refresh_hint_seconds: None,
        x509_authorities: vec![vec![authority]],
    };
    let address = proto::PeerAddress {
        transport: proto::Transport::Quic.into(),
        host: format!("gw.{peer}.example"),
        port: 8443,
    };
    let spec = proto::ClusterPeer {
        addresses: vec![address],
        trust_bundles: vec![bundle],
        ..proto::ClusterPeer::default()
    };
    let kind = u32::from(model::ResourceKind::ClusterPeer.number());
    let key = proto::Key { kind, namespace: String::new(), name: peer.into() };
    let resource = proto::Resource {
        key: Some(key),
        schema: wire::resource::SCHEMA_VERSION,
        spec: Some(proto::resource::Spec::ClusterPeer(spec)),
    };
    decode_resource(resource).unwrap().unwrap()
}
