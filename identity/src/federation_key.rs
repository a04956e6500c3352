//! The federation key: Ed25519, made at a node's first start, kept in a folder of its own. It signs
//! what the cluster says in the federation's store; TLS between nodes uses SVIDs instead.
//!
//! Every node must judge a signature alike, for ever: one strict implementation verifies them all
//! (`verify_strict`: no small-order keys, no second encodings).

use std::fmt;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use model::code::{self, Code};
use model::{ClusterId, FederationId, KeyId};
use rustls_pki_types::PrivatePkcs8KeyDer;
use zeroize::Zeroizing;

use crate::file::{self, FileError, PRIVATE_FILE_MODE, PUBLIC_FILE_MODE};
use crate::joiner::{JoinCertificate, JoinCertificateError};
use crate::pem;
use crate::provider::provider;

/// SubjectPublicKeyInfo of an Ed25519 key, DER (RFC 8410 §4): this, and the 32 bytes of the key.
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// PKCS#8 of an Ed25519 key, DER (RFC 8410 §7): this, and the 32 bytes of the seed.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
const SEED_BYTES: usize = 32;

/// The public half of a federation key.
#[derive(Clone, PartialEq, Eq)]
pub struct FederationPublicKey {
    spki: [u8; 44],
    key: VerifyingKey,
}

/// Bytes that are no Ed25519 public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found} bytes are no Ed25519 key: send its SubjectPublicKeyInfo in DER, 44 bytes (RFC 8410)"
)]
pub struct PublicKeyError {
    pub found: usize,
}

/// A signature that is not of this key over these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature in domain {domain} is not of key {key} over these bytes")]
pub struct SignatureError {
    pub domain: &'static str,
    pub key: KeyId,
}

impl FederationPublicKey {
    pub fn from_spki(spki: &[u8]) -> Result<Self, PublicKeyError> {
        let refused = || PublicKeyError { found: spki.len() };
        let whole: [u8; 44] = spki.try_into().map_err(|_| refused())?;
        let key = spki.strip_prefix(&SPKI_PREFIX).ok_or_else(refused)?;
        let key: [u8; 32] = key.try_into().map_err(|_| refused())?;
        let key = VerifyingKey::from_bytes(&key).map_err(|_| refused())?;
        Ok(Self { spki: whole, key })
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> &[u8; 44] {
        &self.spki
    }

    pub fn key_id(&self) -> KeyId {
        KeyId::of_key(&self.spki)
    }

    /// Whether this key signed `payload` in `domain` (one of `wire::store::Domain`'s strings).
    pub fn verify(
        &self,
        domain: &'static str,
        payload: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), SignatureError> {
        let signature = Signature::from_bytes(signature);
        let verdict = self.key.verify_strict(&message(domain, payload), &signature);
        verdict.map_err(|_| SignatureError { domain, key: self.key_id() })
    }

    fn of(key: VerifyingKey) -> Self {
        let mut spki = [0; 44];
        spki[..12].copy_from_slice(&SPKI_PREFIX);
        spki[12..].copy_from_slice(key.as_bytes());
        Self { spki, key }
    }
}

impl fmt::Debug for FederationPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FederationPublicKey({})", self.key_id())
    }
}

/// What is signed: the domain's string, a zero byte, the payload.
fn message(domain: &str, payload: &[u8]) -> Vec<u8> {
    [domain.as_bytes(), &[0], payload].concat()
}

/// A cluster's federation key, and which was its first one: the cluster's id is the hash of that.
///
/// Its folder has `key` (PKCS#8 PEM, 0600), `first.pub` (the first key's public half), and during a
/// rotation `key.next`.
pub struct FederationKey {
    key: SigningKey,
    public: FederationPublicKey,
    first: FederationPublicKey,
}

/// Why a federation key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FederationKeyError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: {problem}: {fix}", .path.display())]
    Stored { path: PathBuf, problem: String, fix: &'static str },
    #[error("a federation key could not be made: {reason}")]
    Create { reason: &'static str },
}

impl FederationKeyError {
    /// The registered code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::File(problem) => problem.code(),
            Self::Stored { .. } | Self::Create { .. } => code::DATA_FOLDER_UNUSABLE,
        }
    }
}

impl FederationKey {
    /// Opens the key in `folder` (itself: not its parent), or makes one there when it is empty.
    ///
    /// A key is never made anew where there was one: the cluster would be another cluster.
    pub fn load_or_create(folder: &Path) -> Result<Self, FederationKeyError> {
        file::create_private_folder(folder)?;
        let files = Files::of(folder);
        let first = files.load_first()?;
        match (files.load(&files.key)?, first) {
            (Some(key), Some(first)) => Ok(Self { first, ..Self::of(key) }),
            (Some(key), None) => files.complete(key),
            (None, None) => {
                let key = files.create(&files.key)?;
                files.complete(key)
            }
            (None, Some(_)) => Err(stored(
                &files.key,
                "it is missing, but the public half of the first key is there",
                "put the key back, or move the folder away and let an admitting cluster bind a new \
                 key to this one",
            )),
        }
    }

    /// The key that is to take this one's place: the one that an interrupted rotation left, or a
    /// new one. It signs nothing for the cluster before its Member lists it.
    pub fn load_or_create_next(&self, folder: &Path) -> Result<Self, FederationKeyError> {
        let files = Files::of(folder);
        let next = match files.load(&files.next)? {
            Some(next) => next,
            None => files.create(&files.next)?,
        };
        Ok(Self { first: self.first.clone(), ..Self::of(next) })
    }

    /// The key that waits to take this one's place, if there is one.
    pub fn load_next(&self, folder: &Path) -> Result<Option<Self>, FederationKeyError> {
        let files = Files::of(folder);
        let next = files.load(&files.next)?;
        Ok(next.map(|next| Self { first: self.first.clone(), ..Self::of(next) }))
    }

    /// Puts the next key in the place of the present one, whose file is gone then: for when the
    /// store has accepted the Member that lists it.
    pub fn promote_next(self, folder: &Path) -> Result<Self, FederationKeyError> {
        let files = Files::of(folder);
        let Some(next) = files.load(&files.next)? else {
            return Err(stored(&files.next, "it is missing", "begin the rotation again"));
        };
        file::rename(&files.next, &files.key)?;
        Ok(Self { first: self.first, ..Self::of(next) })
    }

    /// A key of known bytes, for simulations and tests. It is its own first one.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::of(SigningKey::from_bytes(seed))
    }

    fn of(key: SigningKey) -> Self {
        let public = FederationPublicKey::of(key.verifying_key());
        Self { key, first: public.clone(), public }
    }

    pub fn public(&self) -> &FederationPublicKey {
        &self.public
    }

    pub fn key_id(&self) -> KeyId {
        self.public.key_id()
    }

    /// The cluster's id, which outlives this key.
    pub fn cluster_id(&self) -> ClusterId {
        ClusterId::of_key(self.first.spki())
    }

    /// The id of a federation that this cluster founds.
    pub fn federation_id(&self) -> FederationId {
        FederationId::of_key(self.first.spki())
    }

    /// Signs `payload` in `domain` (one of `wire::store::Domain`'s strings).
    pub fn sign(&self, domain: &str, payload: &[u8]) -> [u8; 64] {
        self.key.sign(&message(domain, payload)).to_bytes()
    }

    /// What a joiner shows: the key in a certificate that it signs itself.
    pub fn self_signed(&self) -> Result<JoinCertificate, JoinCertificateError> {
        let der = pkcs8(&self.key);
        JoinCertificate::of_key(&PrivatePkcs8KeyDer::from(&der[..]))
    }
}

/// Shows which key, never the key.
impl fmt::Debug for FederationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FederationKey({} of cluster {})", self.key_id(), self.cluster_id())
    }
}

fn pkcs8(key: &SigningKey) -> Zeroizing<Vec<u8>> {
    let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_PREFIX.len() + SEED_BYTES));
    der.extend_from_slice(&PKCS8_PREFIX);
    der.extend_from_slice(key.as_bytes());
    der
}

/// The paths of a federation key's files.
struct Files {
    key: PathBuf,
    next: PathBuf,
    first: PathBuf,
}

impl Files {
    fn of(folder: &Path) -> Self {
        Self {
            key: folder.join("key"),
            next: folder.join("key.next"),
            first: folder.join("first.pub"),
        }
    }

    fn load(&self, path: &Path) -> Result<Option<SigningKey>, FederationKeyError> {
        let Some(text) = file::read_private(path)? else { return Ok(None) };
        let fix = "put the federation key back, an Ed25519 key in PKCS#8 PEM";
        let der = pem::read_key(&text).map_err(|problem| stored(path, problem, fix))?;
        let seed = der.secret_pkcs8_der().strip_prefix(&PKCS8_PREFIX);
        let seed: Option<&[u8; SEED_BYTES]> = seed.and_then(|seed| seed.try_into().ok());
        match seed {
            Some(seed) => Ok(Some(SigningKey::from_bytes(seed))),
            None => Err(stored(path, "its key is not an Ed25519 key as RFC 8410 has it", fix)),
        }
    }

    fn create(&self, path: &Path) -> Result<SigningKey, FederationKeyError> {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        provider().secure_random.fill(&mut *seed).map_err(|_| FederationKeyError::Create {
            reason: "the system gave no random bytes",
        })?;
        let key = SigningKey::from_bytes(&seed);
        let text = pem::write_key(&pkcs8(&key));
        file::write_atomic(path, text.as_bytes(), PRIVATE_FILE_MODE)?;
        Ok(key)
    }

    /// `first.pub` is written after the key: a start that was interrupted in between ends here.
    fn complete(&self, key: SigningKey) -> Result<FederationKey, FederationKeyError> {
        let key = FederationKey::of(key);
        let text = pem::write_public_key(key.public.spki());
        file::write_atomic(&self.first, text.as_bytes(), PUBLIC_FILE_MODE)?;
        Ok(key)
    }

    fn load_first(&self) -> Result<Option<FederationPublicKey>, FederationKeyError> {
        let Some(text) = file::read_public(&self.first)? else { return Ok(None) };
        let fix = "put the public half of the cluster's first federation key back: the cluster's id \
                   is its hash";
        let spki = pem::read_public_key(&text).map_err(|p| stored(&self.first, p, fix))?;
        let key = FederationPublicKey::from_spki(&spki);
        key.map(Some).map_err(|problem| stored(&self.first, problem.to_string(), fix))
    }
}

fn stored(path: &Path, problem: impl Into<String>, fix: &'static str) -> FederationKeyError {
    FederationKeyError::Stored { path: path.into(), problem: problem.into(), fix }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DOMAIN: &str = "fedgate/head/v1";

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let folder = folder();
        let made = FederationKey::load_or_create(folder.path()).unwrap();
        let loaded = FederationKey::load_or_create(folder.path()).unwrap();
        assert_eq!(made.public(), loaded.public());
        assert_eq!(made.cluster_id(), ClusterId::of_key(made.public().spki()));
        let path = folder.path().join("key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let error = FederationKey::load_or_create(folder.path()).unwrap_err();
        assert_eq!(error.code(), code::KEY_PERMISSIONS);
        assert!(error.to_string().ends_with(&format!("run `chmod 600 {}`", path.display())));
    }

    #[test]
    fn a_start_that_was_cut_short_ends_with_the_same_key() {
        let folder = folder();
        let made = FederationKey::load_or_create(folder.path()).unwrap();
        fs::remove_file(folder.path().join("first.pub")).unwrap();
        let again = FederationKey::load_or_create(folder.path()).unwrap();
        assert_eq!(made.cluster_id(), again.cluster_id());
        assert!(folder.path().join("first.pub").exists());
    }

    #[test]
    fn a_lost_or_spoilt_key_is_not_made_anew() {
        let folder = folder();
        drop(FederationKey::load_or_create(folder.path()).unwrap());
        let key = folder.path().join("key");
        let good = fs::read(&key).unwrap();
        fs::remove_file(&key).unwrap();
        let error = FederationKey::load_or_create(folder.path()).unwrap_err().to_string();
        assert!(error.contains("key: it is missing, but the public half"), "{error}");
        assert!(!key.exists());
        let p256 = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for spoilt in [&b""[..], &good[..40], b"-----BEGIN PRIVATE KEY-----\n", p256.as_bytes()] {
            file::write_atomic(&key, spoilt, PRIVATE_FILE_MODE).unwrap();
            let error = FederationKey::load_or_create(folder.path()).unwrap_err().to_string();
            assert!(error.ends_with("an Ed25519 key in PKCS#8 PEM"), "{error}");
        }
        file::write_atomic(&key, &good, PRIVATE_FILE_MODE).unwrap();
        fs::write(folder.path().join("first.pub"), "nothing").unwrap();
        let error = FederationKey::load_or_create(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("the cluster's id is its hash"), "{error}");
    }

    #[test]
    fn a_rotation_keeps_the_clusters_id_and_survives_a_restart_at_every_step() {
        let folder = folder();
        let open = || FederationKey::load_or_create(folder.path()).unwrap();
        let first = open();
        let (id, old) = (first.cluster_id(), first.key_id());
        assert!(first.load_next(folder.path()).unwrap().is_none());
        let next = first.load_or_create_next(folder.path()).unwrap();
        assert_ne!(next.key_id(), old);
        assert_eq!(next.cluster_id(), id);
        // Restarted in the middle: the old key is in force, the next one is the same.
        let restarted = open();
        assert_eq!(restarted.key_id(), old);
        let again = restarted.load_or_create_next(folder.path()).unwrap();
        assert_eq!(again.key_id(), next.key_id());
        let promoted = restarted.promote_next(folder.path()).unwrap();
        assert_eq!((promoted.key_id(), promoted.cluster_id()), (next.key_id(), id));
        let restarted = open();
        assert_eq!((restarted.key_id(), restarted.cluster_id()), (next.key_id(), id));
        let error = restarted.promote_next(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("key.next: it is missing: begin the rotation again"), "{error}");
    }

    #[test]
    fn a_signature_is_for_one_key_one_domain_and_one_payload() {
        let key = FederationKey::from_seed(&[1; 32]);
        let signature = key.sign(DOMAIN, b"payload");
        key.public().verify(DOMAIN, b"payload", &signature).unwrap();
        let other = FederationKey::from_seed(&[2; 32]);
        assert!(other.public().verify(DOMAIN, b"payload", &signature).is_err());
        assert!(key.public().verify("fedgate/member/v1", b"payload", &signature).is_err());
        assert!(key.public().verify(DOMAIN, b"payloae", &signature).is_err());
        for bit in 0..512 {
            let mut altered = signature;
            altered[bit / 8] ^= 1 << (bit % 8);
            let error = key.public().verify(DOMAIN, b"payload", &altered).unwrap_err();
            assert_eq!(error.key, key.key_id(), "bit {bit}");
        }
    }

    /// Under a key of small order one signature fits many messages; plain `verify` takes it.
    #[test]
    fn keys_of_small_order_sign_nothing() {
        let mut spki = [0; 44];
        spki[..12].copy_from_slice(&SPKI_PREFIX);
        spki[12] = 1; // the neutral element
        let weak = FederationPublicKey::from_spki(&spki).unwrap();
        let mut signature = [0; 64];
        signature[0] = 1; // R is the neutral element too, S is 0
        let lenient = {
            use ed25519_dalek::Verifier as _;
            weak.key.verify(&message(DOMAIN, b"any"), &Signature::from_bytes(&signature))
        };
        assert!(lenient.is_ok(), "the attack works without strictness");
        assert!(weak.verify(DOMAIN, b"any", &signature).is_err());
    }

    /// S and S + L are one number to a lenient verifier, so a signature would have two spellings.
    #[test]
    fn a_signature_has_one_spelling() {
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
            0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let key = FederationKey::from_seed(&[7; 32]);
        let mut signature = key.sign(DOMAIN, b"payload");
        let mut carry = 0;
        for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
        assert_eq!(carry, 0);
        assert!(key.public().verify(DOMAIN, b"payload", &signature).is_err());
    }

    #[test]
    fn only_an_ed25519_key_is_a_federation_key() {
        let good = *FederationKey::from_seed(&[1; 32]).public().spki();
        assert_eq!(FederationPublicKey::from_spki(&good).unwrap().spki(), &good);
        let mut algorithm = good;
        algorithm[8] = 0x6e; // X25519
        let mut point = good;
        point[12..].fill(0);
        point[12] = 2; // y = 2 is not on the curve
        for bad in [&good[..43], &[&good[..], &[0]].concat(), &algorithm, &point, b""] {
            let error = FederationPublicKey::from_spki(bad).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "{} bytes are no Ed25519 key: send its SubjectPublicKeyInfo in DER, 44 bytes \
                     (RFC 8410)",
                    bad.len()
                )
            );
        }
    }

    #[test]
    fn a_joiner_shows_this_very_key() {
        let key = FederationKey::from_seed(&[3; 32]);
        let certificate = key.self_signed().unwrap();
        let shown = crate::joiner::self_signed_key(&[certificate.der().clone()]).unwrap();
        assert_eq!(shown, key.public().spki());
    }

    #[test]
    fn no_debug_text_shows_a_key() {
        let key = FederationKey::from_seed(&[3; 32]);
        let text = format!("{key:?} {:?}", key.public());
        assert!(!text.contains("3, 3") && !text.contains("0303"), "{text}");
        assert!(text.contains(&key.key_id().to_string()), "{text}");
    }
}
