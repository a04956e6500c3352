//! How a connection finds its rate, and what it tells of the path on the way.
//!
//! [`Steady`] is CUBIC that tells isolated loss from congestion (docs/design/0001-congestion-control.md).
//! Long paths between sites lose a packet in a hundred for reasons of their own, and CUBIC takes
//! each for a full queue: 5 Mbit/s at 40 ms and 1 % loss, however wide the path is.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{
    Controller, ControllerFactory, ControllerMetrics, CubicConfig, NewRenoConfig,
};
use quinn_proto::RttEstimator;

use crate::config::CongestionControl;

/// Loss up to this share, without a queue, is the path's own and not congestion.
const LOSS_TOLERATED_PERCENT: u64 = 3;
/// The share is judged over so many bytes at least: about 256 packets.
const LOSS_SAMPLE_BYTES_MIN: u64 = 256 * 1200;
/// The shortest round trip of late being this much above the shortest ever: a queue stands.
const QUEUE_SHARE_DIVISOR: u32 = 4;
/// Below this, a longer round trip is noise of the hosts rather than a queue.
const QUEUE_MIN: Duration = Duration::from_millis(5);

/// Makes a connection's controller.
#[derive(Debug)]
pub(crate) struct SteadyConfig(pub(crate) CongestionControl);

impl ControllerFactory for SteadyConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = match self.0 {
            CongestionControl::Steady | CongestionControl::Cubic => {
                Arc::new(CubicConfig::default()).build(now, current_mtu)
            }
            CongestionControl::NewReno => {
                Arc::new(NewRenoConfig::default()).build(now, current_mtu)
            }
        };
        let filter = (self.0 == CongestionControl::Steady).then(LossFilter::default);
        Box::new(Steady { inner, filter, rtt: RttSpread::default(), told_off_until: None })
    }
}

/// A controller of quinn's behind the loss filter; it also follows how much round trips vary.
pub(crate) struct Steady {
    inner: Box<dyn Controller>,
    filter: Option<LossFilter>,
    rtt: RttSpread,
    /// A router marked packets, or nothing came through for long: until then the window has no floor.
    told_off_until: Option<Instant>,
}

impl Steady {
    /// How much the round-trip time varies (RFC 9002 §5.3); of any controller made by [`SteadyConfig`].
    pub(crate) fn rtt_var(controller: Box<dyn Controller>) -> Duration {
        controller.into_any().downcast::<Self>().map_or(Duration::ZERO, |steady| steady.rtt.var)
    }
}

impl Controller for Steady {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.rtt.observe(now, rtt);
        self.told_off_until = self.told_off_until.filter(|until| now < *until);
        if let Some(filter) = &mut self.filter {
            filter.acknowledged(bytes, self.inner.window());
        }
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        // Lost bytes of 0 are an ECN mark: a router says that it is congestion.
        let is_congestion = is_persistent_congestion || lost_bytes == 0;
        if is_congestion {
            self.told_off_until = Some(now + self.rtt.smoothed);
        }
        let is_isolated = self
            .filter
            .as_mut()
            .is_some_and(|filter| filter.lost(lost_bytes) && !self.rtt.has_queue());
        if is_congestion || !is_isolated {
            self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    /// One connection has the exchanges of many. However much the path loses by itself, they may send
    /// what one new connection may unasked (RFC 6928), unless a queue stands or a router says otherwise.
    fn window(&self) -> u64 {
        let has_floor =
            self.filter.is_some() && self.told_off_until.is_none() && !self.rtt.has_queue();
        let floor = if has_floor { self.inner.initial_window() } else { 0 };
        self.inner.window().max(floor)
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let Self { filter, rtt, told_off_until, .. } = *self;
        Box::new(Self { inner: self.inner.clone_box(), filter, rtt, told_off_until })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// The share of bytes lost of late; older ones count half as much each time the sample is full.
#[derive(Debug, Clone, Copy, Default)]
struct LossFilter {
    acknowledged: u64,
    lost: u64,
}

impl LossFilter {
    fn acknowledged(&mut self, bytes: u64, window: u64) {
        self.acknowledged += bytes;
        if self.acknowledged + self.lost > LOSS_SAMPLE_BYTES_MIN.max(window * 4) {
            self.acknowledged /= 2;
            self.lost /= 2;
        }
    }

    /// Counts a loss; whether the share is one that the path may have by itself.
    fn lost(&mut self, bytes: u64) -> bool {
        self.lost += bytes;
        // A young sample is taken for a full one, or the first loss of all would be 100 %.
        let sample = (self.acknowledged + self.lost).max(LOSS_SAMPLE_BYTES_MIN);
        self.lost * 100 <= sample * LOSS_TOLERATED_PERCENT
    }
}

/// Shortest, recent, smoothed and spread of round trips.
#[derive(Debug, Clone, Copy, Default)]
struct RttSpread {
    min: Duration,
    smoothed: Duration,
    var: Duration,
    /// Shortest of this round and of the one before. A standing queue makes every packet wait, so
    /// it shows in the shortest; a busy host delays some, which shows in the smoothed only.
    recent: [Duration; 2],
    round_began: Option<Instant>,
}

impl RttSpread {
    fn observe(&mut self, now: Instant, rtt: &RttEstimator) {
        let smoothed = rtt.get();
        if smoothed == self.smoothed {
            return; // called for each packet, while a sample comes once with each ACK
        }
        // quinn keeps the sample to itself, but RFC 9002 §5.3 says how it came in: an eighth.
        let sample = match self.smoothed {
            Duration::ZERO => smoothed,
            before => (smoothed * 8).saturating_sub(before * 7),
        };
        self.follow(now, rtt.min(), smoothed, sample);
    }

    fn follow(&mut self, now: Instant, min: Duration, smoothed: Duration, sample: Duration) {
        (self.min, self.smoothed) = (min, smoothed);
        self.var = (self.var * 3 + smoothed.abs_diff(sample)) / 4;
        match self.round_began {
            Some(began) if now.saturating_duration_since(began) < smoothed => {
                self.recent[0] = self.recent[0].min(sample);
            }
            began => {
                self.recent = [sample, if began.is_some() { self.recent[0] } else { sample }];
                self.round_began = Some(now);
            }
        }
    }

    fn has_queue(&self) -> bool {
        let recent = self.recent[0].min(self.recent[1]);
        recent > self.min + QUEUE_MIN.max(self.min / QUEUE_SHARE_DIVISOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(control: CongestionControl) -> Steady {
        let built = Arc::new(SteadyConfig(control)).build(Instant::now(), 1200);
        *built.into_any().downcast::<Steady>().unwrap()
    }

    /// Window after so many packets of which each `every`th is lost, at this standing queue.
    fn window_after(control: CongestionControl, every: u64, queue: Duration) -> (u64, u64) {
        let (start, steady) = steady_after(control, every, queue);
        (start, steady.window())
    }

    fn steady_after(control: CongestionControl, every: u64, queue: Duration) -> (u64, Steady) {
        let mut steady = build(control);
        let base = Duration::from_millis(40);
        steady.rtt.follow(Instant::now(), base, base + queue, base + queue);
        let (start, mut now) = (steady.window(), Instant::now());
        for packet in 1..=2000_u64 {
            now += Duration::from_millis(1);
            if packet % every == 0 {
                steady.on_congestion_event(now, now - base, false, 1200);
            } else if let Some(filter) = &mut steady.filter {
                filter.acknowledged(1200, start);
            }
        }
        (start, steady)
    }

    #[test]
    fn isolated_loss_is_the_paths_own_and_anything_else_is_congestion() {
        let steady = CongestionControl::Steady;
        let (start, after) = window_after(steady, 100, Duration::ZERO);
        assert_eq!(start, after, "1 % loss without a queue");
        let (start, after) = window_after(steady, 100, Duration::from_millis(30));
        assert!(after < start, "1 % loss with a standing queue");
        let (start, after) = steady_after(steady, 10, Duration::ZERO);
        assert!(after.inner.window() < start, "10 % loss");
        assert_eq!(
            after.window(),
            start,
            "10 % loss without a queue, and a new connection's window"
        );
        let (start, after) = window_after(steady, 10, Duration::from_millis(30));
        assert!(after < start, "10 % loss with a standing queue");
        let (start, after) = window_after(CongestionControl::Cubic, 100, Duration::ZERO);
        assert!(after < start, "CUBIC takes each loss for congestion");
    }

    #[test]
    fn marks_and_persistent_congestion_always_count() {
        for (is_persistent, lost_bytes) in [(true, 1200), (false, 0)] {
            let mut steady = build(CongestionControl::Steady);
            let (start, now) = (steady.window(), Instant::now());
            steady.on_congestion_event(now, now, is_persistent, lost_bytes);
            assert!(steady.window() < start, "{is_persistent} {lost_bytes}");
        }
    }

    #[test]
    fn a_queue_delays_every_packet_and_a_busy_host_only_some() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        for (samples, has_queue) in [([40, 90, 80], false), ([70, 90, 80], true)] {
            let mut rtt = RttSpread::default();
            for round in 0..60_u64 {
                let sample = ms(samples[round as usize % 3]);
                rtt.follow(start + ms(20) * round as u32, ms(40), ms(70), sample);
            }
            assert_eq!(rtt.has_queue(), has_queue, "{samples:?}: {rtt:?}");
        }
    }

    #[test]
    fn spread_follows_the_samples() {
        let mut steady = build(CongestionControl::Cubic);
        let ms = Duration::from_millis;
        for _ in 0..20 {
            steady.rtt.follow(Instant::now(), ms(40), ms(50), ms(58));
        }
        let var = Steady::rtt_var(steady.clone_box());
        assert!((ms(7)..=ms(8)).contains(&var), "{var:?}");
    }
}
