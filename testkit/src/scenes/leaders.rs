//! The node of the store's leader is killed in the middle of writes, again and again. Nothing that was
//! acknowledged may be missing, at any node, and no request may fail.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::outside::{Ledger, Outside};
use crate::sites::{Distance, LIMIT};
use crate::writes::{Acknowledged, Writes};
use crate::{Sites, wait};

/// Acknowledged writes that a round begins with, so that its leader dies in the middle of some.
const WRITES_BEFORE: u64 = 6;

/// What the dead one said last may be read by then; nobody else can have been elected.
const STRAY: Duration = Duration::from_millis(50);

/// What became of some rounds.
#[derive(Debug)]
pub struct Outcome {
    /// From each death to the next write that was acknowledged.
    pub back: Vec<Duration>,
    pub acknowledged: Acknowledged,
    /// Acknowledged writes that some node does not have.
    pub missing: Vec<String>,
    pub seen: Ledger,
}

/// Three clusters in one federation; east calls a service of west's all the time.
#[derive(Debug)]
pub struct Scene {
    pub sites: Sites,
    outside: Outside,
}

impl Scene {
    pub fn start() -> anyhow::Result<Self> {
        let mut sites = Sites::start(&["east", "west", "south"], Distance::NONE)?;
        sites.serve(1, "api")?;
        sites.export(1, "api", &["east"])?;
        sites.route(0, &["api"])?;
        sites.until_answer(0, "api", 1);
        let mut target = sites.target(0, "api");
        target.pause = Duration::from_millis(10);
        let outside = Outside::start(&target, 1);
        Ok(Self { sites, outside })
    }

    /// So many deaths, or fewer if `until` comes before.
    pub fn run(mut self, rounds: usize, until: Instant) -> anyhow::Result<Outcome> {
        let writes = Writes::start(&self.sites);
        let mut back = Vec::new();
        while back.len() < rounds && Instant::now() < until {
            back.push(self.death(&writes)?);
        }
        let acknowledged = writes.end(&self.sites);
        let mut missing = Vec::new();
        for place in 0..self.sites.len() {
            missing.extend(acknowledged.missing(&self.sites, place)?);
        }
        Ok(Outcome { back, acknowledged, missing, seen: self.outside.end() })
    }

    fn death(&mut self, writes: &Writes) -> anyhow::Result<Duration> {
        let (term, leader) = self.sites.settled()?;
        let before = writes.acknowledged().writes;
        wait::until("writes", LIMIT, || {
            (writes.acknowledged().writes >= before + WRITES_BEFORE).then_some(())
        });
        self.sites[leader].kill_federation()?;
        let killed = Instant::now();
        let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
        let (now, _) = self.sites.led_by_one_of(&others);
        ensure!(now > term, "a leader of term {now} after one of term {term}");
        let back = wait::until("a write without the leader", LIMIT, || {
            Some(writes.first_after(killed + STRAY)? - killed)
        });
        self.sites[leader].start_federation()?;
        Ok(back)
    }
}

impl Outcome {
    /// How long writes were away, of so many in a hundred rounds.
    pub fn back_at(&self, percent: usize) -> anyhow::Result<Duration> {
        let mut sorted = self.back.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().context("no round")
    }

    pub fn check(&self) -> anyhow::Result<()> {
        let lost: Vec<&String> = self.missing.iter().take(8).collect();
        ensure!(lost.is_empty(), "{} acknowledged writes are lost: {lost:?}", self.missing.len());
        ensure!(self.acknowledged.writes > 0, "nothing was written");
        Ok(())
    }
}
