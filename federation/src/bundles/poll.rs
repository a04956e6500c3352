//! When an endpoint is polled, and what becomes of each poll.

use std::sync::Arc;
use std::time::Duration;

use identity::{BundleChange, BundleError};
use model::code::Code;
use tokio_util::sync::CancellationToken;

use super::fetch::{FetchError, fetch};
use super::keep::Kept;
use crate::config::BundleSource;
use crate::limits::{
    BUNDLE_POLL_INTERVAL, BUNDLE_POLL_INTERVAL_MAX, BUNDLE_POLL_INTERVAL_MIN, BUNDLE_RETRY_MIN,
};

/// Log lines of this target are the record of who was refused.
const AUDIT: &str = "fedgate::audit";

/// Polls one source until the node stops.
pub(crate) async fn poll(source: BundleSource, kept: Arc<Kept>, stop: CancellationToken) {
    let mut pace = Pace::default();
    loop {
        let Some(outcome) = stop.run_until_cancelled(poll_once(&source, &kept)).await else {
            return;
        };
        let set = kept.in_force();
        let hint = set.get(&source.trust_domain).and_then(|bundle| bundle.refresh_hint_seconds);
        let pause = pace.next(outcome.is_ok(), hint, rand::random());
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// Why a poll changed nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum PollError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Refused(#[from] BundleError),
}

impl PollError {
    pub(super) fn code(&self) -> Code {
        match self {
            Self::Fetch(problem) => problem.code(),
            Self::Refused(problem) => problem.code(),
        }
    }
}

/// One poll: the endpoint is judged by the newest bundles (SPIFFE Federation §5.2.2.4).
pub(super) async fn poll_once(
    source: &BundleSource,
    kept: &Kept,
) -> Result<BundleChange, PollError> {
    let (domain, url) = (&source.trust_domain, &source.url);
    let fetched = fetch(source, kept.in_force()).await.map_err(PollError::from);
    let outcome = fetched.and_then(|bundle| {
        let (sequence, keys) = (bundle.sequence, bundle.x509_authorities.len());
        let change = kept.take(bundle)?;
        if change != BundleChange::Unchanged {
            tracing::info!(
                target: AUDIT, trust_domain = %domain, %url, sequence, keys, "a polled bundle is in force"
            );
        }
        Ok(change)
    });
    outcome.inspect_err(|problem| {
        let code = problem.code();
        tracing::warn!(
            target: AUDIT, %code, trust_domain = %domain, %url, %problem, "no bundle by this poll"
        );
        kept.refuse(domain, code, format!("{url}: {problem}"));
    })
}

/// When the next poll is due.
#[derive(Debug, Default)]
struct Pace {
    has_succeeded: bool,
    failures: u32,
}

impl Pace {
    /// After a failure the next interval is waited for, as after a success (SPIFFE Federation §6.2);
    /// only who has heard nothing yet asks sooner. `random` from 0 to 1 spreads those who started
    /// together over a fifth of the interval.
    fn next(&mut self, is_fine: bool, hint: Option<u64>, random: f64) -> Duration {
        let hint = hint.map_or(BUNDLE_POLL_INTERVAL, Duration::from_secs);
        let interval = hint.clamp(BUNDLE_POLL_INTERVAL_MIN, BUNDLE_POLL_INTERVAL_MAX);
        self.has_succeeded |= is_fine;
        self.failures = if is_fine { 0 } else { self.failures.saturating_add(1) };
        let pause = if self.has_succeeded {
            interval
        } else {
            let doubled = 2_u32.saturating_pow(self.failures.saturating_sub(1));
            BUNDLE_RETRY_MIN.saturating_mul(doubled).min(interval)
        };
        pause.mul_f64(0.9 + 0.2 * random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_is_followed_within_bounds_and_spread() {
        let pause = |hint, random| Pace::default().next(true, hint, random);
        let s = Duration::from_secs;
        for (hint, middle) in [(None, 300), (Some(60), 60), (Some(0), 10), (Some(u64::MAX), 3600)] {
            assert_eq!(pause(hint, 0.5), s(middle), "{hint:?}");
            assert_eq!(pause(hint, 0.0), s(middle) * 9 / 10, "{hint:?}");
            assert_eq!(pause(hint, 1.0).as_millis(), s(middle).as_millis() * 11 / 10, "{hint:?}");
        }
    }

    #[test]
    fn who_has_heard_nothing_asks_sooner_and_everybody_else_waits() {
        let mut pace = Pace::default();
        let mut next = |is_fine| pace.next(is_fine, Some(60), 0.5).as_secs();
        assert_eq!([next(false), next(false), next(false)], [5, 10, 20]);
        assert_eq!([next(false), next(false), next(false)], [40, 60, 60]);
        assert_eq!([next(true), next(false), next(false), next(true)], [60; 4]);
    }
}
