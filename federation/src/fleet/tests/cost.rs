//! What a change costs those who watch.

use super::fixture::{Cluster, World, allow, export};
use crate::fleet::{View, ViewStep, serving};

/// A watcher receives what changed in one namespace of one owner: clusters that have nothing to do
/// with a change do not make it dearer to send.
#[test]
fn a_change_costs_a_watcher_the_same_in_a_large_fleet() {
    let (small, large) = (bytes_of_a_change(2), bytes_of_a_change(40));
    let slack = 4; // a revision that is some bytes longer
    assert!(large <= small + slack, "{large} bytes, {small} in the small fleet");
}

fn bytes_of_a_change(clusters: usize) -> usize {
    let exports = 5;
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
    let publish = east.publish(&objects("shop", exports), &[]);
    world.quick(publish).unwrap();
    let before = world.state.fleet().clone();
    let change = east.publish(&[export("shop/s0", 81)], &[]);
    world.quick(change).unwrap();
    let fleet = world.state.fleet();
    let old = View::of(&before, &serving(&before), &west.id());
    let new = old.at(fleet, &serving(fleet));
    let ViewStep::Delta(event) = new.step_from(&old, before.revision()) else {
        panic!("one change is a delta");
    };
    prost::Message::encoded_len(&event.encode())
}

/// Exports, each with a policy for west.
fn objects(namespace: &str, exports: usize) -> Vec<model::Resource> {
    let both = |n| {
        let name = format!("{namespace}/s{n}");
        [export(&name, 80), allow(&name, &["west"])]
    };
    (0..exports).flat_map(both).collect()
}
