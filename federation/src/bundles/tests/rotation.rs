//! A root is rotated at the publisher while somebody polls late.

use super::*;
use crate::bundles::fetch::{FetchError, fetch};

const HANDSHAKES: usize = 25;

/// Handshakes of the endpoint's SVID judged by what the poller has, which learns nothing by them; how
/// many failed.
async fn failed(source: &BundleSource, kept: &Kept) -> usize {
    let mut failed = 0;
    for _ in 0..HANDSHAKES {
        match fetch(source, kept.in_force()).await {
            Ok(_) => {}
            Err(FetchError::Refused(_)) => failed += 1,
            Err(problem) => panic!("{problem}"),
        }
    }
    failed
}

#[tokio::test]
async fn who_polls_late_refuses_nobody_while_a_root_rotates() {
    let world = World::new();
    let address = world.serve(ServedProfile::Spiffe).await;
    let source = world.by_spiffe(address, NODE);
    let kept = world.keep(&source);
    let now = SystemTime::now();
    assert_eq!(failed(&source, &kept).await, 0);

    world.ca.prepare(now).unwrap();
    assert_eq!(failed(&source, &kept).await, 0, "prepared, not polled yet");
    poll_once(&source, &kept).await.unwrap();

    world.ca.activate(LIFETIME, now).unwrap();
    world.cell.replace_svid(world.svid(NODE));
    assert_eq!(failed(&source, &kept).await, 0, "activated, not polled since the preparation");

    world.ca.revoke(true, now).unwrap();
    assert_eq!(failed(&source, &kept).await, 0, "revoked, not polled since the preparation");
    assert_eq!(poll_once(&source, &kept).await.unwrap(), BundleChange::Replaced);
    assert_eq!(in_force(&kept), Some(world.ca.bundle()));
    assert_eq!(failed(&source, &kept).await, 0);
}

/// The counter of the test above does count.
#[tokio::test]
async fn a_root_without_an_overlap_is_refused_until_a_person_brings_its_bundle() {
    let world = World::new();
    let address = world.serve(ServedProfile::Spiffe).await;
    let source = world.by_spiffe(address, NODE);
    let kept = world.keep(&source);
    let now = SystemTime::now();
    world.ca.prepare(now).unwrap();
    world.ca.activate(LIFETIME, now).unwrap();
    world.ca.revoke(true, now).unwrap();
    world.cell.replace_svid(world.svid(NODE));
    assert_eq!(failed(&source, &kept).await, HANDSHAKES);
    let error = poll_once(&source, &kept).await.unwrap_err();
    assert_eq!(told(&kept), [code::PEER_IDENTITY_REFUSED], "{error}");
    // The configured file has the newer bundle at the next start.
    let source = world.by_spiffe(address, NODE);
    let kept = world.keep(&source);
    assert_eq!(failed(&source, &kept).await, 0);
}
