//! Totals of the tunnel's connections by cluster. A connection's own counts go with it, so they
//! are added up here while it is open: the totals never fall.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use model::{ClusterName, GatewayId, Transport};
use tunnel::LinkStatus;
use wire::tunnel::ConnectionClass;

/// Packets and bytes of one connection, or of all to a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkSums {
    pub sent_packets: u64,
    pub lost_packets: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

impl LinkSums {
    fn of(link: &LinkStatus) -> Self {
        Self {
            sent_packets: link.sent_packets,
            lost_packets: link.lost_packets,
            sent_bytes: link.bytes_sent,
            received_bytes: link.bytes_received,
        }
    }

    /// Adds what came since `before`. A count that fell began anew: QUIC counts packets per path.
    fn grow(&mut self, before: &Self, now: &Self) {
        let since = |before: u64, now: u64| now.checked_sub(before).unwrap_or(now);
        self.sent_packets += since(before.sent_packets, now.sent_packets);
        self.lost_packets += since(before.lost_packets, now.lost_packets);
        self.sent_bytes += since(before.sent_bytes, now.sent_bytes);
        self.received_bytes += since(before.received_bytes, now.received_bytes);
    }
}

/// Which connection it is; another one in its place began at another time.
#[derive(Debug, PartialEq, Eq, Hash)]
struct LinkKey {
    cluster: ClusterName,
    gateway: Option<GatewayId>,
    address: String,
    transport: Transport,
    class: ConnectionClass,
    worker: u8,
    since: SystemTime,
}

impl LinkKey {
    fn of(link: &LinkStatus) -> Self {
        Self {
            cluster: link.cluster.clone(),
            gateway: link.gateway,
            address: link.address.clone(),
            transport: link.transport,
            class: link.class,
            worker: link.worker,
            since: link.since,
        }
    }
}

/// Sums since the start. The control task looks each [`crate::limits::RANK_INTERVAL`], a scrape too;
/// what a connection carries between the last look and its end is not counted.
#[derive(Debug, Default)]
pub struct LinkTotals(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    /// As many as the tunnel has connections now.
    open: HashMap<LinkKey, LinkSums>,
    /// As many as there are peers.
    totals: BTreeMap<ClusterName, LinkSums>,
}

impl LinkTotals {
    /// Takes the connections of this moment in. A cluster that is no peer any more is forgotten.
    pub fn observe(&self, links: &[LinkStatus], is_peer: impl Fn(&ClusterName) -> bool) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Counted { open, totals } = &mut *counted;
        let mut still_open = HashMap::with_capacity(links.len());
        for link in links.iter().filter(|link| is_peer(&link.cluster)) {
            let (key, now) = (LinkKey::of(link), LinkSums::of(link));
            let before = open.get(&key).copied().unwrap_or_default();
            totals.entry(link.cluster.clone()).or_default().grow(&before, &now);
            still_open.insert(key, now);
        }
        *open = still_open;
        totals.retain(|cluster, _| is_peer(cluster));
    }

    pub fn of_cluster(&self, cluster: &ClusterName) -> LinkSums {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.totals.get(cluster).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tunnel::LinkState;

    use super::*;

    fn link(began_s: u64, packets: u64, bytes: u64) -> LinkStatus {
        LinkStatus {
            cluster: ClusterName::parse("west").unwrap(),
            gateway: None,
            spiffe_id: None,
            address: "192.0.2.1:8443".into(),
            remote: None,
            transport: Transport::Quic,
            class: ConnectionClass::Fast,
            worker: 0,
            dialled: true,
            state: LinkState::Live,
            retiring: false,
            rtt: None,
            sent_packets: packets,
            lost_packets: 1,
            bytes_sent: bytes,
            bytes_received: 2 * bytes,
            in_flight: 0,
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(began_s),
            last_error: None,
        }
    }

    #[test]
    fn totals_grow_when_a_link_is_replaced_and_outlast_it() {
        let (totals, west) = (LinkTotals::default(), ClusterName::parse("west").unwrap());
        let sums = |links: &[LinkStatus]| {
            totals.observe(links, |_| true);
            let sums = totals.of_cluster(&west);
            (sums.sent_packets, sums.lost_packets, sums.sent_bytes, sums.received_bytes)
        };
        assert_eq!(sums(&[link(1, 10, 100)]), (10, 1, 100, 200));
        assert_eq!(sums(&[link(1, 15, 150)]), (15, 1, 150, 300), "the same one went on");
        assert_eq!(sums(&[link(2, 3, 30)]), (18, 2, 180, 360), "another one in its place");
        assert_eq!(sums(&[]), (18, 2, 180, 360), "none is open");
        assert_eq!(sums(&[link(3, 1, 10), link(4, 1, 10)]), (20, 4, 200, 400));
        assert_eq!(sums(&[link(3, 0, 20), link(4, 2, 10)]), (21, 4, 210, 420), "a new path");
        totals.observe(&[], |_| false);
        assert_eq!(totals.of_cluster(&west), LinkSums::default());
    }
}
