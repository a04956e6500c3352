//! Nodes with real gateways between them: every path that a call can take, and what cuts it.

mod fallback;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use gateway::config::{FederationLink, GatewayConfig, HostPort, TcpLink};
use identity::{Ca, ClientCertificate, FederationKey, Inviter, OwnPeer, SvidStore};
use model::spiffe::Part;
use model::{ClusterPeer, ObjectName, Resource, ResourceSet, SpiffeId, Transport as PeerTransport};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tonic::{Request, Response, Status};
use wire::bundle::format_bundle;
use wire::resource::proto::enrolment_service_server::{EnrolmentService, EnrolmentServiceServer};
use wire::resource::proto::resource_service_server::ResourceServiceServer;
use wire::resource::proto::{EnrolRequest as EnrolMessage, EnrolResponse as EnrolAnswer};
use wire::resource::{EnrolRequest, EnrolResponse, HeardFromPeer, StoreNews};
use wire::store::proto::raft_service_client::RaftServiceClient;
use wire::store::proto::raft_service_server::{RaftService, RaftServiceServer};
use wire::store::proto::{RaftReply, RaftRequest};

use super::*;
use crate::gateways::Gateways;
use crate::limits::SVID_LIFETIME;
use crate::peer::{AllowedUsers, own_uid};
use crate::revisions::Revisions;
use crate::store::{CallError, Peers, RpcKind};
use crate::stream::ResourceStreams;
use crate::svid::OwnSvid;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster: what a node has of resources and enrolment, its transport, and a gateway.
struct Site {
    name: ClusterName,
    id: ClusterId,
    ca: Arc<Ca>,
    node_id: SpiffeId,
    transport: Transport,
    revisions: Arc<Revisions>,
    news: watch::Sender<Arc<StoreNews>>,
    heard: mpsc::Receiver<HeardFromPeer>,
    config: GatewayConfig,
    gateway: Option<gateway::app::App>,
    stop: CancellationToken,
    tasks: TaskTracker,
    _folder: TempDir,
}

/// Answers with who asked and what.
struct Echo;

#[tonic::async_trait]
impl RaftService for Echo {
    async fn call(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        let peer = request.extensions().get::<PeerInfo>().cloned();
        let who = match peer.ok_or_else(|| Status::internal("nobody"))? {
            PeerInfo::Federation(peer) => format!("{} {}", peer.cluster, peer.spiffe_id),
            PeerInfo::Joiner(joiner) => {
                format!("joiner {:?} {:?}", joiner.public_key_der, joiner.exporter)
            }
        };
        let said = String::from_utf8_lossy(&request.get_ref().body).into_owned();
        Ok(Response::new(RaftReply { body: format!("{who}: {said}").into() }))
    }
}

/// Enrols everybody: only the test's own gateway asks.
struct Enrolment {
    ca: Arc<Ca>,
    cluster_id: ClusterId,
}

#[tonic::async_trait]
impl EnrolmentService for Enrolment {
    async fn enrol(&self, request: Request<EnrolMessage>) -> Result<Response<EnrolAnswer>, Status> {
        let request = EnrolRequest::decode(request.into_inner()).unwrap();
        let id = SpiffeId::of_part(self.ca.trust_domain(), Part::Gateway, &request.gateway);
        let hour = Duration::from_secs(3600);
        let chain = self.ca.issue(&request.csr_der, &id, hour, SystemTime::now()).unwrap();
        let chain_der = chain.iter().map(|certificate| certificate.to_vec()).collect();
        let (bundle, cluster_id) = (self.ca.bundle(), self.cluster_id);
        Ok(Response::new(EnrolResponse { chain_der, bundle, cluster_id }.encode()))
    }
}

/// How a gateway and its node meet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Sockets,
    /// As from one pod to another.
    Ports,
}

impl Site {
    async fn start(name: &str) -> Self {
        Self::start_by(Way::Sockets, name).await
    }

    async fn start_by(way: Way, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let domain = TrustDomain::parse(&format!("{name}.fed")).unwrap();
        let cluster = ClusterName::parse(name).unwrap();
        let now = SystemTime::now();
        let ca = Arc::new(Ca::load_or_create(&folder.path().join("ca"), &domain, now).unwrap());
        let node = ObjectName::parse("node-0").unwrap();
        let node_id = SpiffeId::of_part(&domain, Part::Federation, &node);
        let store = SvidStore::open(&folder.path().join("svid")).unwrap();
        let svid =
            OwnSvid::load_or_issue(node_id.clone(), ca.clone(), store, SVID_LIFETIME, now).unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (revisions, gateways) = (Arc::new(Revisions::new(1)), Gateways::default());
        let id = ClusterId::of_key(name.as_bytes());
        let news = watch::Sender::new(Arc::new(StoreNews {
            revoked_svids: Vec::new(),
            cluster_id: id,
            heads: vec![],
            revocations: vec![],
            revoked_domains: BTreeSet::new(),
        }));
        let uids = BTreeSet::from([own_uid().unwrap()]);
        let users = AllowedUsers::new(uids.clone(), code::ENROLMENT_REFUSED, "");
        let (heard_sender, heard) = mpsc::channel(16);
        let streams = ResourceStreams {
            cluster: cluster.clone(),
            trust_domain: domain.clone(),
            users: Arc::new(users.clone()),
            revisions: revisions.clone(),
            gateways: gateways.clone(),
            news: news.subscribe(),
            renew: watch::Sender::default().subscribe(),
            heard: heard_sender,
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        let enrolment = Enrolment { ca: ca.clone(), cluster_id: id };
        let resource_socket = folder.path().join("run/resource.sock");
        let socket = crate::socket::bind("", &resource_socket, 0o600).unwrap();
        let (file, connections) = socket.into_incoming(users);
        let mut services = tonic::service::RoutesBuilder::default();
        services.add_service(EnrolmentServiceServer::new(enrolment));
        services.add_service(ResourceServiceServer::new(streams));
        let services = services.routes();
        let port = serve_port(&ca, &svid, services.clone(), &stop, &tasks);
        let services = Server::builder()
            .add_routes(services)
            .serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned());
        tasks.spawn(async move {
            let _file = file;
            services.await.unwrap();
        });
        let relay_socket = resource_socket.with_file_name("relay.sock");
        let config = TransportConfig {
            cluster: cluster.clone(),
            relay_socket: relay_socket.clone(),
            uids,
            relay_listen: (way == Way::Ports).then_some(LOOPBACK),
            ca: CertificateDer::from(ca.bundle().x509_authorities[0].clone()),
            own_bundle: ca.bundle(),
            dial_from: None,
        };
        let doors = RelayDoors::of(gateways);
        let (transport, incoming) =
            Transport::start(config, svid.identity(), doors, stop.clone(), &tasks).unwrap();
        for streams in [incoming.store, incoming.join] {
            let served = server()
                .add_service(RaftServiceServer::new(Echo))
                .serve_with_incoming_shutdown(streams, stop.clone().cancelled_owned());
            tasks.spawn(async move { served.await.unwrap() });
        }
        let config = GatewayConfig {
            name: ObjectName::parse("gw-0").unwrap(),
            cluster: cluster.clone(),
            trust_domain: domain,
            data_dir: folder.path().join("gw"),
            tunnel_listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
            routes_listen: Ipv4Addr::LOCALHOST.into(),
            federation: match transport.relay_addr() {
                None => FederationLink::Sockets { resource: resource_socket, relay: relay_socket },
                Some(relay) => FederationLink::Tcp(TcpLink {
                    address: HostPort::parse(&port.to_string()).unwrap(),
                    relay: HostPort::parse(&relay.to_string()).unwrap(),
                    bundle: file_of(&folder, "bundle.json", &format_bundle(&ca.bundle()).unwrap()),
                    token: file_of(&folder, "token", "of a pod"),
                }),
            },
            relay_listen: (way == Way::Ports).then_some(LOOPBACK),
            pod_ip: None,
            admin_listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
            health_listen: None,
            workers: 1,
            drain_accept: gateway::limits::DRAIN_ACCEPT_GRACE,
            access_log: folder.path().join("access.log"),
            log_level: None,
        };
        let mut site = Self {
            name: cluster,
            id,
            ca,
            node_id,
            transport,
            revisions,
            news,
            heard,
            config,
            gateway: None,
            stop,
            tasks,
            _folder: folder,
        };
        site.know(&[]);
        site.start_gateway().await;
        site
    }

    async fn start_gateway(&mut self) {
        let app = gateway::app::build(self.config.clone()).unwrap();
        tokio::time::timeout(PATIENCE, app.ready()).await.expect("the gateway gets ready");
        // A later start is to have the same port.
        self.config.tunnel_listen = app.tunnel_addr().unwrap();
        self.gateway = Some(app);
    }

    async fn stop_gateway(&mut self) {
        self.gateway.take().unwrap().stop_now().await;
    }

    fn address(&self) -> PeerAddress {
        let SocketAddr::V4(at) = self.config.tunnel_listen else { panic!("IPv4 was asked for") };
        PeerAddress { transport: PeerTransport::Quic, host: at.ip().to_string(), port: at.port() }
    }

    /// Makes these the peers of the gateway: it dials nobody.
    fn know(&self, others: &[&Self]) {
        let peer = |other: &&Self| {
            Resource::ClusterPeer(ClusterPeer {
                name: other.name.clone(),
                addresses: vec![],
                trust_bundles: vec![other.ca.bundle()],
                cordoned: false,
                revoked_svids: Vec::new(),
            })
        };
        let mut resources = ResourceSet::default();
        others.iter().map(peer).for_each(|peer| resources.upsert(peer));
        self.revisions.publish(&resources);
    }

    fn as_peer(&self, addresses: Vec<PeerAddress>, hold: bool) -> TransportPeer {
        let (name, id) = (self.name.clone(), self.id);
        let (bundles, revoked_svids) = (vec![self.ca.bundle()], Vec::new());
        TransportPeer { name, id, addresses, bundles, revoked_svids, hold }
    }

    fn speak_with(&self, peers: Vec<TransportPeer>) {
        self.transport.set_peers(peers, BTreeSet::new());
    }

    async fn ask(&self, other: &Self, text: &str) -> Result<String, Status> {
        let channel = self.transport.channel(&other.name).expect("a peer");
        ask_over(channel, text).await
    }

    /// Until it works: gateways learn of peers a moment later.
    async fn reaches(&self, other: &Self) {
        let wanted = format!("{} {}: hello", self.name, self.node_id);
        until("an answer", async || {
            self.ask(other, "hello").await.is_ok_and(|answer| answer == wanted)
        })
        .await;
    }

    fn state_of(&self, other: &Self) -> PathState {
        let paths = self.transport.paths();
        paths.into_iter().find(|path| path.cluster == other.name).unwrap().state
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
    }
}

async fn ask_over(channel: Channel, text: &str) -> Result<String, Status> {
    let request = RaftRequest { call: 1, body: text.as_bytes().to_vec().into() };
    let reply = RaftServiceClient::new(channel).call(request).await?;
    Ok(String::from_utf8(reply.into_inner().body.into()).unwrap())
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        ticks.tick().await;
    }
}

fn file_of(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// What the socket serves, at a port too.
fn serve_port(
    ca: &Ca,
    svid: &OwnSvid,
    services: tonic::service::Routes,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> SocketAddr {
    let trust = ClusterTrust::new(ca.trust_domain().clone());
    trust.replace(&ca.bundle()).unwrap();
    let server = tunnel::ClusterServer {
        identity: svid.identity(),
        trust: Arc::new(trust),
        client: ClientCertificate::Optional(OwnPeer::Any(Part::Gateway)),
        alpn: wire::grpc::ALPN,
    };
    let port = crate::port::bind("", LOOPBACK, server).unwrap();
    let address = port.local_addr().unwrap();
    let incoming = port.into_incoming(stop, tasks).unwrap();
    let serving = Server::builder()
        .add_routes(services)
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    tasks.spawn(async move { serving.await.unwrap() });
    address
}

async fn two() -> (Site, Site) {
    two_by(Way::Sockets).await
}

async fn two_by(way: Way) -> (Site, Site) {
    let (east, west) = tokio::join!(Site::start_by(way, "east"), Site::start_by(way, "west"));
    east.know(&[&west]);
    west.know(&[&east]);
    (east, west)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_call_each_other_through_their_gateways() {
    let (east, mut west) = two().await;
    assert_eq!(east.transport.channel(&west.name).unwrap_err(), UnknownPeer(west.name.clone()));
    east.speak_with(vec![west.as_peer(vec![west.address()], false)]);
    west.speak_with(vec![east.as_peer(vec![east.address()], false)]);
    assert_eq!(east.state_of(&west), PathState::Down, "nobody has called yet");
    east.reaches(&west).await;
    west.reaches(&east).await;
    assert!(matches!(east.state_of(&west), PathState::Direct { .. }));
    // Raft's own calls, by the ids of nodes.
    let peers = RaftPeers::new(east.transport.clone());
    assert_eq!(east.transport.cluster_of_node(node_id(&west.id)), Some(west.name.clone()));
    for kind in [RpcKind::Append, RpcKind::Snapshot] {
        let reply = peers.call(node_id(&west.id), kind, "vote".into(), PATIENCE).await.unwrap();
        assert!(reply.ends_with(b": vote"), "{reply:?}");
    }
    let unknown = peers.call(7, RpcKind::Vote, "".into(), PATIENCE).await.unwrap_err();
    assert_eq!(unknown.to_string(), "no connection: no member has the node id 0000000000000007");
    // West's gateway goes away: west's own connection to east's carries the calls, and when the
    // gateway is back it is dialled again.
    west.stop_gateway().await;
    east.reaches(&west).await;
    assert!(matches!(east.state_of(&west), PathState::Reverse { .. }));
    west.start_gateway().await;
    until("a dialled way", async || matches!(east.state_of(&west), PathState::Direct { .. })).await;
    east.reaches(&west).await;
    // With both gone there is no way, and a call says so in time.
    west.stop_gateway().await;
    west.speak_with(vec![]);
    let brief = Duration::from_millis(500);
    until("no way", async || {
        let down = peers.call(node_id(&west.id), RpcKind::Vote, "".into(), brief).await;
        matches!(down, Err(CallError::Unreachable(_) | CallError::Timeout(_)))
    })
    .await;
}

/// West takes no connection from outside. It holds one to east, and east's calls go back on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_be_dialled_is_called_on_the_connection_that_it_holds() {
    let (east, west) = two().await;
    let nowhere = PeerAddress { port: 9, ..west.address() };
    east.speak_with(vec![west.as_peer(vec![nowhere], false)]);
    west.speak_with(vec![east.as_peer(vec![east.address()], true)]);
    east.reaches(&west).await;
    assert!(matches!(east.state_of(&west), PathState::Reverse { .. }));
    west.reaches(&east).await;
    // Neither side is known to the other's gateway any more: the connection ends, and the way with it.
    east.know(&[]);
    until("the end", async || east.ask(&west, "hello").await.is_err()).await;
    until("the report", async || east.state_of(&west) == PathState::Down).await;
    until("a clear answer", async || {
        let error = east.ask(&west, "hello").await.unwrap_err();
        error.code() == tonic::Code::Unavailable
    })
    .await;
}

/// The same where no gateway shares a host with its node: both ways go by TCP and TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_call_each_other_through_gateways_in_other_pods() {
    let (east, mut west) = two_by(Way::Ports).await;
    let nowhere = PeerAddress { port: 9, ..west.address() };
    east.speak_with(vec![west.as_peer(vec![nowhere], false)]);
    west.speak_with(vec![east.as_peer(vec![east.address()], true)]);
    east.reaches(&west).await;
    let PathState::Reverse { door } = east.state_of(&west) else { panic!("by a door") };
    assert!(door.starts_with("gw-0 at 127.0.0.1:"), "{door}");
    west.reaches(&east).await;
    // Another pod of the same name, at another port, takes the place of the first.
    west.stop_gateway().await;
    west.config.data_dir.set_file_name("gw-again");
    west.start_gateway().await;
    east.reaches(&west).await;
    west.reaches(&east).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_member_any_more_is_cut_off_at_once() {
    let (east, west) = two().await;
    let meet = || {
        east.speak_with(vec![west.as_peer(vec![west.address()], false)]);
        west.speak_with(vec![east.as_peer(vec![east.address()], false)]);
    };
    meet();
    east.reaches(&west).await;
    west.reaches(&east).await;
    let channel = west.transport.channel(&east.name).unwrap();
    // East's gateway knows west as before; the node alone has cut it off.
    let revoked = BTreeSet::from([west.ca.trust_domain().clone()]);
    east.transport.set_peers(vec![west.as_peer(vec![west.address()], false)], revoked);
    assert!(ask_over(channel.clone(), "hello").await.is_err());
    assert!(ask_over(channel, "hello").await.is_err());
    assert!(east.transport.channel(&west.name).is_err());
    let refused = "trust domain \"west.fed\", for which there is no bundle";
    let is_refused = |refusal: &identity::Refusal| refusal.error.to_string().contains(refused);
    until("a refused handshake", async || {
        let _ = west.ask(&east, "hello").await;
        east.transport.0.identity.refusals().iter().any(is_refused)
    })
    .await;
    meet();
    west.reaches(&east).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_tries_every_address_and_hears_how_each_went() {
    let west = Site::start("west").await;
    let certificate = FederationKey::from_seed(&[3; 32]).self_signed().unwrap();
    let ca_pin = Inviter::pin_of(&west.ca.bundle().x509_authorities[0]);
    let inviter = Inviter { ca_pin, id: west.node_id.clone() };
    let nowhere = PeerAddress { host: "127.0.0.1".into(), port: 9, ..west.address() };
    let unnamed = PeerAddress { host: "nobody.invalid".into(), ..west.address() };
    let addresses = vec![nowhere.clone(), unnamed.clone(), west.address()];
    let target = JoinTarget { addresses, inviter: inviter.clone() };
    let JoinDial { attempts, connection } = join_dial(&target, &certificate, None).await;
    let [(_, first), (_, second), (third, Ok(PeerTransport::Quic))] = &attempts[..] else {
        panic!("{attempts:?}")
    };
    assert_eq!(*third, west.address());
    let text = first.as_ref().unwrap_err();
    assert!(text.contains("127.0.0.1:9: "), "{text}");
    let text = second.as_ref().unwrap_err();
    assert!(text.contains("host \"nobody.invalid\" could not be looked up"), "{text}");
    let connection = connection.unwrap();
    assert_eq!(connection.address, west.address());
    let answer = ask_over(connection.channel, "let me in").await.unwrap();
    let key = FederationKey::from_seed(&[3; 32]).public().spki().to_vec();
    assert_eq!(answer, format!("joiner {key:?} {:?}: let me in", connection.exporter));

    // The same addresses, but whoever answers is not the one that the token names.
    let other = Inviter { ca_pin: [9; 32], ..inviter.clone() };
    let id = SpiffeId::parse("spiffe://west.fed/fedgate/federation/other").unwrap();
    let wrong = [
        (other, "and none is the CA that the token pins"),
        (
            Inviter { id, ..inviter },
            "but the token names spiffe://west.fed/fedgate/federation/other",
        ),
    ];
    for (inviter, text) in wrong {
        let target = JoinTarget { addresses: vec![west.address()], inviter };
        let JoinDial { attempts, connection } = join_dial(&target, &certificate, None).await;
        assert!(connection.is_none());
        let error = attempts[0].1.as_ref().unwrap_err();
        assert!(error.contains(text), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_of_the_store_travel_through_the_gateways() {
    let (east, mut west) = two().await;
    // Tunnels carry them, so one side dials.
    let mut resources = ResourceSet::default();
    resources.upsert(Resource::ClusterPeer(ClusterPeer {
        name: west.name.clone(),
        addresses: vec![west.address()],
        trust_bundles: vec![west.ca.bundle()],
        cordoned: false,
        revoked_svids: Vec::new(),
    }));
    east.revisions.publish(&resources);
    let head = bytes::Bytes::from_static(b"a signed Head of east's");
    east.news.send_modify(|news| {
        let heads = vec![head.clone()];
        *news = Arc::new(StoreNews { heads, ..StoreNews::clone(news) });
    });
    let heard = tokio::time::timeout(PATIENCE, west.heard.recv()).await.unwrap().unwrap();
    assert_eq!((heard.cluster, heard.heads), (east.name.clone(), vec![head]));
    assert_eq!(west.gateway.as_ref().unwrap().state().cluster_id.load().as_deref(), Some(&west.id));
}
