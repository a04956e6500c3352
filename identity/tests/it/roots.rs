//! Roots one after the other: what the bundle has at each stage, what a crash leaves, what is refused.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use identity::{BundleSet, Ca, RootState, RotationError, SvidKeyPair, verify_chain};
use rustls_pki_types::CertificateDer;

use crate::toy::*;

const MINUTE: Duration = Duration::from_secs(60);

fn open(folder: &Path, now: SystemTime) -> Ca {
    Ca::load_or_create(folder, &domain("east.fed"), now).unwrap()
}

fn svid(ca: &Ca, now: SystemTime) -> Vec<CertificateDer<'static>> {
    let csr = SvidKeyPair::generate().unwrap().csr_der(&id(GATEWAY)).unwrap();
    ca.issue(&csr, &id(GATEWAY), HOUR, now).unwrap()
}

fn states(ca: &Ca) -> Vec<RootState> {
    ca.roots().iter().map(|root| root.state).collect()
}

/// Whether a peer with this CA's bundle of some moment believes the chain.
fn believes(peer: &BundleSet, chain: &[CertificateDer<'static>], now: SystemTime) -> bool {
    verify_chain(chain, peer, now).is_ok()
}

#[test]
fn a_rotation_overlaps_and_no_svid_is_refused_at_any_stage() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(folder.path(), now());
    let (first, mut peer) = (ca.bundle(), BundleSet::default());
    peer.insert(first.clone()).unwrap();
    let before = svid(&ca, now());

    ca.prepare(now()).unwrap();
    assert_eq!(states(&ca), [RootState::Active, RootState::Prepared]);
    assert_eq!(ca.bundle().x509_authorities[0], first.x509_authorities[0], "it signs on");
    assert!(believes(&peer, &svid(&ca, now()), now()), "who has not read the new bundle");
    let csr = SvidKeyPair::generate().unwrap().csr_der(&id(GATEWAY)).unwrap();
    let tried = ca.issue_by_prepared(&csr, &id(GATEWAY), HOUR, now()).unwrap().unwrap();
    assert!(!believes(&peer, &tried, now()), "who has not read it does not know the next root");
    peer.insert(ca.bundle()).unwrap();
    assert!(believes(&peer, &tried, now()));

    let later = now() + MINUTE;
    ca.activate(HOUR, later).unwrap();
    assert_eq!(states(&ca), [RootState::Active, RootState::Old]);
    let after = svid(&ca, later);
    assert!(believes(&peer, &after, later), "who has not read that it signs now");
    peer.insert(ca.bundle()).unwrap();
    assert!(believes(&peer, &before, later) && believes(&peer, &after, later));

    let error = ca.revoke(false, later).unwrap_err();
    assert_eq!(error.code().to_string(), "FED3011");
    assert_eq!(
        error.to_string(),
        "SVIDs that the old root has signed are valid until 2026-11-21T13:01:00Z, and now it is \
         2026-11-21T12:01:00Z: wait, or use --force if nobody shows one any more"
    );
    let end = later + HOUR + MINUTE;
    ca.revoke(false, end).unwrap();
    assert_eq!(states(&ca), [RootState::Active]);
    let last = ca.bundle();
    assert_ne!(last.x509_authorities, first.x509_authorities);
    assert!(last.sequence >= first.sequence + 3, "each change has a number of its own");
    peer.insert(last).unwrap();
    assert!(believes(&peer, &svid(&ca, end), end));
    assert!(!believes(&peer, &before, later), "the old root is gone");
}

#[test]
fn each_stage_is_kept_by_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(folder.path(), now());
    let same = |ca: &Ca| {
        let again = open(folder.path(), now() + MINUTE);
        assert_eq!((again.bundle(), states(&again)), (ca.bundle(), states(ca)));
        again
    };
    ca.prepare(now()).unwrap();
    let ca = same(&ca);
    ca.activate(HOUR, now()).unwrap();
    let ca = same(&ca);
    assert!(matches!(ca.revoke(false, now() + HOUR), Err(RotationError::SvidsLive { .. })));
    ca.revoke(true, now()).unwrap();
    same(&ca);
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["ca.key", "ca.pem", "sequence"], "no key of another root stays");
}

#[test]
fn stages_out_of_order_are_refused_and_a_prepared_root_can_be_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(folder.path(), now());
    let refused = |done: Result<(), RotationError>, text: &str| {
        let error = done.unwrap_err();
        assert_eq!(error.code().to_string(), "FED3012");
        assert!(error.to_string().starts_with(text), "{error}");
    };
    refused(ca.activate(HOUR, now()), "no root is prepared");
    refused(ca.revoke(true, now()), "there is no root but the one that signs");
    let bundle = ca.bundle();
    ca.prepare(now()).unwrap();
    refused(ca.prepare(now()), "a root is prepared already");
    ca.revoke(false, now()).unwrap();
    assert_eq!(ca.bundle().x509_authorities, bundle.x509_authorities);
    ca.prepare(now()).unwrap();
    ca.activate(HOUR, now()).unwrap();
    refused(ca.prepare(now()), "the last rotation is not over");
}

/// Every file as it is after each write of a stage, in the order in which they are written.
#[test]
fn a_crash_in_a_stage_leaves_the_one_before_or_the_one_after() {
    let whole = tempfile::tempdir().unwrap();
    let ca = open(whole.path(), now());
    type Stage = (fn(&Ca), &'static [&'static str]);
    let stages: [Stage; 3] = [
        (|ca| ca.prepare(now()).unwrap(), &["sequence", "next.key", "next.pem"]),
        (
            |ca| ca.activate(HOUR, now()).unwrap(),
            &["sequence", "old.until", "old.pem", "-next.key", "ca.key", "-next.pem", "ca.pem"],
        ),
        (|ca| ca.revoke(true, now()).unwrap(), &["sequence", "-old.pem", "-old.until"]),
    ];
    for (stage, order) in stages {
        let crashed = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(whole.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), crashed.path().join(entry.file_name())).unwrap();
        }
        let before = states(&ca);
        stage(&ca);
        let after = states(&ca);
        // A rename takes one file away and puts another there in one step.
        let mut steps: Vec<Vec<&str>> = Vec::new();
        for name in order {
            let renamed = matches!(*name, "ca.key" | "ca.pem");
            match steps.last_mut().filter(|_| renamed) {
                Some(step) => step.push(name),
                None => steps.push(vec![name]),
            }
        }
        let mut seen = vec![];
        for step in steps {
            for name in step {
                match name.strip_prefix('-') {
                    Some(gone) => fs::remove_file(crashed.path().join(gone)).unwrap(),
                    None => {
                        let (from, to) = (whole.path().join(name), crashed.path().join(name));
                        fs::copy(from, to).unwrap();
                    }
                }
            }
            let copy = tempfile::tempdir().unwrap();
            for entry in fs::read_dir(crashed.path()).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
            let restarted = open(copy.path(), now());
            seen.push(states(&restarted));
            assert!([&before, &after].contains(&seen.last().unwrap()), "{order:?}: {seen:?}");
            // Whatever is there works, and nobody who has its bundle refuses what it signs.
            let mut peer = BundleSet::default();
            peer.insert(restarted.bundle()).unwrap();
            assert!(believes(&peer, &svid(&restarted, now()), now()));
        }
        assert_eq!(seen.last(), Some(&after));
    }
}

#[test]
fn a_root_that_has_run_out_is_opened_signs_nothing_and_can_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), now()).bundle();
    let late = now() + identity::limits::CA_LIFETIME + HOUR;
    let ca = open(folder.path(), late);
    let csr = SvidKeyPair::generate().unwrap().csr_der(&id(GATEWAY)).unwrap();
    let error = ca.issue(&csr, &id(GATEWAY), HOUR, late).unwrap_err().to_string();
    assert!(error.contains("is not valid now") && error.contains("certs rotate"), "{error}");
    assert!(ca.replace_expired(late).unwrap());
    assert!(!ca.replace_expired(late).unwrap(), "once");
    let second = ca.bundle();
    assert!(second.sequence > first.sequence);
    assert_eq!(states(&ca), [RootState::Active]);
    let mut peer = BundleSet::default();
    peer.insert(first).unwrap();
    peer.insert(second).unwrap();
    assert!(believes(&peer, &svid(&ca, late), late));
    // In the middle of a rotation, too.
    ca.prepare(late).unwrap();
    let later = late + identity::limits::CA_LIFETIME + HOUR;
    assert!(ca.replace_expired(later).unwrap());
    assert_eq!(states(&ca), [RootState::Active]);
    svid(&ca, later);
}
