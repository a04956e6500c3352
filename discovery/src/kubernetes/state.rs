//! How the provider stands with the API server, kind by kind.

use std::time::Instant;

use super::kinds::WatchedKind;

/// The state of all watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderState {
    /// Every kind that is watched, in the order of [`WatchedKind::ALL`].
    pub kinds: Vec<KindState>,
    /// Why the API server counts as away; `None` while it answers.
    pub away: Option<String>,
    /// Whether a catalog was published: until then gateways keep what they have.
    pub complete: bool,
}

impl ProviderState {
    pub fn kind(&self, kind: WatchedKind) -> Option<&KindState> {
        self.kinds.iter().find(|state| state.kind == kind)
    }

    /// The kinds that the first catalog waits for.
    pub fn missing(&self) -> Vec<WatchedKind> {
        self.kinds.iter().filter(|state| !state.known).map(|state| state.kind).collect()
    }
}

/// The state of one kind's watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindState {
    pub kind: WatchedKind,
    /// The version that the API server serves.
    pub version: Option<&'static str>,
    pub phase: Phase,
    /// When the phase began.
    pub since: Instant,
    /// All objects were seen once, or the kind is known to be absent.
    pub known: bool,
    pub objects: usize,
    /// Objects that a limit keeps out.
    pub left_out: usize,
    /// Why it is not synced.
    pub last_error: Option<String>,
}

/// What is known of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The first complete list is under way.
    Listing,
    /// What is known is what the API server has.
    Synced,
    /// What is known is what the API server had; the watch is being taken up again.
    Stale,
    /// The API server has no such kind; it is looked for again.
    Absent,
    /// The API server does not let us see the kind (RBAC); it is tried again.
    Refused,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Synced => "synced",
            Self::Stale => "stale",
            Self::Absent => "absent",
            Self::Refused => "refused",
        }
    }
}
