//! What a seed decides before anything happens.

use federation::store::Profile;

use super::dice::Dice;
use super::plant::Plant;

/// One kind of fault, or of change that people make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Deed {
    Kill,
    PowerFailure,
    /// The power fails everywhere at once.
    Blackout,
    /// A node falls in one of its next writes.
    Doom,
    /// A node stays down, and a bit of its disk flips.
    Flip,
    Cut,
    Weather,
    Sleep,
    ClockRate,
    /// A disk takes long for a while.
    SlowDisk,
    Members,
    Transfer,
}

impl Deed {
    pub(crate) const ALL: [Self; 12] = [
        Self::Kill,
        Self::PowerFailure,
        Self::Blackout,
        Self::Doom,
        Self::Flip,
        Self::Cut,
        Self::Weather,
        Self::Sleep,
        Self::ClockRate,
        Self::SlowDisk,
        Self::Members,
        Self::Transfer,
    ];
}

#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) seed: u64,
    pub(crate) plant: Option<Plant>,
    /// The fleet's state, instead of plain registers.
    pub(crate) fleet: bool,
    pub(crate) nodes: u64,
    pub(crate) clients: u8,
    pub(crate) profile: Profile,
    pub(crate) log_entries: u64,
    /// The longest that a call of a healthy disk takes.
    pub(crate) disk_ms: u64,
    /// How long things happen.
    pub(crate) chaos_ms: u64,
    /// The mean pause between two deeds.
    pub(crate) pause_ms: u64,
    /// Not all kinds of deed in every simulation: some bugs show only where others do not interfere.
    pub(crate) deeds: Vec<Deed>,
    /// Print each event.
    pub(crate) print: bool,
    /// Keep the lines of the events.
    pub(crate) keep: bool,
}

impl Scene {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "scene");
        let wan = dice.chance(150);
        let (profile, stretch) = if wan { (Profile::Wan, 3) } else { (Profile::Lan, 1) };
        let deeds = Deed::ALL.into_iter().filter(|_| dice.chance(550)).collect();
        Self {
            seed,
            plant: None,
            fleet: seed.is_multiple_of(4),
            nodes: dice.between(3, 5),
            clients: dice.between(2, 4) as u8,
            profile,
            log_entries: dice.pick(&[12, 24, 48, 4096]).unwrap_or(4096),
            disk_ms: dice.pick(&[0, 1, 3, 12]).unwrap_or(0),
            chaos_ms: dice.between(3000, 7000) * stretch,
            pause_ms: dice.between(150, 700) * stretch,
            deeds,
            print: false,
            keep: false,
        }
    }

    /// How long healing may take: elections, catching up, and changes of members that are retried.
    pub(crate) fn heal_ms(&self) -> u64 {
        match self.profile {
            Profile::Lan => 20_000,
            Profile::Wan => 60_000,
        }
    }
}
