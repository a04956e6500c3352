//! Every bound of this crate on sizes, counts and times.

use std::time::Duration;

/// How often a configuration file is looked at without SIGHUP. By its times, so it costs nothing, and
/// works on file systems that send no events and through the links of a Kubernetes volume.
pub const CONFIG_POLL: Duration = Duration::from_secs(1);
/// Bytes of a configuration file that are read again; the parsers' own limits are lower or the same.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// How long the service manager is kept waiting for a process that waits for another one itself.
pub const START_WAIT_MAX: Duration = Duration::from_secs(10);
/// Characters of a status that is told to the service manager; the rest is cut off.
pub const STATUS_CHARS_MAX: usize = 256;
