//! What peers open: streams that gateways hand over at the relay socket or port, and streams on connections
//! that this node dialled. Each is asked who it is before anybody serves it.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt as _};
use identity::{ClientCertificate, ClusterTrust, IdentityCell, OwnPeer};
use model::ClusterName;
use model::code::ENROLMENT_REFUSED;
use model::spiffe::Part;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tonic::transport::server::Connected as _;
use tunnel::{ClusterServer, Inner, RelayConnection};
use wire::relay::{self, Preamble, RelayProtocol};

use super::stream::{
    BoxedCarrier, Carrier, FederationPeer, JoinerPeer, PeerInfo, PeerStream, read_message,
};
use super::{Shared, TransportConfig};
use crate::app::coded;
use crate::limits::{ARRIVALS_MAX, HANDSHAKES_MAX, JOIN_HANDSHAKES_MAX, RELAY_TIMEOUT};
use crate::peer::AllowedUsers;
use crate::port::{self, Port};
use crate::socket;

/// The gateways of this cluster connect here, whoever their user is; each is judged by its peer
/// credentials.
const RELAY_SOCKET_MODE: u32 = 0o600;
const SHARED_RELAY_SOCKET_MODE: u32 = 0o666;

/// Streams for the services of the store, and for joining.
#[derive(Debug)]
pub struct Incoming {
    pub store: PeerStreams,
    pub join: PeerStreams,
}

/// Streams whose peers have proved who they are, for a gRPC server.
pub struct PeerStreams(mpsc::Receiver<PeerStream>);

impl Stream for PeerStreams {
    type Item = io::Result<PeerStream>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|stream| stream.map(Ok))
    }
}

impl fmt::Debug for PeerStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerStreams(..)")
    }
}

/// Where streams go once their handshake is done.
#[derive(Debug)]
pub(super) struct Arrivals {
    store: mpsc::Sender<PeerStream>,
    join: mpsc::Sender<PeerStream>,
    store_handshakes: Arc<Semaphore>,
    /// Of their own: anybody may begin one, and be slow about it, and members must not wait for that.
    join_handshakes: Arc<Semaphore>,
}

impl Arrivals {
    pub(super) fn new() -> (Self, Incoming) {
        let (store, store_streams) = mpsc::channel(ARRIVALS_MAX);
        let (join, join_streams) = mpsc::channel(ARRIVALS_MAX);
        let store_handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let join_handshakes = Arc::new(Semaphore::new(JOIN_HANDSHAKES_MAX));
        let (store_streams, join_streams) = (PeerStreams(store_streams), PeerStreams(join_streams));
        let arrivals = Self { store, join, store_handshakes, join_handshakes };
        (arrivals, Incoming { store: store_streams, join: join_streams })
    }
}

/// Binds the port where gateways in other pods hand over streams.
pub(super) fn bind_port(
    config: &TransportConfig,
    identity: &Arc<IdentityCell>,
    trust: &Arc<ClusterTrust>,
) -> anyhow::Result<Option<Port>> {
    let Some(address) = config.relay_listen else { return Ok(None) };
    let server = ClusterServer {
        identity: identity.clone(),
        trust: trust.clone(),
        client: ClientCertificate::Required(OwnPeer::Any(Part::Gateway)),
        alpn: relay::ALPN,
    };
    port::bind("listen.relay", address, server).map(Some)
}

/// Serves that port.
pub(super) fn serve_port(shared: &Arc<Shared>, port: Port) -> io::Result<()> {
    let incoming = port.into_incoming(&shared.stop, &shared.tasks)?;
    let (shared, stop) = (Arc::clone(shared), shared.stop.clone());
    let tasks = shared.tasks.clone();
    let serving = async move {
        let mut incoming = std::pin::pin!(incoming);
        while let Some(Ok(stream)) = incoming.next().await {
            let shared = Arc::clone(&shared);
            shared.clone().tasks.spawn(async move {
                let stop = shared.stop.clone();
                stop.run_until_cancelled(take_relayed(&shared, stream)).await;
            });
        }
    };
    tasks.spawn(stop.run_until_cancelled_owned(serving));
    Ok(())
}

/// Binds the relay socket; the future serves it.
pub(super) fn listen(
    shared: &Arc<Shared>,
) -> anyhow::Result<impl Future<Output = ()> + Send + use<>> {
    let config = &shared.config;
    let own = crate::peer::own_uid()?;
    let fix = "list it under `enrolment.uids` of the federation node's configuration";
    let users = AllowedUsers::new(config.uids.clone(), ENROLMENT_REFUSED, fix);
    let mode = if users.is_only(own) { RELAY_SOCKET_MODE } else { SHARED_RELAY_SOCKET_MODE };
    let socket = socket::bind("sockets.resource", &config.relay_socket, mode)
        .map_err(|error| coded(error.code(), error))?;
    let (file, connections) = socket.into_incoming(users.clone());
    let shared = Arc::clone(shared);
    Ok(async move {
        let _file = file;
        let mut connections = std::pin::pin!(connections);
        while let Some(Ok(connection)) = connections.next().await {
            let user = connection.connect_info().peer_cred.map(|credentials| credentials.uid());
            if !user.is_some_and(|uid| users.lists(uid)) {
                tracing::warn!(?user, "a Unix user may not relay here; {fix}");
                continue;
            }
            let shared = Arc::clone(&shared);
            shared.clone().tasks.spawn(async move {
                let stop = shared.stop.clone();
                stop.run_until_cancelled(take_relayed(&shared, connection)).await;
            });
        }
    })
}

/// A stream that a gateway hands over.
async fn take_relayed(shared: &Shared, mut connection: impl Carrier + 'static) {
    let preamble = match timeout(RELAY_TIMEOUT, read_message(&mut connection)).await {
        Ok(Ok(body)) => Preamble::decode(&body).map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("nothing came within {RELAY_TIMEOUT:?}")),
    };
    let preamble = match preamble {
        Ok(preamble) => preamble,
        Err(problem) => return tracing::warn!(%problem, "a gateway's relayed stream is refused"),
    };
    let carrier: BoxedCarrier = Box::new(connection);
    match (preamble.protocol, preamble.peer) {
        (RelayProtocol::Store, Some((cluster, _))) => take_store(shared, carrier, &cluster).await,
        (RelayProtocol::Store, None) => {} // a preamble like that is not decoded
        (RelayProtocol::Join, _) => take_join(shared, carrier, preamble.remote).await,
    }
}

/// Streams that the gateways of a cluster open on a connection that this node dialled to them, until
/// it ends.
pub(super) async fn take_reverse(
    shared: Arc<Shared>,
    connection: RelayConnection,
    cluster: ClusterName,
) {
    while let Some(stream) = connection.accept().await {
        let (shared, cluster) = (Arc::clone(&shared), cluster.clone());
        shared.clone().tasks.spawn(async move {
            let stop = shared.stop.clone();
            let take = take_store(&shared, Box::new(stream), &cluster);
            stop.run_until_cancelled(take).await;
        });
    }
}

async fn take_store(shared: &Shared, carrier: BoxedCarrier, outer: &ClusterName) {
    let Ok(_place) = shared.arrivals.store_handshakes.acquire().await else { return };
    let (inner, peer) = match Inner::accept_store(carrier, &shared.identity).await {
        Ok(accepted) => accepted,
        Err(problem) => {
            return tracing::warn!(cluster = %outer, %problem, "a store stream is refused");
        }
    };
    // Who relays and who speaks are of one cluster; a member that was cut off just now is no peer.
    let known = shared.peer(&peer.cluster).filter(|_| peer.cluster == *outer);
    let Some(known) = known else {
        let (inner, outer) = (&peer.cluster, outer);
        return tracing::warn!(%inner, %outer, "a store stream is of no peer, or of another one");
    };
    let info = PeerInfo::Federation(FederationPeer {
        cluster: peer.cluster,
        id: known.id,
        spiffe_id: peer.id,
    });
    let stream = PeerStream::new(inner, info, known.gone.clone());
    let _ = shared.arrivals.store.send(stream).await; // nobody serves any more: it is dropped
}

async fn take_join(shared: &Shared, carrier: BoxedCarrier, remote: std::net::SocketAddr) {
    let Ok(_place) = shared.arrivals.join_handshakes.acquire().await else { return };
    let root = shared.own().root.clone();
    let accepted = Inner::accept_join(carrier, &shared.identity, &root).await;
    let accepted = accepted.map_err(|error| error.to_string()).and_then(|(inner, key)| {
        let exporter = inner.exporter().map_err(|error| error.to_string())?;
        Ok((inner, JoinerPeer { public_key_der: key, exporter, remote }))
    });
    let (inner, joiner) = match accepted {
        Ok(accepted) => accepted,
        Err(problem) => return tracing::warn!(%remote, problem, "a join stream is refused"),
    };
    let stream = PeerStream::new(inner, PeerInfo::Joiner(joiner), shared.stop.clone());
    let _ = shared.arrivals.join.send(stream).await;
}
