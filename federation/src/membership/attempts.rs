//! How many failed join attempts one source may make.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{JOIN_FAILURES_MAX, JOIN_FAILURES_WINDOW, JOIN_SOURCES_MAX};

/// Failed attempts of late, by source: an IPv4 address, or an IPv6 network of 64 bits.
///
/// A secret has 256 bits, so nobody guesses one; this bounds what guessing costs us.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<BTreeMap<Source, Failures>>);

#[derive(Debug)]
struct Failures {
    count: u32,
    first: Instant,
}

/// Where an attempt came from; `None` is a caller whose address is not known.
type Source = Option<IpAddr>;

impl Attempts {
    /// How long the source has to wait before its next attempt; zero when it may try now.
    pub(crate) fn wait(&self, remote: Source, now: Instant) -> Duration {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(failures) = table.get(&network(remote)) else { return Duration::ZERO };
        if failures.count < JOIN_FAILURES_MAX {
            return Duration::ZERO;
        }
        JOIN_FAILURES_WINDOW.saturating_sub(now.saturating_duration_since(failures.first))
    }

    pub(crate) fn failed(&self, remote: Source, now: Instant) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let source = network(remote);
        table.retain(|_, failures| {
            now.saturating_duration_since(failures.first) < JOIN_FAILURES_WINDOW
        });
        if table.len() >= JOIN_SOURCES_MAX && !table.contains_key(&source) {
            // Whoever fills the table with sources of its own must not get itself forgotten.
            let oldest = table.iter().min_by_key(|(_, f)| (f.count, f.first)).map(|(s, _)| *s);
            oldest.and_then(|source| table.remove(&source));
        }
        table.entry(source).or_insert(Failures { count: 0, first: now }).count += 1;
    }
}

fn network(remote: Source) -> Source {
    match remote?.to_canonical() {
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[8..].fill(0);
            Some(IpAddr::from(octets))
        }
        address => Some(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Source {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_source_that_fails_too_often_waits() {
        let attempts = Attempts::default();
        let start = Instant::now();
        for _ in 0..JOIN_FAILURES_MAX {
            assert_eq!(attempts.wait(ip("192.0.2.1"), start), Duration::ZERO);
            attempts.failed(ip("192.0.2.1"), start);
        }
        assert_eq!(attempts.wait(ip("192.0.2.1"), start), JOIN_FAILURES_WINDOW);
        assert_eq!(attempts.wait(ip("::ffff:192.0.2.1"), start), JOIN_FAILURES_WINDOW);
        assert_eq!(attempts.wait(ip("192.0.2.2"), start), Duration::ZERO);
        assert_eq!(attempts.wait(None, start), Duration::ZERO);
        assert_eq!(attempts.wait(ip("192.0.2.1"), start + JOIN_FAILURES_WINDOW), Duration::ZERO);
    }

    #[test]
    fn neighbours_in_a_v6_network_are_one_source_and_the_table_is_bounded() {
        let attempts = Attempts::default();
        let start = Instant::now();
        for host in 0..JOIN_FAILURES_MAX {
            attempts.failed(ip(&format!("2001:db8::{host:x}")), start);
        }
        assert!(attempts.wait(ip("2001:db8::ffff"), start) > Duration::ZERO);
        for host in 0..u32::try_from(JOIN_SOURCES_MAX).unwrap() + 7 {
            attempts.failed(Some(IpAddr::from(std::net::Ipv4Addr::from(host))), start);
        }
        assert_eq!(attempts.0.lock().unwrap().len(), JOIN_SOURCES_MAX);
        assert!(attempts.wait(ip("2001:db8::1"), start) > Duration::ZERO, "it is not forgotten");
    }
}
