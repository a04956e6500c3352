//! How long to wait before the federation node is tried again.

use std::time::Duration;

use rand::Rng;

use crate::limits::{FEDERATION_RETRY_MAX, FEDERATION_RETRY_MIN};

/// Doubles with each failure, with jitter, so that many gateways do not come back at once.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It worked: the next failure begins anew.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Between half of the step and the whole of it.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let step = FEDERATION_RETRY_MIN * 2u32.saturating_pow(self.failures.min(16));
        let step = step.min(FEDERATION_RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        step.mul_f64(rng.random_range(0.5..=1.0))
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
            assert!(wait >= step / 2 && wait <= step, "{failure}: {wait:?}");
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= FEDERATION_RETRY_MIN);
    }
}
