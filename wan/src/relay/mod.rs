//! A UDP relay for loopback: each directed link is an address of its own, and impairs both directions.
//!
//! A link `(west, east)` is what west dials to reach east: it listens on a loopback port (which links of
//! several dialling hosts may share) and passes
//! datagrams on to its target, as a NAT does: one upstream socket per client address, so that the
//! target sees different clients as different sources. Datagrams are never joined or split.
//!
//! Delays are exact to a few tenths of a millisecond: due packets are sent by a thread of the relay's own,
//! since tokio's timers would round each delay up by one to two milliseconds.

mod config;
mod core;
mod error;
mod handle;
mod tasks;

use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::ops::Deref;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

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
    /// Stops the runtime of ours, if there is one.
    stop: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl UdpRelay {
    /// Starts a relay as tasks of the runtime that this is called in.
    pub fn spawn(config: RelayConfig) -> Result<Self, RelayError> {
        let runtime = Handle::try_current().map_err(|_| RelayError::NoRuntime)?;
        let (shared, listeners) = bind(config)?;
        let mut relay = Self::idle(shared);
        let _entered = runtime.enter();
        relay.tasks = tasks::start(&relay.shared, listeners)?;
        relay.start_timer()?;
        Ok(relay)
    }

    /// Starts a relay on threads of its own, so that it neither disturbs nor waits for the caller's workers.
    pub fn spawn_thread(config: RelayConfig) -> Result<Self, RelayError> {
        let (shared, listeners) = bind(config)?;
        let mut relay = Self::idle(shared);
        let runtime =
            Builder::new_current_thread().enable_io().build().map_err(RelayError::Thread)?;
        let tasks = {
            let _entered = runtime.enter();
            tasks::start(&relay.shared, listeners)?
        };
        let (stop, stopped) = oneshot::channel();
        relay.stop = Some(stop);
        relay.start_thread("wan-relay", move || {
            // Ends when the sender is dropped: that is how `Drop` stops us.
            let _ = runtime.block_on(stopped);
            drop(tasks);
        })?;
        relay.start_timer()?;
        Ok(relay)
    }

    fn idle(shared: Arc<Shared>) -> Self {
        let handle = RelayHandle::new(Arc::clone(&shared));
        Self { handle, shared, tasks: Vec::new(), stop: None, threads: Vec::new() }
    }

    fn start_timer(&mut self) -> Result<(), RelayError> {
        let shared = Arc::clone(&self.shared);
        self.start_thread("wan-relay-timer", move || shared.run_timer())
    }

    fn start_thread(
        &mut self,
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), RelayError> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        self.threads.push(thread.map_err(RelayError::Thread)?);
        Ok(())
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
        self.stop = None;
        self.shared.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the relay panicked");
            }
        }
    }
}

/// Checks the configuration and binds every listener, before anything runs.
fn bind(config: RelayConfig) -> Result<(Arc<Shared>, Vec<Listener>), RelayError> {
    config.validate()?;
    let mut listeners: Vec<Listener> = Vec::with_capacity(config.links.len());
    let mut addrs = Vec::with_capacity(config.links.len());
    for (index, link) in config.links.iter().enumerate() {
        let shared = listeners.iter_mut().find(|listener| listener.addr == link.listen);
        if let Some(listener) = shared {
            listener.links.push(index);
            addrs.push(listener.addr);
            continue;
        }
        let failed = |source| RelayError::Bind {
            link: format!("{} -> {}", link.from, link.to),
            addr: link.listen,
            source,
        };
        let socket = bind_udp(link.listen).map_err(failed)?;
        let addr = socket.local_addr().map_err(failed)?;
        listeners.push(Listener { socket, addr, links: vec![index] });
        addrs.push(addr);
    }
    Ok((Arc::new(Shared::new(config, &addrs)?), listeners))
}

/// A bound socket, and the links that it serves.
struct Listener {
    socket: StdUdpSocket,
    addr: SocketAddr,
    links: Vec<usize>,
}

/// A non-blocking UDP socket with large buffers.
pub(crate) fn bind_udp(addr: SocketAddr) -> std::io::Result<StdUdpSocket> {
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
