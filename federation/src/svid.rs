//! The node's own SVID, `spiffe://<trust domain>/fedgate/federation/<name>`: kept on disk, renewed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use identity::{BundleSet, Ca, IdentityCell, Svid, SvidKeyPair, SvidStore, verify_chain};
use model::SpiffeId;
use tokio_util::sync::CancellationToken;

use crate::app::coded;
use crate::limits::RENEWAL_CHECK_INTERVAL;

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
        let kept = kept
            .filter(|svid| svid.not_after() <= now + lifetime && is_usable(svid, &id, &ca, now));
        let svid = match kept {
            Some(svid) => svid,
            None => issue(&id, &ca, &store, lifetime, now)?,
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

    /// Renews until the node stops. A failure is tried again; the old SVID lives on meanwhile.
    pub(crate) async fn keep_renewed(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(RENEWAL_CHECK_INTERVAL.min(self.lifetime / 10));
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let now = SystemTime::now();
            if !self.current().renewal_due(now) {
                continue;
            }
            match issue(&self.id, &self.ca, &self.store, self.lifetime, now) {
                Ok(svid) => self.identity.replace_svid(svid),
                Err(problem) => tracing::error!(%problem, "the node's SVID was not renewed"),
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
