//! The cluster's own CA: a root key, kept in a folder that only its process reads, and the root that
//! comes before or after it while roots are rotated.

mod files;
mod root;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use model::code::{self, Code};
use model::{SpiffeId, TrustBundle, TrustDomain};
use rcgen::Issuer;
use rustls_pki_types::CertificateDer;

use crate::csr::{IssueError, check_csr};
use crate::file::FileError;
use crate::limits::{CLOCK_SKEW, SVID_LIFETIME_MAX, SVID_LIFETIME_MIN};
use crate::profile::{Signing, time_text};

use files::Files;
use root::{Root, leaf_params};

/// How often other clusters should look for a new bundle (SPIFFE Bundle §4.1.2).
pub const REFRESH_HINT: Duration = Duration::from_secs(300);

/// A cluster's certificate authority. Its files: `ca.key` (0600), `ca.pem`, and `sequence`, the
/// number of the bundle in force; during a rotation `next.key` (0600) and `next.pem`, then `old.pem`
/// and `old.until`.
pub struct Ca {
    trust_domain: TrustDomain,
    files: Files,
    /// Replaced as a whole, by one stage of a rotation after the other.
    roots: ArcSwap<Roots>,
    changing: Mutex<()>,
}

/// The roots that the bundle has.
#[derive(Clone)]
struct Roots {
    /// Signs.
    active: Arc<Root>,
    /// Is published, so that everybody knows it before it signs.
    prepared: Option<Arc<Root>>,
    /// Signs no more, and is published as long as SVIDs of it live.
    old: Option<OldRoot>,
    sequence: u64,
}

/// A root without its key: that is gone.
#[derive(Clone)]
struct OldRoot {
    certificate: CertificateDer<'static>,
    validity: Signing,
    /// The end of the last SVID that it has signed.
    until: SystemTime,
}

/// What a root is to its CA, in SPIRE's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootState {
    Prepared,
    Active,
    Old,
}

impl RootState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Old => "old",
        }
    }
}

/// One of a CA's roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFacts {
    pub state: RootState,
    pub der: CertificateDer<'static>,
    /// When it was made, as its certificate says.
    pub since: SystemTime,
    pub not_after: SystemTime,
    /// Of an old one: the end of the last SVID that it has signed.
    pub svids_until: Option<SystemTime>,
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

/// Why a stage of a rotation was not done; the roots are as before.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error("{problem}: {fix}")]
    OutOfOrder { problem: &'static str, fix: &'static str },
    #[error(
        "SVIDs that the old root has signed are valid until {}, and now it is {}: wait, or use \
         --force if nobody shows one any more",
        time_text(*.until), time_text(*.now)
    )]
    SvidsLive { until: SystemTime, now: SystemTime },
    #[error(transparent)]
    Ca(#[from] CaError),
}

impl RotationError {
    /// The registered code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::OutOfOrder { .. } => code::ROTATION_OUT_OF_ORDER,
            Self::SvidsLive { .. } => code::ROTATION_TOO_EARLY,
            Self::Ca(problem) => problem.code(),
        }
    }
}

impl Ca {
    /// Opens the CA in `folder` (itself: not its parent), or makes one there when it is empty.
    ///
    /// The key is written first and is never made anew: after a crash in the middle of the first
    /// start, the second one completes the rest for the same key. A root that has run out is opened,
    /// too: it signs nothing, and can be replaced.
    pub fn load_or_create(
        folder: &Path,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let files = Files::open(folder)?;
        let roots = files.load_or_create(trust_domain, now)?;
        let (roots, changing) = (ArcSwap::from_pointee(roots), Mutex::default());
        Ok(Self { trust_domain: trust_domain.clone(), files, roots, changing })
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// What other clusters need to judge SVIDs of ours; the root that signs is the first.
    pub fn bundle(&self) -> TrustBundle {
        TrustBundle {
            trust_domain: self.trust_domain.clone(),
            sequence: self.roots.load().sequence,
            refresh_hint_seconds: Some(REFRESH_HINT.as_secs()),
            x509_authorities: self.roots().iter().map(|root| root.der.to_vec()).collect(),
        }
    }

    /// The roots in the bundle, the one that signs first.
    pub fn roots(&self) -> Vec<RootFacts> {
        let roots = self.roots.load();
        let facts = |root: &Root, state| RootFacts {
            state,
            der: root.certificate.clone(),
            since: root.validity.not_before + CLOCK_SKEW,
            not_after: root.validity.not_after,
            svids_until: None,
        };
        let prepared = roots.prepared.as_ref().map(|root| facts(root, RootState::Prepared));
        let old = roots.old.as_ref().map(|old| RootFacts {
            state: RootState::Old,
            der: old.certificate.clone(),
            since: old.validity.not_before + CLOCK_SKEW,
            not_after: old.validity.not_after,
            svids_until: Some(old.until),
        });
        let active = facts(&roots.active, RootState::Active);
        [Some(active), prepared, old].into_iter().flatten().collect()
    }

    /// The certificate of the root that signs.
    pub fn root(&self) -> CertificateDer<'static> {
        self.roots.load().active.certificate.clone()
    }

    /// When the root that signs runs out.
    pub fn not_after(&self) -> SystemTime {
        self.roots.load().active.validity.not_after
    }

    /// Whether the root that signs can sign an SVID now.
    pub fn can_sign(&self, now: SystemTime) -> bool {
        self.roots.load().active.can_sign(now)
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
        self.issue_by(&self.roots.load().active, csr_der, id, lifetime, now)
    }

    /// The same by the root that is prepared, for trying whether others know it; `None` if none is.
    pub fn issue_by_prepared(
        &self,
        csr_der: &[u8],
        id: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
    ) -> Option<Result<Vec<CertificateDer<'static>>, IssueError>> {
        let prepared = self.roots.load().prepared.clone()?;
        Some(self.issue_by(&prepared, csr_der, id, lifetime, now))
    }

    fn issue_by(
        &self,
        root: &Root,
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
        let Signing { not_before, not_after } = root.validity;
        if !root.can_sign(now) {
            return Err(IssueError::CaNotValid {
                now: time_text(now),
                not_before: time_text(not_before),
                not_after: time_text(not_after),
            });
        }
        let public_key = check_csr(csr_der, id)?;
        let signing = |problem: rcgen::Error| IssueError::Signing { reason: problem.to_string() };
        let issuer =
            Issuer::from_ca_cert_der(&root.certificate, root.key.signer()).map_err(signing)?;
        let mut params = leaf_params(id).map_err(signing)?;
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + lifetime).min(not_after).into();
        let certificate = params.signed_by(&public_key, &issuer).map_err(signing)?;
        Ok(vec![certificate.into()])
    }
}

/// The stages of a rotation. Each is on disk when it returns; a crash in one leaves the stage before
/// it, at most with a higher sequence. Others are to be told of the new bundle after each.
impl Ca {
    /// Makes the next root and puts it into the bundle.
    pub fn prepare(&self, now: SystemTime) -> Result<(), RotationError> {
        let _changing = self.changing();
        let roots = self.roots.load_full();
        if roots.prepared.is_some() {
            return Err(out_of_order(
                "a root is prepared already",
                "activate it, or take it out again by the stage revoke",
            ));
        }
        if roots.old.is_some() {
            return Err(out_of_order("the last rotation is not over", "revoke the old root first"));
        }
        let sequence = self.files.raise_sequence(roots.sequence)?;
        let prepared = self.files.prepare(&self.trust_domain, now)?;
        let prepared = Some(Arc::new(prepared));
        self.roots.store(Arc::new(Roots { prepared, sequence, ..Roots::clone(&roots) }));
        Ok(())
    }

    /// Signs by the prepared root from now on. `lifetime`: how long the SVIDs live that were issued
    /// up to now. The old root's key is gone afterwards.
    pub fn activate(&self, lifetime: Duration, now: SystemTime) -> Result<(), RotationError> {
        let _changing = self.changing();
        let roots = self.roots.load_full();
        let Some(prepared) = roots.prepared.clone() else {
            return Err(out_of_order("no root is prepared", "begin with the stage prepare"));
        };
        let old = OldRoot {
            certificate: roots.active.certificate.clone(),
            validity: roots.active.validity.clone(),
            until: (now + lifetime).min(roots.active.validity.not_after),
        };
        // The bundle's content is the same, but not its order, so that it is another one.
        let sequence = self.files.raise_sequence(roots.sequence)?;
        self.files.activate(&old)?;
        let old = Some(old);
        self.roots.store(Arc::new(Roots { active: prepared, prepared: None, old, sequence }));
        Ok(())
    }

    /// Takes the old root out of the bundle; before activation the prepared one, which nobody
    /// has signed with. `force`: though SVIDs of the old one live.
    pub fn revoke(&self, force: bool, now: SystemTime) -> Result<(), RotationError> {
        let _changing = self.changing();
        let roots = self.roots.load_full();
        match &roots.old {
            Some(old) if !force && now <= old.until => {
                return Err(RotationError::SvidsLive { until: old.until, now });
            }
            None if roots.prepared.is_none() => {
                return Err(out_of_order(
                    "there is no root but the one that signs",
                    "begin with the stage prepare",
                ));
            }
            _ => {}
        }
        let sequence = self.files.raise_sequence(roots.sequence)?;
        self.files.revoke(roots.old.is_some())?;
        let active = roots.active.clone();
        self.roots.store(Arc::new(Roots { active, prepared: None, old: None, sequence }));
        Ok(())
    }

    /// A root that has run out is replaced by another one at once, overlap or not: nobody can be
    /// harmed by that any more. `true` if it was.
    pub fn replace_expired(&self, now: SystemTime) -> Result<bool, RotationError> {
        if self.can_sign(now) {
            return Ok(false);
        }
        let states = || self.roots().into_iter().map(|root| root.state).collect::<Vec<_>>();
        if states().contains(&RootState::Old) {
            self.revoke(true, now)?;
        }
        let prepared = self.roots.load().prepared.clone();
        if prepared.is_some_and(|prepared| !prepared.can_sign(now)) {
            self.revoke(true, now)?;
        }
        if !states().contains(&RootState::Prepared) {
            self.prepare(now)?;
        }
        self.activate(Duration::ZERO, now)?;
        self.revoke(true, now)?;
        Ok(true)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn out_of_order(problem: &'static str, fix: &'static str) -> RotationError {
    RotationError::OutOfOrder { problem, fix }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roots = self.roots.load();
        f.debug_struct("Ca")
            .field("trust_domain", &self.trust_domain)
            .field("sequence", &roots.sequence)
            .field("not_after", &time_text(roots.active.validity.not_after))
            .finish_non_exhaustive()
    }
}
