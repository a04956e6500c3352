//! The table of wrong certificates: each is refused, and the text says what is wrong with which.

use identity::{BundleSet, VerifyError, peer_id, verify_chain};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls_pki_types::CertificateDer;

use crate::toy::*;

type Edit = fn(&mut CertificateParams);

fn refusal(chain: &[CertificateDer<'_>], bundles: &BundleSet) -> VerifyError {
    verify_chain(chain, bundles, now()).unwrap_err()
}

#[test]
fn good_chains_are_taken() {
    let world = World::new();
    let with_dns: Edit = |p| {
        p.subject_alt_names.push(SanType::DnsName("gw.example".try_into().unwrap()));
    };
    let without_purposes: Edit = |p| p.extended_key_usages.clear();
    let edits: [Edit; 4] = [|_| {}, with_dns, without_purposes, |p| p.is_ca = IsCa::NoCa];
    for edit in edits {
        let svid = world.east.leaf(GATEWAY, edit);
        let peer = verify_chain(&svid.chain, &world.bundles(), now()).unwrap();
        assert_eq!(peer.id.as_str(), GATEWAY);
        assert_eq!(peer.trust_domain.as_str(), "east.fed");
        assert_eq!(peer.not_after, now() + HOUR);
        assert_eq!(peer_id(&svid.chain).unwrap(), peer.id);
    }
    // A workload is a good peer here; `tunnel::admit` is who does not let it in.
    let workload = world.east.leaf("spiffe://east.fed/ns/shop/sa/web", |_| {});
    assert!(verify_chain(&workload.chain, &world.bundles(), now()).is_ok());
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let svid = world.east.leaf_of_key(GATEWAY, key, |_| {});
        assert!(verify_chain(&svid.chain, &world.bundles(), now()).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn good_intermediates_are_taken() {
    let world = World::new();
    // SPIFFE lets a signing certificate have no SPIFFE ID, or one of another trust domain.
    let edits: [Edit; 4] = [
        |_| {},
        |p| p.subject_alt_names.clear(),
        |p| p.subject_alt_names = vec![uri("spiffe://upstream.fed")],
        |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any],
    ];
    for edit in edits {
        let middle = world.east.sub("east.fed", |_| {});
        let low = middle.sub("low.east.fed", edit);
        let svid = low.leaf(GATEWAY, |_| {}).behind(&[&low, &middle]);
        assert!(verify_chain(&svid.chain, &world.bundles(), now()).is_ok());
        // In another order, with the root and a stranger among them.
        let stranger = ToyCa::root("stranger.fed");
        let svid = low.leaf(GATEWAY, |_| {}).behind(&[&stranger, &middle, &world.east, &low]);
        assert!(verify_chain(&svid.chain, &world.bundles(), now()).is_ok());
    }
}

/// Leaves that a CA signed although it should not have.
const WRONG_LEAVES: &[(&str, Edit, &str)] = &[
    (
        "two URIs",
        |p| p.subject_alt_names.push(uri("spiffe://east.fed/ns/shop/sa/web")),
        "certificate \"spiffe://east.fed/fedgate/gateway/gw-0\" is not an X.509-SVID: its subject \
         alternative name has 2 URIs: issue it with exactly one URI, its SPIFFE ID",
    ),
    (
        "the same URI twice",
        |p| p.subject_alt_names.push(uri(GATEWAY)),
        "certificate \"spiffe://east.fed/fedgate/gateway/gw-0\" is not an X.509-SVID: its subject \
         alternative name has 2 URIs: issue it with exactly one URI, its SPIFFE ID",
    ),
    (
        "no name",
        |p| p.subject_alt_names.clear(),
        "certificate with subject \"O=Toy\" is not an X.509-SVID: its subject alternative name has \
         no URI: issue it with exactly one URI, its SPIFFE ID",
    ),
    (
        "a DNS name only",
        |p| p.subject_alt_names = vec![SanType::DnsName("east.fed".try_into().unwrap())],
        "certificate with subject \"O=Toy\" is not an X.509-SVID: its subject alternative name has \
         no URI: issue it with exactly one URI, its SPIFFE ID",
    ),
    (
        "a CA",
        |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        "certificate \"spiffe://east.fed/fedgate/gateway/gw-0\" is not an X.509-SVID: its basic \
         constraints say cA=true: a signing certificate must not authenticate: present an SVID \
         that it signed",
    ),
    (
        "keyCertSign",
        |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign),
        "certificate \"spiffe://east.fed/fedgate/gateway/gw-0\" is not an X.509-SVID: its key usage \
         has keyCertSign: issue it with a critical key usage of digitalSignature, without \
         keyCertSign and cRLSign",
    ),
    (
        "cRLSign",
        |p| p.key_usages.push(KeyUsagePurpose::CrlSign),
        "certificate \"spiffe://east.fed/fedgate/gateway/gw-0\" is not an X.509-SVID: its key usage \
         has cRLSign: issue it with a critical key usage of digitalSignature, without keyCertSign \
         and cRLSign",
    ),
    (
        "no digitalSignature",
        |p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement],
        "certificate \"spiffe://east.fed/fedgate/gateway/gw-0\" is not an X.509-SVID: its key usage \
         lacks digitalSignature: issue it with a critical key usage of digitalSignature, without \
         keyCertSign and cRLSign",
    ),
    (
        "no key usage",
        |p| p.key_usages.clear(),
        "certificate \"spiffe://east.fed/fedgate/gateway/gw-0\" is not an X.509-SVID: it has no key \
         usage: issue it with a critical key usage of digitalSignature, without keyCertSign and \
         cRLSign",
    ),
    (
        "key usage not critical",
        |p| {
            p.key_usages.clear();
            p.custom_extensions.push(extension(&[2, 5, 29, 15], false, vec![3, 2, 7, 0x80]));
        },
        "certificate \"spiffe://east.fed/fedgate/gateway/gw-0\" is not an X.509-SVID: its key usage \
         is not critical: issue it with a critical key usage of digitalSignature, without \
         keyCertSign and cRLSign",
    ),
    (
        "server only",
        |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        "certificate \"spiffe://east.fed/fedgate/gateway/gw-0\" is not an X.509-SVID: its extended \
         key usage lacks clientAuth: issue it with serverAuth and clientAuth, or without an \
         extended key usage",
    ),
    (
        "client only",
        |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        "certificate \"spiffe://east.fed/fedgate/gateway/gw-0\" is not an X.509-SVID: its extended \
         key usage lacks serverAuth: issue it with serverAuth and clientAuth, or without an \
         extended key usage",
    ),
    (
        "code signing",
        |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning],
        "certificate \"spiffe://east.fed/fedgate/gateway/gw-0\" is not an X.509-SVID: its extended \
         key usage lacks serverAuth and clientAuth: issue it with serverAuth and clientAuth, or \
         without an extended key usage",
    ),
    (
        "expired",
        |p| p.not_after = (now() - HOUR / 2).into(),
        "the SVID of spiffe://east.fed/fedgate/gateway/gw-0 expired at 2026-11-21T11:30:00Z, and \
         now it is 2026-11-21T12:00:00Z: the peer must renew it, or the clocks differ",
    ),
    (
        "not valid yet",
        |p| p.not_before = (now() + HOUR / 2).into(),
        "the SVID of spiffe://east.fed/fedgate/gateway/gw-0 is not valid before \
         2026-11-21T12:30:00Z, and now it is 2026-11-21T12:00:00Z: set the clocks of both sides",
    ),
    (
        "the domain itself",
        |p| p.subject_alt_names = vec![uri("spiffe://east.fed")],
        "certificate \"spiffe://east.fed\" is not an X.509-SVID: its SPIFFE ID has no path, so it \
         names the trust domain itself: issue leaves with a path; only signing certificates go \
         without",
    ),
    (
        "another cluster's domain",
        |p| p.subject_alt_names = vec![uri("spiffe://west.fed/fedgate/gateway/gw-0")],
        "the SVID of spiffe://west.fed/fedgate/gateway/gw-0 is not signed by an authority of trust \
         domain \"west.fed\": no path leads to one: compare the bundle with its owner's",
    ),
    (
        "nobody's domain",
        |p| p.subject_alt_names = vec![uri("spiffe://north.fed/fedgate/gateway/gw-0")],
        "the SVID of spiffe://north.fed/fedgate/gateway/gw-0 is of trust domain \"north.fed\", for \
         which there is no bundle: add the domain to the ClusterPeer that owns it",
    ),
    (
        "the name extension twice",
        |p| {
            let second = b"\x30\x11\x86\x0fspiffe://east/a".to_vec();
            p.custom_extensions.push(extension(&[2, 5, 29, 17], false, second));
        },
        "certificate 0 is malformed: it has an extension twice: send DER X.509 certificates, leaf \
         first",
    ),
    (
        "an unknown critical extension",
        |p| p.custom_extensions.push(extension(&[1, 3, 6, 1, 4, 1, 99999], true, vec![5, 0])),
        "certificate 0 is malformed: UnsupportedCriticalExtension: send DER X.509 certificates, \
         leaf first",
    ),
];

#[test]
fn wrong_leaves_are_refused_with_their_reason() {
    let world = World::new();
    for (name, edit, text) in WRONG_LEAVES {
        let svid = world.east.leaf(GATEWAY, edit);
        let error = refusal(&svid.chain, &world.bundles());
        assert_eq!(error.to_string(), *text, "{name}");
        assert_eq!(error.code().to_string(), "FED3003", "{name}");
    }
}

#[test]
fn wrong_ids_are_refused_and_quoted_safely() {
    let world = World::new();
    for (text, quoted, reason) in [
        (
            "spiffe://east.fed/a\0.west.fed",
            r#""spiffe://east.fed/a\0.west.fed""#,
            "segment has only",
        ),
        ("spiffe://east.fed\0/a", r#""spiffe://east.fed\0/a""#, "a trust domain has only"),
        ("spiffe://east.fed/a%2fb", r#""spiffe://east.fed/a%2fb""#, "segment has only"),
        ("spiffe://east%2efed/a", r#""spiffe://east%2efed/a""#, "a trust domain has only"),
        (
            "spiffe://east.fed/a\n\x1b[31m",
            r#""spiffe://east.fed/a\n\u{1b}[31m""#,
            "segment has only",
        ),
        ("spiffe://east.fed:8443/a", r#""spiffe://east.fed:8443/a""#, "a trust domain has only"),
        ("spiffe://user@east.fed/a", r#""spiffe://user@east.fed/a""#, "a trust domain has only"),
        ("spiffe://east.fed/a?b", r#""spiffe://east.fed/a?b""#, "segment has only"),
        ("spiffe://east.fed/a#b", r#""spiffe://east.fed/a#b""#, "segment has only"),
        ("spiffe://east.fed/../a", r#""spiffe://east.fed/../a""#, "'.' or '..'"),
        ("spiffe://east.fed/a/", r#""spiffe://east.fed/a/""#, "ends with '/'"),
        ("spiffe:///a", r#""spiffe:///a""#, "the trust domain is empty"),
        ("https://east.fed/a", r#""https://east.fed/a""#, "its scheme is not spiffe"),
        ("SPIFFE://east.fed/a", r#""SPIFFE://east.fed/a""#, "upper-case letters"),
        ("spiffe://East.fed/a", r#""spiffe://East.fed/a""#, "upper-case letters"),
    ] {
        let svid = world.east.leaf(text, |_| {});
        let error = refusal(&svid.chain, &world.bundles()).to_string();
        let begin = format!("certificate {quoted} is not an X.509-SVID: its URI {quoted} ");
        assert!(error.starts_with(&begin) && error.contains(reason), "{text:?}: {error}");
        assert!(!error.contains(['\0', '\n', '\x1b']), "{error:?}");
    }
    let long = format!("spiffe://east.fed/{}", "a".repeat(5000));
    let error = refusal(&world.east.leaf(&long, |_| {}).chain, &world.bundles()).to_string();
    assert!(error.len() < 1000 && error.contains("…") && error.contains("2048 bytes"), "{error}");
}

#[test]
fn a_name_that_is_not_utf8_is_refused() {
    let world = World::new();
    let svid = world.east.leaf(GATEWAY, |p| {
        p.subject_alt_names.clear();
        let name = b"\x30\x13\x86\x11spiffe://east/\xff\xfe\xfd".to_vec();
        p.custom_extensions.push(extension(&[2, 5, 29, 17], false, name));
    });
    assert_eq!(
        refusal(&svid.chain, &world.bundles()).to_string(),
        "certificate with subject \"O=Toy\" is not an X.509-SVID: the URI in its subject \
         alternative name is not UTF-8: issue it with an ID like spiffe://<trust-domain>/<path>"
    );
}

#[test]
fn wrong_signers_are_refused_with_their_reason() {
    let world = World::new();
    let no_path = "the SVID of spiffe://east.fed/fedgate/gateway/gw-0 is not signed by an authority \
                   of trust domain \"east.fed\": ";
    let foreign = ToyCa::root("foreign.fed");
    let namesake = ToyCa::root("east.fed");
    let self_signed = {
        let key = KeyPair::generate().unwrap();
        let certificate = leaf_params(GATEWAY).self_signed(&key).unwrap();
        ToySvid { chain: vec![certificate.into()], key }
    };
    let below = |edit: Edit| {
        let middle = world.east.sub("middle", edit);
        middle.leaf(GATEWAY, |_| {}).behind(&[&middle])
    };
    let leaf_as_signer: Edit = |p| p.is_ca = IsCa::ExplicitNoCa;
    for (name, svid, text) in [
        ("foreign", foreign.leaf(GATEWAY, |_| {}), "no path leads to one"),
        ("foreign, root sent", foreign.leaf(GATEWAY, |_| {}).behind(&[&foreign]), "no path leads"),
        (
            "same name, other key",
            namesake.leaf(GATEWAY, |_| {}),
            "a signature in its path is false",
        ),
        ("self-signed", self_signed, "no path leads to one"),
        (
            "intermediate not sent",
            world.east.sub("m", |_| {}).leaf(GATEWAY, |_| {}),
            "no path leads",
        ),
        (
            "cA=false",
            below(leaf_as_signer),
            "a certificate in its path has cA=false and may not sign",
        ),
        (
            "expired intermediate",
            below(|p| p.not_after = (now() - HOUR).into()),
            "a signing certificate in its path expired",
        ),
        (
            "early intermediate",
            below(|p| p.not_before = (now() + HOUR).into()),
            "a signing certificate in its path is not valid yet",
        ),
        (
            "intermediate for code",
            below(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]),
            "a signing certificate in its path has an extended key usage without serverAuth and \
             clientAuth",
        ),
        (
            // permittedSubtrees [0] { base: URI "east.fed" }: it would fit, but cannot be judged.
            "URI name constraint",
            below(|p| {
                let constraint = b"\x30\x0e\xa0\x0c\x30\x0a\x86\x08east.fed".to_vec();
                p.custom_extensions.push(extension(&[2, 5, 29, 30], true, constraint));
            }),
            "a name constraint in its path forbids the URI (URI constraints are not supported)",
        ),
    ] {
        let error = refusal(&svid.chain, &world.bundles()).to_string();
        assert!(error.starts_with(&format!("{no_path}{text}")), "{name}: {error}");
        assert!(error.ends_with(": compare the bundle with its owner's"), "{name}: {error}");
    }
}

#[test]
fn intermediates_need_the_profile_of_signers() {
    let world = World::new();
    let below = |edit: Edit| {
        let middle = world.east.sub("middle", edit);
        let svid = middle.leaf(GATEWAY, |_| {}).behind(&[&middle]);
        refusal(&svid.chain, &world.bundles()).to_string()
    };
    assert_eq!(
        below(|p| p.key_usages = vec![KeyUsagePurpose::CrlSign]),
        "certificate \"spiffe://middle\" may not sign: its key usage lacks keyCertSign: issue \
         signing certificates with keyCertSign"
    );
    assert_eq!(
        below(|p| p.subject_alt_names = vec![uri("spiffe://east.fed/ns/shop/sa/web")]),
        "certificate \"spiffe://east.fed/ns/shop/sa/web\" may not sign: its URI \
         \"spiffe://east.fed/ns/shop/sa/web\" is not the ID of a trust domain: issue signing \
         certificates with spiffe://<trust-domain> and no path"
    );
    assert_eq!(
        below(|p| p.subject_alt_names.push(uri("spiffe://b"))),
        "certificate \"spiffe://middle\" may not sign: its subject alternative name has more than \
         one URI, or one that is not UTF-8: issue signing certificates with spiffe://<trust-domain> \
         and no path"
    );
}

#[test]
fn what_is_no_chain_is_refused() {
    let world = World::new();
    let good = world.east.leaf(GATEWAY, |_| {});
    let leaf = good.chain[0].clone();
    let mut trailing = leaf.to_vec();
    trailing.push(0);
    let many = vec![leaf.clone(); 9];
    let huge: CertificateDer<'_> = vec![0x30; 16 * 1024 + 1].into();
    for (chain, text) in [
        (vec![], "the peer sent no certificate: each side of a connection needs an SVID"),
        (many, "the peer's chain has 9 certificates: at most 8 are read"),
        (vec![huge.clone()], "certificate 0 has 16385 bytes: at most 16384 are read"),
        (vec![leaf.clone(), huge], "certificate 1 has 16385 bytes: at most 16384 are read"),
        (
            vec![trailing.into()],
            "certificate 0 is malformed: it has 1 trailing byte(s): send DER X.509 certificates, leaf first",
        ),
        // The signer first: then the signer is what authenticates.
        (
            vec![world.east.certificate.clone(), leaf.clone()],
            "certificate \"spiffe://east.fed\" is not an X.509-SVID: its SPIFFE ID has no path, so \
             it names the trust domain itself: issue leaves with a path; only signing certificates \
             go without",
        ),
    ] {
        assert_eq!(refusal(&chain, &world.bundles()).to_string(), text);
    }
    for cut in [0, 1, 2, 30, leaf.len() / 2, leaf.len() - 1] {
        let error = refusal(&[leaf[..cut].to_vec().into()], &world.bundles()).to_string();
        assert!(error.starts_with("certificate 0 is malformed: "), "{cut}: {error}");
    }
}

#[test]
fn only_authorities_that_are_valid_now_count() {
    let old = ToyCa::edited_root("east.fed", |p| p.not_after = (now() - HOUR / 4).into());
    let svid = old.leaf(GATEWAY, |_| {});
    let text = "the SVID of spiffe://east.fed/fedgate/gateway/gw-0 cannot be judged: no authority in \
                the bundle of trust domain \"east.fed\" is valid now: export the bundle again from \
                its owner";
    let mut bundles = BundleSet::default();
    bundles.insert(old.bundle("east.fed", 1)).unwrap();
    assert_eq!(refusal(&svid.chain, &bundles).to_string(), text);
    assert!(verify_chain(&svid.chain, &bundles, now() - HOUR / 2).is_ok());
    // SPIFFE Bundle §4.1.3: no keys means that every SVID of the domain is invalid.
    let mut empty = old.bundle("east.fed", 2);
    empty.x509_authorities.clear();
    bundles.insert(empty).unwrap();
    assert_eq!(
        verify_chain(&svid.chain, &bundles, now() - HOUR / 2).unwrap_err().to_string(),
        text
    );
}
