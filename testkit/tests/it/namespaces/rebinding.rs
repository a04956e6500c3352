//! A site behind a NAT that changes its mappings while requests cross in both directions: over QUIC the
//! connections go on, and where no UDP passes they come back by themselves.

#![expect(clippy::print_stdout, reason = "a test tells the times that were measured")]

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::outside::Ledger;
use testkit::wait;
use wan::netns;

use super::LIMIT;
use super::load::Load;
use super::network::{EAST, NORTH};
use super::world::World;

/// Other addresses of the NAT's outside.
const MOVED: [&str; 2] = ["198.18.4.2", "2001:db8:4::2"];
/// Over TCP a silence of some seconds is death, since one lost packet holds up all that follow it; then comes
/// a dial.
const TCP_BACK_MAX: Duration = Duration::from_secs(10);
const GOOD_IN_A_ROW: u64 = 20;

#[test]
fn a_nat_that_changes_its_mappings_cuts_nobody_off() {
    if let Some(reason) = netns::unavailable() {
        println!(
            "skipped: namespaces::rebinding::a_nat_that_changes_its_mappings_cuts_nobody_off: {reason}"
        );
        return;
    }
    let mut world = World::build(&[EAST, NORTH]);
    let rules = world.folder.path().join("no-udp.nft");
    std::fs::write(&rules, include_str!("no-udp.nft")).unwrap();
    world.start_everything();
    world.federate();
    for (site, service, other) in [("east", "front", "north"), ("north", "notes", "east")] {
        world.serve(site, service);
        world.route(other, &[service]);
    }
    let grant = ["namespace", "grant", "shop", "--clusters", "east,north"];
    world.site("east").fedctl(&grant).unwrap();
    world.export("east", "front", &["north"]);
    world.export("north", "notes", &["east"]);
    world.until_answer("east", "notes", "north");
    world.until_answer("north", "front", "east");

    over_quic(&world);
    world.network.netns("north").run("nft", ["-f", rules.to_str().unwrap()]).unwrap();
    over_tcp(&world);
}

/// The same connections, from other addresses.
fn over_quic(world: &World) {
    let before = until_links_are(world, "quic", NORTH.nat);
    let loads = both_ways(world);
    for (old, new) in [(NORTH.nat, &MOVED[..]), (&MOVED[..], NORTH.nat)] {
        let moved = Instant::now();
        world.network.move_nat("north", old, new);
        let links = until_links_are(world, "quic", new);
        println!("QUIC came from {new:?} after {:?}", moved.elapsed());
        let is_older = |link: &Value| {
            let age = link["since"]["ageMs"].as_u64().unwrap_or_default();
            Duration::from_millis(age) > moved.elapsed()
        };
        assert!(links.len() >= before.len() && links.iter().all(is_older), "{links:#?}");
        loads.iter().for_each(|load| {
            load.until_good(GOOD_IN_A_ROW, LIMIT);
        });
    }
    for load in loads {
        println!("over QUIC: {}", load.end());
    }
}

fn over_tcp(world: &World) {
    until_links_are(world, "tcp", NORTH.nat);
    world.until_answer("east", "notes", "north");
    world.until_answer("north", "front", "east");
    for (old, new) in [(NORTH.nat, &MOVED[..]), (&MOVED[..], NORTH.nat)] {
        let loads = both_ways(world);
        let moved = Instant::now();
        world.network.move_nat("north", old, new);
        let links = until_links_are(world, "tcp", new);
        let linked = moved.elapsed();
        let answered = loads.each_ref().map(|load| {
            load.until_good(GOOD_IN_A_ROW, LIMIT);
            moved.elapsed()
        });
        println!("TCP came from {new:?} after {linked:?}, answers again by {answered:?}");
        assert!(linked < TCP_BACK_MAX, "{linked:?}: {links:#?}");
        for load in loads {
            let seen = load.stop();
            println!("over TCP: {seen}");
            assert_bounded(&seen);
        }
    }
}

/// What was under way may fail, each with an answer that says so; nothing hangs.
fn assert_bounded(seen: &Ledger) {
    assert!(seen.longest < TCP_BACK_MAX, "{seen}");
}

fn both_ways(world: &World) -> [Load; 2] {
    [world.load("east", "notes"), world.load("north", "front")]
}

/// Waits until east's links to north run over this and come from these addresses, all of them.
fn until_links_are(world: &World, transport: &str, from: &[&str]) -> Vec<Value> {
    wait::until_ok(&format!("links over {transport} from {from:?}"), LIMIT, || {
        let mut links = world.links("east", "north")?;
        links.retain(|link| link["state"] == "Up");
        let is_so = |link: &Value| {
            let address = link["address"].as_str().unwrap_or_default();
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
            link["transport"] == transport && from.contains(&host.trim_matches(['[', ']']))
        };
        anyhow::ensure!(!links.is_empty() && links.iter().all(is_so), "{links:?}");
        Ok(links)
    })
}
