//! The process-wide side of the tunnel: peers, links, counters, drain.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use identity::{ExpectedPeer, IdentityCell};
use model::{ClusterName, ClusterPeer, GatewayId, PeerAddress};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::tunnel::limits::{DEADLINE_MS_MAX, SIGNED_HEAD_BYTES_MAX, SIGNED_REVOCATION_BYTES_MAX};
use wire::tunnel::{ConnectionClass, ErrorCode};

use crate::bind::{Bound, bind_ports};
use crate::config::TunnelConfig;
use crate::counts::Counts;
use crate::error::BindError;
use crate::gossip::{Gossip, Heard, News};
use crate::limits::{CLOSE_TIMEOUT, DRAIN_CHECK_INTERVAL};
use crate::link::Link;
use crate::patience::Patiences;
use crate::registry::Registry;
use crate::relay::{RelayIncoming, Relays};
use crate::socket::{Steering, UdpBuffers};
use crate::status::{
    LinkError, LinkState, LinkStatus, PathState, TunnelCounters, link_row, place_row,
};
use crate::stream::Resumes;
use crate::worker::Worker;

/// A gateway's tunnels to other clusters. All clones are the same tunnel.
#[derive(Clone)]
pub struct Tunnel(pub(crate) Arc<Shared>);

/// What all workers share. Nothing here is locked on the way of an exchange.
pub(crate) struct Shared {
    pub(crate) config: TunnelConfig,
    pub(crate) identity: Arc<IdentityCell>,
    pub(crate) gateway: GatewayId,
    pub(crate) local_addr: SocketAddr,
    pub(crate) buffers: UdpBuffers,
    pub(crate) steering: Arc<Steering>,
    pub(crate) registry: Registry,
    pub(crate) patiences: Patiences,
    pub(crate) resumes: Arc<Resumes>,
    pub(crate) counts: Counts,
    pub(crate) relays: Relays,
    pub(crate) gossip: Gossip,
    pub(crate) peers: watch::Sender<Arc<Vec<Arc<ClusterPeer>>>>,
    /// Changes whenever a link comes or goes.
    pub(crate) changes: watch::Sender<u64>,
    /// Changes whenever a way to a cluster appears: a new link, or one that was silent and is not any more.
    ways_found: watch::Sender<u64>,
    /// Which gateways answered at which address, in the order in which they were met.
    pub(crate) address_book: ArcSwap<HashMap<(ClusterName, PeerAddress), Vec<GatewayId>>>,
    pub(crate) places: Mutex<HashMap<Place, PlaceState>>,
    pub(crate) closing: CancellationToken,
    /// The endpoints' tasks; they end when their last packets are sent.
    pub(crate) tasks: TaskTracker,
    /// Milliseconds of grace, once draining.
    pub(crate) drain: watch::Sender<Option<u32>>,
    is_draining: AtomicBool,
    /// Peers are to prefer other gateways, until further notice.
    is_cordoned: AtomicBool,
    has_ended_accepting: AtomicBool,
    load_permille: AtomicU32,
    idle: Notify,
    /// How many wait for `idle`: only then does the end of an exchange look for them.
    drain_waiters: AtomicU32,
}

/// A connection that a worker is to have: an address of a peer, in one class.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) cluster: ClusterName,
    pub(crate) address: PeerAddress,
    pub(crate) class: ConnectionClass,
    pub(crate) worker: u8,
}

/// How it goes with dialling a place.
#[derive(Debug, Clone)]
pub(crate) struct PlaceState {
    /// `None`: nothing is to be done, since the pair has its link or the peer is to dial.
    pub(crate) state: Option<LinkState>,
    /// Who is to be reached; `None` before the first contact.
    pub(crate) gateway: Option<GatewayId>,
    pub(crate) since: SystemTime,
    pub(crate) last_error: Option<LinkError>,
}

impl Tunnel {
    /// Binds the tunnel's port for all workers. The gateway needs its SVID first: its id is a part
    /// of every connection id. Each worker is then started in a thread of its own.
    pub fn bind(
        config: TunnelConfig,
        identity: Arc<IdentityCell>,
    ) -> Result<(Self, Vec<Worker>), BindError> {
        config.check()?;
        let svid = identity.load().svid.clone().ok_or(BindError::NoSvid)?;
        let gateway = GatewayId::of(svid.id());
        let Bound { sockets, mut listeners, buffers, local_addr } = bind_ports(&config)?;
        if buffers.is_clamped() {
            tracing::warn!(
                asked_bytes = buffers.asked_bytes,
                receive_bytes = buffers.receive_bytes,
                send_bytes = buffers.send_bytes,
                "the kernel granted smaller UDP buffers: raise net.core.rmem_max and wmem_max"
            );
        }
        let shared = Arc::new(Shared {
            steering: Arc::new(Steering::new(gateway.server_id(), config.workers)),
            counts: Counts::new(config.workers),
            config,
            identity,
            gateway,
            local_addr,
            buffers,
            registry: Registry::default(),
            patiences: Patiences::default(),
            resumes: Arc::default(),
            relays: Relays::default(),
            gossip: Gossip::default(),
            peers: watch::Sender::default(),
            changes: watch::Sender::new(0),
            ways_found: watch::Sender::new(0),
            address_book: ArcSwap::default(),
            places: Mutex::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            drain: watch::Sender::new(None),
            is_draining: AtomicBool::new(false),
            is_cordoned: AtomicBool::new(false),
            has_ended_accepting: AtomicBool::new(false),
            load_permille: AtomicU32::new(0),
            idle: Notify::new(),
            drain_waiters: AtomicU32::new(0),
        });
        let workers = sockets.into_iter().enumerate();
        let workers = workers
            .map(|(n, socket)| Worker::new(n as u8, socket, listeners.pop(), Arc::clone(&shared)));
        let workers = workers.collect();
        Ok((Self(shared), workers))
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr
    }

    /// This gateway's id, from its SVID.
    pub fn gateway(&self) -> GatewayId {
        self.0.gateway
    }

    /// Makes `peers` the clusters that are connected to: new ones are dialled before they are
    /// needed, and links to ones that are gone are closed.
    pub fn set_peers(&self, peers: Vec<Arc<ClusterPeer>>) {
        self.0.peers.send_replace(Arc::new(peers));
        for link in self.0.registry.load().links() {
            if !self.0.is_peer(&link.peer.cluster) {
                let text = format!("cluster {:?} is no peer any more", link.peer.cluster);
                self.0.end_link(link, ErrorCode::AdmissionRefused, text);
            }
        }
        self.0.relays.retain(|cluster| self.0.is_peer(cluster));
    }

    /// Judges every connection by the trust in force now, without waiting for the next look.
    pub fn judge_again(&self) {
        self.0.judge_links_again();
        self.0.relays.judge_again(&self.0.identity.load(), self.0.now().1);
    }

    /// Store and join connections that peers make; it is given once.
    pub fn take_relayed(&self) -> Option<RelayIncoming> {
        self.0.relays.take_incoming()
    }

    /// What peers are to be told in HELLO and beacons; whole each time. What a peer would refuse is
    /// left out.
    pub fn tell(&self, mut news: News) {
        let fits = |max| move |signed: &Bytes| !signed.is_empty() && signed.len() <= max;
        news.heads.retain(fits(SIGNED_HEAD_BYTES_MAX));
        news.revocations.retain(fits(SIGNED_REVOCATION_BYTES_MAX));
        self.0.gossip.tell(news);
        for link in self.0.registry.load().links() {
            link.wake.notify_one();
        }
    }

    /// Names the gateways of the own cluster that serve now, this one among them, for peers that reach
    /// several of them by one address. An empty set changes nothing.
    pub fn set_siblings(&self, siblings: BTreeSet<GatewayId>) {
        if self.0.gossip.set_siblings(siblings) {
            for link in self.0.registry.load().links() {
                link.wake.notify_one();
            }
        }
    }

    /// Waits for what gateways of a peer say. For one caller.
    pub async fn heard(&self) -> Heard {
        self.0.gossip.heard().await
    }

    /// How to reach a cluster; `None` without a live link. It takes no lock.
    pub fn path(&self, cluster: &ClusterName) -> Option<PathState> {
        self.0.registry.peek().path(cluster)
    }

    /// Waits for a way to one of the clusters that stays and is not silent. It returns at once where
    /// there is nothing to hope for: none of them has a link, or had one until a moment ago.
    pub async fn sound_path(&self, clusters: &[ClusterName]) {
        let mut found = self.0.ways_found.subscribe();
        loop {
            found.borrow_and_update();
            {
                let links = self.0.registry.peek();
                let path = |cluster| links.path(cluster);
                let is_sound = |path: PathState| path.is_sound();
                if clusters.iter().any(|cluster| path(cluster).is_some_and(is_sound))
                    || !clusters.iter().any(|cluster| links.had_path(cluster))
                {
                    return;
                }
            }
            if found.changed().await.is_err() {
                return;
            }
        }
    }

    /// Every link, and every place that has none but should.
    pub fn links(&self) -> Vec<LinkStatus> {
        let links = self.0.registry.load();
        let places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut rows: Vec<_> =
            links.links().filter(|link| link.is_live()).map(|l| link_row(l, &places)).collect();
        for (place, state) in places {
            let Some(current) = state.state else { continue };
            rows.push(place_row(place, current, state));
        }
        rows.sort_by(|a, b| {
            let key = |row: &LinkStatus| (row.cluster.clone(), row.gateway, row.class, row.worker);
            key(a).cmp(&key(b))
        });
        rows
    }

    /// What the kernel granted for each worker's socket.
    pub fn udp_buffers(&self) -> UdpBuffers {
        self.0.buffers
    }

    pub fn counters(&self) -> TunnelCounters {
        let steering = &self.0.steering;
        let counters = self.0.counts.read();
        TunnelCounters {
            batches_steered: steering.steered(),
            batches_dropped: steering.dropped(),
            ..counters
        }
    }

    /// How busy this gateway is, for its beacons; 1000 is full.
    pub fn set_load(&self, permille: u32) {
        let max = wire::tunnel::limits::LOAD_PERMILLE_MAX;
        self.0.load_permille.store(permille.min(max), Ordering::Relaxed);
    }

    /// Exchanges open now, both ways.
    pub fn in_flight(&self) -> u32 {
        self.0.in_flight()
    }

    /// Tells all peers that this gateway goes, so that they prefer others; what is open may go on,
    /// and what comes still is served until [`Self::end_accepting`]. Nothing is dialled any more.
    pub fn start_drain(&self, grace: Duration) {
        self.0.is_draining.store(true, Ordering::Relaxed);
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX).min(DEADLINE_MS_MAX);
        self.0.drain.send_replace(Some(grace_ms));
        for link in self.0.registry.load().links() {
            link.wake.notify_one();
        }
    }

    /// Tells all peers to prefer other gateways, or takes that back. It has no end of its own: what comes
    /// still is served, and this gateway dials as ever.
    pub fn set_cordoned(&self, is_cordoned: bool) {
        if self.0.is_cordoned.swap(is_cordoned, Ordering::Relaxed) != is_cordoned {
            for link in self.0.registry.load().links() {
                link.wake.notify_one();
            }
        }
    }

    /// From now on new streams are refused with `draining`.
    pub fn end_accepting(&self) {
        self.0.has_ended_accepting.store(true, Ordering::Relaxed);
    }

    /// Waits until no exchange is open.
    pub async fn drained(&self) {
        self.0.drain_waiters.fetch_add(1, Ordering::SeqCst);
        loop {
            let idle = self.0.idle.notified();
            if self.in_flight() == 0 {
                break;
            }
            // The timer only backs the word up: an end that came just before the first waiter.
            let _ = tokio::time::timeout(DRAIN_CHECK_INTERVAL, idle).await;
        }
        self.0.drain_waiters.fetch_sub(1, Ordering::SeqCst);
    }

    /// Closes every connection at once; nothing is dialled or accepted any more. The workers'
    /// runtimes must go on for a moment, so that the peers hear of it: see [`Self::closed`].
    pub fn close(&self) {
        self.0.closing.cancel();
        self.0.tasks.close();
        let draining = self.0.is_draining();
        let code = if draining { ErrorCode::Draining } else { ErrorCode::NoError };
        for link in self.0.registry.load().links() {
            self.0.end_link(link, code, "the gateway stops");
        }
        self.0.relays.close_all(code, "the gateway stops");
    }

    /// Waits until the peers were told of [`Self::close`], two seconds at most.
    pub async fn closed(&self) {
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.0.tasks.wait()).await;
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tunnel").field(&self.0.local_addr).finish()
    }
}

pub(crate) fn format_address(address: &PeerAddress) -> String {
    if address.host.contains(':') {
        format!("[{}]:{}", address.host, address.port)
    } else {
        format!("{}:{}", address.host, address.port)
    }
}

impl Shared {
    pub(crate) fn is_peer(&self, cluster: &ClusterName) -> bool {
        self.peers.borrow().iter().any(|peer| peer.name == *cluster)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// The grace that DRAIN is to tell peers in milliseconds; `None` if they may use this gateway.
    pub(crate) fn drain_grace(&self) -> Option<u32> {
        let is_cordoned = self.is_cordoned.load(Ordering::Relaxed);
        let cordoned = is_cordoned.then_some(DEADLINE_MS_MAX);
        self.drain.borrow().or(cordoned)
    }

    pub(crate) fn has_ended_accepting(&self) -> bool {
        self.has_ended_accepting.load(Ordering::Relaxed)
    }

    pub(crate) fn load_permille(&self) -> u32 {
        self.load_permille.load(Ordering::Relaxed)
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.counts.in_flight()
    }

    pub(crate) fn end_exchange(&self, worker: u8) {
        self.counts.of(worker).exchanges_ended();
        if self.drain_waiters.load(Ordering::Relaxed) > 0 {
            self.idle.notify_waiters();
        }
    }

    /// Ends a link and forgets it, in this order: who sees it in the registry a moment longer sees
    /// that it is dead.
    pub(crate) fn end_link(&self, link: &Arc<Link>, code: ErrorCode, text: impl Into<Arc<str>>) {
        link.die(code, text);
        self.forget_link(link);
    }

    pub(crate) fn forget_link(&self, link: &Arc<Link>) {
        let has_drained = link.end().is_some_and(|end| end.code == ErrorCode::Draining);
        if has_drained || link.peer_draining() {
            self.unlearn_gateway(link.peer.gateway);
        }
        self.registry.remove(link);
        self.changed();
    }

    pub(crate) fn changed(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    pub(crate) fn way_found(&self) {
        self.ways_found.send_modify(|version| *version += 1);
    }

    pub(crate) fn set_place(
        &self,
        place: &Place,
        state: Option<LinkState>,
        gateway: Option<GatewayId>,
    ) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        let entry = places.entry(place.clone()).or_insert(PlaceState {
            state,
            gateway,
            since: now,
            last_error: None,
        });
        if entry.state != state {
            (entry.state, entry.since) = (state, now);
        }
        entry.gateway = gateway;
    }

    pub(crate) fn set_place_error(&self, place: &Place, error: LinkError) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = places.get_mut(place) {
            if state.state != Some(LinkState::Down) {
                (state.state, state.since) = (Some(LinkState::Down), SystemTime::now());
            }
            state.last_error = Some(error);
        }
    }

    /// A failure beside a link that lives: what there is goes on.
    pub(crate) fn note_place_error(&self, place: &Place, error: LinkError) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = places.get_mut(place) {
            state.last_error = Some(error);
        }
    }

    pub(crate) fn forget_place(&self, place: &Place) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).remove(place);
    }

    /// Judges the links that live by the trust in force now: a bundle or an owner may be gone. The
    /// certificates are judged as of the handshake, so that a rotation resets nothing.
    pub(crate) fn judge_links_again(&self) {
        let identity = self.identity.load();
        for link in self.registry.load().links() {
            let expected = ExpectedPeer::Cluster(link.peer.cluster.clone());
            let verdict = identity.verify_peer(&link.chain, &expected, link.established_at);
            if let Err(error) = verdict {
                let text = format!("the peer is not trusted any more: {error}");
                self.end_link(link, ErrorCode::AdmissionRefused, text);
            }
        }
    }

    /// Ends what has lived on too long after the peer's SVID ran out.
    pub(crate) fn end_expired_links(&self, now: SystemTime) {
        for link in self.registry.load().links() {
            let expired_for = now.duration_since(link.svid_not_after).unwrap_or_default();
            if expired_for > self.config.limits.expired_svid_age_max {
                let text = format!("the peer's SVID expired {} s ago", expired_for.as_secs());
                self.end_link(link, ErrorCode::AdmissionRefused, text);
            }
        }
    }

    pub(crate) fn now(&self) -> (Instant, SystemTime) {
        (Instant::now(), SystemTime::now())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}
