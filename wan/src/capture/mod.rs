//! Recordings: classic pcap files (LINKTYPE_RAW), written by the relay and the router, read back by tests.
//!
//! The relay sees UDP payload only, so it synthesises the IP and UDP headers, with the client's and the
//! target's real addresses: Wireshark and tcpdump read the file as it is.

mod read;
mod tap;
mod write;

use std::io;
use std::path::PathBuf;

pub use read::{Reader, Record, contains};
pub(crate) use tap::Tap;
use write::Recorder;
pub use write::Recording;

/// Nanosecond pcap in the writer's byte order (little endian here, always).
const MAGIC_NANOS: u32 = 0xa1b2_3c4d;
/// Microsecond pcap; read, never written.
const MAGIC_MICROS: u32 = 0xa1b2_c3d4;
/// Raw IPv4 or IPv6, told apart by the version nibble.
const LINKTYPE_RAW: u32 = 101;
const FILE_HEADER_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 16;

/// Why a recording could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be created, written or read.
    #[error("failed to {what} capture file {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what we write.
    #[error("capture file {path}: {field} = {value}: {fix}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The field, with the offset of its record.
        field: String,
        /// What was there.
        value: String,
        /// What must be there.
        fix: &'static str,
    },
    /// What to look for is empty or too long.
    #[error("needle = {bytes} bytes: must be 1 to {max} bytes long", max = crate::limits::CAPTURE_NEEDLE_BYTES_MAX)]
    Needle {
        /// Its length.
        bytes: usize,
    },
}
