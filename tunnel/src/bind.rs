//! The tunnel's ports: UDP for QUIC, and TCP of the same number for where UDP does not pass.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use model::code;

use crate::config::TunnelConfig;
use crate::error::BindError;
use crate::limits::FREE_PORT_TRIES;
use crate::socket::{UdpBuffers, bind_group};
use crate::tcp;

/// The tunnel's ports, a share of each for each worker.
pub(crate) struct Bound {
    pub(crate) sockets: Vec<UdpSocket>,
    /// None, if the TCP port is another's.
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) buffers: UdpBuffers,
    pub(crate) local_addr: SocketAddr,
}

/// Binds the UDP port, and the TCP port of the same number. The tunnel serves without the latter, for
/// then only peers that UDP does not reach are worse off.
pub(crate) fn bind_ports(config: &TunnelConfig) -> Result<Bound, BindError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let (sockets, buffers) =
            bind_group(config.listen, config.workers, config.limits.udp_buffer_bytes)?;
        let local_addr = sockets[0].local_addr().map_err(|source| BindError::Socket {
            action: "read the address of",
            address: config.listen,
            source,
            fix: "try again",
        })?;
        let is_shared = config.workers > 1;
        // A shared port would hide that somebody else has it: the first look is for the port alone.
        let probe = tcp::bind_listener(local_addr, false).map(drop);
        let listeners: Result<Vec<_>, _> = probe.and_then(|()| {
            (0..config.workers).map(|_| tcp::bind_listener(local_addr, is_shared)).collect()
        });
        match listeners {
            Ok(listeners) => return Ok(Bound { sockets, listeners, buffers, local_addr }),
            // Any port will do, so one that is free for both is looked for.
            Err(_) if config.listen.port() == 0 && tries < FREE_PORT_TRIES => {}
            Err(error) => {
                tracing::warn!(
                    code = %code::ADDRESS_IN_USE, address = %local_addr, %error,
                    "the TCP port of the tunnel's number cannot be bound: peers that UDP does not \
                     reach have no other way; see with `ss -ltnp` who holds it"
                );
                return Ok(Bound { sockets, listeners: Vec::new(), buffers, local_addr });
            }
        }
    }
}
