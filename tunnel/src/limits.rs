//! Every bound of this crate that is not on the wire; those that are stand in `wire::tunnel::limits`.

use std::time::Duration;

/// Datagram batches of other workers' connections that wait in one worker's inbox. Beyond it they
/// are dropped and counted, as a full socket buffer would do.
pub const STEERED_BATCHES_MAX: usize = 512;
/// UDP buffers that are asked for, each way; the kernel grants less if `net.core.*mem_max` is low.
pub const UDP_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// Handshakes that one worker has under way for peers that dial it; more are refused.
pub const HANDSHAKES_MAX: usize = 256;
/// Bytes that a handshake may send before its connection is accepted.
pub const HANDSHAKE_BUFFER_BYTES: u64 = 64 * 1024;
/// As above, for all handshakes of one worker.
pub const HANDSHAKE_BUFFER_TOTAL_BYTES: u64 = 4 * 1024 * 1024;
/// A handshake that takes longer is given up, on either side.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections that one peer gateway may have to us at once: both classes, replacements included.
pub const CONNECTIONS_PER_GATEWAY_MAX: usize = 64;
/// Connections that all gateways of one cluster may have to us at once. A cluster's own CA names its
/// gateways, so a limit for each gateway alone would be none.
pub const CONNECTIONS_PER_CLUSTER_MAX: usize = 512;
/// Handshakes that one source network (an IPv4 address, an IPv6 /64) may have under way at one worker,
/// so that no stranger keeps peers from coming back.
pub const HANDSHAKES_PER_SOURCE_MAX: usize = 64;
/// How long a connection lives on after the peer's SVID has expired; a peer renews long before, and a
/// younger connection takes its place.
pub const EXPIRED_SVID_AGE_MAX: Duration = Duration::from_secs(3600);
/// When a connection's dialler replaces it: percent of the time from its handshake to the end of the SVID
/// that ends first.
pub const REPLACE_AFTER_PERCENT: u32 = 50;
/// Up to so many percent are added, drawn for each connection, so that not all are replaced at once.
pub const REPLACE_JITTER_PERCENT: u32 = 10;
/// No connection is replaced before this age, however short its SVIDs are; and where it did not succeed,
/// the least pause until it is tried again.
pub const REPLACE_INTERVAL_MIN: Duration = Duration::from_secs(60);
/// The pause doubles from try to try up to this.
pub const REPLACE_PAUSE_MAX: Duration = Duration::from_secs(600);
/// QUIC connections that one worker replaces at the same time.
pub const REPLACEMENTS_AT_ONCE: usize = 1;
/// How long a younger connection may take to show that the peer uses it; the older one stays until then.
pub const REPLACE_PROOF_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that was replaced is closed when it has been without exchanges for so long.
pub const REPLACED_LINK_IDLE: Duration = Duration::from_secs(10);

/// Bidirectional streams that a peer may have open on a fast connection (about 100 bytes each).
pub const FAST_STREAMS_MAX: u32 = 1024;
/// Bidirectional streams that a peer may have open on a bulk connection.
pub const BULK_STREAMS_MAX: u32 = 256;
/// Unidirectional streams (RESUME) that a peer may have open on a bulk connection.
pub const RESUME_STREAMS_MAX: u32 = 1024;
/// Bytes of ours that a fast connection keeps until they are acknowledged.
pub const FAST_SEND_WINDOW_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of ours that a bulk connection keeps until they are acknowledged.
pub const BULK_SEND_WINDOW_BYTES: u64 = 64 * 1024 * 1024;

/// Admitted exchanges of one worker that the gateway has not taken yet; more are refused.
pub const INCOMING_EXCHANGES_MAX: usize = 1024;
/// How long `open` waits for stream credit when every connection of the pair is at its limit.
pub const OPEN_WAIT: Duration = Duration::from_millis(500);
/// How long a refusal may take to be handed to the peer.
pub const REFUSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Addresses of one peer that are dialled; further ones wait until one of these is removed.
pub const ADDRESSES_PER_PEER_MAX: usize = 16;
/// Results of one name lookup that are tried.
pub const RESOLVED_ADDRESSES_MAX: usize = 8;
/// Longest wait for a name lookup.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// First pause after a failed dial; it doubles up to the longest, and each is drawn from 0 to it.
pub const DIAL_BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest pause between two dials of one place.
pub const DIAL_BACKOFF_MAX: Duration = Duration::from_secs(3);
/// Source ports that a dial gives up to reach a worker of the peer that no sibling has reached.
pub const SPREAD_TRIES: u32 = 3;
/// Source ports that a dial gives up to reach a gateway that is wanted, where one address leads to
/// several; then the pauses of failed dials begin.
pub const SEEK_TRIES: u32 = 16;
/// Longest pause between two of these tries; each is drawn from 0 to it.
pub const SEEK_PAUSE_MAX: Duration = Duration::from_millis(60);
/// Longest pause between two dials that reach other gateways than those that are missing.
pub const SEEK_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Gateways that become known during a search make it begin anew at most this often.
pub const SEEK_RENEW_AFTER: Duration = Duration::from_secs(10);
/// UDP sockets that one worker dials from; peers share them.
pub const DIAL_PORTS_MAX: usize = 128;
/// Remote addresses of which one such socket remembers what became of a dial.
pub const REMOTES_PER_PORT_MAX: usize = 4096;
/// How long a socket is not used again for a remote address that it led to in vain.
pub const PORT_SPENT_FOR: Duration = Duration::from_secs(60);
/// Gateways of one cluster that are dialled.
pub const GATEWAYS_PER_CLUSTER_MAX: usize = 64;
/// Gateways that are remembered to have answered at one address.
pub const GATEWAYS_PER_ADDRESS_MAX: usize = 64;
/// A connection that lived this long makes the next backoff begin anew.
pub const DIAL_STEADY: Duration = Duration::from_secs(10);
/// A cluster whose last connection ended within this is taken for one that comes back: long enough
/// for a few dials, short enough that nobody waits for a cluster that is gone.
pub const PATH_GRACE: Duration = Duration::from_secs(3);
/// How often a worker looks whether a place lost its connection, besides being told.
pub const DIAL_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// A second address of one gateway is dialled so much later than the first.
pub const ALIAS_DELAY: Duration = Duration::from_millis(500);

/// How often a talking connection is looked at; a death is noticed this much later than its rule.
pub const HEALTH_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// A check that comes this much too late means that our own event loop stood still.
pub const LOOP_GAP_SLACK: Duration = Duration::from_millis(50);
/// A peer that was silent and came back is given this many times its longest silence.
pub const SILENCE_FACTOR: u32 = 3;
/// For how long a silence that ended is remembered.
pub const SILENCE_MEMORY: Duration = Duration::from_secs(30);
/// The most that a peer's earlier silences add to how long it may be silent.
pub const DEAD_AFTER_LEARNED_MAX: Duration = Duration::from_secs(2);
/// A reader that took nothing for this long, while something was there to read, is stalled.
pub const STALL_GRACE: Duration = Duration::from_millis(500);

/// Longest UDP payload that path MTU discovery tries: an Ethernet frame's, under IPv6.
pub const PATH_MTU_BYTES_MAX: u16 = 1452;

/// Chunks that one read takes from a stream.
pub const CHUNKS_PER_READ: usize = 32;
/// Bytes after which an exchange's direction ranks below exchanges that have just begun.
pub const SINK_AFTER_BYTES: u64 = 64 * 1024;

/// UDP ports that are tried, where any will do, until the TCP port of the number is free as well.
pub const FREE_PORT_TRIES: u32 = 16;
/// How long a cluster is without a sound QUIC connection before it is dialled over TCP.
pub const FALLBACK_AFTER: Duration = Duration::from_secs(1);
/// How long a QUIC connection has lived when it takes the place of one over TCP for good.
pub const FALLBACK_RETIRES_AFTER: Duration = Duration::from_secs(3);
/// The least silence that is death on TCP, where one lost packet holds up all that follow it.
pub const TCP_DEAD_AFTER_MIN: Duration = Duration::from_secs(2);
/// Streams that the dialler of a TCP connection keeps open for the listener to begin on.
pub const TCP_OFFERS_IDLE: usize = 32;
/// The same of a store connection over TCP.
pub const STORE_OFFERS_IDLE: usize = 8;
/// Bytes that a joiner may send over TCP before they are read, on one stream and on all: the least that
/// HTTP/2 begins with (RFC 9113 §6.9.2).
pub const TCP_JOINER_WINDOW_BYTES: u64 = 65_535;
/// Time between two measurements of a TCP connection's round-trip time.
pub const TCP_PING_INTERVAL: Duration = Duration::from_secs(1);
/// How long the last words of a TCP connection may take.
pub const TCP_CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Bytes that one stream of a TCP connection keeps until the network takes them.
pub const TCP_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of HTTP/2's own headers of one stream; an exchange's heads are frames inside.
pub const TCP_HEADER_BYTES_MAX: u32 = 4096;
/// TCP connections of one worker that the kernel holds until they are taken.
pub const TCP_BACKLOG_MAX: i32 = 256;
/// Pause after the kernel had no TCP connection to give, though it said so.
pub const TCP_ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Store connections that one cluster's federation node may have to us; it replaces old ones.
pub const STORE_CONNECTIONS_PER_CLUSTER_MAX: usize = 8;
/// Store connections of all clusters together.
pub const STORE_CONNECTIONS_MAX: usize = 1024;
/// Join connections, whose peers have proved a key and no name.
pub const JOIN_CONNECTIONS_MAX: usize = 32;
/// Of these, from one source network (an IPv4 address, an IPv6 /64).
pub const JOIN_CONNECTIONS_PER_SOURCE_MAX: usize = 4;
/// A join connection is closed at this age, whatever it does; a joiner comes again.
pub const JOIN_CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// Admitted store and join connections that the gateway has not taken yet; more are refused.
pub const RELAY_QUEUE_MAX: usize = 64;
/// How long opening a stream on a store or join connection may wait for credit.
pub const RELAY_OPEN_WAIT: Duration = Duration::from_secs(2);
/// Bytes of a relayed stream that one DATA frame carries over TCP: a record of the TLS inside.
pub const RELAY_WRITE_BYTES_MAX: usize = 16 * 1024;
/// How long the handshake inside of a relayed stream may take.
pub const INNER_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the handshake between two processes of one cluster may take.
pub const CLUSTER_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Heads of one peer cluster that wait to be passed up to the federation node; the rest is left out
/// until they are sent again.
pub const HEARD_HEADS_MAX: usize = 256;
/// Revocations of one peer cluster that wait to be passed up.
pub const HEARD_REVOCATIONS_MAX: usize = 16;
/// Peer clusters whose Heads and revocations wait to be passed up.
pub const HEARD_CLUSTERS_MAX: usize = 1024;
/// Least time between two beacons of a connection that carry Heads or revocations.
pub const NEWS_INTERVAL_MIN: Duration = Duration::from_millis(200);

/// How often it is looked whether trust bundles or owners changed, for connections that live.
pub const TRUST_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for the last packets of a tunnel that is closed.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a drain looks again, besides being told of the last exchange's end.
pub const DRAIN_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// TCP connections whose place one connection of ours takes on a path that loses packets by itself; it may
/// have as much under way as they: 61 packets together at 10 % loss, 87 at 5 %.
pub const CONNECTIONS_REPLACED: u64 = 16;
/// Round trips of which the one that brought the most bytes counts.
pub const DELIVERED_ROUNDS: usize = 10;
/// After so long without an acknowledgement, what came through before no longer counts.
pub const DELIVERED_GAP_MAX: Duration = Duration::from_secs(1);
/// For so long each round trip must be longer than the path's own, until the path is taken for a longer one.
pub const BASE_DOUBTED_AFTER: Duration = Duration::from_secs(10);
/// Who sends no more in a round trip fills no queue: ten packets.
pub const CALM_ROUND_BYTES: u64 = 10 * 1200;
