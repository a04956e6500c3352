//! Handshakes inside of one cluster: who gets in with which certificate, and what is believed of it.

use std::sync::Arc;

use identity::{
    ClientCertificate, ClusterTrust, ClusterTrustError, OwnPeer, VerifyError,
    cluster_client_config, cluster_server_config,
};
use model::spiffe::Part;
use rcgen::KeyPair;
use rustls::{ClientConfig, ServerConfig};

use crate::toy::*;

const NODE: &str = "spiffe://east.fed/fedgate/federation/node-0";

fn trust(ca: &ToyCa) -> Arc<ClusterTrust> {
    let trust = ClusterTrust::new(domain("east.fed"));
    assert!(trust.replace(&ca.bundle("east.fed", 1)).unwrap());
    Arc::new(trust)
}

fn gateways() -> OwnPeer {
    OwnPeer::Any(Part::Gateway)
}

/// Handshakes with the node's own SVID at a port, and why the caller was refused.
fn at_port(
    world: &World,
    asked: &ClientCertificate,
    client: ClientConfig,
) -> (Pair, Option<VerifyError>) {
    let cell = world.cell(Some(world.east.leaf(NODE, |_| {}).svid()));
    let (mut server, refusal): (ServerConfig, _) =
        cluster_server_config(cell, trust(&world.east), asked.clone(), ALPN);
    server.time_provider = fixed_clock();
    let pair = Pair::connect(&Arc::new(client), &Arc::new(server));
    (pair, refusal.get().cloned())
}

fn self_signed() -> ToySvid {
    let key = KeyPair::generate().unwrap();
    let certificate = leaf_params(GATEWAY).self_signed(&key).unwrap();
    ToySvid { chain: vec![certificate.into()], key }
}

#[test]
fn a_port_takes_who_shows_what_it_asks_for() {
    let world = World::new();
    let (east, west) = (&world.east, &world.west);
    let workload = "spiffe://east.fed/ns/shop/sa/web";
    // The same words, of another CA.
    let impostor = ToyCa::root("east.fed");
    let rows: [(&str, Option<ToySvid>, bool); 9] = [
        ("nothing", None, false),
        ("a gateway", Some(east.leaf(GATEWAY, |_| {})), true),
        ("a workload", Some(east.leaf(workload, |_| {})), false),
        ("a federation node", Some(east.leaf(NODE, |_| {})), false),
        (
            "an expired gateway",
            Some(east.leaf(GATEWAY, |p| p.not_after = (now() - HOUR / 2).into())),
            false,
        ),
        (
            "a foreign gateway",
            Some(west.leaf("spiffe://west.fed/fedgate/gateway/gw-0", |_| {})),
            false,
        ),
        ("a name by a foreign CA", Some(west.leaf(GATEWAY, |_| {})), false),
        ("a name by an unknown CA", Some(impostor.leaf(GATEWAY, |_| {})), false),
        ("its own word", Some(self_signed()), false),
    ];
    for (who, svid, is_gateway) in rows {
        let required = ClientCertificate::Required(gateways());
        let (pair, refusal) = at_port(&world, &required, naive::client(svid.as_ref()));
        assert_eq!(pair.is_up(), is_gateway, "{who}: {:?}", pair.server_error);
        assert_eq!(refusal.is_some(), !is_gateway && svid.is_some(), "{who}");
        let optional = ClientCertificate::Optional(gateways());
        let (pair, _) = at_port(&world, &optional, naive::client(svid.as_ref()));
        assert_eq!(pair.is_up(), is_gateway || svid.is_none(), "{who}: {:?}", pair.server_error);
        let (pair, _) = at_port(&world, &ClientCertificate::Unasked, naive::client(svid.as_ref()));
        assert!(pair.is_up(), "{who}: {:?}", pair.server_error);
        assert!(pair.server.peer_certificates().is_none(), "{who}: nothing was asked for");
    }
}

#[test]
fn a_caller_takes_the_node_and_nobody_else() {
    let world = World::new();
    let impostor = ToyCa::root("east.fed");
    let node = OwnPeer::Any(Part::Federation);
    let other = OwnPeer::Exactly(id("spiffe://east.fed/fedgate/gateway/gw-1"));
    let rows = [
        ("the node", &node, world.east.leaf(NODE, |_| {}), None),
        ("a gateway", &node, world.east.leaf(GATEWAY, |_| {}), Some("is not a federation")),
        (
            "another one's node",
            &node,
            world.west.leaf("spiffe://west.fed/fedgate/federation/node-0", |_| {}),
            Some("another trust domain than this cluster's, \"east.fed\""),
        ),
        ("an impostor", &node, impostor.leaf(NODE, |_| {}), Some("is not signed by an authority")),
        (
            "another gateway",
            &other,
            world.east.leaf(GATEWAY, |_| {}),
            Some("gw-0 answered, and spiffe://east.fed/fedgate/gateway/gw-1 was meant"),
        ),
    ];
    for (who, expected, shown, wanted) in rows {
        let (mut client, refusal) =
            cluster_client_config(None, trust(&world.east), expected.clone(), ALPN);
        client.time_provider = fixed_clock();
        let pair = Pair::connect(&Arc::new(client), &Arc::new(unjudging(&world, &shown)));
        assert_eq!(pair.is_up(), wanted.is_none(), "{who}: {:?}", pair.client_error);
        let told = refusal.get().map(ToString::to_string).unwrap_or_default();
        assert!(told.contains(wanted.unwrap_or_default()), "{who}: {told}");
    }
}

/// A server that shows anything and asks for nothing.
fn unjudging(world: &World, shown: &ToySvid) -> ServerConfig {
    let cell = world.cell(Some(shown.svid()));
    cluster_server_config(cell, trust(&world.east), ClientCertificate::Unasked, ALPN).0
}

#[test]
fn trust_follows_its_bundle_and_begins_with_none() {
    let world = World::new();
    let trust = ClusterTrust::new(domain("east.fed"));
    let gateway = world.east.leaf(GATEWAY, |_| {});
    let judge = |trust: &ClusterTrust| trust.verify(&gateway.chain, &gateways(), now());
    assert!(!trust.is_known());
    assert!(matches!(judge(&trust), Err(VerifyError::NoAuthority { .. })));
    let foreign = trust.replace(&world.west.bundle("west.fed", 1)).unwrap_err();
    assert!(matches!(foreign, ClusterTrustError::ForeignDomain { .. }), "{foreign}");
    let bundle = world.east.bundle("east.fed", 7);
    assert!(trust.replace(&bundle).unwrap());
    assert!(!trust.replace(&bundle).unwrap(), "the same");
    assert_eq!(judge(&trust).unwrap().id.as_str(), GATEWAY);
    // A CA that was lost begins to count anew.
    let next = ToyCa::root("east.fed");
    assert!(trust.replace(&next.bundle("east.fed", 1)).unwrap());
    assert!(matches!(judge(&trust), Err(VerifyError::Untrusted { .. })));
}
