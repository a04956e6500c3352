//! Nodes and gateways that are killed, stand still and come back.

use std::time::{Duration, Instant};

use testkit::outside::{Failure, Ledger, Outside};
use testkit::scenes::path::{EAST, SOUTH, Scene, WEST};
use testkit::sites::LIMIT;
use testkit::wait;
use testkit::writes::Writes;

/// Requests that each state of things has to pass.
const ENOUGH: u64 = 100;
/// What a request may take that was under way to a gateway when that died: 600 ms until it is noticed,
/// and what a busy machine adds.
const NOTICED_MAX: Duration = Duration::from_secs(3);

#[test]
fn nodes_and_gateways_die_and_stand_still_and_no_request_fails() {
    let mut scene = Scene::start().unwrap();
    a_node_is_killed(&mut scene);
    a_gateway_is_killed(&mut scene);
    a_gateway_stands_still(&mut scene);
    the_callers_own_gateway_stands_still(&mut scene);
    a_voter_stands_still_again_and_again(&mut scene);
    the_leader_stands_still(&mut scene);
    two_of_three_nodes_are_gone(&mut scene);
    all_nodes_are_gone_and_a_gateway_restarts(&mut scene);
}

fn told(what: &str, outside: Outside) -> Ledger {
    outside.more(ENOUGH);
    let seen = outside.end();
    println!("{what}: {seen}");
    seen.assert_clean();
    seen
}

fn a_node_is_killed(scene: &mut Scene) {
    for place in [WEST, EAST] {
        let outside = scene.calls(2);
        scene.sites[place].kill_federation().unwrap();
        outside.more(ENOUGH);
        scene.sites[place].start_federation().unwrap();
        told("a node killed and started", outside);
    }
    scene.sites.settled().unwrap();
}

fn a_gateway_is_killed(scene: &mut Scene) {
    let outside = scene.calls(2);
    scene.sites[WEST].kill_gateway().unwrap();
    outside.more(ENOUGH);
    scene.sites[WEST].start_gateway().unwrap();
    let back = scene.until_links("east", &["south", "west"]);
    println!("east had a tunnel again {back:?} after the gateway's start");
    let seen = told("west's gateway killed and started", outside);
    assert!(seen.longest < NOTICED_MAX, "{seen}");
    scene.sites.until_answer(EAST, "only", WEST);
}

fn a_gateway_stands_still(scene: &mut Scene) {
    let outside = scene.calls(2);
    let gateway = scene.sites[WEST].gateway.as_ref().unwrap();
    gateway.pause().unwrap();
    outside.more(ENOUGH);
    scene.until_links("east", &["south"]);
    gateway.resume().unwrap();
    scene.until_both_serve();
    let seen = told("west's gateway stood still", outside);
    assert!(seen.longest < NOTICED_MAX, "{seen}");
    scene.sites.until_answer(EAST, "only", WEST);
}

/// Peers have given it up when it goes on. What it was asked meanwhile may have tried dead connections
/// only: that is refused with words, and nothing else is.
fn the_callers_own_gateway_stands_still(scene: &mut Scene) {
    let outside = scene.calls(2);
    let gateway = scene.sites[EAST].gateway.as_ref().unwrap();
    gateway.pause().unwrap();
    scene.until_links("west", &["south"]);
    gateway.resume().unwrap();
    outside.more(ENOUGH);
    let seen = outside.end();
    println!("east's gateway stood still: {seen}");
    assert!(seen.failed() == seen.count(Failure::Status) && seen.failed() <= 2, "{seen}");
    scene.until_links("west", &["east", "south"]);
}

/// Each time for longer than an election takes.
fn a_voter_stands_still_again_and_again(scene: &mut Scene) {
    let (term, leader) = scene.sites.settled().unwrap();
    let voter = (leader + 1) % 3;
    let (outside, writes) = (scene.calls(1), Writes::start(&scene.sites));
    for _ in 0..3 {
        let node = scene.sites[voter].federation.as_ref().unwrap();
        node.pause().unwrap();
        let before = writes.acknowledged().writes;
        let paused = Instant::now();
        wait::until("writes without it", LIMIT, || {
            let more = writes.acknowledged().writes >= before + 20;
            (more && paused.elapsed() > Duration::from_secs(2)).then_some(())
        });
        node.resume().unwrap();
        let (now, still) = scene.sites.settled().unwrap();
        assert_eq!((now, still), (term, leader), "it has deposed a healthy leader");
    }
    let acknowledged = writes.end(&scene.sites);
    told("a voter stood still three times", outside);
    assert_eq!(acknowledged.missing(&scene.sites, voter).unwrap(), Vec::<String>::new());
}

/// For longer than its lease: another one leads by then, and it never speaks for the store again.
fn the_leader_stands_still(scene: &mut Scene) {
    let (term, leader) = scene.sites.settled().unwrap();
    let (outside, writes) = (scene.calls(1), Writes::start(&scene.sites));
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    let node = scene.sites[leader].federation.as_ref().unwrap();
    node.pause().unwrap();
    let (next_term, next) = scene.sites.led_by_one_of(&others);
    let paused = writes.acknowledged().writes;
    wait::until("writes at the next leader", LIMIT, || {
        (writes.acknowledged().writes > paused + 5).then_some(())
    });
    node.resume().unwrap();
    let acknowledged = writes.end(&scene.sites);
    assert!(next_term > term && next != leader);
    // It knows what was written without it, or says nothing.
    let missing = wait::until_ok("an answer that a quorum stands for", LIMIT, || {
        acknowledged.missing(&scene.sites, leader)
    });
    assert_eq!(missing, Vec::<String>::new());
    told("the leader stood still", outside);
    scene.sites.settled().unwrap();
}

fn two_of_three_nodes_are_gone(scene: &mut Scene) {
    let outside = scene.calls(2);
    for place in [WEST, SOUTH] {
        scene.sites[place].kill_federation().unwrap();
    }
    let refused =
        scene.sites[EAST].fedctl(&["token", "issue", "late", "--roles", "none", "--force"]);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("FED6303"), "{refused}");
    outside.more(ENOUGH);
    for place in [WEST, SOUTH] {
        scene.sites[place].start_federation().unwrap();
    }
    scene.sites.settled().unwrap();
    told("two of three nodes gone", outside);
}

fn all_nodes_are_gone_and_a_gateway_restarts(scene: &mut Scene) {
    let outside = scene.calls(2);
    for site in scene.sites.iter_mut() {
        site.kill_federation().unwrap();
    }
    scene.sites[WEST].stop_gateway().unwrap();
    scene.sites[WEST].start_gateway().unwrap();
    scene.sites.until_answer(EAST, "only", WEST);
    told("no node, and west's gateway restarted", outside);
    scene.sites[EAST].kill_gateway().unwrap();
    scene.sites[EAST].start_gateway().unwrap();
    scene.sites.until_answer(EAST, "only", WEST);
    for site in scene.sites.iter_mut().rev() {
        site.start_federation().unwrap();
    }
    scene.sites.settled().unwrap();
}
