//! The identity in force: read by every handshake, replaced by rotation, never locked.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use model::{ClusterName, SpiffeId, TrustDomain};
use rustls_pki_types::CertificateDer;

use crate::bundle::BundleSet;
use crate::limits::{REFUSALS_MAX, SVID_RENEWAL_PAUSE};
use crate::owner::TrustDomainOwners;
use crate::revoked::RevokedSvids;
use crate::svid::Svid;
use crate::verify::{VerifiedPeer, VerifyError, verify_leaf};

/// One consistent state: who we are, and whom we believe.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// `None` until the first enrolment; handshakes fail until then.
    pub svid: Option<Arc<Svid>>,
    pub bundles: BundleSet,
    pub owners: TrustDomainOwners,
    /// Trust domains that were revoked: nobody of them is believed, whatever the bundles say.
    pub revoked: Arc<BTreeSet<TrustDomain>>,
    /// Certificates that their own clusters deny, this one's own among them.
    pub revoked_svids: Arc<RevokedSvids>,
}

/// Whom a connection is meant to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedPeer {
    /// This cluster, by any trust domain that it owns: for a connection that we dial.
    Cluster(ClusterName),
    /// Any cluster whose trust domain we know: for a connection that comes in.
    AnyKnown,
}

/// A peer whose certificate was verified and whose cluster is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPeer {
    pub id: SpiffeId,
    pub trust_domain: TrustDomain,
    pub cluster: ClusterName,
    /// When the peer's SVID runs out.
    pub not_after: SystemTime,
}

impl Identity {
    /// Judges a chain, leaf first, and asks whose it is. Call it again on a living connection's
    /// chain after a change of bundles or owners: the handshake asked only once.
    pub fn verify_peer(
        &self,
        chain: &[CertificateDer<'_>],
        expected: &ExpectedPeer,
        now: SystemTime,
    ) -> Result<KnownPeer, VerifyError> {
        let (leaf, intermediates) = chain.split_first().ok_or(VerifyError::NoCertificate)?;
        self.verify_split(leaf, intermediates, expected, now)
    }

    pub(crate) fn verify_split(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        expected: &ExpectedPeer,
        now: SystemTime,
    ) -> Result<KnownPeer, VerifyError> {
        let peer = verify_leaf(leaf, intermediates, &self.bundles, now)?;
        self.revoked_svids.check(&peer)?;
        let VerifiedPeer { id, trust_domain, not_after, .. } = peer;
        if self.revoked.contains(&trust_domain) {
            return Err(VerifyError::Revoked { id });
        }
        let Some(cluster) = self.owners.owner(&trust_domain).cloned() else {
            return Err(VerifyError::NoOwner { id });
        };
        match expected {
            ExpectedPeer::Cluster(expected) if *expected != cluster => {
                let expected = expected.clone();
                Err(VerifyError::WrongCluster { id, found: cluster, expected })
            }
            _ => Ok(KnownPeer { id, trust_domain, cluster, not_after }),
        }
    }
}

/// A peer that a handshake refused, for operators: TLS shows them no more than an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub expected: ExpectedPeer,
    pub error: VerifyError,
    /// The clock that the handshake went by.
    pub at: SystemTime,
}

/// Holds the [`Identity`] in force. Shared by all workers; a reader takes one `Arc` and keeps a
/// consistent view. Two loads that are [`Arc::ptr_eq`] say that nothing changed between.
#[derive(Debug, Default)]
pub struct IdentityCell {
    current: ArcSwap<Identity>,
    /// Unix seconds: an SVID that was issued before is to be renewed.
    renew_before: AtomicU64,
    refusals: Mutex<VecDeque<Refusal>>,
}

impl IdentityCell {
    pub fn new(identity: Identity) -> Self {
        Self { current: ArcSwap::from_pointee(identity), ..Self::default() }
    }

    pub fn load(&self) -> Arc<Identity> {
        self.current.load_full()
    }

    /// From the next handshake on this SVID is shown. Connections that live keep theirs.
    pub fn replace_svid(&self, svid: impl Into<Arc<Svid>>) {
        let svid = svid.into();
        self.update(|identity| identity.svid = Some(svid.clone()));
    }

    /// From the next handshake on these bundles and owners judge. They change together: a bundle
    /// without an owner, or the other way round, would refuse peers for a moment.
    pub fn replace_trust(&self, bundles: BundleSet, owners: TrustDomainOwners) {
        self.update(|identity| {
            identity.bundles = bundles.clone();
            identity.owners = owners.clone();
        });
    }

    /// From the next handshake on nobody of these trust domains is believed.
    pub fn replace_revoked(&self, revoked: BTreeSet<TrustDomain>) {
        let revoked = Arc::new(revoked);
        if self.current.load().revoked != revoked {
            self.update(|identity| identity.revoked = revoked.clone());
        }
    }

    /// From the next handshake on these certificates are refused.
    pub fn replace_revoked_svids(&self, revoked: RevokedSvids) {
        let revoked = Arc::new(revoked);
        if self.current.load().revoked_svids != revoked {
            self.update(|identity| identity.revoked_svids = revoked.clone());
        }
    }

    fn update(&self, change: impl Fn(&mut Identity)) {
        self.current.rcu(|identity| {
            let mut next = Identity::clone(identity);
            change(&mut next);
            next
        });
    }

    /// Whether an SVID should be asked for: there is none, its time has come, it is called for, or it is
    /// revoked.
    pub fn renewal_due(&self, now: SystemTime) -> bool {
        let identity = self.current.load();
        let is_due = |svid: &Arc<Svid>| {
            svid.renewal_due(now) || self.is_called_for(svid, &identity.revoked_svids, now)
        };
        identity.svid.as_ref().is_none_or(is_due)
    }

    /// An SVID that was issued before this moment, in Unix seconds, is due for renewal.
    pub fn renew_issued_before(&self, unix_s: u64) {
        self.renew_before.store(unix_s, Ordering::Relaxed);
    }

    fn is_called_for(&self, svid: &Svid, revoked: &RevokedSvids, now: SystemTime) -> bool {
        let before = Duration::from_secs(self.renew_before.load(Ordering::Relaxed));
        let before = SystemTime::UNIX_EPOCH.checked_add(before).unwrap_or(SystemTime::UNIX_EPOCH);
        let issued_at = svid.issued_at();
        // With clocks that differ the new one may seem to be old, too: then not ever so often.
        let is_wanted = issued_at < before || revoked.denies_svid(svid);
        is_wanted && now >= issued_at + SVID_RENEWAL_PAUSE
    }

    /// The latest refused peers, oldest first, at most [`REFUSALS_MAX`].
    pub fn refusals(&self) -> Vec<Refusal> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Why the last handshake of this kind was refused: the whole text to the alert that a failed
    /// dial reports.
    pub fn last_refusal(&self, expected: &ExpectedPeer) -> Option<Refusal> {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.iter().rev().find(|refusal| refusal.expected == *expected).cloned()
    }

    pub(crate) fn record_refusal(&self, refusal: Refusal) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.len() >= REFUSALS_MAX {
            refusals.pop_front();
        }
        refusals.push_back(refusal);
    }
}
