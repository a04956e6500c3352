//! Dialling before need: one task for each place that a worker may connect to.
//!
//! A *place* is an address of a peer, a class and a worker. Which gateway answers at an address is
//! known after the first contact, so at first worker 0 of *both* sides dials, fast only. From then
//! on the smaller gateway id dials all slots; the larger one only what has had no connection of the
//! class for two seconds, so that one side without inbound reachability is enough. Connections that
//! both dialled at the same time are sorted out by [`crate::registry`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use identity::ExpectedPeer;
use model::code::{self, Code};
use model::{ClusterPeer, GatewayId, PeerAddress, Transport};
use quinn::{Connection, Endpoint, TokioRuntime};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use wire::tunnel::limits::{CONNECTIONS_PER_PAIR_MAX, DIAL_TAKEOVER_MS};
use wire::tunnel::{ConnectionClass, ErrorCode};

use crate::backoff::Backoff;
use crate::control;
use crate::error::BindError;
use crate::hello::{Dialled, HelloError, Purpose, Wanted, greet};
use crate::limits::{
    ADDRESSES_PER_PEER_MAX, ALIAS_DELAY, DIAL_CHECK_INTERVAL, DIAL_STEADY, HANDSHAKE_TIMEOUT,
    LOOKUP_TIMEOUT, RESOLVED_ADDRESSES_MAX, SEEK_PAUSE_MAX, SEEK_TRIES, SPREAD_TRIES,
};
use crate::link::{Link, LinkEnd, close_code, describe, tls_alert};
use crate::socket::{TunnelSocket, bind_dialler};
use crate::status::{LinkError, LinkState};
use crate::transport::{client_config, endpoint_config};
use crate::tunnel::{Place, format_address};
use crate::worker::WorkerContext;

const DIAL_TAKEOVER: Duration = Duration::from_millis(DIAL_TAKEOVER_MS as u64);

/// Keeps one task per place of the peers that there are now.
pub(crate) struct Dialler {
    context: Arc<WorkerContext>,
    sockets: Arc<DialSockets>,
    tasks: HashMap<Place, AbortHandle>,
}

impl Dialler {
    pub(crate) fn new(context: Arc<WorkerContext>) -> Self {
        let sockets =
            Arc::new(DialSockets { context: Arc::clone(&context), endpoints: Mutex::default() });
        Self { context, sockets, tasks: HashMap::new() }
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
        self.tasks.values().for_each(AbortHandle::abort);
        self.sockets.close().await;
    }

    fn follow(&mut self, peers: &[Arc<ClusterPeer>]) {
        let shared = &self.context.shared;
        let wanted: Vec<_> =
            peers.iter().flat_map(|peer| places_of(peer, self.context.index)).collect();
        self.tasks.retain(|place, task| {
            let is_wanted = wanted.iter().any(|(wanted, _)| wanted == place);
            if !is_wanted {
                task.abort();
                shared.forget_place(place);
            }
            is_wanted
        });
        if self.context.index == 0 {
            shared.prune_addresses(peers);
        }
        for (place, rank) in wanted {
            let (context, sockets) = (&self.context, &self.sockets);
            self.tasks.entry(place).or_insert_with_key(|place| {
                let task = PlaceTask {
                    context: Arc::clone(context),
                    sockets: Arc::clone(sockets),
                    place: place.clone(),
                    rank,
                    backoff: Backoff::default(),
                    bare_since: None,
                    sought: 0,
                };
                tokio::spawn(task.run()).abort_handle()
            });
        }
    }
}

/// A peer's places for one worker, each with its address's rank in the list.
fn places_of(peer: &ClusterPeer, worker: u8) -> impl Iterator<Item = (Place, u32)> {
    let addresses = peer.addresses.iter().filter(|address| address.transport == Transport::Quic);
    let addresses = addresses.take(ADDRESSES_PER_PEER_MAX).zip(0..);
    addresses.flat_map(move |(address, rank)| {
        [ConnectionClass::Fast, ConnectionClass::Bulk].map(|class| {
            let (cluster, address) = (peer.name.clone(), address.clone());
            (Place { cluster, address, class, worker }, rank)
        })
    })
}

struct PlaceTask {
    context: Arc<WorkerContext>,
    sockets: Arc<DialSockets>,
    place: Place,
    rank: u32,
    backoff: Backoff,
    /// Since when the place has had no link that serves it.
    bare_since: Option<Instant>,
    /// Source ports given up since then, because they led to a gateway that drains.
    sought: u32,
}

/// Waits until the gateway at the link's other end has said that it goes.
async fn drained(link: &Link, changes: &mut watch::Receiver<u64>) {
    while !link.peer_draining() {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

impl PlaceTask {
    async fn run(mut self) {
        let shared = Arc::clone(&self.context.shared);
        let mut changes = shared.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if !self.is_due(Instant::now()) {
                self.wait(&mut changes).await;
                continue;
            }
            shared.set_place(&self.place, Some(LinkState::Dialling));
            match self.dial().await {
                Ok(link) => {
                    (self.bare_since, self.sought) = (None, 0);
                    shared.set_place(&self.place, None);
                    tokio::select! {
                        error = link.connection.closed() => self.link_ended(&link, &error).await,
                        () = drained(&link, &mut changes) => self.sockets.renew(),
                    }
                }
                Err(error) => {
                    tracing::debug!(
                        cluster = %self.place.cluster, address = %format_address(&self.place.address),
                        class = self.place.class.as_str(), error = %error.text, "dial failed"
                    );
                    shared.set_place_error(&self.place, error);
                    sleep(self.backoff.failed(rand::random())).await;
                }
            }
        }
    }

    async fn wait(&self, changes: &mut watch::Receiver<u64>) {
        // What is due may also come with time alone: the takeover.
        let _ = timeout(DIAL_CHECK_INTERVAL, changes.changed()).await;
    }

    /// Whether this place is to be dialled now.
    fn is_due(&mut self, now: Instant) -> bool {
        let shared = &self.context.shared;
        let Place { cluster, address, class, worker } = &self.place;
        let book = shared.address_book.load();
        let links = shared.registry.load();
        if shared.is_draining() {
            shared.set_place(&self.place, None);
            return false;
        }
        let gateway = book.get(&(cluster.clone(), address.clone())).copied();
        // Whoever takes the place of one that goes is as little known as on the first day.
        let going = links.draining(cluster);
        let gateway = gateway.filter(|gateway| !going.iter().any(|(going, _)| going == gateway));
        let Some(gateway) = gateway else {
            // Nobody answered here yet: one connection is enough to learn who does.
            return *worker == 0 && *class == ConnectionClass::Fast;
        };
        if links.covers(gateway, *class, *worker) {
            self.bare_since = None;
            shared.set_place(&self.place, None);
            return false;
        }
        let peer_dials = shared.gateway > gateway && links.has_accepted(gateway, *class);
        if peer_dials {
            self.bare_since = None;
            shared.set_place(&self.place, None);
            return false;
        }
        let bare_for = now.saturating_duration_since(*self.bare_since.get_or_insert(now));
        // Of several addresses of one gateway the first is tried first.
        let delay = ALIAS_DELAY * self.alias_rank(gateway);
        let takeover = if shared.gateway > gateway { DIAL_TAKEOVER } else { Duration::ZERO };
        bare_for >= takeover + delay
    }

    /// How many addresses before this one lead to the same gateway.
    fn alias_rank(&self, gateway: GatewayId) -> u32 {
        let shared = &self.context.shared;
        let book = shared.address_book.load();
        let peers = shared.peers.borrow();
        let peer = peers.iter().find(|peer| peer.name == self.place.cluster);
        let before =
            peer.into_iter().flat_map(|peer| peer.addresses.iter().take(self.rank as usize));
        let same = before
            .filter(|address| {
                let key = (self.place.cluster.clone(), PeerAddress::clone(address));
                book.get(&key) == Some(&gateway)
            })
            .count();
        same as u32
    }

    /// A link that fell soon is dialled again after a pause, one that stood long at once.
    async fn link_ended(&mut self, link: &Link, error: &quinn::ConnectionError) {
        let end = link.end().cloned().unwrap_or_else(|| describe(error));
        let fed = end.code.entry().fed.unwrap_or(code::TUNNEL_DOWN);
        let shared = &self.context.shared;
        if end.code != ErrorCode::DuplicateConnection {
            let at = shared.now().1;
            shared.set_place_error(
                &self.place,
                LinkError { code: fed, text: end.text.to_string(), at },
            );
        }
        // The path may be the reason: the next dial comes from another source port.
        self.sockets.renew();
        if link.established.elapsed() >= DIAL_STEADY {
            self.backoff.succeeded();
        } else {
            sleep(self.backoff.failed(rand::random())).await;
        }
    }

    async fn dial(&mut self) -> Result<Arc<Link>, LinkError> {
        let address = format_address(&self.place.address);
        let shared = Arc::clone(&self.context.shared);
        let wall = || shared.now().1;
        let remotes = resolve(&self.place.address.host, self.place.address.port).await;
        let remotes =
            remotes.map_err(|text| LinkError { code: code::TUNNEL_DOWN, text, at: wall() })?;
        let mut failures = Vec::with_capacity(remotes.len());
        for remote in remotes {
            match self.dial_one(remote, &address).await {
                Ok(link) => return Ok(link),
                Err(failure) => {
                    self.sockets.renew();
                    failures.push((remote, failure));
                }
            }
        }
        // Each address failed in its own way, and each is told; the first one's code stands.
        let code = failures.first().map_or(code::TUNNEL_DOWN, |(_, failure)| failure.code());
        let texts: Vec<_> =
            failures.iter().map(|(remote, failure)| format!("{remote}: {failure}")).collect();
        Err(LinkError { code, text: format!("{address}: {}", texts.join("; ")), at: wall() })
    }

    async fn dial_one(&mut self, remote: SocketAddr, address: &str) -> Result<Arc<Link>, DialFailure> {
        let shared = &self.context.shared;
        let Place { cluster, class, worker, .. } = &self.place;
        let crowded = self.crowded();
        let mut spread = 0;
        let greeted = loop {
            let connection = self.connect(remote).await?;
            let dialled = Dialled { cluster: cluster.clone(), address: address.to_owned() };
            let crowded = if spread < SPREAD_TRIES { crowded.clone() } else { Vec::new() };
            let wanted = Wanted { crowded, draining: shared.registry.load().draining(cluster) };
            let purpose = Purpose { worker: *worker, class: *class, dialled: Some(dialled), wanted };
            match greet(shared, connection, purpose).await {
                Err(HelloError::Crowded(_)) => {
                    spread += 1;
                    self.sockets.renew();
                }
                Err(HelloError::Draining(_)) if self.sought < SEEK_TRIES => {
                    self.sought += 1;
                    self.sockets.renew();
                    sleep(SEEK_PAUSE_MAX.mul_f64(rand::random())).await;
                }
                greeted => break greeted?,
            }
        };
        let gateway = greeted.parts.peer.gateway;
        let link = control::start(&self.context, greeted);
        // Other workers begin to dial when they learn it: they should find this link then.
        shared.learn_address(cluster, &self.place.address, gateway);
        link.ok_or(DialFailure::NotNeeded)
    }

    /// The kernel over there chooses the worker by our source port. A few ports are tried, so that
    /// not all connections of a pair meet on one worker; bulk ones come from their fast one's port.
    fn crowded(&self) -> Vec<u8> {
        let shared = &self.context.shared;
        if self.place.class != ConnectionClass::Fast {
            return Vec::new();
        }
        let key = (self.place.cluster.clone(), self.place.address.clone());
        let gateway = shared.address_book.load().get(&key).copied();
        gateway.map_or_else(Vec::new, |g| shared.registry.peek().reached(g, self.place.class))
    }

    async fn connect(&self, remote: SocketAddr) -> Result<Connection, DialFailure> {
        let shared = &self.context.shared;
        let expected = ExpectedPeer::Cluster(self.place.cluster.clone());
        let identity = Arc::clone(&shared.identity);
        if identity.load().svid.is_none() {
            return Err(DialFailure::NoSvid);
        }
        let config = client_config(
            &shared.config.limits,
            Arc::clone(&identity),
            expected.clone(),
            self.place.class,
        )?;
        let endpoint = self.sockets.endpoint(remote)?;
        // The name is neither sent nor looked at: a peer is known by its SPIFFE ID.
        let connecting = endpoint
            .connect_with(config, remote, self.place.cluster.as_str())
            .map_err(|error| DialFailure::Address(error.to_string()))?;
        match timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => {
                // TLS shows an alert only; the verifier knows what was wrong.
                let refusal =
                    identity.last_refusal(&expected).map(|refusal| refusal.error.to_string());
                Err(DialFailure::handshake(&error, refusal))
            }
            Err(_) => Err(DialFailure::NoAnswer),
        }
    }
}

/// Why one address could not be connected to.
#[derive(Debug, thiserror::Error)]
enum DialFailure {
    #[error("no answer within {HANDSHAKE_TIMEOUT:?}: see whether its UDP port is reachable")]
    NoAnswer,
    #[error("{0}")]
    Refused(String),
    #[error("the handshake failed: {}", .0.text)]
    Handshake(LinkEnd),
    #[error("it cannot be dialled: {0}")]
    Address(String),
    #[error("no UDP socket to dial from: {0}")]
    Socket(#[from] std::io::Error),
    #[error("{0}")]
    Config(#[from] BindError),
    #[error("{0}")]
    Hello(#[from] HelloError),
    #[error("this gateway has no SVID")]
    NoSvid,
    #[error("the connection was not needed any more")]
    NotNeeded,
}

impl DialFailure {
    fn handshake(error: &quinn::ConnectionError, refusal: Option<String>) -> Self {
        let alert = match error {
            quinn::ConnectionError::TransportError(error) => tls_alert(error.code),
            _ => None,
        };
        match (alert, refusal) {
            (Some(_), Some(text)) => Self::Refused(text),
            _ => Self::Handshake(describe(error)),
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Refused(_) => code::PEER_IDENTITY_REFUSED,
            Self::Hello(error) => error.code(),
            Self::Handshake(end) => end.code.entry().fed.unwrap_or(code::TUNNEL_DOWN),
            Self::NoSvid => code::SVID_MISSING,
            _ => code::TUNNEL_DOWN,
        }
    }
}

/// The addresses of a host, asked anew for each dial.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port))).await;
    let addresses: Vec<_> = match found {
        Ok(Ok(addresses)) => addresses.take(RESOLVED_ADDRESSES_MAX).collect(),
        Ok(Err(error)) => return Err(format!("host {host:?} could not be looked up: {error}")),
        Err(_) => {
            return Err(format!("host {host:?} could not be looked up within {LOOKUP_TIMEOUT:?}"));
        }
    };
    if addresses.is_empty() {
        return Err(format!("host {host:?} has no address"));
    }
    Ok(addresses)
}

/// What a worker dials from: one socket for each address family, with a port of its own, so that
/// answers come to this worker. It is renewed after a failure: a path that is stuck, at a NAT or in
/// a network that spreads flows by port, is left that way. Links that live keep the old one.
pub(crate) struct DialSockets {
    context: Arc<WorkerContext>,
    endpoints: Mutex<Endpoints>,
}

#[derive(Default)]
struct Endpoints {
    /// For IPv4 and for IPv6.
    current: [Option<Endpoint>; 2],
    /// Renewed ones that links still use.
    former: Vec<Endpoint>,
}

impl DialSockets {
    fn endpoint(&self, remote: SocketAddr) -> Result<Endpoint, DialFailure> {
        let mut endpoints = self.lock();
        let endpoint = &mut endpoints.current[usize::from(remote.is_ipv6())];
        if let Some(endpoint) = endpoint {
            return Ok(endpoint.clone());
        }
        let shared = &self.context.shared;
        let config = &shared.config;
        let socket = bind_dialler(shared.local_addr, remote, config.limits.udp_buffer_bytes)?;
        let fresh = Endpoint::new_with_abstract_socket(
            endpoint_config(config, self.context.ids),
            None,
            Arc::new(TunnelSocket::of_dialler(socket)?),
            Arc::new(TokioRuntime),
        )?;
        Ok(endpoint.insert(fresh).clone())
    }

    fn renew(&self) {
        let mut endpoints = self.lock();
        let Endpoints { current, former } = &mut *endpoints;
        former.extend(current.iter_mut().filter_map(Option::take));
        former.retain(|endpoint| endpoint.open_connections() > 0);
    }

    /// Sends what is left to send, such as the word that a connection is closed.
    async fn close(&self) {
        self.renew();
        let former = std::mem::take(&mut self.lock().former);
        for endpoint in former {
            endpoint.close(close_code(ErrorCode::NoError), b"the gateway stops");
            endpoint.wait_idle().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Endpoints> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
