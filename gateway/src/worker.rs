//! A worker: one thread with a current-thread runtime, its own listening sockets, upstream
//! connections and QUIC endpoint. A request stays on its worker from accept to access log.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use futures_util::FutureExt;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use model::ClusterId;
use model::snapshot::ListenerRouting;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tunnel::WorkerTunnel;

use crate::drain::DrainStage;
use crate::error::{Kind, ProxyError};
use crate::limits::{
    ACCEPT_ERROR_PAUSE, STOP_MAX, TCP_KEEPALIVE, UPSTREAM_IDLE_TIMEOUT, WORKER_QUEUE_MAX,
};
use crate::metrics::Shard;
use crate::state::GatewayState;
use crate::upstream::Pool;
use crate::{http, peer, tcp};

/// What the tasks of one worker share.
pub struct WorkerState {
    pub gateway: Arc<GatewayState>,
    pub shard: Arc<Shard>,
    pub pool: Pool,
    pub http_server: auto::Builder<TokioExecutor>,
    /// There after enrolment.
    tunnel: OnceLock<WorkerTunnel>,
}

impl WorkerState {
    /// This worker's way into the tunnel.
    pub fn tunnel(&self) -> Result<&WorkerTunnel, ProxyError> {
        self.tunnel.get().ok_or_else(|| {
            ProxyError::unsent(Kind::NoIdentity, "the gateway has no SVID yet, so no tunnel")
        })
    }

    /// The id that `Open.via` carries.
    pub fn cluster_id(&self) -> Result<ClusterId, ProxyError> {
        self.gateway.cluster_id.load().as_deref().copied().ok_or_else(|| {
            ProxyError::unsent(Kind::NoIdentity, "the cluster's own trust bundle is not known yet")
        })
    }
}

impl std::fmt::Debug for WorkerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerState").finish_non_exhaustive()
    }
}

/// What the control task tells a worker.
#[derive(Debug)]
pub enum Command {
    /// The gateway was enrolled: here is this worker's part of the tunnel.
    Tunnel(Box<tunnel::Worker>),
    Listen(BoundPort),
    /// To be answered: the worker's thread does its work.
    Pulse(oneshot::Sender<()>),
}

/// This worker's socket of a port, listening already.
#[derive(Debug)]
pub struct BoundPort {
    pub port: u16,
    pub listener: std::net::TcpListener,
    /// Cancelled when the port is no longer wanted.
    pub close: CancellationToken,
}

/// A running worker.
#[derive(Debug)]
pub struct WorkerThread {
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<()>,
}

impl WorkerThread {
    pub fn start(index: usize, gateway: &Arc<GatewayState>) -> std::io::Result<Self> {
        let (commands, inbox) = mpsc::channel(WORKER_QUEUE_MAX);
        let state = Arc::new(WorkerState {
            gateway: gateway.clone(),
            shard: gateway.shards[index].clone(),
            pool: Pool::default(),
            http_server: http::server(),
            tunnel: OnceLock::new(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread =
            std::thread::Builder::new().name(format!("fg-worker-{index}")).spawn(move || {
                runtime.block_on(run(state, inbox));
                runtime.shutdown_timeout(STOP_MAX);
            })?;
        Ok(Self { commands, thread })
    }

    pub fn commands(&self) -> mpsc::Sender<Command> {
        self.commands.clone()
    }

    /// Waits for the thread; the drain must have reached [`DrainStage::Stopped`].
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("a worker panicked");
        }
    }
}

async fn run(worker: Arc<WorkerState>, mut inbox: mpsc::Receiver<Command>) {
    let drain = worker.gateway.drain.clone();
    let mut sweep = interval(UPSTREAM_IDLE_TIMEOUT);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = inbox.recv() => match command {
                Some(Command::Listen(port)) => {
                    tokio::spawn(accept_all(worker.clone(), port));
                }
                Some(Command::Tunnel(tunnel)) => start_tunnel(&worker, *tunnel),
                // Whoever asked may have stopped waiting.
                Some(Command::Pulse(answer)) => drop(answer.send(())),
                None => return,
            },
            _ = sweep.tick() => worker.pool.sweep(),
            () = drain.reached(DrainStage::Stopped) => break,
        }
    }
    // The tasks end by themselves at this stage; what does not is dropped with the runtime.
    if let Some(tunnel) = worker.gateway.tunnel.get() {
        tunnel.closed().await;
    }
}

fn start_tunnel(worker: &Arc<WorkerState>, tunnel: tunnel::Worker) {
    match tunnel.start() {
        Ok((tunnel, incoming)) => {
            let _ = worker.tunnel.set(tunnel); // the control task sends this command once
            tokio::spawn(peer::serve(worker.clone(), incoming));
        }
        Err(error) => tracing::error!(code = %error.code(), %error, "the tunnel did not start"),
    }
}

/// Accepts until the port is closed, then takes what the kernel has accepted already: closing the
/// socket would reset those connections.
async fn accept_all(worker: Arc<WorkerState>, bound: BoundPort) {
    let BoundPort { port, listener, close } = bound;
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(port, %error, "a listening socket cannot be used"),
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = close.cancelled() => break,
        };
        match accepted {
            Ok((stream, remote)) => serve(&worker, stream, remote, port, &close),
            Err(error) => {
                tracing::warn!(port, %error, "accept failed");
                sleep(ACCEPT_ERROR_PAUSE).await; // out of descriptors: a tight loop would not help
            }
        }
    }
    while let Some(Ok((stream, remote))) = listener.accept().now_or_never() {
        serve(&worker, stream, remote, port, &close);
    }
}

/// The protocol is the one that the port has in the Snapshot of this moment.
fn serve(
    worker: &Arc<WorkerState>,
    stream: TcpStream,
    remote: SocketAddr,
    port: u16,
    close: &CancellationToken,
) {
    let Some(place) = worker.gateway.connections.take() else {
        worker.shard.connections_refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        return;
    };
    if let Err(error) = tune(&stream) {
        return tracing::debug!(%remote, port, %error, "a connection ended before it began");
    }
    let snapshot = worker.gateway.snapshot.load_full();
    let (worker, close) = (worker.clone(), close.clone());
    match snapshot.listeners.get(&port).map(|listener| &listener.routing) {
        Some(ListenerRouting::Http(_)) => {
            tokio::spawn(async move {
                http::serve_connection(worker, stream, remote, port, close).await;
                drop(place);
            });
        }
        Some(ListenerRouting::Tcp(target)) => {
            let target = target.clone();
            tokio::spawn(async move {
                tcp::serve_connection(worker, stream, remote, target, snapshot.revision).await;
                drop(place);
            });
        }
        None => {} // removed a moment ago
    }
}

fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(TCP_KEEPALIVE);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
