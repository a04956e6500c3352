//! Nodes in one process: real gRPC over pipes. Who calls is a property of the pipe, as it is one of
//! the inner TLS connection in life; a pipe can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use federation::replica::{Links, WatchServer};
use hyper_util::rt::TokioIo;
use model::ClusterId;
use tokio::io::DuplexStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Request, Response, Status};
use wire::store::proto::store_service_server::{StoreService, StoreServiceServer};
use wire::store::proto::{
    HeadsReply, HeadsRequest, ProposeReply, ProposeRequest, ReadReply, ReadRequest,
    RevocationsReply, RevocationsRequest, WatchEvent, WatchRequest,
};

const PIPE_BYTES: usize = 64 * 1024;

pub(crate) type Events = ReceiverStream<Result<WatchEvent, Status>>;

/// What stands at the other end: an honest node, or a liar.
pub(crate) trait Peer: Send + Sync + 'static {
    fn watch(&self, caller: ClusterId, request: WatchRequest) -> Result<Events, Status>;
    fn heads(&self, caller: ClusterId, request: HeadsRequest) -> Result<HeadsReply, Status>;
}

impl Peer for WatchServer {
    fn watch(&self, caller: ClusterId, request: WatchRequest) -> Result<Events, Status> {
        Self::watch(self, caller, request)
    }

    fn heads(&self, caller: ClusterId, request: HeadsRequest) -> Result<HeadsReply, Status> {
        Self::heads(self, caller, request).map(|(reply, _)| reply)
    }
}

/// The nodes, and the pipes between them.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    peers: BTreeMap<ClusterId, Arc<dyn Peer>>,
    /// Pairs that cannot reach each other: caller and callee.
    cut: BTreeSet<(ClusterId, ClusterId)>,
    open: Vec<(ClusterId, ClusterId, CancellationToken)>,
    connections: usize,
}

impl Net {
    pub(crate) fn add(&self, id: ClusterId, peer: impl Peer) {
        self.0.lock().unwrap().peers.insert(id, Arc::new(peer));
    }

    /// Breaks open connections and lets no new one come about.
    pub(crate) fn cut(&self, caller: ClusterId, callee: ClusterId) {
        let mut state = self.0.lock().unwrap();
        state.cut.insert((caller, callee));
        let here =
            |pipe: &(ClusterId, ClusterId, CancellationToken)| (pipe.0, pipe.1) == (caller, callee);
        state.open.iter().filter(|pipe| here(pipe)).for_each(|pipe| pipe.2.cancel());
        state.open.retain(|pipe| !here(pipe));
    }

    pub(crate) fn heal(&self, caller: ClusterId, callee: ClusterId) {
        self.0.lock().unwrap().cut.remove(&(caller, callee));
    }

    /// How many connections there ever were.
    pub(crate) fn connections(&self) -> usize {
        self.0.lock().unwrap().connections
    }

    pub(crate) fn links(&self, caller: ClusterId) -> Arc<dyn Links> {
        let (net, channels) = (self.clone(), Mutex::default());
        Arc::new(Way { net, caller, channels })
    }

    /// A channel whose windows are small, so that a reader who does not read is noticed.
    pub(crate) fn narrow_channel(&self, caller: ClusterId, callee: ClusterId) -> Channel {
        let narrow = endpoint().initial_stream_window_size(65_535);
        self.connect(narrow.initial_connection_window_size(65_535), caller, callee)
    }

    fn connect(&self, endpoint: Endpoint, caller: ClusterId, callee: ClusterId) -> Channel {
        let net = self.clone();
        endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let net = net.clone();
            async move { net.open(caller, callee).map(TokioIo::new) }
        }))
    }

    fn open(&self, caller: ClusterId, callee: ClusterId) -> io::Result<DuplexStream> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let mut state = self.0.lock().unwrap();
        if state.cut.contains(&(caller, callee)) {
            return Err(refused());
        }
        let peer = state.peers.get(&callee).cloned().ok_or_else(refused)?;
        // Two pipes and a pump between them: it can be stopped, which an accepted connection cannot.
        let (near, mut inlet) = tokio::io::duplex(PIPE_BYTES);
        let (mut outlet, far) = tokio::io::duplex(PIPE_BYTES);
        let cut = CancellationToken::new();
        state.open.push((caller, callee, cut.clone()));
        state.connections += 1;
        let service = StoreServiceServer::new(Service { caller, peer });
        tokio::spawn(async move {
            let incoming = tokio_stream::once(Ok::<_, io::Error>(far));
            Server::builder().add_service(service).serve_with_incoming(incoming).await
        });
        tokio::spawn(async move {
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut inlet, &mut outlet) => {}
                () = cut.cancelled() => {}
            }
        });
        Ok(near)
    }
}

fn endpoint() -> Endpoint {
    Endpoint::from_static("http://node")
}

struct Way {
    net: Net,
    caller: ClusterId,
    channels: Mutex<BTreeMap<ClusterId, Channel>>,
}

impl Links for Way {
    fn channel(&self, cluster: &ClusterId) -> Option<Channel> {
        let mut channels = self.channels.lock().unwrap();
        let open = || self.net.connect(endpoint(), self.caller, *cluster);
        Some(channels.entry(*cluster).or_insert_with(open).clone())
    }

    fn bulk_channel(&self, cluster: &ClusterId) -> Option<Channel> {
        self.channel(cluster)
    }
}

struct Service {
    caller: ClusterId,
    peer: Arc<dyn Peer>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service for {}", self.caller)
    }
}

#[tonic::async_trait]
impl StoreService for Service {
    type WatchStream = Events;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Events>, Status> {
        self.peer.watch(self.caller, request.into_inner()).map(Response::new)
    }

    async fn heads(&self, request: Request<HeadsRequest>) -> Result<Response<HeadsReply>, Status> {
        self.peer.heads(self.caller, request.into_inner()).map(Response::new)
    }

    async fn propose(&self, _: Request<ProposeRequest>) -> Result<Response<ProposeReply>, Status> {
        Err(Status::unimplemented("these nodes only serve readers"))
    }

    async fn read(&self, _: Request<ReadRequest>) -> Result<Response<ReadReply>, Status> {
        Err(Status::unimplemented("these nodes only serve readers"))
    }

    async fn revocations(
        &self,
        _: Request<RevocationsRequest>,
    ) -> Result<Response<RevocationsReply>, Status> {
        Err(Status::unimplemented("these nodes only serve readers"))
    }
}
