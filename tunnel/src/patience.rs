//! How long a peer's process was silent of late and still lived. A process that lacks CPU falls silent as
//! one that is cut off does; who was seen to come back is given longer before it is taken for dead.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::GatewayId;

use crate::limits::{DEAD_AFTER_LEARNED_MAX, SILENCE_FACTOR, SILENCE_MEMORY};

/// A process: a gateway and its incarnation. One that starts anew has shown nothing yet.
type Process = (GatewayId, u64);

/// What all links to one process have seen together.
#[derive(Debug, Default)]
pub(crate) struct Patience(Mutex<Seen>);

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// The longest silence that ended, and when it did.
    longest: Option<(Duration, Instant)>,
    /// A silence that was taken for death: it counts once the process is met again.
    death: Option<(Duration, Instant)>,
}

impl Patience {
    /// The peer was heard again after a silence.
    pub(crate) fn heard_after(&self, silence: Duration, now: Instant) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.ended(silence, now);
    }

    /// A link was given up after a silence.
    pub(crate) fn died(&self, silence: Duration, now: Instant) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.death = Some((silence, now));
    }

    /// What silence is death at least; nothing where the peer has shown no gaps of late.
    pub(crate) fn dead_after(&self, now: Instant) -> Duration {
        let seen = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = seen.longest.filter(|(_, at)| is_recent(*at, now));
        longest.map_or(Duration::ZERO, |(silence, _)| {
            (silence * SILENCE_FACTOR).min(DEAD_AFTER_LEARNED_MAX)
        })
    }

    /// A new link leads to the process: it lives, whatever was thought of it.
    fn met(&self, now: Instant) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((silence, at)) = seen.death.take()
            && is_recent(at, now)
        {
            seen.ended(silence, now);
        }
    }

    fn is_of_use(&self, now: Instant) -> bool {
        let seen = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        [seen.longest, seen.death].into_iter().flatten().any(|(_, at)| is_recent(at, now))
    }
}

impl Seen {
    fn ended(&mut self, silence: Duration, now: Instant) {
        let stands =
            self.longest.is_some_and(|(longest, at)| longest > silence && is_recent(at, now));
        if !stands {
            self.longest = Some((silence, now));
        }
    }
}

fn is_recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < SILENCE_MEMORY
}

/// The processes that links lead to, or led to a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Patiences(Mutex<HashMap<Process, Arc<Patience>>>);

impl Patiences {
    /// What is known of a process, for a new link to it.
    pub(crate) fn meet(&self, gateway: GatewayId, incarnation: u64, now: Instant) -> Arc<Patience> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, one| Arc::strong_count(one) > 1 || one.is_of_use(now));
        let one = all.entry((gateway, incarnation)).or_default();
        one.met(now);
        Arc::clone(one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn gateway() -> GatewayId {
        GatewayId::of(&"spiffe://west.fedgate.internal/fedgate/gateway/a".parse().unwrap())
    }

    #[test]
    fn who_comes_back_after_silences_is_given_three_times_as_long_for_half_a_minute() {
        let (patience, start) = (Patience::default(), Instant::now());
        assert_eq!(patience.dead_after(start), Duration::ZERO);
        patience.heard_after(ms(400), start);
        patience.heard_after(ms(100), start + ms(10));
        assert_eq!(patience.dead_after(start + ms(20)), ms(1200));
        patience.heard_after(ms(900), start + ms(30));
        assert_eq!(patience.dead_after(start + ms(40)), DEAD_AFTER_LEARNED_MAX);
        assert_eq!(patience.dead_after(start + ms(30) + SILENCE_MEMORY), Duration::ZERO);
        patience.heard_after(ms(100), start + ms(30) + SILENCE_MEMORY);
        assert_eq!(patience.dead_after(start + ms(31) + SILENCE_MEMORY), ms(300));
    }

    #[test]
    fn a_death_teaches_only_when_the_same_process_is_met_again() {
        let (patiences, start) = (Patiences::default(), Instant::now());
        let id = gateway();
        let first = patiences.meet(id, 1, start);
        first.died(ms(610), start);
        assert_eq!(first.dead_after(start), Duration::ZERO, "its other links die as soon");
        assert_eq!(patiences.meet(id, 2, start).dead_after(start), Duration::ZERO);
        let again = patiences.meet(id, 1, start + ms(500));
        assert_eq!(again.dead_after(start + ms(500)), ms(1830));
    }

    #[test]
    fn a_process_that_is_gone_is_forgotten() {
        let (patiences, start) = (Patiences::default(), Instant::now());
        let id = gateway();
        patiences.meet(id, 1, start).died(ms(610), start);
        let kept = patiences.meet(id, 2, start);
        patiences.meet(id, 3, start + SILENCE_MEMORY);
        let known: Vec<_> = patiences.0.lock().unwrap().keys().map(|process| process.1).collect();
        assert!(known.len() == 2 && !known.contains(&1), "{known:?}");
        drop(kept);
    }
}
