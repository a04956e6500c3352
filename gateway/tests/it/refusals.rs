//! What a destination refuses from a peer that does not behave: a tunnel of the test's own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{Identity, IdentityCell, SvidKeyPair};
use model::spiffe::Part;
use model::{AppProtocol, ClusterId, ClusterPeer, RequestId, Resource, Revision, SpiffeId};
use tunnel::{Tunnel, TunnelConfig, WorkerTunnel};
use wire::tunnel::{ErrorCode, Head, Open, RequestHead, RouteRevision, RouteSide, StreamKind, Via};

use crate::node::{Node, cluster_id};
use crate::origin::Origin;
use crate::site::Site;
use crate::{eventually, objects};

/// A gateway of cluster `east` that says whatever the test wants.
struct Stranger {
    tunnel: Tunnel,
    worker: WorkerTunnel,
    id: SpiffeId,
    node: Node,
    _incoming: tunnel::Incoming,
    _folder: tempfile::TempDir,
}

impl Stranger {
    fn new(west: &Site) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::new(folder.path(), "east.test");
        let ca = node.ca();
        let id = SpiffeId::of_part(ca.trust_domain(), Part::Gateway, &objects::object("stranger"));
        let keys = SvidKeyPair::generate().unwrap();
        let csr = keys.csr_der(&id).unwrap();
        let lifetime = Duration::from_secs(3_600);
        let chain = ca.issue(&csr, &id, lifetime, SystemTime::now()).unwrap();
        let svid = keys.into_svid(chain).unwrap();
        let mut identity = Identity { svid: Some(Arc::new(svid)), ..Identity::default() };
        for (name, bundle) in [("east", node.bundle()), ("west", west.node.bundle())] {
            identity.owners.claim(bundle.trust_domain.clone(), objects::cluster(name)).unwrap();
            identity.bundles.insert(bundle).unwrap();
        }
        let cell = Arc::new(IdentityCell::new(identity));
        let config = TunnelConfig::new("127.0.0.1:0".parse().unwrap(), 1, [1; 64], 7);
        let (tunnel, mut workers) = Tunnel::bind(config, cell).unwrap();
        let (worker, incoming) = workers.remove(0).start().unwrap();
        Self { tunnel, worker, id, node, _incoming: incoming, _folder: folder }
    }

    /// Connects to west, which knows it as east.
    async fn connect(&self, west: &Site) {
        let peer = objects::peer("east", self.tunnel.local_addr(), self.node.bundle());
        west.change(|node| node.put([peer])).await;
        let Resource::ClusterPeer(peer) = west.as_peer() else { unreachable!() };
        self.tunnel.set_peers(vec![Arc::new(ClusterPeer { ..peer })]);
        let cluster = objects::cluster("west");
        eventually("live tunnel", async || self.tunnel.path(&cluster)).await;
    }

    fn open(&self) -> Open {
        Open {
            kind: StreamKind::Http,
            service: objects::service_name("api"),
            port: 80,
            source: self.id.clone(),
            unattested: true,
            trace: None,
            deadline_ms: None,
            request_id: RequestId::from_bytes([4; 16]),
            attempt: 1,
            retries_left: 0,
            via: Via::new(cluster_id(&self.node.bundle())),
            route: None,
        }
    }

    /// How west answers.
    async fn ask(&self, open: &Open) -> Option<ErrorCode> {
        let cluster = objects::cluster("west");
        let mut stream = self.worker.open(&cluster, open).await.unwrap();
        match stream.recv.opened().await.unwrap() {
            Ok(()) => None,
            Err(refused) => {
                assert_eq!(refused.dispatched, wire::tunnel::Dispatched::No);
                Some(refused.code)
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peers_claims_do_not_reach_the_application() {
    let origin = Origin::start("west").await;
    let mut exported = objects::service("api", AppProtocol::Http, &[origin.address]);
    exported.extend([objects::export("api"), objects::allow_cluster("api", "east")]);
    let west = Site::ready("west", exported).await;
    let stranger = Stranger::new(&west);
    stranger.connect(&west).await;
    let cluster = objects::cluster("west");
    let mut stream = stranger.worker.open(&cluster, &stranger.open()).await.unwrap();
    let mut headers = http::HeaderMap::new();
    for (name, value) in [("x-fed-claim", "admin"), ("x-fed-hops", "3"), ("te", "trailers")] {
        headers.insert(name, value.parse().unwrap());
    }
    let (method, uri) = (http::Method::GET, "http://api.test/".parse().unwrap());
    let head = RequestHead { method, uri, protocol: None, headers };
    stream.send.request_head(&head).await.unwrap();
    stream.send.end().await.unwrap();
    stream.recv.opened().await.unwrap().unwrap();
    let tunnel::Part::Head(head) = stream.recv.next().await.unwrap() else { panic!("no head") };
    let Head::Response(answer) = *head else { panic!("no response") };
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["x-saw-te"], "trailers");
    assert_eq!(answer.headers["x-saw-x-fed-hops"], "3");
    assert!(!answer.headers.contains_key("x-saw-x-fed-claim"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identity_loops_and_revisions_are_checked_before_anything_else() {
    let origin = Origin::start("west").await;
    let mut exported = objects::service("api", AppProtocol::Http, &[origin.address]);
    exported.extend([objects::export("api"), objects::allow_cluster("api", "east")]);
    let west = Site::ready("west", exported).await;
    let stranger = Stranger::new(&west);
    stranger.connect(&west).await;
    let good = || stranger.open();
    assert_eq!(stranger.ask(&good()).await, None);

    let id = |text: &str| SpiffeId::parse(text).unwrap();
    let own_cluster = cluster_id(&west.node.bundle());
    let loops = Via::new(own_cluster).with(ClusterId::from_bytes([5; 16])).unwrap();
    let newer = Revision { epoch: 99, index: 0 };
    let (producer, consumer) = (RouteSide::Producer, RouteSide::Consumer);
    let table = [
        (
            Open { source: id("spiffe://east.test/fedgate/gateway/x"), ..good() },
            ErrorCode::BadIdentity,
        ),
        (
            Open { source: id("spiffe://west.test/ns/a/sa/b"), unattested: false, ..good() },
            ErrorCode::BadIdentity,
        ),
        (
            Open { source: id("spiffe://other.test/ns/a/sa/b"), unattested: false, ..good() },
            ErrorCode::BadIdentity,
        ),
        (Open { unattested: false, ..good() }, ErrorCode::BadIdentity),
        (Open { via: loops, ..good() }, ErrorCode::RefusedLoop),
        (Open { port: 81, ..good() }, ErrorCode::NotExported),
        (Open { service: objects::service_name("none"), ..good() }, ErrorCode::NotExported),
        (Open { kind: StreamKind::Udp, ..good() }, ErrorCode::UnsupportedKind),
        (
            Open { route: Some(RouteRevision { side: producer, revision: newer }), ..good() },
            ErrorCode::NotYet,
        ),
    ];
    for (open, code) in &table {
        assert_eq!(stranger.ask(open).await, Some(*code), "{open:?}");
    }
    let consumer = RouteRevision { side: consumer, revision: newer };
    assert_eq!(stranger.ask(&Open { route: Some(consumer), ..good() }).await, None);
    let workload = Open { source: id("spiffe://east.test/ns/a/sa/b"), unattested: false, ..good() };
    assert_eq!(stranger.ask(&workload).await, None);
    assert_eq!(origin.requests(), 0);

    // After two seconds of "not yet" it serves with what it has.
    let open = &table.last().unwrap().0;
    eventually("service", async || stranger.ask(open).await.is_none().then_some(())).await;
    let records = west.log();
    // The tunnel refuses foreign identities itself; the gateway, one that is reserved for us.
    assert!(records.iter().any(|record| record["fed_code"] == "FED3003"), "{records:#?}");
}
