//! Which cluster owns which trust domain.

use std::collections::BTreeMap;

use model::{ClusterName, TrustDomain};

/// A second cluster claimed a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "trust domain {domain:?} belongs to cluster {owner:?}, so cluster {claimant:?} cannot have it: \
     give each cluster a trust domain of its own"
)]
pub struct OwnerConflict {
    pub domain: TrustDomain,
    pub owner: ClusterName,
    pub claimant: ClusterName,
}

/// The owners of trust domains: a cluster may have several, a domain has exactly one owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustDomainOwners(BTreeMap<TrustDomain, ClusterName>);

impl TrustDomainOwners {
    /// The first claim holds; a repetition of it is fine.
    pub fn claim(
        &mut self,
        domain: TrustDomain,
        cluster: ClusterName,
    ) -> Result<(), OwnerConflict> {
        match self.0.get(&domain) {
            Some(owner) if *owner != cluster => {
                Err(OwnerConflict { owner: owner.clone(), domain, claimant: cluster })
            }
            Some(_) => Ok(()),
            None => {
                self.0.insert(domain, cluster);
                Ok(())
            }
        }
    }

    pub fn owner(&self, domain: &TrustDomain) -> Option<&ClusterName> {
        self.0.get(domain)
    }

    /// In the order of the domains' names.
    pub fn iter(&self) -> impl Iterator<Item = (&TrustDomain, &ClusterName)> {
        self.0.iter()
    }
}

/// What `model::compile` found out; our own cluster's domains are claimed on top of it.
impl From<BTreeMap<TrustDomain, ClusterName>> for TrustDomainOwners {
    fn from(owners: BTreeMap<TrustDomain, ClusterName>) -> Self {
        Self(owners)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_has_one_owner_and_a_cluster_many_domains() {
        let domain = |name| TrustDomain::parse(name).unwrap();
        let cluster = |name| ClusterName::parse(name).unwrap();
        let mut owners = TrustDomainOwners::default();
        owners.claim(domain("east.fed"), cluster("east")).unwrap();
        owners.claim(domain("east.fed"), cluster("east")).unwrap();
        owners.claim(domain("east2.fed"), cluster("east")).unwrap();
        let error = owners.claim(domain("east.fed"), cluster("west")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "trust domain \"east.fed\" belongs to cluster \"east\", so cluster \"west\" cannot have \
             it: give each cluster a trust domain of its own"
        );
        assert_eq!(owners.owner(&domain("east.fed")), Some(&cluster("east")));
        assert_eq!(owners.owner(&domain("west.fed")), None);
        assert_eq!(owners.iter().count(), 2);
    }
}
