//! What a direction does to its packets, as plain data with one validation.

use std::time::Duration;

use crate::SettingError;
use crate::limits::{
    DELAY_MAX, MTU_BYTES_MIN, PIPE_PACKETS_MAX, RATE_BITS_PER_S_MIN, RATE_QUEUE_PACKETS_DEFAULT,
};

/// What one direction does to its packets. The default does nothing.
///
/// A packet meets them in this order: cut, MTU, rate and its queue, loss, corruption, duplication,
/// delay with jitter and reordering. So a lost packet has used its share of the rate, as on a wire.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Impairment {
    /// Time on the way.
    pub delay: Duration,
    /// Up to this much more, uniform per packet. Jitter alone never changes the order.
    pub jitter: Duration,
    /// Which packets are lost.
    pub loss: Loss,
    /// Probability that a packet is held back by [`Self::reorder_by`], so that later ones overtake it.
    pub reorder: f64,
    /// How long a reordered packet is held back.
    pub reorder_by: Duration,
    /// Probability that a packet arrives twice.
    pub duplicate: f64,
    /// Probability that one bit of a packet is flipped.
    pub corrupt: f64,
    /// Bandwidth with its queue; none is unlimited.
    pub rate: Option<Rate>,
    /// Larger packets vanish silently, as in a path-MTU black hole. Counts what the pipe carries:
    /// UDP payload in the relay, the whole IP packet in the TUN router.
    pub mtu_bytes: Option<usize>,
    /// Nothing passes; packets under way are dropped too.
    pub cut: bool,
}

/// Which packets are lost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each packet with this probability, independently.
    Random(f64),
    /// In bursts.
    Burst(GilbertElliott),
}

/// The Gilbert-Elliott model: a good and a bad state, each with its own loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GilbertElliott {
    /// Probability per packet to go from good to bad.
    pub enter_bad: f64,
    /// Probability per packet to go from bad to good.
    pub leave_bad: f64,
    /// Loss in the good state.
    pub loss_good: f64,
    /// Loss in the bad state.
    pub loss_bad: f64,
}

/// A bandwidth: token bucket, and a queue with tail drop before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Long-term rate.
    pub bits_per_s: u64,
    /// Bytes that may pass at once after a pause.
    pub burst_bytes: u64,
    /// Packets that may wait; more are dropped at the tail.
    pub queue_packets: usize,
}

impl Impairment {
    /// Nothing but a delay.
    pub fn delayed(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// The same with this much random loss (0.01 is 1 %).
    pub fn with_loss(mut self, probability: f64) -> Self {
        self.loss = Loss::Random(probability);
        self
    }

    /// The same with this bandwidth.
    pub const fn with_rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Checks every field; the error names the first wrong one.
    pub fn validate(&self) -> Result<(), SettingError> {
        duration("delay", self.delay)?;
        duration("jitter", self.jitter)?;
        self.loss.validate()?;
        probability("reorder", self.reorder)?;
        duration("reorder_by", self.reorder_by)?;
        if self.reorder > 0.0 && self.reorder_by.is_zero() {
            return Err(SettingError::new(
                "reorder_by",
                "0 ms",
                "must be above 0 when reorder is set; write for example 5 ms",
            ));
        }
        probability("duplicate", self.duplicate)?;
        probability("corrupt", self.corrupt)?;
        if let Some(rate) = &self.rate {
            rate.validate().map_err(|error| error.within("rate"))?;
        }
        match self.mtu_bytes {
            Some(mtu_bytes) if mtu_bytes < MTU_BYTES_MIN => Err(SettingError::new(
                "mtu_bytes",
                mtu_bytes,
                format!("must be at least {MTU_BYTES_MIN}; to stop everything write cut = true"),
            )),
            _ => Ok(()),
        }
    }
}

impl Loss {
    /// Bursts with this mean loss and this mean length in packets: everything is lost in the bad state.
    pub fn bursts(mean: f64, burst_packets: f64) -> Result<Self, SettingError> {
        probability("mean", mean)?;
        if !(burst_packets >= 1.0 && burst_packets.is_finite()) {
            return Err(SettingError::new(
                "burst_packets",
                burst_packets,
                "must be a number of at least 1",
            ));
        }
        // Stationary share of the bad state = enter / (enter + leave), and leave = 1 / mean length.
        let leave_bad = 1.0 / burst_packets;
        let enter_bad = if mean < 1.0 { leave_bad * mean / (1.0 - mean) } else { f64::INFINITY };
        if enter_bad > 1.0 {
            return Err(SettingError::new(
                "mean",
                mean,
                format!(
                    "bursts of {burst_packets} packets cannot lose that many; lower mean, or lengthen \
                     burst_packets to at least {:.0}",
                    (mean / (1.0 - mean)).ceil()
                ),
            ));
        }
        Ok(Self::Burst(GilbertElliott { enter_bad, leave_bad, loss_good: 0.0, loss_bad: 1.0 }))
    }

    fn validate(&self) -> Result<(), SettingError> {
        match self {
            Self::None => Ok(()),
            Self::Random(value) => probability("loss", *value),
            Self::Burst(model) => {
                probability("loss.enter_bad", model.enter_bad)?;
                probability("loss.leave_bad", model.leave_bad)?;
                probability("loss.loss_good", model.loss_good)?;
                probability("loss.loss_bad", model.loss_bad)
            }
        }
    }
}

impl Rate {
    /// A bandwidth in Mbit/s with a burst of one millisecond and the default queue.
    pub fn mbps(mbps: u64) -> Self {
        /// Two full Ethernet frames: below that a full packet would never pass at once.
        const BURST_BYTES_MIN: u64 = 2 * 1514;
        let bits_per_s = mbps.saturating_mul(1_000_000);
        Self {
            bits_per_s,
            burst_bytes: (bits_per_s / 8_000).max(BURST_BYTES_MIN),
            queue_packets: RATE_QUEUE_PACKETS_DEFAULT,
        }
    }

    fn validate(&self) -> Result<(), SettingError> {
        if self.bits_per_s < RATE_BITS_PER_S_MIN {
            return Err(SettingError::new(
                "bits_per_s",
                self.bits_per_s,
                format!(
                    "must be at least {RATE_BITS_PER_S_MIN}; to stop everything write cut = true"
                ),
            ));
        }
        if self.burst_bytes == 0 {
            return Err(SettingError::new(
                "burst_bytes",
                0,
                "must be at least 1; write for example 3028",
            ));
        }
        if self.queue_packets == 0 || self.queue_packets > PIPE_PACKETS_MAX {
            return Err(SettingError::new(
                "queue_packets",
                self.queue_packets,
                format!("must be between 1 and {PIPE_PACKETS_MAX}"),
            ));
        }
        Ok(())
    }
}

fn probability(field: &str, value: f64) -> Result<(), SettingError> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(SettingError::new(field, value, "must be between 0 and 1; write 0.01 for 1 %"))
}

fn duration(field: &str, value: Duration) -> Result<(), SettingError> {
    if value <= DELAY_MAX {
        return Ok(());
    }
    let fix = format!("must be at most {} s", DELAY_MAX.as_secs());
    Err(SettingError::new(field, format!("{value:?}"), fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_setting_names_field_value_and_fix() {
        let base = Impairment::default;
        let ge = |enter_bad, leave_bad, loss_good, loss_bad| {
            Loss::Burst(GilbertElliott { enter_bad, leave_bad, loss_good, loss_bad })
        };
        let rate = |bits_per_s, burst_bytes, queue_packets| {
            Some(Rate { bits_per_s, burst_bytes, queue_packets })
        };
        let range = "must be between 0 and 1; write 0.01 for 1 %";
        let table = [
            (
                Impairment { delay: Duration::from_secs(61), ..base() },
                "delay = 61s: must be at most 60 s".to_owned(),
            ),
            (
                Impairment { jitter: Duration::from_secs(600), ..base() },
                "jitter = 600s: must be at most 60 s".to_owned(),
            ),
            (Impairment { loss: Loss::Random(1.5), ..base() }, format!("loss = 1.5: {range}")),
            (Impairment { loss: Loss::Random(f64::NAN), ..base() }, format!("loss = NaN: {range}")),
            (
                Impairment { loss: ge(-0.1, 0.0, 0.0, 0.0), ..base() },
                format!("loss.enter_bad = -0.1: {range}"),
            ),
            (
                Impairment { loss: ge(0.0, 2.0, 0.0, 0.0), ..base() },
                format!("loss.leave_bad = 2: {range}"),
            ),
            (
                Impairment { loss: ge(0.0, 0.0, 2.0, 0.0), ..base() },
                format!("loss.loss_good = 2: {range}"),
            ),
            (
                Impairment { loss: ge(0.0, 0.0, 0.0, 2.0), ..base() },
                format!("loss.loss_bad = 2: {range}"),
            ),
            (Impairment { reorder: 50.0, ..base() }, format!("reorder = 50: {range}")),
            (
                Impairment { reorder: 0.1, ..base() },
                "reorder_by = 0 ms: must be above 0 when reorder is set; write for example 5 ms"
                    .to_owned(),
            ),
            (
                Impairment { reorder_by: Duration::from_secs(61), ..base() },
                "reorder_by = 61s: must be at most 60 s".to_owned(),
            ),
            (Impairment { duplicate: -1.0, ..base() }, format!("duplicate = -1: {range}")),
            (Impairment { corrupt: 1.01, ..base() }, format!("corrupt = 1.01: {range}")),
            (
                Impairment { rate: rate(999, 1, 1), ..base() },
                "rate.bits_per_s = 999: must be at least 1000; to stop everything write cut = true"
                    .to_owned(),
            ),
            (
                Impairment { rate: rate(1_000, 0, 1), ..base() },
                "rate.burst_bytes = 0: must be at least 1; write for example 3028".to_owned(),
            ),
            (
                Impairment { rate: rate(1_000, 1, 0), ..base() },
                "rate.queue_packets = 0: must be between 1 and 65536".to_owned(),
            ),
            (
                Impairment { rate: rate(1_000, 1, 65_537), ..base() },
                "rate.queue_packets = 65537: must be between 1 and 65536".to_owned(),
            ),
            (
                Impairment { mtu_bytes: Some(0), ..base() },
                "mtu_bytes = 0: must be at least 68; to stop everything write cut = true"
                    .to_owned(),
            ),
        ];
        for (impairment, text) in table {
            assert_eq!(impairment.validate().unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn bursts_have_the_mean_that_was_asked_for_or_say_why_not() {
        let Loss::Burst(model) = Loss::bursts(0.02, 5.0).unwrap() else { panic!("not a burst") };
        let mean = model.enter_bad / (model.enter_bad + model.leave_bad);
        assert!((mean - 0.02).abs() < 1e-9);

        let table = [
            (Loss::bursts(2.0, 5.0), "mean = 2: must be between 0 and 1; write 0.01 for 1 %"),
            (Loss::bursts(0.1, 0.5), "burst_packets = 0.5: must be a number of at least 1"),
            (Loss::bursts(0.1, f64::NAN), "burst_packets = NaN: must be a number of at least 1"),
            (
                Loss::bursts(0.75, 2.0),
                "mean = 0.75: bursts of 2 packets cannot lose that many; lower mean, or lengthen \
                 burst_packets to at least 3",
            ),
        ];
        for (result, text) in table {
            assert_eq!(result.unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn ordinary_settings_are_accepted() {
        Impairment::default().validate().unwrap();
        let wan = Impairment::delayed(Duration::from_millis(20)).with_loss(0.01);
        wan.with_rate(Rate::mbps(100)).validate().unwrap();
    }
}
