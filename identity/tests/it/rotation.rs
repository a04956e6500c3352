//! Rotation: what changes is the next handshake, never a connection that lives.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use identity::{BundleSet, ExpectedPeer, TrustDomainOwners};

use crate::toy::*;

fn expect(name: &str) -> ExpectedPeer {
    ExpectedPeer::Cluster(cluster(name))
}

fn talk(pair: &mut Pair, text: &[u8]) {
    let mut heard = vec![0; text.len()];
    pair.client.writer().write_all(text).unwrap();
    pair.settle();
    pair.server.reader().read_exact(&mut heard).unwrap();
    assert_eq!(heard, text);
    pair.server.writer().write_all(text).unwrap();
    pair.settle();
    pair.client.reader().read_exact(&mut heard).unwrap();
    assert_eq!(heard, text);
}

#[test]
fn a_new_svid_resets_nothing_and_is_shown_from_the_next_handshake_on() {
    let world = World::new();
    let (east, west) = (world.east_cell(), world.west_cell());
    let (dialler, listener) = (Arc::new(client(&east, expect("west"))), Arc::new(server(&west)));
    let mut first = Pair::connect(&dialler, &listener);
    talk(&mut first, b"before");
    let old = first.server.peer_certificates().unwrap().to_vec();

    east.replace_svid(world.east.leaf(GATEWAY, |_| {}).svid());
    west.replace_svid(world.west.leaf("spiffe://west.fed/fedgate/gateway/gw-1", |_| {}).svid());
    talk(&mut first, b"after");

    let mut second = Pair::connect(&dialler, &listener);
    talk(&mut second, b"new");
    assert_ne!(second.server.peer_certificates().unwrap(), old);
    let shown = identity::peer_id(second.client.peer_certificates().unwrap()).unwrap();
    assert_eq!(shown.as_str(), "spiffe://west.fed/fedgate/gateway/gw-1");
    talk(&mut first, b"and still");
}

#[test]
fn withdrawn_trust_is_seen_by_the_next_handshake_and_by_whoever_asks_again() {
    let world = World::new();
    let (east, west) = (world.east_cell(), world.west_cell());
    let (dialler, listener) = (Arc::new(client(&east, expect("west"))), Arc::new(server(&west)));
    let mut pair = Pair::connect(&dialler, &listener);
    let before = west.load();
    assert!(Arc::ptr_eq(&before, &west.load()));

    let mut bundles = world.bundles();
    bundles.remove(&domain("east.fed"));
    west.replace_trust(bundles, world.owners());
    assert!(!Arc::ptr_eq(&before, &west.load()));
    assert!(west.load().svid.is_some(), "the SVID is not touched");
    talk(&mut pair, b"the connection itself lives on");
    let chain = pair.server.peer_certificates().unwrap();
    let judged = west.load().verify_peer(chain, &ExpectedPeer::AnyKnown, now()).unwrap_err();
    assert!(judged.to_string().contains("for which there is no bundle"), "{judged}");
    assert!(!Pair::connect(&dialler, &listener).is_up());

    west.replace_trust(world.bundles(), world.owners());
    assert!(Pair::connect(&dialler, &listener).is_up());
}

#[test]
fn roots_rotate_with_overlap() {
    let world = World::new();
    let next_root = ToyCa::root("east.fed");
    let (east, west) = (world.east_cell(), world.west_cell());
    let (dialler, listener) = (Arc::new(client(&east, expect("west"))), Arc::new(server(&west)));
    let both = |sequence| {
        let mut bundle = world.east.bundle("east.fed", sequence);
        bundle.x509_authorities.push(next_root.certificate.to_vec());
        bundle
    };
    let mut bundles = world.bundles();
    bundles.insert(both(2)).unwrap();
    west.replace_trust(bundles.clone(), world.owners());
    assert!(Pair::connect(&dialler, &listener).is_up(), "signed by the old root");
    east.replace_svid(next_root.leaf(GATEWAY, |_| {}).svid());
    assert!(Pair::connect(&dialler, &listener).is_up(), "signed by the new root");
    bundles.insert(next_root.bundle("east.fed", 3)).unwrap();
    west.replace_trust(bundles, world.owners());
    assert!(Pair::connect(&dialler, &listener).is_up(), "the old root is gone");
    east.replace_svid(world.east.leaf(GATEWAY, |_| {}).svid());
    assert!(!Pair::connect(&dialler, &listener).is_up(), "signed by the root that is gone");
}

#[test]
fn a_cluster_may_have_several_domains() {
    let world = World::new();
    let second = ToyCa::root("west2.fed");
    let mut bundles = world.bundles();
    bundles.insert(second.bundle("west2.fed", 1)).unwrap();
    let mut owners = world.owners();
    owners.claim(domain("west2.fed"), cluster("west")).unwrap();
    let (east, west) = (world.east_cell(), world.west_cell());
    east.replace_trust(bundles, owners);
    west.replace_svid(second.leaf("spiffe://west2.fed/fedgate/gateway/gw-0", |_| {}).svid());
    let dialler = Arc::new(client(&east, expect("west")));
    assert!(Pair::connect(&dialler, &Arc::new(server(&west))).is_up());
}

#[test]
fn renewal_is_due_after_an_hour_or_half_the_lifetime() {
    let world = World::new();
    let cell = world.cell(None);
    assert!(cell.renewal_due(now()), "there is none yet");
    let skew = identity::limits::CLOCK_SKEW;
    for (lifetime, due_after) in [(24 * HOUR, HOUR), (HOUR, HOUR / 2), (2 * HOUR, HOUR)] {
        let svid = world.east.leaf(GATEWAY, |p| {
            p.not_before = (now() - skew).into();
            p.not_after = (now() + lifetime).into();
        });
        cell.replace_svid(svid.svid());
        assert!(!cell.renewal_due(now()));
        assert!(!cell.renewal_due(now() + due_after - Duration::from_secs(1)), "{lifetime:?}");
        assert!(cell.renewal_due(now() + due_after), "{lifetime:?}");
        assert!(cell.renewal_due(now() - 2 * skew), "the clock went back before it was issued");
        let svid = cell.load().svid.clone().unwrap();
        assert_eq!(svid.renew_at(), now() + due_after);
        assert!(!svid.is_expired(now() + lifetime));
        assert!(svid.is_expired(now() + lifetime + Duration::from_secs(1)));
    }
}

#[test]
fn an_empty_cell_trusts_nobody() {
    let cell = identity::IdentityCell::default();
    cell.replace_trust(BundleSet::default(), TrustDomainOwners::default());
    let svid = ToyCa::root("east.fed").leaf(GATEWAY, |_| {});
    assert!(cell.load().verify_peer(&svid.chain, &ExpectedPeer::AnyKnown, now()).is_err());
}
