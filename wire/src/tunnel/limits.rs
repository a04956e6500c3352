//! Every limit of tunnel v1, in one table: the document's table is checked against it.

/// One row of the limits table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The constant's name; its last word is the unit or `MAX`.
    pub name: &'static str,
    pub value: u64,
    pub meaning: &'static str,
}

macro_rules! limits {
    ($($name:ident: $kind:ty = $value:expr, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: $kind = $value;)*

        /// Every limit, in the order of the document.
        pub static LIMITS: &[Limit] = &[$(Limit {
            name: stringify!($name), value: $value as u64, meaning: $meaning,
        }),*];
    };
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

limits! {
    HELLO_BYTES_MAX: usize = 16 * KIB, "Longest HELLO payload.";
    BEACON_BYTES_MAX: usize = 64 * KIB, "Longest BEACON payload.";
    DRAIN_BYTES_MAX: usize = KIB, "Longest DRAIN payload.";
    OPEN_BYTES_MAX: usize = 16 * KIB, "Longest OPEN payload.";
    OPENED_BYTES_MAX: usize = 4 * KIB, "Longest OPENED payload.";
    REFUSED_BYTES_MAX: usize = 4 * KIB, "Longest REFUSED payload.";
    HEAD_BYTES_MAX: usize = 64 * KIB, "Longest HEAD payload.";
    HEAD_FIELDS_MAX: usize = 100, "Most fields in one HEAD.";
    TRAILERS_BYTES_MAX: usize = 16 * KIB, "Longest TRAILERS payload.";
    TRAILERS_FIELDS_MAX: usize = 100, "Most fields in one TRAILERS.";
    DATA_BYTES_MAX: usize = 64 * KIB, "Longest DATA payload.";
    SKIPPED_BYTES_MAX: usize = 64 * KIB, "Longest payload of an unknown even frame.";
    INTERIM_HEADS_MAX: usize = 16, "Most 1xx heads before the final one.";
    VIA_CLUSTERS_MAX: usize = 3, "Most clusters that an exchange passes before its destination.";
    FEATURES_MAX: usize = 64, "Most feature numbers in one HELLO.";
    MESSAGE_BYTES_MAX: usize = 512, "Longest REFUSED.message.";
    TRACE_STATE_BYTES_MAX: usize = 512, "Longest OPEN.trace_state.";
    ATTEMPTS_MAX: u32 = 16, "Highest OPEN.attempt and OPEN.retries_left.";
    DEADLINE_MS_MAX: u32 = 86_400_000, "Longest OPEN.deadline_ms and DRAIN.grace_ms: one day.";
    LOAD_PERMILLE_MAX: u32 = 10_000, "Highest BEACON.load_permille.";
    WORKERS_MAX: u32 = 32, "Most workers of a gateway: five bits of a connection id.";
    CONNECTIONS_PER_PAIR_MAX: u32 = 8, "Most connections of one class between two gateways.";
    FAST_STREAM_WINDOW_BYTES: u64 = 256 * KIB as u64, "Default stream window, fast connection.";
    FAST_CONNECTION_WINDOW_BYTES: u64 = 16 * MIB as u64, "Default connection window, fast.";
    BULK_STREAM_WINDOW_BYTES: u64 = 4 * MIB as u64, "Default stream window, bulk connection.";
    BULK_CONNECTION_WINDOW_BYTES: u64 = 128 * MIB as u64, "Default connection window, bulk.";
    STREAM_WINDOW_BYTES_MIN: u64 = 16 * KIB as u64, "Smallest stream window that a HELLO may grant.";
    WINDOW_BYTES_MAX: u64 = 1024 * MIB as u64, "Largest window that a HELLO may grant.";
    HELD_WINDOW_PERCENT_MAX: u32 = 75, "Share of a connection's window that stalled streams may hold.";
    MOVE_AFTER_BYTES: u64 = 512 * KIB as u64, "Bytes of one direction after which it moves to bulk.";
    BULK_LENGTH_BYTES_MIN: u64 = MIB as u64, "Content-Length from which an exchange belongs on bulk.";
    RESUME_TIMEOUT_MS: u32 = 5_000, "Longest wait between MOVED and RESUME, whichever comes first.";
    RESUMES_PARKED_MAX: usize = 256, "Most RESUME streams of one pair that wait for their MOVED.";
    HELLO_TIMEOUT_MS: u32 = 5_000, "Longest wait for the peer's HELLO after the handshake.";
    OPEN_TIMEOUT_MS: u32 = 5_000, "Longest wait for a whole OPEN on an accepted stream.";
    BEACON_INTERVAL_MS: u32 = 100, "Time between beacons while a pair talks.";
    DEAD_AFTER_MS_MIN: u32 = 600, "Shortest silence that is death: six beacons.";
    TALK_LINGER_MS: u32 = 2_000, "How long a pair counts as talking after its last stream ended.";
    KEEPALIVE_INTERVAL_MS: u32 = 5_000, "Time between keepalive beacons of an idle pair.";
    IDLE_TIMEOUT_MS: u32 = 20_000, "QUIC idle timeout: the longest silence of an idle pair.";
    DIAL_TAKEOVER_MS: u32 = 2_000, "Wait before the side with the larger gateway id dials.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_unique_names_and_a_meaning() {
        for (index, limit) in LIMITS.iter().enumerate() {
            assert!(limit.meaning.ends_with('.'), "{}", limit.name);
            assert!(LIMITS[..index].iter().all(|other| other.name != limit.name), "{}", limit.name);
        }
    }

    // Two keepalives may be lost; a stream's window holds a few frames.
    const _: () = assert!(DEAD_AFTER_MS_MIN == 6 * BEACON_INTERVAL_MS);
    const _: () = assert!(IDLE_TIMEOUT_MS > 3 * KEEPALIVE_INTERVAL_MS);
    const _: () = assert!(FAST_STREAM_WINDOW_BYTES >= 4 * DATA_BYTES_MAX as u64);
}
