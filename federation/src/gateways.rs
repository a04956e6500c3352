//! The gateways of this cluster: who is connected, and what each one last said of itself.

mod ping;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{ClusterName, Diagnostic, GatewayId, ObjectName, Revision};
use tokio::sync::{Notify, watch};
use wire::resource::{Ack, LinkState, ServingGateways, StatusReport, Subscribe};

use crate::limits::GATEWAYS_MAX;
use crate::peer::Caller;
pub(crate) use ping::{Asked, GatewayPing, PingProblem};
use ping::{Asks, Pings};

/// Every gateway that is connected, or was since the node started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gateways(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    pings: Pings,
    /// Told when a stream ends.
    freed: Notify,
    /// Who serves, for all of them to know.
    serving: watch::Sender<Arc<ServingGateways>>,
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
    /// Its id while it says that it serves.
    serves: Option<GatewayId>,
    /// Where it opens streams on the store connections that other clusters have made to it.
    relay: Option<Door>,
    /// How it is asked for pings, if it answers them.
    asks: Option<Asks>,
}

/// Where a gateway is asked for a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Door {
    /// A Unix socket on this host.
    Socket(PathBuf),
    /// A port in the pod of this gateway, which shows its SVID there.
    Port { address: SocketAddr, gateway: ObjectName },
}

impl Door {
    /// A gateway's word counts for its own kind of caller: a path in another pod is none here.
    pub(crate) fn of(subscribe: &Subscribe, caller: &Caller) -> Option<Self> {
        match caller {
            Caller::Process { .. } => subscribe.relay_socket.clone().map(Self::Socket),
            Caller::Pod { gateway, .. } => {
                let gateway = gateway.clone();
                subscribe.relay_address.map(|address| Self::Port { address, gateway })
            }
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Port { address, gateway } => write!(f, "{gateway} at {address}"),
        }
    }
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
        "another process ({holder}) is the gateway {name} of this cluster at the moment; stop that \
         one, or give this one another `name`"
    )]
    Live { name: ObjectName, holder: Caller },
    #[error("{GATEWAYS_MAX} gateways are connected, and no more are served; stop one")]
    Full,
}

impl Gateways {
    /// Makes a stream the voice of the gateway. A newer stream of the same process, or of a pod of the
    /// same name, replaces the older one; one of another process is refused, since two gateways with
    /// one SPIFFE ID would displace each other in every peer's tables.
    pub(crate) fn connect(
        &self,
        name: &ObjectName,
        caller: Caller,
        relay: Option<Door>,
        now: Instant,
    ) -> Result<Lease, NameTaken> {
        let mut table = self.lock();
        table.check_free(name, &caller)?;
        table.make_room(name)?;
        table.leases += 1;
        let number = table.leases;
        let entry = table.gateways.entry(name.clone()).or_insert_with(|| Entry {
            lease: None,
            since: now,
            report: None,
            ack: None,
            serves: None,
            relay: None,
            asks: None,
        });
        (entry.relay, entry.asks) = (relay, None);
        entry.lease = Some((number, caller));
        entry.since = now;
        Ok(Lease { gateways: self.clone(), name: name.clone(), number })
    }

    /// Waits until `caller` may have the name, or `patience` ends.
    pub(crate) async fn wait_free(
        &self,
        name: &ObjectName,
        caller: &Caller,
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

    /// Doors of connected gateways that hold a store connection from the cluster.
    pub(crate) fn relays_to(&self, cluster: &ClusterName) -> Vec<Door> {
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

    /// The gateways that say that they serve: connected, ready, not draining.
    pub(crate) fn serving(&self) -> watch::Receiver<Arc<ServingGateways>> {
        self.0.serving.subscribe()
    }

    fn note_serving(&self, table: &Table) {
        let serving = table.gateways.values().filter_map(|entry| entry.serves).collect();
        self.0.serving.send_replace(Arc::new(ServingGateways(serving)));
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn check_free(&self, name: &ObjectName, caller: &Caller) -> Result<(), NameTaken> {
        match self.gateways.get(name).and_then(|entry| entry.lease.as_ref()) {
            Some((_, holder)) if holder.is_other_process(caller) => {
                Err(NameTaken::Live { name: name.clone(), holder: holder.clone() })
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
        let serves = report.ready && !report.draining;
        let id = report.spiffe_id.as_ref().filter(|_| serves).map(GatewayId::of);
        self.with_entry(|entry| (entry.report, entry.serves) = (Some((report, now)), id))
    }

    pub(crate) fn acknowledge(&self, ack: Ack) -> bool {
        self.with_entry(|entry| entry.ack = Some(ack))
    }

    fn with_entry(&self, change: impl FnOnce(&mut Entry)) -> bool {
        let mut table = self.gateways.lock();
        let entry = table.gateways.get_mut(&self.name);
        let own =
            entry.filter(|entry| entry.lease.as_ref().is_some_and(|(n, _)| *n == self.number));
        let Some(entry) = own else { return false };
        let before = entry.serves;
        change(entry);
        if entry.serves != before {
            self.gateways.note_serving(&table);
        }
        true
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let now = Instant::now();
        self.with_entry(|entry| {
            (entry.lease, entry.serves, entry.asks) = (None, None, None);
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

    fn report(gateway: &str, ready: bool, draining: bool) -> StatusReport {
        let id = format!("spiffe://east.example/fedgate/gateway/{gateway}");
        StatusReport {
            gateway: name(gateway),
            spiffe_id: Some(id.parse().unwrap()),
            svid_not_after_unix_s: None,
            tunnel_address: None,
            admin_address: None,
            revision: None,
            ready,
            draining,
            uptime_ms: 0,
            version: String::new(),
            links: vec![],
            listeners: vec![],
            services: vec![],
            counters: vec![],
            store_connections: vec![],
            exchanges: vec![],
        }
    }

    fn process(pid: i32) -> Caller {
        Caller::Process { uid: 0, pid: Some(pid) }
    }

    fn pod(gateway: &str, port: u16) -> Caller {
        Caller::Pod { gateway: name(gateway), remote: ([10, 0, 0, 7], port).into() }
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
        assert_eq!(gateways.wait_free(&gw, &process(8), none).await, Err(taken));
        assert_eq!(gateways.wait_free(&gw, &process(7), none).await, Ok(()));
        assert_eq!(gateways.wait_free(&other, &process(8), none).await, Ok(()));
        // In another PID namespace nobody can tell.
        let unseen = Caller::Process { uid: 0, pid: None };
        assert_eq!(gateways.wait_free(&gw, &unseen, none).await, Ok(()));
        // One that comes a little too early gets it when the old stream ends.
        let late = process(8);
        let waiting = gateways.wait_free(&gw, &late, Duration::from_secs(60));
        let ending = async {
            tokio::task::yield_now().await;
            drop(lease);
        };
        assert_eq!(tokio::join!(waiting, ending).0, Ok(()));
    }

    #[tokio::test]
    async fn a_pod_that_began_again_has_its_name_at_once() {
        let (gateways, now) = (Gateways::default(), Instant::now());
        // Its old stream is still open: nobody has told this node that the pod is gone.
        let old = gateways.connect(&name("gw-a"), pod("gw-a", 1), None, now).unwrap();
        let again = pod("gw-a", 2);
        assert_eq!(gateways.wait_free(&name("gw-a"), &again, Duration::ZERO).await, Ok(()));
        let _new = gateways.connect(&name("gw-a"), again, None, now).unwrap();
        let ack = Ack { revision: Revision { epoch: 1, index: 1 }, diagnostics: vec![] };
        assert!(!old.acknowledge(ack), "it is replaced");
        // A process on the node's host is somebody else, and so is a pod for it.
        let taken = gateways.connect(&name("gw-a"), process(7), None, now).unwrap_err();
        let wanted = "another process (in a pod, from 10.0.0.7:2) is the gateway gw-a of this";
        assert!(taken.to_string().starts_with(wanted), "{taken}");
        let _process = gateways.connect(&name("gw-b"), process(7), None, now).unwrap();
        assert!(gateways.connect(&name("gw-b"), pod("gw-b", 3), None, now).is_err());
    }

    #[test]
    fn a_path_in_another_pod_is_no_door() {
        let subscribe = Subscribe {
            gateway: name("gw"),
            cluster: ClusterName::parse("east").unwrap(),
            resume: None,
            relay_socket: Some("/run/relay.sock".into()),
            relay_address: Some(([10, 0, 0, 7], 7446).into()),
            answers_pings: false,
        };
        let socket = Door::Socket("/run/relay.sock".into());
        assert_eq!(Door::of(&subscribe, &process(7)), Some(socket));
        let (address, gateway) = (([10, 0, 0, 7], 7446).into(), name("gw"));
        let port = Door::Port { address, gateway };
        assert_eq!(port.to_string(), "gw at 10.0.0.7:7446");
        assert_eq!(Door::of(&subscribe, &pod("gw", 1)), Some(port));
        let nothing = Subscribe { relay_socket: None, relay_address: None, ..subscribe };
        assert_eq!(Door::of(&nothing, &pod("gw", 1)), None);
    }

    #[test]
    fn who_serves_is_told_as_it_changes() {
        let (gateways, now) = (Gateways::default(), Instant::now());
        let mut serving = gateways.serving();
        let one = gateways.connect(&name("gw-1"), pod("gw-1", 1), None, now).unwrap();
        let two = gateways.connect(&name("gw-2"), pod("gw-2", 2), None, now).unwrap();
        let mut is_news = |lease: &Lease, gateway: &str, ready, draining| {
            assert!(lease.report(report(gateway, ready, draining), now));
            let is_news = serving.has_changed().unwrap();
            (is_news, serving.borrow_and_update().0.len())
        };
        assert_eq!(is_news(&one, "gw-1", false, false), (false, 0));
        assert_eq!(is_news(&one, "gw-1", true, false), (true, 1));
        assert_eq!(is_news(&two, "gw-2", true, false), (true, 2));
        assert_eq!(is_news(&two, "gw-2", true, false), (false, 2), "each second the same");
        assert_eq!(is_news(&one, "gw-1", true, true), (true, 1));
        drop(two);
        assert!(gateways.serving().borrow().0.is_empty(), "its stream has ended");
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
        assert_eq!(full, "512 gateways are connected, and no more are served; stop one");
        leases.remove(3);
        leases.push(connect(GATEWAYS_MAX).unwrap());
        let names = gateways.view(start);
        assert_eq!(names.len(), GATEWAYS_MAX);
        assert!(names.iter().all(|view| view.name != name("gw-3")));
    }
}
