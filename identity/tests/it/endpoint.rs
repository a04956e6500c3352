//! Bundle endpoints: by which certificate each profile knows one, and that callers show none.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use identity::{
    BundleSet, VerifyError, WebCertificate, spiffe_endpoint_config, spiffe_poller_config,
    web_endpoint_config, web_poller_config,
};
use model::code;
use rcgen::{CertificateParams, SanType};
use rustls::{CertificateError, ClientConfig, Error, ServerConfig};
use rustls_pki_types::CertificateDer;

use crate::toy::*;

const NODE: &str = "spiffe://west.fed/fedgate/federation/node-0";

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// A web server's leaf: a DNS name, no SPIFFE ID.
fn web_leaf(ca: &ToyCa, name: &str) -> ToySvid {
    ca.leaf(NODE, |params: &mut CertificateParams| {
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
    })
}

fn write(folder: &Path, leaf: &ToySvid) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    fs::write(&certificate, pem("CERTIFICATE", &leaf.chain[0])).unwrap();
    fs::write(&key, pem("PRIVATE KEY", leaf.key_der().secret_pkcs8_der())).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    (certificate, key)
}

fn at_test_clock(mut client: ClientConfig) -> Arc<ClientConfig> {
    client.time_provider = fixed_clock();
    Arc::new(client)
}

fn poller(folder: &Path, authority: &CertificateDer<'_>) -> Arc<ClientConfig> {
    let roots = folder.join("roots.pem");
    fs::write(&roots, pem("CERTIFICATE", authority)).unwrap();
    at_test_clock(web_poller_config(Some(&roots)).unwrap())
}

fn refusal(pair: &Pair) -> Option<CertificateError> {
    match &pair.client_error {
        Some(Error::InvalidCertificate(error)) => Some(error.clone()),
        Some(other) => panic!("{other}"),
        None => None,
    }
}

#[test]
fn the_web_profile_knows_an_endpoint_by_its_name_and_authority() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (ToyCa::root("one"), ToyCa::root("two"));
    // `Pair` dials this name.
    for (ca, name, is_good) in
        [(&ours, "any.name", true), (&ours, "other.name", false), (&theirs, "any.name", false)]
    {
        let (certificate, key) = write(folder.path(), &web_leaf(ca, name));
        let shown = Arc::new(WebCertificate::load(certificate, key).unwrap());
        let server = Arc::new(web_endpoint_config(shown));
        let pair = Pair::connect(&poller(folder.path(), &ours.certificate), &server);
        assert_eq!(pair.is_up(), is_good, "{name}: {:?}", pair.client_error);
        assert_eq!(refusal(&pair).is_none(), is_good);
        assert!(pair.server.peer_certificates().is_none(), "a caller shows nothing");
        if is_good {
            assert_eq!(pair.client.alpn_protocol(), Some(&b"http/1.1"[..]));
        }
    }
}

#[test]
fn a_renewed_certificate_is_shown_and_half_a_renewal_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let ca = ToyCa::root("one");
    let (first, second) = (web_leaf(&ca, "any.name"), web_leaf(&ca, "any.name"));
    let (certificate, key) = write(folder.path(), &first);
    let shown = Arc::new(WebCertificate::load(certificate.clone(), key.clone()).unwrap());
    let server: Arc<ServerConfig> = Arc::new(web_endpoint_config(shown.clone()));
    let client = poller(folder.path(), &ca.certificate);
    let seen = || {
        let pair = Pair::connect(&client, &server);
        pair.client.peer_certificates().unwrap()[0].clone()
    };
    assert!(!shown.reload().unwrap(), "it is the same");
    fs::write(&certificate, pem("CERTIFICATE", &second.chain[0])).unwrap();
    let error = shown.reload().unwrap_err();
    assert!(error.to_string().contains("it does not fit the certificate"), "{error}");
    assert_eq!(seen(), first.chain[0]);
    write(folder.path(), &second);
    assert!(shown.reload().unwrap());
    assert_eq!(seen(), second.chain[0]);

    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let error = shown.reload().unwrap_err();
    assert_eq!(error.code(), code::KEY_PERMISSIONS, "{error}");
    fs::remove_file(&certificate).unwrap();
    let error = shown.reload().unwrap_err();
    assert_eq!(error.code(), code::FILE_UNREADABLE);
    assert!(error.to_string().contains("tls.crt: it does not exist"), "{error}");
    let error = web_poller_config(Some(&key)).unwrap_err().to_string();
    assert!(error.contains("it has no CERTIFICATE section"), "{error}");
    assert_eq!(seen(), second.chain[0], "the last good one stays");
}

#[test]
fn the_spiffe_profile_knows_an_endpoint_by_its_exact_id() {
    let world = World::new();
    let (west, impostor) = (&world.west, ToyCa::root("west.fed"));
    let other = "spiffe://west.fed/fedgate/federation/node-1";
    let rows: [(&str, ToySvid, bool); 5] = [
        ("the endpoint", west.leaf(NODE, |_| {}), true),
        ("another of its domain", west.leaf(other, |_| {}), false),
        ("its name by another domain's CA", world.east.leaf(NODE, |_| {}), false),
        ("its name by an unknown CA", impostor.leaf(NODE, |_| {}), false),
        (
            "an expired one",
            west.leaf(NODE, |params| params.not_after = (now() - HOUR / 2).into()),
            false,
        ),
    ];
    for (who, shown, is_good) in rows {
        let server = Arc::new(spiffe_endpoint_config(world.cell(Some(shown.svid()))));
        let (client, refused) = spiffe_poller_config(world.bundles(), id(NODE));
        let pair = Pair::connect(&at_test_clock(client), &server);
        assert_eq!(pair.is_up(), is_good, "{who}: {:?}", pair.client_error);
        assert_eq!(refused.get().is_none(), is_good, "{who}");
        assert!(pair.server.peer_certificates().is_none(), "a caller shows nothing");
        let mut believes_all = naive::client(None);
        believes_all.alpn_protocols = vec![b"http/1.1".to_vec()];
        let pair = Pair::connect(&Arc::new(believes_all), &server);
        assert!(pair.is_up(), "{who}: a poller that asked for nothing would take it");
        if who == "another of its domain" {
            let (id, expected) = (id(other), id(NODE));
            assert_eq!(refused.get(), Some(&VerifyError::NotExpected { id, expected }));
        }
    }
    // Without a bundle of that domain nobody is the endpoint.
    let server = spiffe_endpoint_config(world.cell(Some(west.leaf(NODE, |_| {}).svid())));
    let (client, refused) = spiffe_poller_config(BundleSet::default(), id(NODE));
    let pair = Pair::connect(&at_test_clock(client), &Arc::new(server));
    assert!(!pair.is_up());
    assert!(matches!(refused.get(), Some(VerifyError::UnknownTrustDomain { .. })));
}
