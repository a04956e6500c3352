//! What `fedctl bug-report` packs: parts that were collected, without secrets, on request without names.

mod archive;
mod collect;
mod redact;

pub use archive::pack;
pub use collect::{Collection, Part, Way, collect};
pub use redact::{Names, scrub};
