//! The SVID on disk: private, whole, and the right pair.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use identity::{Svid, SvidError, SvidKeyPair, SvidStore};
use rcgen::KeyPair;

use crate::toy::*;

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_svid_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("gateway/svid");
    let store = SvidStore::open(&folder).unwrap();
    assert!(store.load().unwrap().is_none());
    let world = World::new();
    let middle = world.east.sub("middle", |_| {});
    let svid = middle.leaf(GATEWAY, |_| {}).behind(&[&middle]).svid();
    store.save(&svid).unwrap();
    assert_eq!((mode(store.path()), mode(&folder)), (0o600, 0o700));

    let loaded = SvidStore::open(&folder).unwrap().load().unwrap().unwrap();
    assert_eq!(loaded.id(), svid.id());
    assert_eq!(loaded.chain(), svid.chain());
    assert_eq!((loaded.not_before(), loaded.not_after()), (now() - HOUR, now() + HOUR));
    let pair = Pair::connect(
        &std::sync::Arc::new(client(
            &world.cell(Some(loaded)),
            identity::ExpectedPeer::Cluster(cluster("west")),
        )),
        &std::sync::Arc::new(server(&world.west_cell())),
    );
    assert!(pair.is_up(), "the key went along");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no leftover");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = SvidStore::open(folder.path()).unwrap();
    store.save(&World::new().east.leaf(GATEWAY, |_| {}).svid()).unwrap();
    fs::set_permissions(store.path(), fs::Permissions::from_mode(0o640)).unwrap();
    let error = store.load().unwrap_err();
    let path = store.path().display();
    assert_eq!(
        error.to_string(),
        format!(
            "{path} has mode 0640, so others than its owner can reach a private key: run `chmod \
             600 {path}`"
        )
    );
    assert_eq!(error.code().to_string(), "FED3004");
    fs::set_permissions(store.path(), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(store.load().unwrap().is_some());
}

#[test]
fn what_is_no_svid_is_refused_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let store = SvidStore::open(folder.path()).unwrap();
    let world = World::new();
    let (one, two) = (world.east.leaf(GATEWAY, |_| {}), world.east.leaf(GATEWAY, |_| {}));
    store.save(&one.svid()).unwrap();
    let text = fs::read_to_string(store.path()).unwrap();
    let (key, certificate) = text.split_at(text.find("-----BEGIN CERTIFICATE").unwrap());
    let cut = &text[..text.len() / 2];
    store.save(&two.svid()).unwrap();
    let other = fs::read_to_string(store.path()).unwrap();
    let other_certificate = &other[other.find("-----BEGIN CERTIFICATE").unwrap()..];
    for (content, problem) in [
        ("", "it has no readable PRIVATE KEY section (PKCS#8)"),
        ("junk", "it has no readable PRIVATE KEY section (PKCS#8)"),
        (certificate, "it has no readable PRIVATE KEY section (PKCS#8)"),
        (key, "the peer sent no certificate"),
        (cut, "its CERTIFICATE sections are not PEM"),
        (
            &format!("{key}{other_certificate}"),
            "the private key does not belong to the SVID of spiffe://",
        ),
    ] {
        fs::write(store.path(), content).unwrap();
        fs::set_permissions(store.path(), fs::Permissions::from_mode(0o600)).unwrap();
        let error = store.load().unwrap_err().to_string();
        let begin = format!("{}: {problem}", store.path().display());
        assert!(error.starts_with(&begin), "{content}: {error}");
        assert!(error.ends_with(": move the file away and enrol again"), "{error}");
    }
}

#[test]
fn key_and_chain_must_belong_together() {
    let world = World::new();
    let svid = world.east.leaf(GATEWAY, |_| {});
    let other = KeyPair::generate().unwrap();
    let error = Svid::new(svid.chain.clone(), other.serialize_der().into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the private key does not belong to the SVID of spiffe://east.fed/fedgate/gateway/gw-0: \
         enrol again, keys are not shared"
    );
    let error = Svid::new(svid.chain.clone(), vec![1, 2, 3].into()).unwrap_err();
    assert!(matches!(error, SvidError::Key { .. }), "{error}");
    assert!(matches!(Svid::new(vec![], svid.key_der()), Err(SvidError::Certificate(_))));
    let wrong_kind = world.east.leaf(GATEWAY, |p| p.key_usages.clear());
    let error = Svid::new(wrong_kind.chain.clone(), wrong_kind.key_der()).unwrap_err();
    assert!(error.to_string().contains("it has no key usage"), "{error}");
}

#[test]
fn a_reader_beside_a_writer_never_sees_half_a_pair() {
    let folder = tempfile::tempdir().unwrap();
    let store = SvidStore::open(folder.path()).unwrap();
    let world = World::new();
    let pairs = [world.east.leaf(GATEWAY, |_| {}).svid(), world.east.leaf(GATEWAY, |_| {}).svid()];
    store.save(&pairs[0]).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..60 {
                store.save(&pairs[round % 2]).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let mut loads = 0;
        while !done.load(Ordering::Acquire) || loads == 0 {
            // `Svid::new` checks that the key belongs to the leaf.
            assert!(store.load().unwrap().is_some());
            loads += 1;
        }
    });
}

#[test]
fn a_fresh_key_shows_nothing_of_itself() {
    let pair = SvidKeyPair::generate().unwrap();
    assert_eq!(format!("{pair:?}"), "SvidKeyPair(PrivateKey(..))");
}
