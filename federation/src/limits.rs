//! Every bound of the federation node on sizes, counts and times.

use std::time::Duration;

/// Gateways that the node remembers, those that have gone included.
pub const GATEWAYS_MAX: usize = 256;
/// Open connections on one socket; further callers wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 1024;
/// Of these, connections of Unix users who may not call; further ones are closed at once.
pub const STRANGERS_MAX: usize = 16;
/// Streams (calls) on one connection.
pub const CALLS_PER_CONNECTION_MAX: u32 = 64;
/// Objects served; what is beyond is left out with a diagnostic.
pub const RESOURCES_MAX: usize = wire::resource::limits::RESOURCES_PER_DELTA_MAX;
/// Encoded bytes of all objects: a snapshot is one message.
pub const SNAPSHOT_BYTES_MAX: usize = wire::resource::limits::FEDERATION_MESSAGE_BYTES_MAX / 2;
/// Revisions that the log remembers; a gateway further behind gets a snapshot.
pub const LOG_REVISIONS_MAX: usize = 4096;
/// Changed keys that the log remembers over all its revisions.
pub const LOG_KEYS_MAX: usize = 100_000;
/// Diagnostics kept of each source, and most that one answer to an operator has.
pub const DIAGNOSTICS_MAX: usize = 4096;
/// Bytes of the configuration file.
pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;
/// Addresses that a cluster advertises.
pub const ADVERTISE_MAX: usize = 64;
/// Unix users that may enrol gateways.
pub const ENROLMENT_UIDS_MAX: usize = 64;
/// `sun_path` on Linux has 108 bytes, one of them for the terminating zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A stream's first message is to come within this time.
pub const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a gateway waits for its name while another process has it: a gateway that was killed and
/// started again may be here before its old stream's end is.
pub const NAME_WAIT: Duration = Duration::from_secs(2);
/// What is open may end by itself for this long when the node stops.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after an accept that failed, for instance for want of file descriptors.
pub const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often the node looks whether its own SVID is to be renewed. Wall clocks jump, so that one
/// long sleep would not do.
pub const RENEWAL_CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Lifetime of SVIDs for gateways and for the node itself.
pub const SVID_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// From so many clusters on, the store has 3 voters.
pub const CLUSTERS_FOR_THREE_VOTERS: usize = 3;
/// From so many clusters on, the store has 5 voters.
pub const CLUSTERS_FOR_FIVE_VOTERS: usize = 7;
/// Clusters that an admin may name as standbys: they hold the log without voting.
pub const STANDBYS_MAX: usize = 4;
/// Failed join attempts of one source (an IPv4 address or a /64) before it has to wait.
pub const JOIN_FAILURES_MAX: u32 = 10;
/// Sources whose failures are remembered; the one with the fewest is forgotten first.
pub const JOIN_SOURCES_MAX: usize = 1024;
/// Joins that wait for a person.
pub const PENDING_JOINS_MAX: usize = 32;

/// How long a source's failed join attempts count.
pub const JOIN_FAILURES_WINDOW: Duration = Duration::from_secs(60);
