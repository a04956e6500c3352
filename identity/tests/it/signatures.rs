//! The signatures of `docs/reference/store-vectors/signatures.txt`, made with another
//! implementation: ours makes the same ones and judges each as the page has it.

use std::collections::BTreeMap;
use std::path::Path;

use identity::{FederationKey, FederationPublicKey};

#[test]
fn the_vectors_of_the_page_hold() {
    let path = "../docs/reference/store-vectors/signatures.txt";
    let content =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let mut judged = BTreeMap::from([("yes", 0), ("no", 0)]);
    for block in content.split("\n\n").skip(1) {
        let vector = Vector::parse(block);
        check(&vector);
        *judged.get_mut(&*vector.text["valid"]).unwrap() += 1;
    }
    assert_eq!(judged, BTreeMap::from([("yes", 12), ("no", 5)]));
}

fn check(vector: &Vector) {
    let name = &vector.text["vector"];
    let key = FederationKey::from_seed(&vector.bytes("seed").try_into().unwrap());
    assert_eq!(key.public().spki()[..], vector.bytes("spki"), "{name}");
    assert_eq!(key.cluster_id().as_bytes()[..], vector.bytes("cluster_id"), "{name}");
    assert_eq!(key.federation_id().as_bytes()[..], vector.bytes("federation_id"), "{name}");
    assert_eq!(key.key_id().as_bytes()[..], vector.bytes("key_id"), "{name}");
    let domain = &vector.text["domain"];
    let (payload, signature) = (vector.bytes("payload"), vector.bytes("signature"));
    let signature: [u8; 64] = signature.try_into().unwrap();
    let public = FederationPublicKey::from_spki(&vector.bytes("spki")).unwrap();
    let verdict = public.verify(domain.clone().leak(), &payload, &signature);
    // Ed25519 signs deterministically (RFC 8032 §5.1.6): the same bytes, or not this signature.
    let same = key.sign(domain, &payload) == signature;
    match &*vector.text["valid"] {
        "yes" => assert!(verdict.is_ok() && same, "{name}: {verdict:?}"),
        _ => {
            let expected = format!(
                "the signature in domain {domain} is not of key {} over these bytes",
                key.key_id()
            );
            assert_eq!(verdict.unwrap_err().to_string(), expected, "{name}");
        }
    }
}

struct Vector {
    text: BTreeMap<String, String>,
}

impl Vector {
    /// A key that stands on several lines has their values one after the other.
    fn parse(block: &str) -> Self {
        let mut text: BTreeMap<String, String> = BTreeMap::new();
        for line in block.trim_end().lines() {
            let (key, value) = line.split_once(": ").unwrap();
            text.entry(key.into()).or_default().push_str(value);
        }
        Self { text }
    }

    fn bytes(&self, key: &str) -> Vec<u8> {
        let hex = &self.text[key];
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    }
}
