//! PEM text (RFC 7468): certificates and PKCS#8 keys, written and read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use zeroize::Zeroizing;

pub(crate) fn write_certificates(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|certificate| encode("CERTIFICATE", certificate).as_str().to_owned()).collect()
}

pub(crate) fn write_key(pkcs8_der: &[u8]) -> Zeroizing<String> {
    encode("PRIVATE KEY", pkcs8_der)
}

pub(crate) fn write_public_key(spki_der: &[u8]) -> String {
    encode("PUBLIC KEY", spki_der).as_str().to_owned()
}

/// The text's first public key (SubjectPublicKeyInfo); other sections are passed over.
pub(crate) fn read_public_key(text: &[u8]) -> Result<Vec<u8>, String> {
    SubjectPublicKeyInfoDer::from_pem_slice(text)
        .map(|der| der.to_vec())
        .map_err(|problem| format!("it has no readable PUBLIC KEY section: {problem}"))
}

/// All certificates of the text, in their order; other sections are passed over.
pub(crate) fn read_certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|problem| format!("its CERTIFICATE sections are not PEM: {problem}"))
}

/// The text's first PKCS#8 key; other sections are passed over.
pub(crate) fn read_key(text: &[u8]) -> Result<PrivatePkcs8KeyDer<'static>, String> {
    PrivatePkcs8KeyDer::from_pem_slice(text)
        .map_err(|problem| format!("it has no readable PRIVATE KEY section (PKCS#8): {problem}"))
}

fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    // Sized at once: a buffer that grows leaves copies of a key behind.
    let mut text = Zeroizing::new(String::with_capacity(body.len() + body.len() / 64 + 80));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = next;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
