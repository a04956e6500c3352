//! Every limit of tunnel v1. The document's table is checked against these constants.

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Longest HELLO payload.
pub const HELLO_BYTES_MAX: usize = 16 * KIB;
/// Longest BEACON payload.
pub const BEACON_BYTES_MAX: usize = 64 * KIB;
/// Longest DRAIN payload.
pub const DRAIN_BYTES_MAX: usize = KIB;
/// Longest OPEN payload.
pub const OPEN_BYTES_MAX: usize = 16 * KIB;
/// Longest OPENED payload.
pub const OPENED_BYTES_MAX: usize = 4 * KIB;
/// Longest REFUSED payload.
pub const REFUSED_BYTES_MAX: usize = 4 * KIB;
/// Longest HEAD payload.
pub const HEAD_BYTES_MAX: usize = 64 * KIB;
/// Most fields in one HEAD.
pub const HEAD_FIELDS_MAX: usize = 100;
/// Longest TRAILERS payload.
pub const TRAILERS_BYTES_MAX: usize = 16 * KIB;
/// Most fields in one TRAILERS.
pub const TRAILERS_FIELDS_MAX: usize = 100;
/// Longest DATA payload.
pub const DATA_BYTES_MAX: usize = 64 * KIB;
/// Longest payload of an unknown even frame.
pub const SKIPPED_BYTES_MAX: usize = 64 * KIB;
/// Most 1xx heads before the final one.
pub const INTERIM_HEADS_MAX: usize = 16;
/// Most clusters that an exchange passes before its destination.
pub const VIA_CLUSTERS_MAX: usize = 3;
/// Most feature numbers in one HELLO.
pub const FEATURES_MAX: usize = 64;
/// Longest REFUSED.message.
pub const MESSAGE_BYTES_MAX: usize = 512;
/// Longest OPEN.trace_state.
pub const TRACE_STATE_BYTES_MAX: usize = 512;
/// Highest OPEN.attempt and OPEN.retries_left.
pub const ATTEMPTS_MAX: u32 = 16;
/// Longest OPEN.deadline_ms and DRAIN.grace_ms: one day.
pub const DEADLINE_MS_MAX: u32 = 86_400_000;
/// Highest BEACON.load_permille.
pub const LOAD_PERMILLE_MAX: u32 = 10_000;
/// Most workers of a gateway: five bits of a connection id.
pub const WORKERS_MAX: u32 = 32;
/// Most connections of one class between two gateways.
pub const CONNECTIONS_PER_PAIR_MAX: u32 = 8;
/// Longest signed Head, in HELLO and in a beacon.
pub const SIGNED_HEAD_BYTES_MAX: usize = KIB;
/// Longest signed revocation in a beacon.
pub const SIGNED_REVOCATION_BYTES_MAX: usize = 16 * KIB;
/// Most Heads in one BEACON.
pub const BEACON_HEADS_MAX: usize = 16;
/// Most revocations in one BEACON.
pub const BEACON_REVOCATIONS_MAX: usize = 2;
/// Stream window of a store or join connection.
pub const CONTROL_STREAM_WINDOW_BYTES: u64 = MIB as u64;
/// Connection window of a store or join connection.
pub const CONTROL_CONNECTION_WINDOW_BYTES: u64 = 8 * MIB as u64;
/// Most bidirectional streams open each way on a store connection.
pub const STORE_STREAMS_MAX: u32 = 64;
/// Most bidirectional streams open on a join connection, all from the joiner.
pub const JOIN_STREAMS_MAX: u32 = 4;
/// Most gateways of one cluster that HELLO and a beacon name.
pub const SIBLINGS_MAX: usize = 32;
/// Default stream window, fast connection.
pub const FAST_STREAM_WINDOW_BYTES: u64 = 256 * KIB as u64;
/// Default connection window, fast.
pub const FAST_CONNECTION_WINDOW_BYTES: u64 = 16 * MIB as u64;
/// Default stream window, bulk connection.
pub const BULK_STREAM_WINDOW_BYTES: u64 = 4 * MIB as u64;
/// Default connection window, bulk.
pub const BULK_CONNECTION_WINDOW_BYTES: u64 = 128 * MIB as u64;
/// Smallest stream window that a HELLO may grant.
pub const STREAM_WINDOW_BYTES_MIN: u64 = 16 * KIB as u64;
/// Largest window that a HELLO may grant.
pub const WINDOW_BYTES_MAX: u64 = 1024 * MIB as u64;
/// Share of a connection's window that stalled streams may hold.
pub const HELD_WINDOW_PERCENT_MAX: u32 = 75;
/// Bytes of one direction after which it moves to bulk.
pub const MOVE_AFTER_BYTES: u64 = 512 * KIB as u64;
/// Content-Length from which an exchange belongs on bulk.
pub const BULK_LENGTH_BYTES_MIN: u64 = MIB as u64;
/// Longest wait between MOVED and RESUME, whichever comes first.
pub const RESUME_TIMEOUT_MS: u32 = 5_000;
/// Most RESUME streams of one pair that wait for their MOVED.
pub const RESUMES_PARKED_MAX: usize = 256;
/// Longest wait for the peer's HELLO after the handshake.
pub const HELLO_TIMEOUT_MS: u32 = 5_000;
/// Longest wait for a whole OPEN on an accepted stream.
pub const OPEN_TIMEOUT_MS: u32 = 5_000;
/// Time between beacons while a pair talks.
pub const BEACON_INTERVAL_MS: u32 = 100;
/// Shortest silence that is death: six beacons.
pub const DEAD_AFTER_MS_MIN: u32 = 600;
/// How long a pair counts as talking after its last stream ended.
pub const TALK_LINGER_MS: u32 = 2_000;
/// Time between keepalive beacons of an idle pair.
pub const KEEPALIVE_INTERVAL_MS: u32 = 5_000;
/// QUIC idle timeout: the longest silence of an idle pair.
pub const IDLE_TIMEOUT_MS: u32 = 20_000;
/// Wait before the side with the larger gateway id dials.
pub const DIAL_TAKEOVER_MS: u32 = 2_000;
/// Time between QUIC PINGs on an idle store or join connection.
pub const CONTROL_KEEPALIVE_INTERVAL_MS: u32 = 2_000;
/// QUIC idle timeout of a store or join connection.
pub const CONTROL_IDLE_TIMEOUT_MS: u32 = 7_000;
/// Time without a byte, either way, after which a relayed stream is reset.
pub const RELAY_IDLE_TIMEOUT_MS: u32 = 60_000;

// Six beacons; two keepalives may be lost; a stream's window holds a few frames.
const _: () = assert!(DEAD_AFTER_MS_MIN == 6 * BEACON_INTERVAL_MS);
const _: () = assert!(IDLE_TIMEOUT_MS > 3 * KEEPALIVE_INTERVAL_MS);
const _: () = assert!(CONTROL_IDLE_TIMEOUT_MS > 3 * CONTROL_KEEPALIVE_INTERVAL_MS);
// A beacon full of Heads, revocations and gateway ids, with its own fields and their headers, is one frame.
const _: () = assert!(
    BEACON_HEADS_MAX * (SIGNED_HEAD_BYTES_MAX + 4)
        + BEACON_REVOCATIONS_MAX * (SIGNED_REVOCATION_BYTES_MAX + 4)
        + SIBLINGS_MAX * (16 + 2)
        + 64
        <= BEACON_BYTES_MAX
);
const _: () = assert!(FAST_STREAM_WINDOW_BYTES >= 4 * DATA_BYTES_MAX as u64);
