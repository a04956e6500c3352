//! When a connection is dead: the rule alone, without I/O or clock.
//!
//! A pair *talks* while an exchange is open and for two seconds after the last one. Then both sides
//! send a beacon each 100 ms, and no authenticated packet for `max(600 ms, 3 RTT + 4 var)` is death; a
//! peer that was silent of late and came back is given longer (`patience`).
//! An idle pair sends a beacon every five seconds and judges nothing: the first exchange begins the
//! talk with a beacon, and from then the clock runs. Time in which our own event loop stood still
//! is not counted. A beacon carries how long ago its sender heard us, so that a path that is cut in
//! one direction only is seen from both ends.

use std::time::{Duration, Instant};

use wire::tunnel::limits::{
    BEACON_INTERVAL_MS, DEAD_AFTER_MS_MIN, KEEPALIVE_INTERVAL_MS, TALK_LINGER_MS,
};

use crate::limits::{HEALTH_CHECK_INTERVAL, LOOP_GAP_SLACK};

const BEACON_INTERVAL: Duration = Duration::from_millis(BEACON_INTERVAL_MS as u64);
const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(KEEPALIVE_INTERVAL_MS as u64);
const DEAD_AFTER_MIN: Duration = Duration::from_millis(DEAD_AFTER_MS_MIN as u64);
const TALK_LINGER: Duration = Duration::from_millis(TALK_LINGER_MS as u64);

/// One connection's signs of life.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    heard: u64,
    heard_at: Instant,
    talk: Option<Talk>,
    /// What the peer last said of hearing us: the silence it saw, and when we learned of it.
    peer_silence: Option<(Duration, Instant)>,
    next_beacon_at: Instant,
    next_check_at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Talk {
    since: Instant,
    /// When an exchange was last seen open.
    busy_at: Instant,
}

/// What a check is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observation {
    /// What came from the peer so far, and is authentic; only that it grows matters.
    pub(crate) heard: u64,
    /// Whether an exchange is open, or one was since the last check.
    pub(crate) is_busy: bool,
    pub(crate) rtt: Duration,
    pub(crate) rtt_var: Duration,
    /// What silence is death at least, by what the peer has shown before.
    pub(crate) patience: Duration,
}

/// What a check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Advice {
    pub(crate) verdict: Verdict,
    pub(crate) beacon_due: bool,
    /// The peer was heard again after so long, while it should have spoken.
    pub(crate) silence_ended: Option<Duration>,
    /// The check came too late: so did everything else that this event loop was to do.
    pub(crate) loop_stood_still: bool,
    /// When to check again, unless an exchange begins before.
    pub(crate) next_check_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Alive,
    /// Nothing was heard for this long.
    Silent(Duration),
    /// The peer is heard, but it has not heard us for this long.
    Unheard(Duration),
}

impl Health {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            heard: 0,
            heard_at: now,
            talk: None,
            peer_silence: None,
            next_beacon_at: now,
            next_check_at: now,
        }
    }

    /// Looks at the connection. Call it at `next_check_at`, and at once when an exchange begins.
    pub(crate) fn check(&mut self, now: Instant, seen: Observation) -> Advice {
        let loop_stood_still = self.discount_gap(now);
        let mut silence_ended = None;
        if seen.heard != self.heard {
            self.heard = seen.heard;
            silence_ended = self.silence(now);
            self.heard_at = now;
        }
        self.follow_talk(now, seen.is_busy);
        let verdict = self.judge(now, dead_after(seen.rtt, seen.rtt_var).max(seen.patience));
        let beacon_due = now >= self.next_beacon_at;
        if beacon_due {
            self.next_beacon_at = now + self.beacon_interval();
        }
        let longest = if self.talk.is_some() { HEALTH_CHECK_INTERVAL } else { KEEPALIVE_INTERVAL };
        self.next_check_at = self.next_beacon_at.min(now + longest);
        let next_check_at = self.next_check_at;
        Advice { verdict, beacon_due, silence_ended, loop_stood_still, next_check_at }
    }

    /// A beacon came, in which the peer says how long ago it heard us.
    pub(crate) fn beacon_received(&mut self, now: Instant, heard_age: Duration) {
        self.peer_silence = Some((heard_age, now));
    }

    /// Begins to talk without an exchange: to learn soon whether the peer is still there.
    pub(crate) fn probe(&mut self, now: Instant) {
        match &mut self.talk {
            Some(talk) => talk.busy_at = now,
            None => self.begin_talk(now),
        }
    }

    pub(crate) fn is_talking(&self) -> bool {
        self.talk.is_some()
    }

    pub(crate) fn heard_age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard_at)
    }

    /// A check that comes late says nothing of the peer for the time that it was late: our packets
    /// were not read, and our beacons not sent.
    fn discount_gap(&mut self, now: Instant) -> bool {
        let late = now.saturating_duration_since(self.next_check_at);
        if late <= LOOP_GAP_SLACK {
            return false;
        }
        self.heard_at += late;
        if let Some(talk) = &mut self.talk {
            talk.since += late;
        }
        true
    }

    fn follow_talk(&mut self, now: Instant, is_busy: bool) {
        match &mut self.talk {
            None if is_busy => self.begin_talk(now),
            Some(talk) if is_busy => talk.busy_at = now,
            Some(talk) if now.saturating_duration_since(talk.busy_at) > TALK_LINGER => {
                self.talk = None;
                self.next_beacon_at = now + KEEPALIVE_INTERVAL;
            }
            _ => {}
        }
    }

    fn begin_talk(&mut self, now: Instant) {
        self.talk = Some(Talk { since: now, busy_at: now });
        self.next_beacon_at = now;
    }

    fn judge(&self, now: Instant, dead_after: Duration) -> Verdict {
        let Some(talk) = self.talk else { return Verdict::Alive };
        if let Some(silence) = self.silence(now).filter(|silence| *silence >= dead_after) {
            return Verdict::Silent(silence);
        }
        if let Some((age, at)) = self.peer_silence {
            // Only the part of the age that lies within the talk counts: before, we were silent.
            let talked = at.saturating_duration_since(talk.since);
            let unheard = age.min(talked);
            if unheard >= dead_after {
                return Verdict::Unheard(unheard);
            }
        }
        Verdict::Alive
    }

    /// For how long the peer has not been heard, though it was to speak: silence before the talk began
    /// was no promise broken.
    fn silence(&self, now: Instant) -> Option<Duration> {
        let talk = self.talk?;
        Some(now.saturating_duration_since(self.heard_at.max(talk.since)))
    }

    fn beacon_interval(&self) -> Duration {
        if self.talk.is_some() { BEACON_INTERVAL } else { KEEPALIVE_INTERVAL }
    }
}

/// How long a talking peer may be silent.
pub(crate) fn dead_after(rtt: Duration, rtt_var: Duration) -> Duration {
    DEAD_AFTER_MIN.max(rtt * 3 + rtt_var * 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(10);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Drives the rule as the control task does: at each `next_check_at`.
    struct Driver {
        health: Health,
        start: Instant,
        now: Instant,
        frames: u64,
        rtt: Duration,
        patience: Duration,
        longest_silence: Duration,
        beacons: Vec<u64>,
    }

    impl Driver {
        fn new() -> Self {
            let start = Instant::now();
            let health = Health::new(start);
            Self {
                health,
                start,
                now: start,
                frames: 0,
                rtt: RTT,
                patience: Duration::ZERO,
                longest_silence: Duration::ZERO,
                beacons: Vec::new(),
            }
        }

        /// Checks until `until_ms`; the peer is heard at each check if `heard`. The first verdict
        /// that is not `Alive` ends it, with its time.
        fn run(&mut self, until_ms: u64, busy: bool, heard: bool) -> Option<(u64, Verdict)> {
            loop {
                self.frames += u64::from(heard);
                let seen = Observation {
                    heard: self.frames,
                    is_busy: busy,
                    rtt: self.rtt,
                    rtt_var: Duration::ZERO,
                    patience: self.patience,
                };
                let advice = self.health.check(self.now, seen);
                let ended = advice.silence_ended.unwrap_or_default();
                self.longest_silence = self.longest_silence.max(ended);
                let at = (self.now - self.start).as_millis() as u64;
                if advice.beacon_due {
                    self.beacons.push(at);
                }
                if advice.verdict != Verdict::Alive {
                    return Some((at, advice.verdict));
                }
                if advice.next_check_at > self.start + ms(until_ms) {
                    self.now = self.start + ms(until_ms);
                    return None;
                }
                self.now = advice.next_check_at;
            }
        }
    }

    #[test]
    fn a_silent_peer_is_dead_after_six_beacons_and_no_sooner() {
        let mut driver = Driver::new();
        assert_eq!(driver.run(3000, true, true), None);
        let (at, verdict) = driver.run(9000, true, false).unwrap();
        assert!((3600..=3700).contains(&at), "{at} {verdict:?}");
        assert!(matches!(verdict, Verdict::Silent(silence) if silence >= ms(600)));
        let talked = driver.beacons.windows(2).all(|pair| pair[1] - pair[0] == 100);
        assert!(talked, "{:?}", driver.beacons);
    }

    #[test]
    fn a_long_path_is_given_three_round_trips_and_four_deviations() {
        for (rtt, var, limit) in [(10, 1, 600), (200, 0, 600), (300, 20, 980), (600, 50, 2000)] {
            assert_eq!(dead_after(ms(rtt), ms(var)), ms(limit));
        }
        let mut driver = Driver::new();
        driver.rtt = ms(500);
        let (at, _) = driver.run(9000, true, false).unwrap();
        assert!((1500..=1600).contains(&at), "{at}");
    }

    #[test]
    fn a_silence_that_ends_is_told_and_a_patient_side_waits_longer() {
        let mut driver = Driver::new();
        assert_eq!(driver.run(2000, true, true), None);
        assert!(driver.longest_silence <= ms(50), "{:?}", driver.longest_silence);
        assert_eq!(driver.run(2400, true, false), None);
        assert_eq!(driver.run(3000, true, true), None);
        assert!((400..=450).contains(&(driver.longest_silence.as_millis() as u64)));
        driver.patience = ms(1200);
        let (at, _) = driver.run(9000, true, false).unwrap();
        assert!((4200..=4300).contains(&at), "{at}");
    }

    #[test]
    fn an_idle_pair_judges_nothing_until_its_first_exchange() {
        let mut driver = Driver::new();
        assert_eq!(driver.run(60_000, false, false), None);
        let idle = driver.beacons.len();
        assert!((12..=13).contains(&idle), "{:?}", driver.beacons);
        driver.beacons.clear();
        let (at, _) = driver.run(70_000, true, false).unwrap();
        assert_eq!(driver.beacons[0], 60_000, "the first exchange sends a beacon at once");
        assert!((60_600..=60_700).contains(&at), "{at}");
    }

    #[test]
    fn talk_lingers_two_seconds_and_then_falls_silent() {
        let mut driver = Driver::new();
        driver.run(1000, true, true);
        driver.beacons.clear();
        assert_eq!(driver.run(20_000, false, true), None);
        let while_lingering = driver.beacons.iter().filter(|at| **at < 3100).count();
        assert!((19..=22).contains(&while_lingering), "{:?}", driver.beacons);
        assert!(driver.beacons.len() - while_lingering <= 4, "{:?}", driver.beacons);
    }

    #[test]
    fn a_gap_of_our_own_loop_is_not_the_peers_silence() {
        let mut driver = Driver::new();
        assert_eq!(driver.run(2000, true, true), None);
        // The loop stands still for five seconds, and nothing was read when it goes on.
        driver.now += ms(5000);
        assert_eq!(driver.run(7300, true, false), None, "a gap was taken for silence");
        let (at, _) = driver.run(9000, true, false).unwrap();
        assert!((7500..=7750).contains(&at), "{at}");
    }

    #[test]
    fn a_cut_in_one_direction_is_seen_from_the_side_that_still_hears() {
        let mut driver = Driver::new();
        assert_eq!(driver.run(2000, true, true), None);
        for (age, dead) in [(0, false), (599, false), (600, true)] {
            let mut driver =
                Driver { health: driver.health.clone(), beacons: Vec::new(), ..driver };
            driver.health.beacon_received(driver.now, ms(age));
            let verdict = driver.run(2050, true, true);
            assert_eq!(verdict.is_some(), dead, "{age}: {verdict:?}");
        }
    }

    #[test]
    fn an_age_from_before_the_talk_is_no_fault() {
        let mut driver = Driver::new();
        driver.run(30_000, false, true);
        driver.run(30_100, true, true);
        driver.health.beacon_received(driver.now, ms(5000));
        assert_eq!(driver.run(30_200, true, true), None, "we were silent because we were idle");
    }

    #[test]
    fn a_probe_finds_out_without_an_exchange() {
        let mut driver = Driver::new();
        driver.run(10_000, false, true);
        driver.health.probe(driver.now);
        let (at, _) = driver.run(20_000, false, false).unwrap();
        assert!((10_600..=10_700).contains(&at), "{at}");
    }
}
