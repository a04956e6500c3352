//! What a worker dials from: sockets with ports of their own, so that answers come to this worker.
//!
//! A load balancer in front of several gateways leads each flow to one of them, by its source port.
//! So a port is used once for each remote address, and remembers whom it led to: the bulk connection
//! goes by its fast one's port. Peers share ports; a further one is opened only where the same remote
//! is dialled again. That is also how a path that is stuck, at a NAT or in a network, is left.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use model::GatewayId;
use quinn::{Endpoint, TokioRuntime};
use wire::tunnel::ErrorCode;

use crate::limits::{DIAL_PORTS_MAX, PORT_SPENT_FOR, REMOTES_PER_PORT_MAX};
use crate::link::close_code;
use crate::socket::{TunnelSocket, bind_dialler};
use crate::transport::endpoint_config;
use crate::worker::WorkerContext;

use super::connect::DialFailure;

pub(crate) struct Ports {
    context: Arc<WorkerContext>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    ports: Vec<Port>,
    last: u64,
}

struct Port {
    number: u64,
    endpoint: Endpoint,
    is_ipv6: bool,
    uses: HashMap<SocketAddr, Use>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Dialling(Instant),
    Leads(GatewayId),
    /// Not to be used for this remote for a while.
    Spent(Instant),
}

/// A port on the way to one remote address.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) endpoint: Endpoint,
    pub(crate) remote: SocketAddr,
    number: u64,
}

impl Ports {
    pub(crate) fn new(context: Arc<WorkerContext>) -> Self {
        Self { context, table: Mutex::default() }
    }

    /// A port for a dial: one that leads to a gateway that is wanted, else one that has not been used
    /// for the remote.
    pub(crate) fn take(
        &self,
        remote: SocketAddr,
        wanted: &[GatewayId],
        now: Instant,
    ) -> Result<Taken, DialFailure> {
        let mut table = self.lock();
        table.sweep(now);
        let leads = |port: &Port| match port.uses.get(&remote) {
            Some(Use::Leads(gateway)) => wanted.contains(gateway),
            _ => false,
        };
        let is_fresh = |port: &Port| {
            port.is_ipv6 == remote.is_ipv6()
                && !port.uses.contains_key(&remote)
                && port.uses.len() < REMOTES_PER_PORT_MAX
        };
        let ports = &table.ports;
        let found = ports.iter().position(leads);
        if let Some(index) = found {
            return Ok(table.ports[index].taken(remote));
        }
        let index = match ports.iter().position(is_fresh) {
            Some(index) => index,
            None if ports.len() < DIAL_PORTS_MAX => {
                table.last += 1;
                let port = self.open(remote, table.last)?;
                table.ports.push(port);
                table.ports.len() - 1
            }
            None => table.longest_spent(remote).ok_or(DialFailure::NoPort)?,
        };
        let port = &mut table.ports[index];
        port.uses.insert(remote, Use::Dialling(now));
        Ok(port.taken(remote))
    }

    fn open(&self, remote: SocketAddr, number: u64) -> Result<Port, DialFailure> {
        let shared = &self.context.shared;
        let config = &shared.config;
        let socket = bind_dialler(shared.local_addr, remote, config.limits.udp_buffer_bytes)?;
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint_config(config, self.context.ids),
            None,
            Arc::new(TunnelSocket::of_dialler(socket)?),
            Arc::new(TokioRuntime),
        )?;
        Ok(Port { number, endpoint, is_ipv6: remote.is_ipv6(), uses: HashMap::new() })
    }

    /// A connection from this port has reached a gateway, and stays.
    pub(crate) fn leads(&self, taken: &Taken, gateway: GatewayId) {
        self.set(taken, Use::Leads(gateway));
    }

    /// A dial was in vain, or the link has ended: the next one comes from another port.
    pub(crate) fn spent(&self, taken: &Taken, now: Instant) {
        self.set(taken, Use::Spent(now));
    }

    fn set(&self, taken: &Taken, now: Use) {
        let mut table = self.lock();
        if let Some(port) = table.ports.iter_mut().find(|port| port.number == taken.number) {
            port.uses.insert(taken.remote, now);
        }
    }

    /// Sends what is left to send, such as the word that a connection is closed.
    pub(crate) async fn close(&self) {
        let ports = std::mem::take(&mut self.lock().ports);
        for port in ports {
            port.endpoint.close(close_code(ErrorCode::NoError), b"the gateway stops");
            port.endpoint.wait_idle().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Port {
    fn taken(&self, remote: SocketAddr) -> Taken {
        Taken { endpoint: self.endpoint.clone(), remote, number: self.number }
    }

    fn is_in_use(&self) -> bool {
        self.endpoint.open_connections() > 0
            || self.uses.values().any(|used| matches!(used, Use::Dialling(_)))
    }
}

impl Table {
    /// Closes ports that nothing uses, and forgets what was long ago.
    fn sweep(&mut self, now: Instant) {
        for port in &mut self.ports {
            port.uses.retain(|_, used| match used {
                Use::Spent(at) | Use::Dialling(at) => {
                    now.saturating_duration_since(*at) < PORT_SPENT_FOR
                }
                Use::Leads(_) => true,
            });
        }
        // A port that was used in vain only is given back: a fresh one is as good for anybody.
        self.ports.retain(|port| port.is_in_use() || port.uses.is_empty());
    }

    fn longest_spent(&self, remote: SocketAddr) -> Option<usize> {
        let spent = self.ports.iter().enumerate().filter_map(|(index, port)| {
            match (port.is_ipv6 == remote.is_ipv6(), port.uses.get(&remote)) {
                (true, Some(Use::Spent(at))) => Some((*at, index)),
                _ => None,
            }
        });
        spent.min().map(|(_, index)| index)
    }
}
