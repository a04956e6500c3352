//! Seeded dice without state: what packet `n` gets depends on the seed, on `n` and on the question only.
//!
//! So turning on jitter does not change which packets are lost, and a kept seed means the same for
//! ever: the function is ours and does not change with a library's version.

/// What the dice are thrown for; each question has its own sequence.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    Lose = 1,
    ChangeState = 2,
    Corrupt = 3,
    CorruptWhere = 4,
    Duplicate = 5,
    Jitter = 6,
    Reorder = 7,
}

/// One direction's dice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dice {
    seed: u64,
}

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self { seed: mix(seed) }
    }

    /// 64 uniform bits for this packet and question.
    pub(super) const fn bits(self, packet_no: u64, question: Question) -> u64 {
        mix(mix(self.seed ^ packet_no).wrapping_add(question as u64))
    }

    /// True with the given probability; never for 0, always for 1.
    pub(super) fn happens(self, probability: f64, packet_no: u64, question: Question) -> bool {
        self.unit(packet_no, question) < probability
    }

    /// Uniform in `[0, 1)`, 53 bits.
    pub(super) fn unit(self, packet_no: u64, question: Question) -> f64 {
        const UNITS: f64 = (1_u64 << 53) as f64;
        (self.bits(packet_no, question) >> 11) as f64 / UNITS
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_is_splitmix64() {
        // First output of SplitMix64 for seed 0 (reference implementation by Vigna).
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn certainty_and_impossibility_hold_and_the_mean_is_right() {
        let dice = Dice::new(7);
        let count = |p: f64| (0..100_000).filter(|n| dice.happens(p, *n, Question::Lose)).count();
        assert_eq!(count(0.0), 0);
        assert_eq!(count(1.0), 100_000);
        let hits = count(0.01);
        assert!((900..1_100).contains(&hits), "{hits} of 100,000 at 1 %");
    }

    #[test]
    fn questions_are_independent() {
        let dice = Dice::new(7);
        let both = (0..100_000)
            .filter(|n| dice.happens(0.1, *n, Question::Lose))
            .filter(|n| dice.happens(0.1, *n, Question::Corrupt))
            .count();
        assert!((850..1_150).contains(&both), "{both} of 100,000 at 10 % of 10 %");
    }
}
