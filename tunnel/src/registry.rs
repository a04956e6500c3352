//! Which links live: read on each exchange without a lock, written when one comes or goes.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use model::{ClusterName, GatewayId, Transport};
use wire::tunnel::limits::DIAL_TAKEOVER_MS;
use wire::tunnel::{ConnectionClass, Hello};

use crate::limits::{CONNECTIONS_PER_CLUSTER_MAX, CONNECTIONS_PER_GATEWAY_MAX, PATH_GRACE};
use crate::link::{Link, LinkRank};
use crate::status::PathState;

/// Connections of both sides that began within this of each other were dialled at the same time.
const SIMULTANEOUS: Duration = Duration::from_millis(DIAL_TAKEOVER_MS as u64);

/// The live links of all workers.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    snapshot: ArcSwap<Snapshot>,
    writer: Mutex<()>,
}

#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    clusters: HashMap<ClusterName, Vec<Arc<Link>>>,
    /// When the last link of a cluster ended, for as long as it is taken for one that comes back.
    lost: HashMap<ClusterName, Instant>,
    /// When this gateway began to dial: for a while every cluster is one that is about to come.
    began: Instant,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { clusters: HashMap::new(), lost: HashMap::new(), began: Instant::now() }
    }
}

/// A gateway, or its cluster, has more connections to us than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Registry {
    /// To be kept across an await.
    pub(crate) fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// For a look: unlike a reference count, it is not a place that all workers write to.
    pub(crate) fn peek(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Takes a link into service. Duplicates of it, or it itself, retire; links of an earlier
    /// process of the same gateway are asked whether they still live.
    pub(crate) fn add(&self, link: Arc<Link>, own: GatewayId) -> Result<(), TooMany> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.snapshot.load());
        let links = next.clusters.entry(link.peer.cluster.clone()).or_default();
        let siblings = links.iter().filter(|other| other.peer.gateway == link.peer.gateway);
        if links.len() >= CONNECTIONS_PER_CLUSTER_MAX
            || siblings.clone().count() >= CONNECTIONS_PER_GATEWAY_MAX
        {
            return Err(TooMany);
        }
        for other in siblings {
            if other.incarnation != link.incarnation {
                other.probe();
            } else if is_same_place(other, &link) && !other.is_retiring() {
                retire_one(other, &link, own);
            }
        }
        next.lost.remove(&link.peer.cluster);
        links.push(link);
        self.snapshot.store(Arc::new(next));
        drop(writer);
        Ok(())
    }

    pub(crate) fn remove(&self, link: &Arc<Link>) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.snapshot.load());
        let Some(links) = next.clusters.get_mut(&link.peer.cluster) else { return };
        links.retain(|other| !Arc::ptr_eq(other, link));
        restore_one(links, link);
        if links.is_empty() {
            next.clusters.remove(&link.peer.cluster);
            next.lost.retain(|_, at| at.elapsed() < PATH_GRACE);
            next.lost.insert(link.peer.cluster.clone(), Instant::now());
        }
        self.snapshot.store(Arc::new(next));
    }
}

/// Two connections of one class and slot: one is to go.
///
/// Dialled from both sides: the younger, unless both began at the same time: then the one that the
/// larger gateway id dialled, so that both sides think the same without a word; the side with the
/// smaller id closes it. Dialled from this side twice: two addresses lead to one gateway, and the
/// younger goes; but if it is to replace the older one, its dialler ends that, once the peer uses this one.
/// Dialled by the peer twice: it replaces the older one if the younger's SVIDs end later, and else it knows
/// best which one it needs; it closes either.
fn retire_one(older: &Arc<Link>, younger: &Arc<Link>, own: GatewayId) {
    let own_is_smaller = own < older.peer.gateway;
    match (older.dialled, younger.dialled) {
        (true, true) if older.is_live() && !younger.replaces => younger.retire(true),
        (false, false) if younger.ends_at > older.ends_at => older.retire_for_younger(false),
        (true, true) | (false, false) => {}
        (older_is_ours, _) => {
            let age = younger.established.saturating_duration_since(older.established);
            let older_stays = age > SIMULTANEOUS || older_is_ours == own_is_smaller;
            let loser = if older_stays { younger } else { older };
            loser.retire(own_is_smaller);
        }
    }
}

/// Whether two links of one pair are there for the same.
fn is_same_place(one: &Link, other: &Link) -> bool {
    (one.incarnation, one.class, one.slot, one.transport())
        == (other.incarnation, other.class, other.slot, other.transport())
}

/// The link that has gone may be the one that another was replaced by: that one serves on, until its
/// dialler tries again.
fn restore_one(links: &[Arc<Link>], gone: &Arc<Link>) {
    let rest = links.iter().filter(|link| {
        link.is_live() && link.peer.gateway == gone.peer.gateway && is_same_place(link, gone)
    });
    if rest.clone().all(|link| link.is_retiring())
        && let Some(last) = rest.filter(|link| link.is_replaced()).max_by_key(|l| l.established)
    {
        last.restore();
    }
}

impl Snapshot {
    pub(crate) fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.clusters.values().flatten()
    }

    pub(crate) fn of_cluster(&self, cluster: &ClusterName) -> &[Arc<Link>] {
        self.clusters.get(cluster).map_or(&[], Vec::as_slice)
    }

    /// The link for a new exchange: the caller's own worker's if it has one, else the one of a
    /// sibling; of several the one with the fewest exchanges.
    pub(crate) fn choose(
        &self,
        cluster: &ClusterName,
        class: ConnectionClass,
        worker: u8,
    ) -> Option<&Arc<Link>> {
        let links = self.of_cluster(cluster).iter();
        links
            .filter(|link| link.class == class && link.is_live())
            .min_by_key(|link| (link.rank(), link.worker != worker, link.in_flight()))
    }

    /// The links between the two processes that `link` joins, itself among them.
    pub(crate) fn pair_of<'a>(&'a self, link: &'a Link) -> impl Iterator<Item = &'a Arc<Link>> {
        self.of_cluster(&link.peer.cluster).iter().filter(|other| {
            other.peer.gateway == link.peer.gateway && other.incarnation == link.incarnation
        })
    }

    /// Every link that a new exchange may use, the least busy first.
    pub(crate) fn candidates(
        &self,
        cluster: &ClusterName,
        class: ConnectionClass,
    ) -> Vec<&Arc<Link>> {
        let links = self.of_cluster(cluster).iter();
        let mut usable: Vec<_> =
            links.filter(|link| link.class == class && link.is_live()).collect();
        usable.sort_by_key(|link| (link.rank(), link.in_flight()));
        usable
    }

    /// A bulk link to the same gateway process that `fast` leads to.
    pub(crate) fn bulk_beside<'a>(&'a self, fast: &'a Link) -> Option<&'a Arc<Link>> {
        self.pair_of(fast)
            .filter(|link| link.class == ConnectionClass::Bulk && link.is_live())
            .filter(|link| link.transport() == fast.transport())
            .min_by_key(|link| (link.rank(), link.worker != fast.worker, link.in_flight()))
    }

    /// Whether the cluster has a link, or had one until a moment ago, or could not have one yet.
    pub(crate) fn had_path(&self, cluster: &ClusterName) -> bool {
        let since = self.lost.get(cluster).unwrap_or(&self.began);
        since.elapsed() < PATH_GRACE || self.clusters.contains_key(cluster)
    }

    pub(crate) fn path(&self, cluster: &ClusterName) -> Option<PathState> {
        let live = self.of_cluster(cluster).iter().filter(|link| link.is_live());
        let mut state: Option<PathState> = None;
        // A bulk link alone is no way: exchanges begin on fast ones.
        for link in live.filter(|link| link.class == ConnectionClass::Fast) {
            // Who drains or falls silent counts only if nobody else is there.
            let seen = PathState {
                rtt: link.rtt(),
                draining: link.peer_draining(),
                suspect: link.is_suspect(),
                fallback: link.transport() == Transport::Tcp,
                load_permille: link.peer_load_permille(),
                in_flight: link.in_flight(),
            };
            state = Some(match state {
                None => seen,
                Some(state) => PathState {
                    rtt: state.rtt.min(seen.rtt),
                    draining: state.draining && seen.draining,
                    suspect: state.suspect && seen.suspect,
                    fallback: state.fallback && seen.fallback,
                    load_permille: state.load_permille.min(seen.load_permille),
                    in_flight: state.in_flight + seen.in_flight,
                },
            });
        }
        state
    }

    /// Links to a gateway that keep their places.
    fn staying(
        &self,
        cluster: &ClusterName,
        gateway: GatewayId,
        class: ConnectionClass,
    ) -> impl Iterator<Item = &Arc<Link>> {
        self.of_cluster(cluster).iter().filter(move |link| {
            link.peer.gateway == gateway && link.class == class && link.covers()
        })
    }

    /// Whether a pair has a link of this class in this slot that stays, whoever dialled it.
    pub(crate) fn covers(
        &self,
        cluster: &ClusterName,
        gateway: GatewayId,
        class: ConnectionClass,
        slot: u8,
    ) -> bool {
        self.staying(cluster, gateway, class).any(|link| link.slot == slot)
    }

    /// The same with the process that has said this HELLO.
    pub(crate) fn covers_process(&self, cluster: &ClusterName, hello: &Hello, slot: u8) -> bool {
        self.staying(cluster, hello.gateway, hello.class)
            .any(|link| link.slot == slot && link.incarnation == hello.incarnation)
    }

    /// Links over TCP that stay.
    pub(crate) fn fallbacks(&self, cluster: &ClusterName) -> impl Iterator<Item = &Arc<Link>> {
        self.of_cluster(cluster).iter().filter(|link| {
            link.transport() == Transport::Tcp
                && link.rank() == LinkRank::Fallback
                && link.is_live()
        })
    }

    /// When the first of the QUIC links began that exchanges can begin on and that are not silent.
    pub(crate) fn sound_since(&self, cluster: &ClusterName) -> Option<Instant> {
        let links = self.of_cluster(cluster).iter();
        let sound = links.filter(|link| {
            link.class == ConnectionClass::Fast && link.covers() && !link.is_suspect()
        });
        sound.map(|link| link.established).min()
    }

    /// Whether any link leads to a gateway.
    pub(crate) fn knows(&self, cluster: &ClusterName, gateway: GatewayId) -> bool {
        self.of_cluster(cluster).iter().any(|link| link.peer.gateway == gateway)
    }

    /// The gateways of a cluster that serve, as those say that stay.
    pub(crate) fn named(&self, cluster: &ClusterName) -> BTreeSet<GatewayId> {
        let staying = self.of_cluster(cluster).iter().filter(|link| link.covers());
        staying.flat_map(|link| link.siblings().iter().copied().collect::<Vec<_>>()).collect()
    }

    /// The peer's workers that a link of this class, dialled by us, leads to.
    pub(crate) fn reached(
        &self,
        cluster: &ClusterName,
        gateway: GatewayId,
        class: ConnectionClass,
    ) -> Vec<u8> {
        let dialled = self.staying(cluster, gateway, class).filter(|link| link.dialled);
        dialled.map(|link| link.peer_worker).collect()
    }

    /// Whether the peer dialled us a link of this class that stays.
    pub(crate) fn has_accepted(
        &self,
        cluster: &ClusterName,
        gateway: GatewayId,
        class: ConnectionClass,
    ) -> bool {
        self.staying(cluster, gateway, class).any(|link| !link.dialled)
    }

    /// Gateways of a cluster that have said that they go, by their processes: the next process of
    /// one has another incarnation.
    pub(crate) fn draining(&self, cluster: &ClusterName) -> Vec<(GatewayId, u64)> {
        let going = self.of_cluster(cluster).iter();
        let going = going.filter(|link| link.is_live() && link.peer_draining());
        let mut going: Vec<_> = going.map(|l| (l.peer.gateway, l.incarnation)).collect();
        going.sort_unstable();
        going.dedup();
        going
    }
}
