//! What a publish costs.

use std::time::Instant;

use super::fixture::{Cluster, World, allow, export};
use crate::fleet::{FleetState, VerifiedView, View, ViewStep, resources_for, serving};

#[test]
#[ignore = "a measurement, not a check; the figures are in the report of the change"]
fn apply_cost() {
    for (clusters, exports) in [(2, 25), (2, 500), (200, 25)] {
        let (mut world, mut east) = World::founded();
        let mut west = None;
        for n in 1..clusters {
            let name = if n == 1 { "west".to_owned() } else { format!("c{n}") };
            let grant = east.grant(&name, model::RoleSet::all(), 0);
            let mut other = Cluster::joining(&name, &grant, &east);
            let grant = east.sign(wire::store::Domain::Token, &grant.encode());
            world.quick(wire::store::Change::IssueToken(grant)).unwrap();
            world.quick(other.redeem(&east)).unwrap();
            let change = other.publish(&objects(&name, exports), &[]);
            world.quick(change).unwrap();
            west.get_or_insert(other);
        }
        let west = west.expect("the first one");
        eprintln!("{clusters} clusters with {} records each", 2 * exports);
        let publish = east.publish(&objects("shop", exports), &[]);
        let one = east.publish(&[export("shop/s0", 81)], &[]);
        timed("publish all", || world.quick(publish).unwrap());
        let before = world.state.fleet().clone();
        timed("publish one change", || world.quick(one).unwrap());
        let fleet = world.state.fleet();
        let decided = timed("serving", || serving(fleet));
        let old = View::of(&before, &serving(&before), &west.id());
        let new = timed("next view", || old.at(fleet, &decided));
        let step = timed("delta", || new.step_from(&old, before.revision()));
        let ViewStep::Delta(event) = step else { panic!("{step:?}") };
        let bytes = prost::Message::encoded_len(&event.encode());
        eprintln!("  the delta has {bytes} bytes");
        let mut reader = VerifiedView::new(west.id(), fleet.federation().unwrap());
        let events = timed("snapshot", || old.snapshot());
        timed("snapshot verified", || {
            events.iter().for_each(|event| drop(reader.apply(event).unwrap()));
        });
        timed("delta verified", || reader.apply(&event).unwrap());
        timed("resources for west", || resources_for(fleet, &west.id()));
        let kv = timed("to_kv", || world.state.to_kv());
        timed("load", || FleetState::load(kv).unwrap());
    }
}

fn timed<T>(what: &str, step: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let outcome = step();
    eprintln!("  {what}: {:?}", begun.elapsed());
    outcome
}

/// Exports, each with a policy for west.
fn objects(namespace: &str, exports: usize) -> Vec<model::Resource> {
    let both = |n| {
        let name = format!("{namespace}/s{n}");
        [export(&name, 80), allow(&name, &["west"])]
    };
    (0..exports).flat_map(both).collect()
}
