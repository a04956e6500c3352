//! Store and join connections: admitted here, bounded here, and for the gateway to pass on unread.
//! Either side of a store connection opens streams; on a join connection only the joiner does.

mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use identity::{ExpectedPeer, Identity};
use model::{ClusterName, Transport};
use rustls_pki_types::CertificateDer;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use wire::tunnel::ErrorCode;
use wire::tunnel::limits::{JOIN_STREAMS_MAX, STORE_STREAMS_MAX};

use crate::accept::source_network;
use crate::admit::{Admitted, AdmittedPeer, Protocol, Refusal, admit};
use crate::carrier::Connection;
use crate::hello::plain;
use crate::limits::{
    EXPIRED_SVID_AGE_MAX, JOIN_CONNECTION_AGE_MAX, JOIN_CONNECTIONS_MAX,
    JOIN_CONNECTIONS_PER_SOURCE_MAX, RELAY_OPEN_WAIT, RELAY_QUEUE_MAX, STORE_CONNECTIONS_MAX,
    STORE_CONNECTIONS_PER_CLUSTER_MAX,
};
use crate::link::{close_code, describe};
use crate::worker::WorkerContext;

pub use stream::RelayStream;

/// An admitted store or join connection. All clones are the same one.
#[derive(Clone)]
pub struct RelayConnection(Arc<Parts>);

struct Parts {
    connection: Connection,
    protocol: Protocol,
    peer: Option<AdmittedPeer>,
    chain: Vec<CertificateDer<'static>>,
    remote: SocketAddr,
    expected: ExpectedPeer,
    established_at: SystemTime,
    /// Streams that the peer may have open: the carrier's own limit is the store's for both protocols.
    places: Arc<Semaphore>,
}

impl RelayConnection {
    /// Asks [`admit`] about a connection whose handshake is done.
    pub(crate) fn admitted(
        connection: Connection,
        identity: &Identity,
        expected: ExpectedPeer,
        now: SystemTime,
    ) -> Result<Self, Refusal> {
        let chain = connection.peer_chain();
        let admitted = admit(&connection.peer_alpn(), &chain, identity, &expected, now)?;
        let (protocol, peer) = match admitted {
            Admitted::Tunnel(peer) => (Protocol::Tunnel, Some(peer)),
            Admitted::Store(peer) => (Protocol::Store, Some(peer)),
            Admitted::Join(peer) => (Protocol::Join, peer),
        };
        Ok(Self::new(connection, protocol, peer, chain, expected, now))
    }

    /// A join connection that we dialled: who is at its other end is asked inside.
    pub(crate) fn to_inviter(connection: Connection, now: SystemTime) -> Self {
        Self::new(connection, Protocol::Join, None, Vec::new(), ExpectedPeer::AnyKnown, now)
    }

    fn new(
        connection: Connection,
        protocol: Protocol,
        peer: Option<AdmittedPeer>,
        chain: Vec<CertificateDer<'static>>,
        expected: ExpectedPeer,
        established_at: SystemTime,
    ) -> Self {
        let streams =
            if protocol == Protocol::Store { STORE_STREAMS_MAX } else { JOIN_STREAMS_MAX };
        let places = Arc::new(Semaphore::new(streams as usize));
        let remote = plain(connection.remote_address());
        Self(Arc::new(Parts {
            connection,
            protocol,
            peer,
            chain,
            remote,
            expected,
            established_at,
            places,
        }))
    }

    /// [`Protocol::Store`] or [`Protocol::Join`].
    pub fn protocol(&self) -> Protocol {
        self.0.protocol
    }

    /// `None`: a joiner, of whom nothing is known.
    pub fn peer(&self) -> Option<&AdmittedPeer> {
        self.0.peer.as_ref()
    }

    pub fn cluster(&self) -> Option<&ClusterName> {
        self.0.peer.as_ref().map(|peer| &peer.cluster)
    }

    /// Where it came from, or leads to.
    pub fn remote(&self) -> SocketAddr {
        self.0.remote
    }

    /// TCP: UDP does not pass.
    pub fn transport(&self) -> Transport {
        self.0.connection.transport()
    }

    pub fn is_live(&self) -> bool {
        self.0.connection.close_reason().is_none()
    }

    /// The next stream that the peer opens; `None` once the connection has ended. Streams beyond
    /// the limit wait.
    pub async fn accept(&self) -> Option<RelayStream> {
        let place = self.0.places.clone().acquire_owned().await.ok()?;
        let halves = self.0.connection.accept_bi().await.ok()?;
        Some(RelayStream::new(&self.0.connection, halves, Some(place)))
    }

    /// Opens a stream to the peer, who may hear of it with its first byte only.
    pub async fn open(&self) -> io::Result<RelayStream> {
        match timeout(RELAY_OPEN_WAIT, self.0.connection.open_bi()).await {
            Ok(Ok(halves)) => Ok(RelayStream::new(&self.0.connection, halves, None)),
            Ok(Err(error)) => Err(io::Error::other(describe(&error).text.to_string())),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "as many streams are open as the peer allows",
            )),
        }
    }

    /// Ends it with all its streams.
    pub fn close(&self, code: ErrorCode, text: &str) {
        let reason = &text.as_bytes()[..text.floor_char_boundary(512)];
        self.0.connection.close(close_code(code), reason);
    }

    /// Waits for its end, and says why.
    pub async fn closed(&self) -> String {
        describe(&self.0.connection.closed().await).text.to_string()
    }

    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// By the trust in force now; the certificate as of the handshake, so that a rotation resets
    /// nothing, but not for ever.
    fn judge_again(&self, identity: &Identity, now: SystemTime) {
        let alpn = self.0.connection.peer_alpn();
        let Parts { chain, expected, established_at, .. } = &*self.0;
        if let Err(refusal) = admit(&alpn, chain, identity, expected, *established_at) {
            let text = format!("the peer is not trusted any more: {refusal}");
            return self.close(ErrorCode::AdmissionRefused, &text);
        }
        let expired = |peer: &AdmittedPeer| {
            now.duration_since(peer.not_after).unwrap_or_default() > EXPIRED_SVID_AGE_MAX
        };
        if self.peer().is_some_and(expired) {
            self.close(ErrorCode::AdmissionRefused, "the peer's SVID expired long ago");
        }
    }
}

impl fmt::Debug for RelayConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayConnection")
            .field("protocol", &self.0.protocol)
            .field("peer", &self.0.peer)
            .field("remote", &self.0.remote)
            .field("transport", &self.transport())
            .finish_non_exhaustive()
    }
}

/// Store and join connections of peers, for the gateway.
#[derive(Debug)]
pub struct RelayIncoming(mpsc::Receiver<RelayConnection>);

impl RelayIncoming {
    /// The next one; `None` once the tunnel is gone.
    pub async fn next(&mut self) -> Option<RelayConnection> {
        self.0.recv().await
    }
}

/// All store and join connections that peers have to this gateway.
#[derive(Debug)]
pub(crate) struct Relays {
    live: Mutex<Vec<RelayConnection>>,
    queue: mpsc::Sender<RelayConnection>,
    incoming: Mutex<Option<RelayIncoming>>,
}

impl Default for Relays {
    fn default() -> Self {
        let (queue, receiver) = mpsc::channel(RELAY_QUEUE_MAX);
        let incoming = Mutex::new(Some(RelayIncoming(receiver)));
        Self { live: Mutex::default(), queue, incoming }
    }
}

impl Relays {
    pub(crate) fn take_incoming(&self) -> Option<RelayIncoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn judge_again(&self, identity: &Identity, now: SystemTime) {
        for relay in self.lock().iter() {
            relay.judge_again(identity, now);
        }
    }

    /// Ends those of clusters that are no peers, and all if nobody is.
    pub(crate) fn retain(&self, is_peer: impl Fn(&ClusterName) -> bool) {
        for relay in self.lock().iter() {
            let is_gone = |cluster: &ClusterName| !is_peer(cluster);
            if relay.protocol() == Protocol::Store && relay.cluster().is_some_and(is_gone) {
                relay.close(ErrorCode::AdmissionRefused, "the cluster is no peer any more");
            }
        }
    }

    pub(crate) fn close_all(&self, code: ErrorCode, text: &str) {
        self.lock().iter().for_each(|relay| relay.close(code, text));
    }

    fn add(&self, relay: &RelayConnection) -> Result<(), &'static str> {
        let mut live = self.lock();
        live.retain(RelayConnection::is_live);
        let store = || live.iter().filter(|other| other.protocol() == Protocol::Store);
        let join = || live.iter().filter(|other| other.protocol() == Protocol::Join);
        if relay.protocol() == Protocol::Store {
            let of_cluster = || store().filter(|other| other.cluster() == relay.cluster());
            if store().count() >= STORE_CONNECTIONS_MAX {
                return Err("too many store connections are open here");
            }
            // A node that dials anew has given up the connections that it had; the oldest goes.
            if of_cluster().count() >= STORE_CONNECTIONS_PER_CLUSTER_MAX
                && let Some(oldest) = of_cluster().min_by_key(|other| other.0.established_at)
            {
                oldest.close(ErrorCode::Overloaded, "the node has too many store connections");
            }
        } else {
            let source = |other: &RelayConnection| source_network(other.remote().ip());
            let own: IpAddr = source(relay);
            let of_source = join().filter(|other| source(other) == own).count();
            if join().count() >= JOIN_CONNECTIONS_MAX
                || of_source >= JOIN_CONNECTIONS_PER_SOURCE_MAX
            {
                return Err("too many join connections are open here: try again later");
            }
        }
        live.push(relay.clone());
        Ok(())
    }

    fn remove(&self, relay: &RelayConnection) {
        self.lock().retain(|other| !other.is_same(relay));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<RelayConnection>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a connection of a peer's, or closes it with the reason.
pub(crate) fn meet(context: &Arc<WorkerContext>, connection: Connection) {
    let shared = &context.shared;
    let remote = connection.remote_address();
    let refused = |code: ErrorCode, text: &str| {
        shared.counts.of(context.index).peers_refused();
        tracing::warn!(%remote, code = %code, reason = text, "a store or join connection was refused");
        connection.close(close_code(code), &text.as_bytes()[..text.floor_char_boundary(512)]);
    };
    let (_, now) = shared.now();
    let identity = shared.identity.load();
    let relay =
        match RelayConnection::admitted(connection.clone(), &identity, ExpectedPeer::AnyKnown, now)
        {
            Ok(relay) => relay,
            Err(refusal) => return refused(refusal.error_code(), &refusal.to_string()),
        };
    let is_stranger = |cluster: &ClusterName| !shared.is_peer(cluster);
    if relay.protocol() == Protocol::Store && relay.cluster().is_some_and(is_stranger) {
        return refused(ErrorCode::AdmissionRefused, "the cluster is not a peer here");
    }
    if let Err(text) = shared.relays.add(&relay) {
        return refused(ErrorCode::Overloaded, text);
    }
    if shared.closing.is_cancelled() || shared.relays.queue.try_send(relay.clone()).is_err() {
        shared.relays.remove(&relay);
        return refused(ErrorCode::Overloaded, "the gateway takes no store connections now");
    }
    tracing::info!(
        protocol = %relay.protocol(), cluster = relay.cluster().map(ClusterName::as_str),
        remote = %relay.remote(), transport = relay.transport().as_str(),
        "relayed connection up"
    );
    tokio::spawn(stay(Arc::clone(context), relay));
}

/// Until the connection's end.
async fn stay(context: Arc<WorkerContext>, relay: RelayConnection) {
    let reason = match relay.protocol() {
        Protocol::Join => match timeout(JOIN_CONNECTION_AGE_MAX, relay.closed()).await {
            Ok(reason) => reason,
            Err(_) => {
                relay.close(ErrorCode::Cancelled, "a join connection may not last longer");
                "it was open for too long".to_owned()
            }
        },
        _ => relay.closed().await,
    };
    context.shared.relays.remove(&relay);
    tracing::info!(
        protocol = %relay.protocol(), cluster = relay.cluster().map(ClusterName::as_str),
        remote = %relay.remote(), reason, "relayed connection down"
    );
}

/// Store connections by cluster, the newest last: what a gateway reports and opens streams on.
#[derive(Debug, Default)]
pub struct HeldConnections(Mutex<BTreeMap<ClusterName, Vec<RelayConnection>>>);

impl HeldConnections {
    pub fn add(&self, connection: &RelayConnection) {
        if let (Protocol::Store, Some(cluster)) = (connection.protocol(), connection.cluster()) {
            self.lock().entry(cluster.clone()).or_default().push(connection.clone());
        }
    }

    pub fn remove(&self, connection: &RelayConnection) {
        let mut held = self.lock();
        held.retain(|_, connections| {
            connections.retain(|other| !other.is_same(connection));
            !connections.is_empty()
        });
    }

    /// The newest that lives.
    pub fn of(&self, cluster: &ClusterName) -> Option<RelayConnection> {
        let held = self.lock();
        held.get(cluster)?.iter().rev().find(|connection| connection.is_live()).cloned()
    }

    pub fn clusters(&self) -> Vec<ClusterName> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClusterName, Vec<RelayConnection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
