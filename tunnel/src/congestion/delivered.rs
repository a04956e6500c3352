//! How much came through of late.

use std::time::Instant;

use crate::limits::{DELIVERED_GAP_MAX, DELIVERED_ROUNDS};

/// Bytes that were acknowledged in each of the last round trips.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Delivered {
    rounds: [u64; DELIVERED_ROUNDS],
    /// The round that goes on.
    current: usize,
    last: Option<Instant>,
}

impl Delivered {
    /// What came through before an outage says little of after it.
    pub(super) fn acknowledged(&mut self, now: Instant, bytes: u64) {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) > DELIVERED_GAP_MAX) {
            self.rounds = Default::default();
        }
        self.last = Some(now);
        self.rounds[self.current] += bytes;
    }

    pub(super) fn round_ended(&mut self) {
        self.current = (self.current + 1) % DELIVERED_ROUNDS;
        self.rounds[self.current] = 0;
    }

    pub(super) fn most_of_late(&self) -> u64 {
        self.rounds.into_iter().max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_of_ten_round_trips_is_forgotten_after_ten() {
        let (now, mut delivered) = (Instant::now(), Delivered::default());
        delivered.acknowledged(now, 500);
        delivered.acknowledged(now, 400);
        for round in 1..=DELIVERED_ROUNDS {
            assert_eq!(delivered.most_of_late(), 900, "round {round}");
            delivered.round_ended();
            delivered.acknowledged(now, 100);
        }
        assert_eq!(delivered.most_of_late(), 100);
    }

    #[test]
    fn nothing_is_known_after_an_outage() {
        let (now, mut delivered) = (Instant::now(), Delivered::default());
        delivered.acknowledged(now, 900);
        delivered.acknowledged(now + DELIVERED_GAP_MAX, 100);
        assert_eq!(delivered.most_of_late(), 1000);
        delivered.acknowledged(now + DELIVERED_GAP_MAX * 3, 100);
        assert_eq!(delivered.most_of_late(), 100);
    }
}
