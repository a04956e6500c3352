//! Names of objects that the node makes.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// RFC 1123 label, as a Service's name is.
const LABEL_BYTES_MAX: usize = 63;
/// Of the hash that makes a changed name unique again.
const HASH_BYTES: usize = 5;

/// An RFC 1123 label of its own for each name: the name itself if it is one, else as much of it as
/// fits before a hash.
pub(super) fn label_of(name: &str) -> String {
    let plain = name.replace('.', "-");
    if plain == name && name.len() <= LABEL_BYTES_MAX {
        return plain;
    }
    let kept = &plain[..plain.len().min(LABEL_BYTES_MAX - 2 * HASH_BYTES - 1)];
    let mut label = format!("{}-", kept.trim_end_matches('-'));
    for byte in &Sha256::digest(name.as_bytes())[..HASH_BYTES] {
        write!(label, "{byte:02x}").expect("writing to a String does not fail");
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_label_is_cut_before_a_hash_of_its_own() {
        assert_eq!(label_of("shop-edge"), "shop-edge");
        let dotted = label_of("shop-edge.one");
        assert!(dotted.starts_with("shop-edge-one-") && dotted != label_of("shop-edge-one"));
        let (a, b) = (label_of(&"a".repeat(64)), label_of(&"a".repeat(65)));
        assert_eq!((a.len(), b.len()), (63, 63));
        assert_ne!(a, b);
    }
}
