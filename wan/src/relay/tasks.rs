//! What runs: per link one task that reads the listener and one per client, and one timer thread.

use std::io;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use super::core::LinkCore;
use super::{RelayConfig, RelayError};
use crate::capture::Tap;
use crate::limits::{CLIENT_SWEEP_INTERVAL, DATAGRAM_BYTES_MAX, RECV_BATCH_PACKETS};
use crate::lock;
use crate::sites::Sites;
use crate::timer::Timer;

/// What the relay, its tasks and its handles share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) links: Vec<Arc<Link>>,
    pub(super) sites: Mutex<Sites>,
    pub(super) tap: Tap,
    timer: Arc<Timer>,
}

/// One link's state, and the timer that all links share.
#[derive(Debug)]
pub(super) struct Link {
    core: Mutex<LinkCore>,
    timer: Arc<Timer>,
}

impl Shared {
    pub(super) fn new(config: RelayConfig, listeners: &[StdUdpSocket]) -> Result<Self, RelayError> {
        let sites = config.links.iter().flat_map(|link| [link.from.clone(), link.to.clone()]);
        let sites = Mutex::new(Sites::new(sites));
        let (tap, timer) = (Tap::default(), Arc::new(Timer::default()));
        let mut links = Vec::with_capacity(config.links.len());
        for (index, (link, listener)) in config.links.into_iter().zip(listeners).enumerate() {
            let addr = listener.local_addr().map_err(RelayError::Thread)?;
            // Each direction of each link gets a sequence of its own.
            let seeds = [0, 1]
                .map(|direction| config.seed.wrapping_add((2 * index as u64 + direction) << 32));
            let core = LinkCore::new(link, addr, seeds, tap.clone())?;
            links.push(Arc::new(Link { core: Mutex::new(core), timer: Arc::clone(&timer) }));
        }
        Ok(Self { links, sites, tap, timer })
    }

    /// Delivers what becomes due and forgets idle clients, until the relay is closed.
    pub(super) fn run_timer(&self) {
        let mut sweep_at = Instant::now() + CLIENT_SWEEP_INTERVAL;
        self.timer.run(|now| {
            let is_sweep = now >= sweep_at;
            if is_sweep {
                sweep_at = now + CLIENT_SWEEP_INTERVAL;
            }
            let next = self.links.iter().filter_map(|link| {
                let mut core = link.lock();
                if is_sweep {
                    core.sweep(now);
                }
                core.deliver(now);
                core.next_at()
            });
            next.chain([sweep_at]).min()
        });
    }

    pub(super) fn close(&self) {
        self.timer.stop();
        for link in &self.links {
            link.lock().close();
        }
        if let Err(error) = self.tap.stop() {
            tracing::warn!(%error, "the recording is incomplete");
        }
    }
}

impl Link {
    pub(super) fn lock(&self) -> MutexGuard<'_, LinkCore> {
        lock(&self.core)
    }

    /// Sends what is due, and lets the timer know of the rest.
    fn deliver(&self, core: &mut LinkCore, now: Instant) {
        core.deliver(now);
        if let Some(next_at) = core.next_at() {
            self.timer.ring(next_at);
        }
    }
}

/// A task that ends when this is dropped.
#[derive(Debug)]
pub(super) struct TaskGuard(AbortHandle);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts every link's tasks on the runtime that is entered.
pub(super) fn start(
    shared: &Shared,
    listeners: Vec<StdUdpSocket>,
) -> Result<Vec<TaskGuard>, RelayError> {
    let mut tasks = Vec::with_capacity(listeners.len());
    for (link, listener) in shared.links.iter().zip(listeners) {
        let listener = Arc::new(UdpSocket::from_std(listener).map_err(RelayError::Thread)?);
        link.lock().open(Arc::clone(&listener));
        tasks.push(TaskGuard(tokio::spawn(listen(Arc::clone(link), listener)).abort_handle()));
    }
    Ok(tasks)
}

/// Reads the link's own socket: what clients send.
async fn listen(link: Arc<Link>, listener: Arc<UdpSocket>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let result = read_batch(&link, &listener, &mut buffer, |core, now, client, datagram| {
            core.receive_forward(now, client, datagram, |client, upstream| {
                let task = answer(Arc::clone(&link), client, upstream);
                TaskGuard(tokio::spawn(task).abort_handle())
            });
        });
        yield_on_error(result.await, &link).await;
    }
}

/// Reads one client's upstream socket: what the target answers.
async fn answer(link: Arc<Link>, client: SocketAddr, upstream: Arc<UdpSocket>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let result = read_batch(&link, &upstream, &mut buffer, |core, now, source, datagram| {
            core.receive_back(now, client, source, datagram);
        });
        yield_on_error(result.await, &link).await;
    }
}

/// Takes up to a batch of datagrams under one lock, then sends what is due under the same one.
async fn read_batch(
    link: &Link,
    socket: &UdpSocket,
    buffer: &mut [u8],
    mut receive: impl FnMut(&mut LinkCore, Instant, SocketAddr, &[u8]),
) -> io::Result<()> {
    socket.readable().await?;
    let mut core = link.lock();
    let now = Instant::now();
    for _ in 0..RECV_BATCH_PACKETS {
        match socket.try_recv_from(buffer) {
            Ok((length, source)) => receive(&mut core, now, source, &buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => {
                link.deliver(&mut core, now);
                return Err(error);
            }
        }
    }
    link.deliver(&mut core, now);
    Ok(())
}

async fn yield_on_error(result: io::Result<()>, link: &Link) {
    if let Err(error) = result {
        tracing::debug!(link = %link.lock(), %error, "a socket of the relay failed to receive");
        // Without it a lasting error would starve the runtime's other tasks.
        tokio::task::yield_now().await;
    }
}
