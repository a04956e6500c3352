//! Joining: the joiner's nameless key, the inviter's pin, and the handshakes of federation nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use identity::{
    FederationKey, Inviter, JoinCertificate, federation_client_config, federation_server_config,
    join_client_config, join_server_config, public_server_config, self_signed_key,
};
use rcgen::{CertificateParams, DistinguishedName, IsCa, KeyPair};
use rustls::{AlertDescription, CertificateError, Error};
use rustls_pki_types::CertificateDer;

use crate::toy::*;

const NODE: &str = "spiffe://west.fed/fedgate/federation/node-0";

fn joiner() -> (FederationKey, JoinCertificate) {
    let key = FederationKey::from_seed(&[7; 32]);
    let certificate = key.self_signed().unwrap();
    (key, certificate)
}

fn inviter(ca: &ToyCa) -> Inviter {
    Inviter { ca_pin: Inviter::pin_of(&ca.certificate), id: id(NODE) }
}

#[test]
fn an_inviter_is_its_pinned_ca_and_its_exact_id() {
    let (west, other) = (ToyCa::root("west.fed"), ToyCa::root("west.fed"));
    let leaf = |ca: &ToyCa, id: &str| ca.leaf(id, |_| {});
    let middle = west.sub("west.fed", |_| {});
    let not_a_ca = west.sub("west.fed", |p| p.is_ca = IsCa::ExplicitNoCa);
    let pinned = inviter(&west);
    let good = [leaf(&west, NODE).behind(&[&west]), leaf(&middle, NODE).behind(&[&middle, &west])];
    for svid in good {
        assert_eq!(pinned.verify(&svid.chain, now()).unwrap().id, id(NODE));
    }
    let missing = "and none is the CA that the token pins";
    let gateway = "spiffe://west.fed/fedgate/gateway/gw-0";
    let expired = west.leaf(NODE, |p| p.not_after = (now() - HOUR / 2).into());
    let bad = [
        ("wrong pin", leaf(&other, NODE).behind(&[&other]), missing),
        ("root missing", leaf(&west, NODE), missing),
        ("nothing", ToySvid { chain: vec![], key: KeyPair::generate().unwrap() }, "no certificate"),
        // Anybody can show a CA certificate, which is public.
        ("borrowed root", leaf(&other, NODE).behind(&[&west]), "is not signed by an authority"),
        ("borrowed roots", leaf(&other, NODE).behind(&[&other, &west]), "is not signed by an auth"),
        ("a gateway", leaf(&west, gateway).behind(&[&west]), "but the token names spiffe://west"),
        (
            "another name",
            leaf(&west, "spiffe://west.fed/fedgate/federation/node-1").behind(&[&west]),
            "fedgate/federation/node-1 answered, which the token's CA vouches for",
        ),
        (
            "another domain",
            leaf(&west, "spiffe://east.fed/fedgate/federation/node-0").behind(&[&west]),
            "for which there is no bundle",
        ),
        ("expired", expired.behind(&[&west]), "expired at"),
    ];
    for (name, svid, text) in bad {
        let error = pinned.verify(&svid.chain, now()).unwrap_err().to_string();
        assert!(error.contains(text), "{name}: {error}");
    }
    // Whoever writes tokens can pin what is no CA: then nothing is vouched for.
    let foolish = Inviter { ca_pin: Inviter::pin_of(&not_a_ca.certificate), id: id(NODE) };
    let svid = leaf(&not_a_ca, NODE).behind(&[&not_a_ca]);
    let error = foolish.verify(&svid.chain, now()).unwrap_err().to_string();
    assert!(error.contains("may not sign"), "{error}");
}

#[test]
fn a_joiners_certificate_is_one_self_signed_nameless_ed25519_key() {
    let (key, certificate) = joiner();
    let der = certificate.der().clone();
    assert_eq!(self_signed_key(std::slice::from_ref(&der)).unwrap(), key.public().spki());
    assert_eq!(format!("{certificate:?}"), "JoinCertificate(..)");
    let made = |alg, edit: fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        edit(&mut params);
        let key = KeyPair::generate_for(alg).unwrap();
        CertificateDer::from(params.self_signed(&key).unwrap())
    };
    let ed25519 = &rcgen::PKCS_ED25519;
    let named = made(ed25519, |p| p.subject_alt_names.push(uri(NODE)));
    let p256 = made(&rcgen::PKCS_ECDSA_P256_SHA256, |_| {});
    let signed_by_another = {
        let ca = ToyCa::root("west.fed");
        let key = KeyPair::generate_for(ed25519).unwrap();
        ca.leaf_of_key(NODE, key, |p| p.subject_alt_names.clear()).chain.remove(0)
    };
    let mut altered = der.to_vec();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    let table: [(&[CertificateDer<'_>], &str); 7] = [
        (&[], "the peer sent no certificate"),
        (&[der.clone(), der.clone()], "it came with others"),
        (&[named], "it names a URI"),
        (&[p256], "its key is not Ed25519"),
        (&[signed_by_another], "its key is not Ed25519"),
        (&[altered.into()], "another key signed it"),
        (&[CertificateDer::from(vec![0x30, 3, 1, 1])], "is malformed"),
    ];
    for (chain, text) in table {
        let error = self_signed_key(chain).unwrap_err().to_string();
        assert!(error.contains(text), "{error:?} has not {text:?}");
    }
}

#[test]
fn a_joiner_and_its_inviter_meet() {
    let world = World::new();
    let (_, certificate) = joiner();
    let node = world.cell(Some(world.west.leaf(NODE, |_| {}).svid()));
    let root = world.west.certificate.clone();
    let serve = |alpn| {
        let mut config = join_server_config(node.clone(), root.clone(), alpn);
        config.time_provider = fixed_clock();
        Arc::new(config)
    };
    let dial = |inviter: Inviter| {
        let mut config = join_client_config(&certificate, Some(inviter), Arc::default(), ALPN);
        config.time_provider = fixed_clock();
        Arc::new(config)
    };
    let pair = Pair::connect(&dial(inviter(&world.west)), &serve(ALPN));
    assert!(pair.is_up(), "{:?} {:?}", pair.client_error, pair.server_error);
    let shown = pair.server.peer_certificates().unwrap();
    assert_eq!(shown, std::slice::from_ref(certificate.der()));
    let export = [0; 32];
    assert_eq!(
        pair.client.export_keying_material(export, b"EXPORTER-test", None).unwrap(),
        pair.server.export_keying_material(export, b"EXPORTER-test", None).unwrap()
    );
    let unknown = Error::AlertReceived(AlertDescription::UnknownCA);
    let pair = Pair::connect(&dial(inviter(&world.east)), &serve(ALPN));
    assert_eq!((pair.is_up(), pair.server_error), (false, Some(unknown)));
    let other =
        Inviter { id: id("spiffe://west.fed/fedgate/federation/x"), ..inviter(&world.west) };
    let pair = Pair::connect(&dial(other), &serve(ALPN));
    let denied = Error::AlertReceived(AlertDescription::AccessDenied);
    assert_eq!((pair.is_up(), pair.server_error), (false, Some(denied)));
    assert!(!Pair::connect(&dial(inviter(&world.west)), &serve(b"fedgate-store/1")).is_up());
    // Who has a name shows it elsewhere.
    let named = naive::client(Some(&world.east.leaf(GATEWAY, |_| {})));
    let pair = Pair::connect(&Arc::new(named), &serve(ALPN));
    let refused = Error::InvalidCertificate(CertificateError::InvalidPurpose);
    assert_eq!(pair.server_error, Some(refused));
}

#[test]
fn only_the_public_port_takes_a_nameless_key() {
    let world = World::new();
    let (_, certificate) = joiner();
    let dial = Arc::new(join_client_config(&certificate, None, Arc::default(), ALPN));
    let cell = world.west_cell();
    let mut public = public_server_config(cell.clone(), &[ALPN]);
    public.time_provider = fixed_clock();
    let public = Arc::new(public);
    assert!(Pair::connect(&dial, &public).is_up());
    let pair = Pair::connect(&dial, &Arc::new(server(&cell)));
    let refused = Error::InvalidCertificate(CertificateError::InvalidPurpose);
    assert_eq!(pair.server_error, Some(refused));
    // Everybody else is judged there as everywhere.
    let west = identity::ExpectedPeer::Cluster(cluster("west"));
    let gateway = Arc::new(client(&world.east_cell(), west));
    assert!(Pair::connect(&gateway, &public).is_up());
    let foreign = ToyCa::root("north.fed").leaf("spiffe://north.fed/fedgate/gateway/g", |_| {});
    let pair = Pair::connect(&Arc::new(naive::client(Some(&foreign))), &public);
    assert_eq!(pair.server_error, Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)));
    let nobody = Pair::connect(&Arc::new(naive::client(None)), &public);
    assert_eq!(nobody.server_error, Some(Error::NoCertificatesPresented));
}

#[test]
fn federation_nodes_speak_with_federation_nodes_of_the_right_cluster() {
    let world = World::new();
    let node = |ca: &ToyCa, id: &str| world.cell(Some(ca.leaf(id, |_| {}).svid()));
    let east = node(&world.east, "spiffe://east.fed/fedgate/federation/node-0");
    let dial = |name: &str| {
        let mut config = federation_client_config(east.clone(), cluster(name), ALPN);
        config.time_provider = fixed_clock();
        Arc::new(config)
    };
    let serve = |cell: &Arc<identity::IdentityCell>| {
        let mut config = federation_server_config(cell.clone(), ALPN);
        config.time_provider = fixed_clock();
        Arc::new(config)
    };
    let west = node(&world.west, NODE);
    assert!(Pair::connect(&dial("west"), &serve(&west)).is_up());
    // A gateway in the node's place, on either side.
    let pair = Pair::connect(&dial("west"), &serve(&world.west_cell()));
    let denied = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
    assert_eq!(pair.client_error, Some(denied.clone()));
    let gateway = naive::client(Some(&world.east.leaf(GATEWAY, |_| {})));
    let pair = Pair::connect(&Arc::new(gateway), &serve(&west));
    assert_eq!(pair.server_error, Some(denied.clone()));
    let refused = west.refusals().pop().unwrap().error.to_string();
    let text = "spiffe://east.fed/fedgate/gateway/gw-0 is not a federation: only spiffe://<trust \
                domain>/fedgate/federation/<name> is";
    assert_eq!(refused, text);
    let pair = Pair::connect(&dial("east"), &serve(&west));
    assert_eq!(pair.client_error, Some(denied));
    // A revocation holds from the next handshake on, whatever the bundles say.
    west.replace_revoked(BTreeSet::from([domain("east.fed")]));
    let pair = Pair::connect(&dial("west"), &serve(&west));
    assert_eq!(pair.client_error, Some(Error::AlertReceived(AlertDescription::CertificateRevoked)));
    let refused = west.refusals().pop().unwrap().error.to_string();
    assert!(refused.starts_with("trust domain \"east.fed\" of spiffe://east.fed/"), "{refused}");
    west.replace_revoked(BTreeSet::new());
    assert!(Pair::connect(&dial("west"), &serve(&west)).is_up());
}
