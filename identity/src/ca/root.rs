//! Roots and what they sign: keys and parameters of certificates.

use std::time::SystemTime;

use model::{SpiffeId, TrustDomain};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use crate::limits::{CA_LIFETIME, CLOCK_SKEW, SVID_LIFETIME_MIN};
use crate::profile::Signing;
use crate::provider::{PrivateKey, provider};

/// A root that signs or will.
pub(super) struct Root {
    pub(super) key: PrivateKey,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) validity: Signing,
}

impl Root {
    pub(super) fn can_sign(&self, now: SystemTime) -> bool {
        let Signing { not_before, not_after } = self.validity;
        not_before <= now && now + SVID_LIFETIME_MIN < not_after
    }
}

/// A root's certificate, signed by itself.
pub(super) fn sign_root(
    key: &PrivateKey,
    domain: &TrustDomain,
    now: SystemTime,
) -> Result<CertificateDer<'static>, rcgen::Error> {
    let root = root_params(domain, now)?.self_signed(key.signer())?;
    Ok(root.into())
}

/// X509-SVID §4: one URI, not a CA, digitalSignature (rcgen marks it critical), both roles of TLS.
pub(super) fn leaf_params(id: &SpiffeId) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Fedgate");
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id.as_str())?)];
    params.serial_number = Some(random_serial()?);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 16 random bytes, so that nobody can predict what is signed (RFC 5280 §4.1.2.2 asks for a
/// positive number of at most 20 bytes: the top bit is cleared).
fn random_serial() -> Result<SerialNumber, rcgen::Error> {
    let mut serial = [0; 16];
    let random = provider().secure_random;
    random.fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    serial[0] = (serial[0] & 0x7f) | 0x01;
    Ok(SerialNumber::from_slice(&serial))
}

/// X509-SVID §4 for a signing certificate: cA=true, keyCertSign and cRLSign, the ID of the domain
/// without a path. It signs leaves only, hence the path length of 0.
fn root_params(domain: &TrustDomain, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    const COMMON_NAME_CHARS_MAX: usize = 64; // RFC 5280 appendix A.1, ub-common-name
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Fedgate");
    let common_name: String = domain.as_str().chars().take(COMMON_NAME_CHARS_MAX).collect();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let id = Ia5String::try_from(format!("spiffe://{domain}"))?;
    params.subject_alt_names = vec![SanType::URI(id)];
    params.serial_number = Some(random_serial()?);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + CA_LIFETIME).into();
    Ok(params)
}
