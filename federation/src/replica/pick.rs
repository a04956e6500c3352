//! Which member a Replica is fed from, and when it tries again: pure, randomness is a parameter.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::ClusterId;

use super::limits::{
    RETRY_BASE, RETRY_MAX, SOURCE_AVOIDED_FOR, SOURCE_DISTRUSTED_FOR, SOURCES_MAX,
};

/// A member that serves the watch stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) cluster: ClusterId,
    /// A voter has the whole store; a Replica only what it may see itself, so it is the second choice.
    pub(super) voter: bool,
}

/// Why a source was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Not reachable, or the stream broke.
    Broken,
    /// It sent what verification refuses, or withholds: it is tried again only after everybody else.
    Lied,
}

/// The memory of a Replica about its sources.
#[derive(Debug, Default)]
pub(super) struct Sources {
    avoided: BTreeMap<ClusterId, Avoided>,
    /// Attempts since the last one that delivered something.
    failures: u32,
}

#[derive(Debug, Clone, Copy)]
struct Avoided {
    until: Instant,
    left: Left,
}

impl Sources {
    /// The next source: honest before suspected, voters before Replicas, then by lot.
    pub(super) fn pick(&mut self, all: &[Candidate], now: Instant, lot: u64) -> Option<ClusterId> {
        self.avoided.retain(|_, avoided| avoided.until > now);
        let rank = |candidate: &Candidate| {
            let avoided = self.avoided.get(&candidate.cluster).map(|avoided| avoided.left);
            let suspicion = match avoided {
                None => 0,
                Some(Left::Broken) => 1,
                Some(Left::Lied) => 2,
            };
            (suspicion, !candidate.voter)
        };
        let best = all.iter().map(rank).min()?;
        let equal: Vec<&Candidate> = all.iter().filter(|one| rank(one) == best).collect();
        let drawn = usize::try_from(lot % equal.len() as u64).unwrap_or(0);
        Some(equal[drawn].cluster)
    }

    /// Something was delivered and verified.
    pub(super) fn delivered(&mut self, source: &ClusterId) {
        self.failures = 0;
        if self.avoided.get(source).is_some_and(|avoided| avoided.left == Left::Broken) {
            self.avoided.remove(source);
        }
    }

    pub(super) fn left(&mut self, source: ClusterId, left: Left, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let lifetime = match left {
            Left::Broken => SOURCE_AVOIDED_FOR,
            Left::Lied => SOURCE_DISTRUSTED_FOR,
        };
        if self.avoided.len() >= SOURCES_MAX && !self.avoided.contains_key(&source) {
            let oldest = self.avoided.iter().min_by_key(|(_, avoided)| avoided.until);
            let oldest = oldest.map(|(cluster, _)| *cluster);
            oldest.map(|cluster| self.avoided.remove(&cluster));
        }
        let avoided = Avoided { until: now + lifetime, left };
        let kept = self.avoided.entry(source).or_insert(avoided);
        // A lie is not forgotten because the connection broke, too.
        if kept.left != Left::Lied || left == Left::Lied {
            *kept = avoided;
        }
    }

    /// Full jitter: anywhere between nothing and a bound that doubles, so that five hundred readers
    /// of a node that restarted do not come back together.
    pub(super) fn pause(&self, lot: u64) -> Duration {
        if self.failures == 0 {
            return Duration::ZERO;
        }
        let doubled = RETRY_BASE.saturating_mul(1 << (self.failures - 1).min(16));
        let bound = u64::try_from(doubled.min(RETRY_MAX).as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(lot % (bound + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EAST: ClusterId = ClusterId::from_bytes([1; 16]);
    const WEST: ClusterId = ClusterId::from_bytes([2; 16]);
    const NORTH: ClusterId = ClusterId::from_bytes([3; 16]);

    const ALL: [Candidate; 3] = [
        Candidate { cluster: EAST, voter: true },
        Candidate { cluster: WEST, voter: true },
        Candidate { cluster: NORTH, voter: false },
    ];

    #[test]
    fn a_liar_is_the_last_choice_and_a_broken_one_the_last_but_one() {
        let (mut sources, now) = (Sources::default(), Instant::now());
        assert_eq!(sources.pick(&ALL, now, 0), Some(EAST));
        assert_eq!(sources.pick(&ALL, now, 1), Some(WEST));
        sources.left(EAST, Left::Lied, now);
        assert_eq!(sources.pick(&ALL, now, 0), Some(WEST));
        sources.left(WEST, Left::Broken, now);
        assert_eq!(sources.pick(&ALL, now, 0), Some(NORTH));
        sources.left(NORTH, Left::Broken, now);
        assert_eq!(sources.pick(&ALL, now, 7), Some(WEST));
        sources.left(EAST, Left::Broken, now);
        assert_eq!(sources.pick(&ALL[..1], now, 7), Some(EAST));
        sources.delivered(&NORTH);
        assert_eq!(sources.pick(&ALL, now, 7), Some(NORTH));
        // All is forgotten in time.
        let later = now + SOURCE_DISTRUSTED_FOR;
        assert_eq!(sources.pick(&ALL, later, 0), Some(EAST));
        assert_eq!(sources.pick(&[], later, 0), None);
    }

    #[test]
    fn pauses_are_jittered_grow_and_have_a_bound() {
        let (mut sources, now) = (Sources::default(), Instant::now());
        assert_eq!(sources.pause(u64::MAX), Duration::ZERO);
        for failures in 1..100 {
            sources.left(EAST, Left::Broken, now);
            let longest = (0..20_000).map(|lot| sources.pause(lot)).max().unwrap();
            let expected = RETRY_BASE * (1 << (failures - 1).min(16));
            assert_eq!(longest, expected.min(RETRY_MAX).min(Duration::from_millis(19_999)));
            assert_eq!(sources.pause(0), Duration::ZERO);
        }
        sources.delivered(&EAST);
        assert_eq!(sources.pause(u64::MAX), Duration::ZERO);
    }

    #[test]
    fn the_memory_is_bounded() {
        let (mut sources, now) = (Sources::default(), Instant::now());
        for number in 0..=255_u8 {
            sources.left(ClusterId::from_bytes([number; 16]), Left::Lied, now);
        }
        assert_eq!(sources.avoided.len(), SOURCES_MAX);
    }
}
