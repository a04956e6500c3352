//! Real TLS handshakes, ours on one side and anything on the other.

use std::sync::Arc;

use identity::ExpectedPeer;
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::{AlertDescription, CertificateError, Error, HandshakeKind, PeerIncompatible};

use crate::toy::*;

fn west() -> ExpectedPeer {
    ExpectedPeer::Cluster(cluster("west"))
}

#[test]
fn two_clusters_know_each_other() {
    let world = World::new();
    let (east, west_cell) = (world.east_cell(), world.west_cell());
    let pair = Pair::connect(&Arc::new(client(&east, west())), &Arc::new(server(&west_cell)));
    assert!(pair.is_up(), "{:?} {:?}", pair.client_error, pair.server_error);
    assert_eq!(pair.client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(pair.client.alpn_protocol(), Some(ALPN));
    assert_eq!(pair.server.server_name(), None, "no name may tell an onlooker whom we dial");
    let seen = pair.server.peer_certificates().unwrap();
    let known = west_cell.load().verify_peer(seen, &ExpectedPeer::AnyKnown, now()).unwrap();
    assert_eq!((known.id.as_str(), known.cluster.as_str()), (GATEWAY, "east"));
    assert_eq!((known.trust_domain.as_str(), known.not_after), ("east.fed", now() + HOUR));
    assert!(east.refusals().is_empty() && west_cell.refusals().is_empty());
}

/// What the other side shows, what our verifier says, and which alert the other side gets.
fn wrong_peers(world: &World) -> Vec<(&'static str, ToySvid, CertificateError, AlertDescription)> {
    let east = &world.east;
    let below_leaf = east.sub("middle", |p| p.is_ca = IsCa::ExplicitNoCa);
    let self_signed = {
        let key = KeyPair::generate().unwrap();
        let certificate = leaf_params(GATEWAY).self_signed(&key).unwrap();
        ToySvid { chain: vec![certificate.into()], key }
    };
    let since_1970 = |time: std::time::SystemTime| {
        let since = time.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        rustls_pki_types::UnixTime::since_unix_epoch(since)
    };
    let purpose = (CertificateError::InvalidPurpose, AlertDescription::UnsupportedCertificate);
    let unknown = (CertificateError::UnknownIssuer, AlertDescription::UnknownCA);
    let rows = [
        (
            "two URIs",
            east.leaf(GATEWAY, |p| p.subject_alt_names.push(uri("spiffe://a/b"))),
            &purpose,
        ),
        ("no URI", east.leaf(GATEWAY, |p| p.subject_alt_names.clear()), &purpose),
        ("NUL in the id", east.leaf("spiffe://east.fed/a\0b", |_| {}), &purpose),
        (
            "CA as leaf",
            east.leaf(GATEWAY, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            &purpose,
        ),
        ("no key usage", east.leaf(GATEWAY, |p| p.key_usages.clear()), &purpose),
        (
            "client only",
            east.leaf(GATEWAY, |p| {
                p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
            &purpose,
        ),
        (
            "expired",
            east.leaf(GATEWAY, |p| p.not_after = (now() - HOUR / 2).into()),
            &(
                CertificateError::ExpiredContext {
                    time: since_1970(now()),
                    not_after: since_1970(now() - HOUR / 2),
                },
                AlertDescription::CertificateExpired,
            ),
        ),
        (
            "early",
            east.leaf(GATEWAY, |p| p.not_before = (now() + HOUR / 2).into()),
            &(
                CertificateError::NotValidYetContext {
                    time: since_1970(now()),
                    not_before: since_1970(now() + HOUR / 2),
                },
                AlertDescription::CertificateExpired,
            ),
        ),
        ("foreign CA", ToyCa::root("foreign").leaf(GATEWAY, |_| {}), &unknown),
        ("self-signed", self_signed, &unknown),
        ("another's id", east.leaf("spiffe://west.fed/fedgate/gateway/gw-0", |_| {}), &unknown),
        ("unknown domain", east.leaf("spiffe://north.fed/a", |_| {}), &unknown),
        ("leaf signs leaf", below_leaf.leaf(GATEWAY, |_| {}).behind(&[&below_leaf]), &unknown),
    ];
    rows.into_iter()
        .map(|(name, svid, (error, alert))| (name, svid, error.clone(), *alert))
        .collect()
}

#[test]
fn our_server_refuses_wrong_clients() {
    let world = World::new();
    for (name, svid, error, alert) in wrong_peers(&world) {
        let cell = world.west_cell();
        let pair = Pair::connect(&Arc::new(naive::client(Some(&svid))), &Arc::new(server(&cell)));
        assert_eq!(pair.server_error, Some(Error::InvalidCertificate(error)), "{name}");
        assert_eq!(pair.client_error, Some(Error::AlertReceived(alert)), "{name}");
        let refused = cell.last_refusal(&ExpectedPeer::AnyKnown).unwrap();
        let judged = cell.load().verify_peer(&svid.chain, &ExpectedPeer::AnyKnown, now());
        assert_eq!(refused.error, judged.unwrap_err(), "{name}");
        assert_eq!(refused.at, now(), "{name}");
    }
}

#[test]
fn our_client_refuses_wrong_servers() {
    let world = World::new();
    let expected = ExpectedPeer::Cluster(cluster("east"));
    for (name, svid, error, alert) in wrong_peers(&world) {
        let cell = world.west_cell();
        let ours = Arc::new(client(&cell, expected.clone()));
        let pair = Pair::connect(&ours, &Arc::new(naive::server(&svid)));
        assert_eq!(pair.client_error, Some(Error::InvalidCertificate(error)), "{name}");
        assert_eq!(pair.server_error, Some(Error::AlertReceived(alert)), "{name}");
        assert!(cell.last_refusal(&expected).is_some(), "{name}");
    }
}

#[test]
fn the_naive_peer_of_these_tests_is_let_in_when_its_certificate_is_good() {
    // Else the refusals above could have any other reason.
    let world = World::new();
    let svid = world.east.leaf(GATEWAY, |_| {});
    let ours = Arc::new(server(&world.west_cell()));
    assert!(Pair::connect(&Arc::new(naive::client(Some(&svid))), &ours).is_up());
    let ours = client(&world.west_cell(), ExpectedPeer::Cluster(cluster("east")));
    assert!(Pair::connect(&Arc::new(ours), &Arc::new(naive::server(&svid))).is_up());
    let workload = world.east.leaf("spiffe://east.fed/ns/shop/sa/web", |_| {});
    let ours = Arc::new(server(&world.west_cell()));
    assert!(Pair::connect(&Arc::new(naive::client(Some(&workload))), &ours).is_up());
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let world = World::new();
    let ours = Arc::new(server(&world.west_cell()));
    let pair = Pair::connect(&Arc::new(naive::client(None)), &ours);
    assert_eq!(pair.server_error, Some(Error::NoCertificatesPresented));
    let alert = AlertDescription::CertificateRequired;
    assert_eq!(pair.client_error, Some(Error::AlertReceived(alert)));
    // The same for one of ours that was never enrolled.
    let pair = Pair::connect(&Arc::new(client(&world.cell(None), west())), &ours);
    assert_eq!(pair.server_error, Some(Error::NoCertificatesPresented));
}

#[test]
fn a_server_without_an_svid_refuses_to_speak() {
    let world = World::new();
    let ours = Arc::new(server(&world.cell(None)));
    let pair = Pair::connect(&Arc::new(client(&world.east_cell(), west())), &ours);
    assert!(matches!(pair.server_error, Some(Error::General(_))), "{:?}", pair.server_error);
    let alert = AlertDescription::AccessDenied;
    assert_eq!(pair.client_error, Some(Error::AlertReceived(alert)));
}

#[test]
fn a_stolen_certificate_is_worth_nothing_without_its_key() {
    let world = World::new();
    let stolen = world.east.leaf(GATEWAY, |_| {});
    let other_key = KeyPair::generate().unwrap();
    let shown = naive::certified(stolen.chain, &other_key);
    let ours = Arc::new(server(&world.west_cell()));
    let pair = Pair::connect(&Arc::new(naive::client_showing(Some(shown))), &ours);
    let bad = Error::InvalidCertificate(CertificateError::BadSignature);
    assert_eq!(pair.server_error, Some(bad));
    assert_eq!(pair.client_error, Some(Error::AlertReceived(AlertDescription::DecryptError)));
}

#[test]
fn a_good_peer_of_the_wrong_cluster_is_refused() {
    let world = World::new();
    let east = world.east_cell();
    let ours = Arc::new(client(&east, ExpectedPeer::Cluster(cluster("south"))));
    let pair = Pair::connect(&ours, &Arc::new(server(&world.west_cell())));
    let refused = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
    assert_eq!(pair.client_error, Some(refused.clone()));
    let alert = AlertDescription::AccessDenied;
    assert_eq!(pair.server_error, Some(Error::AlertReceived(alert)));
    assert_eq!(
        east.refusals().last().unwrap().error.to_string(),
        "the SVID of spiffe://west.fed/fedgate/gateway/gw-0 is of cluster \"west\", but cluster \
         \"south\" was dialled: mend the ClusterPeer's addresses or trust domains"
    );
    // A bundle alone makes nobody a peer: the domain must belong to a cluster.
    let west_cell = world.west_cell();
    west_cell.replace_trust(world.bundles(), Default::default());
    let ours = Arc::new(client(&east, west()));
    let pair = Pair::connect(&ours, &Arc::new(server(&west_cell)));
    assert_eq!(pair.server_error, Some(refused));
    assert_eq!(
        west_cell.refusals().last().unwrap().error.to_string(),
        "the SVID of spiffe://east.fed/fedgate/gateway/gw-0 is of trust domain \"east.fed\", which \
         belongs to no cluster we know: add the domain to a ClusterPeer"
    );
}

#[test]
fn refusals_are_remembered_up_to_a_limit() {
    let world = World::new();
    let cell = world.west_cell();
    let ours = Arc::new(server(&cell));
    let stranger = Arc::new(naive::client(Some(&ToyCa::root("x").leaf(GATEWAY, |_| {}))));
    for _ in 0..identity::limits::REFUSALS_MAX + 3 {
        assert!(!Pair::connect(&stranger, &ours).is_up());
    }
    assert_eq!(cell.refusals().len(), identity::limits::REFUSALS_MAX);
}

#[test]
fn old_tls_and_other_protocols_are_refused() {
    let world = World::new();
    let ours = Arc::new(server(&world.west_cell()));
    let svid = world.east.leaf(GATEWAY, |_| {});
    let key = naive::certified(svid.chain.clone(), &svid.key);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut old = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
    old.alpn_protocols = vec![ALPN.to_vec()];
    let pair = Pair::connect(&Arc::new(old), &ours);
    let incompatible = PeerIncompatible::SupportedVersionsExtensionRequired;
    let not_offered = PeerIncompatible::Tls12NotOfferedOrEnabled;
    assert!(
        [Some(incompatible.into()), Some(not_offered.into())].contains(&pair.server_error),
        "{:?}",
        pair.server_error
    );
    let mut other = naive::client(Some(&svid));
    other.alpn_protocols = vec![b"h2".to_vec()];
    let pair = Pair::connect(&Arc::new(other), &ours);
    assert_eq!(pair.server_error, Some(Error::NoApplicationProtocol));
}

#[test]
fn our_server_lets_nobody_resume() {
    let world = World::new();
    let ours = Arc::new(server(&world.west_cell()));
    // A client that would love to: rustls' own resumption store is on by default.
    let mut eager = naive::client(Some(&world.east.leaf(GATEWAY, |_| {})));
    eager.enable_early_data = true;
    let eager = Arc::new(eager);
    for attempt in 1..=3 {
        let mut pair = Pair::connect(&eager, &ours);
        assert!(pair.is_up());
        assert_eq!(pair.client.handshake_kind(), Some(HandshakeKind::Full), "{attempt}");
        assert_eq!(pair.client.tls13_tickets_received(), 0, "{attempt}");
        assert!(pair.client.early_data().is_none(), "{attempt}");
    }
}

#[test]
fn our_client_never_resumes() {
    let world = World::new();
    let ours = Arc::new(client(&world.west_cell(), ExpectedPeer::Cluster(cluster("east"))));
    // A server that hands out tickets, and for contrast a client that uses them.
    let mut generous = naive::server(&world.east.leaf(GATEWAY, |_| {}));
    generous.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    let generous = Arc::new(generous);
    let eager = Arc::new(naive::client(Some(&world.west.leaf("spiffe://west.fed/a", |_| {}))));
    let kind = |config: &_| {
        let pair = Pair::connect(config, &generous);
        assert!(pair.is_up());
        assert!(pair.client.tls13_tickets_received() > 0, "the server is not generous");
        pair.client.handshake_kind()
    };
    assert_eq!(kind(&eager), Some(HandshakeKind::Full));
    assert_eq!(kind(&eager), Some(HandshakeKind::Resumed), "the contrast does not work");
    for _ in 0..3 {
        assert_eq!(kind(&ours), Some(HandshakeKind::Full));
    }
}

#[test]
fn quic_handshakes_work_with_the_same_configurations() {
    use rustls::quic::{ClientConnection, ServerConnection, Version};
    let world = World::new();
    let ours = Arc::new(client(&world.east_cell(), west()));
    let theirs = Arc::new(server(&world.west_cell()));
    let name = "any.name".try_into().unwrap();
    let mut client = ClientConnection::new(ours, Version::V1, name, b"client".to_vec()).unwrap();
    let mut server = ServerConnection::new(theirs, Version::V1, b"server".to_vec()).unwrap();
    // Each key change ends what one `write_hs` gives: bytes of two epochs never travel together.
    for _ in 0..8 {
        let mut bytes = Vec::new();
        client.write_hs(&mut bytes);
        server.read_hs(&bytes).unwrap();
        bytes.clear();
        server.write_hs(&mut bytes);
        client.read_hs(&bytes).unwrap();
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.alpn_protocol(), Some(ALPN));
    assert_eq!(server.quic_transport_parameters(), Some(&b"client"[..]));
    assert_eq!(server.peer_certificates().unwrap().len(), 1);
}

#[test]
fn no_configuration_shows_a_key() {
    let world = World::new();
    let svid = world.east.leaf(GATEWAY, |_| {});
    let cell = world.cell(Some(svid.svid()));
    let key = svid.key.serialize_der();
    let shown = [
        format!("{:?}", svid.svid()),
        format!("{cell:?}"),
        format!("{:?}", identity::server_config(cell.clone(), &[ALPN])),
        format!("{:?}", identity::client_config(cell.clone(), west(), ALPN)),
        format!("{:#?}", cell.load()),
    ];
    // Any eight bytes of the key's secret part, as `{:?}` would print a slice of them.
    let secret = &key[key.len() / 4..key.len() / 4 + 8];
    let listed = format!("{secret:?}");
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    for text in shown {
        assert!(text.contains("Svid"), "{text}");
        assert!(!text.contains(listed.trim_matches(['[', ']'])) && !text.contains(&hex), "{text}");
    }
}
