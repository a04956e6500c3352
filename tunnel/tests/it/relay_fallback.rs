//! Store and join connections where UDP does not pass.

use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::{ExpectedPeer, client_config, join_client_config};
use model::{PeerAddress, Transport};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tunnel::{NodeEndpoint, Protocol, RelayConnection, RelayIncoming};
use wan::{Impairment, LinkConfig, RelayConfig, UdpRelay};
use wire::tunnel::{ALPN_STORE, ALPN_TUNNEL, ErrorCode};

use crate::admission::{cell_of, host};
use crate::fallback::forward;
use crate::relay::{joiner, joiner_is_bounded};
use crate::site::{Cluster, LONG, Site, trust, wait_for};

const NODE: &str = "/fedgate/federation/node-0";

/// West's gateway, at an address that UDP may not reach.
struct Way {
    east: Arc<Cluster>,
    west: Site,
    incoming: RelayIncoming,
    relay: UdpRelay,
    address: PeerAddress,
    forward: AbortHandle,
}

impl Way {
    async fn without_udp() -> Self {
        let (east, west) = host();
        let incoming = west.tunnel.take_relayed().unwrap();
        loop {
            let links = vec![
                LinkConfig::new("east", "west").target(west.addr()).impaired(Impairment::default()),
            ];
            let relay = UdpRelay::spawn_thread(RelayConfig { links, seed: 1 }).unwrap();
            let at = relay.addr("east", "west").unwrap();
            // Another process may have the TCP port of a number that is free for UDP.
            let Ok(listener) = TcpListener::bind(at).await else { continue };
            relay.cut("west").unwrap();
            let (host, transport) = (at.ip().to_string(), Transport::Quic);
            let address = PeerAddress { transport, host, port: at.port() };
            let forward = forward(listener, west.addr());
            return Self { east, west, incoming, relay, address, forward };
        }
    }

    fn node(&self) -> NodeEndpoint {
        NodeEndpoint::new(cell_of(&self.east, NODE, &self.west))
    }

    /// Both ends of a store connection.
    async fn connected(&mut self, node: &NodeEndpoint) -> (RelayConnection, RelayConnection) {
        let dialled = node.dial_store(&self.west.cluster.name, &self.address).await.unwrap();
        (dialled, self.incoming.next().await.unwrap())
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.forward.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_side_of_a_store_connection_opens_streams_over_tcp() {
    let mut way = Way::without_udp().await;
    let begun = Instant::now();
    let node = way.node();
    let (dialled, gateway) = way.connected(&node).await;
    println!("a store connection over TCP after {:?}", begun.elapsed());
    for end in [&dialled, &gateway] {
        assert_eq!((end.protocol(), end.transport()), (Protocol::Store, Transport::Tcp));
    }
    assert_eq!(gateway.cluster(), Some(&way.east.name));
    let id = format!("spiffe://east.fed{NODE}");
    assert_eq!(gateway.peer().unwrap().spiffe_id.as_str(), id);
    assert_eq!(dialled.cluster(), Some(&way.west.cluster.name));
    // More than any window, both ways at once.
    let sent: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    for (opener, acceptor) in [(&dialled, &gateway), (&gateway, &dialled)] {
        let mut stream = opener.open().await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let accepted = acceptor.accept().await.unwrap();
        let exchange = async |stream: tunnel::RelayStream, expected: &[u8]| {
            let (mut read, mut write) = tokio::io::split(stream);
            let writing = async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut got = Vec::new();
            let (read, ()) = tokio::join!(read.read_to_end(&mut got), writing);
            read.unwrap();
            assert!(got == [expected, &sent].concat(), "{} bytes came", got.len());
        };
        tokio::join!(exchange(stream, b""), exchange(accepted, b"ping"));
    }
    dialled.close(ErrorCode::NoError, "done");
    let reason = gateway.closed().await;
    assert!(reason.contains("done"), "{reason}");
    assert!(gateway.accept().await.is_none() && gateway.open().await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relayed_stream_over_tcp_ends_as_it_does_over_quic() {
    let mut way = Way::without_udp().await;
    let node = way.node();
    let (dialled, gateway) = way.connected(&node).await;
    let open = async |from: &RelayConnection, to: &RelayConnection| {
        let mut stream = from.open().await.unwrap();
        stream.write_all(b"x").await.unwrap();
        let mut accepted = to.accept().await.unwrap();
        assert_eq!(accepted.read_u8().await.unwrap(), b'x');
        (stream, accepted)
    };
    for (from, to) in [(&dialled, &gateway), (&gateway, &dialled)] {
        // Dropped: all that was written arrives, and then its end.
        let (mut stream, mut accepted) = open(from, to).await;
        stream.write_all(b"the last words").await.unwrap();
        drop(stream);
        let mut text = String::new();
        accepted.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "the last words");
        // Given up: no clean end.
        let (mut stream, accepted) = open(from, to).await;
        accepted.abort(ErrorCode::Overloaded);
        assert!(stream.read_u8().await.is_err());
        let stopped = async { while stream.write_all(b"more").await.is_ok() {} };
        timeout(LONG, stopped).await.expect("the writer is told");
    }
    // A stream keeps its connection; nothing else does here.
    let (mut stream, accepted) = open(&dialled, &gateway).await;
    drop(dialled);
    stream.write_all(b"y").await.unwrap();
    drop(stream);
    gateway.closed().await;
    drop(accepted);
}

/// A gateway tells why it lets a node go, and lets nobody in whom it would not let in over QUIC.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admission_over_tcp_is_that_of_quic() {
    let mut way = Way::without_udp().await;
    for path in ["/fedgate/gateway/gw-0", "/ns/shop/sa/web"] {
        let node = NodeEndpoint::new(cell_of(&way.east, path, &way.west));
        let dialled = node.dial_store(&way.west.cluster.name, &way.address).await.unwrap();
        let reason = dialled.closed().await;
        let text = format!("spiffe://east.fed{path} is not a federation: only spiffe://");
        assert!(reason.contains(&text), "{reason}");
    }
    // Whoever is no peer, and whoever is none any more.
    let node = way.node();
    let (dialled, _) = way.connected(&node).await;
    way.west.tunnel.set_peers(vec![]);
    let reason = dialled.closed().await;
    assert!(reason.contains("no peer any more"), "{reason}");
    let refused = node.dial_store(&way.west.cluster.name, &way.address).await.unwrap();
    assert!(refused.closed().await.contains("the cluster is not a peer here"));
    way.west.tunnel.set_peers(vec![way.east.peer(&[])]);
    let (dialled, _) = way.connected(&node).await;
    let (bundles, owners) = trust(&[&way.west.cluster]);
    way.west.cell.replace_trust(bundles, owners);
    way.west.tunnel.judge_again();
    let reason = dialled.closed().await;
    assert!(reason.contains("is not trusted any more"), "{reason}");
    // Not even the handshake; both ways are told.
    let other = Cluster::new("west");
    let cell = cell_of(&way.east, NODE, &way.west);
    let (bundles, owners) = trust(&[&way.east, &other]);
    cell.replace_trust(bundles, owners);
    let error = NodeEndpoint::new(cell).dial_store(&other.name, &way.address).await.unwrap_err();
    assert_eq!(error.code(), model::code::PEER_IDENTITY_REFUSED, "{error}");
    assert!(error.text.contains("; over TCP: "), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joiners_over_tcp_are_bounded() {
    let mut way = Way::without_udp().await;
    let dialler = NodeEndpoint::new(Arc::default());
    let mut ours = Vec::new();
    for seed in 0..4 {
        ours.push(dialler.dial_join(&joiner(seed), &way.address).await.unwrap());
        let accepted = way.incoming.next().await.unwrap();
        assert_eq!((accepted.protocol(), accepted.peer()), (Protocol::Join, None));
        if seed == 0 {
            joiner_is_bounded(&ours[0], &accepted).await;
        }
    }
    let fifth = dialler.dial_join(&joiner(9), &way.address).await.unwrap();
    let reason = fifth.closed().await;
    assert!(reason.contains("too many join connections are open here"), "{reason}");
}

/// The control stream is part of the handshake, and of its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_begins_over_tcp_and_says_nothing_is_hung_up_on() {
    let mut way = Way::without_udp().await;
    let cell = cell_of(&way.east, NODE, &way.west);
    let expected = ExpectedPeer::Cluster(way.west.cluster.name.clone());
    let tls = client_config(cell, expected, ALPN_STORE);
    let stream = secured(&way, tls).await;
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    let ended = timeout(Duration::from_secs(10), connection).await;
    assert!(ended.is_ok(), "it is still there");
    drop(requests);
    assert!(futures_util::poll!(std::pin::pin!(way.incoming.next())).is_pending());
    // A key without a name gets neither the store nor a tunnel.
    for alpn in [ALPN_STORE, ALPN_TUNNEL] {
        let refused = way.west.tunnel.counters().peers_refused;
        let tls = join_client_config(&joiner(1), None, Arc::default(), alpn);
        // The dialler's handshake is done before the other side has judged its certificate.
        if let Ok((mut requests, connection)) =
            h2::client::handshake(secured(&way, tls).await).await
        {
            let protocol = h2::ext::Protocol::from_static("fedgate-tunnel");
            let request = http::Request::connect("https://west.fed/").extension(protocol);
            let _control = requests.send_request(request.body(()).unwrap(), false);
            let ended = timeout(Duration::from_secs(10), connection).await;
            assert!(ended.is_ok(), "it is still there");
        }
        let counted = || way.west.tunnel.counters().peers_refused > refused;
        wait_for("the refusal to be counted", counted).await;
    }
}

async fn secured(way: &Way, tls: rustls::ClientConfig) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(way.west.addr()).await.unwrap();
    let name = ServerName::try_from("west.invalid").unwrap();
    TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_is_taken_where_it_passes_and_asked_for_alone_by_who_has_tcp() {
    let mut way = Way::without_udp().await;
    let node = way.node();
    let name = way.west.cluster.name.clone();
    let error = node.dial_store_over_quic(&name, &way.address).await.unwrap_err();
    assert!(error.text.contains("see whether its UDP port is reachable"), "{error}");
    let (over_tcp, _) = way.connected(&node).await;
    assert_eq!(over_tcp.transport(), Transport::Tcp);
    way.relay.heal("west").unwrap();
    let fresh = node.dial_store_over_quic(&name, &way.address).await.unwrap();
    assert_eq!((fresh.transport(), over_tcp.is_live()), (Transport::Quic, true));
    way.incoming.next().await.unwrap();
    let (again, _) = way.connected(&node).await;
    assert_eq!(again.transport(), Transport::Quic);
    // The end of the node is told on both.
    node.close().await;
    for end in [&over_tcp, &fresh] {
        assert!(!end.is_live());
    }
}
