//! quinn's configurations: every limit set, nothing left to a default that could be unbounded.

use std::sync::Arc;
use std::time::Duration;

use identity::{ExpectedPeer, IdentityCell};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, ConnectionId, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    VarInt,
};
use wire::tunnel::limits::{
    CONTROL_CONNECTION_WINDOW_BYTES, CONTROL_IDLE_TIMEOUT_MS, CONTROL_KEEPALIVE_INTERVAL_MS,
    CONTROL_STREAM_WINDOW_BYTES, IDLE_TIMEOUT_MS, STORE_STREAMS_MAX,
};
use wire::tunnel::{ALPN_JOIN, ALPN_STORE, ALPN_TUNNEL, CONNECTION_ID_BYTES, ConnectionClass};

use crate::config::{TunnelConfig, TunnelLimits};
use crate::congestion::SteadyConfig;
use crate::connection_id::WorkerIds;
use crate::error::BindError;
use crate::limits;

/// Round-trip time taken for granted until one was measured: the first packet of a lost handshake
/// is repeated after three of them.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// An endpoint that issues this worker's connection ids.
pub(crate) fn endpoint_config(config: &TunnelConfig, ids: WorkerIds) -> EndpointConfig {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &config.reset_key);
    let mut endpoint = EndpointConfig::new(Arc::new(key));
    endpoint.cid_generator(move || Box::new(ids));
    endpoint
}

/// What a worker serves dialling peers with, by the class that they ask for.
#[derive(Clone)]
pub(crate) struct ServerConfigs {
    fast: Arc<ServerConfig>,
    bulk: Arc<ServerConfig>,
    control: Arc<ServerConfig>,
}

/// What a dialler says that its connection is to be, in the first destination id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstId {
    Tunnel(ConnectionClass),
    /// Store or join.
    Control,
}

impl ServerConfigs {
    pub(crate) fn new(
        limits: &TunnelLimits,
        identity: Arc<IdentityCell>,
    ) -> Result<Self, BindError> {
        // Whoever asks for another protocol gets TLS's no_application_protocol.
        let tls = identity::public_server_config(identity, &[ALPN_TUNNEL, ALPN_STORE, ALPN_JOIN]);
        let tls = QuicServerConfig::try_from(tls).map_err(|_| BindError::NoInitialSuite)?;
        let mut fast = ServerConfig::with_crypto(Arc::new(tls));
        fast.migration(true);
        fast.max_incoming(limits::HANDSHAKES_MAX);
        fast.incoming_buffer_size(limits::HANDSHAKE_BUFFER_BYTES);
        fast.incoming_buffer_size_total(limits::HANDSHAKE_BUFFER_TOTAL_BYTES);
        fast.transport_config(transport(limits, ConnectionClass::Fast));
        let mut bulk = fast.clone();
        bulk.transport_config(transport(limits, ConnectionClass::Bulk));
        let mut control = fast.clone();
        control.transport_config(control_transport(limits, STORE_STREAMS_MAX));
        Ok(Self { fast: Arc::new(fast), bulk: Arc::new(bulk), control: Arc::new(control) })
    }

    /// By the first destination id of a handshake ([`first_id`]).
    pub(crate) fn choose(&self, first_id: &ConnectionId) -> Arc<ServerConfig> {
        match purpose_of_first_id(first_id) {
            FirstId::Tunnel(ConnectionClass::Fast) => Arc::clone(&self.fast),
            FirstId::Tunnel(ConnectionClass::Bulk) => Arc::clone(&self.bulk),
            FirstId::Control => Arc::clone(&self.control),
        }
    }

    /// For an endpoint whose default is never used, since `choose` is asked for each handshake.
    pub(crate) fn any(&self) -> ServerConfig {
        ServerConfig::clone(&self.fast)
    }
}

impl std::fmt::Debug for ServerConfigs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfigs").finish_non_exhaustive()
    }
}

/// For dialling `expected` with a connection of this class.
pub(crate) fn client_config(
    limits: &TunnelLimits,
    identity: Arc<IdentityCell>,
    expected: ExpectedPeer,
    class: ConnectionClass,
) -> Result<ClientConfig, BindError> {
    let tls = identity::client_config(identity, expected, ALPN_TUNNEL);
    let tls = QuicClientConfig::try_from(tls).map_err(|_| BindError::NoInitialSuite)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport(limits, class));
    config.initial_dst_cid_provider(Arc::new(move || first_id(FirstId::Tunnel(class))));
    Ok(config)
}

/// For dialling a store or join connection with these TLS settings; the peer may open this many
/// streams.
pub(crate) fn control_client_config(
    limits: &TunnelLimits,
    tls: rustls::ClientConfig,
    streams_max: u32,
) -> Result<ClientConfig, BindError> {
    let tls = QuicClientConfig::try_from(tls).map_err(|_| BindError::NoInitialSuite)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(control_transport(limits, streams_max));
    config.initial_dst_cid_provider(Arc::new(|| first_id(FirstId::Control)));
    Ok(config)
}

/// The first destination id of a handshake tells the class, so that the accepting side can grant
/// that class's windows, which QUIC fixes before HELLO is read: 15 random bytes (RFC 9000 §7.2 asks
/// for 8), then 1 for fast, 2 for bulk, or 3 for store and join.
fn first_id(purpose: FirstId) -> ConnectionId {
    let mut id: [u8; CONNECTION_ID_BYTES] = rand::random();
    id[CONNECTION_ID_BYTES - 1] = match purpose {
        FirstId::Tunnel(ConnectionClass::Fast) => 1,
        FirstId::Tunnel(ConnectionClass::Bulk) => 2,
        FirstId::Control => 3,
    };
    ConnectionId::new(&id)
}

/// Anything but a clear word gets the small windows.
pub(crate) fn purpose_of_first_id(id: &ConnectionId) -> FirstId {
    match (id.len(), id.last()) {
        (CONNECTION_ID_BYTES, Some(2)) => FirstId::Tunnel(ConnectionClass::Bulk),
        (CONNECTION_ID_BYTES, Some(3)) => FirstId::Control,
        _ => FirstId::Tunnel(ConnectionClass::Fast),
    }
}

/// Such a connection has no beacons: QUIC's own PINGs keep it up, from either side.
fn control_transport(limits: &TunnelLimits, streams_max: u32) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(streams_max.into())
        .max_concurrent_uni_streams(0_u8.into())
        .max_idle_timeout(Some(VarInt::from_u32(CONTROL_IDLE_TIMEOUT_MS).into()))
        .stream_receive_window(window(CONTROL_STREAM_WINDOW_BYTES))
        .receive_window(window(CONTROL_CONNECTION_WINDOW_BYTES))
        .send_window(CONTROL_CONNECTION_WINDOW_BYTES)
        .initial_rtt(INITIAL_RTT)
        .keep_alive_interval(Some(Duration::from_millis(CONTROL_KEEPALIVE_INTERVAL_MS.into())))
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(SteadyConfig(limits.congestion_control)))
        .enable_segmentation_offload(limits.segmentation_offload);
    Arc::new(transport)
}

pub(crate) fn transport(limits: &TunnelLimits, class: ConnectionClass) -> Arc<TransportConfig> {
    let granted = limits.of(class);
    let resumes = match class {
        ConnectionClass::Fast => 0,
        ConnectionClass::Bulk => limits::RESUME_STREAMS_MAX,
    };
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(granted.streams_max.into())
        .max_concurrent_uni_streams(resumes.into())
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT_MS).into()))
        .stream_receive_window(window(granted.stream_window_bytes))
        .receive_window(window(granted.connection_window_bytes))
        .send_window(granted.send_window_bytes)
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu_discovery()))
        .keep_alive_interval(None) // beacons are the sign of life, and say more
        .datagram_receive_buffer_size(None) // not served: none may be sent to us
        .congestion_controller_factory(Arc::new(SteadyConfig(limits.congestion_control)))
        .enable_segmentation_offload(limits.segmentation_offload);
    Arc::new(transport)
}

fn mtu_discovery() -> MtuDiscoveryConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(limits::PATH_MTU_BYTES_MAX);
    discovery
}

fn window(bytes: u64) -> VarInt {
    VarInt::from_u64(bytes).expect("windows were checked to be at most 1 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_id_tells_its_class_and_a_strangers_is_fast() {
        let (fast, bulk) = (ConnectionClass::Fast, ConnectionClass::Bulk);
        for purpose in [FirstId::Tunnel(fast), FirstId::Tunnel(bulk), FirstId::Control] {
            let id = first_id(purpose);
            assert_eq!(purpose_of_first_id(&id), purpose);
            assert_ne!(id, first_id(purpose), "the rest is random");
        }
        for bytes in [&[][..], &[2], &[2; 8], &[3; 8], &[4; 16], &[2; 20]] {
            let id = ConnectionId::new(bytes);
            assert_eq!(purpose_of_first_id(&id), FirstId::Tunnel(fast), "{bytes:?}");
        }
    }
}
