//! What the tunnel tells of itself: paths for choosing a cluster, links for people.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::code::{self, Code};
use model::{ClusterName, GatewayId, SpiffeId, Transport};
use wire::tunnel::ConnectionClass;

use crate::hello::plain;
use crate::link::Link;
use crate::tunnel::{Place, PlaceState, format_address};

/// How a cluster can be reached now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathState {
    /// Of the fastest live connection.
    pub rtt: Duration,
    /// Every gateway of the cluster that we reach is draining.
    pub draining: bool,
    /// Every live connection has been silent for longer than it should be.
    pub suspect: bool,
    /// Every live connection runs over TCP, since UDP does not pass.
    pub fallback: bool,
    /// How busy the least busy gateway says it is; 1000 is full.
    pub load_permille: u32,
    /// Exchanges that this gateway has open towards the cluster.
    pub in_flight: u32,
}

impl PathState {
    /// Whether it stays, as far as is known, and is not silent.
    pub fn is_sound(&self) -> bool {
        !self.draining && !self.suspect
    }
}

/// One connection, or one place that has none: a row of `fedctl links`.
#[derive(Debug, Clone)]
pub struct LinkStatus {
    pub cluster: ClusterName,
    /// Unknown until the first contact.
    pub gateway: Option<GatewayId>,
    pub spiffe_id: Option<SpiffeId>,
    /// As configured if we dialled, else where the peer came from.
    pub address: String,
    pub remote: Option<SocketAddr>,
    /// TCP: UDP does not pass.
    pub transport: Transport,
    pub class: ConnectionClass,
    /// Our worker that drives it.
    pub worker: u8,
    pub dialled: bool,
    pub state: LinkState,
    /// Another one has taken its place: it goes when its exchanges have ended.
    pub retiring: bool,
    pub rtt: Option<Duration>,
    pub sent_packets: u64,
    pub lost_packets: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub in_flight: u32,
    /// When this state began.
    pub since: SystemTime,
    /// The latest failure of this place, also after it was overcome.
    pub last_error: Option<LinkError>,
}

/// What path MTU discovery (RFC 8899) has found, as bytes of UDP payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathMtu {
    pub current_bytes: u16,
    /// As far as it searches.
    pub max_bytes: u16,
    pub probes_sent: u64,
    pub probes_lost: u64,
    /// How often the path stopped to take what it had taken.
    pub black_holes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkState {
    Dialling,
    Live,
    /// The peer goes: new exchanges use another one.
    Draining,
    /// The last dial failed; the next one is waited for.
    Down,
}

impl LinkState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dialling => "dialling",
            Self::Live => "live",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

/// A failure that a person can look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkError {
    pub code: Code,
    pub text: String,
    pub at: SystemTime,
}

impl LinkError {
    /// How long ago it happened.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.at).unwrap_or_default()
    }
}

/// Counts since the start, summed over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TunnelCounters {
    /// Packet batches that one worker read and handed to another.
    pub batches_steered: u64,
    /// Of these, dropped because the other did not keep up.
    pub batches_dropped: u64,
    pub handshakes_refused: u64,
    pub peers_refused: u64,
    pub links_dead: u64,
    /// Connections of which this side replaced one, before their SVIDs ended.
    pub links_replaced: u64,
    pub exchanges_opened: u64,
    pub exchanges_accepted: u64,
    /// Exchanges refused because too many waited for the gateway.
    pub exchanges_shed: u64,
    /// Directions that moved from a fast to a bulk connection, as their sender.
    pub directions_moved: u64,
    /// Streams reset because their readers held the window.
    pub stalled_readers_reset: u64,
}

pub(crate) fn link_row(link: &Arc<Link>, places: &HashMap<Place, PlaceState>) -> LinkStatus {
    let traffic = link.connection.traffic();
    let last_error = places
        .iter()
        .filter(|(place, _)| {
            place.cluster == link.peer.cluster
                && place.class == link.class
                && place.worker == link.worker
        })
        .filter_map(|(_, state)| state.last_error.clone())
        .max_by_key(|error| error.at);
    let last_error = match link.transport() {
        Transport::Quic => last_error,
        Transport::Tcp => Some(fallback_error(link, last_error)),
    };
    // A NAT between may have given it another one since the connection began.
    let remote = plain(link.connection.remote_address());
    LinkStatus {
        cluster: link.peer.cluster.clone(),
        gateway: Some(link.peer.gateway),
        spiffe_id: Some(link.peer.spiffe_id.clone()),
        address: link.address.clone().unwrap_or_else(|| remote.to_string()),
        remote: Some(remote),
        transport: link.transport(),
        class: link.class,
        worker: link.worker,
        dialled: link.dialled,
        state: if link.peer_draining() { LinkState::Draining } else { LinkState::Live },
        retiring: link.is_retiring(),
        rtt: Some(link.connection.rtt()),
        sent_packets: traffic.sent_packets,
        lost_packets: traffic.lost_packets,
        bytes_sent: traffic.bytes_sent,
        bytes_received: traffic.bytes_received,
        in_flight: link.in_flight(),
        since: link.established_at,
        last_error,
    }
}

/// That a link runs over TCP is a fault of its own, and the last one of QUIC says why.
fn fallback_error(link: &Link, of_quic: Option<LinkError>) -> LinkError {
    let port = link.address.as_ref().and_then(|address| address.rsplit(':').next());
    let port =
        port.map_or_else(|| "the tunnel's UDP port".into(), |port| format!("UDP port {port}"));
    let mut text = format!("it runs over TCP, since UDP does not pass: open {port}");
    if let Some(error) = of_quic {
        text.push_str("; QUIC: ");
        text.push_str(&error.text);
    }
    LinkError { code: code::TUNNEL_FALLBACK, text, at: link.established_at }
}

pub(crate) fn place_row(place: Place, current: LinkState, state: PlaceState) -> LinkStatus {
    LinkStatus {
        cluster: place.cluster,
        gateway: state.gateway,
        spiffe_id: None,
        address: format_address(&place.address),
        remote: None,
        transport: place.address.transport,
        class: place.class,
        worker: place.worker,
        dialled: true,
        state: current,
        retiring: false,
        rtt: None,
        sent_packets: 0,
        lost_packets: 0,
        bytes_sent: 0,
        bytes_received: 0,
        in_flight: 0,
        since: state.since,
        last_error: state.last_error,
    }
}
