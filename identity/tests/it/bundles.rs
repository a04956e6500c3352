//! Bundles: one per domain, sequences only grow, and what cannot be used is refused whole.

use identity::{BundleChange, BundleSet, verify_chain};
use rcgen::{IsCa, KeyUsagePurpose};

use crate::toy::*;

#[test]
fn a_sequence_only_grows() {
    let (old, new) = (ToyCa::root("east.fed"), ToyCa::root("east.fed"));
    let mut bundles = BundleSet::default();
    assert_eq!(bundles.insert(old.bundle("east.fed", 7)).unwrap(), BundleChange::Added);
    assert_eq!(bundles.insert(old.bundle("east.fed", 7)).unwrap(), BundleChange::Unchanged);
    assert_eq!(bundles.insert(new.bundle("east.fed", 8)).unwrap(), BundleChange::Replaced);
    let error = bundles.insert(old.bundle("east.fed", 7)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the bundle of trust domain \"east.fed\" has sequence 7, but 8 was already in force: export \
         it again from the cluster that owns the domain"
    );
    assert_eq!(error.code().to_string(), "FED3006");
    assert_eq!(bundles.get(&domain("east.fed")), Some(&new.bundle("east.fed", 8)));
    // Taking the peer away and putting it back opens no way around.
    bundles.remove(&domain("east.fed"));
    assert_eq!(bundles.insert(old.bundle("east.fed", 7)).unwrap_err(), error);
    assert_eq!(bundles.replace_all([(cluster("east"), old.bundle("east.fed", 7))]), [error]);
    assert!(bundles.get(&domain("east.fed")).is_none());
    let error = {
        bundles.insert(new.bundle("east.fed", 8)).unwrap();
        bundles.insert(old.bundle("east.fed", 8)).unwrap_err()
    };
    assert_eq!(
        error.to_string(),
        "the bundle of trust domain \"east.fed\" differs from the one in force but has the same \
         sequence 8: export it again from the cluster that owns the domain"
    );
    assert_eq!(error.code().to_string(), "FED3006");
    let mut hinted = new.bundle("east.fed", 8);
    hinted.refresh_hint_seconds = Some(60);
    assert_eq!(bundles.insert(hinted).unwrap(), BundleChange::Replaced);
}

#[test]
fn a_publisher_that_does_not_count_may_change_until_it_begins_to() {
    let (old, new) = (ToyCa::root("east.fed"), ToyCa::root("east.fed"));
    let mut bundles = BundleSet::default();
    bundles.insert(old.bundle("east.fed", 0)).unwrap();
    bundles.insert(new.bundle("east.fed", 0)).unwrap();
    bundles.insert(old.bundle("east.fed", 1)).unwrap();
    assert!(bundles.insert(new.bundle("east.fed", 0)).is_err());
}

#[test]
fn bundles_are_never_pooled() {
    let world = World::new();
    let mut bundles = BundleSet::default();
    bundles.insert(world.west.bundle("west.fed", 1)).unwrap();
    let east = world.east.leaf(GATEWAY, |_| {});
    assert!(verify_chain(&east.chain, &bundles, now()).is_err());
    bundles.insert(world.east.bundle("east.fed", 1)).unwrap();
    assert!(verify_chain(&east.chain, &bundles, now()).is_ok());
    let crossed = world.west.leaf(GATEWAY, |_| {});
    assert!(verify_chain(&crossed.chain, &bundles, now()).is_err());
    bundles.remove(&domain("east.fed"));
    assert!(verify_chain(&east.chain, &bundles, now()).is_err());
    assert_eq!(bundles.iter().count(), 1);
}

#[test]
fn replacing_all_keeps_the_good_and_drops_the_gone() {
    let world = World::new();
    let mut bundles = BundleSet::default();
    let first = (cluster("east"), world.east.bundle("east.fed", 5));
    assert!(bundles.replace_all([first]).is_empty());
    let errors = bundles.replace_all([
        (cluster("east"), world.west.bundle("east.fed", 4)),
        (cluster("west"), world.west.bundle("west.fed", 1)),
        (cluster("east"), world.east.bundle("west.fed", 2)),
    ]);
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].contains("has sequence 4, but 5 was already in force"), "{texts:?}");
    assert_eq!(
        texts[1],
        "trust domain \"west.fed\" has two bundles: leave one of them, a domain has one owner"
    );
    assert_eq!(errors[1].code().to_string(), "FED4008");
    assert_eq!(bundles.get(&domain("east.fed")), Some(&world.east.bundle("east.fed", 5)));
    assert_eq!(bundles.get(&domain("west.fed")), Some(&world.west.bundle("west.fed", 1)));
    assert!(bundles.replace_all([]).is_empty());
    assert_eq!(bundles.iter().count(), 0);
}

#[test]
fn a_bundle_does_not_outlast_its_owner() {
    let (old, new) = (ToyCa::root("shared.fed"), ToyCa::root("shared.fed"));
    let mut bundles = BundleSet::default();
    assert!(bundles.replace_all([(cluster("a"), old.bundle("shared.fed", 5))]).is_empty());
    // Refused, but still a's: what is in force stays.
    let lower = || new.bundle("shared.fed", 4);
    assert_eq!(bundles.replace_all([(cluster("a"), lower())]).len(), 1);
    assert_eq!(bundles.get(&domain("shared.fed")), Some(&old.bundle("shared.fed", 5)));
    // Now b's: a's authorities must not speak for b, and the sequence still only grows.
    for _ in 0..2 {
        let errors = bundles.replace_all([(cluster("b"), lower())]);
        assert_eq!(errors[0].code().to_string(), "FED3006");
        assert_eq!(bundles.get(&domain("shared.fed")), None);
    }
    assert!(bundles.replace_all([(cluster("b"), new.bundle("shared.fed", 5))]).is_empty());
    assert_eq!(bundles.get(&domain("shared.fed")), Some(&new.bundle("shared.fed", 5)));
}

#[test]
fn unusable_authorities_are_refused_and_the_old_bundle_stays() {
    let good = ToyCa::root("east.fed");
    let leaf = good.leaf(GATEWAY, |_| {}).chain[0].to_vec();
    let cannot_sign = ToyCa::edited_root("east.fed", |p| {
        p.key_usages = vec![KeyUsagePurpose::CrlSign];
    });
    let no_ca = ToyCa::edited_root("east.fed", |p| p.is_ca = IsCa::ExplicitNoCa);
    let with_path = ToyCa::edited_root("east.fed", |p| p.subject_alt_names = vec![uri(GATEWAY)]);
    let begin = "authority 1 in the bundle of trust domain \"east.fed\" cannot be used: ";
    let mut bundles = BundleSet::default();
    bundles.insert(good.bundle("east.fed", 1)).unwrap();
    for (der, text) in [
        (b"junk".to_vec(), "certificate 1 is malformed: "),
        (vec![0x30; 20_000], "certificate 1 has 20000 bytes: at most 16384 are read"),
        (
            leaf,
            "its basic constraints do not say cA=true: only a signing certificate may sign, or be",
        ),
        (no_ca.certificate.to_vec(), "its basic constraints do not say cA=true"),
        (cannot_sign.certificate.to_vec(), "its key usage lacks keyCertSign"),
        (with_path.certificate.to_vec(), "is not the ID of a trust domain"),
    ] {
        let mut bundle = good.bundle("east.fed", 2);
        bundle.x509_authorities.push(der);
        let error = bundles.insert(bundle).unwrap_err();
        let shown = error.to_string();
        assert!(shown.starts_with(begin) && shown.contains(text), "{shown}");
        assert_eq!(error.code().to_string(), "FED4001");
        assert_eq!(bundles.get(&domain("east.fed")).unwrap().sequence, 1);
    }
    let mut bundle = good.bundle("east.fed", 2);
    bundle.x509_authorities = vec![good.certificate.to_vec(); 33];
    assert_eq!(
        bundles.insert(bundle).unwrap_err().to_string(),
        "the bundle of trust domain \"east.fed\" has 33 authorities: at most 32 are kept"
    );
    // A refused bundle leaves no mark: its sequence may come again, mended.
    assert_eq!(bundles.insert(good.bundle("east.fed", 2)).unwrap(), BundleChange::Replaced);
}

#[test]
fn the_number_of_domains_is_bounded() {
    let mut bundles = BundleSet::default();
    let ca = ToyCa::root("any.fed");
    let mut bundle = ca.bundle("any.fed", 1);
    bundle.x509_authorities.clear();
    for index in 0..identity::limits::TRUST_DOMAINS_MAX {
        bundle.trust_domain = domain(&format!("d{index}.fed"));
        bundles.insert(bundle.clone()).unwrap();
    }
    bundles.remove(&domain("d0.fed"));
    bundle.trust_domain = domain("more.fed");
    assert_eq!(
        bundles.insert(bundle.clone()).unwrap_err().to_string(),
        "trust domain \"more.fed\" is one more than the 4096 that are remembered: remove peers and \
         restart"
    );
    bundle.trust_domain = domain("d0.fed");
    assert!(bundles.insert(bundle).is_ok());
}
