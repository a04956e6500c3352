//! rustls configurations whose certificates and verdicts come from an [`IdentityCell`], anew at
//! each handshake: TLS 1.3, mutual, never resumed, no 0-RTT.
//!
//! Resumption would let a peer in again on a verdict of the past (SPIRE turned it off for that
//! reason), and 0-RTT can be replayed. Both are off on both sides.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::spiffe::Part;
use model::{ClusterName, SpiffeId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::verify_tls13_signature;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    ServerConfig, SignatureScheme, WantsVerifier,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::bundle::BundleSet;
use crate::cell::{ExpectedPeer, IdentityCell, Refusal};
use crate::cluster::{ClusterTrust, HandshakeRefusal, OwnPeer};
use crate::endpoint::verify_endpoint;
use crate::joiner::{Inviter, JoinCertificate, self_signed_key};
use crate::provider::provider;
use crate::verify::VerifyError;

/// For a port that peers dial. It takes a peer of any cluster we know; a workload's SVID passes
/// here too, since it is a good certificate: what it may do is `tunnel::admit`'s decision.
/// Refused are no certificate, one of the wrong kind, an expired one, a foreign CA's, and one
/// whose trust domain belongs to nobody.
pub fn server_config(cell: Arc<IdentityCell>, alpns: &[&[u8]]) -> ServerConfig {
    let judge = Judge::Svid { cell: cell.clone(), expected: ExpectedPeer::AnyKnown, part: None };
    server(judge, OwnCertificate { cell, root: None }, alpns)
}

/// As [`server_config`], for the port that serves joining too: a self-signed certificate without a
/// SPIFFE ID passes as well. It proves a key and no name, and rustls does not tell a verifier the
/// ALPN: that it opens nothing but joining is `tunnel::admit`'s decision.
pub fn public_server_config(cell: Arc<IdentityCell>, alpns: &[&[u8]]) -> ServerConfig {
    let judge = Judge::SvidOrKey { cell: cell.clone() };
    server(judge, OwnCertificate { cell, root: None }, alpns)
}

/// For store streams that come in, inside of the connection that a gateway relays: the peer is a
/// federation node of a cluster we know, and shows so itself.
pub fn federation_server_config(cell: Arc<IdentityCell>, alpn: &[u8]) -> ServerConfig {
    let (expected, part) = (ExpectedPeer::AnyKnown, Some(Part::Federation));
    let judge = Judge::Svid { cell: cell.clone(), expected, part };
    server(judge, OwnCertificate { cell, root: None }, &[alpn])
}

/// For store streams that are opened to a cluster's federation node, whoever relays them.
pub fn federation_client_config(
    cell: Arc<IdentityCell>,
    cluster: ClusterName,
    alpn: &[u8],
) -> ClientConfig {
    let (expected, part) = (ExpectedPeer::Cluster(cluster), Some(Part::Federation));
    let judge = Judge::Svid { cell: cell.clone(), expected, part };
    client(judge, Arc::new(OwnCertificate { cell, root: None }), alpn)
}

/// For join streams that come in: the joiner shows its key, and is shown our chain with the CA
/// certificate at its end, so that it can compare the token's pin.
pub fn join_server_config(
    cell: Arc<IdentityCell>,
    root: CertificateDer<'static>,
    alpn: &[u8],
) -> ServerConfig {
    server(Judge::Key, OwnCertificate { cell, root: Some(root) }, &[alpn])
}

/// For dialling an inviter. `None` takes anyone at all: for the outer connection to a gateway whose
/// CA the joiner cannot know, inside of which another handshake names the inviter. `refusals` keeps
/// why an inviter was refused, as [`ExpectedPeer::AnyKnown`].
pub fn join_client_config(
    certificate: &JoinCertificate,
    inviter: Option<Inviter>,
    refusals: Arc<IdentityCell>,
    alpn: &[u8],
) -> ClientConfig {
    let judge = inviter.map_or(Judge::Anyone, |inviter| Judge::Inviter { inviter, cell: refusals });
    client(judge, Arc::new(JoinKey(certificate.certified().clone())), alpn)
}

/// A server that judges callers in a way of its own.
pub(crate) fn server_with(judge: Judge, cell: Arc<IdentityCell>, alpn: &[u8]) -> ServerConfig {
    server(judge, OwnCertificate { cell, root: None }, &[alpn])
}

/// A server that asks its callers for no certificate.
pub(crate) fn unasking_server(cell: Arc<IdentityCell>, alpn: &[u8]) -> ServerConfig {
    let config = server_builder().with_no_client_auth();
    strict(config.with_cert_resolver(Arc::new(OwnCertificate { cell, root: None })), &[alpn])
}

fn server(judge: Judge, own: OwnCertificate, alpns: &[&[u8]]) -> ServerConfig {
    let config = server_builder().with_client_cert_verifier(Arc::new(PeerVerifier(judge)));
    strict(config.with_cert_resolver(Arc::new(own)), alpns)
}

fn server_builder() -> ConfigBuilder<ServerConfig, WantsVerifier> {
    ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has the suites of TLS 1.3")
}

fn strict(mut config: ServerConfig, alpns: &[&[u8]]) -> ServerConfig {
    config.alpn_protocols = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

/// For dialling `expected`. The name that the dialler gives to rustls or quinn is not looked at
/// and not sent: a peer is known by its SPIFFE ID (X509-SVID §5), and a name on the wire would
/// tell an onlooker whom we dial.
pub fn client_config(cell: Arc<IdentityCell>, expected: ExpectedPeer, alpn: &[u8]) -> ClientConfig {
    let judge = Judge::Svid { cell: cell.clone(), expected, part: None };
    client(judge, Arc::new(OwnCertificate { cell, root: None }), alpn)
}

/// A client that judges in a way of its own. Without `cell` it shows no certificate.
pub(crate) fn client_with(
    judge: Judge,
    cell: Option<Arc<IdentityCell>>,
    alpn: &[u8],
) -> ClientConfig {
    client(judge, Arc::new(OwnCertificate { cell: cell.unwrap_or_default(), root: None }), alpn)
}

fn client(judge: Judge, own: Arc<dyn ResolvesClientCert>, alpn: &[u8]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has the suites of TLS 1.3")
        .dangerous() // rustls' word for a verifier of one's own
        .with_custom_certificate_verifier(Arc::new(PeerVerifier(judge)))
        .with_client_cert_resolver(own);
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config
}

/// Shows the SVID in force; without one the handshake fails.
#[derive(Debug)]
struct OwnCertificate {
    cell: Arc<IdentityCell>,
    /// Shown after the chain.
    root: Option<CertificateDer<'static>>,
}

impl OwnCertificate {
    fn in_force(&self) -> Option<Arc<CertifiedKey>> {
        let certified = self.cell.load().svid.as_ref()?.certified().clone();
        let Some(root) = self.root.as_ref().filter(|root| certified.cert.last() != Some(root))
        else {
            return Some(certified);
        };
        let chain = certified.cert.iter().chain([root]).cloned().collect();
        Some(Arc::new(CertifiedKey::new(chain, certified.key.clone())))
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.in_force()
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(
        &self,
        _root_hints: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.in_force()
    }

    fn has_certs(&self) -> bool {
        self.in_force().is_some()
    }
}

/// Shows the key that joins.
#[derive(Debug)]
struct JoinKey(Arc<CertifiedKey>);

impl ResolvesClientCert for JoinKey {
    fn resolve(
        &self,
        _root_hints: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What a handshake asks of the other side.
#[derive(Debug)]
pub(crate) enum Judge {
    /// An SVID of whom we expect; of this kind, if one is named.
    Svid {
        cell: Arc<IdentityCell>,
        expected: ExpectedPeer,
        part: Option<Part>,
    },
    /// An SVID of anyone we know, or a key without a name.
    SvidOrKey {
        cell: Arc<IdentityCell>,
    },
    /// A key without a name.
    Key,
    Inviter {
        inviter: Inviter,
        cell: Arc<IdentityCell>,
    },
    /// A process of the own cluster.
    Own {
        trust: Arc<ClusterTrust>,
        expected: OwnPeer,
        /// Whether a caller may show nothing.
        optional: bool,
        refusal: HandshakeRefusal,
    },
    /// The server of a bundle endpoint.
    Endpoint {
        bundles: BundleSet,
        endpoint: SpiffeId,
        refusal: HandshakeRefusal,
    },
    Anyone,
}

/// Judges the other side, whichever side that is: an SVID has no role of client or server.
#[derive(Debug)]
struct PeerVerifier(Judge);

impl PeerVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let chain = || [leaf].into_iter().chain(intermediates).cloned().collect::<Vec<_>>();
        let verdict = match &self.0 {
            Judge::Svid { cell, expected, part } => {
                verify_svid(cell, expected, *part, leaf, intermediates, at)
            }
            Judge::SvidOrKey { .. } if self_signed_key(&chain()).is_ok() => Ok(()),
            Judge::SvidOrKey { cell } => {
                verify_svid(cell, &ExpectedPeer::AnyKnown, None, leaf, intermediates, at)
            }
            Judge::Key => self_signed_key(&chain()).map(|_| ()),
            Judge::Inviter { inviter, cell } => {
                kept(cell, &ExpectedPeer::AnyKnown, at, inviter.verify(&chain(), at).map(|_| ()))
            }
            Judge::Own { trust, expected, refusal, .. } => {
                let verdict = trust.verify(&chain(), expected, at).map(|_| ());
                verdict.inspect_err(|error| drop(refusal.set(error.clone())))
            }
            Judge::Endpoint { bundles, endpoint, refusal } => {
                let verdict = verify_endpoint(leaf, intermediates, (bundles, endpoint), at);
                verdict.inspect_err(|error| drop(refusal.set(error.clone())))
            }
            Judge::Anyone => Ok(()),
        };
        verdict.map_err(|error| error.to_tls())
    }

    fn verify_signature(
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let schemes = &provider().signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signature, schemes)
    }
}

/// A refusal is kept: TLS shows operators no more than an alert.
fn verify_svid(
    cell: &IdentityCell,
    expected: &ExpectedPeer,
    part: Option<Part>,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    at: SystemTime,
) -> Result<(), VerifyError> {
    let verdict =
        cell.load().verify_split(leaf, intermediates, expected, at).and_then(|peer| match part {
            Some(wanted) if peer.id.part().is_none_or(|(part, _)| part != wanted) => {
                Err(VerifyError::WrongPart { id: peer.id, wanted: wanted.as_str() })
            }
            _ => Ok(()),
        });
    kept(cell, expected, at, verdict)
}

fn kept(
    cell: &IdentityCell,
    expected: &ExpectedPeer,
    at: SystemTime,
    verdict: Result<(), VerifyError>,
) -> Result<(), VerifyError> {
    if let Err(error) = &verdict {
        let (expected, error) = (expected.clone(), error.clone());
        cell.record_refusal(Refusal { expected, error, at });
    }
    verdict
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::verify_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    /// No hints: they would tell strangers which trust domains we know.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        !matches!(self.0, Judge::Own { optional: true, .. })
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::verify_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// TLS 1.2 is not offered, so rustls never asks; if it did, this is the answer.
fn tls12_refused() -> Error {
    PeerIncompatible::Tls12NotOfferedOrEnabled.into()
}
