//! The tunnel between gateways: QUIC connections that carry exchanges, each on a stream of its own.
//!
//! [`Tunnel::bind`] takes the port for a number of workers; each [`Worker`] is started in its thread
//! and gives a [`WorkerTunnel`] to open exchanges with and an [`Incoming`] of those that peers open.
//! Who may connect is decided by [`admit()`] alone. `docs/reference/tunnel.md` is the protocol.
//!
//! Store and join connections come to the same port: the gateway takes them as [`RelayIncoming`] and
//! passes their streams on to its federation node, unread. A node dials them from a [`NodeEndpoint`]
//! of its own, and speaks TLS once more inside of each stream ([`Inner`]). Between the processes of one
//! cluster there is TLS too where they have no Unix sockets in common ([`ClusterStream`]).
//!
//! Inside: `carrier` is what streams run over, `socket` moves every packet, `accept` and `dial` make
//! connections, `hello` turns one into a `link`, `control` stays with it (`health` has the rule of
//! death), `registry` is where all workers find links, `stream` is what an exchange does on them, and
//! `ping` measures them.

mod accept;
mod addresses;
pub mod admit;
mod backoff;
mod bind;
mod carrier;
mod cluster;
mod config;
mod congestion;
mod connection_id;
mod control;
mod counts;
mod dial;
mod error;
mod gossip;
mod handshake;
mod health;
mod hello;
mod inner;
pub mod limits;
mod link;
mod node;
mod patience;
mod ping;
mod registry;
mod relay;
mod socket;
mod stall;
mod status;
mod stream;
mod tcp;
mod transport;
mod tunnel;
mod worker;

pub use admit::{Admitted, AdmittedPeer, Protocol, Refusal, admit};
pub use cluster::{ClusterClient, ClusterServer, ClusterStream, ClusterStreamError};
pub use config::{CongestionControl, ConnectionLimits, TunnelConfig, TunnelLimits};
pub use error::{BindError, OpenError, StreamError, StreamErrorKind};
pub use gossip::{Heard, News};
pub use inner::{Inner, InnerError};
pub use link::PeerIdentity;
pub use node::{DialError, NodeEndpoint};
pub use ping::PingedLink;
pub use relay::{HeldConnections, RelayConnection, RelayIncoming, RelayStream};
pub use socket::UdpBuffers;
pub use status::{LinkError, LinkState, LinkStatus, PathMtu, PathState, TunnelCounters};
pub use stream::{Exchange, Part, RecvHalf, SendHalf};
pub use tunnel::Tunnel;
pub use worker::{Incoming, IncomingExchange, Worker, WorkerTunnel};
