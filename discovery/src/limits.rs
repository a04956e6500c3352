//! Limits of the file provider.

/// Manifest files in the folder. With more, the folder counts as unreadable.
pub const FOLDER_FILES_MAX: usize = 4096;
/// Text of all manifest files together. With more, the folder counts as unreadable.
pub const FOLDER_BYTES_MAX: u64 = 64 << 20;
/// A change is read when the folder has been quiet for this long, so that an editor's or a copy's
/// several steps are one change ...
pub const SETTLE_QUIET_MS: u64 = 20;
/// ... but no later than this after its first step.
pub const SETTLE_MS_MAX: u64 = 80;
/// How often the folder is read without any event: for file systems that send none, and for files
/// that are changed through a link's target.
pub const RESCAN_INTERVAL_MS: u64 = 2000;
/// How long the removal of most objects at once is held.
pub const CONFIRM_WINDOW_MS: u64 = 30_000;
/// Fewer objects than this are removed at once, however large a share they are.
pub const MASS_DELETE_OBJECTS_MIN: usize = 10;
/// Attempts to read all files of one generation of a Kubernetes volume.
pub const GENERATION_ATTEMPTS_MAX: usize = 3;
