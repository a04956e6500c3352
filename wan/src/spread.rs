//! One UDP address in front of several: what a Kubernetes Service or a load balancer is to UDP.
//!
//! Each flow, known by its source address and port, goes to one of the targets and stays there, as a
//! NAT's table of connections keeps it. Which one is drawn when the flow begins.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::limits::{CLIENT_IDLE_MAX, CLIENTS_PER_LINK_MAX, DATAGRAM_BYTES_MAX};
use crate::lock;

/// A running balancer of flows, on a thread of its own. Dropping it stops it.
#[derive(Debug)]
pub struct FlowSpread {
    addr: SocketAddr,
    table: Arc<Mutex<Table>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Table {
    targets: Vec<SocketAddr>,
    flows: HashMap<SocketAddr, Flow>,
    /// The state of a xorshift generator: same seed and order of flows, same targets.
    random: u64,
}

#[derive(Debug)]
struct Flow {
    upstream: Arc<UdpSocket>,
    target: SocketAddr,
    used_at: Instant,
    answers: AbortHandle,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

impl FlowSpread {
    /// Listens on a free port of 127.0.0.1.
    pub fn start(targets: Vec<SocketAddr>, seed: u64) -> io::Result<Self> {
        let socket = super::relay::bind_udp((Ipv4Addr::LOCALHOST, 0).into())?;
        let addr = socket.local_addr()?;
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let table = Table { targets, flows: HashMap::new(), random: seed | 1 };
        let table = Arc::new(Mutex::new(table));
        let (stop, stopped) = oneshot::channel::<()>();
        let shared = Arc::clone(&table);
        let thread = thread::Builder::new().name("wan-spread".into()).spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = UdpSocket::from_std(socket) else { return };
                tokio::select! {
                    () = forward(Arc::new(listener), &shared) => {}
                    _ = stopped => {}
                }
            });
            lock(&shared).flows.clear();
        })?;
        Ok(Self { addr, table, stop: Some(stop), thread: Some(thread) })
    }

    /// What clients dial.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where flows go that begin from now on. Those that stand stay where they are, as long as
    /// their sources speak.
    pub fn set_targets(&self, targets: Vec<SocketAddr>) {
        lock(&self.table).targets = targets;
    }

    /// How many flows lead to a target.
    pub fn flows_to(&self, target: SocketAddr) -> usize {
        lock(&self.table).flows.values().filter(|flow| flow.target == target).count()
    }
}

impl Drop for FlowSpread {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the balancer's thread panicked");
        }
    }
}

async fn forward(listener: Arc<UdpSocket>, table: &Mutex<Table>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, client)) = listener.recv_from(&mut buffer).await else {
            tokio::task::yield_now().await; // a lasting error would starve the other tasks
            continue;
        };
        let upstream = lock(table).flow(client, &listener, Instant::now());
        if let Some((upstream, target)) = upstream {
            // What finds no room is lost, as on any path.
            let _ = upstream.send_to(&buffer[..length], target).await;
        }
    }
}

impl Table {
    fn flow(
        &mut self,
        client: SocketAddr,
        listener: &Arc<UdpSocket>,
        now: Instant,
    ) -> Option<(Arc<UdpSocket>, SocketAddr)> {
        if let Some(flow) = self.flows.get_mut(&client) {
            flow.used_at = now;
            return Some((Arc::clone(&flow.upstream), flow.target));
        }
        self.flows.retain(|_, flow| now.duration_since(flow.used_at) < CLIENT_IDLE_MAX);
        if self.flows.len() >= CLIENTS_PER_LINK_MAX {
            let idlest = self.flows.iter().min_by_key(|(_, flow)| flow.used_at);
            let idlest = idlest.map(|(client, _)| *client)?;
            self.flows.remove(&idlest);
        }
        let target = self.draw()?;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let upstream = super::relay::bind_udp(any).and_then(UdpSocket::from_std).ok()?;
        let upstream = Arc::new(upstream);
        let answers = tokio::spawn(answer(Arc::clone(&upstream), Arc::clone(listener), client));
        let flow = Flow {
            upstream: Arc::clone(&upstream),
            target,
            used_at: now,
            answers: answers.abort_handle(),
        };
        self.flows.insert(client, flow);
        Some((upstream, target))
    }

    /// One of the targets, each as likely.
    fn draw(&mut self) -> Option<SocketAddr> {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let count = u64::try_from(self.targets.len()).ok().filter(|count| *count > 0)?;
        let index = usize::try_from((self.random >> 32) % count).ok()?;
        self.targets.get(index).copied()
    }
}

async fn answer(upstream: Arc<UdpSocket>, listener: Arc<UdpSocket>, client: SocketAddr) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match upstream.recv_from(&mut buffer).await {
            Ok((length, _)) => {
                let _ = listener.send_to(&buffer[..length], client).await; // see above
            }
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as StdUdpSocket;

    use super::*;

    #[test]
    fn a_flow_stays_where_it_began_and_new_ones_are_spread() {
        let loopback = (Ipv4Addr::LOCALHOST, 0);
        let echo = |name: u8| {
            let socket = StdUdpSocket::bind(loopback).unwrap();
            let addr = socket.local_addr().unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 16];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    socket.send_to(&[name], from).unwrap();
                }
            });
            addr
        };
        let targets = vec![echo(1), echo(2)];
        let spread = FlowSpread::start(targets.clone(), 7).unwrap();
        let ask = |socket: &StdUdpSocket| {
            socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
            socket.send_to(b"who", spread.addr()).unwrap();
            let mut answer = [0; 16];
            socket.recv_from(&mut answer).unwrap();
            answer[0]
        };
        let clients: Vec<_> = (0..16).map(|_| StdUdpSocket::bind(loopback).unwrap()).collect();
        let first: Vec<_> = clients.iter().map(ask).collect();
        assert!(first.contains(&1) && first.contains(&2), "{first:?}");
        assert_eq!(spread.flows_to(targets[0]) + spread.flows_to(targets[1]), 16);
        spread.set_targets(vec![targets[1]]);
        assert_eq!(clients.iter().map(ask).collect::<Vec<_>>(), first, "they stay");
        let fresh: Vec<_> = (0..8).map(|_| StdUdpSocket::bind(loopback).unwrap()).collect();
        assert!(fresh.iter().map(ask).all(|name| name == 2));
    }
}
