//! The gateways of this cluster: who is connected, and what each one last said of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{ClusterName, Diagnostic, ObjectName, Revision};
use tokio::sync::Notify;
use wire::resource::{Ack, LinkState, StatusReport};

use crate::limits::GATEWAYS_MAX;
use crate::peer::Caller;

/// Every gateway that is connected, or was since the node started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gateways(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    /// Told when a stream ends.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    gateways: BTreeMap<ObjectName, Entry>,
    /// Numbers the leases, so that an old one's end does not end its successor.
    leases: u64,
}

#[derive(Debug)]
struct Entry {
    /// The stream that speaks for the gateway.
    lease: Option<(u64, Caller)>,
    since: Instant,
    report: Option<(StatusReport, Instant)>,
    ack: Option<Ack>,
    /// Where it opens streams on the store connections that other clusters have made to it.
    relay: Option<PathBuf>,
}

/// What an operator is told of a gateway.
#[derive(Debug, Clone)]
pub(crate) struct GatewayView {
    pub(crate) name: ObjectName,
    pub(crate) connected: bool,
    pub(crate) since_age: Duration,
    /// With every age brought up to now, and how old the report itself is.
    pub(crate) report: Option<(StatusReport, Duration)>,
    pub(crate) acknowledged: Option<Revision>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Why a gateway may not take a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameTaken {
    #[error(
        "another process ({}) is the gateway {name} of this cluster at the moment; stop that one, \
         or give this one another `name`",
        pid.map_or("its number is not visible".to_string(), |pid| format!("pid {pid}"))
    )]
    Live { name: ObjectName, pid: Option<i32> },
    #[error("{GATEWAYS_MAX} gateways are connected, and no more are served; stop one")]
    Full,
}

impl Gateways {
    /// Makes a stream the voice of the gateway. A newer stream of the same process replaces the
    /// older one; one of another process is refused, since two gateways with one SPIFFE ID would
    /// displace each other in every peer's tables.
    pub(crate) fn connect(
        &self,
        name: &ObjectName,
        caller: Caller,
        relay: Option<PathBuf>,
        now: Instant,
    ) -> Result<Lease, NameTaken> {
        let mut table = self.lock();
        table.check_free(name, caller)?;
        table.make_room(name)?;
        table.leases += 1;
        let number = table.leases;
        let entry = table.gateways.entry(name.clone()).or_insert_with(|| Entry {
            lease: None,
            since: now,
            report: None,
            ack: None,
            relay: None,
        });
        entry.relay = relay;
        entry.lease = Some((number, caller));
        entry.since = now;
        Ok(Lease { gateways: self.clone(), name: name.clone(), number })
    }

    /// Waits until `caller` may have the name, or `patience` ends.
    pub(crate) async fn wait_free(
        &self,
        name: &ObjectName,
        caller: Caller,
        patience: Duration,
    ) -> Result<(), NameTaken> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let freed = self.0.freed.notified();
            let Err(taken) = self.lock().check_free(name, caller) else { return Ok(()) };
            if tokio::time::timeout_at(deadline, freed).await.is_err() {
                return Err(taken);
            }
        }
    }

    pub(crate) fn view(&self, now: Instant) -> Vec<GatewayView> {
        let table = self.lock();
        let view = |(name, entry): (&ObjectName, &Entry)| GatewayView {
            name: name.clone(),
            connected: entry.lease.is_some(),
            since_age: now.saturating_duration_since(entry.since),
            report: entry.report.as_ref().map(|(report, at)| {
                let age = now.saturating_duration_since(*at);
                (aged(report, age), age)
            }),
            acknowledged: entry.ack.as_ref().map(|ack| ack.revision),
            diagnostics: entry.ack.iter().flat_map(|ack| ack.diagnostics.clone()).collect(),
        };
        table.gateways.iter().map(view).collect()
    }

    /// Sockets of connected gateways that hold a store connection from the cluster.
    pub(crate) fn relays_to(&self, cluster: &ClusterName) -> Vec<PathBuf> {
        let table = self.lock();
        let holds = |entry: &&Entry| {
            let report = entry.report.as_ref().map(|(report, _)| report);
            entry.lease.is_some()
                && report.is_some_and(|report| report.store_connections.contains(cluster))
        };
        table.gateways.values().filter(holds).filter_map(|entry| entry.relay.clone()).collect()
    }

    /// Clusters to which a connected gateway has a live tunnel.
    pub(crate) fn live_tunnels(&self) -> BTreeSet<ClusterName> {
        let table = self.lock();
        let connected = table.gateways.values().filter(|entry| entry.lease.is_some());
        let links = connected.flat_map(|entry| &entry.report).flat_map(|(report, _)| &report.links);
        let live = links.filter(|link| link.state == LinkState::Live);
        live.map(|link| link.cluster.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn check_free(&self, name: &ObjectName, caller: Caller) -> Result<(), NameTaken> {
        match self.gateways.get(name).and_then(|entry| entry.lease) {
            Some((_, holder)) if holder.is_other_process(caller) => {
                Err(NameTaken::Live { name: name.clone(), pid: holder.pid })
            }
            _ => Ok(()),
        }
    }

    /// Forgets the gateway that has been gone longest, if the table is full.
    fn make_room(&mut self, name: &ObjectName) -> Result<(), NameTaken> {
        if self.gateways.len() < GATEWAYS_MAX || self.gateways.contains_key(name) {
            return Ok(());
        }
        let gone = self.gateways.iter().filter(|(_, entry)| entry.lease.is_none());
        let oldest = gone.min_by_key(|(_, entry)| entry.since).map(|(name, _)| name.clone());
        self.gateways.remove(&oldest.ok_or(NameTaken::Full)?);
        Ok(())
    }
}

/// The right of one stream to speak for a gateway, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    gateways: Gateways,
    name: ObjectName,
    number: u64,
}

impl Lease {
    /// `false`: a newer stream speaks for the gateway now.
    pub(crate) fn report(&self, report: StatusReport, now: Instant) -> bool {
        self.with_entry(|entry| entry.report = Some((report, now)))
    }

    pub(crate) fn acknowledge(&self, ack: Ack) -> bool {
        self.with_entry(|entry| entry.ack = Some(ack))
    }

    fn with_entry(&self, change: impl FnOnce(&mut Entry)) -> bool {
        let mut table = self.gateways.lock();
        let entry = table.gateways.get_mut(&self.name);
        let own =
            entry.filter(|entry| entry.lease.is_some_and(|(number, _)| number == self.number));
        own.map(change).is_some()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let now = Instant::now();
        self.with_entry(|entry| {
            entry.lease = None;
            entry.since = now;
        });
        self.gateways.0.freed.notify_waiters();
    }
}

/// The gateway measured its ages when it sent the report; time has passed since.
fn aged(report: &StatusReport, age: Duration) -> StatusReport {
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let mut report = report.clone();
    report.uptime_ms = report.uptime_ms.saturating_add(age_ms);
    for link in &mut report.links {
        link.since_age_ms = link.since_age_ms.saturating_add(age_ms);
        if let Some(error) = &mut link.last_error {
            error.age_ms = error.age_ms.saturating_add(age_ms);
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ObjectName {
        ObjectName::parse(text).unwrap()
    }

    fn process(pid: i32) -> Caller {
        Caller { uid: 0, pid: Some(pid) }
    }

    #[tokio::test]
    async fn a_live_name_belongs_to_its_process() {
        let (gateways, now) = (Gateways::default(), Instant::now());
        let lease = gateways.connect(&name("gw"), process(7), None, now).unwrap();
        let taken = gateways.connect(&name("gw"), process(8), None, now).unwrap_err();
        assert_eq!(
            taken.to_string(),
            "another process (pid 7) is the gateway gw of this cluster at the moment; stop that \
             one, or give this one another `name`"
        );
        let (gw, other, none) = (name("gw"), name("other"), Duration::ZERO);
        assert_eq!(gateways.wait_free(&gw, process(8), none).await, Err(taken));
        assert_eq!(gateways.wait_free(&gw, process(7), none).await, Ok(()));
        assert_eq!(gateways.wait_free(&other, process(8), none).await, Ok(()));
        // In another PID namespace nobody can tell.
        let unseen = Caller { uid: 0, pid: None };
        assert_eq!(gateways.wait_free(&gw, unseen, none).await, Ok(()));
        // One that comes a little too early gets it when the old stream ends.
        let waiting = gateways.wait_free(&gw, process(8), Duration::from_secs(60));
        let ending = async {
            tokio::task::yield_now().await;
            drop(lease);
        };
        assert_eq!(tokio::join!(waiting, ending).0, Ok(()));
    }

    #[test]
    fn the_end_of_a_replaced_stream_does_not_end_its_successor() {
        let (gateways, now) = (Gateways::default(), Instant::now());
        let old = gateways.connect(&name("gw"), process(7), None, now).unwrap();
        let new = gateways.connect(&name("gw"), process(7), None, now).unwrap();
        let ack = || Ack { revision: Revision { epoch: 1, index: 1 }, diagnostics: vec![] };
        assert!(!old.acknowledge(ack()));
        drop(old);
        assert!(gateways.view(now)[0].connected);
        assert!(new.acknowledge(ack()));
        drop(new);
        assert!(!gateways.view(now)[0].connected);
    }

    #[test]
    fn the_table_forgets_the_longest_gone_and_never_a_live_one() {
        let (gateways, start) = (Gateways::default(), Instant::now());
        let connect = |index: usize| {
            let now = start + Duration::from_secs(index as u64);
            gateways.connect(&name(&format!("gw-{index}")), process(7), None, now)
        };
        let mut leases: Vec<Lease> =
            (0..GATEWAYS_MAX).map(|index| connect(index).unwrap()).collect();
        let full = connect(GATEWAYS_MAX).unwrap_err().to_string();
        assert_eq!(full, "256 gateways are connected, and no more are served; stop one");
        leases.remove(3);
        leases.push(connect(GATEWAYS_MAX).unwrap());
        let names = gateways.view(start);
        assert_eq!(names.len(), GATEWAYS_MAX);
        assert!(names.iter().all(|view| view.name != name("gw-3")));
    }
}
