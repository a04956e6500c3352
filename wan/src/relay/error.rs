//! What can go wrong when a relay is started or told something.

use std::io;
use std::net::SocketAddr;

use crate::SettingError;
use crate::capture::CaptureError;

/// Why a relay could not start or do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// A wrong setting.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A listener's address could not be bound.
    #[error(
        "failed to listen on {addr} for link {link}: {source}; free that port, or write port 0"
    )]
    Bind {
        /// The link, as `from -> to`.
        link: String,
        /// The address.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// [`super::UdpRelay::spawn`] outside a runtime.
    #[error(
        "failed to start the relay: no tokio runtime here; call it inside one, or use spawn_thread"
    )]
    NoRuntime,
    /// The relay's thread or runtime could not be made.
    #[error("failed to start the relay's thread: {0}")]
    Thread(#[source] io::Error),
    /// The relay has been dropped.
    #[error("the relay has stopped; keep the UdpRelay as long as its handles are used")]
    Stopped,
    /// The recording could not be made.
    #[error(transparent)]
    Capture(#[from] CaptureError),
}
