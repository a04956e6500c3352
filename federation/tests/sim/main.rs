//! Simulations of the store: the production code with openraft, on a simulated network, clock and
//! disk, under faults that follow from a seed. docs/dev/simulation.md says how to read them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in its fixture too")]
#![expect(clippy::print_stdout, reason = "traces and findings are for people to read")]

mod bus;
mod canon;
mod client;
mod course;
mod deeds;
mod dice;
mod disk;
mod fleet;
mod net;
mod node;
mod plant;
mod planted;
mod reader;
mod register;
mod scene;
mod subject;
mod trace;
mod world;

use fleet::Fleet;
use register::Register;
use scene::Scene;
use world::{Report, run};

/// Seeds that `make test` runs.
const SEEDS: u64 = 50;

/// One simulation; the seed says of which machine too.
pub(crate) fn simulate(scene: Scene) -> Report {
    if scene.fleet { run::<Fleet>(scene) } else { run::<Register>(scene) }
}

/// Seeds that once failed.
fn kept() -> impl Iterator<Item = u64> {
    let lines = include_str!("seeds.txt").lines();
    let seeds = lines.map(|line| line.split('#').next().unwrap_or_default().trim());
    seeds.filter(|seed| !seed.is_empty()).map(|seed| seed.parse().unwrap())
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} = {text}: give a number")))
}

/// `SEED=42` runs one and prints its trace; `SEEDS=1000` runs so many.
#[test]
fn invariants_hold() {
    if let Some(seed) = number("SEED") {
        let report = simulate(Scene { print: true, ..Scene::new(seed) });
        println!("trace {:016x}, {} events, {:?}", report.hash, report.events, report.tally);
        assert_eq!(report.violation, None, "seed {seed}");
        return;
    }
    let count = number("SEEDS").unwrap_or(SEEDS);
    let mut failed = Vec::new();
    let mut total = client::Tally::default();
    for seed in kept().chain(1..=count) {
        let report = simulate(Scene { keep: true, ..Scene::new(seed) });
        total.add(&report.tally);
        let Some(text) = report.violation else { continue };
        report.last_lines.iter().for_each(|line| println!("    {line}"));
        println!("seed {seed}: {text}\n    see it with `make sim SEED={seed}`");
        failed.push(seed);
    }
    println!("{count} seeds: {total:?}");
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
    // What never happened was not tested.
    assert!(count < SEEDS || total.is_full(), "{total:?}");
}

#[test]
fn the_same_seed_has_the_same_trace() {
    let count = number("SEEDS").map_or(8, |seeds| seeds / 10 + 1);
    for seed in 1..=count {
        let once = simulate(Scene { keep: true, ..Scene::new(seed) });
        let again = simulate(Scene { keep: true, ..Scene::new(seed) });
        let differ = once.lines.iter().zip(&again.lines).find(|(once, again)| once != again);
        assert_eq!(once.hash, again.hash, "seed {seed} first differs in {differ:?}");
    }
}
