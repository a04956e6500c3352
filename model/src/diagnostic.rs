//! What a pure step found wrong with a user's object: it becomes a log line, a status condition, or
//! a row of `fedctl analyze`. The bad object is dropped; the last good state stays.

use std::fmt;

use crate::code::Code;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The object works, but not all of it: an unserved field was left out.
    Warning,
    /// The object (or the named part of it) is not in service.
    Error,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One finding about one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Diagnostic {
    pub severity: Severity,
    pub code: Code,
    /// `kind/namespace/name`, as [`crate::ResourceKey`] prints it, or a file name and line.
    pub object: String,
    /// Path of the field, `spec.rules[0].backendRefs[0].port`; empty when the whole object is meant.
    pub field: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.severity.as_str(), self.code, self.object)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        write!(f, ": {}; {}", self.message, self.fix)
    }
}
