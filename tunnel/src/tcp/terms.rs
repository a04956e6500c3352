//! What a connection may hold, and for how long it may be silent, by what it is for.

use std::time::Duration;

use wire::tunnel::limits::{
    CONTROL_CONNECTION_WINDOW_BYTES, CONTROL_IDLE_TIMEOUT_MS, CONTROL_STREAM_WINDOW_BYTES,
    IDLE_TIMEOUT_MS, STORE_STREAMS_MAX,
};

use crate::admit::Protocol;
use crate::config::{ConnectionLimits, TunnelLimits};
use crate::limits::{STORE_OFFERS_IDLE, TCP_JOINER_WINDOW_BYTES, TCP_OFFERS_IDLE};

#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) granted: ConnectionLimits,
    /// Streams that the dialler keeps open for the listener to begin on.
    pub(super) offers: usize,
    /// Silence that is the connection's end.
    pub(super) silence_max: Duration,
}

impl Terms {
    pub(super) fn of(protocol: Protocol, limits: &TunnelLimits) -> Self {
        let (granted, offers, silence_max_ms) = match protocol {
            Protocol::Tunnel => (limits.fast, TCP_OFFERS_IDLE, IDLE_TIMEOUT_MS),
            Protocol::Store => (CONTROL, STORE_OFFERS_IDLE, CONTROL_IDLE_TIMEOUT_MS),
            // Only the joiner opens streams.
            Protocol::Join => (CONTROL, 0, CONTROL_IDLE_TIMEOUT_MS),
        };
        Self { granted, offers, silence_max: Duration::from_millis(silence_max_ms.into()) }
    }

    /// As who accepts the connection grants it. Anybody may come to join, and small frames cost more memory
    /// than they take of a window.
    pub(super) fn to_accept(protocol: Protocol, limits: &TunnelLimits) -> Self {
        let mut terms = Self::of(protocol, limits);
        if protocol == Protocol::Join {
            terms.granted.stream_window_bytes = TCP_JOINER_WINDOW_BYTES;
            terms.granted.connection_window_bytes = TCP_JOINER_WINDOW_BYTES;
        }
        terms
    }

    /// What the dialler may have open: its own streams, those that it left to us, and those that wait.
    pub(super) fn streams_max(&self) -> u32 {
        self.granted.streams_max.saturating_mul(2).saturating_add(self.offers as u32)
    }
}

/// Of store and join connections, as on QUIC, and one stream more for what QUIC says beside the streams.
const CONTROL: ConnectionLimits = ConnectionLimits {
    stream_window_bytes: CONTROL_STREAM_WINDOW_BYTES,
    connection_window_bytes: CONTROL_CONNECTION_WINDOW_BYTES,
    send_window_bytes: CONTROL_CONNECTION_WINDOW_BYTES,
    streams_max: STORE_STREAMS_MAX + 1,
};
