//! Store and join streams: a peer's reach the node's relay socket, the node's own reach a peer's
//! node, and whoever may not is kept out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use gateway::config::FederationLink;
use identity::{FederationKey, Identity, IdentityCell, SvidKeyPair};
use model::spiffe::Part;
use model::{ClusterId, PeerAddress, SpiffeId, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tunnel::{NodeEndpoint, RelayConnection};
use wire::relay::{
    HEADER_BYTES, Preamble, RelayProtocol, StreamAnswer, StreamRequest, body_length,
};
use wire::resource::StoreNews;

use crate::node::Node;
use crate::site::Site;
use crate::{PATIENCE, eventually, objects};

/// Someone of cluster `east`, which west knows as a peer.
struct East {
    node: Node,
    _folder: tempfile::TempDir,
}

impl East {
    async fn known_to(west: &Site) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::new(folder.path(), "east.test");
        let nowhere = "127.0.0.1:9".parse().unwrap();
        let peer = objects::peer("east", nowhere, node.bundle());
        west.change(|node| node.put([peer])).await;
        Self { node, _folder: folder }
    }

    fn id(&self, part: Part) -> SpiffeId {
        SpiffeId::of_part(self.node.ca().trust_domain(), part, &objects::object("node-0"))
    }

    /// Dials with an SVID of this kind.
    async fn dial(&self, west: &Site, part: Part) -> RelayConnection {
        let (ca, id) = (self.node.ca(), self.id(part));
        let keys = SvidKeyPair::generate().unwrap();
        let csr = keys.csr_der(&id).unwrap();
        let lifetime = Duration::from_secs(3_600);
        let chain = ca.issue(&csr, &id, lifetime, SystemTime::now()).unwrap();
        let svid = keys.into_svid(chain).unwrap();
        let mut identity = Identity { svid: Some(Arc::new(svid)), ..Identity::default() };
        for (name, bundle) in [("east", self.node.bundle()), ("west", west.node.bundle())] {
            identity.owners.claim(bundle.trust_domain.clone(), objects::cluster(name)).unwrap();
            identity.bundles.insert(bundle).unwrap();
        }
        let endpoint = NodeEndpoint::new(Arc::new(IdentityCell::new(identity)));
        endpoint.dial_store(&objects::cluster("west"), &address(west)).await.unwrap()
    }
}

fn address(site: &Site) -> PeerAddress {
    let addr = site.tunnel();
    PeerAddress { transport: Transport::Quic, host: addr.ip().to_string(), port: addr.port() }
}

fn relay_socket(site: &Site) -> UnixListener {
    let FederationLink::Sockets { relay, .. } = &site.config().federation else { panic!() };
    let _ = std::fs::remove_file(relay);
    UnixListener::bind(relay).unwrap()
}

async fn read_message(stream: &mut UnixStream) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await.unwrap();
    let mut body = vec![0; body_length(header).unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    body
}

async fn accept(listener: &UnixListener) -> (UnixStream, Preamble) {
    let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let preamble = Preamble::decode(&read_message(&mut stream).await).unwrap();
    (stream, preamble)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peers_store_stream_reaches_the_node_with_its_preamble() {
    let west = Site::ready("west", []).await;
    let east = East::known_to(&west).await;
    let listener = relay_socket(&west);
    let connection = east.dial(&west, Part::Federation).await;
    // More than any buffer or window on the way.
    let question: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let stream = connection.open().await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let sent = question.clone();
    let sending = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let (mut node, preamble) = accept(&listener).await;
    assert_eq!(preamble.protocol, RelayProtocol::Store);
    assert_eq!(preamble.peer, Some((objects::cluster("east"), east.id(Part::Federation))));
    assert!(preamble.remote.ip().is_loopback());
    let mut got = Vec::new();
    node.read_to_end(&mut got).await.unwrap();
    assert!(got == question, "{} bytes came of {}", got.len(), question.len());
    sending.await.unwrap();
    node.write_all(b"answer").await.unwrap();
    drop(node);
    let mut answer = String::new();
    read.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");

    // A node that is away costs the stream, not the connection.
    drop(listener);
    let mut stream = connection.open().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert!(stream.read_u8().await.is_err());
    assert!(connection.is_live());
}

/// With the check of `tunnel::admit` for the kind of SVID taken out, this connection was seen to stay
/// open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_gateway_key_reaches_no_store() {
    let west = Site::ready("west", []).await;
    let east = East::known_to(&west).await;
    let listener = relay_socket(&west);
    let connection = east.dial(&west, Part::Gateway).await;
    if let Ok(mut stream) = connection.open().await {
        let _ = stream.write_all(b"vote for me").await;
    }
    let reason = timeout(PATIENCE, connection.closed()).await.unwrap();
    assert!(reason.contains("is not a federation"), "{reason}");
    // Nothing is on its way: an honest stream that comes later is the first to arrive.
    let honest = east.dial(&west, Part::Federation).await;
    let mut stream = honest.open().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let (_, preamble) = accept(&listener).await;
    assert_eq!(preamble.peer.unwrap().1, east.id(Part::Federation));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiners_stream_says_that_nobody_is_known() {
    let west = Site::ready("west", []).await;
    let listener = relay_socket(&west);
    let certificate = FederationKey::from_seed(&[5; 32]).self_signed().unwrap();
    let endpoint = NodeEndpoint::new(Arc::default());
    let connection = endpoint.dial_join(&certificate, &address(&west)).await.unwrap();
    let mut stream = connection.open().await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let (mut node, preamble) = accept(&listener).await;
    assert_eq!((preamble.protocol, preamble.peer), (RelayProtocol::Join, None));
    let mut hello = [0; 5];
    node.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    let held = &west.app().state().held;
    assert!(held.clusters().is_empty(), "nobody can ask for a stream to a joiner");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_gets_streams_on_connections_that_the_gateway_holds() {
    let west = Site::ready("west", []).await;
    let east = East::known_to(&west).await;
    let socket = west.node.seen().subscribes[0].relay_socket.clone().unwrap();
    let ask = async |message: Vec<u8>| {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(&message).await.unwrap();
        let answer = StreamAnswer::decode(&read_message(&mut stream).await).unwrap();
        (stream, answer)
    };
    let request = StreamRequest { cluster: objects::cluster("east") }.encode();
    let refused = "the node of cluster \"east\" has no store connection here now";
    assert_eq!(ask(request.clone()).await.1, StreamAnswer::Refused(refused.into()));
    let malformed = "relay header.magic = \"GET \": begin with FGR1";
    assert_eq!(ask(b"GET / HTTP".to_vec()).await.1, StreamAnswer::Refused(malformed.into()));

    let connection = east.dial(&west, Part::Federation).await;
    let reported = || west.node.seen().report.map(|report| report.store_connections);
    let east_alone = vec![objects::cluster("east")];
    eventually("report", async || (reported() == Some(east_alone.clone())).then_some(())).await;
    let (mut stream, answer) = ask(request.clone()).await;
    assert_eq!(answer, StreamAnswer::Open);
    stream.write_all(b"ping").await.unwrap();
    let mut arrived = timeout(PATIENCE, connection.accept()).await.unwrap().unwrap();
    let mut ping = [0; 4];
    arrived.read_exact(&mut ping).await.unwrap();
    assert_eq!(&ping, b"ping");
    arrived.write_all(b"pong").await.unwrap();
    stream.read_exact(&mut ping).await.unwrap();
    assert_eq!(&ping, b"pong");
    connection.close(wire::tunnel::ErrorCode::NoError, "");
    eventually("report", async || (reported() == Some(vec![])).then_some(())).await;
    assert!(matches!(ask(request).await.1, StreamAnswer::Refused(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_of_the_node_hold_at_once() {
    let west = Site::ready("west", []).await;
    let east = East::known_to(&west).await;
    let connection = east.dial(&west, Part::Federation).await;
    let held = &west.app().state().held;
    eventually("connection", async || held.of(&objects::cluster("east"))).await;
    let news = StoreNews {
        cluster_id: ClusterId::from_bytes([7; 16]),
        heads: vec![Bytes::from_static(b"a Head")],
        revocations: vec![],
        revoked_domains: BTreeSet::from([east.node.ca().trust_domain().clone()]),
        revoked_svids: vec![],
    };
    west.node.tell(news);
    let reason = timeout(PATIENCE, connection.closed()).await.unwrap();
    assert!(reason.contains("was revoked in this federation"), "{reason}");
    let id = west.app().state().cluster_id.load();
    assert_eq!(id.as_deref(), Some(&ClusterId::from_bytes([7; 16])));
}
