//! What a publish costs. `cargo test -p federation --lib cost -- --ignored --nocapture` prints it.

use std::time::Instant;

use super::fixture::{World, allow, export};
use crate::fleet::{VerifiedView, View, ViewStep, serving};

#[test]
#[ignore = "a measurement, not a check; the figures are in the report of the change"]
fn apply_cost() {
    for (clusters, exports) in [(2, 25), (2, 500), (200, 25)] {
        let (mut world, mut east) = World::founded();
        for n in 2..clusters {
            let mut other = world.admit(&east, &format!("c{n}"));
            let own: Vec<_> = (0..exports)
                .flat_map(|it| {
                    let name = format!("ns{n}/s{it}");
                    [export(&name, 80), allow(&name, &["west"])]
                })
                .collect();
            let change = other.publish(&own, &[]);
            world.state.apply(next(&mut world.index), &bytes(&world, change)).unwrap();
        }
        let west = world.admit(&east, "west");
        let all: Vec<_> = (0..exports)
            .flat_map(|it| {
                let name = format!("shop/s{it}");
                [export(&name, 80), allow(&name, &["west"])]
            })
            .collect();
        let publish = east.publish(&all, &[]);
        let one = east.publish(&[export("shop/s0", 81)], &[]);
        let time = |world: &mut World, what: &str, change| {
            let command = bytes(world, change);
            let revision = next(&mut world.index);
            let begun = Instant::now();
            world.state.apply(revision, &command).unwrap();
            let records = 2 * exports;
            eprintln!("{clusters} clusters, {what} of {records}: {:?}", begun.elapsed());
        };
        time(&mut world, "publish", publish);
        let before = world.state.fleet().clone();
        time(&mut world, "change one", one);
        let fleet = world.state.fleet();
        let begun = Instant::now();
        let decided = serving(fleet);
        eprintln!("  serving: {:?}", begun.elapsed());
        let old = View::of(&before, &serving(&before), &west.id());
        let begun = Instant::now();
        let new = old.at(fleet, &decided);
        eprintln!("  view: {:?}", begun.elapsed());
        let begun = Instant::now();
        let ViewStep::Delta(event) = new.step_from(&old, before.revision()) else { panic!() };
        eprintln!("  delta: {:?}", begun.elapsed());
        let mut reader = VerifiedView::new(west.id(), fleet.federation().unwrap());
        let begun = Instant::now();
        for event in old.snapshot() {
            reader.apply(&event).unwrap();
        }
        eprintln!("  snapshot made and verified: {:?}", begun.elapsed());
        let begun = Instant::now();
        reader.apply(&event).unwrap();
        eprintln!("  delta verified: {:?}", begun.elapsed());
    }
}

fn next(index: &mut u64) -> model::Revision {
    *index += 1;
    model::Revision { epoch: 1, index: *index }
}

fn bytes(world: &World, change: wire::store::Change) -> Vec<u8> {
    let request_id = u128::from(world.index + 1).to_be_bytes();
    wire::store::Command { request_id, proposed_at_unix_ms: world.now_ms, change }.encode()
}
