//! The order of clusters by round-trip time, slow to change, and short penalties for those that
//! just refused a service.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::snapshot::Backend;
use model::{ClusterName, ServiceName};

use crate::limits::{CLUSTER_PENALTIES_MAX, CLUSTER_PENALTY, RANK_CHANGE_MIN, RANK_CHANGE_PERCENT};

/// Clusters, nearest first. The control task writes it, every request reads it.
#[derive(Debug, Default)]
pub struct ClusterRank {
    order: ArcSwap<Vec<ClusterName>>,
}

impl ClusterRank {
    pub fn load(&self) -> arc_swap::Guard<Arc<Vec<ClusterName>>> {
        self.order.load()
    }

    pub fn update(&self, measured: &[(ClusterName, Duration)]) {
        let old = self.order.load();
        let new = rerank(&old, measured);
        if **old != new {
            self.order.store(Arc::new(new));
        }
    }
}

/// The next order. A cluster overtakes the one before it only if it is clearly nearer, so that two
/// equally distant ones do not take turns with every measurement.
pub fn rerank(old: &[ClusterName], measured: &[(ClusterName, Duration)]) -> Vec<ClusterName> {
    let find = |name: &ClusterName| measured.iter().find(|row| row.0 == *name);
    let mut order: Vec<&(ClusterName, Duration)> = old.iter().filter_map(find).collect();
    let mut fresh: Vec<_> = measured.iter().filter(|row| !old.contains(&row.0)).collect();
    fresh.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
    for row in fresh {
        let place = order.iter().position(|other| other.1 > row.1).unwrap_or(order.len());
        order.insert(place, row);
    }
    // Insertion sort with a threshold: each cluster moves up past those that it clearly beats.
    for index in 1..order.len() {
        let mut place = index;
        while place > 0 && clearly_nearer(order[place].1, order[place - 1].1) {
            order.swap(place, place - 1);
            place -= 1;
        }
    }
    order.into_iter().map(|row| row.0.clone()).collect()
}

fn clearly_nearer(candidate: Duration, before: Duration) -> bool {
    candidate * 100 < before * RANK_CHANGE_PERCENT && candidate + RANK_CHANGE_MIN < before
}

type Key = (ServiceName, u16, ClusterName);

/// Pairs of service and cluster that failed a moment ago without having dispatched anything.
#[derive(Debug, Default)]
pub struct ClusterPenalties {
    /// Length of `until`, so that the usual case (none) takes no lock.
    count: AtomicUsize,
    until: Mutex<HashMap<Key, Duration>>,
}

impl ClusterPenalties {
    pub fn set(&self, backend: &Backend, cluster: &ClusterName, now: Duration) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.retain(|_, end| *end > now);
        if until.len() < CLUSTER_PENALTIES_MAX {
            let key = (backend.service.clone(), backend.port, cluster.clone());
            until.insert(key, now + CLUSTER_PENALTY);
        }
        self.count.store(until.len(), Ordering::Relaxed);
    }

    pub fn holds(&self, backend: &Backend, cluster: &ClusterName, now: Duration) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (backend.service.clone(), backend.port, cluster.clone());
        let end = until.get(&key).copied();
        if end.is_some_and(|end| end <= now) {
            until.remove(&key);
            self.count.store(until.len(), Ordering::Relaxed);
        }
        end.is_some_and(|end| end > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::backend;

    fn order(old: &str, measured: &[(&str, u64)]) -> String {
        let name = |text: &str| ClusterName::parse(text).unwrap();
        let old: Vec<_> = old.split_whitespace().map(name).collect();
        let row = |(text, micros): &(&str, u64)| (name(text), Duration::from_micros(*micros));
        let measured: Vec<_> = measured.iter().map(row).collect();
        let new = rerank(&old, &measured);
        new.iter().map(ClusterName::as_str).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn small_differences_change_nothing() {
        assert_eq!(order("a b", &[("a", 20_000), ("b", 19_000)]), "a b");
        assert_eq!(order("b a", &[("a", 20_000), ("b", 19_000)]), "b a");
        assert_eq!(order("a b", &[("a", 20_000), ("b", 15_000)]), "b a");
        assert_eq!(order("a b", &[("a", 900), ("b", 100)]), "a b", "under a millisecond is noise");
        assert_eq!(order("a b c", &[("a", 90_000), ("b", 80_000), ("c", 10_000)]), "c a b");
    }

    #[test]
    fn clusters_come_by_distance_and_go_when_unmeasured() {
        assert_eq!(order("", &[("c", 3), ("a", 1), ("b", 2)]), "a b c");
        assert_eq!(order("a c", &[("a", 10_000), ("c", 30_000), ("b", 20_000)]), "a b c");
        assert_eq!(order("a b c", &[("c", 1)]), "c");
        assert_eq!(order("a", &[]), "");
    }

    #[test]
    fn penalties_end_by_themselves() {
        let (penalties, backend) =
            (ClusterPenalties::default(), backend(false, &["west", "south"]));
        let (west, south) = (&backend.clusters[0], &backend.clusters[1]);
        let now = Duration::from_secs(5);
        assert!(!penalties.holds(&backend, west, now));
        penalties.set(&backend, west, now);
        assert!(penalties.holds(&backend, west, now));
        assert!(!penalties.holds(&backend, south, now));
        assert!(!penalties.holds(&backend, west, now + CLUSTER_PENALTY));
        assert_eq!(penalties.count.load(Ordering::Relaxed), 0);
    }
}
