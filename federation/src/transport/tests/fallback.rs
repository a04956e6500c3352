//! Nodes between which UDP does not pass, or not always.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Instant;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::*;

/// A gateway's address on this side of a network that always lets TCP through, and UDP if it likes.
struct Gate {
    address: PeerAddress,
    lets_udp: Arc<AtomicBool>,
    /// TCP connections that pass it now.
    over_tcp: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Gate {
    async fn before(site: &Site) -> Self {
        let target = site.config.tunnel_listen;
        let (tcp, udp) = loop {
            let udp = UdpSocket::bind(LOOPBACK).await.unwrap();
            // Another process may have the TCP port of a number that is free for UDP.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let port = udp.local_addr().unwrap().port();
        let address = PeerAddress { port, ..site.address() };
        let lets_udp = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let over_tcp = Arc::new(AtomicUsize::new(0));
        tasks.spawn(pass_tcp(tcp, target, over_tcp.clone()));
        tasks.spawn(pass_udp(Arc::new(udp), target, lets_udp.clone()));
        Self { address, lets_udp, over_tcp, _tasks: tasks }
    }
}

async fn pass_tcp(listener: TcpListener, target: SocketAddr, passing: Arc<AtomicUsize>) {
    let mut ways = JoinSet::new();
    while let Ok((mut outside, _)) = listener.accept().await {
        passing.fetch_add(1, Relaxed);
        let passing = passing.clone();
        ways.spawn(async move {
            let mut inside = TcpStream::connect(target).await.unwrap();
            let _ = copy_bidirectional(&mut outside, &mut inside).await;
            passing.fetch_sub(1, Relaxed);
        });
    }
}

async fn pass_udp(outside: Arc<UdpSocket>, target: SocketAddr, passes: Arc<AtomicBool>) {
    let mut ways: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; 65_536];
    while let Ok((length, from)) = outside.recv_from(&mut buffer).await {
        if !passes.load(Relaxed) {
            continue;
        }
        let way = match ways.get(&from) {
            Some(way) => way.clone(),
            None => {
                let way = Arc::new(UdpSocket::bind(LOOPBACK).await.unwrap());
                way.connect(target).await.unwrap();
                tasks.spawn(pass_back(way.clone(), outside.clone(), from, passes.clone()));
                ways.insert(from, way.clone());
                way
            }
        };
        let _ = way.send(&buffer[..length]).await;
    }
}

async fn pass_back(
    inside: Arc<UdpSocket>,
    outside: Arc<UdpSocket>,
    to: SocketAddr,
    passes: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length) = inside.recv(&mut buffer).await {
        if passes.load(Relaxed) {
            let _ = outside.send_to(&buffer[..length], to).await;
        }
    }
}

async fn until_over(wanted: PeerTransport, from: &Site, to: &Site) -> Duration {
    let begun = Instant::now();
    let is_there = || match from.state_of(to) {
        PathState::Direct { transport, .. } => transport == wanted,
        _ => false,
    };
    until(wanted.as_str(), async || is_there()).await;
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_goes_over_tcp_for_as_long_as_udp_does_not_pass() {
    let (east, west) = two().await;
    let gate = Gate::before(&west).await;
    east.speak_with(vec![west.as_peer(vec![gate.address.clone()], true)]);
    west.speak_with(vec![east.as_peer(vec![], false)]);
    let took = until_over(PeerTransport::Tcp, &east, &west).await;
    println!("over TCP after {took:?}");
    east.reaches(&west).await;
    assert!(east.state_of(&west).to_string().starts_with("tcp 127.0.0.1:"));
    // West has no address of east's: its calls go back on the connection that east has dialled.
    west.reaches(&east).await;
    assert!(west.state_of(&east).to_string().starts_with("held by /"));
    let peers = RaftPeers::new(east.transport.clone());
    let call = async |kind, size: usize| {
        let body = bytes::Bytes::from(vec![b'x'; size]);
        peers.call(node_id(&west.id), kind, body, PATIENCE).await.map(|reply| reply.len())
    };
    assert!(call(RpcKind::Snapshot, 3_000_000).await.unwrap() > 3_000_000);
    // UDP passes, and no call is lost by that.
    gate.lets_udp.store(true, Relaxed);
    let back = async {
        let took = until_over(PeerTransport::Quic, &east, &west).await;
        println!("over QUIC after {took:?}");
        until("no connection over TCP", async || gate.over_tcp.load(Relaxed) == 0).await;
    };
    let calls = async {
        loop {
            call(RpcKind::Append, 10).await.unwrap();
        }
    };
    tokio::select! {
        () = back => {}
        () = calls => {}
    }
    west.reaches(&east).await;
    // And not again.
    gate.lets_udp.store(false, Relaxed);
    let took = until_over(PeerTransport::Tcp, &east, &west).await;
    println!("over TCP again after {took:?}");
    east.reaches(&west).await;
    west.reaches(&east).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_reaches_its_inviter_over_tcp() {
    let west = Site::start("west").await;
    let gate = Gate::before(&west).await;
    let certificate = FederationKey::from_seed(&[3; 32]).self_signed().unwrap();
    let ca_pin = Inviter::pin_of(&west.ca.bundle().x509_authorities[0]);
    let inviter = Inviter { ca_pin, id: west.node_id.clone() };
    let target = JoinTarget { addresses: vec![gate.address.clone()], inviter };
    let JoinDial { attempts, connection } = join_dial(&target, &certificate, None).await;
    assert_eq!(attempts, [(gate.address.clone(), Ok(PeerTransport::Tcp))]);
    let connection = connection.unwrap();
    let answer = ask_over(connection.channel, "let me in").await.unwrap();
    let key = FederationKey::from_seed(&[3; 32]).public().spki().to_vec();
    assert_eq!(answer, format!("joiner {key:?} {:?}: let me in", connection.exporter));
}
