//! Documents against `testdata/bundle/bundle.json`, whose keys were written with openssl's view of
//! the certificates beside it.

use proptest::prelude::*;

use super::*;

const DOCUMENT: &str = include_str!("../../testdata/bundle/bundle.json");
const P256: &[u8] = include_bytes!("../../testdata/bundle/p256.der");
const P384: &[u8] = include_bytes!("../../testdata/bundle/p384.der");
const RSA: &[u8] = include_bytes!("../../testdata/bundle/rsa.der");
const ED25519: &[u8] = include_bytes!("../../testdata/bundle/ed25519.der");
/// Its curve is not one of JWA's NIST curves, though its point is as long as one of P-256.
const SECP256K1: &[u8] = include_bytes!("../../testdata/bundle/secp256k1.der");

fn west() -> TrustDomain {
    TrustDomain::parse("west.example").unwrap()
}

fn bundle(authorities: &[&[u8]]) -> TrustBundle {
    TrustBundle {
        trust_domain: west(),
        sequence: 12,
        refresh_hint_seconds: Some(300),
        x509_authorities: authorities.iter().map(|der| der.to_vec()).collect(),
    }
}

fn error(text: &str) -> String {
    parse_bundle(text, &west()).unwrap_err().to_string()
}

fn with_key(members: &str) -> String {
    format!("{{\"keys\":[{members}]}}")
}

#[test]
fn the_golden_document_is_read_and_written() {
    let all = bundle(&[P256, P384, RSA, ED25519]);
    assert_eq!(parse_bundle(DOCUMENT, &west()).unwrap(), all);
    assert_eq!(format_bundle(&all).unwrap(), DOCUMENT.trim_end());
}

#[test]
fn no_key_is_a_bundle_too_and_absent_numbers_have_defaults() {
    let empty = parse_bundle("{\"keys\": []}", &west()).unwrap();
    assert!(empty.x509_authorities.is_empty());
    assert_eq!((empty.sequence, empty.refresh_hint_seconds), (0, None));
    assert_eq!(parse_bundle(&format_bundle(&empty).unwrap(), &west()).unwrap(), empty);
    let large = parse_bundle("{\"keys\":[],\"spiffe_sequence\":18446744073709551615}", &west());
    assert_eq!(large.unwrap().sequence, u64::MAX);
}

#[test]
fn keys_of_other_uses_are_ignored() {
    let x5c = STANDARD.encode(P256);
    for (members, authorities) in [
        (r#"{"kty":"EC","use":"jwt-svid","kid":"a"}"#.to_string(), 0),
        (r#"{"kty":"EC","use":"wit-svid"}"#.to_string(), 0),
        (r#"{"kty":"EC"}"#.to_string(), 0),
        (format!(r#"{{"use":"x509-svid","x5c":["{x5c}"]}}"#), 0),
        (format!(r#"{{"kty":"EC","use":7,"x5c":["{x5c}"]}}"#), 0),
        (format!(r#"{{"kty":"EC","use":"x509-svid","x5c":["{x5c}"]}}"#), 1),
        (format!(r#"{{"kty":"EC","use":"x509-svid","x5c":["{x5c}", "not read"]}}"#), 1),
    ] {
        let read = parse_bundle(&with_key(&members), &west()).unwrap();
        assert_eq!(read.x509_authorities.len(), authorities, "{members}");
    }
}

#[test]
fn errors_name_the_place_the_value_and_the_rule() {
    let key = |x5c: &str| with_key(&format!(r#"{{"kty":"EC","use":"x509-svid","x5c":{x5c}}}"#));
    let cut = STANDARD.encode(&P256[..P256.len() - 1]);
    let longer = STANDARD.encode([P256, b"!"].concat());
    let foreign = STANDARD.encode(SECP256K1);
    for (text, wanted) in [
        ("", "bundle = \"\": EOF while parsing a value at line 1 column 0"),
        ("[]", "bundle = \"[]\": a bundle document is a JSON object with the member \"keys\""),
        ("{}", "bundle.keys = (absent): a bundle has \"keys\"; an empty array revokes them all"),
        ("{\"keys\":{}}", "bundle.keys = Object {}: it must be an array of JWKs"),
        ("{\"keys\":[7]}", "bundle.keys[0] = Number(7): a JWK is a JSON object"),
        (
            "{\"keys\":[],\"spiffe_sequence\":-1}",
            "bundle.spiffe_sequence = Number(-1): it must be an integer from 0 to 2^64 - 1",
        ),
        (
            "{\"keys\":[],\"spiffe_sequence\":1.5}",
            "bundle.spiffe_sequence = Number(1.5): it must be an integer from 0 to 2^64 - 1",
        ),
        (
            "{\"keys\":[],\"spiffe_refresh_hint\":\"300\"}",
            "bundle.spiffe_refresh_hint = String(\"300\"): it must be an integer from 0 to",
        ),
        ("{\"keys\":[],\"keys\":[]}", "the member \"keys\" occurs twice; keep one of them"),
        (&with_key(r#"{"use":"a","use":"b"}"#), "the member \"use\" occurs twice"),
        (
            &with_key(r#"{"kty":"EC","use":"x509-svid"}"#),
            "bundle.keys[0].x5c = (absent): an x509-svid key has one certificate, in base64",
        ),
        (&key("\"x\""), "bundle.keys[0].x5c = String(\"x\"): it must be an array with one"),
        (&key("[\"-_\"]"), "bundle.keys[0].x5c = \"-_\": it must be base64 (RFC 7517 §4.7"),
        (&key("[\"AAAA\"]"), "bundle.keys[0].x5c = 3 bytes: it must be a DER X.509 certificate"),
        (&key(&format!("[{cut:?}]")), "it must be a DER X.509 certificate"),
        (&key(&format!("[{longer:?}]")), "x5c = 1 bytes: bytes follow the certificate"),
        (
            &key(&format!("[{foreign:?}]")),
            "bundle.keys[0].x5c = \"1.2.840.10045.2.1\": the key must be EC (P-256, P-384, P-521)",
        ),
    ] {
        let found = error(text);
        assert!(found.contains(wanted), "{text}\n  gives {found}\n  not   {wanted}");
    }
}

#[test]
fn documents_are_bounded() {
    let spaces = " ".repeat(BUNDLE_BYTES_MAX);
    assert_eq!(
        error(&format!("{{\"keys\":[]}}{spaces}")),
        "bundle = 1048587 bytes: at most 1048576 bytes are allowed"
    );
    let keys = vec!["{}"; BUNDLE_KEYS_MAX + 1].join(",");
    let found = error(&with_key(&keys));
    assert_eq!(found, "bundle.keys = 1025 entries: at most 1024 entries are allowed");
    let key = format!(r#"{{"kty":"EC","use":"x509-svid","x5c":["{}"]}}"#, STANDARD.encode(P256));
    let found = error(&with_key(&vec![key; CERTIFICATES_MAX + 1].join(",")));
    assert_eq!(found, "bundle.keys = 33 entries: at most 32 entries are allowed");
    let deep = format!("{{\"keys\":{}", "[".repeat(100_000));
    assert!(error(&deep).contains("recursion limit exceeded"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*") {
        let _ = parse_bundle(&text, &west());
    }

    #[test]
    fn a_damaged_document_never_panics(place in 0..DOCUMENT.len(), byte in 0x20_u8..0x7f) {
        let mut text = DOCUMENT.as_bytes().to_vec();
        text[place] = byte;
        if let Ok(read) = parse_bundle(&String::from_utf8(text).unwrap(), &west()) {
            let written = format_bundle(&read).unwrap();
            prop_assert_eq!(parse_bundle(&written, &west()).unwrap(), read);
        }
    }
}
