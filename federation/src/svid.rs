//! The node's own SVID, `spiffe://<trust domain>/fedgate/federation/<name>`: kept on disk, renewed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use identity::{BundleSet, Ca, IdentityCell, Svid, SvidKeyPair, SvidStore, verify_chain};
use model::SpiffeId;
use model::code::AUTHORITY_EXPIRED;
use tokio_util::sync::CancellationToken;

use crate::app::coded;
use crate::limits::{RENEWAL_CHECK_INTERVAL, TRIAL_SVID_LIFETIME};

/// The SVID in force, and what is needed to renew it.
#[derive(Debug)]
pub(crate) struct OwnSvid {
    id: SpiffeId,
    ca: Arc<Ca>,
    store: SvidStore,
    /// Of each SVID that is issued.
    lifetime: Duration,
    /// Always with an SVID. Whom it believes is the transport's to write.
    identity: Arc<IdentityCell>,
}

impl OwnSvid {
    /// Takes the one on disk, or issues one.
    pub(crate) fn load_or_issue(
        id: SpiffeId,
        ca: Arc<Ca>,
        store: SvidStore,
        lifetime: Duration,
        now: SystemTime,
    ) -> anyhow::Result<Self> {
        let kept = store.load().map_err(|e| coded(e.code(), e))?;
        let svid = match kept {
            Some(svid) if svid.not_after() <= now + lifetime && is_usable(&svid, &id, &ca, now) => {
                svid
            }
            // Operators are to reach the node though nothing can be signed: they can mend that.
            Some(svid) if *svid.id() == id && !ca.can_sign(now) => {
                tracing::error!(code = %AUTHORITY_EXPIRED, "the root has run out: `fedctl certs rotate`");
                svid
            }
            _ => issue(&id, &ca, &store, lifetime, now)?,
        };
        let identity = Arc::new(IdentityCell::default());
        identity.replace_svid(svid);
        Ok(Self { id, ca, store, lifetime, identity })
    }

    pub(crate) fn current(&self) -> Arc<Svid> {
        self.identity.load().svid.clone().expect("it was there from the beginning")
    }

    /// What handshakes of this node show.
    pub(crate) fn identity(&self) -> Arc<IdentityCell> {
        self.identity.clone()
    }

    /// Of the SVIDs that are issued here.
    pub(crate) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Renews now.
    pub(crate) fn renew(&self, now: SystemTime) -> anyhow::Result<()> {
        let svid = issue(&self.id, &self.ca, &self.store, self.lifetime, now)?;
        self.identity.replace_svid(svid);
        Ok(())
    }

    /// An SVID of the same name by the root that is prepared, for trying that; `None` without one. It
    /// is kept nowhere.
    pub(crate) fn by_prepared(&self, now: SystemTime) -> anyhow::Result<Option<Svid>> {
        let key = SvidKeyPair::generate()?;
        let csr = key.csr_der(&self.id)?;
        let lifetime = TRIAL_SVID_LIFETIME.min(self.lifetime);
        let Some(chain) = self.ca.issue_by_prepared(&csr, &self.id, lifetime, now) else {
            return Ok(None);
        };
        Ok(Some(key.into_svid(chain?)?))
    }

    /// Renews until the node stops. A failure is tried again; the old SVID lives on meanwhile.
    pub(crate) async fn keep_renewed(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(RENEWAL_CHECK_INTERVAL.min(self.lifetime / 10));
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let now = SystemTime::now();
            if !self.current().renewal_due(now) {
                continue;
            }
            if let Err(problem) = self.renew(now) {
                tracing::error!(
                    problem = format!("{problem:#}"),
                    "the node's SVID was not renewed"
                );
            }
        }
    }
}

/// A kept SVID may be another name's, or of a CA that is no more.
fn is_usable(svid: &Svid, id: &SpiffeId, ca: &Ca, now: SystemTime) -> bool {
    let mut bundles = BundleSet::default();
    bundles.insert(ca.bundle()).is_ok()
        && svid.id() == id
        && !svid.renewal_due(now)
        && verify_chain(svid.chain(), &bundles, now).is_ok()
}

fn issue(
    id: &SpiffeId,
    ca: &Ca,
    store: &SvidStore,
    lifetime: Duration,
    now: SystemTime,
) -> anyhow::Result<Svid> {
    let context = || format!("issue the SVID {id}");
    let key = SvidKeyPair::generate().with_context(context)?;
    let csr = key.csr_der(id).with_context(context)?;
    let chain = ca.issue(&csr, id, lifetime, now).with_context(context)?;
    let svid = key.into_svid(chain).with_context(context)?;
    store.save(&svid).with_context(context)?;
    tracing::info!(target: "fedgate::audit", spiffe_id = %id, "SVID issued to this node");
    Ok(svid)
}
