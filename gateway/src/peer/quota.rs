//! How many exchanges each peer has in progress, so that one peer cannot take every place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::ClusterName;

use crate::limits::PEER_EXCHANGES_MAX;

/// Exchanges in progress by peer cluster, over all its gateways and all our workers. A cluster is
/// in the table only while it has some, so the table is no longer than the exchanges are many.
#[derive(Debug, Clone, Default)]
pub struct PeerQuotas(Arc<Mutex<BTreeMap<ClusterName, usize>>>);

impl PeerQuotas {
    /// `None` when the cluster has its share.
    pub fn take(&self, cluster: &ClusterName) -> Option<PeerPlace> {
        let mut taken = self.lock();
        let count = taken.entry(cluster.clone()).or_default();
        if *count >= PEER_EXCHANGES_MAX {
            return None;
        }
        *count += 1;
        Some(PeerPlace { quotas: self.clone(), cluster: cluster.clone() })
    }

    /// By cluster, for reports.
    pub fn counts(&self) -> BTreeMap<ClusterName, usize> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClusterName, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place of a cluster's share; free again when it is dropped.
#[derive(Debug)]
pub struct PeerPlace {
    quotas: PeerQuotas,
    cluster: ClusterName,
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        let mut taken = self.quotas.lock();
        if let Some(count) = taken.get_mut(&self.cluster) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.cluster);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_share_and_leaves_the_others_theirs() {
        let quotas = PeerQuotas::default();
        let (east, west) =
            (ClusterName::parse("east").unwrap(), ClusterName::parse("west").unwrap());
        let mut places: Vec<PeerPlace> = std::iter::from_fn(|| quotas.take(&east)).collect();
        assert_eq!(places.len(), PEER_EXCHANGES_MAX);
        const { assert!(PEER_EXCHANGES_MAX < crate::limits::EXCHANGES_MAX) };
        assert!(quotas.take(&west).is_some(), "another peer is not concerned");
        places.pop();
        places.push(quotas.take(&east).unwrap());
        assert!(quotas.take(&east).is_none());
        drop(places);
        assert!(quotas.lock().is_empty(), "who has none in progress is not remembered");
    }
}
