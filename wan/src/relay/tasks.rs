//! What runs: per link one task that reads the listener and one per client, and one timer thread.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use super::core::LinkCore;
use super::{Listener, RelayConfig, RelayError};
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
    pub(super) fn new(config: RelayConfig, addrs: &[SocketAddr]) -> Result<Self, RelayError> {
        let sites = config.links.iter().flat_map(|link| [link.from.clone(), link.to.clone()]);
        let sites = Mutex::new(Sites::new(sites));
        let (tap, timer) = (Tap::default(), Arc::new(Timer::default()));
        let mut links = Vec::with_capacity(config.links.len());
        for (index, (link, addr)) in config.links.into_iter().zip(addrs).enumerate() {
            // Each direction of each link gets a sequence of its own.
            let seeds = [0, 1]
                .map(|direction| config.seed.wrapping_add((2 * index as u64 + direction) << 32));
            let core = LinkCore::new(link, *addr, seeds, tap.clone())?;
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
    listeners: Vec<Listener>,
) -> Result<Vec<TaskGuard>, RelayError> {
    let mut tasks = Vec::with_capacity(listeners.len());
    for Listener { socket, links, .. } in listeners {
        let socket = Arc::new(UdpSocket::from_std(socket).map_err(RelayError::Thread)?);
        let links: Vec<_> = links.iter().map(|index| Arc::clone(&shared.links[*index])).collect();
        for link in &links {
            link.lock().open(Arc::clone(&socket));
        }
        let task = match <[_; 1]>::try_from(links) {
            Ok([link]) => tokio::spawn(listen(link, socket)),
            Err(links) => tokio::spawn(listen_for_many(links, socket)),
        };
        tasks.push(TaskGuard(task.abort_handle()));
    }
    Ok(tasks)
}

/// Reads the link's own socket: what clients send.
async fn listen(link: Arc<Link>, listener: Arc<UdpSocket>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let result = read_batch(&link, &listener, &mut buffer, |core, now, client, datagram| {
            match core.serves(client.ip()) {
                true => receive(&link, core, now, client, datagram),
                false => core.receive_stranger(datagram),
            }
        });
        yield_on_error(result.await, &link).await;
    }
}

/// Reads a socket that several links share: the sender's address tells which one is meant.
async fn listen_for_many(links: Vec<Arc<Link>>, listener: Arc<UdpSocket>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match listener.recv_from(&mut buffer).await {
            Ok((length, client)) => {
                let datagram = &buffer[..length];
                let Some(link) = links.iter().find(|link| link.lock().serves(client.ip())) else {
                    links[0].lock().receive_stranger(datagram);
                    continue;
                };
                let (mut core, now) = (link.lock(), Instant::now());
                receive(link, &mut core, now, client, datagram);
                link.deliver(&mut core, now);
            }
            error => yield_on_error(error.map(|_| ()), &links[0]).await,
        }
    }
}

fn receive(
    link: &Arc<Link>,
    core: &mut LinkCore,
    now: Instant,
    client: SocketAddr,
    datagram: &[u8],
) {
    core.receive_forward(now, client, datagram, |client, upstream| {
        let task = answer(Arc::clone(link), client, upstream);
        TaskGuard(tokio::spawn(task).abort_handle())
    });
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
