//! Revocations that must not wait for the log: whoever hears of one, by whatever path, enforces it
//! at once, hands it on, and sees to it that the log has it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{ClusterId, Role, TrustDomain};
use wire::store::{Change, Domain, Revocation, RevocationTarget, Signed};

use super::error::MembershipError;
use super::node::Node;
use crate::fleet::{Fleet, verify};
use crate::limits::{EARLY_REVOCATIONS_MAX, PROPOSE_PAUSE_MAX};

/// Verified revocations that the state does not have yet.
#[derive(Debug, Default)]
pub(crate) struct Early(Mutex<BTreeMap<Vec<u8>, (Signed, Revocation)>>);

impl Early {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, (Signed, Revocation)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// Judges what somebody told; what holds is in force when this returns.
    pub(crate) fn take_revocations(self: &Arc<Self>, told: &[Signed]) {
        let Some((_, fleet)) = self.state() else { return };
        let mut news = false;
        for signed in told.iter().take(EARLY_REVOCATIONS_MAX) {
            let Some(revocation) = judged(&fleet, signed) else { continue };
            let mut early = self.early.lock();
            if early.len() >= EARLY_REVOCATIONS_MAX || early.contains_key(&signed.payload[..]) {
                continue;
            }
            tracing::warn!(
                target: "fedgate::audit",
                revoked = ?revocation.target,
                reason = revocation.reason,
                "a revocation was heard of before the log had it; it is in force"
            );
            early.insert(signed.payload.to_vec(), (signed.clone(), revocation));
            drop(early);
            news = true;
            // Most likely somebody else proposes it too: the log takes it once.
            let node = self.clone();
            let stop = self.stop.clone();
            self.tasks.spawn(stop.run_until_cancelled_owned(node.log_revocation(signed.clone())));
        }
        if news {
            self.enforce();
        }
    }

    /// Until the log has it: what is in force in memory alone would be forgotten with the nodes that
    /// have heard of it.
    async fn log_revocation(self: Arc<Self>, signed: Signed) {
        loop {
            let proposed = self.propose(Change::Revoke(signed.clone())).await;
            let Err(problem) = proposed else { return };
            tracing::warn!(%problem, "the revocation is not logged by this node");
            if !matches!(problem, MembershipError::NoQuorum { .. }) {
                return;
            }
            tokio::time::sleep(PROPOSE_PAUSE_MAX).await;
        }
    }

    /// All revocations in force, those of the log first.
    pub(crate) fn revocations(&self) -> Vec<Signed> {
        let logged = self.state().map(|(_, fleet)| {
            fleet.revocations().map(|entry| entry.signed.clone()).collect::<Vec<_>>()
        });
        let mut all = logged.unwrap_or_default();
        all.extend(self.early.lock().values().map(|(signed, _)| signed.clone()));
        all
    }

    /// Clusters and trust domains that are shut out, besides what the state says already. What the
    /// state has by now is forgotten here.
    pub(crate) fn shut_out_early(
        &self,
        fleet: &Fleet,
    ) -> (BTreeSet<ClusterId>, BTreeSet<TrustDomain>) {
        let mut early = self.early.lock();
        early.retain(|_, (signed, _)| {
            !fleet.revocations().any(|entry| entry.signed.payload == signed.payload)
        });
        let (mut clusters, mut domains) = (BTreeSet::new(), BTreeSet::new());
        for (_, revocation) in early.values() {
            match &revocation.target {
                RevocationTarget::Cluster(cluster) => {
                    clusters.insert(*cluster);
                }
                RevocationTarget::TrustDomain(domain) => {
                    domains.insert(domain.clone());
                    clusters.extend(fleet.owner_of(domain).map(|member| member.cluster));
                }
            }
        }
        (clusters, domains)
    }
}

/// The revocation, if an admin of this federation has signed it and the state does not have it.
fn judged(fleet: &Fleet, signed: &Signed) -> Option<Revocation> {
    let revocation = Revocation::decode(&signed.payload).ok()?;
    let issuer = fleet.member(&revocation.issuer)?;
    let known = fleet.revocations().any(|entry| entry.signed.payload == signed.payload);
    let holds = Some(revocation.federation) == fleet.federation()
        && issuer.roles.contains(Role::Admin)
        && issuer.open_key().id() == signed.key_id
        && verify(signed, Domain::Revocation, &issuer.open_key().spki).is_ok();
    (holds && !known).then_some(revocation)
}
