//! `bench node`: a node of the store as a process of its own, so that its memory and CPU time can be
//! read from outside. gRPC over loopback TCP, without TLS and without gateways: callers say who they
//! are in their user agent.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use federation::replica::{Now, Replica, ReplicaConfig, Standpoint, WatchServer, WatchStream};
use federation::store::{
    CallError, Machine, Peers, Profile, RocksDisk, RpcKind, Store, StoreConfig,
};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use model::ClusterId;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use wire::store::RaftCall;
use wire::store::limits::MESSAGE_BYTES_MAX;
use wire::store::proto::raft_service_client::RaftServiceClient;
use wire::store::proto::raft_service_server::{RaftService, RaftServiceServer};
use wire::store::proto::store_service_server::{StoreService, StoreServiceServer};
use wire::store::proto::{
    HeadsReply, HeadsRequest, ProposeReply, ProposeRequest, RaftReply, RaftRequest, ReadReply,
    ReadRequest, RevocationsReply, RevocationsRequest, WatchRequest,
};

use super::clusters;
use super::machine::{Fleet, REGISTER_KEY_BYTES, Register};

/// How often the follower of the store says that it has a quorum; as the product does.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);
const JOIN_RETRY_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub struct Options {
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    listen: SocketAddr,
    /// Which of the simulated clusters this is
    #[arg(long)]
    cluster: u32,
    #[arg(long, value_enum)]
    machine: Kind,
    /// All nodes of the group in order of their clusters, this one included
    #[arg(long, value_delimiter = ',')]
    group: Vec<SocketAddr>,
    /// Load the state so often, say what each time took, and end
    #[arg(long)]
    load: Option<u32>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Kind {
    /// The federation's own, which verifies everything
    Fleet,
    /// Keys and values
    Register,
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    match (options.machine, options.load) {
        (Kind::Fleet, Some(times)) => load(options, times).await,
        (Kind::Fleet, None) => serve_fleet(options).await,
        (Kind::Register, _) => serve_register(options).await,
    }
}

async fn open<M: Machine>(options: &Options) -> anyhow::Result<(Arc<RocksDisk>, Store<M>)> {
    std::fs::create_dir_all(&options.folder).context("make the store's folder")?;
    let disk = Arc::new(RocksDisk::open(&options.folder)?);
    let own = u64::from(options.cluster) + 1;
    let mut links = BTreeMap::new();
    for (number, address) in (1..).zip(&options.group) {
        if number != own {
            links.insert(number, channel(*address, options.cluster)?);
        }
    }
    let config = StoreConfig::new(own, 1, Profile::Lan, own);
    let store = Store::open(config, disk.clone(), Arc::new(Links(links))).await?;
    Ok((disk, store))
}

/// A connection that says which cluster it is of.
pub fn channel(address: SocketAddr, cluster: u32) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let endpoint = endpoint.user_agent(format!("cluster-{cluster}"))?.tcp_nodelay(true);
    Ok(endpoint.connect_lazy())
}

/// The leader of a federation of one voter: it is founded by the first command.
async fn serve_fleet(options: &Options) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (disk, store) = open::<Fleet>(options).await?;
    let own = clusters::key(options.cluster).cluster_id();
    let freshness = federation::replica::FreshnessConfig::default();
    let replica = Replica::open(ReplicaConfig { own, disk, freshness })?;
    say(format_args!("opened {}", begun.elapsed().as_micros()))?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (feed, observer) = (replica.feed().clone(), replica.observer().clone());
    let watch = WatchServer::new(feed, observer, stop.clone(), tasks);
    tokio::spawn(follow(store.clone(), replica, own));
    let mut leadership = store.leadership();
    tokio::spawn(async move {
        if leadership.wait_for(|now| now.own).await.is_ok() {
            let _ = say(format_args!("leads {}", begun.elapsed().as_micros()));
        }
    });
    serve(options.listen, Server { store, watch: Some(watch) }).await
}

/// As the product's node follows its own store: every state goes to the observer and to watchers.
async fn follow(store: Store<Fleet>, replica: Replica, own: ClusterId) {
    let mut changes = store.changes();
    let mut ticks = tokio::time::interval(FOLLOW_INTERVAL);
    let mut served = None;
    loop {
        changes.mark_unchanged();
        let state = store.state();
        let fleet = state.0.fleet();
        if fleet.federation().is_some() && served != Some(fleet.revision()) {
            served = Some(fleet.revision());
            let standpoint = Standpoint { quorum: true, relayed: false, voters: [own].into() };
            replica.serve(Arc::new(fleet.clone()), own, standpoint);
        }
        replica.observer().quorum_heard(Now::read());
        drop(state);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            _ = ticks.tick() => {}
        }
    }
}

/// The first node of a group founds it and takes the others in.
async fn serve_register(options: &Options) -> anyhow::Result<()> {
    let (_, store) = open::<Register>(options).await?;
    if options.cluster == clusters::ROOT {
        let (store, nodes) = (store.clone(), 1..=options.group.len() as u64);
        tokio::spawn(async move {
            let first = vec![0; REGISTER_KEY_BYTES];
            let founded = store.found(first).await;
            let voters: std::collections::BTreeSet<u64> = nodes.collect();
            while store.set_members(voters.clone(), [].into()).await.is_err() {
                tokio::time::sleep(JOIN_RETRY_PAUSE).await;
            }
            let voters = store.status().voters.len();
            let _ = say(format_args!("leads {voters} voters, {}", founded.is_ok()));
        });
    }
    serve(options.listen, Server { store, watch: None }).await
}

/// What the state alone takes: what was freed of one loading serves the next one, so the second and
/// each later state adds about what it holds.
async fn load(options: &Options, times: u32) -> anyhow::Result<()> {
    let (_, store) = open::<Fleet>(options).await?;
    let mut states = vec![store.state()];
    for _ in 0..times {
        let pairs = states[0].to_kv();
        let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
        let begun = Instant::now();
        let loaded = Fleet::load(pairs).map_err(anyhow::Error::msg)?;
        let took = begun.elapsed().as_micros();
        states.push(Arc::new(loaded));
        let resident = crate::proc::resident_kib(std::process::id())?;
        say(format_args!("loaded {took} {resident} {bytes}"))?;
    }
    store.shutdown().await;
    Ok(())
}

async fn serve<M: Machine>(listen: SocketAddr, server: Server<M>) -> anyhow::Result<()> {
    let raft = RaftServiceServer::from_arc(Arc::new(server.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let store = StoreServiceServer::new(server).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let routes = tonic::transport::Server::builder().tcp_nodelay(true);
    let listener = tokio::net::TcpListener::bind(listen).await.context("listen")?;
    say(format_args!("listens"))?;
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let mut routes = routes;
    routes.add_service(raft).add_service(store).serve_with_incoming(incoming).await?;
    Ok(())
}

/// A line for the process that started this one.
pub fn say(line: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

struct Server<M> {
    store: Store<M>,
    /// A register has nobody who watches.
    watch: Option<WatchServer>,
}

impl<M> Clone for Server<M> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), watch: self.watch.clone() }
    }
}

impl<M> Server<M> {
    fn watch(&self) -> Result<&WatchServer, Status> {
        self.watch.as_ref().ok_or_else(|| Status::failed_precondition("a register is not watched"))
    }
}

/// Whom the caller says to be.
fn caller<T>(request: &Request<T>) -> Result<u32, Status> {
    let agent = request.metadata().get("user-agent").and_then(|agent| agent.to_str().ok());
    let number = agent.and_then(|agent| agent.strip_prefix("cluster-")?.split(' ').next());
    let number = number.and_then(|number| number.parse().ok());
    number.ok_or_else(|| Status::unauthenticated("the user agent names no cluster"))
}

#[tonic::async_trait]
impl<M: Machine> RaftService for Server<M> {
    async fn call(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        let from = u64::from(caller(&request)?) + 1;
        let (_, body) = RaftCall::decode(request.into_inner())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let body = self.store.handle(from, body).await;
        Ok(Response::new(RaftReply { body }))
    }
}

#[tonic::async_trait]
impl<M: Machine> StoreService for Server<M> {
    type WatchStream = WatchStream;

    async fn propose(
        &self,
        request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeReply>, Status> {
        let command = request.into_inner().command.to_vec();
        let proposed = match self.store.epoch() {
            0 => self.store.found(command).await,
            _ => self.store.propose(command).await,
        };
        let proposed = proposed.map_err(|error| Status::unavailable(error.to_string()))?;
        let reply = ProposeReply::decode(&proposed.reply[..]);
        reply.map(Response::new).map_err(|error| Status::internal(error.to_string()))
    }

    async fn read(&self, _: Request<ReadRequest>) -> Result<Response<ReadReply>, Status> {
        Err(Status::unimplemented("reads are not measured"))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<WatchStream>, Status> {
        let caller = clusters::key(caller(&request)?).cluster_id();
        self.watch()?.watch(caller, request.into_inner()).map(Response::new)
    }

    async fn heads(&self, request: Request<HeadsRequest>) -> Result<Response<HeadsReply>, Status> {
        let caller = clusters::key(caller(&request)?).cluster_id();
        let (reply, _) = self.watch()?.heads(caller, request.into_inner())?;
        Ok(Response::new(reply))
    }

    async fn revocations(
        &self,
        _: Request<RevocationsRequest>,
    ) -> Result<Response<RevocationsReply>, Status> {
        Err(Status::unimplemented("revocations are not measured"))
    }
}

/// Raft's calls to the other nodes of the group.
#[derive(Debug)]
struct Links(BTreeMap<u64, Channel>);

impl Peers for Links {
    fn call(
        &self,
        target: u64,
        kind: RpcKind,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let channel = self.0.get(&target).cloned();
        async move {
            let unknown = || CallError::Unreachable(format!("node {target} is not in the group"));
            let mut client = RaftServiceClient::new(channel.ok_or_else(unknown)?);
            let call = match kind {
                RpcKind::Append => RaftCall::Append,
                RpcKind::Vote => RaftCall::Vote,
                RpcKind::Snapshot => RaftCall::Snapshot,
            };
            match tokio::time::timeout(timeout, client.call(call.encode(body))).await {
                Ok(Ok(reply)) => Ok(reply.into_inner().body),
                Ok(Err(status)) => Err(CallError::Unreachable(status.message().into())),
                Err(_) => Err(CallError::Timeout(timeout)),
            }
        }
        .boxed()
    }
}
