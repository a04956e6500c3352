//! Cuts between clusters of real processes, whole ones and halves.

use std::time::{Duration, Instant};

use testkit::greeter::{BIG, BIG_TIMES};
use testkit::outside::{Failure, Ledger, Outside};
use testkit::scenes::path::{EAST, SOUTH, Scene, WEST};
use testkit::sites::LIMIT;
use testkit::wait;
use wan::relay::LinkCounters;
use wan::{DropReason, Impairment};

/// Requests that each state of things has to pass.
const ENOUGH: u64 = 100;
/// How long the site is away; `make soak` cuts it off for an hour. Longer than a leader's silence that
/// makes a node of the group watch others too.
const CUT: Duration = Duration::from_secs(12);
const NOTICED_MAX: Duration = Duration::from_secs(3);
/// What is promised after a heal, and what a busy machine adds.
const CONVERGED_MAX: Duration = Duration::from_secs(10);
/// Time for a false alarm to show; `make soak` looks for longer.
const BAD_WEATHER: Duration = Duration::from_secs(15);
/// A request through a path whose packets have become too large.
const BLACK_HOLE_MAX: Duration = Duration::from_secs(3);

#[test]
fn cut_off_sites_are_noticed_and_come_back_and_no_request_fails() {
    let mut scene = Scene::start().unwrap();
    a_site_is_cut_off(&mut scene);
    packets_pass_one_way_only(&scene);
    two_of_three_cannot_reach_each_other(&mut scene);
    packets_are_lost_doubled_and_come_late(&scene);
    large_packets_vanish(&scene);
}

fn told(what: &str, outside: Outside) -> Ledger {
    outside.more(ENOUGH);
    let seen = outside.end();
    println!("{what}: {seen}");
    seen.assert_clean();
    assert!(seen.longest < NOTICED_MAX, "{seen}");
    seen
}

fn a_site_is_cut_off(scene: &mut Scene) {
    // The cut-off cluster's own traffic goes on, too.
    scene.sites.route(WEST, &["only"]).unwrap();
    scene.sites.until_answer(WEST, "only", WEST);
    let (outside, inside) = (scene.calls(2), Outside::start(&scene.sites.target(WEST, "only"), 1));
    scene.sites.relay().cut("west").unwrap();
    let cut = Instant::now();
    let noticed = scene.until_links("east", &["south"]);
    scene.sites.led_by_one_of(&[EAST, SOUTH]);
    wait::until("the cut to last", CUT + LIMIT, || (cut.elapsed() >= CUT).then_some(()));
    let grant =
        scene.sites[EAST].fedctl(&["namespace", "grant", "while-cut", "--clusters", "east"]);
    grant.unwrap();
    scene.sites.relay().heal("west").unwrap();
    let healed = Instant::now();
    scene.until_both_serve();
    let tunnels = healed.elapsed();
    scene.sites.settled().unwrap();
    let store = healed.elapsed();
    println!(
        "west's links were down after {noticed:?}; after the heal there were tunnels in {tunnels:?}, \
         and one store in {store:?}"
    );
    assert!(tunnels < CONVERGED_MAX && store < CONVERGED_MAX);
    told("west was cut off", outside);
    told("its own traffic", inside);
    scene.sites.until_answer(EAST, "only", WEST);
}

fn packets_pass_one_way_only(scene: &Scene) {
    let (term, leader) = scene.sites.settled().unwrap();
    for (from, to) in [("east", "west"), ("west", "east")] {
        let outside = scene.calls(2);
        scene.sites.relay().cut_path(from, to).unwrap();
        scene.until_links("east", &["south"]);
        scene.until_links("west", &["south"]);
        outside.more(ENOUGH);
        scene.sites.relay().heal_path(from, to).unwrap();
        scene.until_both_serve();
        told(&format!("nothing from {from} to {to}"), outside);
    }
    let (after, still) = scene.sites.settled().unwrap();
    println!(
        "one-way cuts: the leader was {leader} in term {term}, and is {still} in term {after}"
    );
    // One for each cut that hid the leader from a voter, at the most.
    assert!(after <= term + 2, "leaders went from term {term} to {after}");
}

/// East and west cannot reach each other, south reaches both: what only west has is refused with words,
/// all else goes on, and nobody deposes the leader again and again.
fn two_of_three_cannot_reach_each_other(scene: &mut Scene) {
    let outside = scene.calls(2);
    for (from, to) in [("east", "west"), ("west", "east")] {
        scene.sites.relay().cut_path(from, to).unwrap();
    }
    scene.until_links("east", &["south"]);
    let only = scene.sites.target(EAST, "only");
    let refused = wait::until("a refusal at once", LIMIT, || {
        let asked = Instant::now();
        let miss = only.get().err()?;
        (asked.elapsed() < Duration::from_secs(1)).then_some(miss)
    });
    assert_eq!(refused.failure, Failure::Status, "{refused}");
    assert!(refused.text.contains(" 503 ") && refused.text.contains("FED2001"), "{refused}");
    outside.more(ENOUGH);
    let term = || (0..3).filter_map(|place| scene.sites.store(place)?.term).max().unwrap_or(0);
    let (before, since) = (term(), Instant::now());
    wait::until("some elections' time", LIMIT, || {
        (since.elapsed() > Duration::from_secs(4)).then_some(())
    });
    let after = term();
    assert!(after <= before + 1, "terms went from {before} to {after} while south reaches both");
    let write = ["namespace", "grant", "partial", "--clusters", "east"];
    scene.sites[EAST].fedctl(&write).unwrap();
    for (from, to) in [("east", "west"), ("west", "east")] {
        scene.sites.relay().heal_path(from, to).unwrap();
    }
    scene.until_both_serve();
    scene.sites.settled().unwrap();
    told("a mesh with a hole", outside);
    scene.sites.until_answer(EAST, "only", WEST);
}

fn packets_are_lost_doubled_and_come_late(scene: &Scene) {
    let bad = Impairment {
        duplicate: 0.05,
        corrupt: 0.01,
        reorder: 0.1,
        reorder_by: Duration::from_millis(4),
        ..Impairment::delayed(Duration::from_millis(5)).with_loss(0.02)
    };
    scene.sites.relay().set_all(&bad).unwrap();
    let mut target = scene.sites.target(EAST, "api");
    target.path = BIG.into();
    let (outside, begun) = (Outside::start(&target, 2), Instant::now());
    wait::until("bad weather", LIMIT, || (begun.elapsed() > BAD_WEATHER).then_some(()));
    let seen = told("lost, doubled, altered and late packets", outside);
    let whole = |site: &str| format!("hello from {site}\n").repeat(BIG_TIMES).trim_end().to_owned();
    let right = [whole("west"), whole("south")];
    assert!(seen.bodies.keys().all(|body| right.contains(body)), "a body was altered");
    scene.sites.relay().set_all(&Impairment::delayed(Duration::from_millis(1))).unwrap();
}

/// What was found to be the largest packet is too large from now on, and nobody says so.
fn large_packets_vanish(scene: &Scene) {
    let mut target = scene.sites.target(EAST, "only");
    target.path = BIG.into();
    let outside = Outside::start(&target, 2);
    outside.more(ENOUGH);
    let narrow =
        Impairment { mtu_bytes: Some(1200), ..Impairment::delayed(Duration::from_millis(1)) };
    scene.sites.relay().set_all(&narrow).unwrap();
    let seen = told("packets beyond 1200 bytes vanish", outside);
    let links = scene.sites.relay().counters();
    let vanished = |link: &LinkCounters| {
        link.forward.dropped.get(DropReason::Mtu) + link.back.dropped.get(DropReason::Mtu)
    };
    let vanished: u64 = links.iter().map(vanished).sum();
    println!("{vanished} packets were too large");
    assert!(vanished > 0);
    assert!(seen.longest < BLACK_HOLE_MAX, "{seen}");
}
