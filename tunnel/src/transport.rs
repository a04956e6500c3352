//! quinn's configurations: every limit set, nothing left to a default that could be unbounded.

use std::sync::Arc;
use std::time::Duration;

use identity::{ExpectedPeer, IdentityCell};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, ConnectionId, EndpointConfig, ServerConfig, TransportConfig, VarInt};
use wire::tunnel::limits::IDLE_TIMEOUT_MS;
use wire::tunnel::{ALPN_TUNNEL, CONNECTION_ID_BYTES, ConnectionClass};

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
}

impl ServerConfigs {
    pub(crate) fn new(
        limits: &TunnelLimits,
        identity: Arc<IdentityCell>,
    ) -> Result<Self, BindError> {
        // Only the tunnel's own protocol is served: whoever asks for another gets TLS's
        // no_application_protocol.
        let tls = identity::server_config(identity, &[ALPN_TUNNEL]);
        let tls = QuicServerConfig::try_from(tls).map_err(|_| BindError::NoInitialSuite)?;
        let mut fast = ServerConfig::with_crypto(Arc::new(tls));
        fast.migration(true);
        fast.max_incoming(limits::HANDSHAKES_MAX);
        fast.incoming_buffer_size(limits::HANDSHAKE_BUFFER_BYTES);
        fast.incoming_buffer_size_total(limits::HANDSHAKE_BUFFER_TOTAL_BYTES);
        fast.transport_config(transport(limits, ConnectionClass::Fast));
        let mut bulk = fast.clone();
        bulk.transport_config(transport(limits, ConnectionClass::Bulk));
        Ok(Self { fast: Arc::new(fast), bulk: Arc::new(bulk) })
    }

    /// By the first destination id of a handshake ([`first_id`]).
    pub(crate) fn choose(&self, first_id: &ConnectionId) -> Arc<ServerConfig> {
        match class_of_first_id(first_id) {
            ConnectionClass::Fast => Arc::clone(&self.fast),
            ConnectionClass::Bulk => Arc::clone(&self.bulk),
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
    config.initial_dst_cid_provider(Arc::new(move || first_id(class)));
    Ok(config)
}

/// The first destination id of a handshake tells the class, so that the accepting side can grant
/// that class's windows, which QUIC fixes before HELLO is read: 15 random bytes (RFC 9000 §7.2 asks
/// for 8), then 1 for fast or 2 for bulk.
fn first_id(class: ConnectionClass) -> ConnectionId {
    let mut id: [u8; CONNECTION_ID_BYTES] = rand::random();
    id[CONNECTION_ID_BYTES - 1] = match class {
        ConnectionClass::Fast => 1,
        ConnectionClass::Bulk => 2,
    };
    ConnectionId::new(&id)
}

/// Anything but a clear "bulk" gets the small windows.
pub(crate) fn class_of_first_id(id: &ConnectionId) -> ConnectionClass {
    match (id.len(), id.last()) {
        (CONNECTION_ID_BYTES, Some(2)) => ConnectionClass::Bulk,
        _ => ConnectionClass::Fast,
    }
}

fn transport(limits: &TunnelLimits, class: ConnectionClass) -> Arc<TransportConfig> {
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
        .keep_alive_interval(None) // beacons are the sign of life, and say more
        .datagram_receive_buffer_size(None) // not served: none may be sent to us
        .congestion_controller_factory(Arc::new(SteadyConfig(limits.congestion_control)))
        .enable_segmentation_offload(limits.segmentation_offload);
    Arc::new(transport)
}

fn window(bytes: u64) -> VarInt {
    VarInt::from_u64(bytes).expect("windows were checked to be at most 1 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_id_tells_its_class_and_a_strangers_is_fast() {
        for class in [ConnectionClass::Fast, ConnectionClass::Bulk] {
            let id = first_id(class);
            assert_eq!(class_of_first_id(&id), class);
            assert_ne!(id, first_id(class), "the rest is random");
        }
        for bytes in [&[][..], &[2], &[2; 8], &[3; 16], &[2; 20]] {
            let id = ConnectionId::new(bytes);
            assert_eq!(class_of_first_id(&id), ConnectionClass::Fast, "{bytes:?}");
        }
    }
}
