//! Three sites, to one of which no UDP passes: it joins, votes and talks over TCP. Then UDP passes, and
//! then not again.

use std::time::{Duration, Instant};

use testkit::wait;
use wan::netns;

use super::LIMIT;
use super::network::{EAST, SOUTH, WEST};
use super::world::World;

/// What two nodes need to be back on the other carrier: the end of a connection that nothing is heard on,
/// the wait for QUIC, and a busy machine.
const CHANGED_MAX: Duration = Duration::from_secs(25);
const OVER_TCP: &str = "the store connection runs over TCP";
const OVER_QUIC: &str = "store connection up";

#[test]
fn a_site_that_udp_does_not_reach_joins_votes_and_answers() {
    if let Some(reason) = netns::unavailable() {
        println!(
            "skipped: namespaces::blocked::a_site_that_udp_does_not_reach_joins_votes_and_answers: {reason}"
        );
        return;
    }
    let mut world = World::build(&[EAST, WEST, SOUTH]);
    let rules = world.folder.path().join("no-udp.nft");
    std::fs::write(&rules, include_str!("no-udp.nft")).unwrap();
    let nft = |world: &World, arguments: &[&str]| {
        world.network.netns("west").run("nft", arguments).unwrap();
    };
    let block = ["-f", rules.to_str().unwrap()];
    nft(&world, &block);
    world.start_everything();
    world.federate();
    world.until_voters("east", &["east", "south", "west"]);
    let took = world.converge(&["east", "west", "south"]);
    println!("all agreed after {took:?}");
    world.serve("west", "web");
    world.route("east", &["web"]);
    world.site("east").fedctl(&["namespace", "grant", "shop", "--clusters", "west"]).unwrap();
    world.export("west", "web", &["east"]);
    println!("west answered east after {:?}", world.until_answer("east", "web", "west"));
    until_logged(&world, "tcp");
    assert!(has_said(&world, "west", OVER_TCP) > 0 && has_said(&world, "east", OVER_TCP) > 0);
    assert_eq!(has_said(&world, "west", OVER_QUIC), 0);
    println!("west wrote in {:?}", world.write("west"));

    let load = world.load("east", "web");
    nft(&world, &["delete", "table", "inet", "blocked"]);
    // West has two peers, to each of which it holds a connection or is held.
    let took = until_said_more(&world, "west", OVER_QUIC, 0);
    println!("west's node was back on QUIC after {took:?}");
    until_links_are(&world, "quic");
    println!("west wrote in {:?}", world.write("west"));
    println!("meanwhile: {}", load.end());
    until_logged(&world, "quic");

    let before = has_said(&world, "west", OVER_TCP);
    nft(&world, &block);
    let took = until_said_more(&world, "west", OVER_TCP, before);
    println!("west's node was on TCP again after {took:?}");
    until_links_are(&world, "tcp");
    println!("west wrote in {:?}", world.write("west"));
    println!("west answered east after {:?}", world.until_answer("east", "web", "west"));
    until_logged(&world, "tcp");
    world.converge(&["east", "west", "south"]);
}

/// How often a site's node has said so.
fn has_said(world: &World, site: &str, text: &str) -> usize {
    world.site(site).log("federation").matches(text).count()
}

fn until_said_more(world: &World, site: &str, text: &str, before: usize) -> Duration {
    let begun = Instant::now();
    let what = format!("{text:?} of {site}");
    wait::until(&what, LIMIT, || (has_said(world, site, text) > before).then_some(()));
    assert!(begun.elapsed() < CHANGED_MAX, "{:?}", begun.elapsed());
    begun.elapsed()
}

fn until_links_are(world: &World, transport: &str) {
    wait::until_ok(&format!("links over {transport}"), LIMIT, || {
        let links = world.links("east", "west")?;
        let mut live = links.iter().filter(|link| link["state"] == "Up").peekable();
        let is_so = live.peek().is_some() && live.all(|link| link["transport"] == transport);
        anyhow::ensure!(is_so, "{links:?}");
        Ok(())
    });
}

/// Waits until the last request of both sides' access logs went over this.
fn until_logged(world: &World, transport: &str) {
    for site in ["east", "west"] {
        wait::until_ok(&format!("a record of {site} over {transport}"), LIMIT, || {
            let log = std::fs::read_to_string(world.site(site).access_log())?;
            let last = log.lines().last().unwrap_or_default();
            let record: serde_json::Value = serde_json::from_str(last)?;
            anyhow::ensure!(record["transport"] == transport, "{last}");
            Ok(())
        });
    }
}
