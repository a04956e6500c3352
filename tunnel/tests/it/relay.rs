//! Store and join connections: who gets one, what can be done with it, and when it ends.

use std::sync::Arc;

use bytes::Bytes;
use identity::{FederationKey, IdentityCell, Inviter, JoinCertificate};
use model::{PeerAddress, Transport};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tunnel::{
    HeldConnections, Inner, News, NodeEndpoint, Protocol, RelayConnection, RelayIncoming,
};
use wire::tunnel::{ALPN_STORE, ALPN_TUNNEL, ConnectionClass, ErrorCode};

use crate::admission::{cell_of, host};
use crate::site::{Cluster, Site, identity, pair, trust};
use crate::stranger::Stranger;

const NODE: &str = "/fedgate/federation/node-0";

fn address(site: &Site) -> PeerAddress {
    let addr = site.addr();
    PeerAddress { transport: Transport::Quic, host: addr.ip().to_string(), port: addr.port() }
}

pub(crate) fn joiner(seed: u8) -> JoinCertificate {
    FederationKey::from_seed(&[seed; 32]).self_signed().unwrap()
}

/// East's node with a store connection to west's gateway: both ends.
async fn connected(
    cell: &Arc<IdentityCell>,
    west: &Site,
    incoming: &mut RelayIncoming,
) -> (RelayConnection, RelayConnection) {
    let node = NodeEndpoint::new(Arc::clone(cell));
    let dialled = node.dial_store(&west.cluster.name, &address(west)).await.unwrap();
    (dialled, incoming.next().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_side_of_a_store_connection_opens_streams() {
    let (east, west) = host();
    let mut incoming = west.tunnel.take_relayed().unwrap();
    assert!(west.tunnel.take_relayed().is_none(), "it is given once");
    let cell = cell_of(&east, NODE, &west);
    let (node, gateway) = connected(&cell, &west, &mut incoming).await;
    assert_eq!((gateway.protocol(), gateway.cluster()), (Protocol::Store, Some(&east.name)));
    let id = format!("spiffe://east.fed{NODE}");
    assert_eq!(gateway.peer().unwrap().spiffe_id.as_str(), id);
    assert_eq!(node.cluster(), Some(&west.cluster.name));
    for (opener, acceptor) in [(&node, &gateway), (&gateway, &node)] {
        let mut stream = opener.open().await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut accepted = acceptor.accept().await.unwrap();
        let mut text = String::new();
        accepted.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "ping");
        accepted.write_all(b"pong").await.unwrap();
        drop(accepted);
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "pingpong");
    }
    let held = HeldConnections::default();
    held.add(&gateway);
    assert_eq!(held.clusters(), std::slice::from_ref(&east.name));
    assert!(held.of(&east.name).is_some());
    node.close(ErrorCode::NoError, "done");
    let reason = gateway.closed().await;
    assert!(reason.contains("done"), "{reason}");
    assert!(held.of(&east.name).is_none(), "a dead one is not given");
    assert!(gateway.accept().await.is_none());
    held.remove(&gateway);
    assert!(held.clusters().is_empty());
}

/// With `admit`'s check of the kind taken out, a gateway's key was seen to get a store connection
/// here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_federation_node_gets_a_store_connection() {
    let (east, west) = host();
    let mut incoming = west.tunnel.take_relayed().unwrap();
    for path in ["/fedgate/gateway/gw-0", "/ns/shop/sa/web"] {
        let node = NodeEndpoint::new(cell_of(&east, path, &west));
        let dialled = node.dial_store(&west.cluster.name, &address(&west)).await.unwrap();
        // The dialler is done before the other side has judged it.
        let reason = dialled.closed().await;
        let text = format!("spiffe://east.fed{path} is not a federation: only spiffe://");
        assert!(reason.contains(&text), "{reason}");
    }
    // A key without a name gets nothing but joining.
    for (alpn, text) in [(ALPN_STORE, "not fit"), (ALPN_TUNNEL, "is not an X.509-SVID")] {
        let cell = cell_of(&east, "/fedgate/gateway/gw-0", &west);
        let hung_up = Stranger::nameless(cell, &west, alpn, &joiner(1)).await;
        assert_eq!(
            hung_up.code,
            Some(if alpn == ALPN_STORE {
                ErrorCode::MalformedFrame
            } else {
                ErrorCode::AdmissionRefused
            })
        );
        assert!(hung_up.text.contains(text), "{hung_up:?}");
    }
    // And the tunnel's first ids get no store either, whoever asks.
    let cell = cell_of(&east, NODE, &west);
    let stranger =
        Stranger::connect(cell.clone(), &west, ALPN_STORE, ConnectionClass::Bulk).await.unwrap();
    let hung_up = stranger.hung_up().await;
    assert!(hung_up.text.contains("the first connection id does not fit fedgate-store/1"));
    // Foreign nodes fail in the handshake; the own cluster's is no peer.
    let own = identity(west.cluster.svid(&west.cluster.node_id()), &[&west.cluster]);
    let node = NodeEndpoint::new(own);
    let error = node.dial_store(&west.cluster.name, &address(&west)).await;
    let text = match error {
        Ok(connection) => connection.closed().await,
        Err(error) => error.to_string(),
    };
    assert!(text.contains("own cluster"), "{text}");
    // The guard is not simply always shut.
    connected(&cell, &west, &mut incoming).await;
}

/// Four streams of a joiner's at a time; the fifth waits for one of them.
pub(crate) async fn joiner_is_bounded(joiner: &RelayConnection, accepted: &RelayConnection) {
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = joiner.open().await.unwrap();
        stream.write_all(b"x").await.unwrap();
        streams.push(stream);
    }
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(accepted.accept().await.unwrap());
    }
    let mut fifth = std::pin::pin!(accepted.accept());
    assert!(futures_util::poll!(&mut fifth).is_pending());
    taken.pop();
    assert!(fifth.await.is_some());
    // The joiner takes none.
    assert!(accepted.open().await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_is_let_in_unverified_and_bounded() {
    let (_east, west) = host();
    let mut incoming = west.tunnel.take_relayed().unwrap();
    let dialler = NodeEndpoint::new(Arc::default());
    let mut ours = Vec::new();
    for seed in 0..4 {
        ours.push(dialler.dial_join(&joiner(seed), &address(&west)).await.unwrap());
        let accepted = incoming.next().await.unwrap();
        assert_eq!((accepted.protocol(), accepted.peer()), (Protocol::Join, None));
        if seed == 0 {
            joiner_is_bounded(&ours[0], &accepted).await;
        }
    }
    let fifth = dialler.dial_join(&joiner(9), &address(&west)).await.unwrap();
    let reason = fifth.closed().await;
    assert!(reason.contains("too many join connections are open here"), "{reason}");
    ours.pop().unwrap().close(ErrorCode::NoError, "");
    wait_for_place(&dialler, &west).await;
}

async fn wait_for_place(dialler: &NodeEndpoint, west: &Site) {
    let deadline = tokio::time::Instant::now() + crate::site::LONG;
    loop {
        let again = dialler.dial_join(&joiner(8), &address(west)).await.unwrap();
        let refused = tokio::time::timeout(std::time::Duration::from_millis(300), again.closed());
        if refused.await.is_err() {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "the place is not free again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_connection_ends_with_the_trust_in_its_peer() {
    let (east, west) = host();
    let mut incoming = west.tunnel.take_relayed().unwrap();
    let cell = cell_of(&east, NODE, &west);
    type End = fn(&Site, &Arc<Cluster>);
    let ends: [(End, &str); 3] = [
        (
            |west, east| {
                west.cell.replace_revoked([east.domain.clone()].into());
                west.tunnel.judge_again();
            },
            "trust domain \"east.fed\" of spiffe://east.fed/fedgate/federation/node-0 was revoked",
        ),
        (
            |west, _| {
                let (bundles, owners) = trust(&[&west.cluster]);
                west.cell.replace_trust(bundles, owners);
            },
            "is not trusted any more",
        ),
        (|west, _| west.tunnel.set_peers(vec![]), "no peer any more"),
    ];
    for (end, text) in ends {
        let (bundles, owners) = trust(&[&east, &west.cluster]);
        west.cell.replace_trust(bundles, owners);
        west.cell.replace_revoked([].into());
        west.tunnel.set_peers(vec![east.peer(&[])]);
        let (node, gateway) = connected(&cell, &west, &mut incoming).await;
        assert!(gateway.is_live());
        end(&west, &east);
        let reason = node.closed().await;
        assert!(reason.contains(text), "{reason}");
    }
    // Nor does a new one begin.
    let node = NodeEndpoint::new(cell);
    let refused = node.dial_store(&west.cluster.name, &address(&west)).await.unwrap();
    assert!(refused.closed().await.contains("the cluster is not a peer here"));
}

/// A node speaks TLS inside of a stream: with the node, whatever gateways are between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inner_handshake_knows_federation_nodes_only() {
    let (east, west) = (Cluster::new("east"), Cluster::new("west"));
    let cell = |cluster: &Arc<Cluster>, id| identity(cluster.svid(&id), &[&east, &west]);
    let east_node = cell(&east, east.node_id());
    let west_node = cell(&west, west.node_id());
    let west_gateway = cell(&west, west.gateway_id("gw-0"));
    let open = async |client: &Arc<IdentityCell>, server: &Arc<IdentityCell>| {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (opened, accepted) = tokio::join!(
            Inner::open_store(near, client, &west.name),
            Inner::accept_store(far, server)
        );
        (opened.map(|(_, peer)| peer), accepted.map(|(_, peer)| peer))
    };
    let (opened, accepted) = open(&east_node, &west_node).await;
    assert_eq!(opened.unwrap().cluster, west.name);
    assert_eq!(accepted.unwrap().cluster, east.name);
    // A stolen gateway key neither serves nor asks.
    let (opened, _) = open(&east_node, &west_gateway).await;
    let text = opened.unwrap_err().to_string();
    assert!(text.starts_with("spiffe://west.fed/fedgate/gateway/gw-0 is not a federation"));
    let east_gateway = cell(&east, east.gateway_id("gw-0"));
    let (_, accepted) = open(&east_gateway, &west_node).await;
    assert!(accepted.is_err());
    let refused = west_node.refusals().pop().unwrap().error.to_string();
    assert!(refused.starts_with("spiffe://east.fed/fedgate/gateway/gw-0 is not a federation"));
    // Another cluster's node in place of the one that was meant.
    let (opened, _) = open(&east_node, &cell(&east, east.node_id())).await;
    let text = opened.unwrap_err().to_string();
    assert!(text.contains("is of cluster \"east\", but cluster \"west\" was dialled"), "{text}");
    // A join is not taken for a store stream.
    let (near, far) = tokio::io::duplex(64 * 1024);
    let inviter = Inviter {
        ca_pin: Inviter::pin_of(&west.ca.bundle().x509_authorities[0]),
        id: west.node_id(),
    };
    let certificate = joiner(1);
    let (opened, accepted) = tokio::join!(
        Inner::open_join(near, &certificate, &inviter),
        Inner::accept_store(far, &west_node)
    );
    assert!(opened.is_err() && accepted.is_err());
    // The join itself; both ends compute the same from it.
    let (near, far) = tokio::io::duplex(64 * 1024);
    let ca = CertificateDer::from(west.ca.bundle().x509_authorities[0].clone());
    let (opened, accepted) = tokio::join!(
        Inner::open_join(near, &certificate, &inviter),
        Inner::accept_join(far, &west_node, &ca)
    );
    let (accepted, key) = accepted.unwrap();
    assert_eq!(key, FederationKey::from_seed(&[1; 32]).public().spki());
    assert_eq!(opened.unwrap().exporter().unwrap(), accepted.exporter().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_and_revocations_reach_the_peer() {
    let (east, west) = pair(Default::default).await;
    // Each new connection says the Head in its HELLO: they are all to be there before.
    east.is_settled_with(&west, 1).await;
    west.is_settled_with(&east, 1).await;
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let heard = async |site: &Site| {
        tokio::time::timeout(crate::site::LONG, site.tunnel.heard()).await.expect("news in time")
    };
    // One connection of the pair tells; when another one takes over, it tells all again.
    let hears = async |site: &Site, wanted: &Bytes| {
        let mut heads = Vec::new();
        while !heads.contains(wanted) {
            let heard = heard(site).await;
            heads.extend(heard.heads.into_iter().chain(heard.revocations));
        }
        heads
    };
    let (heads, revocations) = (vec![bytes("east 1"), bytes("south 5")], vec![bytes("r")]);
    east.tunnel.tell(News { heads, revocations });
    hears(&west, &bytes("r")).await;
    // What is too long does not travel.
    let long = Bytes::from(vec![7; 1025]);
    let heads = vec![bytes("east 2"), bytes("south 5"), long.clone()];
    east.tunnel.tell(News { heads, revocations: vec![bytes("r")] });
    assert!(!hears(&west, &bytes("east 2")).await.contains(&long));
    west.tunnel.tell(News { heads: vec![bytes("west 1")], revocations: vec![] });
    hears(&east, &bytes("west 1")).await;
    // A connection that begins later hears of it in HELLO.
    let stranger = Stranger::tunnel(
        identity(
            west.cluster.svid(&west.cluster.gateway_id("gw-9")),
            &[&east.cluster, &west.cluster],
        ),
        &east,
    )
    .await
    .unwrap();
    let own = wire::tunnel::Hello { head: bytes("west 2"), ..stranger.hello() };
    let hello = stranger.greet(&own).await.unwrap();
    assert_eq!(hello.head, "east 2");
    hears(&east, &bytes("west 2")).await;
}
