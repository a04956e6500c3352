//! What a node would find wrong with objects, for whoever has no node to ask: `fedctl analyze`.

use model::{ClusterName, Diagnostic, ResourceSet, TrustDomain, compile};

use crate::intake::own_domain_claims;
use crate::revisions::Revisions;

/// The findings of a node of `cluster` that serves these objects and no others. What their
/// translation found is not among them. Computes for a while on many objects.
pub fn judge(
    cluster: &ClusterName,
    trust_domain: Option<&TrustDomain>,
    resources: &ResourceSet,
) -> Vec<Diagnostic> {
    let revisions = Revisions::new(0);
    let mut findings = revisions.publish(resources).diagnostics;
    let (revision, served) = revisions.resources();
    findings.extend(compile(cluster, revision, &served).1);
    if let Some(domain) = trust_domain {
        findings.extend(own_domain_claims(domain, &served));
    }
    findings
}
