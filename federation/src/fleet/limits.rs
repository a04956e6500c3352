//! Limits of the fleet's state, beside those of the formats (`wire::store::limits`). What is beyond
//! one is refused, not cut.

/// Namespaces in which one cluster has records.
pub const NAMESPACES_PER_CLUSTER_MAX: usize = 1024;
/// Tokens that are remembered, used, expired and revoked ones included.
pub const TOKENS_MAX: usize = 4096;
/// A token is remembered for this time after its expiry, in milliseconds: a day.
pub const TOKEN_MEMORY_MS: u64 = 24 * 3600 * 1000;
/// Request ids that are remembered, so that a command which is sent again is not carried out again.
pub const REQUESTS_MAX: usize = 1024;
/// Diagnostics that one pure step returns.
pub const DIAGNOSTICS_MAX: usize = 4096;
/// Bytes of a watch event that carries a delta; what is longer is sent as a snapshot, in parts.
pub const DELTA_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Parts of one snapshot that a reader takes.
pub const SNAPSHOT_PARTS_MAX: usize = 16_384;
