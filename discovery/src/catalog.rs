//! What a provider publishes.

use model::{Diagnostic, ResourceSet};

/// Everything that one provider knows, as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    pub resources: ResourceSet,
    /// In a stable order.
    pub diagnostics: Vec<Diagnostic>,
    /// Grows by one with each change of the two above.
    pub sequence: u64,
}
