//! Unix sockets: a dead process's file is replaced, a live one's is not, and none is left behind.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use model::code::{self, Code};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, UdsConnectInfo};

use crate::folder::{FolderError, create_private_folder};
use crate::limits::{ACCEPT_RETRY_PAUSE, CONNECTIONS_MAX, STRANGERS_MAX};
use crate::peer::AllowedUsers;

/// A bound socket; its file is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    #[error(
        "a process is listening on {} already; stop it, or set `{field}` to another path",
        path.display()
    )]
    Live { field: &'static str, path: PathBuf },
    #[error("{} exists and is no socket; remove it, or set `{field}` to another path", path.display())]
    NotASocket { field: &'static str, path: PathBuf },
    #[error("cannot bind {}: {source}; check `{field}`", path.display())]
    Bind { field: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl SocketError {
    /// The registered code of this failure.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Live { .. } | Self::NotASocket { .. } => code::ADDRESS_IN_USE,
            Self::Bind { .. } | Self::Folder(_) => code::DATA_FOLDER_UNUSABLE,
        }
    }
}

/// Binds `path` with the given mode. `field` is the configuration's name for it.
pub(crate) fn bind(field: &'static str, path: &Path, mode: u32) -> Result<Socket, SocketError> {
    if let Some(folder) = path.parent() {
        create_private_folder(folder)?;
    }
    let failed = |source| SocketError::Bind { field, path: path.into(), source };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket { field, path: path.into() });
        }
        Ok(_) => remove_stale(field, path)?,
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => {}
        Err(problem) => return Err(failed(problem)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let file = SocketFile { path: path.into() };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(Socket { listener, file })
}

/// Only a process that listens accepts a connection; what it left when it died refuses.
fn remove_stale(field: &'static str, path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Bind { field, path: path.into(), source };
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(SocketError::Live { field, path: path.into() }),
        Err(problem) if problem.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        // A full backlog: somebody listens.
        Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => {
            Err(SocketError::Live { field, path: path.into() })
        }
        Err(problem) => Err(failed(problem)),
    }
}

impl Socket {
    /// Connections for ever: a failed accept (no file descriptors, say) is retried after a pause,
    /// since one bad moment must not end the node (RUSTSEC-2024-0376).
    pub(crate) fn into_incoming(
        self,
        users: AllowedUsers,
    ) -> (SocketFile, impl Stream<Item = io::Result<Connection>> + Send) {
        let Self { listener, file } = self;
        let door = Door {
            listener,
            users,
            free: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            free_for_strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
        };
        let incoming = futures_util::stream::unfold(door, |door| async {
            let connection = door.admit_one().await;
            Some((Ok(connection), door))
        });
        (file, incoming)
    }
}

/// Where connections come in.
struct Door {
    listener: UnixListener,
    users: AllowedUsers,
    free: Arc<Semaphore>,
    free_for_strangers: Arc<Semaphore>,
}

impl Door {
    async fn admit_one(&self) -> Connection {
        let permit = self.free.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match self.place_of(&stream) {
                    Ok(as_stranger) => {
                        return Connection { stream, _permit: permit, _as_stranger: as_stranger };
                    }
                    Err(TooManyStrangers) => tracing::debug!("a stranger's connection is closed"),
                },
                Err(problem) => {
                    tracing::warn!(%problem, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                }
            }
        }
    }

    /// A user who may not call is told so, and why, on a connection. But anyone may open the shared
    /// socket, and must not be able to take all places of those who may.
    fn place_of(
        &self,
        stream: &UnixStream,
    ) -> Result<Option<OwnedSemaphorePermit>, TooManyStrangers> {
        if stream.peer_cred().is_ok_and(|credentials| self.users.lists(credentials.uid())) {
            return Ok(None);
        }
        let place = self.free_for_strangers.clone().try_acquire_owned();
        place.map(Some).map_err(|_| TooManyStrangers)
    }
}

struct TooManyStrangers;

/// Removes the socket's file at the end.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(problem) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %problem, "a socket file stays behind");
        }
    }
}

/// One accepted connection, counted as long as it lives.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
    _as_stranger: Option<OwnedSemaphorePermit>,
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
