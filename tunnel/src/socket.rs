//! The one way of every UDP packet, in and out: sockets with large buffers, and the handing over of
//! packets between the workers that share a port.
//!
//! The kernel chooses a worker's socket by the packet's addresses. When a peer's address changes
//! (NAT, a new path) it may choose another worker than the one that has the connection. The id in
//! the packet says whose it is, and the worker that read it hands it over. That is rare, so it may
//! cost a copy; the usual packet costs one comparison of eight bytes.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::connection_id::worker_of;
use crate::error::BindError;
use crate::limits::STEERED_BATCHES_MAX;

/// What was asked of the kernel for one UDP socket, and what it gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpBuffers {
    pub asked_bytes: usize,
    pub receive_bytes: usize,
    pub send_bytes: usize,
}

impl UdpBuffers {
    /// Whether the kernel gave less than was asked: `net.core.rmem_max` and `wmem_max` are low.
    pub fn is_clamped(&self) -> bool {
        self.receive_bytes < self.asked_bytes || self.send_bytes < self.asked_bytes
    }
}

/// Binds the group of sockets that share the tunnel's port, one per worker. The kernel spreads over
/// all of them from the first bind on, so they come and go together.
pub(crate) fn bind_group(
    listen: SocketAddr,
    workers: usize,
    buffer_bytes: usize,
) -> Result<(Vec<StdUdpSocket>, UdpBuffers), BindError> {
    let mut address = listen;
    let mut group = Vec::with_capacity(workers);
    let mut buffers = UdpBuffers { asked_bytes: buffer_bytes, receive_bytes: 0, send_bytes: 0 };
    let failed = |address, action, source| BindError::Socket {
        action,
        address,
        source,
        fix: "see with `ss -lunp` who holds the port, or choose another",
    };
    // A second gateway on the port is a mistake to be told, and a shared port would hide it: the
    // first look is for the port alone.
    drop(open(listen, false, buffer_bytes).map_err(|error| failed(listen, "bind", error))?);
    for _ in 0..workers {
        let failed = |action, source| failed(address, action, source);
        let socket = open(address, workers > 1, buffer_bytes).map_err(|e| failed("bind", e))?;
        buffers = read_back(&socket, buffer_bytes).map_err(|e| failed("ask for buffers of", e))?;
        let socket = StdUdpSocket::from(socket);
        address = socket.local_addr().map_err(|e| failed("read the address of", e))?;
        group.push(socket);
    }
    Ok((group, buffers))
}

/// A socket for dialling `remote`, with a source port of its own: on the tunnel's own address if
/// that reaches `remote`'s family, else on any.
pub(crate) fn bind_dialler(
    listen: SocketAddr,
    remote: SocketAddr,
    buffer_bytes: usize,
) -> io::Result<StdUdpSocket> {
    let any = match (listen, remote) {
        (SocketAddr::V6(own), _) if own.ip().is_unspecified() => listen.ip(),
        (SocketAddr::V4(_), SocketAddr::V4(_)) | (SocketAddr::V6(_), SocketAddr::V6(_)) => {
            listen.ip()
        }
        (_, SocketAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (_, SocketAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
    };
    open(SocketAddr::new(any, 0), false, buffer_bytes).map(StdUdpSocket::from)
}

fn open(address: SocketAddr, is_shared: bool, buffer_bytes: usize) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if is_shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_recv_buffer_size(buffer_bytes)?;
    socket.set_send_buffer_size(buffer_bytes)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn read_back(socket: &Socket, asked_bytes: usize) -> io::Result<UdpBuffers> {
    // Linux doubles what it grants, for its own bookkeeping, and says so: socket(7).
    Ok(UdpBuffers {
        asked_bytes,
        receive_bytes: socket.recv_buffer_size()? / 2,
        send_bytes: socket.send_buffer_size()? / 2,
    })
}

/// What the workers of one gateway hand to each other.
#[derive(Debug)]
pub(crate) struct Steering {
    server: [u8; 8],
    inboxes: Vec<Inbox>,
    steered: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Inbox {
    batches: Mutex<VecDeque<(RecvMeta, Box<[u8]>)>>,
    /// The queue's length, so that an empty one costs no lock.
    length: AtomicUsize,
    reader: AtomicWaker,
}

impl Steering {
    pub(crate) fn new(server: [u8; 8], workers: usize) -> Self {
        let inboxes = (0..workers).map(|_| Inbox::default()).collect();
        Self { server, inboxes, steered: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }

    /// Batches handed over so far.
    pub(crate) fn steered(&self) -> u64 {
        self.steered.load(Ordering::Relaxed)
    }

    /// Batches dropped because the other worker did not keep up.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The other worker that this datagram belongs to, if it is another's.
    fn other_worker(&self, datagram: &[u8], own: u8) -> Option<&Inbox> {
        if self.inboxes.len() == 1 {
            return None;
        }
        let worker = worker_of(datagram, &self.server)?;
        // A worker that this process does not have: the id is from before a restart. It stays here,
        // and the endpoint answers with a stateless reset.
        if worker == own { None } else { self.inboxes.get(usize::from(worker)) }
    }

    fn hand_over(&self, inbox: &Inbox, meta: RecvMeta, datagrams: &[u8]) {
        let mut batches = inbox.lock();
        if batches.len() >= STEERED_BATCHES_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        batches.push_back((meta, datagrams.into()));
        inbox.length.store(batches.len(), Ordering::Release);
        drop(batches);
        self.steered.fetch_add(1, Ordering::Relaxed);
        inbox.reader.wake();
    }
}

impl Inbox {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(RecvMeta, Box<[u8]>)>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills buffers with what other workers handed over; how many.
    fn take(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        if self.length.load(Ordering::Acquire) == 0 {
            return 0;
        }
        let mut batches = self.lock();
        let mut taken = 0;
        while taken < buffers.len().min(metas.len()) {
            let Some((meta, datagrams)) = batches.pop_front() else { break };
            // Every worker's buffers have the same size, so a batch that fitted there fits here.
            let Some(space) = buffers[taken].get_mut(..datagrams.len()) else { continue };
            space.copy_from_slice(&datagrams);
            metas[taken] = meta;
            taken += 1;
        }
        self.length.store(batches.len(), Ordering::Release);
        taken
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.length.load(Ordering::Relaxed);
        f.debug_struct("Inbox").field("length", &length).finish_non_exhaustive()
    }
}

/// A tunnel's UDP socket: a worker's share of the tunnel's port, or one to dial from.
#[derive(Debug)]
pub(crate) struct TunnelSocket {
    io: UdpSocket,
    state: UdpSocketState,
    steering: Option<(Arc<Steering>, u8)>,
    /// Whether the kernel took no more when last asked: only then is its readiness awaited.
    is_full: AtomicBool,
}

impl TunnelSocket {
    /// A worker's share of the tunnel's port. Must be called within the worker's runtime.
    pub(crate) fn of_worker(
        socket: StdUdpSocket,
        steering: Arc<Steering>,
        worker: u8,
    ) -> io::Result<Self> {
        Ok(Self { steering: Some((steering, worker)), ..Self::of_dialler(socket)? })
    }

    /// A socket of its own port: nobody else's packets come here.
    pub(crate) fn of_dialler(socket: StdUdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let io = UdpSocket::from_std(socket)?;
        Ok(Self { io, state, steering: None, is_full: AtomicBool::new(false) })
    }

    fn poll_socket(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(context))?;
            let read = || self.state.recv((&self.io).into(), buffers, metas);
            if let Ok(count) = self.io.try_io(Interest::READABLE, read) {
                return Poll::Ready(Ok(count));
            }
        }
    }
}

impl AsyncUdpSocket for TunnelSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(WritePoller { socket: self, writable: Mutex::new(None) })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let send = || self.state.send((&self.io).into(), transmit);
        let result = self.io.try_io(Interest::WRITABLE, send);
        if matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.is_full.store(true, Ordering::Relaxed);
        }
        result
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let Some((steering, worker)) = &self.steering else {
            return self.poll_socket(context, buffers, metas);
        };
        let inbox = &steering.inboxes[usize::from(*worker)];
        loop {
            let taken = inbox.take(buffers, metas);
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
            match self.poll_socket(context, buffers, metas) {
                Poll::Ready(Ok(count)) => {
                    let kept = keep_own(steering, *worker, buffers, metas, count);
                    if kept > 0 {
                        return Poll::Ready(Ok(kept));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    inbox.reader.register(context.waker());
                    // What came between the look and the registration woke nobody.
                    if inbox.length.load(Ordering::Acquire) == 0 {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Hands over what belongs to other workers and moves the rest to the front; how many are left.
/// A batch (GRO) comes from one address and mostly from one connection: its first packet decides.
fn keep_own(
    steering: &Steering,
    worker: u8,
    buffers: &mut [IoSliceMut<'_>],
    metas: &mut [RecvMeta],
    count: usize,
) -> usize {
    let mut kept = 0;
    for index in 0..count {
        let datagrams = &buffers[index][..metas[index].len];
        if let Some(inbox) = steering.other_worker(datagrams, worker) {
            steering.hand_over(inbox, metas[index], datagrams);
            continue;
        }
        // The buffers change places, their bytes stay where they are.
        buffers.swap(kept, index);
        metas.swap(kept, index);
        kept += 1;
    }
    kept
}

type Writable = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// Waits until the socket takes packets again; each connection has one.
struct WritePoller {
    socket: Arc<TunnelSocket>,
    writable: Mutex<Option<Writable>>,
}

impl UdpPoller for WritePoller {
    fn poll_writable(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.socket.is_full.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(())); // nearly always; no future is made for it
        }
        let writable = this.writable.get_mut().unwrap_or_else(PoisonError::into_inner);
        let waiting = writable.get_or_insert_with(|| {
            let socket = Arc::clone(&this.socket);
            Box::pin(async move { socket.io.writable().await })
        });
        let result = ready!(waiting.as_mut().poll(context));
        *writable = None;
        this.socket.is_full.store(false, Ordering::Relaxed);
        Poll::Ready(result)
    }
}

impl fmt::Debug for WritePoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WritePoller").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_another_group_holds_is_told() {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let (first, _) = bind_group(listen, 2, 65_536).unwrap();
        let taken = first[0].local_addr().unwrap();
        let error = bind_group(taken, 2, 65_536).unwrap_err().to_string();
        assert!(error.contains(&taken.to_string()) && error.contains("ss -lunp"), "{error}");
        drop(first);
        bind_group(taken, 2, 65_536).unwrap();
    }
}
