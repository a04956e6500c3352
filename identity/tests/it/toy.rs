//! Toy CAs that sign anything, identities made with them, and handshakes without a network.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{BundleSet, Identity, IdentityCell, Svid, TrustDomainOwners};
use model::{ClusterName, SpiffeId, TrustBundle, TrustDomain};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};

pub(crate) const GATEWAY: &str = "spiffe://east.fed/fedgate/gateway/gw-0";
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const ALPN: &[u8] = b"fedgate-tunnel/1";

/// 2026-11-21T12:00:00Z, the only clock of these tests.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_262_400)
}

pub(crate) fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

pub(crate) fn cluster(name: &str) -> ClusterName {
    ClusterName::parse(name).unwrap()
}

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).unwrap())
}

/// A CA without scruples.
pub(crate) struct ToyCa {
    params: CertificateParams,
    key: KeyPair,
    pub(crate) certificate: CertificateDer<'static>,
}

/// A chain, leaf first, with the leaf's key.
pub(crate) struct ToySvid {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: KeyPair,
}

impl ToyCa {
    pub(crate) fn root(domain: &str) -> Self {
        Self::edited_root(domain, |_| {})
    }

    pub(crate) fn edited_root(domain: &str, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = signing_params(domain);
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().into();
        Self { params, key, certificate }
    }

    /// An intermediate CA below this one.
    pub(crate) fn sub(&self, name: &str, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = signing_params(name);
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer()).unwrap().into();
        Self { params, key, certificate }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// A good leaf for `id`, once `edit` has done its worst.
    pub(crate) fn leaf(&self, id: &str, edit: impl FnOnce(&mut CertificateParams)) -> ToySvid {
        self.leaf_of_key(id, KeyPair::generate().unwrap(), edit)
    }

    pub(crate) fn leaf_of_key(
        &self,
        id: &str,
        key: KeyPair,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> ToySvid {
        let mut params = leaf_params(id);
        edit(&mut params);
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        ToySvid { chain: vec![certificate.into()], key }
    }

    pub(crate) fn bundle(&self, domain_name: &str, sequence: u64) -> TrustBundle {
        TrustBundle {
            trust_domain: domain(domain_name),
            sequence,
            refresh_hint_seconds: None,
            x509_authorities: vec![self.certificate.to_vec()],
        }
    }
}

pub(crate) fn leaf_params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Toy");
    params.subject_alt_names = vec![uri(id)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (now() - HOUR).into();
    params.not_after = (now() + HOUR).into();
    params
}

fn signing_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![uri(&format!("spiffe://{name}"))];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (now() - 24 * HOUR).into();
    params.not_after = (now() + 24 * HOUR).into();
    params
}

pub(crate) fn extension(oid: &[u64], critical: bool, content: Vec<u8>) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content);
    extension.set_criticality(critical);
    extension
}

impl ToySvid {
    /// The same leaf with signing certificates behind it.
    pub(crate) fn behind(mut self, signers: &[&ToyCa]) -> Self {
        self.chain.extend(signers.iter().map(|signer| signer.certificate.clone()));
        self
    }

    pub(crate) fn key_der(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der())
    }

    pub(crate) fn svid(&self) -> Svid {
        Svid::new(self.chain.clone(), self.key_der()).unwrap()
    }
}

/// Two clusters that know each other, as east sees it or as west sees it.
pub(crate) struct World {
    pub(crate) east: ToyCa,
    pub(crate) west: ToyCa,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { east: ToyCa::root("east.fed"), west: ToyCa::root("west.fed") }
    }

    pub(crate) fn bundles(&self) -> BundleSet {
        let mut bundles = BundleSet::default();
        bundles.insert(self.east.bundle("east.fed", 1)).unwrap();
        bundles.insert(self.west.bundle("west.fed", 1)).unwrap();
        bundles
    }

    pub(crate) fn owners(&self) -> TrustDomainOwners {
        let mut owners = TrustDomainOwners::default();
        owners.claim(domain("east.fed"), cluster("east")).unwrap();
        owners.claim(domain("west.fed"), cluster("west")).unwrap();
        owners
    }

    pub(crate) fn cell(&self, svid: Option<Svid>) -> Arc<IdentityCell> {
        Arc::new(IdentityCell::new(Identity {
            svid: svid.map(Arc::new),
            bundles: self.bundles(),
            owners: self.owners(),
            ..Identity::default()
        }))
    }

    pub(crate) fn east_cell(&self) -> Arc<IdentityCell> {
        self.cell(Some(self.east.leaf(GATEWAY, |_| {}).svid()))
    }

    pub(crate) fn west_cell(&self) -> Arc<IdentityCell> {
        self.cell(Some(self.west.leaf("spiffe://west.fed/fedgate/gateway/gw-0", |_| {}).svid()))
    }
}

#[derive(Debug)]
struct FixedClock;

impl TimeProvider for FixedClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(now().duration_since(SystemTime::UNIX_EPOCH).unwrap()))
    }
}

pub(crate) fn fixed_clock() -> Arc<dyn TimeProvider> {
    Arc::new(FixedClock)
}

/// Our own configurations, at the tests' clock.
pub(crate) fn server(cell: &Arc<IdentityCell>) -> ServerConfig {
    let mut config = identity::server_config(cell.clone(), &[ALPN]);
    config.time_provider = Arc::new(FixedClock);
    config
}

pub(crate) fn client(cell: &Arc<IdentityCell>, expected: identity::ExpectedPeer) -> ClientConfig {
    let mut config = identity::client_config(cell.clone(), expected, ALPN);
    config.time_provider = Arc::new(FixedClock);
    config
}

/// A peer that believes everything and shows what it is told to show, in place of a hostile one.
pub(crate) mod naive {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
    use rustls::sign::CertifiedKey;
    use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
    use rustls_pki_types::ServerName;

    use super::*;

    pub(crate) fn client(shown: Option<&ToySvid>) -> ClientConfig {
        client_showing(shown.map(|svid| certified(svid.chain.clone(), &svid.key)))
    }

    pub(crate) fn client_showing(shown: Option<CertifiedKey>) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(BelieveAll));
        let mut config = match shown {
            Some(key) => builder
                .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config
    }

    pub(crate) fn server(shown: &ToySvid) -> ServerConfig {
        let key = certified(shown.chain.clone(), &shown.key);
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(BelieveAll))
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config
    }

    /// Not checked for belonging together.
    pub(crate) fn certified(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> CertifiedKey {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = default_provider().key_provider.load_private_key(der).unwrap();
        CertifiedKey::new(chain, key)
    }

    #[derive(Debug)]
    struct BelieveAll;

    impl ServerCertVerifier for BelieveAll {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            default_provider().signature_verification_algorithms.supported_schemes()
        }
    }

    impl ClientCertVerifier for BelieveAll {
        fn root_hint_subjects(&self) -> &[DistinguishedName] {
            &[]
        }
        fn verify_client_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: UnixTime,
        ) -> Result<ClientCertVerified, Error> {
            Ok(ClientCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
}

/// Both ends of one connection, in memory, and each end's first error.
pub(crate) struct Pair {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
    pub(crate) client_error: Option<rustls::Error>,
    pub(crate) server_error: Option<rustls::Error>,
}

impl Pair {
    /// Runs the handshake as far as it goes.
    pub(crate) fn connect(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Self {
        let name = "any.name".try_into().unwrap();
        let mut pair = Self {
            client: ClientConnection::new(client.clone(), name).unwrap(),
            server: ServerConnection::new(server.clone()).unwrap(),
            client_error: None,
            server_error: None,
        };
        pair.settle();
        pair
    }

    /// Carries bytes to and fro until there are none.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut moved = false;
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            if !bytes.is_empty() && self.server_error.is_none() {
                moved = true;
                let mut rest = &bytes[..];
                while !rest.is_empty() && self.server_error.is_none() {
                    self.server.read_tls(&mut rest).unwrap();
                    self.server_error = self.server.process_new_packets().err();
                }
            }
            bytes.clear();
            while self.server.wants_write() {
                self.server.write_tls(&mut bytes).unwrap();
            }
            if !bytes.is_empty() && self.client_error.is_none() {
                moved = true;
                let mut rest = &bytes[..];
                while !rest.is_empty() && self.client_error.is_none() {
                    self.client.read_tls(&mut rest).unwrap();
                    self.client_error = self.client.process_new_packets().err();
                }
            }
            if !moved {
                return;
            }
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.client_error.is_none()
            && self.server_error.is_none()
            && !self.client.is_handshaking()
            && !self.server.is_handshaking()
    }
}
