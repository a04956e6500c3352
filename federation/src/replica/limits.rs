//! Every bound of the watch, its readers, and of what is known about owners.

use std::time::Duration;

/// Clusters whose Heads a node keeps track of.
pub const OWNERS_MAX: usize = 4096;
/// An owner's word is marked as stale from this age on.
pub const STALE_AFTER_DEFAULT: Duration = Duration::from_secs(90);
/// An owner without a live tunnel is withdrawn from this age on.
pub const WITHDRAWN_AFTER_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// How long a word that the store has a quorum holds; without one no owner's age counts on.
pub const QUORUM_WORD_LIFETIME: Duration = Duration::from_secs(30);
/// How often the ages of owners' words are written to disk.
pub const AGE_SAVE_INTERVAL: Duration = Duration::from_secs(60);
/// What others have for this long, and the source has not delivered, is withheld.
pub const WITHHELD_AFTER: Duration = Duration::from_secs(30);
/// Latest generations of each owner whose Heads are compared.
pub const HEADS_PER_OWNER_MAX: usize = 16;
/// Members named for one finding.
pub const TELLERS_MAX: usize = 8;
/// Findings about owners and sources that are kept on disk; the oldest make room.
pub const FINDINGS_MAX: usize = 64;
/// How often a node compares Heads with some peers; each time is jittered by up to a half.
pub const HEADS_INTERVAL: Duration = Duration::from_secs(10);
/// Peers that are asked for their Heads each time.
pub const HEADS_PEERS_MAX: usize = 3;
/// One answer to a question for Heads is to come within this time.
pub const HEADS_TIMEOUT: Duration = Duration::from_secs(5);
/// Members that are asked at the same time by `fedctl store verify --all`.
pub const VERIFY_PARALLEL_MAX: usize = 16;
/// Watch streams that one node serves.
pub const WATCHERS_MAX: usize = 512;
/// Watch streams that one cluster may hold: its node's, and one that has not noticed its end yet.
pub const WATCHERS_PER_CLUSTER_MAX: usize = 4;
/// States that the watch server can make a delta from; a watcher further behind is resynced.
pub const WATCH_STATES_MAX: usize = 256;
/// Revisions of no concern to a watcher after which it is told of them all the same.
pub const WATCH_IDLE_REVISIONS_MAX: u64 = 64;
/// Events on their way to one watcher.
pub const WATCH_QUEUE_EVENTS_MAX: usize = 4;
/// A watcher that takes nothing for this long is cut off; it comes back and resumes.
pub const WATCHER_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The watch server says that it is alive this often.
pub const WATCH_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// A source that is silent for this long is left.
pub const WATCH_SILENCE_TIMEOUT: Duration = Duration::from_secs(16);
/// Sources that a Replica remembers as broken or lying.
pub const SOURCES_MAX: usize = 64;
/// How long a source that could not be reached is a later choice.
pub const SOURCE_AVOIDED_FOR: Duration = Duration::from_secs(30);
/// How long a source that lied or withheld is the last choice.
pub const SOURCE_DISTRUSTED_FOR: Duration = Duration::from_secs(3600);
/// Bound of the first pause before a Replica connects again; it doubles with each failure.
pub const RETRY_BASE: Duration = Duration::from_millis(200);
/// ... up to this.
pub const RETRY_MAX: Duration = Duration::from_secs(15);
/// Bytes that one step of reading the disk takes up.
pub const SCAN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A source answers the request for its stream within this time.
pub const WATCH_OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a reader looks for what only time can show.
pub const WATCH_TICK_INTERVAL: Duration = Duration::from_secs(1);
/// Gaps in a row after which a source is left.
pub const GAPS_MAX: u32 = 3;
/// How long a Replica is fed from another Replica before it looks for a voter again.
pub const RELAY_PATIENCE: Duration = Duration::from_secs(60);
