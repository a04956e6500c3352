//! Revocations and what follows from them: who is no member any more, and who answers for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{ClusterId, TrustDomain};
use wire::store::{Revocation, RevocationTarget, Signed};

use super::member::{MemberEntry, MemberStatus};

/// A revocation, as an admin signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationEntry {
    pub signed: Signed,
    pub revocation: Revocation,
}

impl RevocationEntry {
    pub fn revokes_domain(&self, domain: &TrustDomain) -> bool {
        self.revocation.target == RevocationTarget::TrustDomain(domain.clone())
    }
}

pub(super) type Members = BTreeMap<ClusterId, Arc<MemberEntry>>;

/// Carries out one revocation and returns who was revoked by it.
///
/// The target is revoked; if it is a trust domain, the member that owns it. Members that the revoked
/// one answers for are revoked with it, unless the revocation names another one to answer for them.
/// So a stolen key cannot outlive its revocation in members that it admitted a moment before.
pub(super) fn revoke(members: &mut Members, revocation: &Revocation) -> BTreeSet<ClusterId> {
    let mut revoked = BTreeSet::new();
    let mut next: Vec<ClusterId> = match &revocation.target {
        RevocationTarget::Cluster(cluster) => vec![*cluster],
        RevocationTarget::TrustDomain(domain) => {
            let owns = |entry: &&Arc<MemberEntry>| {
                entry.is_active() && entry.member().trust_domains.contains(domain)
            };
            members.values().filter(owns).map(|entry| entry.member().cluster).collect()
        }
    };
    let moved: BTreeMap<ClusterId, ClusterId> =
        revocation.reanchor.iter().map(|entry| (entry.child, entry.issuer)).collect();
    while let Some(cluster) = next.pop() {
        let Some(entry) = members.get_mut(&cluster) else { continue };
        if entry.status == MemberStatus::Revoked || !revoked.insert(cluster) {
            continue;
        }
        Arc::make_mut(entry).status = MemberStatus::Revoked;
        for (child, entry) in members.iter_mut() {
            if *child == cluster || entry.anchor != cluster {
                continue;
            }
            match moved.get(child) {
                Some(issuer) => Arc::make_mut(entry).anchor = *issuer,
                None => next.push(*child),
            }
        }
    }
    revoked
}
