//! How much of what was sent is lost, and what that is worth.

/// Loss up to this share, without a queue, is the path's own and not congestion.
const LOSS_TOLERATED_PERCENT: u64 = 3;
/// More than the share that is tolerated, lost without a queue near, shows a path that loses by itself;
/// less than this one, that it no longer does.
const LOSSY_NO_MORE_PERCENT: u64 = 1;
/// The share is judged over so many bytes at least: about 256 packets.
const LOSS_SAMPLE_BYTES_MIN: u64 = 256 * 1200;

/// The share of bytes lost of late; older ones count half as much each time the sample is full.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LossFilter {
    acknowledged: u64,
    lost: u64,
    /// Of these, what was lost without a queue near.
    lost_alone: u64,
    is_lossy: bool,
}

impl LossFilter {
    pub(super) fn acknowledged(&mut self, bytes: u64, window: u64) {
        self.acknowledged += bytes;
        if self.acknowledged + self.lost > LOSS_SAMPLE_BYTES_MIN.max(window * 4) {
            self.acknowledged /= 2;
            self.lost /= 2;
            self.lost_alone /= 2;
        }
        self.is_lossy &= self.lost_alone * 100 >= self.sample() * LOSSY_NO_MORE_PERCENT;
    }

    /// Counts a loss; whether the share is one that the path may have by itself.
    pub(super) fn lost(&mut self, bytes: u64, is_alone: bool) -> bool {
        self.lost += bytes;
        self.lost_alone += if is_alone { bytes } else { 0 };
        let tolerated = self.sample() * LOSS_TOLERATED_PERCENT;
        self.is_lossy |= self.lost_alone * 100 > tolerated;
        self.lost * 100 <= tolerated
    }

    /// Packets that so many TCP connections together have under way at this loss: √(3 ÷ 2p) each (the
    /// simple equation of RFC 5348 §3.1). None of a path that does not lose by itself.
    pub(super) fn packets_of(&self, connections: u64) -> Option<u64> {
        let all = self.acknowledged + self.lost;
        let squared = || connections * connections * 3 * all / (self.lost * 2).max(1);
        self.is_lossy.then(|| squared().isqrt())
    }

    /// A young sample is taken for a full one, or the first loss of all would be 100 %.
    fn sample(&self) -> u64 {
        (self.acknowledged + self.lost).max(LOSS_SAMPLE_BYTES_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each `every`th packet is lost.
    fn lose(filter: &mut LossFilter, every: u64, is_alone: bool) {
        for packet in 1..=2000 {
            match packet % every {
                0 => {
                    filter.lost(1200, is_alone);
                }
                _ => filter.acknowledged(1200, 0),
            }
        }
    }

    #[test]
    fn sixteen_connections_have_fewer_packets_the_more_is_lost() {
        for (every, packets) in [(100, None), (20, Some(87)), (10, Some(61)), (5, Some(43))] {
            let mut filter = LossFilter::default();
            lose(&mut filter, every, false);
            assert_eq!(filter.packets_of(16), None, "1 in {every} by a queue: {filter:?}");
            lose(&mut filter, every, true);
            let told = format!("1 in {every}: {filter:?}");
            match (filter.packets_of(16), packets) {
                (Some(is), Some(about)) => assert!(is.abs_diff(about) <= about / 8, "{is}, {told}"),
                (is, expected) => assert_eq!(is, expected, "{told}"),
            }
            lose(&mut filter, 2001, true);
            assert_eq!(filter.packets_of(16), None, "nothing is lost any more: {filter:?}");
        }
    }
}
