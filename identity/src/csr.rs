//! The strict reading of certificate signing requests: a CA that believes what it is asked for is
//! how CVE-2022-40716 (Consul) and CVE-2021-27098 (SPIRE) happened.

use model::code::{self, Code};
use model::{SpiffeId, TrustDomain};
use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use crate::limits::{CSR_BYTES_MAX, QUOTED_CHARS_MAX, SVID_LIFETIME_MAX, SVID_LIFETIME_MIN};

/// Why the CA issued no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    #[error("the CSR has {found} bytes: send at most {CSR_BYTES_MAX}")]
    TooLarge { found: usize },
    #[error("the CSR is malformed: {reason}: send a PKCS#10 request in DER")]
    Malformed { reason: String },
    #[error("the CSR's key is of type {found}: use P-256, P-384 or Ed25519")]
    KeyType { found: String },
    #[error("the CSR's signature is false: sign it with the key that it asks a certificate for")]
    Signature,
    #[error("the CSR has the attribute {found}: only an extensionRequest is read")]
    Attribute { found: String },
    #[error("the CSR asks for the extension {found}: ask for none, or for the SPIFFE ID alone")]
    Extension { found: String },
    #[error("the CSR asks for the name {found}: ask for none, or for {wanted} alone")]
    Name { found: String, wanted: SpiffeId },
    #[error("{id} is of trust domain {:?}: this CA issues for {served:?} only", .id.trust_domain())]
    TrustDomain { id: SpiffeId, served: TrustDomain },
    #[error("{id} has no path: it names the trust domain itself, which no SVID may")]
    NoPath { id: SpiffeId },
    #[error(
        "a lifetime of {found_seconds} s was asked for: ask for {} to {} s",
        SVID_LIFETIME_MIN.as_secs(), SVID_LIFETIME_MAX.as_secs()
    )]
    Lifetime { found_seconds: u64 },
    #[error(
        "the CA is not valid now ({now}), only from {not_before} to {not_after}: set the clock, or \
         make a new root by `fedctl certs rotate`"
    )]
    CaNotValid { now: String, not_before: String, not_after: String },
    #[error("the certificate could not be signed: {reason}")]
    Signing { reason: String },
}

impl IssueError {
    /// The registered code of this failure.
    pub fn code(&self) -> Code {
        code::ENROLMENT_REFUSED
    }
}

/// Checks form, proof of possession and what is asked for; gives the key to certify. Of the rest
/// of the request (its subject) nothing is used.
pub(crate) fn check_csr(der: &[u8], id: &SpiffeId) -> Result<SubjectPublicKeyInfo, IssueError> {
    if der.len() > CSR_BYTES_MAX {
        return Err(IssueError::TooLarge { found: der.len() });
    }
    let malformed = |reason: String| IssueError::Malformed { reason };
    let (rest, csr) = X509CertificationRequest::from_der(der)
        .map_err(|problem| malformed(problem.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed(format!("it has {} trailing byte(s)", rest.len())));
    }
    let info = &csr.certification_request_info;
    if info.version != X509Version::V1 {
        return Err(malformed(format!("its version is {}, not v1", info.version.0)));
    }
    let key = check_key(info.subject_pki.raw)?;
    csr.verify_signature().map_err(|_| IssueError::Signature)?;
    let mut requests = 0;
    for attribute in info.iter_attributes() {
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(request) => {
                requests += 1;
                for extension in &request.extensions {
                    check_extension(extension.parsed_extension(), &extension.oid, id)?;
                }
            }
            _ => return Err(IssueError::Attribute { found: attribute.oid.to_id_string() }),
        }
    }
    if requests > 1 {
        return Err(IssueError::Attribute { found: "extensionRequest more than once".into() });
    }
    Ok(key)
}

/// The algorithm is read from the key itself, never from the request's signature.
fn check_key(spki_der: &[u8]) -> Result<SubjectPublicKeyInfo, IssueError> {
    let refused = || IssueError::KeyType { found: key_type(spki_der) };
    let key = SubjectPublicKeyInfo::from_der(spki_der).map_err(|_| refused())?;
    let taken =
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
    if taken.contains(&key.algorithm()) { Ok(key) } else { Err(refused()) }
}

fn key_type(spki_der: &[u8]) -> String {
    match x509_parser::x509::SubjectPublicKeyInfo::from_der(spki_der) {
        Ok((_, key)) => {
            let kind = key.algorithm.algorithm.to_id_string();
            match key.algorithm.parameters.and_then(|parameters| parameters.oid().ok()) {
                Some(curve) if !curve.as_bytes().is_empty() => format!("{kind} {curve}"),
                _ => kind,
            }
        }
        Err(_) => "unreadable".into(),
    }
}

fn check_extension(
    extension: &ParsedExtension<'_>,
    oid: &x509_parser::der_parser::oid::Oid<'_>,
    id: &SpiffeId,
) -> Result<(), IssueError> {
    let ParsedExtension::SubjectAlternativeName(names) = extension else {
        return Err(IssueError::Extension { found: oid.to_id_string() });
    };
    match &*names.general_names {
        [GeneralName::URI(uri)] if *uri == id.as_str() => Ok(()),
        several => {
            let found = several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let found: String = found.escape_debug().take(QUOTED_CHARS_MAX).collect();
            Err(IssueError::Name { found, wanted: id.clone() })
        }
    }
}
