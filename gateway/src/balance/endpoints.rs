//! This cluster's endpoints: a table of cells beside the Snapshot, and the choice between two of a
//! row (P2C over peak EWMA, Finagle's algorithm).

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::{Endpoint, EndpointTable, ServiceName};
use rand::Rng;

use crate::limits::{ENDPOINT_PENALTY, LATENCY_HALF_LIFE, LATENCY_UNKNOWN};

/// Random pairs that are tried before the whole row is looked at.
const PAIRS_TRIED: usize = 4;

type Groups = HashMap<ServiceName, BTreeMap<u16, Arc<EndpointGroup>>>;

/// All rows; one writer replaces the table, all workers read it.
#[derive(Debug, Default)]
pub struct EndpointCells {
    groups: ArcSwap<Groups>,
}

impl EndpointCells {
    /// Takes a new table. What is known of an endpoint stays with it, by service, port and address.
    pub fn update(&self, table: EndpointTable) {
        let old = self.groups.load();
        let mut groups = Groups::new();
        for ((service, port), row) in table {
            let known = old.get(&service).and_then(|ports| ports.get(&port));
            let group = EndpointGroup::new(row, known.map(Arc::as_ref));
            groups.entry(service).or_default().insert(port, Arc::new(group));
        }
        self.groups.store(Arc::new(groups));
    }

    pub fn group(&self, service: &ServiceName, port: u16) -> Option<Arc<EndpointGroup>> {
        self.groups.load().get(service)?.get(&port).cloned()
    }
}

/// The endpoints of one service's port.
#[derive(Debug)]
pub struct EndpointGroup {
    ready: Vec<Arc<EndpointState>>,
    /// Listed, but taking no new requests; kept so that what is known survives a flap.
    resting: Vec<Arc<EndpointState>>,
}

/// What this gateway knows of one endpoint. Written by every worker, with relaxed atomics: an
/// estimate may miss an update, never tear.
#[derive(Debug)]
struct EndpointState {
    address: SocketAddr,
    in_flight: AtomicU32,
    latency_ns: AtomicU64,
    /// When `latency_ns` was written, in nanoseconds since the gateway's start.
    measured_at_ns: AtomicU64,
    /// 0: did not fail lately.
    failed_at_ns: AtomicU64,
}

impl EndpointGroup {
    fn new(row: Vec<Endpoint>, known: Option<&Self>) -> Self {
        let (mut ready, mut resting) = (Vec::new(), Vec::new());
        for endpoint in row {
            let state = known
                .and_then(|group| group.find(endpoint.address))
                .unwrap_or_else(|| Arc::new(EndpointState::new(endpoint.address)));
            if endpoint.ready { &mut ready } else { &mut resting }.push(state);
        }
        Self { ready, resting }
    }

    fn find(&self, address: SocketAddr) -> Option<Arc<EndpointState>> {
        let all = self.ready.iter().chain(&self.resting);
        all.into_iter().find(|state| state.address == address).cloned()
    }

    pub fn ready_count(&self) -> usize {
        self.ready.len()
    }

    pub fn total_count(&self) -> usize {
        self.ready.len() + self.resting.len()
    }

    /// One that did not just fail, or nothing.
    pub fn pick_sound(
        &self,
        tried: &[SocketAddr],
        now: Duration,
        rng: &mut impl Rng,
    ) -> Option<EndpointLease> {
        self.pick(now, rng, |state| !tried.contains(&state.address) && !state.failed_lately(now))
    }

    /// One that was not tried, even if it just failed.
    pub fn pick_any(&self, tried: &[SocketAddr], rng: &mut impl Rng) -> Option<EndpointLease> {
        self.pick(Duration::ZERO, rng, |state| !tried.contains(&state.address))
    }

    fn pick(
        &self,
        now: Duration,
        rng: &mut impl Rng,
        fine: impl Fn(&EndpointState) -> bool,
    ) -> Option<EndpointLease> {
        let count = self.ready.len();
        if count > 2 {
            for _ in 0..PAIRS_TRIED {
                let first = rng.random_range(0..count);
                let second = (first + rng.random_range(1..count)) % count;
                let (a, b) = (&self.ready[first], &self.ready[second]);
                if fine(a) && fine(b) {
                    let better = if a.load(now) <= b.load(now) { a } else { b };
                    return Some(EndpointLease::new(better.clone()));
                }
            }
        }
        // Few endpoints, or few that are fine: look at each, beginning anywhere.
        let start = if count == 0 { 0 } else { rng.random_range(0..count) };
        (0..count)
            .map(|step| &self.ready[(start + step) % count])
            .filter(|state| fine(state))
            .min_by(|a, b| a.load(now).total_cmp(&b.load(now)))
            .map(|state| EndpointLease::new(state.clone()))
    }
}

impl EndpointState {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            in_flight: AtomicU32::new(0),
            latency_ns: AtomicU64::new(LATENCY_UNKNOWN.as_nanos() as u64),
            measured_at_ns: AtomicU64::new(0),
            failed_at_ns: AtomicU64::new(0),
        }
    }

    /// Peak EWMA × (requests in progress + 1).
    fn load(&self, now: Duration) -> f64 {
        let latency = self.latency_ns.load(Ordering::Relaxed) as f64 * self.decay(now);
        latency.max(1.0) * f64::from(self.in_flight.load(Ordering::Relaxed) + 1)
    }

    /// How much of the old average is left by now.
    fn decay(&self, now: Duration) -> f64 {
        let measured_at = Duration::from_nanos(self.measured_at_ns.load(Ordering::Relaxed));
        let age = now.saturating_sub(measured_at);
        (-age.as_secs_f64() / LATENCY_HALF_LIFE.as_secs_f64()).exp2()
    }

    fn measure(&self, latency: Duration, now: Duration) {
        let latency_ns = latency.as_nanos() as f64;
        let old = self.latency_ns.load(Ordering::Relaxed) as f64;
        let left = self.decay(now);
        // A peak counts at once and fades slowly; that is what keeps a stalling endpoint unpopular.
        let new =
            if latency_ns > old { latency_ns } else { old * left + latency_ns * (1.0 - left) };
        self.latency_ns.store(new as u64, Ordering::Relaxed);
        self.measured_at_ns.store(now.as_nanos() as u64, Ordering::Relaxed);
    }

    fn failed_lately(&self, now: Duration) -> bool {
        let failed_at = self.failed_at_ns.load(Ordering::Relaxed);
        failed_at != 0 && now.saturating_sub(Duration::from_nanos(failed_at)) < ENDPOINT_PENALTY
    }
}

/// A request's or connection's place at an endpoint; it counts as in progress while this lives.
#[derive(Debug)]
pub struct EndpointLease {
    state: Arc<EndpointState>,
}

impl EndpointLease {
    fn new(state: Arc<EndpointState>) -> Self {
        state.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { state }
    }

    pub fn address(&self) -> SocketAddr {
        self.state.address
    }

    /// The time until the response's head, or until a TCP connection stood.
    pub fn measure(&self, latency: Duration, now: Duration) {
        self.state.measure(latency, now);
        self.state.failed_at_ns.store(0, Ordering::Relaxed);
    }

    pub fn connect_failed(&self, now: Duration) {
        self.state.failed_at_ns.store((now.as_nanos() as u64).max(1), Ordering::Relaxed);
    }
}

impl Drop for EndpointLease {
    fn drop(&mut self) {
        self.state.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::balance::testing::cells;

    fn group(cells: &EndpointCells) -> Arc<EndpointGroup> {
        cells.group(&ServiceName::parse("shop/api").unwrap(), 80).unwrap()
    }

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn equal_endpoints_share_the_load() {
        let group = group(&cells(&[(1, true), (2, true), (3, true), (4, true), (5, false)]));
        let mut rng = SmallRng::seed_from_u64(1);
        let mut counts = BTreeMap::new();
        let mut leases = Vec::new();
        for _ in 0..400 {
            let lease = group.pick_sound(&[], NOW, &mut rng).unwrap();
            *counts.entry(lease.address().port()).or_insert(0) += 1;
            leases.push(lease);
        }
        assert_eq!(counts.len(), 4, "{counts:?}");
        assert!(counts.values().all(|count| (90..=110).contains(count)), "{counts:?}");
        drop(leases);
        assert!(group.ready.iter().all(|state| state.in_flight.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_slow_endpoint_gets_little_and_recovers_with_time() {
        let group = group(&cells(&[(1, true), (2, true), (3, true)]));
        let mut rng = SmallRng::seed_from_u64(2);
        for state in &group.ready {
            let slow = state.address.port() == 1;
            let latency = Duration::from_millis(if slow { 500 } else { 5 });
            state.measure(latency, NOW);
        }
        let mut share = |now| {
            let picks = (0..300)
                .filter(|_| group.pick_sound(&[], now, &mut rng).unwrap().address().port() == 1);
            picks.count()
        };
        assert_eq!(share(NOW), 0);
        for state in group.ready.iter().filter(|state| state.address.port() != 1) {
            state.measure(Duration::from_millis(5), NOW + Duration::from_secs(60));
        }
        assert!(share(NOW + Duration::from_secs(60)) > 50, "a minute later the peak has faded");
    }

    #[test]
    fn a_peak_counts_at_once_and_an_average_moves_slowly() {
        let state = EndpointState::new(([127, 0, 0, 1], 1).into());
        state.measure(Duration::from_millis(100), NOW);
        assert_eq!(state.latency_ns.load(Ordering::Relaxed), 100_000_000);
        state.measure(Duration::from_millis(0), NOW + LATENCY_HALF_LIFE);
        assert_eq!(state.latency_ns.load(Ordering::Relaxed), 50_000_000);
    }

    #[test]
    fn failed_and_tried_endpoints_are_passed_over() {
        let cells = cells(&[(1, true), (2, true)]);
        let group = group(&cells);
        let mut rng = SmallRng::seed_from_u64(3);
        let first = group.pick_sound(&[], NOW, &mut rng).unwrap();
        first.connect_failed(NOW);
        for _ in 0..20 {
            let other = group.pick_sound(&[], NOW, &mut rng).unwrap();
            assert_ne!(other.address(), first.address());
        }
        let other = group.pick_sound(&[], NOW, &mut rng).unwrap().address();
        assert!(group.pick_sound(&[other], NOW, &mut rng).is_none());
        assert_eq!(group.pick_any(&[other], &mut rng).unwrap().address(), first.address());
        let later = NOW + ENDPOINT_PENALTY;
        assert!(group.pick_sound(&[other], later, &mut rng).is_some());
        first.measure(Duration::from_millis(1), NOW);
        assert!(group.pick_sound(&[other], NOW, &mut rng).is_some(), "success ends the penalty");
    }

    #[test]
    fn knowledge_stays_with_an_endpoint_across_updates() {
        let cells = cells(&[(1, true)]);
        let lease = group(&cells).pick_any(&[], &mut SmallRng::seed_from_u64(4)).unwrap();
        let service = ServiceName::parse("shop/api").unwrap();
        let row = |port| Endpoint { address: ([127, 0, 0, 1], port).into(), ready: true };
        cells.update([((service, 80), vec![row(1), row(2)])].into());
        let in_flight: Vec<u32> =
            group(&cells).ready.iter().map(|s| s.in_flight.load(Ordering::Relaxed)).collect();
        assert_eq!(in_flight, [1, 0]);
        drop(lease);
        cells.update(EndpointTable::new());
        assert!(cells.group(&ServiceName::parse("shop/api").unwrap(), 80).is_none());
    }

    #[test]
    fn no_ready_endpoint_is_no_pick() {
        let group = group(&cells(&[(1, false)]));
        let mut rng = SmallRng::seed_from_u64(5);
        assert!(group.pick_any(&[], &mut rng).is_none());
        assert_eq!((group.ready_count(), group.total_count()), (0, 1));
    }
}
