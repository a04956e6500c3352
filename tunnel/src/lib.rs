//! The tunnel between gateways: QUIC connections that carry exchanges, each on a stream of its own.
//!
//! [`Tunnel::bind`] takes the port for a number of workers; each [`Worker`] is started in its thread
//! and gives a [`WorkerTunnel`] to open exchanges with and an [`Incoming`] of those that peers open.
//! Who may connect is decided by [`admit()`] alone. `docs/reference/tunnel.md` is the protocol.
//!
//! Inside: `socket` moves every packet, `accept` and `dial` make connections, `hello` turns one into
//! a `link`, `control` stays with it (`health` has the rule of death), `registry` is where all
//! workers find links, and `stream` is what an exchange does on them.

mod accept;
pub mod admit;
mod backoff;
mod config;
mod congestion;
mod connection_id;
mod control;
mod counts;
mod dial;
mod error;
mod health;
mod hello;
pub mod limits;
mod link;
mod registry;
mod socket;
mod stall;
mod status;
mod stream;
mod transport;
mod tunnel;
mod worker;

pub use admit::{Admitted, Protocol, Refusal, admit};
pub use config::{CongestionControl, ConnectionLimits, TunnelConfig, TunnelLimits};
pub use error::{BindError, OpenError, StreamError, StreamErrorKind};
pub use link::PeerIdentity;
pub use socket::UdpBuffers;
pub use status::{LinkError, LinkState, LinkStatus, PathState, TunnelCounters};
pub use stream::{Exchange, Part, RecvHalf, SendHalf};
pub use tunnel::Tunnel;
pub use worker::{Incoming, IncomingExchange, Worker, WorkerTunnel};
