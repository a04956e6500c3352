//! Limits of the providers.

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
/// Objects of one kind that the Kubernetes provider keeps. Those beyond are left out, and it is said.
pub const OBJECTS_PER_KIND_MAX: usize = 50_000;
/// JSON text of one object of Kubernetes, without what is stripped. Larger ones are left out, and it
/// is said. etcd takes 1.5 MiB.
pub const OBJECT_BYTES_MAX: usize = 1 << 20;
/// JSON text of all objects of Kubernetes together. Objects beyond are left out, and it is said.
pub const OBJECTS_BYTES_MAX: usize = 512 << 20;
/// Objects on one page of a list.
pub const LIST_PAGE_OBJECTS: u32 = 250;
/// A discovery document of one version of a group. A longer one is not read, and a list tells.
pub const DISCOVERY_BYTES_MAX: usize = 1 << 20;
/// A page of a list, or a discovery document, comes within this time, or the list begins anew.
pub const LIST_PAGE_TIMEOUT_MS: u64 = 30_000;
/// The API server begins to answer a watch within this time, or it is asked again.
pub const WATCH_START_TIMEOUT_MS: u64 = 4000;
/// A watch that was taken up counts as going on when it brought no error for this long.
pub const WATCH_PROOF_MS: u64 = 1000;
/// A watch is taken up anew after this time, so a connection that died unnoticed costs no more.
pub const WATCH_SECONDS: u32 = 120;
/// After `WATCH_SECONDS` the API server ends a watch; one that it forgot is ended here, this much
/// later.
pub const WATCH_END_GRACE_MS: u64 = 5000;
/// Events of a watch that are taken in at once.
pub const EVENTS_PER_BATCH_MAX: usize = 256;
/// Pages and batches that wait for the provider's task; with more, watches are read no further.
pub const BATCHES_QUEUED_MAX: usize = 16;
/// A change of Kubernetes objects is published when none has followed for this long ...
pub const COALESCE_QUIET_MS: u64 = 10;
/// ... but no later than this after the first one.
pub const COALESCE_MS_MAX: u64 = 50;
/// The first pause after a list or watch that failed; it doubles up to `RETRY_MS_MAX`.
pub const RETRY_MS_MIN: u64 = 250;
/// The longest pause between attempts at a list or watch while the API server answers.
pub const RETRY_MS_MAX: u64 = 2000;
/// How often a kind that the API server does not have is looked for.
pub const ABSENT_RETRY_MS: u64 = 5000;
/// A connection to the API server stands within this time, or it is tried again.
pub const CONNECT_TIMEOUT_MS: u64 = 4000;
/// How often the API server is asked whether it is there.
pub const PROBE_INTERVAL_MS: u64 = 2000;
/// How soon it is asked again after it did not answer.
pub const PROBE_RETRY_MS: u64 = 500;
/// It answers within this time, or that counts as no answer.
pub const PROBE_TIMEOUT_MS: u64 = 3000;
/// It counts as away after this many times without an answer in a row.
pub const PROBE_FAILURES_MAX: u32 = 2;
/// The start waits this long for the first complete catalog, and goes on without it.
pub const START_WAIT_MS: u64 = 20_000;
/// A kind that was refused from the start on is waited for this long (RBAC of a new API server is
/// not there at once); then the first catalog goes without it.
pub const REFUSED_GRACE_MS: u64 = 15_000;
/// A kind that could not be watched for this long becomes a finding.
pub const STALE_TOLD_MS: u64 = 5000;
/// Single deletions that follow each other within this time count as one removal.
pub const DELETE_BURST_MS: u64 = 10_000;
/// Findings about Kubernetes objects in a catalog; of more only the number is told.
pub const KUBERNETES_FINDINGS_MAX: usize = 1000;
