//! A federation of four sites, one of them behind a NAT that lets nobody in: every process is killed
//! and started again without the others, the store's leader among them; then a site leaves, and one is
//! shut out.

#![expect(clippy::print_stdout, reason = "a test tells the times that were measured")]

use std::time::{Duration, Instant};

use testkit::wait;
use wan::netns;

use super::LIMIT;
use super::network::{EAST, NORTH, SOUTH, WEST};
use super::world::World;

/// Writes are back by then, after the leader's node was killed: two elections of the profile `wan`,
/// lost packets, and a machine that is busy with other tests.
const WRITES_BACK_MAX: Duration = Duration::from_secs(10);
/// How much later than a leader a write is there: nobody waits for the dead one's answer.
const FORWARD_MAX: Duration = Duration::from_secs(3);
/// Whoever is out of the federation is without tunnels and answers by then.
const OUT_MAX: Duration = Duration::from_secs(10);
/// What calls go where: the site that calls, the service, the site that answers.
const CALLS: [(&str, &str, &str); 6] = [
    ("east", "web", "west"),
    ("east", "notes", "north"),
    ("east", "cart", "south"),
    ("west", "front", "east"),
    ("north", "front", "east"),
    ("south", "notes", "north"),
];

#[test]
fn a_federation_outlives_the_death_of_each_of_its_processes() {
    if let Some(reason) = netns::unavailable() {
        println!(
            "skipped: namespaces::federation::a_federation_outlives_the_death_of_each_of_its_processes: \
             {reason}"
        );
        return;
    }
    let mut world = World::build(&[EAST, WEST, NORTH, SOUTH]);
    world.network.assert_no_inbound(NORTH, EAST);
    world.start_everything();
    world.federate();
    world.until_voters("east", &["east", "north", "west"]);
    exports_travel(&mut world);
    the_undialled_site_votes(&mut world);
    nodes_restart_one_by_one(&mut world);
    the_leader_dies(&mut world);
    gateways_restart_one_by_one(&mut world);
    all_nodes_die(&mut world);
    south_leaves(&mut world);
    west_is_shut_out(&mut world);
}

/// Also those of the site behind the NAT, and what it changes later.
fn exports_travel(world: &mut World) {
    for (site, service) in
        [("east", "front"), ("west", "web"), ("north", "notes"), ("south", "cart")]
    {
        world.serve(site, service);
    }
    world.route("east", &["web", "notes", "cart"]);
    world.route("west", &["front"]);
    world.route("north", &["front"]);
    world.route("south", &["notes"]);
    let grant = ["namespace", "grant", "shop", "--clusters", "east,west,north,south"];
    world.site("east").fedctl(&grant).unwrap();
    world.export("east", "front", &["west", "north"]);
    world.export("west", "web", &["east"]);
    world.export("north", "notes", &["east"]);
    world.export("south", "cart", &["east"]);
    for (site, service, from) in &CALLS[..5] {
        world.until_answer(site, service, from);
    }
    assert!(world.get("south", "notes").is_err(), "south may not call notes yet");
    world.export("north", "notes", &["east", "south"]);
    let took = world.until_answer("south", "notes", "north");
    println!("what north changed was in force in south after {took:?}");
    // East has dialled none of its tunnels to north: they come from ports that the NAT chose.
    let dialled = format!("{}:8443", NORTH.advertise);
    let links = world.links("east", "north").unwrap();
    let from: Vec<&str> = links
        .iter()
        .filter(|link| link["state"] == "Up")
        .filter_map(|link| link["address"].as_str())
        .collect();
    println!("east's tunnels to north come from {from:?}");
    let outside = |address: &&str| {
        let host = address.rsplit_once(':').expect("an address has a port").0;
        **address != dialled && NORTH.nat.contains(&host.trim_matches(['[', ']']))
    };
    assert!(!from.is_empty() && from.iter().all(outside), "{links:?}");
}

/// With west's node gone, nothing is written unless north hears of it: by streams that the leader in
/// east opens on a connection that north has dialled.
fn the_undialled_site_votes(world: &mut World) {
    if world.leader("east") != "east" {
        world.site("east").fedctl(&["store", "transfer", "--to", "east"]).unwrap();
    }
    wait::until("east to lead", LIMIT, || (world.leader("east") == "east").then_some(()));
    let load = world.load("east", "notes");
    world.site_mut("west").kill_federation().unwrap();
    let took = world.write("east");
    println!("east and north wrote without west in {took:?}");
    world.site_mut("west").start_federation().unwrap();
    let took = world.converge(&["east", "west", "north", "south"]);
    println!("west's node followed {took:?} after its start");
    println!("meanwhile: {}", load.end());
}

fn nodes_restart_one_by_one(world: &mut World) {
    let load = world.load("east", "web");
    for name in world.names() {
        let site = world.site_mut(&name);
        site.kill_federation().unwrap();
        let begun = Instant::now();
        site.start_federation().unwrap();
        let started = begun.elapsed();
        world.converge(&["east", "west", "north", "south"]);
        println!(
            "{name}'s node answered after {started:?}, all agreed after {:?}",
            begun.elapsed()
        );
    }
    println!("meanwhile: {}", load.end());
}

fn the_leader_dies(world: &mut World) {
    let leader = world.leader("east");
    let voters = ["east", "west", "north"];
    let writer = voters.iter().find(|voter| **voter != leader).unwrap();
    let load = world.load("east", "web");
    world.site_mut(&leader).kill_federation().unwrap();
    let killed = Instant::now();
    let another = || Some(world.leader(writer)).filter(|next| *next != leader);
    let elected = || (wait::until("another leader", LIMIT, another), killed.elapsed());
    let ((next, after), took) = std::thread::scope(|scope| {
        let elected = scope.spawn(elected);
        world.write(writer);
        let took = killed.elapsed();
        (elected.join().unwrap(), took)
    });
    println!("{leader} led and died; {next} led after {after:?}; {writer} wrote after {took:?}");
    assert!(took < WRITES_BACK_MAX && took < after + FORWARD_MAX, "{took:?}");
    // South has no vote, and what it changes is agreed to all the same.
    let others: Vec<&str> =
        ["east", "west", "north", "south"].into_iter().filter(|name| *name != leader).collect();
    world.export("south", "cart", &["east", "west"]);
    let took = world.converge(&others);
    println!("the others agreed after {took:?}");
    world.site_mut(&leader).start_federation().unwrap();
    let took = world.converge(&["east", "west", "north", "south"]);
    let store = world.site(&leader).json(&["store", "status"]).unwrap();
    println!("{leader}'s node followed {took:?} after its start, as {}", store["role"]);
    assert_eq!(store["mode"], "member", "{store}");
    println!("meanwhile: {}", load.end());
}

fn gateways_restart_one_by_one(world: &mut World) {
    for name in world.names() {
        world.site_mut(&name).kill_gateway().unwrap();
        let begun = Instant::now();
        world.site_mut(&name).start_gateway().unwrap();
        for (site, service, from) in CALLS {
            world.until_answer(site, service, from);
        }
        println!("{name}'s gateway was back after {:?}", begun.elapsed());
    }
    let took = world.converge(&["east", "west", "north", "south"]);
    println!("all nodes agreed {took:?} later");
}

/// The gateways do without, also those that are started meanwhile.
fn all_nodes_die(world: &mut World) {
    let load = world.load("east", "web");
    for site in &mut world.sites {
        site.kill_federation().unwrap();
    }
    for (site, service, from) in CALLS {
        world.until_answer(site, service, from);
    }
    println!("without nodes: {}", load.end());
    for site in &mut world.sites {
        site.kill_gateway().unwrap();
    }
    let begun = Instant::now();
    for site in &mut world.sites {
        site.start_gateway().unwrap();
    }
    for (site, service, from) in CALLS {
        world.until_answer(site, service, from);
    }
    println!("all gateways were back after {:?}, without nodes", begun.elapsed());
    let begun = Instant::now();
    for site in world.sites.iter_mut().rev() {
        site.start_federation().unwrap();
    }
    world.converge(&["east", "west", "north", "south"]);
    world.write("south");
    println!("all nodes were back after {:?}", begun.elapsed());
}

fn south_leaves(world: &mut World) {
    let load = world.load("east", "web");
    let begun = Instant::now();
    world.site("south").fedctl(&["leave", "--drain", "1s", "--yes"]).unwrap();
    let left = begun.elapsed();
    world.until_refused("east", "cart");
    world.until_refused("south", "notes");
    until_no_link(world, "east", "south");
    println!(
        "south left in {left:?}, and had neither links nor answers {:?} later",
        begun.elapsed() - left
    );
    assert!(begun.elapsed() - left < OUT_MAX, "{:?}", begun.elapsed());
    wait::until_ok("south to be shown as gone", LIMIT, || {
        let members = world.site("east").json(&["store", "peers"])?;
        let rows = members["items"].as_array().cloned().unwrap_or_default();
        let gone = rows.iter().any(|row| row["name"] == "south" && row["state"] == "left");
        anyhow::ensure!(gone, "{members}");
        Ok(())
    });
    println!("meanwhile: {}", load.end());
}

fn west_is_shut_out(world: &mut World) {
    let load = world.load("east", "notes");
    let begun = Instant::now();
    let revoke = ["revoke", "west", "--yes", "--reason", "stolen"];
    world.site("east").fedctl(&revoke).unwrap();
    println!("the revocation was logged after {:?}", begun.elapsed());
    let (_, east) = world.until_refused("east", "web");
    let (_, west) = world.until_refused("west", "front");
    until_no_link(world, "east", "west");
    until_no_link(world, "north", "west");
    let took = begun.elapsed();
    println!("west was shut out after {took:?}; east was told {east:?}, west {west:?}");
    assert!(took < OUT_MAX, "{took:?}");
    // Two are left: one votes, and writes go on.
    println!("east wrote without west in {:?}", world.write("east"));
    // It does not come back by starting again.
    world.site_mut("west").kill_gateway().unwrap();
    world.site_mut("west").start_gateway().unwrap();
    wait::until_ok("west's gateway to be refused by east", LIMIT, || {
        let links = world.links("west", "east")?;
        let refused = links.iter().any(|link| !link["lastError"].is_null());
        anyhow::ensure!(refused && links.iter().all(|link| link["state"] != "Up"), "{links:?}");
        println!("west's link to east: {}", links[0]["lastError"]);
        Ok(())
    });
    assert!(world.get("west", "front").is_err());
    println!("meanwhile: {}", load.end());
}

fn until_no_link(world: &World, from: &str, to: &str) {
    wait::until_ok(&format!("{from} to have no link to {to}"), LIMIT, || {
        let links = world.links(from, to)?;
        anyhow::ensure!(links.iter().all(|link| link["state"] != "Up"), "{links:?}");
        Ok(())
    });
}
