//! The registry of failure codes: every failure that a person can meet has one. A code is never
//! reused, and its meaning never changes.
//!
//! `1xxx` install, `2xxx` tunnel, `3xxx` identity and trust, `4xxx` catalog, `5xxx` policy, `6xxx`
//! store, `7xxx` routes, `8xxx` egress. The CLI, `fedctl explain`, logs, the response header
//! `x-fed-code` and `docs/reference/codes.md` all read this one table.

use std::fmt;

/// A stable failure code, printed as `FED2104`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u16);

impl Code {
    pub fn number(self) -> u16 {
        self.0
    }

    pub fn entry(self) -> &'static CodeEntry {
        let found = CODES.iter().find(|entry| entry.code == self);
        found.expect("a Code is only made by the registry, where each has its entry")
    }

    /// Parses `FED2104`, `fed2104` or `2104`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("FED").or_else(|| text.strip_prefix("fed")).unwrap_or(text);
        let number = digits.parse().ok()?;
        CODES.iter().map(|entry| entry.code).find(|code| code.0 == number)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FED{:04}", self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the registry says of a code.
#[derive(Debug, Clone, Copy)]
pub struct CodeEntry {
    pub code: Code,
    /// A short name in upper camel case, for logs and conditions.
    pub name: &'static str,
    /// What happened, in one sentence.
    pub summary: &'static str,
    /// Why it happens, usually.
    pub cause: &'static str,
    /// What to do.
    pub fix: &'static str,
}

macro_rules! registry {
    ($table:ident:
     $($number:literal $constant:ident $name:literal: $summary:literal, $cause:literal, $fix:literal;)*) => {
        $(#[doc = $summary] pub const $constant: Code = Code($number);)*

        /// The codes of this file, in order of their numbers.
        pub(super) const $table: &[CodeEntry] = &[$(CodeEntry {
            code: $constant, name: $name, summary: $summary, cause: $cause, fix: $fix,
        }),*];
    };
}

mod registry;
mod store;

pub use registry::*;
pub use store::*;

/// Every code, in order of its number.
pub static CODES: &[CodeEntry] =
    &merged::<{ ENTRIES.len() + STORE_ENTRIES.len() }>(ENTRIES, STORE_ENTRIES);

/// Two tables in order as one in order.
const fn merged<const ALL: usize>(a: &[CodeEntry], b: &[CodeEntry]) -> [CodeEntry; ALL] {
    let mut all = [a[0]; ALL];
    let (mut of_a, mut of_b) = (0, 0);
    while of_a + of_b < ALL {
        let is_a = of_b == b.len() || (of_a < a.len() && a[of_a].code.0 < b[of_b].code.0);
        all[of_a + of_b] = if is_a { a[of_a] } else { b[of_b] };
        if is_a {
            of_a += 1;
        } else {
            of_b += 1;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_are_unique_and_say_something() {
        for pair in CODES.windows(2) {
            assert!(pair[0].code < pair[1].code, "{} after {}", pair[1].code, pair[0].code);
        }
        for entry in CODES {
            assert!((1000..9000).contains(&entry.code.number()));
            for text in [entry.summary, entry.cause, entry.fix] {
                assert!(text.ends_with('.'), "{}: {text:?} is not a sentence", entry.code);
            }
            assert_eq!(entry.code.entry().name, entry.name);
        }
    }

    #[test]
    fn codes_parse_as_people_write_them() {
        for text in ["FED2001", "fed2001", "2001"] {
            assert_eq!(Code::parse(text), Some(TUNNEL_DOWN));
        }
        assert_eq!(TUNNEL_DOWN.to_string(), "FED2001");
        assert_eq!(Code::parse("FED9999"), None);
    }
}
