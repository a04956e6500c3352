//! The polled bundles in force: in memory, in `dataDir/bundles`, and in the ClusterPeers that name their
//! trust domains.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use identity::{BundleChange, BundleError, BundleSet};
use model::code::{self, AUTHORITY_EXPIRED, Code, DATA_FOLDER_UNUSABLE, FILE_UNREADABLE};
use model::{Diagnostic, Resource, ResourceKind, ResourceSet, Severity, TrustBundle, TrustDomain};
use tokio::sync::watch;
use wire::bundle::{BUNDLE_BYTES_MAX, format_bundle, parse_bundle};

use crate::config::{BundleSource, SourceProfile};
use crate::folder::{FolderError, create_private_folder, replace_file};

/// What endpoints have said, as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Polled {
    bundles: BTreeMap<TrustDomain, TrustBundle>,
    /// What is wrong with a domain's last poll.
    troubles: BTreeMap<TrustDomain, Diagnostic>,
}

impl Polled {
    /// Gives the polled bundles to the ClusterPeers that this cluster has `declared` itself. A declared
    /// bundle of a higher sequence stays: somebody has brought it since (SPIFFE Federation §4.2). What
    /// the federation's store says was signed by its owner, and stays too.
    pub(crate) fn renew(&self, declared: &ResourceSet, resources: &mut ResourceSet) {
        let is_peer = |kind| kind == ResourceKind::ClusterPeer;
        for (key, _) in declared.iter().filter(|(key, _)| is_peer(key.kind)) {
            let Some(Resource::ClusterPeer(peer)) = resources.get(key).map(|peer| &**peer) else {
                continue;
            };
            let mut renewed = peer.clone();
            for bundle in &mut renewed.trust_bundles {
                match self.bundles.get(&bundle.trust_domain) {
                    Some(polled) if polled.sequence >= bundle.sequence => *bundle = polled.clone(),
                    _ => {}
                }
            }
            if renewed != *peer {
                resources.upsert(Resource::ClusterPeer(renewed));
            }
        }
    }

    pub(crate) fn findings(&self) -> Vec<Diagnostic> {
        self.troubles.values().cloned().collect()
    }
}

/// Holds what was polled. A bundle is on disk before it is in force, so that a restart does not forget
/// which sequence was seen.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: PathBuf,
    in_force: Mutex<BundleSet>,
    polled: watch::Sender<Arc<Polled>>,
}

/// Why the node cannot begin with the bundles that it has.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(
        "{}: {problem}; put a good copy back, or remove the file to begin with the configured bundle: \
         which sequence was seen is then forgotten", path.display()
    )]
    Damaged { path: PathBuf, problem: String },
    #[error("bundleSources: {}: {problem}; give the domain's bundle, a JWKS", path.display())]
    Configured { path: PathBuf, problem: String },
}

impl KeptError {
    /// The registered code of this failure.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Folder(problem) => problem.code(),
            Self::Damaged { .. } | Self::Configured { .. } => FILE_UNREADABLE,
        }
    }
}

impl Kept {
    /// Takes up what was kept of these sources, and their configured bundles where those are newer.
    pub(crate) fn open(folder: PathBuf, sources: &[BundleSource]) -> Result<Self, KeptError> {
        let mut in_force = BundleSet::default();
        if !sources.is_empty() {
            create_private_folder(&folder)?;
        }
        for BundleSource { trust_domain, profile, .. } in sources {
            let path = file_of(&folder, trust_domain);
            let damaged = |problem| KeptError::Damaged { path: path.clone(), problem };
            if let Some(bundle) = read(&path, trust_domain).map_err(damaged)? {
                in_force.insert(bundle).map_err(|error| damaged(error.to_string()))?;
            }
            if let SourceProfile::Spiffe { bundle_file: Some(path), .. } = profile {
                let unusable = |problem| KeptError::Configured { path: path.clone(), problem };
                let missing = || unusable("it does not exist".into());
                let bundle = read(path, trust_domain).map_err(unusable)?.ok_or_else(missing)?;
                take_configured(&mut in_force, bundle).map_err(unusable)?;
            }
        }
        let polled = Polled { bundles: published(&in_force), ..Polled::default() };
        let polled = watch::Sender::new(Arc::new(polled));
        Ok(Self { folder, in_force: Mutex::new(in_force), polled })
    }

    /// What was polled, now and whenever it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Polled>> {
        self.polled.subscribe()
    }

    /// By these an endpoint's SVID is judged.
    pub(super) fn in_force(&self) -> BundleSet {
        self.lock().clone()
    }

    /// Puts a bundle into force, if its sequence allows it.
    pub(super) fn take(&self, bundle: TrustBundle) -> Result<BundleChange, BundleError> {
        let mut in_force = self.lock();
        let mut next = in_force.clone();
        let change = next.insert(bundle.clone())?;
        let saved = match change {
            BundleChange::Unchanged => Ok(()),
            BundleChange::Added | BundleChange::Replaced => self.save(&bundle),
        };
        *in_force = next;
        let bundles = published(&in_force);
        self.publish(bundle.trust_domain.clone(), Some(bundles), match saved {
            // A full disk must not keep a new root from being believed.
            Err(problem) => {
                let message = format!("the polled bundle is in force, but not kept: {problem}");
                Some(finding(&bundle.trust_domain, DATA_FOLDER_UNUSABLE, message))
            }
            Ok(()) if bundle.x509_authorities.is_empty() => {
                let message = format!(
                    "its owner has revoked every key: the bundle of sequence {} has none, and nobody of \
                     this trust domain is believed",
                    bundle.sequence
                );
                Some(finding(&bundle.trust_domain, AUTHORITY_EXPIRED, message))
            }
            Ok(()) => None,
        });
        Ok(change)
    }

    /// The last good bundle stays, and this is told until a poll succeeds.
    pub(super) fn refuse(&self, domain: &TrustDomain, code: Code, message: String) {
        self.publish(domain.clone(), None, Some(finding(domain, code, message)));
    }

    fn publish(
        &self,
        domain: TrustDomain,
        bundles: Option<BTreeMap<TrustDomain, TrustBundle>>,
        trouble: Option<Diagnostic>,
    ) {
        self.polled.send_if_modified(|current| {
            let mut next = Polled::clone(current);
            next.bundles = bundles.unwrap_or(next.bundles);
            match trouble {
                Some(trouble) => drop(next.troubles.insert(domain, trouble)),
                None => drop(next.troubles.remove(&domain)),
            }
            let is_other = next != **current;
            if is_other {
                *current = Arc::new(next);
            }
            is_other
        });
    }

    fn save(&self, bundle: &TrustBundle) -> Result<(), String> {
        let text = format_bundle(bundle).map_err(|error| error.to_string())?;
        let path = file_of(&self.folder, &bundle.trust_domain);
        replace_file(&path, text.as_bytes()).map_err(|error| error.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, BundleSet> {
        // The set is replaced as a whole.
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file_of(folder: &Path, domain: &TrustDomain) -> PathBuf {
    folder.join(format!("{domain}.json"))
}

fn published(in_force: &BundleSet) -> BTreeMap<TrustDomain, TrustBundle> {
    in_force.iter().map(|bundle| (bundle.trust_domain.clone(), bundle.clone())).collect()
}

/// The configured bundle is the first one, and old as soon as another one was polled.
fn take_configured(in_force: &mut BundleSet, bundle: TrustBundle) -> Result<(), String> {
    match in_force.insert(bundle) {
        Ok(_) | Err(BundleError::LowerSequence { .. } | BundleError::SameSequence { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// `None` if there is no such file.
fn read(path: &Path, domain: &TrustDomain) -> Result<Option<TrustBundle>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(problem) => return Err(problem.to_string()),
    };
    let mut text = String::new();
    let most = u64::try_from(BUNDLE_BYTES_MAX).unwrap_or(u64::MAX);
    file.take(most.saturating_add(1)).read_to_string(&mut text).map_err(|e| e.to_string())?;
    parse_bundle(&text, domain).map(Some).map_err(|error| error.to_string())
}

/// What cannot be an accident is an error.
fn finding(domain: &TrustDomain, code: Code, message: String) -> Diagnostic {
    let severity = match code {
        code::BUNDLE_ENDPOINT_FAILED => Severity::Warning,
        _ => Severity::Error,
    };
    let (object, fix) = (format!("TrustDomain/{domain}"), code.entry().fix.into());
    Diagnostic { severity, code, object, field: String::new(), message, fix }
}
