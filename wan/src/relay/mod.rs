//! A UDP relay for loopback: each directed link is an address of its own, and impairs both directions.
//!
//! A link `(west, east)` is what west dials to reach east: it listens on a loopback port and passes
//! datagrams on to its target, as a NAT does: one upstream socket per client address, so that the
//! target sees different clients as different sources. Datagrams are never joined or split.
//!
//! Timers have a resolution of one millisecond; a packet is delivered up to half a millisecond early
//! or late, so that round-trip times come out around what was set.

mod config;
mod core;
mod error;
mod handle;
mod tasks;

use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::ops::Deref;
use std::sync::Arc;
use std::thread::JoinHandle;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

pub use config::{LinkConfig, RelayConfig};
pub use error::RelayError;
pub use handle::{Direction, LinkCounters, RelayHandle};

use crate::limits::SOCKET_BUFFER_BYTES;
use tasks::{Shared, TaskGuard};

/// A running relay. Dropping it stops it and closes every socket.
///
/// It dereferences to its [`RelayHandle`], which does the talking and can be cloned.
#[derive(Debug)]
pub struct UdpRelay {
    handle: RelayHandle,
    shared: Arc<Shared>,
    /// Tasks on the caller's runtime; empty when a thread of ours runs them.
    tasks: Vec<TaskGuard>,
    thread: Option<RelayThread>,
}

#[derive(Debug)]
struct RelayThread {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl UdpRelay {
    /// Starts a relay as tasks of the runtime that this is called in.
    pub fn spawn(config: RelayConfig) -> Result<Self, RelayError> {
        let runtime = Handle::try_current().map_err(|_| RelayError::NoRuntime)?;
        let (shared, listeners) = bind(config)?;
        let _entered = runtime.enter();
        let tasks = tasks::start(&shared, listeners)?;
        Ok(Self { handle: RelayHandle::new(Arc::clone(&shared)), shared, tasks, thread: None })
    }

    /// Starts a relay on a thread of its own, so that it neither disturbs nor waits for the caller's workers.
    pub fn spawn_thread(config: RelayConfig) -> Result<Self, RelayError> {
        let (shared, listeners) = bind(config)?;
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(RelayError::Thread)?;
        let tasks = {
            let _entered = runtime.enter();
            tasks::start(&shared, listeners)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("wan-relay".to_owned())
            .spawn(move || {
                // Ends when the sender is dropped, too: that is how `Drop` stops us.
                let _ = runtime.block_on(stopped);
                drop(tasks);
            })
            .map_err(RelayError::Thread)?;
        let handle = RelayHandle::new(Arc::clone(&shared));
        let thread = Some(RelayThread { stop, thread });
        Ok(Self { handle, shared, tasks: Vec::new(), thread })
    }

    /// A handle that can be cloned and outlives the relay (it then controls nothing).
    pub fn handle(&self) -> RelayHandle {
        self.handle.clone()
    }
}

impl Deref for UdpRelay {
    type Target = RelayHandle;

    fn deref(&self) -> &RelayHandle {
        &self.handle
    }
}

impl Drop for UdpRelay {
    fn drop(&mut self) {
        self.tasks.clear();
        if let Some(RelayThread { stop, thread }) = self.thread.take() {
            drop(stop);
            if thread.join().is_err() {
                tracing::error!("the relay's thread panicked");
            }
        }
        self.shared.close();
    }
}

/// Checks the configuration and binds every listener, before anything runs.
fn bind(config: RelayConfig) -> Result<(Arc<Shared>, Vec<StdUdpSocket>), RelayError> {
    config.validate()?;
    let mut listeners = Vec::with_capacity(config.links.len());
    for link in &config.links {
        listeners.push(bind_udp(link.listen).map_err(|source| RelayError::Bind {
            link: format!("{} -> {}", link.from, link.to),
            addr: link.listen,
            source,
        })?);
    }
    Ok((Arc::new(Shared::new(config, &listeners)?), listeners))
}

/// A non-blocking UDP socket with large buffers.
fn bind_udp(addr: SocketAddr) -> std::io::Result<StdUdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel clamps silently; loss by a full buffer would look like loss of ours, so ask for much.
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
