//! Who may reach an exported service. Default deny; evaluated at the destination.

use crate::catalog::AllowEntry;
use crate::name::ClusterName;
use crate::spiffe::SpiffeId;

/// Who asks, as the tunnel's mutual TLS and the stream's `Open` establish it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The cluster that owns the trust domain of the peer gateway.
    pub cluster: ClusterName,
    /// The workload's identity, or the gateway's own when the workload has none.
    pub identity: SpiffeId,
    /// The caller had no SVID: `identity` is its gateway's, and matches no rule by SPIFFE ID.
    pub unattested: bool,
}

/// The outcome of [`decide`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// No policy targets the export at all.
    DenyNoPolicy,
    /// Policies exist, but none allows this caller.
    DenyNoMatch,
}

/// `entries` are those of every policy that targets the export; `targeted` tells whether any does.
pub fn decide(entries: &[AllowEntry], targeted: bool, caller: &Caller) -> Decision {
    if !targeted {
        return Decision::DenyNoPolicy;
    }
    if entries.iter().any(|entry| allows(entry, caller)) {
        return Decision::Allow;
    }
    Decision::DenyNoMatch
}

fn allows(entry: &AllowEntry, caller: &Caller) -> bool {
    let AllowEntry { cluster, trust_domain, spiffe_id } = entry;
    if cluster.is_none() && trust_domain.is_none() && spiffe_id.is_none() {
        return false; // an entry that says nothing allows nobody
    }
    cluster.as_ref().is_none_or(|cluster| *cluster == caller.cluster)
        && trust_domain.as_ref().is_none_or(|domain| domain == caller.identity.trust_domain())
        && spiffe_id.as_ref().is_none_or(|id| !caller.unattested && *id == caller.identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spiffe::TrustDomain;

    fn caller(unattested: bool) -> Caller {
        Caller {
            cluster: ClusterName::parse("east").unwrap(),
            identity: SpiffeId::parse("spiffe://east.fed/ns/shop/sa/web").unwrap(),
            unattested,
        }
    }

    #[test]
    fn default_is_deny_and_says_which() {
        assert_eq!(decide(&[], false, &caller(false)), Decision::DenyNoPolicy);
        assert_eq!(decide(&[], true, &caller(false)), Decision::DenyNoMatch);
        assert_eq!(decide(&[AllowEntry::default()], true, &caller(false)), Decision::DenyNoMatch);
    }

    #[test]
    fn all_fields_of_an_entry_must_match() {
        let east = ClusterName::parse("east").unwrap();
        let west = ClusterName::parse("west").unwrap();
        let domain = TrustDomain::parse("east.fed").unwrap();
        let by = |cluster: &ClusterName, trust_domain| AllowEntry {
            cluster: Some(cluster.clone()),
            trust_domain,
            spiffe_id: None,
        };
        let allowed = |entry| decide(&[entry], true, &caller(false)) == Decision::Allow;
        assert!(allowed(by(&east, None)));
        assert!(allowed(by(&east, Some(domain.clone()))));
        assert!(!allowed(by(&west, Some(domain))));
    }

    #[test]
    fn an_unattested_caller_never_matches_by_spiffe_id() {
        let entry = AllowEntry {
            spiffe_id: Some(SpiffeId::parse("spiffe://east.fed/ns/shop/sa/web").unwrap()),
            ..AllowEntry::default()
        };
        assert_eq!(decide(std::slice::from_ref(&entry), true, &caller(false)), Decision::Allow);
        assert_eq!(decide(&[entry], true, &caller(true)), Decision::DenyNoMatch);
    }
}
