//! The cluster's own CA: one root key, kept in a folder that only its process reads.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use model::code::{self, Code};
use model::{SpiffeId, TrustBundle, TrustDomain};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use crate::csr::{IssueError, check_csr};
use crate::file::{self, FileError, PRIVATE_FILE_MODE, PUBLIC_FILE_MODE};
use crate::limits::{CA_LIFETIME, CLOCK_SKEW, SVID_LIFETIME_MAX, SVID_LIFETIME_MIN};
use crate::pem;
use crate::profile::{Signing, check_signing, first_uri, parse, time_text};
use crate::provider::{PrivateKey, provider};

/// How often other clusters should look for a new bundle (SPIFFE Bundle §4.1.2).
const REFRESH_HINT_SECONDS: u64 = 300;

/// A cluster's certificate authority. Its files: `ca.key` (0600), `ca.pem`, and `sequence`, the
/// number of the bundle in force.
pub struct Ca {
    trust_domain: TrustDomain,
    key: PrivateKey,
    certificate: CertificateDer<'static>,
    validity: Signing,
    sequence: u64,
}

/// Why the CA did not start.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: {problem}: {fix}", .path.display())]
    Stored { path: PathBuf, problem: String, fix: String },
    #[error("the root could not be made: {reason}")]
    Create { reason: String },
}

impl CaError {
    /// The registered code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::File(problem) => problem.code(),
            Self::Stored { .. } | Self::Create { .. } => code::DATA_FOLDER_UNUSABLE,
        }
    }
}

impl Ca {
    /// Opens the CA in `folder` (itself: not its parent), or makes one there when it is empty.
    ///
    /// The key is written first and is never made anew: after a crash in the middle of the first
    /// start, the second one completes the rest for the same key.
    pub fn load_or_create(
        folder: &Path,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        file::create_private_folder(folder)?;
        let files = Files::of(folder);
        let stored_certificate = file::read_public(&files.certificate)?;
        let key = match file::read_private(&files.key)? {
            Some(text) => files.parse_key(&text)?,
            None if stored_certificate.is_some() => {
                return Err(stored(
                    &files.certificate,
                    "the key beside it, ca.key, is missing",
                    "put the key back, or move the folder away to begin a new CA (every other \
                     cluster then needs its bundle)",
                ));
            }
            None => files.create_key()?,
        };
        match stored_certificate {
            Some(text) => files.load(&text, key, trust_domain, now),
            None => files.create(key, trust_domain, now),
        }
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// What other clusters need to judge SVIDs of ours.
    pub fn bundle(&self) -> TrustBundle {
        TrustBundle {
            trust_domain: self.trust_domain.clone(),
            sequence: self.sequence,
            refresh_hint_seconds: Some(REFRESH_HINT_SECONDS),
            x509_authorities: vec![self.certificate.to_vec()],
        }
    }

    /// When the root runs out.
    pub fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }

    /// Signs an SVID for `id` over the key of `csr_der`; leaf first. Whether the caller may have
    /// this id is decided before; of the request only the key is used. The SVID ends with the CA,
    /// if that ends first.
    pub fn issue(
        &self,
        csr_der: &[u8],
        id: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        if *id.trust_domain() != self.trust_domain {
            let served = self.trust_domain.clone();
            return Err(IssueError::TrustDomain { id: id.clone(), served });
        }
        if id.path().is_empty() {
            return Err(IssueError::NoPath { id: id.clone() });
        }
        if !(SVID_LIFETIME_MIN..=SVID_LIFETIME_MAX).contains(&lifetime) {
            return Err(IssueError::Lifetime { found_seconds: lifetime.as_secs() });
        }
        let Signing { not_before, not_after } = self.validity;
        if now < not_before || not_after <= now + SVID_LIFETIME_MIN {
            return Err(IssueError::CaNotValid {
                now: time_text(now),
                not_before: time_text(not_before),
                not_after: time_text(not_after),
            });
        }
        let public_key = check_csr(csr_der, id)?;
        let signing = |problem: rcgen::Error| IssueError::Signing { reason: problem.to_string() };
        let issuer =
            Issuer::from_ca_cert_der(&self.certificate, self.key.signer()).map_err(signing)?;
        let mut params = leaf_params(id).map_err(signing)?;
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + lifetime).min(not_after).into();
        let certificate = params.signed_by(&public_key, &issuer).map_err(signing)?;
        Ok(vec![certificate.into()])
    }
}

/// X509-SVID §4: one URI, not a CA, digitalSignature (rcgen marks it critical), both roles of TLS.
fn leaf_params(id: &SpiffeId) -> Result<CertificateParams, rcgen::Error> {
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

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca")
            .field("trust_domain", &self.trust_domain)
            .field("sequence", &self.sequence)
            .field("not_after", &time_text(self.validity.not_after))
            .finish_non_exhaustive()
    }
}

/// The paths of a CA's files.
struct Files {
    key: PathBuf,
    certificate: PathBuf,
    sequence: PathBuf,
}

impl Files {
    fn of(folder: &Path) -> Self {
        Self {
            key: folder.join("ca.key"),
            certificate: folder.join("ca.pem"),
            sequence: folder.join("sequence"),
        }
    }

    fn parse_key(&self, text: &[u8]) -> Result<PrivateKey, CaError> {
        let fix = "put the CA's key back, a P-256 key in PKCS#8 PEM";
        let der = pem::read_key(text).map_err(|problem| stored(&self.key, problem, fix))?;
        PrivateKey::from_pkcs8(&der).map_err(|problem| {
            stored(&self.key, format!("its key cannot be used ({problem})"), fix)
        })
    }

    fn create_key(&self) -> Result<PrivateKey, CaError> {
        let key = PrivateKey::generate().map_err(create_error)?;
        let text = pem::write_key(&key.pkcs8_der());
        file::write_atomic(&self.key, text.as_bytes(), PRIVATE_FILE_MODE)?;
        Ok(key)
    }

    /// Signs a root over `key`. The certificate is written last: where it is, all is.
    fn create(
        &self,
        key: PrivateKey,
        domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Ca, CaError> {
        let root = root_params(domain, now)
            .and_then(|params| params.self_signed(key.signer()))
            .map_err(create_error)?;
        let certificate: CertificateDer<'static> = root.into();
        // Not 1: a CA that was lost and made anew must outrank its forerunner's bundle.
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs());
        let sequence = match self.read_sequence() {
            Ok(last) => seconds.max(last.saturating_add(1)),
            Err(_) => seconds,
        };
        file::write_atomic(&self.sequence, format!("{sequence}\n").as_bytes(), PUBLIC_FILE_MODE)?;
        let text = pem::write_certificates(std::slice::from_ref(&certificate));
        file::write_atomic(&self.certificate, text.as_bytes(), PUBLIC_FILE_MODE)?;
        self.assemble(key, certificate, sequence, domain, now)
    }

    fn load(
        &self,
        text: &[u8],
        key: PrivateKey,
        domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Ca, CaError> {
        let fix = "put the CA's root certificate back";
        let mut certificates =
            pem::read_certificates(text).map_err(|p| stored(&self.certificate, p, fix))?;
        let (Some(certificate), true) = (certificates.pop(), certificates.is_empty()) else {
            return Err(stored(&self.certificate, "it does not have exactly one certificate", fix));
        };
        let sequence = self.read_sequence()?;
        self.assemble(key, certificate, sequence, domain, now)
    }

    fn read_sequence(&self) -> Result<u64, CaError> {
        let fix = "write a number there that is higher than the last published `spiffe_sequence`";
        let Some(content) = file::read_public(&self.sequence)? else {
            return Err(stored(&self.sequence, "it is missing", fix));
        };
        let text = String::from_utf8_lossy(&content);
        text.trim_end().parse().map_err(|_| {
            let shown: String = text.chars().take(40).collect();
            stored(&self.sequence, format!("{shown:?} is not a number"), fix)
        })
    }

    /// Key, root, trust domain and clock must fit each other.
    fn assemble(
        &self,
        key: PrivateKey,
        certificate: CertificateDer<'static>,
        sequence: u64,
        domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Ca, CaError> {
        let fail = |problem: String, fix: &str| Err(stored(&self.certificate, problem, fix));
        let put_back = "put the CA's root certificate back";
        let validity = match check_signing(0, &certificate) {
            Ok(validity) => validity,
            Err(problem) => return fail(problem.to_string(), put_back),
        };
        match parse(0, &certificate) {
            Ok(root) if root.public_key().raw == key.public_key_der() => {
                let found = first_uri(&root).unwrap_or_default();
                if found != format!("spiffe://{domain}") {
                    return fail(
                        format!("it is the root of {found:?}, not of trust domain {domain:?}"),
                        "set the trust domain back, or give the new one a data folder of its own",
                    );
                }
            }
            _ => return fail("its key is not the one in ca.key".into(), put_back),
        }
        if now < validity.not_before || now > validity.not_after {
            let (from, to) = (time_text(validity.not_before), time_text(validity.not_after));
            return fail(
                format!("it is valid from {from} to {to}, and now it is {}", time_text(now)),
                "set the clock; if the root has run out, move the folder away to begin a new CA",
            );
        }
        Ok(Ca { trust_domain: domain.clone(), key, certificate, validity, sequence })
    }
}

fn stored(path: &Path, problem: impl Into<String>, fix: &str) -> CaError {
    CaError::Stored { path: path.into(), problem: problem.into(), fix: fix.into() }
}

fn create_error(problem: rcgen::Error) -> CaError {
    CaError::Create { reason: problem.to_string() }
}
