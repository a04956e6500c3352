//! The judgement of a peer's certificate chain, as a pure function of chain, bundles and time.

use std::time::{Duration, SystemTime};

use model::code::{self, Code};
use model::{ClusterName, SpiffeId, TrustDomain};
use rustls::CertificateError;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, KeyUsage,
    RequiredEkuNotFoundContext,
};

use crate::bundle::BundleSet;
use crate::limits::{CERTIFICATE_BYTES_MAX, CHAIN_CERTIFICATES_MAX};
use crate::profile::{Leaf, check_leaf, check_signing, time_text};
use crate::provider::provider;

/// Who a peer has proved to be, as far as certificates go; whether it is welcome is asked after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPeer {
    pub id: SpiffeId,
    pub trust_domain: TrustDomain,
    /// When the peer's SVID begins.
    pub not_before: SystemTime,
    /// When the peer's SVID runs out.
    pub not_after: SystemTime,
}

/// Why a peer's certificate was refused: which one, what was found, what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("the peer sent no certificate: each side of a connection needs an SVID")]
    NoCertificate,
    #[error("the peer's chain has {found} certificates: at most {CHAIN_CERTIFICATES_MAX} are read")]
    ChainTooLong { found: usize },
    #[error("certificate {index} has {found} bytes: at most {CERTIFICATE_BYTES_MAX} are read")]
    CertificateTooLarge { index: usize, found: usize },
    #[error("certificate {index} is malformed: {reason}: send DER X.509 certificates, leaf first")]
    Malformed { index: usize, reason: String },
    #[error("certificate {certificate} is not an X.509-SVID: {found}: {fix}")]
    NotAnSvid { certificate: String, found: String, fix: &'static str },
    #[error("certificate {certificate} may not sign: {found}: {fix}")]
    NotASigner { certificate: String, found: String, fix: &'static str },
    #[error(
        "the SVID of {id} is not valid before {}, and now it is {}: set the clocks of both sides",
        time_text(*.not_before), time_text(*.now)
    )]
    NotYetValid { id: SpiffeId, not_before: SystemTime, now: SystemTime },
    #[error(
        "the SVID of {id} expired at {}, and now it is {}: the peer must renew it, or the clocks \
         differ",
        time_text(*.not_after), time_text(*.now)
    )]
    Expired { id: SpiffeId, not_after: SystemTime, now: SystemTime },
    #[error(
        "the SVID of {id} is of trust domain {:?}, for which there is no bundle: add the domain to \
         the ClusterPeer that owns it",
        .id.trust_domain()
    )]
    UnknownTrustDomain { id: SpiffeId },
    #[error(
        "the SVID of {id} cannot be judged: no authority in the bundle of trust domain {:?} is \
         valid now: export the bundle again from its owner",
        .id.trust_domain()
    )]
    NoAuthority { id: SpiffeId },
    #[error(
        "the SVID of {id} is not signed by an authority of trust domain {:?}: {reason}: compare \
         the bundle with its owner's",
        .id.trust_domain()
    )]
    Untrusted { id: SpiffeId, reason: String },
    #[error(
        "the SVID of {id} is of cluster {found:?}, but cluster {expected:?} was dialled: mend the \
         ClusterPeer's addresses or trust domains"
    )]
    WrongCluster { id: SpiffeId, found: ClusterName, expected: ClusterName },
    #[error(
        "the SVID of {id} is of trust domain {:?}, which belongs to no cluster we know: add the \
         domain to a ClusterPeer",
        .id.trust_domain()
    )]
    NoOwner { id: SpiffeId },
    #[error("trust domain {:?} of {id} was revoked in this federation", .id.trust_domain())]
    Revoked { id: SpiffeId },
    #[error(
        "the SVID of {id} is from before {}, and its own cluster has revoked those: it needs a new \
         one",
        time_text(*.before)
    )]
    SvidRevoked { id: SpiffeId, before: SystemTime },
    #[error("{id} is not a {wanted}: only spiffe://<trust domain>/fedgate/{wanted}/<name> is")]
    WrongPart { id: SpiffeId, wanted: &'static str },
    #[error(
        "the certificate is not a joiner's: {found}: show one self-signed certificate of the \
         federation key, alone and without a SPIFFE ID"
    )]
    NotSelfSigned { found: String },
    #[error(
        "the inviter showed {found} certificate(s) beside its own, and none is the CA that the \
         token pins: the token is another federation's, or somebody stands in between"
    )]
    PinMissing { found: usize },
    #[error(
        "{id} answered, which the token's CA vouches for, but the token names {expected}: use the \
         addresses of that node's cluster"
    )]
    NotTheInviter { id: SpiffeId, expected: SpiffeId },
    #[error(
        "the SVID of {id} is of another trust domain than this cluster's, {own:?}: here only the \
         cluster's own processes connect"
    )]
    ForeignDomain { id: SpiffeId, own: TrustDomain },
    #[error("{id} answered, and {expected} was meant: the address is another process's")]
    NotExpected { id: SpiffeId, expected: SpiffeId },
}

impl VerifyError {
    /// The registered code of this failure.
    pub fn code(&self) -> Code {
        code::PEER_IDENTITY_REFUSED
    }

    /// What rustls makes of it; it also chooses the alert that the peer sees.
    pub(crate) fn to_tls(&self) -> rustls::Error {
        let error = match self {
            Self::NoCertificate => return rustls::Error::NoCertificatesPresented,
            Self::ChainTooLong { .. }
            | Self::CertificateTooLarge { .. }
            | Self::Malformed { .. } => CertificateError::BadEncoding, // bad_certificate
            Self::NotAnSvid { .. } | Self::NotASigner { .. } | Self::NotSelfSigned { .. } => {
                CertificateError::InvalidPurpose // unsupported_certificate
            }
            Self::NotYetValid { not_before, now, .. } => CertificateError::NotValidYetContext {
                time: unix_time(*now),
                not_before: unix_time(*not_before),
            }, // certificate_expired
            Self::Expired { not_after, now, .. } => CertificateError::ExpiredContext {
                time: unix_time(*now),
                not_after: unix_time(*not_after),
            }, // certificate_expired
            Self::UnknownTrustDomain { .. }
            | Self::NoAuthority { .. }
            | Self::Untrusted { .. }
            | Self::ForeignDomain { .. }
            | Self::PinMissing { .. } => CertificateError::UnknownIssuer, // unknown_ca
            Self::Revoked { .. } | Self::SvidRevoked { .. } => {
                CertificateError::Revoked // certificate_revoked
            }
            Self::WrongCluster { .. }
            | Self::NoOwner { .. }
            | Self::WrongPart { .. }
            | Self::NotTheInviter { .. }
            | Self::NotExpected { .. } => {
                CertificateError::ApplicationVerificationFailure // access_denied
            }
        };
        rustls::Error::InvalidCertificate(error)
    }
}

/// Judges a chain, leaf first, by the bundle of the leaf's own trust domain and no other.
pub fn verify_chain(
    chain: &[CertificateDer<'_>],
    bundles: &BundleSet,
    now: SystemTime,
) -> Result<VerifiedPeer, VerifyError> {
    let (leaf_der, intermediates) = chain.split_first().ok_or(VerifyError::NoCertificate)?;
    verify_leaf(leaf_der, intermediates, bundles, now)
}

/// The SPIFFE ID in a chain's leaf, if that has the profile of an SVID. It proves nothing: use it
/// for messages, or for a chain that the handshake has verified.
pub fn peer_id(chain: &[CertificateDer<'_>]) -> Result<SpiffeId, VerifyError> {
    let leaf_der = chain.first().ok_or(VerifyError::NoCertificate)?;
    check_leaf(leaf_der).map(|leaf| leaf.id)
}

/// As [`verify_chain`], for rustls, which hands over the leaf by itself.
pub(crate) fn verify_leaf(
    leaf_der: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundles: &BundleSet,
    now: SystemTime,
) -> Result<VerifiedPeer, VerifyError> {
    if intermediates.len() >= CHAIN_CERTIFICATES_MAX {
        return Err(VerifyError::ChainTooLong { found: intermediates.len() + 1 });
    }
    for (index, der) in intermediates.iter().enumerate() {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(VerifyError::CertificateTooLarge { index: index + 1, found: der.len() });
        }
    }
    let leaf = check_leaf(leaf_der)?;
    check_time(&leaf, now)?;
    verify_path(leaf_der, intermediates, &leaf.id, bundles, now)?;
    Ok(VerifiedPeer {
        trust_domain: leaf.id.trust_domain().clone(),
        id: leaf.id,
        not_before: leaf.not_before,
        not_after: leaf.not_after,
    })
}

fn check_time(leaf: &Leaf, now: SystemTime) -> Result<(), VerifyError> {
    let id = || leaf.id.clone();
    if now < leaf.not_before {
        return Err(VerifyError::NotYetValid { id: id(), not_before: leaf.not_before, now });
    }
    if now > leaf.not_after {
        return Err(VerifyError::Expired { id: id(), not_after: leaf.not_after, now });
    }
    Ok(())
}

/// RFC 5280 §6 path validation to an authority of `id`'s own trust domain, then the SPIFFE profile
/// of each signing certificate on that path (webpki does not look at key usage).
fn verify_path(
    leaf_der: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    id: &SpiffeId,
    bundles: &BundleSet,
    now: SystemTime,
) -> Result<(), VerifyError> {
    let domain = id.trust_domain();
    let anchors = bundles
        .anchors(domain, now)
        .ok_or_else(|| VerifyError::UnknownTrustDomain { id: id.clone() })?;
    if anchors.is_empty() {
        return Err(VerifyError::NoAuthority { id: id.clone() });
    }
    let untrusted = |reason: String| VerifyError::Untrusted { id: id.clone(), reason };
    let leaf = EndEntityCert::try_from(leaf_der)
        .map_err(|problem| VerifyError::Malformed { index: 0, reason: problem.to_string() })?;
    // Two parsers read the same bytes: they must have read the same name.
    if !leaf.valid_uri_names().eq([id.as_str()]) {
        let reason = "its subject alternative name can be read in two ways".into();
        return Err(VerifyError::Malformed { index: 0, reason });
    }
    let path = leaf
        .verify_for_usage(
            provider().signature_verification_algorithms.all,
            &anchors,
            intermediates,
            unix_time(now),
            TlsPurposes,
            None,
            None,
        )
        .map_err(|problem| untrusted(path_reason(&problem)))?;
    for (index, signer) in path.intermediate_certificates().enumerate() {
        check_signing(index + 1, &signer.der())?;
    }
    Ok(())
}

fn path_reason(problem: &webpki::Error) -> String {
    match problem {
        webpki::Error::UnknownIssuer => "no path leads to one".into(),
        webpki::Error::InvalidSignatureForPublicKey => "a signature in its path is false".into(),
        webpki::Error::CertExpired { .. } => "a signing certificate in its path expired".into(),
        webpki::Error::CertNotValidYet { .. } => {
            "a signing certificate in its path is not valid yet".into()
        }
        webpki::Error::EndEntityUsedAsCa => {
            "a certificate in its path has cA=false and may not sign".into()
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => {
            "a signing certificate in its path has an extended key usage without serverAuth and \
             clientAuth"
                .into()
        }
        webpki::Error::NameConstraintViolation => {
            "a name constraint in its path forbids the URI (URI constraints are not supported)"
                .into()
        }
        other => other.to_string(),
    }
}

/// X509-SVID §4.4: an extended key usage, where there is one, has both roles of TLS; a signing
/// certificate may also say "any". The leaf's was already checked more strictly.
struct TlsPurposes;

impl ExtendedKeyUsageValidator for TlsPurposes {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        const SERVER: KeyPurposeId<'_> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 1]);
        const CLIENT: KeyPurposeId<'_> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 2]);
        const ANY: KeyPurposeId<'_> = KeyPurposeId::new(&[0x55, 0x1d, 0x25, 0]);
        let purposes = purposes.collect::<Result<Vec<_>, _>>()?;
        let both = purposes.contains(&SERVER) && purposes.contains(&CLIENT);
        if purposes.is_empty() || both || purposes.contains(&ANY) {
            return Ok(());
        }
        Err(webpki::Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext {
            required: KeyUsage::server_auth(),
            present: purposes.iter().map(KeyPurposeId::to_decoded_oid).collect(),
        }))
    }
}

pub(crate) fn unix_time(time: SystemTime) -> UnixTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    UnixTime::since_unix_epoch(since)
}
