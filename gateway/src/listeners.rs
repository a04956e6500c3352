//! The ports towards applications: opened and closed while the gateway runs, as the Snapshot says.
//!
//! One task owns them. It binds a socket per worker and hands each worker its own, so that a port
//! is open on all workers or on none, and its state is known in one place.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use model::Snapshot;
use model::code::ADDRESS_IN_USE;
use model::snapshot::Listener;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::limits::{ACCEPT_BACKLOG, IMPORT_LISTENERS_MAX, LISTENERS_MAX};
use crate::state::{GatewayState, ListenerStatus};
use crate::worker::{BoundPort, Command};

/// The open ports.
#[derive(Debug)]
pub struct Listeners {
    state: Arc<GatewayState>,
    workers: Vec<mpsc::Sender<Command>>,
    open: BTreeMap<u16, Open>,
}

/// An open port.
#[derive(Debug)]
struct Open {
    is_for_import: bool,
    close: CancellationToken,
}

impl Listeners {
    pub fn new(state: Arc<GatewayState>, workers: Vec<mpsc::Sender<Command>>) -> Self {
        Self { state, workers, open: BTreeMap::new() }
    }

    /// Closes what the Snapshot no longer has, opens what it has anew, and tries again what could
    /// not be opened before. Others are not touched.
    pub fn reconcile(&mut self, snapshot: &Snapshot) {
        self.open.retain(|port, open| {
            let wanted = snapshot.listeners.get(port);
            match wanted {
                Some(listener) => open.is_for_import = listener.is_for_import,
                None => {
                    tracing::info!(port, "listener closed");
                    open.close.cancel();
                }
            }
            wanted.is_some()
        });
        let before = self.state.listeners();
        let mut statuses = BTreeMap::new();
        for (port, listener) in &snapshot.listeners {
            let error = self.ensure(*port, listener.is_for_import).err();
            let status = self.status(listener, error);
            if !before.contains(&status) {
                log(&status);
            }
            statuses.insert(*port, status);
        }
        self.state.set_listeners(statuses);
    }

    /// Whether a port is missing that should be open.
    pub fn is_incomplete(&self) -> bool {
        self.state.listeners().iter().any(|listener| listener.error.is_some())
    }

    pub fn close_all(&mut self) {
        std::mem::take(&mut self.open).into_values().for_each(|open| open.close.cancel());
    }

    fn ensure(&mut self, port: u16, is_for_import: bool) -> Result<(), String> {
        if self.open.contains_key(&port) {
            return Ok(());
        }
        check_room(&self.open, is_for_import)?;
        let address = SocketAddr::new(self.state.config.routes_listen, port);
        let tunnel = self.state.tunnel.get().map(|tunnel| tunnel.local_addr().port());
        let is_tunnels = tunnel == Some(port);
        let sockets =
            bind(address, self.workers.len()).map_err(|error| explain(&error, is_tunnels))?;
        let close = CancellationToken::new();
        for (worker, listener) in self.workers.iter().zip(sockets) {
            let bound = BoundPort { port, listener, close: close.clone() };
            if worker.try_send(Command::Listen(bound)).is_err() {
                close.cancel();
                return Err("a worker does not take new ports; it is tried again".into());
            }
        }
        self.open.insert(port, Open { is_for_import, close });
        Ok(())
    }

    fn status(&self, listener: &Listener, error: Option<String>) -> ListenerStatus {
        ListenerStatus {
            name: listener.name.clone(),
            address: SocketAddr::new(self.state.config.routes_listen, listener.port),
            protocol: listener.protocol(),
            error: error.map(|error| format!("{ADDRESS_IN_USE}: {error}")),
        }
    }
}

/// Each sort of port has its own share.
fn check_room(open: &BTreeMap<u16, Open>, is_for_import: bool) -> Result<(), String> {
    let count = open.values().filter(|open| open.is_for_import == is_for_import).count();
    match is_for_import {
        true if count >= IMPORT_LISTENERS_MAX => {
            Err(format!("the gateway has {IMPORT_LISTENERS_MAX} ports for imports already"))
        }
        false if count >= LISTENERS_MAX => Err(format!(
            "the gateway has {LISTENERS_MAX} ports of Gateways already; remove listeners"
        )),
        _ => Ok(()),
    }
}

fn log(status: &ListenerStatus) {
    let ListenerStatus { name, address, protocol, error } = status;
    let protocol = protocol.as_str();
    match error {
        None => tracing::info!(listener = name, %address, protocol, "listening"),
        Some(error) => {
            tracing::error!(listener = name, %address, protocol, error, "cannot listen");
        }
    }
}

fn explain(error: &io::Error, is_tunnels: bool) -> String {
    let fix = match error.kind() {
        io::ErrorKind::AddrInUse if is_tunnels => {
            "the tunnel has it, for peers that UDP does not reach; choose another for one of the two"
        }
        io::ErrorKind::AddrInUse => "another process holds the port; `ss -lntp` shows which",
        io::ErrorKind::AddrNotAvailable => "listen.routes is not an address of this host",
        io::ErrorKind::PermissionDenied => "ports below 1024 need the capability NET_BIND_SERVICE",
        _ => "it is tried again each second",
    };
    format!("{error}: {fix}")
}

/// A listening socket per worker. SO_REUSEPORT would let a second gateway share the port without a
/// word, so the port is first tried without it.
fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let probe = socket(address)?;
    probe.bind(&address.into())?;
    drop(probe);
    (0..workers)
        .map(|_| {
            let socket = socket(address)?;
            socket.set_reuse_port(true)?;
            socket.bind(&address.into())?;
            socket.listen(ACCEPT_BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections that linger in TIME_WAIT must not keep a restarted gateway from its port.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_and_users_gateways_do_not_take_each_others_room() {
        let open = |count: usize, is_for_import| {
            let ports = (0_u16..)
                .take(count)
                .map(move |port| (port, Open { is_for_import, close: CancellationToken::new() }));
            ports.collect::<BTreeMap<u16, Open>>()
        };
        let imports = open(IMPORT_LISTENERS_MAX, true);
        assert!(check_room(&imports, true).unwrap_err().contains("for imports"));
        assert_eq!(check_room(&imports, false), Ok(()));
        let users = open(LISTENERS_MAX, false);
        assert!(check_room(&users, false).unwrap_err().contains("of Gateways"));
        assert_eq!(check_room(&users, true), Ok(()));
    }

    #[test]
    fn all_workers_share_a_port_and_a_stranger_does_not() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let bound = bind(free, 3).unwrap();
        assert_eq!(bound.len(), 3);
        let error = bind(free, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "also if both would share it");
        assert!(explain(&error, false).contains("ss -lntp"));
        assert!(explain(&error, true).contains("the tunnel has it"));
        drop(bound);
        bind(free, 1).unwrap();
    }
}
