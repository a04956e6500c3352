//! Joins that wait for a person.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use model::{ClusterId, ClusterName, TrustDomain};
use tokio::sync::oneshot;
use wire::store::TokenId;

use super::types::PendingJoin;
use crate::limits::PENDING_JOINS_MAX;

/// The waiting list. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pending(Arc<Mutex<BTreeMap<ClusterId, Waiting>>>);

#[derive(Debug)]
struct Waiting {
    request: Request,
    since: Instant,
    number: u64,
    decision: oneshot::Sender<bool>,
}

/// Who asks to be let in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) cluster: ClusterId,
    pub(crate) name: ClusterName,
    pub(crate) token: TokenId,
    pub(crate) trust_domains: Vec<TrustDomain>,
    pub(crate) remote: String,
}

/// A place on the list; it is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pending: Pending,
    cluster: ClusterId,
    number: u64,
    decision: oneshot::Receiver<bool>,
}

impl Pending {
    /// `None` when the list is full. A newer request of the same cluster takes the older one's
    /// place: its connection has most likely died.
    pub(crate) fn enter(&self, request: Request, now: Instant) -> Option<Place> {
        let mut table = self.lock();
        let cluster = request.cluster;
        if table.len() >= PENDING_JOINS_MAX && !table.contains_key(&cluster) {
            return None;
        }
        let (decision, receiver) = oneshot::channel();
        let (since, number) =
            table.get(&cluster).map_or((now, 0), |older| (older.since, older.number + 1));
        table.insert(cluster, Waiting { request, since, number, decision });
        drop(table);
        Some(Place { pending: self.clone(), cluster, number, decision: receiver })
    }

    pub(crate) fn list(&self, now: Instant) -> Vec<PendingJoin> {
        let row = |waiting: &Waiting| PendingJoin {
            cluster: waiting.request.cluster,
            name: waiting.request.name.clone(),
            token: waiting.request.token,
            trust_domains: waiting.request.trust_domains.clone(),
            remote: waiting.request.remote.clone(),
            waiting: now.saturating_duration_since(waiting.since),
        };
        self.lock().values().map(row).collect()
    }

    /// `false` when nobody of that id waits.
    pub(crate) fn decide(&self, cluster: &ClusterId, approved: bool) -> bool {
        let Some(waiting) = self.lock().remove(cluster) else { return false };
        waiting.decision.send(approved).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClusterId, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// What the person decided; `None` when a newer request of the cluster has taken the place.
    pub(crate) async fn decision(&mut self) -> Option<bool> {
        (&mut self.decision).await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.pending.lock();
        if table.get(&self.cluster).is_some_and(|waiting| waiting.number == self.number) {
            table.remove(&self.cluster);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u8) -> Request {
        Request {
            cluster: ClusterId::from_bytes([id; 16]),
            name: ClusterName::parse("west").unwrap(),
            token: TokenId::from_bytes([id; 16]),
            trust_domains: vec![TrustDomain::parse("west.example").unwrap()],
            remote: "192.0.2.7:40000".into(),
        }
    }

    #[tokio::test]
    async fn a_person_decides_once() {
        let pending = Pending::default();
        let now = Instant::now();
        let id = request(1).cluster;
        assert!(!pending.decide(&id, true), "nobody waits yet");
        let mut place = pending.enter(request(1), now).unwrap();
        assert_eq!(pending.list(now)[0].remote, "192.0.2.7:40000");
        assert!(pending.decide(&id, false));
        assert_eq!(place.decision().await, Some(false));
        assert!(!pending.decide(&id, true), "it is decided");
        assert!(pending.list(now).is_empty());
    }

    #[tokio::test]
    async fn who_comes_again_takes_its_own_place() {
        let pending = Pending::default();
        let now = Instant::now();
        let mut first = pending.enter(request(1), now).unwrap();
        let mut second = pending.enter(request(1), now).unwrap();
        assert_eq!(first.decision().await, None);
        drop(first);
        assert_eq!(pending.list(now).len(), 1, "the newer one still waits");
        assert!(pending.decide(&request(1).cluster, true));
        assert_eq!(second.decision().await, Some(true));
    }

    #[test]
    fn the_list_is_bounded_and_forgets_those_who_hung_up() {
        let pending = Pending::default();
        let now = Instant::now();
        let full = u8::try_from(PENDING_JOINS_MAX).unwrap();
        let mut places: Vec<Place> =
            (0..full).map(|id| pending.enter(request(id), now).unwrap()).collect();
        assert!(pending.enter(request(full), now).is_none());
        places.pop();
        assert!(pending.enter(request(full), now).is_some());
    }
}
