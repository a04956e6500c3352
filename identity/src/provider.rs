//! The one set of cryptographic algorithms, aws-lc-rs, and private keys made with it.

use std::fmt;
use std::sync::{Arc, LazyLock};

use rcgen::PublicKeyData;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls_pki_types::PrivatePkcs8KeyDer;
use zeroize::{Zeroize, Zeroizing};

/// aws-lc-rs with TLS 1.3's suites only, named explicitly: no process-wide default decides.
/// QUIC's Initial packets need AES-128-GCM-SHA256 (RFC 9001 §5.2), which is among them.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| suite.tls13().is_some());
        Arc::new(provider)
    });
    &PROVIDER
}

/// A P-256 key: every SPIFFE implementation takes it, and signing is cheapest with it.
/// Never shown, and wiped from memory when dropped.
pub(crate) struct PrivateKey(rcgen::KeyPair);

impl PrivateKey {
    pub(crate) fn generate() -> Result<Self, rcgen::Error> {
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map(Self)
    }

    pub(crate) fn from_pkcs8(der: &PrivatePkcs8KeyDer<'_>) -> Result<Self, rcgen::Error> {
        rcgen::KeyPair::from_pkcs8_der_and_sign_algo(der, &rcgen::PKCS_ECDSA_P256_SHA256).map(Self)
    }

    pub(crate) fn signer(&self) -> &rcgen::KeyPair {
        &self.0
    }

    /// The public key's SubjectPublicKeyInfo, DER.
    pub(crate) fn public_key_der(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    pub(crate) fn pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.serialize_der())
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use rustls::CipherSuite;

    use super::*;

    #[test]
    fn quic_can_begin_with_this_provider() {
        let suites = &provider().cipher_suites;
        let initial = suites.iter().find(|s| s.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert!(initial.unwrap().tls13().unwrap().quic.is_some());
        assert_eq!(suites.len(), 3, "TLS 1.3 has three suites here, TLS 1.2 none: {suites:?}");
    }
}
