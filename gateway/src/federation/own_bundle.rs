//! The bundle of the own trust domain, from a file that others write: the ConfigMap `fedgate-trust`,
//! as the kubelet mounts it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use identity::{ClusterTrust, RevokedSvids};
use model::TrustDomain;
use model::code::{self, Code};
use wire::bundle::parse_bundle;

use crate::limits::{BUNDLE_CHECK_INTERVAL, BUNDLE_FILE_BYTES_MAX};

/// The file, and what was in it last. It is looked at when a handshake needs it, so that no task has
/// to; a file that is gone or damaged takes nothing away that was there.
#[derive(Debug)]
pub struct OwnBundle {
    path: PathBuf,
    trust: Arc<ClusterTrust>,
    checked: Mutex<Option<Instant>>,
}

/// There is no bundle yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BundleMissing(pub String);

impl BundleMissing {
    pub fn code(&self) -> Code {
        code::BUNDLE_MISSING
    }
}

impl OwnBundle {
    pub fn new(path: &Path, domain: TrustDomain) -> Self {
        let trust = Arc::new(ClusterTrust::new(domain));
        Self { path: path.into(), trust, checked: Mutex::default() }
    }

    /// From the next handshake on these processes of the own cluster are refused.
    pub fn replace_revoked(&self, revoked: RevokedSvids) {
        self.trust.replace_revoked(revoked);
    }

    /// As the file has it now.
    pub fn current(&self) -> Result<Arc<ClusterTrust>, BundleMissing> {
        self.current_at(Instant::now())
    }

    fn current_at(&self, now: Instant) -> Result<Arc<ClusterTrust>, BundleMissing> {
        // Held while the file is read: handshakes that come together read it once.
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < BUNDLE_CHECK_INTERVAL;
        if self.trust.is_known() && checked.is_some_and(is_fresh) {
            return Ok(self.trust.clone());
        }
        *checked = Some(now);
        match self.read() {
            Ok(true) => tracing::info!(path = %self.path.display(), "the cluster's bundle is read"),
            Ok(false) => {}
            Err(problem) if self.trust.is_known() => {
                tracing::warn!(problem, "the cluster's bundle stays as it was");
            }
            Err(problem) => return Err(BundleMissing(problem)),
        }
        Ok(self.trust.clone())
    }

    fn read(&self) -> Result<bool, String> {
        let shown = self.path.display();
        let wrong = |problem: String| format!("federation.bundle = {shown}: {problem}");
        let text = read_bounded(&self.path).map_err(|error| wrong(error.to_string()))?;
        let bundle = parse_bundle(&text, self.trust.domain());
        let bundle = bundle.map_err(|error| wrong(error.to_string()))?;
        self.trust.replace(&bundle).map_err(|error| wrong(error.to_string()))
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(BUNDLE_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > BUNDLE_FILE_BYTES_MAX {
        let text = format!("it has more than {BUNDLE_FILE_BYTES_MAX} bytes");
        return Err(io::Error::other(text));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use identity::Ca;
    use wire::bundle::format_bundle;

    use super::*;

    #[test]
    fn the_bundle_follows_its_file_and_outlives_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, domain) =
            (folder.path().join("bundle.json"), TrustDomain::parse("a.b").unwrap());
        let bundle = OwnBundle::new(&path, domain.clone());
        let start = Instant::now();
        let missing = bundle.current_at(start).unwrap_err();
        assert!(missing.to_string().contains("bundle.json: No such file"), "{missing}");
        assert_eq!(missing.code().to_string(), "FED3007");
        std::fs::write(&path, "{").unwrap();
        assert!(bundle.current_at(start).is_err(), "damaged");
        std::fs::write(&path, "x".repeat(BUNDLE_FILE_BYTES_MAX as usize + 1)).unwrap();
        let long = bundle.current_at(start).unwrap_err().to_string();
        assert!(long.contains("more than 262144 bytes"), "{long}");

        let ca =
            |name: &str| Ca::load_or_create(&folder.path().join(name), &domain, SystemTime::now());
        let (one, two) = (ca("one").unwrap().bundle(), ca("two").unwrap().bundle());
        std::fs::write(&path, format_bundle(&one).unwrap()).unwrap();
        // It is there as soon as it is there.
        let trust = bundle.current_at(start).unwrap();
        assert!(!trust.replace(&one).unwrap(), "in force");
        std::fs::write(&path, format_bundle(&two).unwrap()).unwrap();
        assert!(!bundle.current_at(start).unwrap().replace(&one).unwrap(), "not looked at again");
        let later = start + BUNDLE_CHECK_INTERVAL;
        assert!(!bundle.current_at(later).unwrap().replace(&two).unwrap(), "the new one");
        std::fs::remove_file(&path).unwrap();
        let later = later + BUNDLE_CHECK_INTERVAL;
        assert!(!bundle.current_at(later).unwrap().replace(&two).unwrap(), "kept");
    }
}
