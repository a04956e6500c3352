//! Counts what `cargo test` ran, over all its binaries, and guards the set of skipped tests.
//!
//! A test that cannot run on this machine prints `skipped: <its name>: <why>` and returns. It counts
//! as skipped, not as passed. Where nothing may be missing (`CI` is set) its name must stand in
//! `.ci/skipped.txt`, a list that only shrinks; elsewhere it is only told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{BufRead, Write};

use anyhow::{Context, Result};

/// Where the names of the tests that may be skipped stand.
pub const SKIPPED_LIST: &str = ".ci/skipped.txt";

/// Counts over all test binaries.
#[derive(Debug, Default)]
pub struct Tally {
    passed: usize,
    failed: usize,
    binaries: usize,
    ignored: BTreeSet<String>,
    /// Name of a test that gave up on this machine, and why.
    skipped: BTreeMap<String, String>,
}

impl Tally {
    /// Copies the runner's output from `input` to `output` and counts on the way. The captured
    /// output of tests that passed is read, but not copied.
    pub fn follow(&mut self, input: impl BufRead, mut output: impl Write) -> Result<()> {
        let mut in_successes = false;
        for line in input.split(b'\n') {
            let line = line.context("cannot read the runner's output")?;
            let line = String::from_utf8_lossy(&line);
            self.count(&line);
            if line == "successes:" {
                in_successes = true;
            } else if line == "failures:" || line.starts_with("test result:") {
                in_successes = false;
            }
            if !in_successes {
                writeln!(output, "{line}")?;
            }
        }
        Ok(())
    }

    fn count(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.binaries += 1;
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
        } else if let Some(skip) = line.strip_prefix("skipped: ") {
            let (name, reason) = skip.split_once(": ").unwrap_or((skip, "no reason given"));
            self.skipped.insert(name.trim().to_owned(), reason.trim().to_owned());
        } else if let Some((name, _)) = ignored_test(line) {
            self.ignored.insert(name.to_owned());
        }
    }

    /// Says that the runner itself failed; if it named no failed test, that is one failure more.
    pub fn runner_failed(&mut self) {
        self.failed = self.failed.max(1);
    }

    /// What is wrong with this run: failures, or no test at all.
    pub fn failure(&self) -> Option<String> {
        match (self.failed, self.passed) {
            (0, 0) => Some("no test ran".to_owned()),
            (0, _) => None,
            (failed, _) => Some(format!("{failed} failed; the lines above say which")),
        }
    }

    /// Tests that were skipped and may not be. `allowed` is the text of the list of those that may.
    pub fn unlisted(&self, allowed: &str) -> Vec<String> {
        let allowed: BTreeSet<&str> = allowed
            .lines()
            .map(|line| line.split('#').next().unwrap_or("").trim())
            .filter(|name| !name.is_empty())
            .collect();
        let unlisted = self.not_run().filter(|name| !allowed.contains(name.as_str()));
        unlisted
            .map(|name| {
                let reason = self.skipped.get(name).map_or("#[ignore]", String::as_str);
                format!("`{name}` was skipped ({reason}) and is not in {SKIPPED_LIST}")
            })
            .collect()
    }

    fn not_run(&self) -> impl Iterator<Item = &String> {
        self.ignored.iter().chain(self.skipped.keys())
    }
}

/// The closing line: `N passed, N failed, N skipped`.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped = self.ignored.len() + self.skipped.len();
        let passed = self.passed.saturating_sub(self.skipped.len());
        write!(f, "{passed} passed, {} failed, {skipped} skipped", self.failed)
    }
}

/// `test a::b ... ignored, why` -> `a::b`.
fn ignored_test(line: &str) -> Option<(&str, &str)> {
    let (name, state) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    state.strip_prefix("ignored").map(|reason| (name, reason))
}

/// The number right before `word`.
fn number_before(text: &str, word: &str) -> usize {
    let before = text.split(word).next().unwrap_or("");
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or("");
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 4 tests
test fine ... ok
test wide::namespaces ... ok
test slow ... ignored, needs an hour
test broken ... FAILED

successes:

---- wide::namespaces stdout ----
skipped: wide::namespaces: no /dev/net/tun: is the module loaded?


successes:
    fine

failures:

---- broken stdout ----
it broke

failures:
    broken

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

running 12 tests
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    fn tally(output: &str) -> (Tally, String) {
        let mut tally = Tally::default();
        let mut copy = Vec::new();
        tally.follow(output.as_bytes(), &mut copy).unwrap();
        (tally, String::from_utf8(copy).unwrap())
    }

    #[test]
    fn counts_are_summed_and_skipped_tests_do_not_count_as_passed() {
        let (tally, copy) = tally(OUTPUT);
        assert_eq!(tally.to_string(), "13 passed, 1 failed, 2 skipped");
        assert_eq!(tally.binaries, 2);
        assert!(copy.contains("it broke") && !copy.contains("skipped:"), "{copy}");
        assert!(copy.contains("test result: ok. 12 passed"), "{copy}");
    }

    #[test]
    fn the_skipped_set_may_shrink_but_not_grow() {
        let skips = OUTPUT.replace("1 failed", "0 failed");
        let (tally, _) = tally(&skips);
        assert_eq!(tally.failure(), None);
        let all = "# why\nwide::namespaces  # needs a TUN device\nslow\nlong gone\n";
        assert_eq!(tally.unlisted(all), [] as [String; 0]);
        assert_eq!(
            tally.unlisted("slow\n"),
            [
                "`wide::namespaces` was skipped (no /dev/net/tun: is the module loaded?) and is not in \
                 .ci/skipped.txt"
            ]
        );
        assert_eq!(tally.unlisted("").len(), 2);
    }

    #[test]
    fn failures_and_empty_runs_are_complaints() {
        let (failed, _) = tally(OUTPUT);
        assert_eq!(failed.failure().as_deref(), Some("1 failed; the lines above say which"));
        let (mut empty, _) = tally("error: could not compile\n");
        assert_eq!(empty.failure().as_deref(), Some("no test ran"));
        empty.runner_failed();
        assert_eq!(empty.to_string(), "0 passed, 1 failed, 0 skipped");
    }
}
