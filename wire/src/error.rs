//! What is wrong with a message from one of the node's sockets, or with a bundle document.

use std::fmt;

/// Longest piece of a refused value that an error repeats.
const VALUE_CHARS_MAX: usize = 80;

/// A refused value: the message and field by their path, the value, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value}: {problem}")]
pub struct WireError {
    /// `Delta.upserts[3].service.ports[0].port`.
    pub field: String,
    pub value: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

/// Where in a message the decoder is. Lives on the stack; becomes text only in an error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    parent: Option<&'a Self>,
    name: &'static str,
    index: Option<usize>,
}

impl<'a> At<'a> {
    pub(crate) fn message(name: &'static str) -> Self {
        Self { parent: None, name, index: None }
    }

    pub(crate) fn field<'b>(&'b self, name: &'static str) -> At<'b> {
        At { parent: Some(self), name, index: None }
    }

    pub(crate) fn entry<'b>(&'b self, name: &'static str, index: usize) -> At<'b> {
        At { parent: Some(self), name, index: Some(index) }
    }

    /// Refuses the value at this place.
    pub(crate) fn refuse(&self, value: impl fmt::Debug, problem: impl fmt::Display) -> WireError {
        let value = shorten(format!("{value:?}"));
        WireError { field: self.to_string(), value, problem: problem.to_string() }
    }

    /// Refuses the absence of a value at this place.
    pub(crate) fn missing(&self, fix: &str) -> WireError {
        WireError { field: self.to_string(), value: "(absent)".into(), problem: fix.into() }
    }

    /// Refuses a list that is longer than `max`.
    pub(crate) fn check_len(&self, len: usize, max: usize) -> Result<(), WireError> {
        if len > max {
            let problem = format!("at most {max} entries are allowed");
            return Err(WireError {
                field: self.to_string(),
                value: format!("{len} entries"),
                problem,
            });
        }
        Ok(())
    }

    /// Refuses bytes or text that are longer than `max`.
    pub(crate) fn check_bytes(&self, len: usize, max: usize) -> Result<(), WireError> {
        if len > max {
            let problem = format!("at most {max} bytes are allowed");
            let (field, value) = (self.to_string(), format!("{len} bytes"));
            return Err(WireError { field, value, problem });
        }
        Ok(())
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}.")?;
        }
        f.write_str(self.name)?;
        match self.index {
            Some(index) => write!(f, "[{index}]"),
            None => Ok(()),
        }
    }
}

fn shorten(mut value: String) -> String {
    if let Some((end, _)) = value.char_indices().nth(VALUE_CHARS_MAX) {
        value.truncate(end);
        value.push_str("...");
    }
    value
}
