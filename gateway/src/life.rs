//! What is told of the gateway's own SVID while nobody renews it: a line in the log when less than a half of
//! its life is left, a fifth and a twentieth, and when it is over. It is renewed early in its life, so whoever
//! reads the log has hours.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::Svid;
use identity::limits::{CLOCK_SKEW, SVID_RENEWAL_AGE};
use model::code;
use tokio::time::sleep;

use crate::limits::{SVID_LIFE_LEFT_PERCENT, SVID_LOOK_INTERVAL};
use crate::state::GatewayState;

/// Looks at the SVID for as long as the gateway runs.
pub(crate) async fn keep_told(state: Arc<GatewayState>) {
    let mut told = Told::default();
    loop {
        let svid = state.identity.load().svid.clone();
        let mut pause = SVID_LOOK_INTERVAL;
        if let Some(svid) = svid {
            let life = Life::of(&svid);
            if let Some(level) = told.news(life, SystemTime::now()) {
                tell(&svid, level);
            }
            pause = pause.min(life.length() / 100);
        }
        // Wall clocks jump, so that one long sleep would not do.
        sleep(pause.max(Duration::from_millis(10))).await;
    }
}

/// `level` percent, or none at 0.
fn tell(svid: &Svid, level: u64) {
    let until = jiff::Timestamp::try_from(svid.not_after());
    let until = until.map_or_else(|_| String::new(), |until| until.to_string());
    let (spiffe_id, late) = (svid.id(), code::SVID_RENEWAL_LATE);
    let is_last = SVID_LIFE_LEFT_PERCENT.iter().all(|percent| level <= *percent);
    match level {
        0 => tracing::error!(
            code = %code::SVID_EXPIRED, %spiffe_id, until,
            "the gateway's SVID has run out: no new connection to a peer, and those that stand end soon"
        ),
        _ if is_last => tracing::error!(
            code = %late, %spiffe_id, until, less_than_percent = level,
            "the gateway's SVID is near its end and was not renewed"
        ),
        _ => tracing::warn!(
            code = %late, %spiffe_id, until, less_than_percent = level,
            "the gateway's SVID was not renewed in time"
        ),
    }
}

/// From its issue to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    from: SystemTime,
    until: SystemTime,
}

impl Life {
    fn of(svid: &Svid) -> Self {
        Self { from: svid.not_before() + CLOCK_SKEW, until: svid.not_after() }
    }

    fn length(self) -> Duration {
        self.until.duration_since(self.from).unwrap_or_default()
    }

    /// The lowest percentage that there is less left than; 0 when nothing is.
    fn level(self, now: SystemTime) -> Option<u64> {
        let length = self.length();
        let Ok(left) = self.until.duration_since(now) else { return Some(0) };
        // One that is renewed at half of its life is not late then.
        let is_long = length > 2 * SVID_RENEWAL_AGE;
        let levels = SVID_LIFE_LEFT_PERCENT.into_iter().skip(usize::from(!is_long));
        let fallen =
            |percent: &u64| left.as_millis() * 100 < length.as_millis() * u128::from(*percent);
        levels.filter(fallen).min()
    }
}

/// The lowest level that was told of the SVID that ends then.
#[derive(Debug, Default)]
struct Told {
    until: Option<SystemTime>,
    level: Option<u64>,
}

impl Told {
    /// The level that the SVID has fallen to, if that was not told yet.
    fn news(&mut self, life: Life, now: SystemTime) -> Option<u64> {
        if self.until != Some(life.until) {
            *self = Self { until: Some(life.until), level: None };
        }
        let level = life.level(now)?;
        let is_news = self.level.is_none_or(|told| level < told);
        is_news.then(|| *self.level.insert(level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn life(length: Duration) -> Life {
        let from = SystemTime::UNIX_EPOCH + 500_000 * HOUR;
        Life { from, until: from + length }
    }

    /// What is told of a life whose clock is looked at each hundredth, and at which hundredth.
    fn told_of(life: Life) -> Vec<(u32, u64)> {
        let mut told = Told::default();
        let at = |hundredth| life.from + life.length() * hundredth / 100;
        let hundredths = 0..=120;
        hundredths
            .filter_map(|hundredth| Some((hundredth, told.news(life, at(hundredth))?)))
            .collect()
    }

    #[test]
    fn each_level_is_told_once() {
        assert_eq!(told_of(life(24 * HOUR)), [(51, 50), (81, 20), (96, 5), (101, 0)]);
        let short = [(81, 20), (96, 5), (101, 0)];
        assert_eq!(told_of(life(HOUR)), short, "it is renewed at half of its life");
    }

    #[test]
    fn a_younger_one_is_told_of_anew_and_a_clock_that_is_set_back_repeats_nothing() {
        let (old, mut told) = (life(24 * HOUR), Told::default());
        assert_eq!(told.news(old, old.from + 20 * HOUR), Some(20));
        assert_eq!(told.news(old, old.from + 13 * HOUR), None);
        assert_eq!(told.news(old, old.from + 20 * HOUR), None);
        let young = Life { from: old.from + 20 * HOUR, until: old.until + 20 * HOUR };
        assert_eq!(told.news(young, young.from + HOUR), None, "it is not late");
        assert_eq!(told.news(young, young.from + 20 * HOUR), Some(20));
        // A process that begins late says how it is, and not how it came to that.
        assert_eq!(Told::default().news(old, old.until + HOUR), Some(0));
    }
}
