//! The way to one peer: a connection that is kept, else a gateway's door; and the channel over it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper_util::rt::TokioIo;
use model::{ClusterId, ClusterName, PeerAddress, RevokedSvid, Transport, code};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use tunnel::{Inner, InnerError, RelayConnection};
use wire::tunnel::ErrorCode;

use super::incoming::take_reverse;
use super::stream::{BoxedCarrier, FederationPeer, PeerInfo, PeerStream};
use super::{PathState, PathStatus, RelayDoors, Shared, TransportPeer, doors};
use crate::limits::{
    CALL_TIMEOUT, DIAL_ADDRESSES_MAX, DIAL_PAUSE_MAX, DIAL_PAUSE_MIN, DOOR_CHECK_INTERVAL,
    FALLBACK_RETIRES_AFTER, PATH_WAIT, STORE_CONNECTION_WINDOW_BYTES, STORE_PING_INTERVAL,
    STORE_PING_TIMEOUT, STORE_STREAM_WINDOW_BYTES,
};

/// One peer, as long as it is one.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: ClusterName,
    pub(super) id: ClusterId,
    /// Cancelled when it is no peer any more.
    pub(super) gone: CancellationToken,
    addresses: watch::Sender<Vec<PeerAddress>>,
    /// SVIDs of its own that it denied when it was met.
    revoked_svids: Vec<RevokedSvid>,
    /// Whether a connection is kept: for the peer's sake, or because somebody here has called.
    wanted: watch::Sender<bool>,
    /// The connection that this node dialled.
    current: watch::Sender<Option<RelayConnection>>,
    /// One for each lane.
    channels: [Mutex<Option<Channel>>; 2],
    last_error: Mutex<Option<String>>,
    /// Whether a dial has been tried since there was a connection: until then a caller waits.
    has_failed: AtomicBool,
}

impl Peer {
    pub(super) fn new(spec: TransportPeer, stop: &CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            name: spec.name,
            id: spec.id,
            gone: stop.child_token(),
            addresses: watch::Sender::new(spec.addresses),
            revoked_svids: spec.revoked_svids,
            wanted: watch::Sender::new(spec.hold),
            current: watch::Sender::new(None),
            channels: Default::default(),
            last_error: Mutex::default(),
            has_failed: AtomicBool::new(false),
        })
    }

    pub(super) fn update(&self, spec: TransportPeer) {
        self.addresses.send_if_modified(|addresses| {
            let changed = *addresses != spec.addresses;
            if changed {
                *addresses = spec.addresses;
            }
            changed
        });
        let wanted = spec.hold || Lane::ALL.into_iter().any(|lane| self.channel(lane).is_some());
        self.wanted.send_if_modified(|now| std::mem::replace(now, wanted) != wanted);
    }

    /// Whether a connection that was made before might be one by a key that is in other hands.
    pub(super) fn denies_more(&self, next: &TransportPeer) -> bool {
        next.revoked_svids.iter().any(|revoked| !self.revoked_svids.contains(revoked))
    }

    pub(super) fn cut_off(&self) {
        self.gone.cancel();
        if let Some(connection) = self.current.send_replace(None) {
            let text = "the cluster is no member any more, or denies one of its SVIDs";
            connection.close(ErrorCode::AdmissionRefused, text);
        }
    }

    pub(super) fn status(&self, doors: &RelayDoors) -> PathStatus {
        let state = match self.live() {
            Some(connection) => PathState::Direct {
                remote: connection.remote().to_string(),
                transport: connection.transport(),
            },
            None => match doors.holding(&self.name).into_iter().next() {
                Some(door) => PathState::Reverse { door: door.to_string() },
                None => PathState::Down,
            },
        };
        let last_error = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        PathStatus { cluster: self.name.clone(), id: self.id, state, last_error }
    }

    fn live(&self) -> Option<RelayConnection> {
        self.current.borrow().clone().filter(RelayConnection::is_live)
    }

    fn channel(&self, lane: Lane) -> MutexGuard<'_, Option<Channel>> {
        self.channels[lane as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_error(&self, error: Option<String>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

/// Keeps a connection to the peer while one is wanted.
pub(super) async fn keep(shared: Arc<Shared>, peer: Arc<Peer>) {
    let gone = peer.gone.clone();
    gone.run_until_cancelled(keep_dialled(&shared, &peer)).await;
}

async fn keep_dialled(shared: &Arc<Shared>, peer: &Arc<Peer>) {
    let (mut wanted, mut addresses) = (peer.wanted.subscribe(), peer.addresses.subscribe());
    let mut failures = 0;
    loop {
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        let current = addresses.borrow_and_update().clone();
        match dial(shared, peer, current, Carriers::Any).await {
            Ok(connection) => {
                failures = 0;
                let reason = stay(shared, peer, connection).await;
                peer.current.send_replace(None);
                tracing::info!(cluster = %peer.name, reason, "store connection down");
                peer.set_error(Some(reason));
                sleep(pause(0)).await;
            }
            Err(problem) => {
                tracing::debug!(cluster = %peer.name, problem, "no store connection");
                peer.set_error(Some(problem));
                peer.has_failed.store(true, Ordering::Relaxed);
                peer.current.send_replace(None);
                tokio::select! {
                    () = sleep(pause(failures)) => failures += 1,
                    changed = addresses.changed() => if changed.is_err() { return },
                }
            }
        }
    }
}

/// Until there is no connection any more; says why. One over TCP is used for as long as UDP does not
/// pass, and is kept for a while after that: calls on it end, and UDP may not have come to stay.
async fn stay(shared: &Arc<Shared>, peer: &Arc<Peer>, first: RelayConnection) -> String {
    let (mut connection, mut former) = (first, None);
    take_up(shared, peer, &connection);
    use_now(peer, &connection);
    loop {
        let reason = tokio::select! {
            reason = connection.closed() => reason,
            fresh = over_quic(shared, peer), if connection.transport() == Transport::Tcp => {
                take_up(shared, peer, &fresh);
                use_now(peer, &fresh);
                renew_channels(shared, peer);
                former = Some(std::mem::replace(&mut connection, fresh));
                continue;
            }
            () = sleep(FALLBACK_RETIRES_AFTER), if former.is_some() => {
                if let Some(former) = former.take() {
                    former.close(ErrorCode::DuplicateConnection, "UDP passes again");
                }
                continue;
            }
        };
        match former.take().filter(RelayConnection::is_live) {
            Some(former) => {
                connection = former;
                use_now(peer, &connection);
            }
            None => return reason,
        }
    }
}

/// Takes what the peer's gateway opens on it.
fn take_up(shared: &Arc<Shared>, peer: &Peer, connection: &RelayConnection) {
    let reverse = take_reverse(Arc::clone(shared), connection.clone(), peer.name.clone());
    shared.tasks.spawn(peer.gone.clone().run_until_cancelled_owned(reverse));
}

/// New streams go by it.
fn use_now(peer: &Peer, connection: &RelayConnection) {
    let (cluster, remote) = (&peer.name, connection.remote());
    let transport = connection.transport();
    if transport == Transport::Tcp {
        tracing::warn!(
            code = %code::TUNNEL_FALLBACK, %cluster, %remote,
            "the store connection runs over TCP, since UDP does not pass: open UDP port {}",
            remote.port()
        );
    } else {
        tracing::info!(%cluster, %remote, transport = transport.as_str(), "store connection up");
    }
    peer.set_error(None);
    peer.has_failed.store(false, Ordering::Relaxed);
    peer.current.send_replace(Some(connection.clone()));
}

/// Dials until UDP passes.
async fn over_quic(shared: &Shared, peer: &Peer) -> RelayConnection {
    let mut failures = 0;
    loop {
        sleep(pause(failures)).await;
        let addresses = peer.addresses.borrow().clone();
        match dial(shared, peer, addresses, Carriers::Quic).await {
            Ok(connection) => return connection,
            Err(problem) => {
                tracing::debug!(cluster = %peer.name, problem, "UDP does not pass yet");
                failures += 1;
            }
        }
    }
}

/// Doubles up to the longest; half of it is drawn, so that nodes that lost the same peer do not come
/// back in step.
fn pause(failures: u32) -> Duration {
    let longest = DIAL_PAUSE_MIN.saturating_mul(1 << failures.min(8)).min(DIAL_PAUSE_MAX);
    let drawn = f64::from(u16::from_be_bytes(drawn_bytes())) / f64::from(u16::MAX);
    longest.mul_f64(0.5 + drawn / 2.0)
}

fn drawn_bytes() -> [u8; 2] {
    use std::hash::{BuildHasher as _, RandomState};
    // The standard library's own source of a few random bits; nothing depends on their quality.
    let bits = RandomState::new().hash_one(0_u8).to_be_bytes();
    [bits[0], bits[1]]
}

/// What a peer is dialled over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carriers {
    /// QUIC, and TCP where UDP does not pass.
    Any,
    Quic,
}

/// All addresses at once; the first that answers is taken, and if none does, each is told.
async fn dial(
    shared: &Shared,
    peer: &Peer,
    addresses: Vec<PeerAddress>,
    carriers: Carriers,
) -> Result<RelayConnection, String> {
    let endpoint = &shared.endpoint;
    let dials = addresses.iter().take(DIAL_ADDRESSES_MAX);
    let mut dials: FuturesUnordered<_> = dials
        .map(|address| async move {
            match carriers {
                Carriers::Any => endpoint.dial_store(&peer.name, address).await,
                Carriers::Quic => endpoint.dial_store_over_quic(&peer.name, address).await,
            }
        })
        .collect();
    let mut failures = Vec::new();
    while let Some(dialled) = dials.next().await {
        match dialled {
            Ok(connection) => return Ok(connection),
            Err(error) => failures.push(error.to_string()),
        }
    }
    failures.sort();
    Err(if failures.is_empty() { "it has no address".into() } else { failures.join("; ") })
}

/// What shares a stream to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Control,
    Bulk,
}

impl Lane {
    const ALL: [Self; 2] = [Self::Control, Self::Bulk];
}

/// The peer's one channel for a lane.
pub(super) fn channel(shared: &Arc<Shared>, peer: &Arc<Peer>, lane: Lane) -> Channel {
    let channel = peer.channel(lane).get_or_insert_with(|| fresh_channel(shared, peer)).clone();
    peer.wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
    channel
}

fn fresh_channel(shared: &Arc<Shared>, peer: &Arc<Peer>) -> Channel {
    // The channel lives in the peer, so it must not keep it.
    let (shared, weak): (_, Weak<Peer>) = (Arc::clone(shared), Arc::downgrade(peer));
    let connector = service_fn(move |_: Uri| {
        let (shared, peer) = (Arc::clone(&shared), weak.upgrade());
        async move {
            let peer = peer.ok_or_else(|| io::Error::other("the cluster is no member"))?;
            open(&shared, &peer).await.map(TokioIo::new)
        }
    });
    endpoint().timeout(CALL_TIMEOUT).connect_with_connector_lazy(connector)
}

/// Calls that begin from now on go by the present connection; those on another one end there.
fn renew_channels(shared: &Arc<Shared>, peer: &Arc<Peer>) {
    for lane in Lane::ALL {
        if let Some(channel) = &mut *peer.channel(lane) {
            *channel = fresh_channel(shared, peer);
        }
    }
}

/// What every channel between nodes is like. The URI is never resolved.
pub(super) fn endpoint() -> Endpoint {
    Endpoint::from_static("http://federation.invalid")
        .http2_keep_alive_interval(STORE_PING_INTERVAL)
        .keep_alive_timeout(STORE_PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STORE_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(STORE_CONNECTION_WINDOW_BYTES)
}

/// A stream to the peer's node: by the connection that was dialled, else by a gateway's door.
async fn open(shared: &Shared, peer: &Peer) -> io::Result<PeerStream> {
    let opened = timeout(PATH_WAIT, open_any(shared, peer)).await;
    let opened = opened.unwrap_or_else(|_| Err(format!("no way within {PATH_WAIT:?}")));
    opened.map_err(|problem| {
        let error = peer.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let dialled = error.map(|error| format!("; dialling: {error}")).unwrap_or_default();
        io::Error::other(format!("cluster {:?} is not reached: {problem}{dialled}", peer.name))
    })
}

async fn open_any(shared: &Shared, peer: &Peer) -> Result<PeerStream, String> {
    let mut current = peer.current.subscribe();
    let mut problems: Vec<String> = Vec::new();
    loop {
        current.borrow_and_update();
        if let Some(connection) = peer.live() {
            match open_direct(shared, peer, &connection).await {
                Ok(stream) => return Ok(stream),
                // Its gateway answers for a node that is away. The doors of a node that was killed
                // stay open for seconds, and nobody is behind them.
                Err(problem) if connection.is_live() => return Err(problem),
                Err(problem) => problems.push(problem),
            }
        }
        for door in shared.doors.holding(&peer.name) {
            let opened = doors::open(shared, &door, &peer.name).await;
            let opened = match opened {
                Ok(stream) => {
                    let shaken = shake(shared, peer, stream).await;
                    shaken.map_err(|error| error.to_string())
                }
                Err(problem) => Err(problem),
            };
            match opened {
                Ok(stream) => return Ok(stream),
                Err(problem) => problems.push(problem),
            }
        }
        // Nothing to wait for: what there is has failed, or a dial has.
        if !problems.is_empty() || peer.has_failed.load(Ordering::Relaxed) {
            return Err(if problems.is_empty() { "no way".into() } else { problems.join("; ") });
        }
        // A gateway's report comes without a word to this task.
        let _ = timeout(DOOR_CHECK_INTERVAL, current.changed()).await;
    }
}

async fn open_direct(
    shared: &Shared,
    peer: &Peer,
    connection: &RelayConnection,
) -> Result<PeerStream, String> {
    let stream = connection.open().await.map_err(|error| error.to_string())?;
    match shake(shared, peer, Box::new(stream)).await {
        Ok(stream) => Ok(stream),
        Err(error) => {
            // A path that carries nothing any more is left by another source port.
            if matches!(error, InnerError::Timeout) {
                shared.endpoint.renew();
                connection.close(ErrorCode::PeerSilent, "a stream on it got no answer");
            }
            Err(error.to_string())
        }
    }
}

async fn shake(
    shared: &Shared,
    peer: &Peer,
    carrier: BoxedCarrier,
) -> Result<PeerStream, InnerError> {
    let (inner, known) = Inner::open_store(carrier, &shared.identity, &peer.name).await?;
    let info = PeerInfo::Federation(FederationPeer {
        cluster: known.cluster,
        id: peer.id,
        spiffe_id: known.id,
    });
    Ok(PeerStream::new(inner, info, peer.gone.clone()))
}
