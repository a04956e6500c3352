//! How long to wait before the next dial: exponential, full jitter, bounded. Pure.

use std::time::Duration;

use crate::limits::DIAL_BACKOFF_MIN;

/// The pauses between failed dials of one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    failures: u32,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { failures: 0, longest }
    }

    /// A dial failed: how long to wait. `random` is uniform in 0..1. The whole pause is drawn, not
    /// a part added to it: gateways that lost the same peer must not come back in step.
    pub(crate) fn failed(&mut self, random: f64) -> Duration {
        let doubled = DIAL_BACKOFF_MIN.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.longest).mul_f64(random.clamp(0.0, 1.0))
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DIAL_BACKOFF_MAX;

    #[test]
    fn pauses_double_are_bounded_and_drawn_whole() {
        let mut backoff = Backoff::up_to(DIAL_BACKOFF_MAX);
        let longest: Vec<_> = (0..8).map(|_| backoff.failed(1.0).as_millis()).collect();
        assert_eq!(longest, [200, 400, 800, 1600, 3000, 3000, 3000, 3000]);
        assert_eq!(backoff.failed(0.0), Duration::ZERO);
        assert_eq!(backoff.failed(0.5), DIAL_BACKOFF_MAX / 2);
        for _ in 0..100 {
            assert!(backoff.failed(1.0) <= DIAL_BACKOFF_MAX);
        }
        backoff.succeeded();
        assert_eq!(backoff.failed(1.0), DIAL_BACKOFF_MIN);
    }
}
