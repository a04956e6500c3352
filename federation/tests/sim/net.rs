//! The network: it loses, delays, reorders and doubles letters, and is cut between nodes, each
//! direction by itself.

use std::collections::{BTreeMap, BTreeSet};

use super::bus::{Bus, Letter, Parcel};
use super::dice::Dice;
use super::trace::digest;

/// What happens to letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Weather {
    pub(crate) loss_permille: u64,
    pub(crate) double_permille: u64,
    pub(crate) least_ms: u64,
    pub(crate) most_ms: u64,
}

impl Weather {
    pub(crate) const CALM: Self =
        Self { loss_permille: 0, double_permille: 0, least_ms: 1, most_ms: 4 };
}

#[derive(Debug)]
pub(crate) struct Net {
    /// On their way: to whom, when, which.
    letters: BTreeMap<(u64, u64, u64), Letter>,
    sent: u64,
    pub(crate) weather: Weather,
    /// From whom to whom nothing goes.
    pub(crate) cuts: BTreeSet<(u64, u64)>,
    dice: Dice,
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            letters: BTreeMap::new(),
            sent: 0,
            weather: Weather::CALM,
            cuts: BTreeSet::new(),
            dice: Dice::new(seed, "net"),
        }
    }

    pub(crate) fn post(&mut self, bus: &Bus, now_ms: u64, letter: Letter) {
        let lost = self.cuts.contains(&(letter.from, letter.to))
            || self.dice.chance(self.weather.loss_permille);
        if lost {
            bus.note(letter.from, "loses", (letter.to, letter.call), || describe(&letter));
            // Often the other end's silence is noticed, and the caller is told.
            if matches!(letter.parcel, Parcel::Request { .. }) && self.dice.chance(300) {
                let Letter { from, to, call, .. } = letter;
                self.queue(
                    now_ms,
                    Letter { from: to, to: from, call, parcel: Parcel::Unreachable },
                );
            }
            return;
        }
        let double = matches!(letter.parcel, Parcel::Request { .. })
            && self.dice.chance(self.weather.double_permille);
        if double {
            self.queue(now_ms, letter.clone());
        }
        self.queue(now_ms, letter);
    }

    fn queue(&mut self, now_ms: u64, letter: Letter) {
        let delay = self.dice.between(self.weather.least_ms, self.weather.most_ms);
        self.sent += 1;
        self.letters.insert((letter.to, now_ms + delay, self.sent), letter);
    }

    /// The next letter for a node, if it is there.
    pub(crate) fn take(&mut self, to: u64, now_ms: u64) -> Option<Letter> {
        let (key, _) = self.letters.range((to, 0, 0)..=(to, now_ms, u64::MAX)).next()?;
        let key = *key;
        self.letters.remove(&key)
    }
}

pub(crate) fn describe(letter: &Letter) -> String {
    let Letter { from, to, call, parcel } = letter;
    match parcel {
        Parcel::Request { kind, body } => {
            format!(
                "{kind:?} {call} n{from}->n{to}, {} bytes {:08x}",
                body.len(),
                digest(body) as u32
            )
        }
        Parcel::Answer { body } => {
            format!(
                "answer {call} n{from}->n{to}, {} bytes {:08x}",
                body.len(),
                digest(body) as u32
            )
        }
        Parcel::Unreachable => format!("{call} n{to}->n{from} is unreachable"),
    }
}
