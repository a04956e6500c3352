//! Measures links by real exchanges. A probe is a stream that is given up before its OPEN: the peer's
//! gateway ends its own direction of it at once (docs/reference/tunnel.md §4.4). So the answer comes
//! from the peer's process and not only from its transport, no service has a part in it, and there is
//! no frame that an older peer would not know.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use model::{ClusterName, code};
use quinn::ReadError;
use tokio::time::{MissedTickBehavior, interval, timeout};
use wire::resource::limits::{PING_INTERVAL_MS, PING_TIMEOUT_MS};
use wire::tunnel::{Dispatched, ErrorCode, StreamReset};

use crate::link::{Link, describe};
use crate::status::{LinkError, LinkState, LinkStatus, PathMtu, link_row};
use crate::stream::stream_code;
use crate::tunnel::{Shared, Tunnel};

const PING_INTERVAL: Duration = Duration::from_millis(PING_INTERVAL_MS as u64);
const PING_TIMEOUT: Duration = Duration::from_millis(PING_TIMEOUT_MS as u64);
/// Of the answer, which mostly has none.
const ANSWER_BYTES: usize = 1024;

/// A link and what was measured on it.
#[derive(Debug, Clone)]
pub struct PingedLink {
    /// After the last probe.
    pub link: LinkStatus,
    /// 0 on a link that was not live.
    pub sent: u32,
    /// Of the probes that were answered, in the order of their answers.
    pub round_trips: Vec<Duration>,
    /// What the connection has sent meanwhile, probes or not; 0 over TCP.
    pub packets_sent: u64,
    pub packets_lost: u64,
    /// `None` over TCP, where only the kernel knows, and on a link that was not live.
    pub mtu: Option<PathMtu>,
}

impl Tunnel {
    /// Sends so many probes on each live link to a cluster, on all of them at the same time. The links
    /// that are to be made are in the answer, too, as they were when it began.
    pub async fn ping(&self, cluster: &ClusterName, probes: u32) -> Vec<PingedLink> {
        let missing = self.links().into_iter().filter(|row| {
            row.cluster == *cluster && matches!(row.state, LinkState::Dialling | LinkState::Down)
        });
        let missing: Vec<_> = missing.map(PingedLink::not_live).collect();
        let links = self.0.registry.load();
        let live = links.of_cluster(cluster).iter().filter(|link| link.is_live());
        let mut rows = join_all(live.map(|link| ping(&self.0, link, probes))).await;
        rows.sort_by_key(|row| (row.link.gateway, row.link.class, row.link.worker));
        rows.extend(missing);
        rows
    }
}

impl PingedLink {
    fn not_live(link: LinkStatus) -> Self {
        let (round_trips, mtu) = (Vec::new(), None);
        Self { link, sent: 0, round_trips, packets_sent: 0, packets_lost: 0, mtu }
    }
}

async fn ping(shared: &Shared, link: &Arc<Link>, probes: u32) -> PingedLink {
    let before = link.connection.traffic();
    let (mut sent, mut round_trips) = (0, Vec::new());
    let mut under_way = FuturesUnordered::new();
    let mut ticks = interval(PING_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let goes_on = sent < probes && link.connection.close_reason().is_none();
        tokio::select! {
            _ = ticks.tick(), if goes_on => {
                // An idle pair judges no silence by itself: a dead link is to be seen as one.
                link.probe();
                sent += 1;
                under_way.push(probe(link));
            }
            Some(answered) = under_way.next() => round_trips.extend(answered),
            else => break,
        }
    }
    let after = link.connection.traffic();
    PingedLink {
        link: row(shared, link),
        sent,
        round_trips,
        packets_sent: after.sent_packets.saturating_sub(before.sent_packets),
        packets_lost: after.lost_packets.saturating_sub(before.lost_packets),
        mtu: link.connection.path_mtu(),
    }
}

/// One round trip; `None` if it was not made in time.
async fn probe(link: &Link) -> Option<Duration> {
    let begun = Instant::now();
    let answer = async {
        let (mut send, mut recv) = link.connection.open_bi().await.ok()?;
        send.reset(stream_code(StreamReset::new(ErrorCode::Cancelled, Dispatched::No)));
        match recv.read_chunk(ANSWER_BYTES).await {
            // A peer may say in words what it thinks of such a stream.
            Ok(_) | Err(ReadError::Reset(_)) => Some(begun.elapsed()),
            Err(_) => None,
        }
    };
    timeout(PING_TIMEOUT, answer).await.ok().flatten()
}

/// The link as it is now, also when it has ended meanwhile.
fn row(shared: &Shared, link: &Arc<Link>) -> LinkStatus {
    let places = shared.places.lock().unwrap_or_else(PoisonError::into_inner);
    let mut row = link_row(link, &places);
    drop(places);
    let lost = link.connection.close_reason();
    if let Some(end) = link.end().cloned().or_else(|| lost.as_ref().map(describe)) {
        let code = end.code.entry().fed.unwrap_or(code::TUNNEL_DOWN);
        let at = shared.now().1;
        row.state = LinkState::Down;
        row.last_error = Some(LinkError { code, text: end.text.to_string(), at });
    }
    row
}
