//! What an outside client has seen.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// Failures that are kept with their words; all are counted.
const KEPT_MAX: usize = 10_000;
/// Of these, how many are shown.
const SHOWN_MAX: usize = 8;
/// Different bodies that are counted.
const BODIES_MAX: usize = 64;

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// Nobody took the connection.
    Refused,
    /// The connection ended before the answer began.
    Reset,
    /// There was no whole answer in time.
    TimedOut,
    /// The answer began and broke off.
    Truncated,
    /// A whole answer with another status than 200.
    Status,
    /// A whole answer of 200 that says something else, or is no HTTP.
    Wrong,
}

impl Failure {
    const ALL: [Self; 6] =
        [Self::Refused, Self::Reset, Self::TimedOut, Self::Truncated, Self::Status, Self::Wrong];

    fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::TimedOut => "timed out",
            Self::Truncated => "truncated",
            Self::Status => "other status",
            Self::Wrong => "wrong",
        }
    }
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    pub failure: Failure,
    /// What the system said, or the answer's head.
    pub text: String,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.failure.name(), self.text)
    }
}

/// What all clients of one [`super::Outside`] have seen.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    pub requests: u64,
    pub good: u64,
    /// How often each good body came, which says who answered.
    pub bodies: BTreeMap<String, u64>,
    pub longest: Duration,
    failures: BTreeMap<Failure, u64>,
    /// When each of those began, and how it failed.
    kept: Vec<(Instant, Miss)>,
}

impl Ledger {
    pub(super) fn note(&mut self, begun: Instant, outcome: Result<String, Miss>) {
        self.requests += 1;
        self.longest = self.longest.max(begun.elapsed());
        match outcome {
            Ok(body) => {
                self.good += 1;
                if self.bodies.len() < BODIES_MAX || self.bodies.contains_key(&body) {
                    *self.bodies.entry(body).or_default() += 1;
                }
            }
            Err(miss) => {
                *self.failures.entry(miss.failure).or_default() += 1;
                if self.kept.len() < KEPT_MAX {
                    self.kept.push((begun, miss));
                }
            }
        }
    }

    /// Requests that failed, of whatever kind.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    pub fn count(&self, failure: Failure) -> u64 {
        self.failures.get(&failure).copied().unwrap_or_default()
    }

    /// # Panics
    /// When a request failed; says how many of each kind, and what the first ones met.
    pub fn assert_clean(&self) {
        let begun = self.kept.first().map(|(begun, _)| *begun);
        let row = |(at, miss): &(Instant, Miss)| {
            let after = begun.map_or(Duration::ZERO, |begun| *at - begun);
            format!("\n  after {after:?} {miss}")
        };
        let first: String = self.kept.iter().take(SHOWN_MAX).map(row).collect();
        assert!(self.failed() == 0, "{self}{first}");
        assert!(self.requests > 0, "nothing was asked");
    }
}

impl Ledger {
    /// What other clients have seen, too.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.good += other.good;
        self.longest = self.longest.max(other.longest);
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
        for (body, count) in other.bodies {
            *self.bodies.entry(body).or_default() += count;
        }
        self.kept.extend(other.kept);
        self.kept.truncate(KEPT_MAX);
    }

    /// How many failed, by kind.
    pub fn failures(&self) -> String {
        let one = |failure: Failure| format!("{} {}", self.count(failure), failure.name());
        Failure::ALL.map(one).join(", ")
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, longest, .. } = self;
        write!(f, "{requests} requests, {}, the longest took {longest:?}", self.failures())
    }
}
