//! The state of one link: its target, its clients and its two pipes. Sends, but never waits.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use socket2::SockRef;
use tokio::net::UdpSocket;

use super::handle::Direction;
use super::tasks::TaskGuard;
use crate::capture::Tap;
use crate::impair::{DropReason, Pipe};
use crate::limits::{CLIENT_IDLE_MAX, CLIENTS_PER_LINK_MAX};
use crate::timer::SLACK;

/// One link's state, behind one lock; whoever holds it never waits.
#[derive(Debug)]
pub(super) struct LinkCore {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) addr: SocketAddr,
    client: Option<IpAddr>,
    target: Option<SocketAddr>,
    /// None before the tasks run and after the relay was dropped.
    listener: Option<Arc<UdpSocket>>,
    clients: HashMap<SocketAddr, Client>,
    forward: Pipe<SocketAddr>,
    back: Pipe<SocketAddr>,
    tap: Tap,
}

/// A source address of packets, with the socket that stands for it on the other side.
#[derive(Debug)]
struct Client {
    upstream: Arc<UdpSocket>,
    used_at: Instant,
    _task: TaskGuard,
}

impl LinkCore {
    pub(super) fn new(
        config: super::LinkConfig,
        addr: SocketAddr,
        seeds: [u64; 2],
        tap: Tap,
    ) -> Result<Self, crate::SettingError> {
        let [mut forward, mut back] = seeds.map(Pipe::new);
        forward.set(config.forward)?;
        back.set(config.back)?;
        Ok(Self {
            from: config.from,
            to: config.to,
            addr,
            client: config.client,
            target: config.target,
            listener: None,
            clients: HashMap::new(),
            forward,
            back,
            tap,
        })
    }

    pub(super) const fn pipe(&self, direction: Direction) -> &Pipe<SocketAddr> {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Back => &self.back,
        }
    }

    pub(super) const fn pipe_mut(&mut self, direction: Direction) -> &mut Pipe<SocketAddr> {
        match direction {
            Direction::Forward => &mut self.forward,
            Direction::Back => &mut self.back,
        }
    }

    pub(super) fn open(&mut self, listener: Arc<UdpSocket>) {
        self.listener = Some(listener);
    }

    pub(super) fn close(&mut self) {
        self.listener = None;
        self.clients.clear();
    }

    pub(super) const fn is_open(&self) -> bool {
        self.listener.is_some()
    }

    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn set_target(&mut self, target: SocketAddr) {
        if self.target.is_some_and(|old| old.is_ipv4() != target.is_ipv4()) {
            // Their upstream sockets are of the wrong family; the next packet makes new ones.
            self.clients.clear();
        }
        self.target = Some(target);
    }

    /// Whether what this host sends is the link's.
    pub(super) fn serves(&self, host: IpAddr) -> bool {
        self.client.is_none_or(|client| client == host)
    }

    /// A datagram from a host that no link serves.
    pub(super) fn receive_stranger(&mut self, datagram: &[u8]) {
        self.forward.refuse(datagram.len(), DropReason::Stranger);
    }

    /// A datagram from a client. `spawn` starts the task that reads a new client's upstream socket.
    pub(super) fn receive_forward(
        &mut self,
        now: Instant,
        client: SocketAddr,
        datagram: &[u8],
        spawn: impl FnOnce(SocketAddr, Arc<UdpSocket>) -> TaskGuard,
    ) {
        let Some(target) = self.target else {
            return self.forward.refuse(datagram.len(), DropReason::NoTarget);
        };
        if let Err(error) = self.touch(now, client, target, spawn) {
            tracing::debug!(link = %self, %client, %error, "no room for a client");
            return self.forward.refuse(datagram.len(), DropReason::NoClient);
        }
        self.forward.push(now, client, datagram.to_vec());
    }

    /// A datagram for a client, from `source`.
    pub(super) fn receive_back(
        &mut self,
        now: Instant,
        client: SocketAddr,
        source: SocketAddr,
        datagram: &[u8],
    ) {
        if self.target != Some(source) {
            return self.back.refuse(datagram.len(), DropReason::Stranger);
        }
        if let Some(state) = self.clients.get_mut(&client) {
            state.used_at = now;
        }
        self.back.push(now, client, datagram.to_vec());
    }

    /// Sends everything that is due, both ways.
    pub(super) fn deliver(&mut self, now: Instant) {
        let due = now + SLACK;
        while let Some((client, datagram)) = self.forward.pop(due) {
            let sent = match (self.clients.get(&client), self.target) {
                (Some(state), Some(target)) => send(&state.upstream, &datagram, target),
                (_, None) => Err(DropReason::NoTarget),
                (None, _) => Err(DropReason::NoClient),
            };
            match sent {
                Ok(target) => {
                    self.forward.count_forwarded(datagram.len());
                    self.tap.udp(client, target, &datagram);
                }
                Err(reason) => self.forward.count_dropped(reason),
            }
        }
        while let Some((client, datagram)) = self.back.pop(due) {
            let sent = match &self.listener {
                Some(listener) => send(listener, &datagram, client),
                None => Err(DropReason::SendFailed),
            };
            match sent {
                Ok(_) => {
                    self.back.count_forwarded(datagram.len());
                    self.tap.udp(self.target.unwrap_or(self.addr), client, &datagram);
                }
                Err(reason) => self.back.count_dropped(reason),
            }
        }
    }

    /// When something is due next.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.forward.next_at().into_iter().chain(self.back.next_at()).min()
    }

    /// Forgets clients that were silent for long.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.clients.retain(|_, client| now.duration_since(client.used_at) < CLIENT_IDLE_MAX);
    }

    fn touch(
        &mut self,
        now: Instant,
        client: SocketAddr,
        target: SocketAddr,
        spawn: impl FnOnce(SocketAddr, Arc<UdpSocket>) -> TaskGuard,
    ) -> io::Result<()> {
        let full = self.clients.len() >= CLIENTS_PER_LINK_MAX;
        match self.clients.entry(client) {
            Entry::Occupied(mut entry) => entry.get_mut().used_at = now,
            Entry::Vacant(_) if full => {
                return Err(io::Error::other(format!("{CLIENTS_PER_LINK_MAX} clients already")));
            }
            Entry::Vacant(entry) => {
                let upstream = Arc::new(UdpSocket::from_std(super::bind_udp(source_for(target))?)?);
                let task = spawn(client, Arc::clone(&upstream));
                entry.insert(Client { upstream, used_at: now, _task: task });
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for LinkCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)
    }
}

/// A loopback target gets a loopback source, so that no other host can answer; another one gets any.
fn source_for(target: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match (target.ip(), target.ip().is_loopback()) {
        (IpAddr::V4(_), true) => Ipv4Addr::LOCALHOST.into(),
        (IpAddr::V4(_), false) => Ipv4Addr::UNSPECIFIED.into(),
        (IpAddr::V6(_), true) => Ipv6Addr::LOCALHOST.into(),
        (IpAddr::V6(_), false) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}

fn send(socket: &UdpSocket, datagram: &[u8], to: SocketAddr) -> Result<SocketAddr, DropReason> {
    // Not tokio's `try_send_to`: that refuses until the reactor has once reported the socket writable.
    match SockRef::from(socket).send_to(datagram, &to.into()) {
        Ok(_) => Ok(to),
        Err(error) => {
            tracing::debug!(%to, %error, "a packet could not be sent");
            Err(DropReason::SendFailed)
        }
    }
}
