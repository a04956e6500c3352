//! How many exchanges this gateway has in progress at each peer: what a drain waits for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::ClusterName;

/// Exchanges sent to each cluster, over all workers. A cluster is in the table only while it has
/// some, so the table is no longer than the exchanges are many.
#[derive(Debug, Clone, Default)]
pub struct SentExchanges(Arc<Mutex<BTreeMap<ClusterName, u32>>>);

impl SentExchanges {
    /// Counts one until what is returned is dropped.
    pub fn begin(&self, cluster: &ClusterName) -> SentExchange {
        let mut counts = self.lock();
        match counts.get_mut(cluster) {
            Some(count) => *count += 1,
            None => {
                counts.insert(cluster.clone(), 1);
            }
        }
        drop(counts);
        SentExchange { counts: self.clone(), cluster: cluster.clone() }
    }

    pub fn counts(&self) -> BTreeMap<ClusterName, u32> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClusterName, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One exchange at one cluster.
#[derive(Debug)]
pub struct SentExchange {
    counts: SentExchanges,
    cluster: ClusterName,
}

impl Drop for SentExchange {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.cluster) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.cluster);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchanges_count_until_they_are_dropped() {
        let sent = SentExchanges::default();
        let (east, west) =
            (ClusterName::parse("east").unwrap(), ClusterName::parse("west").unwrap());
        let (first, second) = (sent.begin(&east), sent.begin(&east));
        let other = sent.begin(&west);
        assert_eq!(sent.counts(), [(east.clone(), 2), (west.clone(), 1)].into());
        drop((first, other));
        assert_eq!(sent.counts(), [(east, 1)].into());
        drop(second);
        assert_eq!(sent.counts(), BTreeMap::new(), "who has none is not remembered");
    }
}
