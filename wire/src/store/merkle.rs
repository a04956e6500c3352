//! The digest that a Head signs: a Merkle tree over records, by namespace.
//!
//! ```text
//! leaf           SHA-256(0x00 ‖ key ‖ record)
//! inner node     SHA-256(0x01 ‖ left ‖ right); a node without a partner goes up as it is
//! namespace node SHA-256(0x02 ‖ length of the name, 1 byte ‖ name ‖ root of its leaves)
//! digest         root of the namespace nodes; SHA-256 of nothing when there are none
//! ```
//!
//! Leaves stand in order of keys, namespaces in order of names (cluster-wide records, whose name is
//! empty, first). A reader that may not see a record or a namespace gets its hash and arrives at the
//! same digest.

use std::collections::BTreeMap;

use model::Namespace;
use sha2::{Digest, Sha256};

use super::key::StoreKey;

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The digest over no records: SHA-256 of the empty string, as RFC 6962 §2.1 has it.
pub const EMPTY_DIGEST: Hash = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

const LEAF: u8 = 0;
const INNER: u8 = 1;
const NAMESPACE: u8 = 2;

/// The leaf of a record: over its key's bytes and its own.
pub fn leaf_hash(key: &[u8], record: &[u8]) -> Hash {
    Sha256::new().chain_update([LEAF]).chain_update(key).chain_update(record).finalize().into()
}

/// The node of a namespace over its leaves in order of keys; `None` for no leaves: a namespace
/// without records is not in the tree.
pub fn namespace_node(
    namespace: Option<&Namespace>,
    leaves: impl IntoIterator<Item = Hash>,
) -> Option<Hash> {
    let root = root(leaves.into_iter().collect())?;
    let name = namespace.map_or("", Namespace::as_str);
    let length = u8::try_from(name.len()).expect("a namespace has at most 63 bytes");
    let hash = Sha256::new().chain_update([NAMESPACE, length]).chain_update(name);
    Some(hash.chain_update(root).finalize().into())
}

/// The digest over namespace nodes in order of names.
pub fn digest_of_nodes(nodes: impl IntoIterator<Item = Hash>) -> Hash {
    root(nodes.into_iter().collect()).unwrap_or(EMPTY_DIGEST)
}

/// The digest over a whole set of records, in whatever order they come; of a key that comes twice
/// the last one counts.
pub fn digest_of_records<'a>(records: impl IntoIterator<Item = (&'a StoreKey, &'a [u8])>) -> Hash {
    let mut namespaces: BTreeMap<Option<&Namespace>, BTreeMap<&StoreKey, Hash>> = BTreeMap::new();
    for (key, record) in records {
        let leaves = namespaces.entry(key.namespace.as_ref()).or_default();
        leaves.insert(key, leaf_hash(&key.encode(), record));
    }
    digest_of_nodes(
        namespaces
            .into_iter()
            .filter_map(|(name, leaves)| namespace_node(name, leaves.into_values())),
    )
}

fn root(mut level: Vec<Hash>) -> Option<Hash> {
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => inner(left, right),
                odd => odd[0],
            })
            .collect();
    }
    level.pop()
}

fn inner(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([INNER]).chain_update(left).chain_update(right).finalize().into()
}
