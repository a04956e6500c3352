//! Store and join streams between peers and this cluster's federation node, passed on unread: a
//! peer's to the node's relay socket, the node's own wishes to a connection that a peer's node has
//! here. They have a thread of their own, so that control never waits for traffic, nor traffic for it.

mod port;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tunnel::{AdmittedPeer, Protocol, RelayConnection, RelayIncoming, RelayStream};
use wire::relay::{
    HEADER_BYTES, Preamble, RelayProtocol, StreamAnswer, StreamRequest, body_length,
};
use wire::resource::limits::SOCKET_PATH_BYTES_MAX;
use wire::tunnel::ErrorCode;
use wire::tunnel::limits::RELAY_IDLE_TIMEOUT_MS;

use crate::config::FederationLink;
use crate::drain::DrainStage;
use crate::federation::connect_relay;
use crate::files::create_data_dir;
use crate::limits::{ACCEPT_ERROR_PAUSE, RELAY_BUFFER_BYTES, RELAY_CALL_TIMEOUT, STOP_MAX};
use crate::state::GatewayState;

const IDLE_TIMEOUT: Duration = Duration::from_millis(RELAY_IDLE_TIMEOUT_MS as u64);
/// The tunnel is bound once.
const INCOMING_MAX: usize = 1;

/// The thread, and where it is told of the tunnel.
pub struct Relay {
    pub tunnel: mpsc::Sender<RelayIncoming>,
    pub thread: JoinHandle<()>,
}

/// Binds the socket or port at which the node asks, and starts the thread. Without the socket the
/// gateway goes on: only peers that cannot be dialled are not reached then.
pub fn start(state: &Arc<GatewayState>) -> anyhow::Result<Relay> {
    let (listener, port) = match &state.config.federation {
        FederationLink::Sockets { .. } => (bind_told(state), None),
        FederationLink::Tcp(_) => (None, port::bind(&state.config)?),
    };
    let port = port.map(|(port, address)| {
        let _ = state.relay_address.set(address); // nobody else sets it
        port
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (tunnel, inbox) = mpsc::channel(INCOMING_MAX);
    let state = state.clone();
    let thread = std::thread::Builder::new().name("fg-relay".into()).spawn(move || {
        runtime.block_on(async {
            if let Some(listener) = listener {
                tokio::spawn(serve_node(state.clone(), listener));
            }
            if let Some(port) = port {
                tokio::spawn(port::serve(state.clone(), port));
            }
            tokio::select! {
                () = serve_peers(&state, inbox) => {}
                () = state.drain.reached(DrainStage::Stopped) => {}
            }
        });
        runtime.shutdown_timeout(STOP_MAX);
    })?;
    Ok(Relay { tunnel, thread })
}

fn bind_told(state: &GatewayState) -> Option<StdUnixListener> {
    let (listener, path) = bind(&state.config.data_dir)
        .inspect_err(|error| tracing::warn!(%error, "the node cannot ask for streams to peers"))
        .ok()?;
    let _ = state.relay_socket.set(path); // nobody else sets it
    Some(listener)
}

/// In a folder of the gateway's own, for its own user: the folder lock says that no other process is
/// using what lies there.
fn bind(data_dir: &Path) -> anyhow::Result<(StdUnixListener, PathBuf)> {
    let folder = std::path::absolute(data_dir.join("run"))?;
    let path = folder.join("relay.sock");
    let length = path.as_os_str().len();
    anyhow::ensure!(
        length <= SOCKET_PATH_BYTES_MAX,
        "{} has {length} bytes, and Unix allows {SOCKET_PATH_BYTES_MAX}: set a shorter dataDir",
        path.display()
    );
    create_data_dir(&folder)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let listener = StdUnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok((listener, path))
}

async fn serve_peers(state: &Arc<GatewayState>, mut inbox: mpsc::Receiver<RelayIncoming>) {
    while let Some(mut incoming) = inbox.recv().await {
        while let Some(connection) = incoming.next().await {
            tokio::spawn(serve_connection(state.clone(), connection));
        }
    }
    std::future::pending::<()>().await;
}

async fn serve_connection(state: Arc<GatewayState>, connection: RelayConnection) {
    state.held.add(&connection);
    state.note_change();
    while let Some(stream) = connection.accept().await {
        let Some(place) = state.relayed.take() else {
            stream.abort(ErrorCode::Overloaded);
            continue;
        };
        let (state, preamble) = (state.clone(), preamble(&connection));
        tokio::spawn(async move {
            to_node(&state, preamble, stream).await;
            drop(place);
        });
    }
    state.held.remove(&connection);
    state.note_change();
}

fn preamble(connection: &RelayConnection) -> Preamble {
    let protocol = match connection.protocol() {
        Protocol::Join => RelayProtocol::Join,
        Protocol::Store | Protocol::Tunnel => RelayProtocol::Store,
    };
    let peer = |peer: &AdmittedPeer| (peer.cluster.clone(), peer.spiffe_id.clone());
    Preamble { protocol, peer: connection.peer().map(peer), remote: connection.remote() }
}

/// A peer's stream, to the node.
async fn to_node(state: &GatewayState, preamble: Preamble, stream: RelayStream) {
    let connect = async {
        let mut node = connect(state).await?;
        node.write_all(&preamble.encode()).await?;
        io::Result::Ok(node)
    };
    let connected = timeout(RELAY_CALL_TIMEOUT, connect).await.map_err(io::Error::from);
    match connected.and_then(|connected| connected) {
        Ok(node) => pass(node, stream, IDLE_TIMEOUT).await,
        Err(error) => {
            let node = &state.config.federation;
            tracing::debug!(%node, %error, "the node takes no relayed stream");
            stream.abort(ErrorCode::Internal);
        }
    }
}

async fn connect(state: &GatewayState) -> io::Result<Box<dyn Carrier>> {
    Ok(match &state.config.federation {
        FederationLink::Sockets { relay, .. } => Box::new(UnixStream::connect(relay).await?),
        FederationLink::Tcp(link) => Box::new(connect_relay(state, &link.relay).await?),
    })
}

/// Bytes to and from the node, whatever carries them.
trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

/// What the node asks for, until the gateway stops.
async fn serve_node(state: Arc<GatewayState>, listener: StdUnixListener) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the relay socket cannot be used"),
    };
    loop {
        match listener.accept().await {
            Ok((node, _)) => {
                // The node sees a connection that ends, and tries another way.
                let Some(place) = state.relayed.take() else { continue };
                let state = state.clone();
                tokio::spawn(async move {
                    from_node(&state, node).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting at the relay socket failed");
                sleep(ACCEPT_ERROR_PAUSE).await;
            }
        }
    }
}

/// The node wants a stream to a peer's node.
async fn from_node(state: &GatewayState, mut node: impl Carrier) {
    let opened = timeout(RELAY_CALL_TIMEOUT, open_for(state, &mut node)).await;
    let opened = opened.unwrap_or_else(|_| Err("no request came in time".into()));
    let answer = match &opened {
        Ok(_) => StreamAnswer::Open,
        Err(text) => StreamAnswer::Refused(text.clone()),
    };
    let told = timeout(RELAY_CALL_TIMEOUT, node.write_all(&answer.encode())).await;
    if let (Ok(stream), Ok(Ok(()))) = (opened, told) {
        pass(node, stream, IDLE_TIMEOUT).await;
    }
}

async fn open_for(
    state: &GatewayState,
    node: &mut (impl AsyncRead + Unpin),
) -> Result<RelayStream, String> {
    let mut header = [0; HEADER_BYTES];
    node.read_exact(&mut header).await.map_err(|error| error.to_string())?;
    let length = body_length(header).map_err(|error| error.to_string())?;
    let mut body = vec![0; length];
    node.read_exact(&mut body).await.map_err(|error| error.to_string())?;
    let request = StreamRequest::decode(&body).map_err(|error| error.to_string())?;
    let connection = state.held.of(&request.cluster).ok_or_else(|| {
        format!("the node of cluster {:?} has no store connection here now", request.cluster)
    })?;
    connection.open().await.map_err(|error| error.to_string())
}

/// Bytes both ways until both directions have ended, one has broken, or nothing moves any more.
async fn pass(
    node: impl AsyncRead + AsyncWrite + Unpin,
    peer: impl AsyncRead + AsyncWrite + Unpin,
    patience: Duration,
) {
    let (from_node, to_node) = tokio::io::split(node);
    let (from_peer, to_peer) = tokio::io::split(peer);
    let moved = watch::Sender::new(Instant::now());
    let both = async {
        tokio::try_join!(copy(from_peer, to_node, &moved), copy(from_node, to_peer, &moved))
    };
    tokio::select! {
        _ = both => {}
        () = idle(moved.subscribe(), patience) => tracing::debug!("a relayed stream was idle for too long"),
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &watch::Sender<Instant>,
) -> io::Result<()> {
    let mut buffer = vec![0; RELAY_BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        moved.send_replace(Instant::now());
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        moved.send_replace(Instant::now());
    }
}

async fn idle(moved: watch::Receiver<Instant>, patience: Duration) {
    loop {
        let end = *moved.borrow() + patience;
        if end <= Instant::now() {
            return;
        }
        sleep_until(end).await;
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_on_which_nothing_moves_is_given_up() {
        let (node, mut far_node) = tokio::io::duplex(64);
        let (peer, mut far_peer) = tokio::io::duplex(64);
        let patience = Duration::from_millis(100);
        let passing = tokio::spawn(pass(node, peer, patience));
        far_node.write_all(b"ping").await.unwrap();
        let moved = Instant::now();
        let mut got = [0; 4];
        far_peer.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");
        passing.await.unwrap();
        assert!(moved.elapsed() >= patience / 2, "{:?}", moved.elapsed());
        assert_eq!(far_peer.read(&mut got).await.unwrap(), 0, "it is closed");
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (node, mut far_node) = tokio::io::duplex(64);
        let (peer, mut far_peer) = tokio::io::duplex(64);
        let passing = tokio::spawn(pass(node, peer, IDLE_TIMEOUT));
        far_node.write_all(b"question").await.unwrap();
        far_node.shutdown().await.unwrap();
        let mut question = String::new();
        far_peer.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        far_peer.write_all(b"answer").await.unwrap();
        far_peer.shutdown().await.unwrap();
        let mut answer = String::new();
        far_node.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        passing.await.unwrap();
    }

    #[test]
    fn a_socket_of_a_dead_process_is_replaced_and_a_long_path_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let (first, path) = bind(folder.path()).unwrap();
        drop(first);
        let (_second, again) = bind(folder.path()).unwrap();
        assert_eq!(path, again);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let long = folder.path().join("x".repeat(120));
        let error = bind(&long).unwrap_err().to_string();
        assert!(error.contains("and Unix allows 107: set a shorter dataDir"), "{error}");
    }
}
