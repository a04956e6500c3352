//! The guard against mass deletes: pure, and the same for every provider.
//!
//! The removal of most objects at once (an unmounted volume, a namespace or a CRD deleted by mistake,
//! an API server that was restored from nothing) is held for a confirm window. So is the removal of
//! all, however few, when nobody could see them for a while.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits;

/// What happens to objects that vanished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Remove,
    /// They stay in service until the window ends.
    Hold,
}

/// Judges removals from one set of objects.
#[derive(Debug)]
pub(crate) struct Guard {
    confirm_window: Duration,
    /// Removals that follow each other within this time count as one.
    burst_window: Duration,
    /// The removals of the last burst window, and when they were.
    recent: VecDeque<(Instant, usize)>,
    /// Since the objects were last known, they could not be seen.
    after_error: bool,
    /// They cannot be seen now.
    unseen: bool,
    /// When a removal that is held now takes effect.
    confirm_at: Option<Instant>,
}

impl Guard {
    pub(crate) fn new(confirm_window: Duration, burst_window: Duration) -> Self {
        Self {
            confirm_window,
            burst_window,
            recent: VecDeque::new(),
            after_error: false,
            unseen: false,
            confirm_at: None,
        }
    }

    /// When [`Self::judge`] is next worth a call although nothing happened.
    pub(crate) fn confirm_at(&self) -> Option<Instant> {
        self.confirm_at
    }

    /// Nobody can see the objects. Nothing is confirmed by the passing of such time.
    pub(crate) fn cannot_see(&mut self, now: Instant) {
        (self.after_error, self.unseen) = (true, true);
        self.confirm_at = self.confirm_at.map(|_| now + self.confirm_window);
    }

    /// Of the objects in service some vanished; `wanted` is how many there would be without them.
    pub(crate) fn judge(
        &mut self,
        vanished: usize,
        in_service: usize,
        wanted: usize,
        now: Instant,
    ) -> Verdict {
        self.forget(now);
        if std::mem::take(&mut self.unseen) {
            self.confirm_at = self.confirm_at.map(|_| now + self.confirm_window);
        }
        let recent: usize = self.recent.iter().map(|(_, count)| count).sum();
        let (lost, of) = (vanished + recent, in_service + recent);
        let mass = lost * 2 > of && lost >= limits::MASS_DELETE_OBJECTS_MIN;
        let emptied = self.after_error && wanted == 0;
        let confirm_at = *self.confirm_at.get_or_insert(now + self.confirm_window);
        let suspicious = vanished > 0 && (mass || emptied);
        if suspicious && now < confirm_at {
            return Verdict::Hold;
        }
        if suspicious {
            self.recent.clear(); // confirmed: what follows is judged afresh
        } else if vanished > 0 {
            self.remember(vanished, now);
        }
        self.confirm_at = None;
        self.after_error = false;
        Verdict::Remove
    }

    fn forget(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|(at, _)| now >= *at + self.burst_window) {
            self.recent.pop_front();
        }
    }

    fn remember(&mut self, count: usize, now: Instant) {
        if self.burst_window.is_zero() {
            return;
        }
        // A tenth of the window is one entry, so that a long burst takes no memory.
        match self.recent.back_mut() {
            Some((at, sum)) if now < *at + self.burst_window / 10 => *sum += count,
            _ => self.recent.push_back((now, count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);
    const BURST: Duration = Duration::from_secs(10);

    /// Deletes one after the other, `every` apart; how many had gone when the guard held.
    fn gone_one_by_one(of: usize, every: Duration) -> usize {
        let mut guard = Guard::new(WINDOW, BURST);
        let mut now = Instant::now();
        for gone in 0..of {
            if guard.judge(1, of - gone, of - gone - 1, now) == Verdict::Hold {
                return gone;
            }
            now += every;
        }
        of
    }

    #[test]
    fn single_deletes_in_a_burst_count_together() {
        assert_eq!(gone_one_by_one(100, Duration::from_millis(10)), 50, "half may go");
        assert_eq!(gone_one_by_one(12, Duration::from_millis(10)), 9, "fewer than ten may go");
        assert_eq!(gone_one_by_one(100, Duration::from_secs(3)), 100, "no burst");
    }

    #[test]
    fn a_confirmed_burst_is_over() {
        let mut guard = Guard::new(WINDOW, BURST);
        let now = Instant::now();
        assert_eq!(guard.judge(15, 20, 5, now), Verdict::Hold);
        assert_eq!(guard.confirm_at(), Some(now + WINDOW));
        assert_eq!(guard.judge(15, 20, 5, now + WINDOW), Verdict::Remove);
        assert_eq!(guard.confirm_at(), None);
        assert_eq!(guard.judge(1, 5, 4, now + WINDOW), Verdict::Remove);
    }

    #[test]
    fn a_long_burst_takes_no_memory() {
        let mut guard = Guard::new(WINDOW, BURST);
        let now = Instant::now();
        for step in 0..10_000 {
            guard.judge(1, 100_000, 99_999, now + Duration::from_millis(step));
        }
        assert!(guard.recent.len() <= 11, "{}", guard.recent.len());
    }
}
