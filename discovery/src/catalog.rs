//! What a provider publishes.

use model::{Diagnostic, ResourceSet};

/// Everything that one provider knows, as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    pub resources: ResourceSet,
    /// In a stable order.
    pub diagnostics: Vec<Diagnostic>,
    /// Grows by one with each change of the two above. 0 means that nothing is known yet, which is
    /// not the same as nothing: such a catalog is not to be taken up.
    pub sequence: u64,
}

impl Catalog {
    /// Whether the provider has seen everything at least once.
    pub fn is_known(&self) -> bool {
        self.sequence > 0
    }
}
