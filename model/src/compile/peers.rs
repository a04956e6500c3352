//! Peers and who owns which trust domain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Findings;
use crate::catalog::{ClusterPeer, Resource, ResourceSet};
use crate::code;
use crate::name::ClusterName;
use crate::spiffe::TrustDomain;

pub(super) type Peers = BTreeMap<ClusterName, Arc<ClusterPeer>>;
pub(super) type Owners = BTreeMap<TrustDomain, ClusterName>;

/// A trust domain that several peers claim is nobody's, since nothing here tells who is right: the
/// first by name could be the mistaken one. A peer left without any domain is dropped.
pub(super) fn compile(
    own: &ClusterName,
    resources: &ResourceSet,
    findings: &mut Findings,
) -> (Peers, Owners) {
    let claims = claims(own, resources);
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
            let domain = &bundle.trust_domain;
            let claimants = claims.get(domain).into_iter().flatten();
            let others: Vec<&str> =
                claimants.filter(|name| ***name != peer.name).map(|name| name.as_str()).collect();
            if others.is_empty() {
                owners.insert(domain.clone(), peer.name.clone());
                return true;
            }
            let others = others.join(", ");
            let message =
                format!("trust domain {domain} is claimed by {others} too, so nobody has it");
            let fix = "leave it with the cluster that owns it";
            let field = "spec.trustDomains";
            findings.error(resource, field, code::TRUST_DOMAIN_CONFLICT, message, fix);
            false
        });
        if kept.cordoned {
            let message = format!("no new exchanges are sent to {}: it is cordoned", kept.name);
            let fix = "`fedctl uncordon` where it was cordoned lets them flow again";
            findings.warning(resource, "", code::CLUSTER_CORDONED, message, fix);
        }
        if !kept.trust_bundles.is_empty() {
            peers.insert(kept.name.clone(), Arc::new(kept));
        }
    }
    (peers, owners)
}

/// Who claims which trust domain.
fn claims<'a>(
    own: &ClusterName,
    resources: &'a ResourceSet,
) -> BTreeMap<&'a TrustDomain, BTreeSet<&'a ClusterName>> {
    let mut claims = BTreeMap::<_, BTreeSet<_>>::new();
    for resource in resources.values() {
        let Resource::ClusterPeer(peer) = resource else { continue };
        if peer.name != *own {
            for bundle in &peer.trust_bundles {
                claims.entry(&bundle.trust_domain).or_default().insert(&peer.name);
            }
        }
    }
    claims
}
