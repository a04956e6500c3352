//! Why a command, a stored state or a watch event was refused.

use std::fmt;

use model::code::Code;

/// A refused command. Nothing of the state has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct Refusal {
    pub code: Code,
    /// Names the field, the value and what would be right.
    pub text: String,
}

impl Refusal {
    pub(crate) fn new(code: Code, text: impl fmt::Display) -> Self {
        Self { code, text: text.to_string() }
    }
}

/// A stored state that does not verify. The node neither votes nor serves with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct FleetError {
    pub code: Code,
    pub text: String,
}

impl FleetError {
    pub(crate) fn damaged(text: impl fmt::Display) -> Self {
        Self { code: model::code::STATE_DAMAGED, text: text.to_string() }
    }
}

/// A refused watch event. The view before it stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct ViewError {
    pub code: Code,
    pub text: String,
}

impl ViewError {
    pub(crate) fn new(code: Code, text: impl fmt::Display) -> Self {
        Self { code, text: text.to_string() }
    }

    /// Whether the watch is to begin anew at the same node: no sign of malice, only of a gap.
    pub fn is_gap(&self) -> bool {
        self.code == model::code::EVENT_OUT_OF_ORDER
    }
}

impl From<Refusal> for ViewError {
    fn from(refusal: Refusal) -> Self {
        Self { code: refusal.code, text: refusal.text }
    }
}
