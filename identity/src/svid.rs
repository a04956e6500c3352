//! An SVID (certificate chain and key), how it is asked for, and how it is kept on disk.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use model::SpiffeId;
use model::code::{self, Code};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::file::{self, FileError, PRIVATE_FILE_MODE};
use crate::limits::{CHAIN_CERTIFICATES_MAX, CLOCK_SKEW, SVID_RENEWAL_AGE};
use crate::pem;
use crate::profile::{check_leaf, time_text};
use crate::provider::{PrivateKey, provider};
use crate::verify::VerifyError;

/// An X.509-SVID with its private key; the key belongs to the certificate, or there is no `Svid`.
pub struct Svid {
    id: SpiffeId,
    key: Zeroizing<Vec<u8>>,
    not_before: SystemTime,
    not_after: SystemTime,
    /// Chain and signer as rustls wants them, made once.
    certified: Arc<CertifiedKey>,
}

/// Why chain and key are no SVID, or could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    #[error(transparent)]
    Certificate(#[from] VerifyError),
    #[error(
        "the private key does not belong to the SVID of {id}: enrol again, keys are not shared"
    )]
    KeyMismatch { id: SpiffeId },
    #[error("the private key of the SVID of {id} cannot be used: {reason}")]
    Key { id: SpiffeId, reason: String },
    #[error("no key could be made: {reason}")]
    Generate { reason: String },
    #[error("{}: {problem}: move the file away and enrol again", .path.display())]
    Stored { path: PathBuf, problem: String },
    #[error(transparent)]
    File(#[from] FileError),
}

impl SvidError {
    /// The registered code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::File(problem) => problem.code(),
            _ => code::SVID_MISSING,
        }
    }
}

impl Svid {
    /// `chain` is leaf first, `key` PKCS#8. The leaf must have the profile of an SVID; whether its
    /// signer is trusted is for peers to say.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivatePkcs8KeyDer<'static>,
    ) -> Result<Self, SvidError> {
        let leaf = check_leaf(chain.first().ok_or(VerifyError::NoCertificate)?)?;
        if chain.len() > CHAIN_CERTIFICATES_MAX {
            return Err(VerifyError::ChainTooLong { found: chain.len() }.into());
        }
        let kept = Zeroizing::new(key.secret_pkcs8_der().to_vec());
        let certified =
            CertifiedKey::from_der(chain, key.into(), provider()).map_err(|problem| {
                let id = leaf.id.clone();
                match problem {
                    rustls::Error::InconsistentKeys(_) => SvidError::KeyMismatch { id },
                    other => SvidError::Key { id, reason: other.to_string() },
                }
            })?;
        Ok(Self {
            id: leaf.id,
            key: kept,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            certified: Arc::new(certified),
        })
    }

    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    pub fn is_expired(&self, now: SystemTime) -> bool {
        now > self.not_after
    }

    /// As our CA dates it.
    pub(crate) fn issued_at(&self) -> SystemTime {
        self.not_before + CLOCK_SKEW
    }

    /// From when on it should be renewed: at an hour's age or at half its lifetime.
    pub fn renew_at(&self) -> SystemTime {
        let issued_at = self.issued_at();
        let lifetime = self.not_after.duration_since(issued_at).unwrap_or_default();
        issued_at + SVID_RENEWAL_AGE.min(lifetime / 2)
    }

    /// Also true for one that is not valid yet: then the clock was set back, or was wrong before.
    pub fn renewal_due(&self, now: SystemTime) -> bool {
        now >= self.renew_at() || now < self.not_before
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

/// Shows whose it is and how long, never the key.
impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("not_before", &time_text(self.not_before))
            .field("not_after", &time_text(self.not_after))
            .finish_non_exhaustive()
    }
}

/// A fresh key that waits for its certificate. It is made where it is used and never travels.
#[derive(Debug)]
pub struct SvidKeyPair(PrivateKey);

impl SvidKeyPair {
    pub fn generate() -> Result<Self, SvidError> {
        let key = PrivateKey::generate();
        key.map(Self).map_err(|problem| SvidError::Generate { reason: problem.to_string() })
    }

    /// A PKCS#10 request for `id`, signed by this key.
    pub fn csr_der(&self, id: &SpiffeId) -> Result<Vec<u8>, SvidError> {
        let failed = |problem: rcgen::Error| SvidError::Key {
            id: id.clone(),
            reason: format!("the CSR cannot be signed: {problem}"),
        };
        let uri = rcgen::string::Ia5String::try_from(id.as_str()).map_err(failed)?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
        let csr = params.serialize_request(self.0.signer()).map_err(failed)?;
        Ok(csr.der().to_vec())
    }

    /// Joins the key with the chain that the CA answered.
    pub fn into_svid(self, chain: Vec<CertificateDer<'static>>) -> Result<Svid, SvidError> {
        let key = self.0.pkcs8_der();
        Svid::new(chain, PrivatePkcs8KeyDer::from(key.to_vec()))
    }
}

/// The folder in which a process keeps its SVID: one file, `svid.pem`, mode 0600, with the key
/// and the chain. One file, because two could be torn apart by a crash between two renames.
#[derive(Debug, Clone)]
pub struct SvidStore {
    path: PathBuf,
}

impl SvidStore {
    /// Makes the folder, mode 0700, if it is missing.
    pub fn open(folder: &Path) -> Result<Self, SvidError> {
        file::create_private_folder(folder)?;
        Ok(Self { path: folder.join("svid.pem") })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `None` before the first enrolment. An expired one is given too: its age is the caller's
    /// question. Refuses a file that others can reach.
    pub fn load(&self) -> Result<Option<Svid>, SvidError> {
        let Some(text) = file::read_private(&self.path)? else {
            return Ok(None);
        };
        let stored = |problem: String| SvidError::Stored { path: self.path.clone(), problem };
        let key = pem::read_key(&text).map_err(stored)?;
        let chain = pem::read_certificates(&text).map_err(stored)?;
        Svid::new(chain, key).map(Some).map_err(|problem| stored(problem.to_string()))
    }

    /// Replaces key and chain together; a crash leaves the old pair or the new one.
    pub fn save(&self, svid: &Svid) -> Result<(), SvidError> {
        let mut text = pem::write_key(&svid.key);
        let chain = pem::write_certificates(svid.chain());
        let mut whole = Zeroizing::new(String::with_capacity(text.len() + chain.len()));
        whole.push_str(&text);
        whole.push_str(&chain);
        text.clear();
        file::write_atomic(&self.path, whole.as_bytes(), PRIVATE_FILE_MODE)?;
        Ok(())
    }
}
