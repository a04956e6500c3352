//! What round trips tell of a path: how long it is by itself, and whether a queue stands on it.

use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;

use crate::limits::{BASE_DOUBTED_AFTER, CALM_ROUND_BYTES};

/// The shortest round trip of late being this much above the path's own: a queue stands.
const QUEUE_SHARE_DIVISOR: u32 = 4;
/// The same of the last few packets alone: a queue that comes and goes.
const PASSING_QUEUE_SHARE_DIVISOR: u32 = 32;
const PASSING_QUEUE_MIN: Duration = Duration::from_millis(2);
const PASSING_QUEUE_SAMPLES: usize = 4;
/// Below this, a longer round trip is noise of the hosts rather than a queue.
const QUEUE_MIN: Duration = Duration::from_millis(5);

/// Shortest, recent, smoothed and spread of round trips.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RoundTrips {
    /// What the path takes without a queue, as far as is known.
    base: Duration,
    doubt: Option<Doubt>,
    pub(super) smoothed: Duration,
    pub(super) var: Duration,
    /// quinn's, which never ages.
    min: Duration,
    /// Shortest of this round and of the one before. A standing queue makes every packet wait, so
    /// it shows in the shortest; a busy host delays some, which shows in the smoothed only.
    recent: [Duration; 2],
    round_began: Option<Instant>,
    /// Of the last few packets, in no order.
    last: [Duration; PASSING_QUEUE_SAMPLES],
    samples: usize,
    sent_in_round: u64,
    calm_rounds: u32,
}

/// For so long every round trip was longer than the path's own: a queue, or another path.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    since: Instant,
    shortest: Duration,
    /// We sent so little for a while that no queue was ours.
    was_calm: bool,
}

impl RoundTrips {
    pub(super) fn sent(&mut self, bytes: u64) {
        self.sent_in_round += bytes;
    }

    /// Call it for each packet that is acknowledged; whether a round trip's time began anew.
    pub(super) fn observe(&mut self, now: Instant, rtt: &RttEstimator) -> bool {
        let smoothed = rtt.get();
        if smoothed == self.smoothed {
            return false; // called for each packet, while a sample comes once with each ACK
        }
        if rtt.min() > self.min {
            *self = Self::default(); // what was here before the first sample was a guess
        }
        // quinn keeps the sample to itself, but RFC 9002 §5.3 says how it came in: an eighth.
        let sample = match self.smoothed {
            Duration::ZERO => smoothed,
            before => (smoothed * 8).saturating_sub(before * 7),
        };
        self.min = rtt.min();
        self.follow(now, smoothed, sample.max(self.min))
    }

    pub(super) fn follow(&mut self, now: Instant, smoothed: Duration, sample: Duration) -> bool {
        self.smoothed = smoothed;
        self.var = (self.var * 3 + smoothed.abs_diff(sample)) / 4;
        if self.base.is_zero() || sample < self.base {
            self.base = sample;
        }
        self.last[self.samples % PASSING_QUEUE_SAMPLES] = sample;
        self.samples += 1;
        match self.round_began {
            Some(began) if now.saturating_duration_since(began) < smoothed => {
                self.recent[0] = self.recent[0].min(sample);
                false
            }
            began => {
                self.doubt_base(now);
                self.recent = [sample, if began.is_some() { self.recent[0] } else { sample }];
                self.round_began = Some(now);
                true
            }
        }
    }

    pub(super) fn has_queue(&self) -> bool {
        let recent = self.recent[0].min(self.recent[1]);
        recent > self.base + QUEUE_MIN.max(self.base / QUEUE_SHARE_DIVISOR)
    }

    /// A short queue that we fill and leave again in each round trip is not seen by the shortest of two. But
    /// who was sent beside a packet that it dropped has waited in it.
    pub(super) fn has_passing_queue(&self) -> bool {
        let shortest = self.last.into_iter().min().unwrap_or_default();
        shortest > self.base + PASSING_QUEUE_MIN.max(self.base / PASSING_QUEUE_SHARE_DIVISOR)
    }

    /// At a round's end. A path that got longer looks like one with a queue, for ever: every loss would be
    /// congestion. But a queue of ours is gone when we have sent next to nothing for two rounds.
    fn doubt_base(&mut self, now: Instant) {
        let is_calm = self.sent_in_round <= CALM_ROUND_BYTES;
        self.calm_rounds = if is_calm { self.calm_rounds + 1 } else { 0 };
        self.sent_in_round = 0;
        if !self.has_queue() {
            self.doubt = None;
            return;
        }
        let shortest = self.recent[0];
        let doubt = self.doubt.get_or_insert(Doubt { since: now, shortest, was_calm: false });
        doubt.shortest = doubt.shortest.min(shortest);
        doubt.was_calm |= self.calm_rounds >= 2;
        let lasts = now.saturating_duration_since(doubt.since);
        if lasts >= BASE_DOUBTED_AFTER && doubt.was_calm {
            self.base = doubt.shortest;
            self.doubt = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_queue_delays_every_packet_and_a_busy_host_only_some() {
        let start = Instant::now();
        for (samples, has_queue) in [([40, 90, 80], false), ([70, 90, 80], true)] {
            let mut rtt = RoundTrips::default();
            rtt.follow(start, ms(40), ms(40));
            for round in 1..60_u64 {
                rtt.sent(100_000);
                let sample = ms(samples[round as usize % 3]);
                rtt.follow(start + ms(20) * round as u32, ms(70), sample);
            }
            assert_eq!(rtt.has_queue(), has_queue, "{samples:?}: {rtt:?}");
        }
    }

    #[test]
    fn a_longer_path_is_believed_after_a_while_if_the_queue_cannot_be_ours() {
        for (bytes, second, is_believed) in
            [(1200, 9, false), (1200, 11, true), (100_000, 60, false)]
        {
            let (start, mut rtt) = (Instant::now(), RoundTrips::default());
            rtt.follow(start, ms(1), ms(1));
            let mut now = start;
            while now < start + ms(second * 1000) {
                now += ms(50);
                rtt.sent(bytes);
                rtt.follow(now, ms(100), ms(100));
            }
            assert_eq!(!rtt.has_queue(), is_believed, "{bytes} bytes, {second} s: {rtt:?}");
            rtt.follow(now + ms(50), ms(90), ms(2));
            assert!(!rtt.has_queue(), "a shorter path is believed at once");
        }
    }

    #[test]
    fn idle_connections_learn_of_a_longer_path_by_their_beacons() {
        let (start, mut rtt) = (Instant::now(), RoundTrips::default());
        rtt.follow(start, ms(1), ms(1));
        for beacon in 1..=6 {
            rtt.sent(50);
            rtt.follow(start + ms(5000) * beacon, ms(100), ms(100));
        }
        assert!(!rtt.has_queue(), "{rtt:?}");
    }
}
