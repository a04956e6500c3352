//! What `tidy` says: one line per broken rule, in the form that editors can jump to.

use std::fmt;

/// One broken rule at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path from the top of the repository.
    pub path: String,
    /// Line, counted from 1; 0 speaks of the whole file.
    pub line: usize,
    /// Short name of the rule, as CONTRIBUTING.md lists it.
    pub rule: &'static str,
    /// What is wrong and how to put it right.
    pub message: String,
}

impl Finding {
    pub fn new(path: &str, line: usize, rule: &'static str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: [{}] {}", self.path, self.line, self.rule, self.message)
    }
}
