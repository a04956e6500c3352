//! The files of a CA. Where a stage of a rotation needs several, the last one decides: a crash before
//! it leaves the stage before, and a start cleans up or completes the rest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::TrustDomain;
use rustls_pki_types::CertificateDer;

use super::root::{Root, sign_root};
use super::{CaError, OldRoot, Roots};
use crate::file::{self, FileError, PRIVATE_FILE_MODE, PUBLIC_FILE_MODE};
use crate::pem;
use crate::profile::{Signing, check_signing, first_uri, parse, time_text};
use crate::provider::PrivateKey;

const PUT_BACK: &str = "put the CA's root certificate back";

/// The paths of a CA's files.
pub(super) struct Files {
    key: PathBuf,
    certificate: PathBuf,
    sequence: PathBuf,
    next_key: PathBuf,
    next_certificate: PathBuf,
    old_certificate: PathBuf,
    old_until: PathBuf,
}

impl Files {
    pub(super) fn open(folder: &Path) -> Result<Self, CaError> {
        file::create_private_folder(folder)?;
        Ok(Self {
            key: folder.join("ca.key"),
            certificate: folder.join("ca.pem"),
            sequence: folder.join("sequence"),
            next_key: folder.join("next.key"),
            next_certificate: folder.join("next.pem"),
            old_certificate: folder.join("old.pem"),
            old_until: folder.join("old.until"),
        })
    }

    pub(super) fn load_or_create(
        &self,
        domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Roots, CaError> {
        self.finish_activation()?;
        let stored_certificate = read_certificate(&self.certificate)?;
        let key = match file::read_private(&self.key)? {
            Some(text) => parse_key(&self.key, &text)?,
            None if stored_certificate.is_some() => {
                return Err(stored(
                    &self.certificate,
                    "the key beside it, ca.key, is missing",
                    "put the key back, or move the folder away to begin a new CA (every other \
                     cluster then needs its bundle)",
                ));
            }
            None => create_key(&self.key)?,
        };
        match stored_certificate {
            Some(certificate) => self.load(certificate, key, domain, now),
            None => self.create(key, domain, now),
        }
    }

    /// Signs a root over `key`. The certificate is written last: where it is, all is.
    fn create(
        &self,
        key: PrivateKey,
        domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Roots, CaError> {
        let certificate = sign_root(&key, domain, now).map_err(create_error)?;
        // Not 1: a CA that was lost and made anew must outrank its forerunner's bundle.
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs());
        let sequence = match self.read_sequence() {
            Ok(last) => seconds.max(last.saturating_add(1)),
            Err(_) => seconds,
        };
        self.write_sequence(sequence)?;
        write_certificate(&self.certificate, &certificate)?;
        let active = Arc::new(assemble(&self.certificate, key, certificate, domain, now)?);
        Ok(Roots { active, prepared: None, old: None, sequence })
    }

    fn load(
        &self,
        certificate: CertificateDer<'static>,
        key: PrivateKey,
        domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Roots, CaError> {
        let sequence = self.read_sequence()?;
        let active = Arc::new(assemble(&self.certificate, key, certificate, domain, now)?);
        let prepared = match read_certificate(&self.next_certificate)? {
            None => None,
            Some(next) => {
                let fix = "put it back, or remove next.pem to prepare another root";
                let text = file::read_private(&self.next_key)?
                    .ok_or_else(|| stored(&self.next_key, "it is missing", fix))?;
                let key = parse_key(&self.next_key, &text)?;
                let root = assemble(&self.next_certificate, key, next, domain, now)?;
                Some(Arc::new(root))
            }
        };
        // A crash at the beginning of an activation has left a copy of the root that still signs.
        let old = self.load_old()?.filter(|old| old.certificate != active.certificate);
        Ok(Roots { active, prepared, old, sequence })
    }

    fn load_old(&self) -> Result<Option<OldRoot>, CaError> {
        let Some(certificate) = read_certificate(&self.old_certificate)? else { return Ok(None) };
        let validity = check_signing(0, &certificate).map_err(|problem| {
            stored(&self.old_certificate, problem.to_string(), "put the old root back")
        })?;
        let seconds =
            read_number(&self.old_until, "write there when its last SVID ends, in Unix s")?;
        let until = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let until = until.unwrap_or(validity.not_after).min(validity.not_after);
        Ok(Some(OldRoot { certificate, validity, until }))
    }

    /// An activation renames two files; a crash between them has left the second for us.
    fn finish_activation(&self) -> Result<(), CaError> {
        let Some(next) = read_certificate(&self.next_certificate)? else { return Ok(()) };
        if file::read_private(&self.next_key)?.is_some() {
            return Ok(());
        }
        let Some(text) = file::read_private(&self.key)? else { return Ok(()) };
        if is_of(&next, &parse_key(&self.key, &text)?) {
            file::rename(&self.next_certificate, &self.certificate)?;
        }
        Ok(())
    }

    /// Before any other file of a stage: at worst a bundle has a higher number than it needs.
    pub(super) fn raise_sequence(&self, sequence: u64) -> Result<u64, CaError> {
        let next = sequence.saturating_add(1);
        self.write_sequence(next)?;
        Ok(next)
    }

    pub(super) fn prepare(&self, domain: &TrustDomain, now: SystemTime) -> Result<Root, CaError> {
        let key = create_key(&self.next_key)?;
        let certificate = sign_root(&key, domain, now).map_err(create_error)?;
        write_certificate(&self.next_certificate, &certificate)?;
        assemble(&self.next_certificate, key, certificate, domain, now)
    }

    pub(super) fn activate(&self, old: &OldRoot) -> Result<(), CaError> {
        let until = old.until.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Rounded up: certificates end with a whole second.
        write_number(&self.old_until, until.as_secs() + 1)?;
        write_certificate(&self.old_certificate, &old.certificate)?;
        file::rename(&self.next_key, &self.key)?;
        file::rename(&self.next_certificate, &self.certificate)?;
        Ok(())
    }

    /// The certificates first: what is left of the others then means nothing.
    pub(super) fn revoke(&self, is_old: bool) -> Result<(), CaError> {
        let (first, then) = match is_old {
            true => (&self.old_certificate, &self.old_until),
            false => (&self.next_certificate, &self.next_key),
        };
        remove(first)?;
        remove(then)
    }

    fn read_sequence(&self) -> Result<u64, CaError> {
        let fix = "write a number there that is higher than the last published `spiffe_sequence`";
        read_number(&self.sequence, fix)
    }

    fn write_sequence(&self, sequence: u64) -> Result<(), CaError> {
        write_number(&self.sequence, sequence)
    }
}

/// Key, root, trust domain and clock must fit each other. A root may have run out: it signs nothing
/// then, but its process starts, and can be told to make another one.
fn assemble(
    path: &Path,
    key: PrivateKey,
    certificate: CertificateDer<'static>,
    domain: &TrustDomain,
    now: SystemTime,
) -> Result<Root, CaError> {
    let fail = |problem: String, fix: &str| Err(stored(path, problem, fix));
    let validity = match check_signing(0, &certificate) {
        Ok(validity) => validity,
        Err(problem) => return fail(problem.to_string(), PUT_BACK),
    };
    if !is_of(&certificate, &key) {
        return fail("its key is not the one in ca.key".into(), PUT_BACK);
    }
    let found = parse(0, &certificate).ok();
    let found = found.as_ref().and_then(|root| first_uri(root)).unwrap_or_default();
    if found != format!("spiffe://{domain}") {
        return fail(
            format!("it is the root of {found:?}, not of trust domain {domain:?}"),
            "set the trust domain back, or give the new one a data folder of its own",
        );
    }
    let Signing { not_before, not_after } = validity;
    if now < not_before {
        let (from, to) = (time_text(not_before), time_text(not_after));
        return fail(
            format!("it is valid from {from} to {to}, and now it is {}", time_text(now)),
            "set the clock",
        );
    }
    Ok(Root { key, certificate, validity })
}

fn is_of(certificate: &CertificateDer<'_>, key: &PrivateKey) -> bool {
    parse(0, certificate).is_ok_and(|root| root.public_key().raw == key.public_key_der())
}

fn parse_key(path: &Path, text: &[u8]) -> Result<PrivateKey, CaError> {
    let fix = "put the CA's key back, a P-256 key in PKCS#8 PEM";
    let der = pem::read_key(text).map_err(|problem| stored(path, problem, fix))?;
    PrivateKey::from_pkcs8(&der)
        .map_err(|problem| stored(path, format!("its key cannot be used ({problem})"), fix))
}

fn create_key(path: &Path) -> Result<PrivateKey, CaError> {
    let key = PrivateKey::generate().map_err(create_error)?;
    let text = pem::write_key(&key.pkcs8_der());
    file::write_atomic(path, text.as_bytes(), PRIVATE_FILE_MODE)?;
    Ok(key)
}

/// `None` when there is no such file.
fn read_certificate(path: &Path) -> Result<Option<CertificateDer<'static>>, CaError> {
    let Some(text) = file::read_public(path)? else { return Ok(None) };
    let mut certificates =
        pem::read_certificates(&text).map_err(|problem| stored(path, problem, PUT_BACK))?;
    match (certificates.pop(), certificates.is_empty()) {
        (Some(certificate), true) => Ok(Some(certificate)),
        _ => Err(stored(path, "it does not have exactly one certificate", PUT_BACK)),
    }
}

fn write_certificate(path: &Path, certificate: &CertificateDer<'static>) -> Result<(), CaError> {
    let text = pem::write_certificates(std::slice::from_ref(certificate));
    Ok(file::write_atomic(path, text.as_bytes(), PUBLIC_FILE_MODE)?)
}

fn read_number(path: &Path, fix: &str) -> Result<u64, CaError> {
    let Some(content) = file::read_public(path)? else {
        return Err(stored(path, "it is missing", fix));
    };
    let text = String::from_utf8_lossy(&content);
    text.trim_end().parse().map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        stored(path, format!("{shown:?} is not a number"), fix)
    })
}

fn write_number(path: &Path, number: u64) -> Result<(), CaError> {
    Ok(file::write_atomic(path, format!("{number}\n").as_bytes(), PUBLIC_FILE_MODE)?)
}

/// One that is not there is fine.
fn remove(path: &Path) -> Result<(), CaError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(FileError::Io { action: "remove", path: path.into(), source }.into())
        }
        _ => Ok(()),
    }
}

fn stored(path: &Path, problem: impl Into<String>, fix: &str) -> CaError {
    CaError::Stored { path: path.into(), problem: problem.into(), fix: fix.into() }
}

fn create_error(problem: rcgen::Error) -> CaError {
    CaError::Create { reason: problem.to_string() }
}
