//! What joining goes by before the two sides know each other's trust domains: the joiner's key, in
//! a certificate that it signs itself, and the inviter's CA, by a pin.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use model::{SpiffeId, TrustBundle};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use x509_parser::oid_registry::OID_SIG_ED25519;

use crate::bundle::BundleSet;
use crate::profile::{check_signing, first_uri, parse};
use crate::provider::provider;
use crate::verify::{VerifiedPeer, VerifyError, verify_leaf};

/// What a joiner shows: its federation key's public half, signed by that key. It names nobody.
pub struct JoinCertificate(Arc<CertifiedKey>);

/// Why a key could not be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the federation key cannot be shown in a certificate: {reason}: it is an Ed25519 key")]
pub struct JoinCertificateError {
    reason: String,
}

impl JoinCertificate {
    /// `key` is an Ed25519 key in PKCS#8.
    pub fn of_key(key: &PrivatePkcs8KeyDer<'_>) -> Result<Self, JoinCertificateError> {
        let failed = |reason: String| JoinCertificateError { reason };
        let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(key, &rcgen::PKCS_ED25519)
            .map_err(|error| failed(error.to_string()))?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let certificate =
            params.self_signed(&pair).map_err(|error| failed(error.to_string()))?.der().clone();
        let certified =
            CertifiedKey::from_der(vec![certificate], key.clone_key().into(), provider());
        Ok(Self(Arc::new(certified.map_err(|error| failed(error.to_string()))?)))
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.0.cert[0]
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.0
    }
}

/// Shows nothing: there is a key in it.
impl fmt::Debug for JoinCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinCertificate(..)")
    }
}

/// The key in a chain that is one self-signed Ed25519 certificate without a SPIFFE ID, as its
/// SubjectPublicKeyInfo in DER. The handshake proves that the peer has the key; validity times are
/// not looked at, since nobody but the key vouches for them.
pub fn self_signed_key(chain: &[CertificateDer<'_>]) -> Result<Vec<u8>, VerifyError> {
    let leaf = chain.first().ok_or(VerifyError::NoCertificate)?;
    let wrong = |found: &str| Err(VerifyError::NotSelfSigned { found: found.into() });
    if chain.len() > 1 {
        return wrong("it came with others");
    }
    let certificate = parse(0, leaf)?;
    if first_uri(&certificate).is_some() {
        return wrong("it names a URI");
    }
    if certificate.signature_algorithm.algorithm != OID_SIG_ED25519 {
        return wrong("its key is not Ed25519");
    }
    if certificate.issuer() != certificate.subject() || certificate.verify_signature(None).is_err()
    {
        return wrong("another key signed it");
    }
    Ok(certificate.public_key().raw.to_vec())
}

/// Whom a token names: one federation node, and the authority that vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inviter {
    /// SHA-256 of the CA certificate, DER.
    pub ca_pin: [u8; 32],
    pub id: SpiffeId,
}

impl Inviter {
    /// The pin of a CA certificate.
    pub fn pin_of(certificate: &[u8]) -> [u8; 32] {
        Sha256::digest(certificate).into()
    }

    /// Judges the chain that the inviter showed, leaf first: the pinned CA certificate is in it,
    /// and vouches for exactly this SPIFFE ID.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<VerifiedPeer, VerifyError> {
        let (leaf, others) = chain.split_first().ok_or(VerifyError::NoCertificate)?;
        let Some(at) = others.iter().position(|der| Self::pin_of(der) == self.ca_pin) else {
            return Err(VerifyError::PinMissing { found: others.len() });
        };
        check_signing(at + 1, &others[at])?;
        let mut bundles = BundleSet::default();
        let bundle = TrustBundle {
            trust_domain: self.id.trust_domain().clone(),
            sequence: 1,
            refresh_hint_seconds: None,
            x509_authorities: vec![others[at].to_vec()],
        };
        bundles
            .insert(bundle)
            .map_err(|error| VerifyError::Malformed { index: at + 1, reason: error.to_string() })?;
        let peer = verify_leaf(leaf, &others[..at], &bundles, now)?;
        if peer.id != self.id {
            return Err(VerifyError::NotTheInviter { id: peer.id, expected: self.id.clone() });
        }
        Ok(peer)
    }
}
