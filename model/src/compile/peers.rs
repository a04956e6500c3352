//! Peers and who owns which trust domain.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Findings;
use crate::catalog::{ClusterPeer, Resource, ResourceSet};
use crate::code;
use crate::name::ClusterName;
use crate::spiffe::TrustDomain;

pub(super) type Peers = BTreeMap<ClusterName, Arc<ClusterPeer>>;
pub(super) type Owners = BTreeMap<TrustDomain, ClusterName>;

/// A peer whose trust domain is another's loses that domain; one left without any is dropped.
pub(super) fn compile(
    own: &ClusterName,
    resources: &ResourceSet,
    findings: &mut Findings,
) -> (Peers, Owners) {
    let (mut peers, mut owners) = (Peers::new(), Owners::new());
    for resource in resources.values() {
        let Resource::ClusterPeer(peer) = resource else { continue };
        if peer.name == *own {
            let message = format!("{:?} is this cluster's own name", peer.name.as_str());
            let fix = "name the other cluster; a cluster is no peer of itself";
            findings.error(resource, "metadata.name", code::OBJECT_INVALID, message, fix);
            continue;
        }
        let mut kept = peer.clone();
        kept.trust_bundles.retain(|bundle| {
            let owner =
                owners.entry(bundle.trust_domain.clone()).or_insert_with(|| peer.name.clone());
            let mine = *owner == peer.name;
            if !mine {
                let message = format!("trust domain {} belongs to {owner}", bundle.trust_domain);
                let fix = "give each cluster a trust domain of its own";
                let field = "spec.trustDomains";
                findings.error(resource, field, code::TRUST_DOMAIN_CONFLICT, message, fix);
            }
            mine
        });
        if !kept.trust_bundles.is_empty() {
            peers.insert(kept.name.clone(), Arc::new(kept));
        }
    }
    (peers, owners)
}
