//! One worker: its share of the port, its dialling, and how the gateway opens and takes exchanges.

use std::fmt;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::FutureExt;
use model::{ClusterName, Transport};
use quinn::{Endpoint, TokioRuntime};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use wire::tunnel::{
    ConnectionClass, Dispatched, ErrorCode, Open, Refused, StreamReset, encode_open, encode_opened,
    encode_refused,
};

use crate::carrier::{RecvStream, SendStream};
use crate::connection_id::WorkerIds;
use crate::dial::Dialler;
use crate::error::{BindError, OpenError, StreamError};
use crate::limits::{OPEN_WAIT, REFUSE_TIMEOUT, REPLACEMENTS_AT_ONCE, TRUST_CHECK_INTERVAL};
use crate::link::{Link, LinkRank, PeerIdentity};
use crate::registry::Snapshot;
use crate::socket::TunnelSocket;
use crate::stream::{Exchange, FrameReader, Life, RecvHalf, SendHalf, stream_code};
use crate::transport::{ServerConfigs, endpoint_config};
use crate::tunnel::Shared;

/// A worker that waits to be started in its thread.
pub struct Worker {
    index: u8,
    socket: UdpSocket,
    /// Its share of the TCP port, if the tunnel has that.
    listener: Option<TcpListener>,
    shared: Arc<Shared>,
}

impl Worker {
    pub(crate) fn new(
        index: u8,
        socket: UdpSocket,
        listener: Option<TcpListener>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { index, socket, listener, shared }
    }

    pub fn index(&self) -> u8 {
        self.index
    }

    /// Starts the worker's endpoint, dialling and watching as tasks of the runtime that this is
    /// called in, which should be the current-thread runtime of the worker's own thread.
    pub fn start(self) -> Result<(WorkerTunnel, Incoming), BindError> {
        let Self { index, socket, listener, shared } = self;
        Handle::try_current().map_err(|_| BindError::NoRuntime { worker: index })?;
        let failed = |source| BindError::Socket {
            action: "start",
            address: shared.local_addr,
            source,
            fix: "see whether the process may open more files",
        };
        let steering = Arc::clone(&shared.steering);
        let socket = TunnelSocket::of_worker(socket, steering, index).map_err(failed)?;
        let listener =
            listener.map(tokio::net::TcpListener::from_std).transpose().map_err(failed)?;
        let ids = WorkerIds { server: shared.gateway.server_id(), worker: index };
        let limits = &shared.config.limits;
        let servers = ServerConfigs::new(limits, Arc::clone(&shared.identity))?;
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint_config(&shared.config, ids),
            Some(servers.any()),
            Arc::new(socket),
            Arc::new(TokioRuntime),
        )
        .map_err(failed)?;
        let (sender, receiver) = mpsc::channel(limits.incoming_exchanges_max);
        let context = Arc::new(WorkerContext {
            index,
            ids,
            shared: Arc::clone(&shared),
            incoming: sender,
            replacements: Arc::new(Semaphore::new(REPLACEMENTS_AT_ONCE)),
        });
        shared.tasks.spawn(crate::accept::serve(endpoint, servers, Arc::clone(&context)));
        if let Some(listener) = listener {
            shared.tasks.spawn(crate::tcp::serve(listener, Arc::clone(&context)));
        }
        shared.tasks.spawn(Dialler::new(Arc::clone(&context)).run());
        if index == 0 {
            tokio::spawn(watch_trust(shared));
        }
        Ok((WorkerTunnel { context }, Incoming { receiver }))
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Worker").field(&self.index).finish()
    }
}

/// What a worker's tasks share.
#[derive(Debug)]
pub(crate) struct WorkerContext {
    pub(crate) index: u8,
    pub(crate) ids: WorkerIds,
    pub(crate) shared: Arc<Shared>,
    pub(crate) incoming: mpsc::Sender<IncomingExchange>,
    /// Whoever replaces a link holds a permit.
    pub(crate) replacements: Arc<Semaphore>,
}

/// Connections outlive handshakes: when bundles or owners change, they are judged again; and those
/// whose SVID ran out do not live for ever.
async fn watch_trust(shared: Arc<Shared>) {
    let mut judged = shared.identity.load();
    let mut ticks = tokio::time::interval(TRUST_CHECK_INTERVAL);
    loop {
        tokio::select! {
            () = shared.closing.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let (_, now) = shared.now();
        shared.end_expired_links(now);
        let current = shared.identity.load();
        shared.relays.judge_again(&current, now);
        if !Arc::ptr_eq(&judged, &current) {
            shared.judge_links_again();
            judged = current;
        }
    }
}

/// How a worker opens exchanges.
#[derive(Clone, Debug)]
pub struct WorkerTunnel {
    context: Arc<WorkerContext>,
}

impl WorkerTunnel {
    pub fn index(&self) -> u8 {
        self.context.index
    }

    /// Begins an exchange with a cluster: on this worker's own fast connection, or on a sibling's
    /// as long as it has none. After an error nothing was dispatched.
    pub async fn open(&self, cluster: &ClusterName, open: &Open) -> Result<Exchange, OpenError> {
        self.open_on(cluster, ConnectionClass::Fast, open).await
    }

    /// The same on a bulk connection, for an exchange that is known to be large both ways; on a
    /// fast one if there is no other.
    pub async fn open_bulk(
        &self,
        cluster: &ClusterName,
        open: &Open,
    ) -> Result<Exchange, OpenError> {
        match self.open_on(cluster, ConnectionClass::Bulk, open).await {
            Err(OpenError::NoTunnel { .. }) => self.open(cluster, open).await,
            result => result,
        }
    }

    async fn open_on(
        &self,
        cluster: &ClusterName,
        class: ConnectionClass,
        open: &Open,
    ) -> Result<Exchange, OpenError> {
        let mut frame = BytesMut::with_capacity(512);
        encode_open(open, &mut frame)?;
        let shared = &self.context.shared;
        let chosen = shared.registry.peek().choose(cluster, class, self.context.index).cloned();
        // A large exchange waits for no bulk link where a fast one stays.
        let chosen = chosen
            .filter(|link| class == ConnectionClass::Fast || link.rank() < LinkRank::Draining);
        let Some(chosen) = chosen else {
            return Err(OpenError::NoTunnel { cluster: cluster.clone() });
        };
        // Credit is there, mostly; only who has none looks further, or sets a timer.
        let opened = chosen.connection.open_bi().now_or_never();
        let (link, (send, recv)) = match opened {
            Some(Ok(streams)) => (chosen, streams),
            _ => open_elsewhere(&shared.registry.load(), cluster, class).await?,
        };
        let life = Life::begin(&link, shared, open.kind);
        let mut send = SendHalf::new(Arc::clone(&life), send);
        send.write(frame.freeze()).await.map_err(|error| OpenError::Lost {
            cluster: cluster.clone(),
            reason: error.to_string(),
        })?;
        shared.counts.of(self.context.index).exchanges_opened();
        Ok(Exchange { send, recv: RecvHalf::of_initiator(life, recv) })
    }
}

/// The chosen link had no stream credit left, or has just ended: any other that has some, else the
/// first that gets some.
async fn open_elsewhere(
    links: &Snapshot,
    cluster: &ClusterName,
    class: ConnectionClass,
) -> Result<(Arc<Link>, (SendStream, RecvStream)), OpenError> {
    let candidates = links.candidates(cluster, class);
    for &link in &candidates {
        if let Some(Ok(streams)) = link.connection.open_bi().now_or_never() {
            return Ok((Arc::clone(link), streams));
        }
    }
    let Some(&link) = candidates.first() else {
        return Err(OpenError::NoTunnel { cluster: cluster.clone() });
    };
    match timeout(OPEN_WAIT, link.connection.open_bi()).await {
        Ok(Ok(streams)) => Ok((Arc::clone(link), streams)),
        Ok(Err(error)) => Err(OpenError::Lost {
            cluster: cluster.clone(),
            reason: link.stream_error(&error).to_string(),
        }),
        Err(_) => Err(OpenError::Overloaded { cluster: cluster.clone() }),
    }
}

/// Exchanges that peers opened on this worker's connections.
#[derive(Debug)]
pub struct Incoming {
    receiver: mpsc::Receiver<IncomingExchange>,
}

impl Incoming {
    /// The next one; `None` once the tunnel is closed.
    pub async fn next(&mut self) -> Option<IncomingExchange> {
        self.receiver.recv().await
    }
}

/// An exchange whose OPEN was read and whose peer was admitted. It waits for an answer; dropped
/// without one, it is refused as `internal`.
pub struct IncomingExchange {
    pub peer: Arc<PeerIdentity>,
    pub open: Open,
    parts: Option<Parts>,
}

struct Parts {
    life: Arc<Life>,
    send: SendStream,
    reader: FrameReader,
}

impl IncomingExchange {
    pub(crate) fn new(
        link: &Arc<Link>,
        shared: &Arc<Shared>,
        open: Open,
        send: SendStream,
        reader: FrameReader,
    ) -> Self {
        let life = Life::begin(link, shared, open.kind);
        let peer = Arc::clone(&link.peer);
        Self { peer, open, parts: Some(Parts { life, send, reader }) }
    }

    /// What carries it; `None` once it was answered.
    pub fn transport(&self) -> Option<Transport> {
        self.parts.as_ref().map(|parts| parts.life.link.transport())
    }

    /// Serves it: OPENED is sent, and the exchange begins.
    pub async fn accept(mut self) -> Result<Exchange, StreamError> {
        let parts = self.parts.take().expect("only accept, refuse and drop take the parts");
        let mut send = SendHalf::new(Arc::clone(&parts.life), parts.send);
        let mut frame = BytesMut::with_capacity(2);
        encode_opened(&mut frame);
        send.write(frame.freeze()).await?;
        parts.life.shared.counts.of(parts.life.link.worker).exchanges_accepted();
        Ok(Exchange { send, recv: RecvHalf::of_acceptor(parts.life, parts.reader) })
    }

    /// Does not serve it, and says why.
    pub async fn refuse(mut self, refused: Refused) {
        if let Some(Parts { mut send, reader, life }) = self.parts.take() {
            refuse_stream(&mut send, &refused).await;
            reader.stop(StreamReset::new(refused.code, refused.dispatched));
            drop(life);
        }
    }
}

/// Writes REFUSED and the stream's end; what cannot be written in time is reset.
pub(crate) async fn refuse_stream(send: &mut SendStream, refused: &Refused) {
    let mut frame = BytesMut::with_capacity(128);
    let written = match encode_refused(refused, &mut frame) {
        Ok(()) => timeout(REFUSE_TIMEOUT, send.write_chunk(frame.freeze())).await.ok(),
        Err(_) => None,
    };
    match written {
        Some(Ok(())) => send.finish(),
        _ => send.reset(stream_code(StreamReset::new(refused.code, refused.dispatched))),
    }
}

impl Drop for IncomingExchange {
    fn drop(&mut self) {
        if let Some(Parts { mut send, reader, .. }) = self.parts.take() {
            let text = "the gateway gave the exchange up unanswered";
            let refused = Refused::new(ErrorCode::Internal, Dispatched::No, text);
            // A fresh stream has room for so short a frame: this is done at its first poll.
            if refuse_stream(&mut send, &refused).now_or_never().is_none() {
                let reset = StreamReset::new(ErrorCode::Internal, Dispatched::No);
                send.reset(stream_code(reset));
            }
            reader.stop(StreamReset::new(ErrorCode::Internal, Dispatched::No));
        }
    }
}

impl fmt::Debug for IncomingExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingExchange")
            .field("peer", &self.peer)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}
