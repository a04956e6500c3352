//! A timer on a thread of its own: exact to about a tenth of a millisecond, where tokio's has whole ones.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::TIMER_SLEEP_MAX;
use crate::lock;

/// What is due within this goes now: under load one waking serves many packets.
pub(crate) const SLACK: Duration = Duration::from_micros(200);

/// Sleeps until the next packet is due; whoever makes one due earlier rings.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Set by the timer while it sleeps.
    sleeps_until: Option<Instant>,
    /// Set by who rings, cleared by the timer before it looks for work.
    rung: bool,
    stopped: bool,
}

impl Timer {
    /// Calls `deliver`, which returns when something is due next, again and again until it is stopped.
    pub(crate) fn run(&self, mut deliver: impl FnMut(Instant) -> Option<Instant>) {
        loop {
            {
                let mut state = lock(&self.state);
                if state.stopped {
                    return;
                }
                state.rung = false;
            }
            let now = Instant::now();
            let latest = now + TIMER_SLEEP_MAX;
            let next_at = deliver(now).map_or(latest, |next_at| next_at.min(latest));
            self.sleep_until(next_at);
        }
    }

    /// Something is due at this time.
    pub(crate) fn ring(&self, due_at: Instant) {
        let mut state = lock(&self.state);
        if state.sleeps_until.is_none_or(|until| due_at < until) && !state.rung {
            state.rung = true;
            self.bell.notify_one();
        }
    }

    /// Lets [`Self::run`] return.
    pub(crate) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.bell.notify_one();
    }

    fn sleep_until(&self, until: Instant) {
        let mut state = lock(&self.state);
        state.sleeps_until = Some(until);
        while !state.rung && !state.stopped {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.bell.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.sleeps_until = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn it_wakes_when_something_is_due_earlier_than_it_knew_and_stops() {
        let timer = Timer::default();
        let (next, asked) = mpsc::sync_channel(4);
        let (called, calls) = mpsc::sync_channel(4);
        std::thread::scope(|scope| {
            let timer = &timer;
            scope.spawn(move || {
                timer.run(|now| {
                    called.send(now).unwrap();
                    asked.recv().unwrap()
                });
            });
            calls.recv().unwrap();
            let soon = Instant::now() + Duration::from_millis(5);
            next.send(Some(soon)).unwrap();
            assert!(calls.recv().unwrap() >= soon, "not before it is due");

            // It would sleep for long, also if the bell rings before it has fallen asleep.
            timer.ring(Instant::now());
            next.send(None).unwrap();
            let start = Instant::now();
            calls.recv().unwrap();
            assert!(start.elapsed() < TIMER_SLEEP_MAX / 2, "{:?}", start.elapsed());
            next.send(None).unwrap();
            timer.stop();
        });
        assert!(calls.try_recv().is_err());
    }
}
