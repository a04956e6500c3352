//! Every bound of the gateway, by name: nothing here grows without one.

use std::time::Duration;

/// Size of a configuration file.
pub const CONFIG_BYTES_MAX: u64 = 256 * 1024;
/// Workers of one gateway: five bits of a QUIC connection id.
pub const WORKERS_MAX: usize = 32;
/// Ports that users' Gateways have.
pub const LISTENERS_MAX: usize = 1_024;
/// Ports that stand for imports, beside those: neither may take the other's room.
pub const IMPORT_LISTENERS_MAX: usize = 1_024;
/// Connections that a listener holds before they are accepted, per worker.
pub const ACCEPT_BACKLOG: i32 = 1_024;
/// A port that could not be bound is tried again this often.
pub const LISTEN_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after `accept` failed for want of descriptors or memory.
pub const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(50);
/// Connections from applications and clients at one time, over all workers; more are closed at once.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Requests and connections in progress at one time, over all workers; more are refused.
pub const EXCHANGES_MAX: usize = 16_384;
/// Of these, exchanges from one peer cluster; the rest is left to local traffic and other peers.
pub const PEER_EXCHANGES_MAX: usize = EXCHANGES_MAX / 2;

/// When less of its SVID's life is left, in percent, the gateway says so in its log: at the last level as an
/// error.
pub const SVID_LIFE_LEFT_PERCENT: [u64; 3] = [50, 20, 5];
/// How often it looks at least.
pub const SVID_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Fields of a request from a client: ours come on top, and tunnel v1 carries 100.
pub const HEADERS_MAX: usize = 90;
/// Bytes of a request's head.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Time for a whole request head; an idle HTTP/1 connection is closed after it, too.
pub const HEAD_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Gateways that a request may enter from an application or client, one after the other; a circle
/// through endpoints ends there.
pub const HOPS_MAX: u32 = 8;
/// Bytes of a host name in a request (RFC 1035 §2.3.4, in text form).
pub const HOST_BYTES_MAX: usize = 253;
/// Streams of one HTTP/2 connection from a client.
pub const H2_STREAMS_MAX: u32 = 256;
/// HTTP/2 window of one stream: 40 ms of 800 Mbit/s.
pub const H2_STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// HTTP/2 window of one connection.
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// HTTP/2 DATA frame.
pub const H2_FRAME_BYTES_MAX: u32 = 64 * 1024;
/// HTTP/2 bytes that wait for a slow reader, per stream.
pub const H2_SEND_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// HTTP/2 connections are pinged this often.
pub const H2_PING_INTERVAL: Duration = Duration::from_secs(20);
/// An HTTP/2 connection whose ping stays unanswered this long is closed.
pub const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Time to reach an application's endpoint by TCP.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for a peer to connect a TCP connection on and say so: two endpoints, one after the other.
pub const PEER_CONNECT_TIMEOUT: Duration = Duration::from_secs(6);
/// Time without progress until a response's head has come: no byte of the request body moved.
pub const RESPONSE_HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle HTTP/1 connections kept to one endpoint, per worker.
pub const UPSTREAM_IDLE_CONNECTIONS_MAX: usize = 128;
/// Endpoints to which a worker keeps connections.
pub const UPSTREAM_ENDPOINTS_MAX: usize = 4_096;
/// An idle connection to an endpoint is not used again after this; many servers close after 5 s.
pub const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Fields of a response's head, as in tunnel v1's HEAD.
pub const RESPONSE_HEADERS_MAX: usize = 100;

/// Attempts for one request or connection, the first included.
pub const ATTEMPTS_MAX: u32 = 3;
/// Attempts at own endpoints before a peer that exports the service is asked.
pub const OWN_ATTEMPTS_MAX: usize = 2;
/// Bytes of a request body that are kept so that another attempt can send them again.
pub const REPLAY_BYTES_MAX: usize = 128 * 1024;
/// What a kept piece counts for at least: the smallest one holds on to a buffer and costs a place.
pub const REPLAY_FRAME_BYTES_MIN: usize = 1024;
/// Bytes of a request body that are sent to a peer before it has said that it serves the request.
pub const UNOPENED_BYTES_MAX: usize = 64 * 1024;
/// Retries that the budget earns per hundred requests.
pub const RETRY_BUDGET_PERCENT: u32 = 20;
/// Retries per second that the budget earns even without requests.
pub const RETRY_BUDGET_PER_SECOND_MIN: u32 = 10;
/// Retries that the budget can save up: what was under way to a site when it is cut off.
pub const RETRY_BUDGET_SAVED_MAX: u32 = 1_000;
/// How long one request or connection waits, over all its attempts, for a tunnel to a cluster that
/// had one a moment ago, if nobody else can serve it. A dial takes two round trips.
pub const TUNNEL_WAIT_MAX: Duration = Duration::from_millis(1_500);
/// Pause before the same cluster is asked again after "not yet".
pub const NOT_YET_PAUSE: Duration = Duration::from_millis(100);
/// A destination that is behind a producer route's revision says "not yet" for this long.
pub const NOT_YET_MAX: Duration = Duration::from_secs(2);
/// Peers whose demanded route revision is remembered.
pub const NOT_YET_PEERS_MAX: usize = 1_024;

/// An endpoint that refused a connection is passed over for this long while others are ready.
pub const ENDPOINT_PENALTY: Duration = Duration::from_secs(1);
/// An endpoint that was never used counts as this fast, so that new ones get their share.
pub const LATENCY_UNKNOWN: Duration = Duration::from_millis(1);
/// Half-life of the moving average of an endpoint's latency.
pub const LATENCY_HALF_LIFE: Duration = Duration::from_secs(5);
/// A cluster takes over the first place only if its round-trip time is below this share of the first's.
pub const RANK_CHANGE_PERCENT: u32 = 80;
/// A cluster takes over the first place only if it is nearer by this much.
pub const RANK_CHANGE_MIN: Duration = Duration::from_millis(1);
/// A cluster that refused a service for want of endpoints is asked last for it during this time.
pub const CLUSTER_PENALTY: Duration = Duration::from_secs(1);
/// Pairs of service and cluster that are remembered with a penalty.
pub const CLUSTER_PENALTIES_MAX: usize = 1_024;
/// Clusters are ranked by round-trip time this often.
pub const RANK_INTERVAL: Duration = Duration::from_millis(500);

/// Bytes read from a TCP connection at a time, at first and at most.
pub const SPLICE_BUFFER_BYTES_MIN: usize = 8 * 1024;
/// See `SPLICE_BUFFER_BYTES_MIN`; also the longest DATA frame.
pub const SPLICE_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Kernel keepalive on TCP connections begins after this much silence.
pub const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// Time for one side of a TCP exchange to go on after the other has ended both its directions.
pub const TCP_LINGER_MAX: Duration = Duration::from_secs(5);

/// Access-log records that wait for the writer; more are dropped and counted.
pub const ACCESS_LOG_QUEUE_MAX: usize = 8_192;
/// Characters of a field that a client chose, in an access-log record.
pub const ACCESS_LOG_VALUE_CHARS_MAX: usize = 512;
/// Rows of a metric by route and destination, per worker; further ones are counted under `_other`.
pub const METRIC_SERIES_MAX: usize = 1_000;

/// Longest wait before the first new attempt at enrolment or at the resource stream; doubles up to the
/// next, and what is waited is drawn anew each time.
pub const FEDERATION_RETRY_MIN: Duration = Duration::from_millis(200);
/// Longest wait between two attempts at enrolment or at the resource stream.
pub const FEDERATION_RETRY_MAX: Duration = Duration::from_secs(5);
/// Longest wait after a resource stream that worked has broken off; it is drawn, so that not all of a
/// cluster's gateways come back at once.
pub const FEDERATION_LOST_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Time for one enrolment, and for the resource stream's first message.
pub const FEDERATION_CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 PINGs to a federation node in another pod, also while nothing is said.
pub const NODE_PING_INTERVAL: Duration = Duration::from_secs(5);
/// Longest wait for such a PING's answer; then the connection is given up.
pub const NODE_PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a ServiceAccount's token.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the file of the cluster's trust bundle.
pub const BUNDLE_FILE_BYTES_MAX: u64 = 256 * 1024;
/// Least time between two looks at that file.
pub const BUNDLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// One message of the resource stream.
pub const DELTA_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Messages towards the federation node that wait for the stream.
pub const REPORT_QUEUE_MAX: usize = 16;
/// Reports are pushed this often, besides on change.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two reports.
pub const REPORT_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Size of the snapshot file.
pub const SNAPSHOT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The snapshot file is written this long after a change, so that a burst is one write.
pub const SNAPSHOT_WRITE_DELAY: Duration = Duration::from_millis(200);
/// Diagnostics that one acknowledgement carries.
pub const DIAGNOSTICS_MAX: usize = 1_000;

/// Connections to the admin port at one time; more are closed at once.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Time for a request's head at the admin port, also the next one's, and for its answer.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Store and join streams that are passed on at one time, both ways together.
pub const RELAYED_STREAMS_MAX: usize = 1_024;
/// Handshakes at the relay port at one time; a further connection is closed at once.
pub const RELAY_HANDSHAKES_MAX: usize = 64;
/// Bytes that a relayed stream reads at a time, each way.
pub const RELAY_BUFFER_BYTES: usize = 32 * 1024;
/// Time for the federation node, or a peer, to take or to ask for a relayed stream.
pub const RELAY_CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Commands that wait for one worker.
pub const WORKER_QUEUE_MAX: usize = 2_048;
/// `drain.acceptSeconds` when the file has none: after readiness went off, listeners and peers'
/// streams are accepted for so long, so that load balancers and peers notice.
pub const DRAIN_ACCEPT_GRACE: Duration = Duration::from_millis(500);
/// What is in progress may end by itself for this long when the gateway drains.
pub const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Time for tasks to end once the gateway stops.
pub const STOP_MAX: Duration = Duration::from_secs(5);
