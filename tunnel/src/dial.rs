//! Dialling before need: one task for each place that a worker may connect from.
//!
//! A *place* is an address of a peer, a class and a worker. Several gateways may answer at one address,
//! so a place may have a link to each of them. [`choice`] says whom to reach, [`ports`] from where,
//! [`connect`] how. The smaller gateway id dials all slots; the larger one only what has had no
//! connection of the class for two seconds, so that one side without inbound reachability is enough.
//! Whoever is not known yet is met by worker 0 of *both* sides, fast only; connections that both
//! dialled at the same time are sorted out by [`crate::registry`]. [`fallback`] is the way where UDP does
//! not pass. [`replace`] puts a younger link in an older one's place.

mod candidates;
mod choice;
mod connect;
mod fallback;
mod ports;
mod replace;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use model::code;
use model::{ClusterName, ClusterPeer, GatewayId, PeerAddress, Transport};
use quinn::ConnectionError;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep_until;
use wire::tunnel::limits::CONNECTIONS_PER_PAIR_MAX;
use wire::tunnel::{ConnectionClass, ErrorCode};

use crate::backoff::Backoff;
use crate::limits::{
    ADDRESSES_PER_PEER_MAX, DIAL_BACKOFF_MAX, DIAL_CHECK_INTERVAL, DIAL_STEADY, SEEK_BACKOFF_MAX,
    SEEK_PAUSE_MAX, SEEK_RENEW_AFTER, SEEK_TRIES,
};
use crate::link::{Link, describe};
use crate::status::{LinkError, LinkState};
use crate::tunnel::{Place, format_address};
use crate::worker::WorkerContext;

use candidates::candidates;
use choice::{Choice, Next};
use connect::{Connector, Outcome};
use fallback::Fallback;
use ports::{Ports, Taken};
use replace::Pauses;

pub(crate) use connect::{check_wanted, resolve};
pub(crate) use replace::replace_at;

/// Keeps one task per place of the peers that there are now.
pub(crate) struct Dialler {
    context: Arc<WorkerContext>,
    ports: Arc<Ports>,
    tasks: HashMap<Place, AbortHandle>,
    /// The ways over TCP, by the first worker alone.
    fallbacks: HashMap<(ClusterName, PeerAddress), AbortHandle>,
}

impl Dialler {
    pub(crate) fn new(context: Arc<WorkerContext>) -> Self {
        let ports = Arc::new(Ports::new(Arc::clone(&context)));
        Self { context, ports, tasks: HashMap::new(), fallbacks: HashMap::new() }
    }

    pub(crate) async fn run(mut self) {
        // Slots beyond the pair's limit stay without; their workers borrow.
        if u32::from(self.context.index) >= CONNECTIONS_PER_PAIR_MAX {
            return;
        }
        let shared = Arc::clone(&self.context.shared);
        let mut peers = shared.peers.subscribe();
        loop {
            let current = Arc::clone(&peers.borrow_and_update());
            self.follow(&current);
            tokio::select! {
                () = shared.closing.cancelled() => break,
                changed = peers.changed() => if changed.is_err() { break },
            }
        }
        self.tasks.values().chain(self.fallbacks.values()).for_each(AbortHandle::abort);
        self.ports.close().await;
    }

    fn follow(&mut self, peers: &[Arc<ClusterPeer>]) {
        let shared = &self.context.shared;
        let wanted: Vec<_> =
            peers.iter().flat_map(|peer| places_of(peer, self.context.index)).collect();
        self.tasks.retain(|place, task| {
            let is_wanted = wanted.contains(place);
            if !is_wanted {
                task.abort();
                shared.forget_place(place);
            }
            is_wanted
        });
        if self.context.index == 0 {
            shared.prune_addresses(peers);
            self.follow_fallbacks(peers);
        }
        for place in wanted {
            let (context, ports) = (&self.context, &self.ports);
            self.tasks.entry(place).or_insert_with_key(|place| {
                let task = PlaceTask::new(Connector {
                    context: Arc::clone(context),
                    ports: Arc::clone(ports),
                    place: place.clone(),
                });
                tokio::spawn(task.run()).abort_handle()
            });
        }
    }

    fn follow_fallbacks(&mut self, peers: &[Arc<ClusterPeer>]) {
        let wanted: HashSet<_> = peers.iter().flat_map(|peer| fallbacks_of(peer)).collect();
        self.fallbacks.retain(|way, task| {
            let is_wanted = wanted.contains(way);
            if !is_wanted {
                task.abort();
            }
            is_wanted
        });
        for way in wanted {
            let context = &self.context;
            self.fallbacks.entry(way).or_insert_with_key(|(cluster, address)| {
                let way = Fallback::new(Arc::clone(context), cluster.clone(), address.clone());
                tokio::spawn(way.run()).abort_handle()
            });
        }
    }
}

/// Where a peer is dialled over TCP: at the addresses that it has for that, else at the same ports as
/// over UDP.
fn fallbacks_of(peer: &ClusterPeer) -> impl Iterator<Item = (ClusterName, PeerAddress)> {
    let of =
        |transport| peer.addresses.iter().filter(move |address| address.transport == transport);
    let has_own = of(Transport::Tcp).next().is_some();
    let addresses = of(if has_own { Transport::Tcp } else { Transport::Quic });
    addresses.take(ADDRESSES_PER_PEER_MAX).map(|address| (peer.name.clone(), address.clone()))
}

/// A peer's places for one worker.
fn places_of(peer: &ClusterPeer, worker: u8) -> impl Iterator<Item = Place> {
    let addresses = peer.addresses.iter().filter(|address| address.transport == Transport::Quic);
    addresses.take(ADDRESSES_PER_PEER_MAX).flat_map(move |address| {
        [ConnectionClass::Fast, ConnectionClass::Bulk].map(|class| {
            let (cluster, address) = (peer.name.clone(), address.clone());
            Place { cluster, address, class, worker }
        })
    })
}

type Ended = (Arc<Link>, Taken, ConnectionError);

struct PlaceTask {
    connector: Arc<Connector>,
    choice: Choice,
    /// Ends of the links that were dialled here.
    ends: FuturesUnordered<BoxFuture<'static, Ended>>,
    backoff: Backoff,
    seek: Seek,
    /// Nothing is dialled before, for want of success.
    paused_until: Instant,
    /// The dial of a younger link, at most one; it goes on beside others, and ends with the place.
    replacing: JoinSet<Option<(Arc<Link>, Taken)>>,
    replace_pauses: Pauses,
    changes: watch::Receiver<u64>,
}

impl PlaceTask {
    fn new(connector: Connector) -> Self {
        let shared = &connector.context.shared;
        let Place { class, worker, .. } = connector.place;
        Self {
            choice: Choice::new(shared.gateway, class, worker),
            ends: FuturesUnordered::new(),
            backoff: Backoff::up_to(DIAL_BACKOFF_MAX),
            seek: Seek::default(),
            paused_until: Instant::now(),
            replacing: JoinSet::new(),
            replace_pauses: Pauses::new(shared.config.limits.replace_interval_min),
            changes: shared.changes.subscribe(),
            connector: Arc::new(connector),
        }
    }

    async fn run(mut self) {
        loop {
            self.changes.borrow_and_update();
            let now = Instant::now();
            let next = self.next(now);
            self.seek.follow(&next, now);
            let until = self.seek.paused_until.into_iter().chain([self.paused_until]).max();
            let paused_until = until.filter(|until| now < *until);
            match next {
                Next::Nothing => self.shared().set_place(self.place(), None, None),
                _ if paused_until.is_some() => {}
                Next::Meet => {
                    self.dial(&[]).await;
                    continue;
                }
                Next::Reach(wanted) => {
                    self.dial(&wanted).await;
                    continue;
                }
            }
            self.replace_due(now);
            self.wait(paused_until).await;
        }
    }

    /// Waits for what may change the next step. It may also come with time alone: the takeover.
    async fn wait(&mut self, paused_until: Option<Instant>) {
        let latest = Instant::now() + DIAL_CHECK_INTERVAL;
        let until = paused_until.unwrap_or(latest).min(latest);
        tokio::select! {
            _ = self.changes.changed() => {}
            Some((link, taken, error)) = self.ends.next() => self.link_ended(&link, &taken, &error),
            Some(replaced) = self.replacing.join_next() => self.replaced(replaced.ok().flatten()),
            () = sleep_until(until.into()) => {}
        }
    }

    fn next(&mut self, now: Instant) -> Next {
        let shared = Arc::clone(self.shared());
        if shared.is_draining() {
            return Next::Nothing; // whoever goes makes no new ways
        }
        self.choice.next(&candidates(&shared, &self.connector.place), now)
    }

    async fn dial(&mut self, wanted: &[GatewayId]) {
        let state = Some(LinkState::Dialling);
        self.shared().set_place(self.place(), state, wanted.first().copied());
        match self.connector.dial(wanted, None).await {
            Outcome::Linked(link, taken) => {
                self.seek = Seek::default();
                self.watch(link, taken);
            }
            Outcome::Other => self.seek.missed(Instant::now(), rand::random()),
            Outcome::Failed(error) => {
                let place = self.place();
                tracing::debug!(
                    cluster = %place.cluster, address = %format_address(&place.address),
                    class = place.class.as_str(), error = %error.text, "dial failed"
                );
                self.shared().set_place_error(place, error);
                self.paused_until = Instant::now() + self.backoff.failed(rand::random());
            }
        }
    }

    /// Begins to replace a link whose time has come.
    fn replace_due(&mut self, now: Instant) {
        let shared = self.shared();
        let is_busy = !self.replacing.is_empty() || !self.replace_pauses.is_over(now);
        if is_busy || shared.is_draining() {
            return;
        }
        let wall = shared.now().1;
        let Some(older) = replace::due(shared, self.place(), Transport::Quic, wall) else { return };
        let replacements = Arc::clone(&self.connector.context.replacements);
        // Another place's first: it is looked again soon.
        let Ok(turn) = replacements.try_acquire_owned() else { return };
        let connector = Arc::clone(&self.connector);
        self.replacing.spawn(async move {
            let younger = connector.replace(&older).await;
            drop(turn);
            younger
        });
    }

    fn replaced(&mut self, younger: Option<(Arc<Link>, Taken)>) {
        match younger {
            Some((link, taken)) => {
                self.replace_pauses.succeeded();
                self.watch(link, taken);
            }
            None => self.replace_pauses.failed(Instant::now(), rand::random()),
        }
    }

    fn watch(&mut self, link: Arc<Link>, taken: Taken) {
        self.ends.push(Box::pin(async move {
            let error = ended(&link).await;
            (link, taken, error)
        }));
    }

    /// A link that fell soon is dialled again after a pause, one that stood long at once.
    fn link_ended(&mut self, link: &Link, taken: &Taken, error: &ConnectionError) {
        if link.closes_here() && link.is_replaced() {
            return; // as it was meant, and the younger one goes by the same port
        }
        // The path may be the reason: the next dial comes from another source port.
        self.connector.ports.spent(taken, Instant::now());
        if link.peer_draining() {
            return self.backoff.succeeded();
        }
        let end = link.end().cloned().unwrap_or_else(|| describe(error));
        let fed = end.code.entry().fed.unwrap_or(code::TUNNEL_DOWN);
        let shared = self.shared();
        if end.code != ErrorCode::DuplicateConnection {
            let at = shared.now().1;
            let error = LinkError { code: fed, text: end.text.to_string(), at };
            shared.set_place_error(self.place(), error);
        }
        if link.established.elapsed() >= DIAL_STEADY {
            self.backoff.succeeded();
        } else {
            self.paused_until = Instant::now() + self.backoff.failed(rand::random());
        }
    }

    fn shared(&self) -> &Arc<crate::tunnel::Shared> {
        &self.connector.context.shared
    }

    fn place(&self) -> &Place {
        &self.connector.place
    }
}

async fn ended(link: &Link) -> ConnectionError {
    link.connection.closed().await
}

/// How the search goes for gateways behind an address that leads to others, too.
#[derive(Debug)]
struct Seek {
    misses: u32,
    began: Option<Instant>,
    /// Whom it has been for, since it began.
    sought: Vec<GatewayId>,
    is_meeting: bool,
    backoff: Backoff,
    paused_until: Option<Instant>,
}

impl Default for Seek {
    fn default() -> Self {
        Self {
            misses: 0,
            began: None,
            sought: Vec::new(),
            is_meeting: false,
            backoff: Backoff::up_to(SEEK_BACKOFF_MAX),
            paused_until: None,
        }
    }
}

impl Seek {
    /// Takes notice of the next step: a search begins anew when nobody is left, or when somebody is
    /// missing who was not before. The latter not too often, since peers say who is there.
    fn follow(&mut self, next: &Next, now: Instant) {
        let is_new = match next {
            Next::Nothing => false,
            Next::Meet => !self.is_meeting,
            Next::Reach(wanted) => {
                let has_new = wanted.iter().any(|gateway| !self.sought.contains(gateway));
                let is_rested = self.began.is_none_or(|began| now - began >= SEEK_RENEW_AFTER);
                has_new && is_rested
            }
        };
        if is_new {
            *self = Self::default();
            match next {
                Next::Meet => {
                    self.is_meeting = true;
                    self.backoff = Backoff::up_to(DIAL_BACKOFF_MAX);
                }
                Next::Reach(wanted) => (self.began, self.sought) = (Some(now), wanted.clone()),
                Next::Nothing => {}
            }
        }
    }

    /// A dial has reached somebody else. `random` is uniform in 0..1.
    fn missed(&mut self, now: Instant, random: f64) {
        self.misses = self.misses.saturating_add(1);
        let pause = if self.misses <= SEEK_TRIES {
            SEEK_PAUSE_MAX.mul_f64(random)
        } else {
            self.backoff.failed(random)
        };
        self.paused_until = Some(now + pause);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn reach(bytes: &[u8]) -> Next {
        Next::Reach(bytes.iter().map(|byte| GatewayId::from_bytes([*byte; 16])).collect())
    }

    /// The pause after each of some misses.
    fn pauses(seek: &mut Seek, count: u32, now: Instant) -> Vec<Duration> {
        let pause = |_| {
            seek.missed(now, 1.0);
            seek.paused_until.unwrap() - now
        };
        (0..count).map(pause).collect()
    }

    #[test]
    fn a_search_is_fast_at_first_and_rare_in_the_end() {
        let (mut seek, now) = (Seek::default(), Instant::now());
        seek.follow(&reach(&[1]), now);
        assert!(pauses(&mut seek, SEEK_TRIES, now).iter().all(|pause| *pause == SEEK_PAUSE_MAX));
        let later = pauses(&mut seek, 12, now);
        assert_eq!((later[0].as_millis(), later[11]), (200, SEEK_BACKOFF_MAX));
        // Nothing new: it stays so.
        seek.follow(&reach(&[1]), now + SEEK_RENEW_AFTER);
        assert_eq!(pauses(&mut seek, 1, now), [SEEK_BACKOFF_MAX]);
    }

    #[test]
    fn who_is_new_is_looked_for_at_once_but_not_ever_so_often() {
        let (mut seek, now) = (Seek::default(), Instant::now());
        seek.follow(&reach(&[1]), now);
        pauses(&mut seek, SEEK_TRIES + 9, now);
        seek.follow(&reach(&[1, 2]), now + SEEK_RENEW_AFTER / 2);
        assert_eq!(seek.misses, SEEK_TRIES + 9, "a peer may not make us dial without end");
        seek.follow(&reach(&[1, 2]), now + SEEK_RENEW_AFTER);
        assert_eq!((seek.misses, seek.paused_until), (0, None));
        pauses(&mut seek, SEEK_TRIES + 9, now);
        seek.follow(&Next::Meet, now + SEEK_RENEW_AFTER);
        assert_eq!(seek.misses, 0, "nobody is left");
        let last = pauses(&mut seek, SEEK_TRIES + 9, now).pop();
        assert_eq!(last, Some(DIAL_BACKOFF_MAX));
        seek.follow(&Next::Meet, now + SEEK_RENEW_AFTER);
        assert_eq!(seek.misses, SEEK_TRIES + 9);
    }
}
