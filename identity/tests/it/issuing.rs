//! What the CA signs, and what it refuses to sign.

use std::time::Duration;

use identity::{BundleSet, Ca, IssueError, SvidKeyPair, verify_chain};
use model::SpiffeId;
use rcgen::{
    Attribute, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::toy::*;

fn ca() -> (tempfile::TempDir, Ca) {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::load_or_create(folder.path(), &domain("east.fed"), now()).unwrap();
    (folder, ca)
}

fn csr(key: &KeyPair, edit: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    edit(&mut params);
    params.serialize_request(key).unwrap().der().to_vec()
}

fn issue(ca: &Ca, csr: &[u8], id: &SpiffeId) -> Result<(), IssueError> {
    ca.issue(csr, id, HOUR, now()).map(drop)
}

#[test]
fn an_enrolment_from_key_to_svid() {
    let (_folder, ca) = ca();
    let gateway = id(GATEWAY);
    let pair = SvidKeyPair::generate().unwrap();
    let csr = pair.csr_der(&gateway).unwrap();
    let svid = pair.into_svid(ca.issue(&csr, &gateway, 24 * HOUR, now()).unwrap()).unwrap();
    assert_eq!(svid.id(), &gateway);
    assert_eq!(svid.not_before(), now() - Duration::from_secs(60));
    assert_eq!(svid.not_after(), now() + 24 * HOUR);
    assert_eq!(svid.renew_at(), now() + HOUR);
    let mut bundles = BundleSet::default();
    bundles.insert(ca.bundle()).unwrap();
    let verify = |when| verify_chain(svid.chain(), &bundles, when).is_ok();
    assert!(verify(now()) && verify(now() - Duration::from_secs(59)), "clocks may differ a little");
    assert!(!verify(now() - Duration::from_secs(61)) && !verify(now() + 25 * HOUR));
}

#[test]
fn the_svid_has_the_profile_and_nothing_else() {
    let (_folder, ca) = ca();
    let key = KeyPair::generate().unwrap();
    // Nothing of the request's subject comes through.
    let request = csr(&key, |p| {
        p.distinguished_name.push(rcgen::DnType::CommonName, "admin");
    });
    let chain = ca.issue(&request, &id(GATEWAY), HOUR, now()).unwrap();
    assert_eq!(chain.len(), 1);
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    assert_eq!(leaf.subject().to_string(), "O=Fedgate");
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(*names, [x509_parser::extensions::GeneralName::URI(GATEWAY)]);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.flags == 1, "digitalSignature alone, critical");
    let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && purposes.client_auth && purposes.other.is_empty());
    assert!(!leaf.is_ca());
    assert_eq!(leaf.extensions().len(), 6, "names, usage, purposes, constraints, two key ids");
    let serials: std::collections::BTreeSet<_> = (0..50)
        .map(|_| {
            let chain = ca.issue(&request, &id(GATEWAY), HOUR, now()).unwrap();
            let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
            assert_eq!(leaf.raw_serial().len(), 16);
            assert!(leaf.raw_serial()[0] < 0x80, "positive");
            leaf.raw_serial().to_vec()
        })
        .collect();
    assert_eq!(serials.len(), 50);
}

#[test]
fn three_kinds_of_keys_are_certified_as_they_are() {
    let (_folder, ca) = ca();
    let mut bundles = BundleSet::default();
    bundles.insert(ca.bundle()).unwrap();
    for algorithm in
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
    {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let chain = ca.issue(&csr(&key, |_| {}), &id(GATEWAY), HOUR, now()).unwrap();
        assert!(verify_chain(&chain, &bundles, now()).is_ok());
        identity::Svid::new(chain, key.serialize_der().into()).unwrap();
    }
}

#[test]
fn an_svid_never_outlives_the_ca() {
    let (_folder, ca) = ca();
    let request = csr(&KeyPair::generate().unwrap(), |_| {});
    let end = ca.not_after();
    let pair = SvidKeyPair::generate().unwrap();
    let own = pair.csr_der(&id(GATEWAY)).unwrap();
    let late = ca.issue(&own, &id(GATEWAY), 24 * HOUR, end - HOUR).unwrap();
    assert_eq!(pair.into_svid(late).unwrap().not_after(), end);
    let refused = ca.issue(&request, &id(GATEWAY), HOUR, end).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the CA is not valid now (2036-11-18T12:00:00Z), only from 2026-11-21T11:59:00Z to \
         2036-11-18T12:00:00Z: set the clock, or make a new root by `fedctl certs rotate`"
    );
    assert!(ca.issue(&request, &id(GATEWAY), HOUR, now() - HOUR).is_err());
}

#[test]
fn only_sensible_lifetimes_and_ids_are_issued() {
    let (_folder, ca) = ca();
    let request = csr(&KeyPair::generate().unwrap(), |_| {});
    for (lifetime, seconds) in [(Duration::ZERO, 0), (25 * HOUR, 90000)] {
        let error = ca.issue(&request, &id(GATEWAY), lifetime, now()).unwrap_err();
        let text = format!("a lifetime of {seconds} s was asked for: ask for 1 to 86400 s");
        assert_eq!(error.to_string(), text);
        assert_eq!(error.code().to_string(), "FED3005");
    }
    assert_eq!(
        issue(&ca, &request, &id("spiffe://west.fed/a")).unwrap_err().to_string(),
        "spiffe://west.fed/a is of trust domain \"west.fed\": this CA issues for \"east.fed\" only"
    );
    assert_eq!(
        issue(&ca, &request, &id("spiffe://east.fed")).unwrap_err().to_string(),
        "spiffe://east.fed has no path: it names the trust domain itself, which no SVID may"
    );
}

#[test]
fn wrong_requests_are_refused_with_their_reason() {
    let (_folder, ca) = ca();
    let key = KeyPair::generate().unwrap();
    let good = csr(&key, |_| {});
    let mut trailing = good.clone();
    trailing.push(0);
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let name = |found: &str| {
        format!("the CSR asks for the name {found}: ask for none, or for {GATEWAY} alone")
    };
    let named = |names: Vec<SanType>| csr(&key, |p| p.subject_alt_names = names);
    let other = "spiffe://east.fed/fedgate/gateway/gw-1";
    let extension_text = |oid| {
        format!("the CSR asks for the extension {oid}: ask for none, or for the SPIFFE ID alone")
    };
    for (name, request, text) in [
        ("empty", vec![], "the CSR is malformed: ".to_owned()),
        ("junk", vec![0x30; 100], "the CSR is malformed: ".into()),
        (
            "trailing",
            trailing,
            "the CSR is malformed: it has 1 trailing byte(s): send a PKCS#10".into(),
        ),
        ("large", vec![0; 8193], "the CSR has 8193 bytes: send at most 8192".into()),
        (
            "forged",
            forged,
            "the CSR's signature is false: sign it with the key that it asks a certificate for"
                .into(),
        ),
        (
            "RSA",
            csr(&rsa, |_| {}),
            "the CSR's key is of type 1.2.840.113549.1.1.1: use P-256, P-384 or Ed25519".into(),
        ),
        (
            "P-521",
            csr(&p521, |_| {}),
            "the CSR's key is of type 1.2.840.10045.2.1 1.3.132.0.35: use P-256, P-384 or Ed25519"
                .into(),
        ),
        ("another id", named(vec![uri(other)]), name(&format!("URI({other})"))),
        (
            "two ids",
            named(vec![uri(GATEWAY), uri(other)]),
            name(&format!("URI({GATEWAY}), URI({other})")),
        ),
        (
            "DNS beside it",
            named(vec![uri(GATEWAY), SanType::DnsName("a.b".try_into().unwrap())]),
            name(&format!("URI({GATEWAY}), DNSName(a.b)")),
        ),
        (
            "control characters",
            named(vec![uri("spiffe://east.fed/a\n\0")]),
            name("URI(spiffe://east.fed/a\\n\\0)"),
        ),
        ("to be a CA", csr(&key, |p| p.is_ca = IsCa::ExplicitNoCa), extension_text("2.5.29.19")),
        (
            "key usage",
            csr(&key, |p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]),
            extension_text("2.5.29.15"),
        ),
        (
            "purposes",
            csr(&key, |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            extension_text("2.5.29.37"),
        ),
    ] {
        let error = issue(&ca, &request, &id(GATEWAY)).unwrap_err().to_string();
        assert!(error.starts_with(&text), "{name}: {error}");
    }
    assert!(issue(&ca, &good, &id(GATEWAY)).is_ok());
    assert!(issue(&ca, &named(vec![uri(GATEWAY)]), &id(GATEWAY)).is_ok());
}

#[test]
fn other_attributes_are_refused() {
    let (_folder, ca) = ca();
    let key = KeyPair::generate().unwrap();
    // challengePassword, PKCS#9: SET { UTF8String "pw" }
    let password =
        Attribute { oid: &[1, 2, 840, 113549, 1, 9, 7], values: b"\x31\x04\x0c\x02pw".to_vec() };
    let params = CertificateParams::default();
    let request = params.serialize_request_with_attributes(&key, vec![password]).unwrap();
    assert_eq!(
        issue(&ca, request.der(), &id(GATEWAY)).unwrap_err().to_string(),
        "the CSR has the attribute 1.2.840.113549.1.9.7: only an extensionRequest is read"
    );
}

#[test]
fn a_request_with_a_swapped_key_proves_nothing() {
    let (_folder, ca) = ca();
    let (mine, victim) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut request = csr(&mine, |_| {});
    let at = request
        .windows(mine.public_key_raw().len())
        .position(|window| window == mine.public_key_raw())
        .unwrap();
    request[at..at + victim.public_key_raw().len()].copy_from_slice(victim.public_key_raw());
    assert_eq!(issue(&ca, &request, &id(GATEWAY)), Err(IssueError::Signature));
}
