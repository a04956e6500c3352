//! How often the gateway may try again: one budget for all workers, so that retries never multiply
//! an outage.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::{RETRY_BUDGET_PER_SECOND_MIN, RETRY_BUDGET_PERCENT, RETRY_BUDGET_SAVED_MAX};

/// Hundredths of a retry, the unit of the account.
const CENTS: u64 = 100;
const SAVED_MAX_CENTS: u64 = RETRY_BUDGET_SAVED_MAX as u64 * CENTS;

/// Requests pay in, retries draw out, and time pays in a little, for a gateway with few requests.
#[derive(Debug)]
pub struct RetryBudget {
    cents: AtomicU64,
    /// Up to when time has paid in, in milliseconds since the gateway's start.
    paid_until_ms: AtomicU64,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { cents: AtomicU64::new(SAVED_MAX_CENTS), paid_until_ms: AtomicU64::new(0) }
    }
}

impl RetryBudget {
    /// A request arrived.
    pub fn deposit(&self) {
        self.add(RETRY_BUDGET_PERCENT.into());
    }

    /// Takes one retry, if there is one.
    pub fn withdraw(&self, now: Duration) -> bool {
        self.pay_for_time(now);
        let draw = |cents: u64| cents.checked_sub(CENTS);
        self.cents.fetch_update(Ordering::Relaxed, Ordering::Relaxed, draw).is_ok()
    }

    fn pay_for_time(&self, now: Duration) {
        let now_ms = now.as_millis() as u64;
        let paid_until_ms = self.paid_until_ms.swap(now_ms, Ordering::Relaxed);
        let passed_ms = now_ms.saturating_sub(paid_until_ms);
        self.add(passed_ms * u64::from(RETRY_BUDGET_PER_SECOND_MIN) * CENTS / 1_000);
    }

    fn add(&self, cents: u64) {
        if cents == 0 || self.cents.load(Ordering::Relaxed) >= SAVED_MAX_CENTS {
            return; // full, as it is nearly always: no write to a cache line that all workers share
        }
        let add = |old: u64| Some((old + cents).min(SAVED_MAX_CENTS));
        let _ = self.cents.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add); // always Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(budget: &RetryBudget, now: Duration) -> u32 {
        (0..10_000).take_while(|_| budget.withdraw(now)).count() as u32
    }

    #[test]
    fn an_outage_costs_a_fifth_more_requests_at_most() {
        let budget = RetryBudget::default();
        let now = Duration::from_millis(1);
        assert_eq!(drain(&budget, now), RETRY_BUDGET_SAVED_MAX);
        (0..100).for_each(|_| budget.deposit());
        assert_eq!(drain(&budget, now), RETRY_BUDGET_PERCENT);
    }

    #[test]
    fn time_pays_in_up_to_the_limit() {
        let budget = RetryBudget::default();
        drain(&budget, Duration::ZERO);
        let second = Duration::from_secs(1);
        assert_eq!(drain(&budget, second), RETRY_BUDGET_PER_SECOND_MIN);
        assert_eq!(drain(&budget, second), 0);
        assert_eq!(drain(&budget, 3_600 * second), RETRY_BUDGET_SAVED_MAX);
    }
}
