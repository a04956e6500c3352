//! rustls configurations whose certificates and verdicts come from an [`IdentityCell`], anew at
//! each handshake: TLS 1.3, mutual, never resumed, no 0-RTT.
//!
//! Resumption would let a peer in again on a verdict of the past (SPIRE turned it off for that
//! reason), and 0-RTT can be replayed. Both are off on both sides.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::verify_tls13_signature;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::cell::{ExpectedPeer, IdentityCell, Refusal};
use crate::provider::provider;

/// For a port that peers dial. It takes a peer of any cluster we know; a workload's SVID passes
/// here too, since it is a good certificate: what it may do is `tunnel::admit`'s decision.
/// Refused are no certificate, one of the wrong kind, an expired one, a foreign CA's, and one
/// whose trust domain belongs to nobody.
pub fn server_config(cell: Arc<IdentityCell>, alpns: &[&[u8]]) -> ServerConfig {
    let peers = PeerVerifier { cell: cell.clone(), expected: ExpectedPeer::AnyKnown };
    let mut config = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has the suites of TLS 1.3")
        .with_client_cert_verifier(Arc::new(peers))
        .with_cert_resolver(Arc::new(OwnCertificate(cell)));
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
    let peers = PeerVerifier { cell: cell.clone(), expected };
    let mut config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has the suites of TLS 1.3")
        .dangerous() // rustls' word for a verifier of one's own
        .with_custom_certificate_verifier(Arc::new(peers))
        .with_client_cert_resolver(Arc::new(OwnCertificate(cell)));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config
}

/// Shows the SVID in force; without one the handshake fails.
#[derive(Debug)]
struct OwnCertificate(Arc<IdentityCell>);

impl OwnCertificate {
    fn in_force(&self) -> Option<Arc<CertifiedKey>> {
        self.0.load().svid.as_ref().map(|svid| svid.certified().clone())
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

/// Judges the other side, whichever side that is: an SVID has no role of client or server.
#[derive(Debug)]
struct PeerVerifier {
    cell: Arc<IdentityCell>,
    expected: ExpectedPeer,
}

impl PeerVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let identity = self.cell.load();
        match identity.verify_split(leaf, intermediates, &self.expected, at) {
            Ok(_) => Ok(()),
            Err(error) => {
                let alert = error.to_tls();
                self.cell.record_refusal(Refusal { expected: self.expected.clone(), error, at });
                Err(alert)
            }
        }
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
