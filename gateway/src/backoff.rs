//! How long to wait before the federation node is tried again.

use std::time::Duration;

use rand::Rng;

use crate::limits::{FEDERATION_LOST_PAUSE_MAX, FEDERATION_RETRY_MAX, FEDERATION_RETRY_MIN};

/// Any time up to a step that doubles with each failure (full jitter): gateways that lost their node
/// in the same moment do not come back in the same moment.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It worked: the next failure begins anew.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// After an attempt that failed.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let step = FEDERATION_RETRY_MIN * 2u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        step.min(FEDERATION_RETRY_MAX).mul_f64(rng.random_range(0.0..=1.0))
    }

    /// After something that worked and then broke off, perhaps for all gateways at once while the node
    /// is there to be asked.
    pub fn after_loss(&mut self, rng: &mut impl Rng) -> Duration {
        self.reset();
        FEDERATION_LOST_PAUSE_MAX.mul_f64(rng.random_range(0.0..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_begin_anew() {
        let (mut backoff, mut rng) = (Backoff::default(), SmallRng::seed_from_u64(1));
        for failure in 0..40 {
            let step = (FEDERATION_RETRY_MIN * 2u32.pow(failure.min(16))).min(FEDERATION_RETRY_MAX);
            let wait = backoff.next(&mut rng);
            assert!(wait <= step, "{failure}: {wait:?}");
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= FEDERATION_RETRY_MIN);
    }

    #[test]
    fn a_thousand_gateways_come_at_a_thousand_times() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut tenths = [0; 10];
        for _ in 0..1000 {
            let wait = Backoff::default().after_loss(&mut rng);
            let tenth = 10.0 * wait.as_secs_f64() / FEDERATION_LOST_PAUSE_MAX.as_secs_f64();
            tenths[(tenth as usize).min(9)] += 1;
        }
        assert!(tenths.iter().all(|count| (60..140).contains(count)), "{tenths:?}");
    }

    #[test]
    fn a_loss_ends_a_row_of_failures() {
        let (mut backoff, mut rng) = (Backoff::default(), SmallRng::seed_from_u64(1));
        for _ in 0..10 {
            backoff.next(&mut rng);
        }
        assert!(backoff.after_loss(&mut rng) <= FEDERATION_LOST_PAUSE_MAX);
        assert!(backoff.next(&mut rng) <= FEDERATION_RETRY_MIN);
    }
}
