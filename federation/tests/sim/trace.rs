//! What happened, as one hash and, if somebody wants to read it, as lines.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Lines that are kept for a report of a violation.
const LAST_LINES: usize = 60;

/// Every event goes in; two runs with the same events have the same hash.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hasher: DefaultHasher,
    events: u64,
    print: bool,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(print: bool, keep: bool) -> Self {
        Self { print, lines: keep.then(Vec::new), ..Self::default() }
    }

    /// `detail` goes into the hash, `text` only into the line.
    pub(crate) fn note(
        &mut self,
        at_ms: u64,
        who: u64,
        what: &'static str,
        detail: impl Hash,
        text: impl FnOnce() -> String,
    ) {
        (at_ms, who, what, detail).hash(&mut self.hasher);
        self.events += 1;
        if !self.print && self.lines.is_none() {
            return;
        }
        let line = format!("{at_ms:>6} ms  n{who} {what:<9} {}", text());
        if self.print {
            println!("{line}");
        }
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hasher.clone().finish()
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn last_lines(&self) -> &[String] {
        let lines = self.lines.as_deref().unwrap_or_default();
        &lines[lines.len().saturating_sub(LAST_LINES)..]
    }

    pub(crate) fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}

/// A hash of bytes for traces and comparisons; not for anybody's security.
pub(crate) fn digest(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
