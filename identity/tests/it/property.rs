//! Properties over many chains: no bundle vouches for another domain, no altered byte goes through.

use identity::{BundleSet, Ca, ExpectedPeer, Identity, SvidKeyPair, peer_id, verify_chain};
use proptest::prelude::*;

use crate::toy::*;

/// How a chain is put together.
#[derive(Debug, Clone)]
struct Recipe {
    path: String,
    /// Names of the intermediates below the signing root: any, also the other side's domain.
    intermediates: Vec<String>,
    /// Sent along although it is not needed: either root.
    extras: Vec<bool>,
    a_first: bool,
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let name = prop_oneof![Just("a.fed".to_owned()), Just("b.fed".to_owned()), "[a-z]{1,8}"];
    (
        "(/[a-zA-Z0-9_.-]{1,12}[a-z]){1,3}",
        prop::collection::vec(name, 0..3),
        prop::collection::vec(any::<bool>(), 0..3),
        any::<bool>(),
    )
        .prop_map(|(path, intermediates, extras, a_first)| Recipe {
            path,
            intermediates,
            extras,
            a_first,
        })
}

/// A leaf for `id` at the end of the recipe's chain below `root`.
fn chain(root: &ToyCa, other: &ToyCa, id: &str, recipe: &Recipe) -> ToySvid {
    let mut signers: Vec<ToyCa> = Vec::new();
    for name in &recipe.intermediates {
        let next = signers.last().unwrap_or(root).sub(name, |_| {});
        signers.push(next);
    }
    let mut sent: Vec<&ToyCa> = signers.iter().rev().collect();
    sent.extend(recipe.extras.iter().map(|own| if *own { root } else { other }));
    signers.last().unwrap_or(root).leaf(id, |_| {}).behind(&sent)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_verifier_of_a_and_b_never_takes_an_id_of_a_signed_by_b(recipe in recipe()) {
        let (a, b) = (ToyCa::root("a.fed"), ToyCa::root("b.fed"));
        let mut bundles = BundleSet::default();
        let mut both = vec![
            (cluster("a"), a.bundle("a.fed", 1)),
            (cluster("b"), b.bundle("b.fed", 1)),
        ];
        if !recipe.a_first {
            both.reverse();
        }
        prop_assert!(bundles.replace_all(both).is_empty());
        let mut identity = Identity { bundles, ..Identity::default() };
        identity.owners.claim(domain("a.fed"), cluster("a")).unwrap();
        identity.owners.claim(domain("b.fed"), cluster("b")).unwrap();

        let forged = chain(&b, &a, &format!("spiffe://a.fed{}", recipe.path), &recipe);
        prop_assert!(verify_chain(&forged.chain, &identity.bundles, now()).is_err());
        for expected in [
            ExpectedPeer::AnyKnown,
            ExpectedPeer::Cluster(cluster("a")),
            ExpectedPeer::Cluster(cluster("b")),
        ] {
            prop_assert!(identity.verify_peer(&forged.chain, &expected, now()).is_err());
        }
        // The same chain with an id of B is good, so it is the domain that made the difference.
        let honest = chain(&b, &a, &format!("spiffe://b.fed{}", recipe.path), &recipe);
        let expected = ExpectedPeer::Cluster(cluster("b"));
        let judged = identity.verify_peer(&honest.chain, &expected, now());
        prop_assert!(judged.is_ok(), "{:?}", judged);
    }

    #[test]
    fn no_altered_leaf_is_taken_and_nothing_panics(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 1..4),
    ) {
        let root = ToyCa::root("a.fed");
        let good = root.leaf("spiffe://a.fed/x", |_| {});
        let mut bundles = BundleSet::default();
        bundles.insert(root.bundle("a.fed", 1)).unwrap();
        let mut altered = good.chain[0].to_vec();
        for (index, bits) in flips {
            let at = index.index(altered.len());
            altered[at] ^= bits;
        }
        let same = altered == good.chain[0].as_ref();
        let judged = verify_chain(&[altered.clone().into()], &bundles, now());
        prop_assert_eq!(judged.is_ok(), same);
        // The same bytes as an authority: refused or taken, but no panic.
        let mut bundle = root.bundle("a.fed", 2);
        bundle.x509_authorities.push(altered);
        let _ = bundles.insert(bundle);
    }

    #[test]
    fn an_altered_request_certifies_no_other_key_and_nothing_panics(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 1..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::load_or_create(folder.path(), &domain("a.fed"), now()).unwrap();
        let name = id("spiffe://a.fed/x");
        let pair = SvidKeyPair::generate().unwrap();
        let mut request = pair.csr_der(&name).unwrap();
        for (index, bits) in flips {
            let at = index.index(request.len());
            request[at] ^= bits;
        }
        // A bit that no signature covers may differ; the key and the name may not.
        if let Ok(chain) = ca.issue(&request, &name, HOUR, now()) {
            prop_assert_eq!(peer_id(&chain).unwrap(), name);
            prop_assert!(pair.into_svid(chain).is_ok());
        }
    }
}
