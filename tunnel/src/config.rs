//! What a tunnel is told at its start.

use std::net::SocketAddr;
use std::time::Duration;

use wire::tunnel::{ConnectionClass, limits as wire_limits};

use crate::error::BindError;
use crate::limits;

/// A gateway's tunnel: where it listens and within which limits.
#[derive(Clone)]
pub struct TunnelConfig {
    /// UDP address; port 0 takes a free one, `[::]` serves IPv4 too.
    pub listen: SocketAddr,
    /// One QUIC endpoint each; 1 to 32 (five bits of a connection id).
    pub workers: usize,
    /// Kept on disk by the gateway, so that a peer hears of a crash within a round trip.
    pub reset_key: [u8; 64],
    /// Random, drawn once per process start; not zero.
    pub incarnation: u64,
    pub limits: TunnelLimits,
}

/// Limits of one tunnel that an operator may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelLimits {
    pub fast: ConnectionLimits,
    pub bulk: ConnectionLimits,
    pub congestion_control: CongestionControl,
    /// Whether UDP segmentation offload is used; some network cards drop what it makes.
    pub segmentation_offload: bool,
    /// Asked of the kernel for each socket, each way.
    pub udp_buffer_bytes: usize,
    /// Admitted exchanges of one worker that the gateway has not taken yet.
    pub incoming_exchanges_max: usize,
    /// Bytes of one direction after which it moves to the bulk connection.
    pub move_after_bytes: u64,
    /// How long a connection lives on after the peer's SVID has expired.
    pub expired_svid_age_max: Duration,
    /// The least age of a connection that is replaced, and the least pause between two tries.
    pub replace_interval_min: Duration,
    /// How long a connection that was replaced is without exchanges when it is closed.
    pub replaced_link_idle: Duration,
}

/// Windows and stream counts of one connection, as granted to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    pub stream_window_bytes: u64,
    pub connection_window_bytes: u64,
    /// Bytes of ours that are kept until the peer acknowledges them.
    pub send_window_bytes: u64,
    /// Bidirectional streams that the peer may have open.
    pub streams_max: u32,
}

/// How a connection finds its rate (docs/design/0001-congestion-control.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CongestionControl {
    /// CUBIC that tells isolated loss from congestion.
    #[default]
    Steady,
    /// RFC 9438, as quinn has it.
    Cubic,
    /// RFC 9002 §7, as quinn has it.
    NewReno,
}

impl CongestionControl {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Cubic => "cubic",
            Self::NewReno => "new-reno",
        }
    }
}

impl TunnelConfig {
    /// With the default limits.
    pub fn new(listen: SocketAddr, workers: usize, reset_key: [u8; 64], incarnation: u64) -> Self {
        Self { listen, workers, reset_key, incarnation, limits: TunnelLimits::default() }
    }

    pub(crate) fn check(&self) -> Result<(), BindError> {
        let workers_max = wire_limits::WORKERS_MAX as usize;
        if !(1..=workers_max).contains(&self.workers) {
            let fix = "use 1 to 32: a connection id has five bits for the worker";
            return Err(BindError::invalid("workers", self.workers, fix));
        }
        if self.incarnation == 0 {
            let fix = "draw a random number at each start";
            return Err(BindError::invalid("incarnation", 0, fix));
        }
        self.limits.fast.check("limits.fast")?;
        self.limits.bulk.check("limits.bulk")?;
        if self.limits.incoming_exchanges_max == 0 {
            let fix = "use at least 1";
            return Err(BindError::invalid("limits.incoming_exchanges_max", 0, fix));
        }
        Ok(())
    }
}

impl std::fmt::Debug for TunnelConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelConfig")
            .field("listen", &self.listen)
            .field("workers", &self.workers)
            .field("limits", &self.limits)
            .finish_non_exhaustive() // the reset key is secret
    }
}

impl TunnelLimits {
    pub fn of(&self, class: ConnectionClass) -> &ConnectionLimits {
        match class {
            ConnectionClass::Fast => &self.fast,
            ConnectionClass::Bulk => &self.bulk,
        }
    }
}

impl Default for TunnelLimits {
    fn default() -> Self {
        Self {
            fast: ConnectionLimits {
                stream_window_bytes: wire_limits::FAST_STREAM_WINDOW_BYTES,
                connection_window_bytes: wire_limits::FAST_CONNECTION_WINDOW_BYTES,
                send_window_bytes: limits::FAST_SEND_WINDOW_BYTES,
                streams_max: limits::FAST_STREAMS_MAX,
            },
            bulk: ConnectionLimits {
                stream_window_bytes: wire_limits::BULK_STREAM_WINDOW_BYTES,
                connection_window_bytes: wire_limits::BULK_CONNECTION_WINDOW_BYTES,
                send_window_bytes: limits::BULK_SEND_WINDOW_BYTES,
                streams_max: limits::BULK_STREAMS_MAX,
            },
            congestion_control: CongestionControl::default(),
            segmentation_offload: true,
            udp_buffer_bytes: limits::UDP_BUFFER_BYTES,
            incoming_exchanges_max: limits::INCOMING_EXCHANGES_MAX,
            move_after_bytes: wire_limits::MOVE_AFTER_BYTES,
            expired_svid_age_max: limits::EXPIRED_SVID_AGE_MAX,
            replace_interval_min: limits::REPLACE_INTERVAL_MIN,
            replaced_link_idle: limits::REPLACED_LINK_IDLE,
        }
    }
}

impl ConnectionLimits {
    fn check(&self, field: &'static str) -> Result<(), BindError> {
        let (min, max) = (wire_limits::STREAM_WINDOW_BYTES_MIN, wire_limits::WINDOW_BYTES_MAX);
        if !(min..=max).contains(&self.stream_window_bytes) {
            let fix = "use a stream_window_bytes of 16384 to 1073741824";
            return Err(BindError::invalid(field, self.stream_window_bytes, fix));
        }
        if !(self.stream_window_bytes..=max).contains(&self.connection_window_bytes) {
            let fix = "use a connection_window_bytes from stream_window_bytes to 1073741824";
            return Err(BindError::invalid(field, self.connection_window_bytes, fix));
        }
        if !(min..=max).contains(&self.send_window_bytes) {
            let fix = "use a send_window_bytes of 16384 to 1073741824";
            return Err(BindError::invalid(field, self.send_window_bytes, fix));
        }
        if !(2..=65_536).contains(&self.streams_max) {
            let fix = "use a streams_max of 2 to 65536: one stream is the control stream";
            return Err(BindError::invalid(field, self.streams_max, fix));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_field_names_itself_its_value_and_the_fix() {
        let good = || TunnelConfig::new("127.0.0.1:0".parse().unwrap(), 1, [0; 64], 1);
        assert!(good().check().is_ok());
        type Spoil = fn(&mut TunnelConfig);
        let table: [(Spoil, &str); 8] = [
            (|c| c.workers = 0, "tunnel.workers = 0: use 1 to 32"),
            (|c| c.workers = 33, "tunnel.workers = 33: use 1 to 32"),
            (|c| c.incarnation = 0, "tunnel.incarnation = 0: draw a random number"),
            (|c| c.limits.fast.stream_window_bytes = 1, "tunnel.limits.fast = 1: use a stream_w"),
            (|c| c.limits.bulk.connection_window_bytes = 20_000, "limits.bulk = 20000: use a conn"),
            (|c| c.limits.fast.send_window_bytes = 0, "limits.fast = 0: use a send_window_bytes"),
            (|c| c.limits.fast.streams_max = 1, "limits.fast = 1: use a streams_max of 2"),
            (|c| c.limits.incoming_exchanges_max = 0, "incoming_exchanges_max = 0: use at least 1"),
        ];
        for (spoil, text) in table {
            let mut config = good();
            spoil(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(text), "{error:?} has not {text:?}");
        }
    }
}
