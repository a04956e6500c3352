//! The way of a denial: in force here, then published, then answered.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::spiffe::Part;
use model::{Resource, Revision, RevokedSvid, SpiffeId};

use super::{DenialError, Denials};
use crate::gateways::Gateways;
use crate::limits::APPLIED_TIMEOUT;
use crate::membership::{Membership, Mode};
use crate::svid::OwnSvid;

/// The one hand that denies SVIDs, and tells everybody.
#[derive(Debug)]
pub(crate) struct Denying {
    pub(crate) denials: Arc<Denials>,
    pub(crate) svid: Arc<OwnSvid>,
    pub(crate) gateways: Gateways,
    pub(crate) membership: Membership,
}

/// What has become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SvidRevoked {
    pub(crate) svid: RevokedSvid,
    /// At which the store had it; `None` while it has not, or there is none.
    pub(crate) revision: Option<Revision>,
    /// There is no federation that could tell the others.
    pub(crate) alone: bool,
    /// It is the name of a gateway that this node has not heard of since its start.
    pub(crate) unseen: bool,
}

impl Denying {
    /// Returns when the store has committed it, or has not for too long: it is published as soon as
    /// it can be.
    pub(crate) async fn revoke(
        &self,
        id: SpiffeId,
        reason: String,
        now: SystemTime,
    ) -> Result<SvidRevoked, DenialError> {
        let denials = self.denials.clone();
        let denied = id.clone();
        let deny = move || denials.deny(denied, &reason, now);
        let svid = tokio::task::spawn_blocking(deny).await.expect("nothing in it panics")?;
        tracing::warn!(target: "fedgate::audit", spiffe_id = %id, "an SVID was revoked");
        let node = self.membership.node();
        node.enforce();
        if id == *self.svid.current().id() {
            self.replace_own(now).await;
        }
        let (alone, unseen) = (self.membership.mode() == Mode::Alone, self.is_unseen(&id));
        node.publish_again.notify_one();
        let revision = if alone { None } else { self.until_published(&svid).await };
        Ok(SvidRevoked { svid, revision, alone, unseen })
    }

    /// A name that was mistyped denies nobody.
    fn is_unseen(&self, id: &SpiffeId) -> bool {
        let Some((Part::Gateway, name)) = id.part() else { return false };
        !self.gateways.view(Instant::now()).iter().any(|gateway| gateway.name == name)
    }

    /// The node's own: the next one is good from the next second on.
    async fn replace_own(&self, now: SystemTime) {
        let into = now.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
        tokio::time::sleep(Duration::from_secs(1) - Duration::from_nanos(into.into())).await;
        if let Err(problem) = self.svid.renew(SystemTime::now()) {
            tracing::error!(problem = format!("{problem:#}"), "the node's SVID was not renewed");
        }
    }

    async fn until_published(&self, svid: &RevokedSvid) -> Option<Revision> {
        let node = self.membership.node();
        let mut revisions = node.feed.revision();
        let published = async {
            loop {
                revisions.mark_unchanged();
                if let Some((revision, fleet)) = node.state() {
                    let mut records = fleet.records(&node.own.id);
                    let says_it = |resource: &Resource| match resource {
                        Resource::ClusterPeer(peer) => peer.revoked_svids.contains(svid),
                        _ => false,
                    };
                    if records.any(|record| record.resource().is_some_and(says_it)) {
                        return Some(revision);
                    }
                }
                revisions.changed().await.ok()?;
            }
        };
        tokio::time::timeout(APPLIED_TIMEOUT, published).await.ok().flatten()
    }
}
