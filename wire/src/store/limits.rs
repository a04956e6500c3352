//! Every limit of the store's and of joining's formats. What is beyond one is refused, not cut.

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Longest record (StoreRecord, encoded).
pub const RECORD_BYTES_MAX: usize = 64 * KIB;
/// Longest command, which is what one log entry holds.
pub const COMMAND_BYTES_MAX: usize = 256 * KIB;
/// Longest signed payload.
pub const PAYLOAD_BYTES_MAX: usize = 32 * KIB;
/// Longest key: federation prefix, cluster, kind, namespace, name.
pub const KEY_BYTES_MAX: usize = 340;
/// Most records that one cluster may have in the store.
pub const RECORDS_PER_CLUSTER_MAX: usize = 4096;
/// Most bytes of records that one cluster may have in the store.
pub const RECORD_BYTES_PER_CLUSTER_MAX: usize = 16 * MIB;
/// Most clusters in a federation.
pub const MEMBERS_MAX: usize = 4096;
/// Most trust domains of one member.
pub const TRUST_DOMAINS_PER_MEMBER_MAX: usize = 16;
/// Most keys of one member, closed ones included.
pub const KEYS_PER_MEMBER_MAX: usize = 16;
/// Most links of a member's chain; a member that needs more joins anew.
pub const CHAIN_LINKS_MAX: usize = 64;
/// Deepest delegation that a token can give.
pub const DELEGATION_DEPTH_MAX: u32 = 8;
/// Most tokens that are neither used nor expired nor revoked.
pub const OPEN_TOKENS_MAX: usize = 256;
/// Longest life of a token: 7 days.
pub const TOKEN_LIFETIME_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
/// Most revocations that a federation keeps.
pub const REVOCATIONS_MAX: usize = 4096;
/// Longest reason of a revocation.
pub const REASON_BYTES_MAX: usize = 256;
/// Most re-anchored children in one revocation.
pub const REANCHORS_MAX: usize = 512;
/// Most voters: 5, and those that are being replaced.
pub const VOTERS_MAX: usize = 16;
/// Most standbys.
pub const STANDBYS_MAX: usize = 4;
/// Most candidate addresses in a token.
pub const TOKEN_ADDRESSES_MAX: usize = 16;
/// Longest text of a token.
pub const TOKEN_TEXT_BYTES_MAX: usize = 8 * KIB;
/// Longest body of a Raft call.
pub const RAFT_BODY_BYTES_MAX: usize = 2 * MIB;
/// Longest message of the store's and joining's services.
pub const MESSAGE_BYTES_MAX: usize = 4 * MIB;
/// A snapshot's parts are filled to about this.
pub const SNAPSHOT_PART_BYTES: usize = MIB;
/// Most entries of one OwnerUpdate's namespace, and namespaces of one OwnerUpdate.
pub const UPDATE_ENTRIES_MAX: usize = RECORDS_PER_CLUSTER_MAX;
/// Most Heads in one message: one per cluster.
pub const HEADS_MAX: usize = MEMBERS_MAX;
/// Longest text of a refusal or of progress.
pub const TEXT_BYTES_MAX: usize = 4 * KIB;
