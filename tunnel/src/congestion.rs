//! How a connection finds its rate, and what it tells of the path on the way.
//!
//! [`Steady`] is CUBIC that tells isolated loss from congestion (docs/design/0001-congestion-control.md).
//! Long paths between sites lose a packet in a hundred for reasons of their own, and CUBIC takes
//! each for a full queue: 5 Mbit/s at 40 ms and 1 % loss, however wide the path is.

mod delivered;
mod loss;
#[cfg(test)]
mod network;
mod round_trip;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{
    Controller, ControllerFactory, ControllerMetrics, CubicConfig, NewRenoConfig,
};
use quinn_proto::RttEstimator;

use crate::config::CongestionControl;
use crate::limits::CONNECTIONS_REPLACED;
use delivered::Delivered;
use loss::LossFilter;
use round_trip::RoundTrips;

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
        Box::new(Steady {
            inner,
            filter: (self.0 == CongestionControl::Steady).then(LossFilter::default),
            delivered: Delivered::default(),
            round_trips: RoundTrips::default(),
            told_off_until: None,
            mtu: current_mtu.into(),
        })
    }
}

/// A controller of quinn's behind the loss filter; it also follows how much round trips vary.
pub(crate) struct Steady {
    inner: Box<dyn Controller>,
    filter: Option<LossFilter>,
    delivered: Delivered,
    round_trips: RoundTrips,
    /// A router marked packets, or nothing came through for long: until then the window has no floor.
    told_off_until: Option<Instant>,
    mtu: u64,
}

impl Steady {
    /// How much the round-trip time varies (RFC 9002 §5.3); of any controller made by [`SteadyConfig`].
    pub(crate) fn rtt_var(controller: Box<dyn Controller>) -> Duration {
        let steady = controller.into_any().downcast::<Self>();
        steady.map_or(Duration::ZERO, |steady| steady.round_trips.var)
    }

    /// One connection has the exchanges of many. Where the path loses by itself it may have under way what
    /// as many TCP connections would, but not more than twice what came through of late: after an outage
    /// it begins anew. It is never less than one new connection may send unasked (RFC 6928).
    fn floor(&self, filter: &LossFilter) -> u64 {
        let new = self.inner.initial_window();
        let Some(packets) = filter.packets_of(CONNECTIONS_REPLACED) else { return new };
        new.max((packets * self.mtu).min(self.delivered.most_of_late() * 2))
    }
}

impl Controller for Steady {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.round_trips.sent(bytes);
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
        if self.round_trips.observe(now, rtt) {
            self.delivered.round_ended();
        }
        self.delivered.acknowledged(now, bytes);
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
            self.told_off_until = Some(now + self.round_trips.smoothed);
        }
        if is_persistent_congestion {
            self.delivered = Delivered::default();
        }
        let is_alone = !self.round_trips.has_passing_queue();
        let has_queue = self.round_trips.has_queue();
        let filter = self.filter.as_mut();
        let is_isolated = filter.is_some_and(|f| f.lost(lost_bytes, is_alone) && !has_queue);
        if is_congestion || !is_isolated {
            self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu.into();
        self.inner.on_mtu_update(new_mtu);
    }

    /// The inner controller's, unless that is less than the path is known to carry: while no queue stands,
    /// and no router says otherwise.
    fn window(&self) -> u64 {
        let floor = match &self.filter {
            Some(filter) if self.told_off_until.is_none() && !self.round_trips.has_queue() => {
                self.floor(filter)
            }
            _ => 0,
        };
        self.inner.window().max(floor)
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let Self { filter, delivered, round_trips, told_off_until, mtu, .. } = *self;
        let inner = self.inner.clone_box();
        Box::new(Self { inner, filter, delivered, round_trips, told_off_until, mtu })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
