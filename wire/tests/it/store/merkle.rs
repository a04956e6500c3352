//! What the digest promises: every change shows, and who sees less arrives at the same.

use std::collections::BTreeSet;

use bytes::Bytes;
use model::{Namespace, ObjectName};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use wire::store::{
    EMPTY_DIGEST, Entry, Hash, NamespaceUpdate, StoreKey, digest_of_nodes, digest_of_records,
    leaf_hash, namespace_node,
};

use super::samples::{owner_update_of, west};

type Records = Vec<(StoreKey, Bytes)>;
/// A namespace's name, and its keys and records as bytes.
type Plain<'a> = (String, Vec<(Vec<u8>, &'a Bytes)>);

fn key() -> impl Strategy<Value = StoreKey> {
    let namespace = prop::option::of(prop::sample::select(vec!["a", "b", "ab", "z-9"]));
    let name = "[a-c]{1,3}";
    (namespace, name, prop::sample::select(vec![4u16, 9, 4711])).prop_map(
        |(namespace, name, kind)| {
            let namespace = match (kind, namespace) {
                (4 | 9, None) => Some("a"),
                (_, namespace) => namespace,
            };
            StoreKey {
                cluster: west(),
                kind,
                namespace: namespace.map(|name| Namespace::parse(name).unwrap()),
                name: ObjectName::parse(&name).unwrap(),
            }
        },
    )
}

fn records(min: usize) -> impl Strategy<Value = Records> {
    let record = vec(any::<u8>(), 1..8).prop_map(Bytes::from);
    btree_map(key(), record, min..24).prop_map(|map| map.into_iter().collect())
}

fn digest(records: &Records) -> Hash {
    digest_of_records(records.iter().map(|(key, record)| (key, &record[..])))
}

proptest! {
    #[test]
    fn every_change_of_a_record_changes_the_digest(
        records in records(1), at in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        let mut other = records.clone();
        let at = at.index(other.len());
        let mut bytes = other[at].1.to_vec();
        bytes[0] ^= 1 << bit;
        other[at].1 = bytes.into();
        prop_assert_ne!(digest(&records), digest(&other));
    }

    #[test]
    fn a_record_more_or_less_changes_the_digest(
        records in records(1), at in any::<prop::sample::Index>(),
    ) {
        let mut fewer = records.clone();
        fewer.remove(at.index(records.len()));
        prop_assert_ne!(digest(&records), digest(&fewer));
    }

    #[test]
    fn another_key_changes_the_digest(
        records in records(1), at in any::<prop::sample::Index>(), key in key(),
    ) {
        let taken: BTreeSet<_> = records.iter().map(|(key, _)| key.clone()).collect();
        prop_assume!(!taken.contains(&key));
        let mut other = records.clone();
        other[at.index(records.len())].0 = key;
        prop_assert_ne!(digest(&records), digest(&other));
    }

    #[test]
    fn records_that_change_places_change_the_digest(
        records in records(2), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(),
    ) {
        let (a, b) = (a.index(records.len()), b.index(records.len()));
        prop_assume!(records[a].1 != records[b].1);
        let mut other = records.clone();
        (other[a].1, other[b].1) = (records[b].1.clone(), records[a].1.clone());
        prop_assert_ne!(digest(&records), digest(&other));
    }

    #[test]
    fn the_order_in_which_records_come_is_of_no_matter(records in records(0), turn in 0usize..24) {
        let mut other = records.clone();
        other.rotate_left(turn.min(records.len()));
        prop_assert_eq!(digest(&records), digest(&other));
    }

    #[test]
    fn whatever_is_withheld_the_digest_is_the_same(
        records in records(0), hidden in vec(any::<bool>(), 24), whole in vec(any::<bool>(), 6),
    ) {
        let mut update = owner_update_of(&records);
        prop_assert_eq!(update.digest(), digest(&records));
        let mut hidden = hidden.into_iter();
        for (namespace, whole) in update.namespaces.iter_mut().zip(whole) {
            if whole {
                *namespace = NamespaceUpdate::Node(namespace.node().unwrap());
                continue;
            }
            let NamespaceUpdate::Records { entries, .. } = namespace else { unreachable!() };
            for entry in entries {
                if hidden.next().unwrap() {
                    *entry = Entry::Leaf(entry.leaf());
                }
            }
        }
        prop_assert_eq!(update.digest(), digest(&records));
    }

    #[test]
    fn keys_compare_as_their_bytes(a in key(), b in key()) {
        prop_assert_eq!(a.cmp(&b), a.encode().cmp(&b.encode()));
        prop_assert_eq!(StoreKey::decode(&a.encode()).unwrap(), a);
    }

    /// The page's definition, written down a second time and without our types.
    #[test]
    fn the_digest_is_that_of_the_page(records in records(0)) {
        let mut namespaces: Vec<Plain<'_>> = Vec::new();
        for (key, record) in &records {
            let name = key.namespace_str().to_owned();
            let at = namespaces.iter().position(|(other, _)| *other == name);
            let at = at.unwrap_or_else(|| {
                namespaces.push((name, Vec::new()));
                namespaces.len() - 1
            });
            namespaces[at].1.push((key.encode(), record));
        }
        namespaces.sort();
        let hash = |parts: &[&[u8]]| Sha256::digest(parts.concat()).to_vec();
        fn root(nodes: &[Vec<u8>]) -> Vec<u8> {
            // The left subtree is the largest whole one that does not have all, as in RFC 6962.
            if let [only] = nodes {
                return only.clone();
            }
            let left = nodes.len().next_power_of_two() / 2;
            let (a, b) = (root(&nodes[..left]), root(&nodes[left..]));
            Sha256::digest([&[1][..], &a, &b].concat()).to_vec()
        }
        let nodes: Vec<Vec<u8>> = namespaces
            .iter_mut()
            .map(|(name, records)| {
                records.sort();
                let leaf = |(key, record): &(Vec<u8>, &Bytes)| hash(&[&[0], key, record]);
                let leaves: Vec<_> = records.iter().map(leaf).collect();
                hash(&[&[2, name.len() as u8], name.as_bytes(), &root(&leaves)])
            })
            .collect();
        let expected = if nodes.is_empty() { hash(&[]) } else { root(&nodes) };
        prop_assert_eq!(digest(&records).to_vec(), expected);
    }
}

#[test]
fn nothing_has_a_digest_of_its_own() {
    assert_eq!(digest(&vec![]), EMPTY_DIGEST);
    assert_eq!(EMPTY_DIGEST[..], Sha256::digest([])[..]);
    assert_eq!(namespace_node(None, []), None);
    assert_eq!(digest_of_nodes([]), EMPTY_DIGEST);
}

/// A node of one level cannot be passed off as one of another.
#[test]
fn levels_do_not_mix() {
    let (a, b) = (leaf_hash(b"a", b""), leaf_hash(b"b", b""));
    let inner = digest_of_nodes([a, b]);
    assert_ne!(inner, leaf_hash(&a, &b));
    assert_ne!(namespace_node(None, [a]).unwrap(), a);
    assert_ne!(namespace_node(None, [a]), namespace_node(Namespace::parse("a").ok().as_ref(), [a]));
    assert_ne!(digest_of_nodes([a, b]), digest_of_nodes([b, a]));
    assert_ne!(digest_of_nodes([a, b, b]), digest_of_nodes([a, b]));
}
