//! `fedctl why` on a live fleet: faults come from outside, one by one and two at a time, and it has to
//! name the hop that is broken, the earlier one of two.

#![expect(clippy::print_stdout, reason = "a test tells what was asked and what took how long")]

mod fault;
mod world;

use std::time::Instant;

use model::why::{Hop, Verdict};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use testkit::wait;
use wire::operator::proto::RevokeRequest;
use wire::operator::proto::revoke_request::Target;

use fault::Fault;
use world::{HOST, LIMIT, World};

/// Who is asked when both sides can be: as `fedctl why --also` does.
const BOTH: [&str; 2] = ["east", "west"];
const PAIRS: usize = 20;
/// Of the pairs; another one gives other pairs.
const SEED: u64 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_names_the_broken_hop_of_each_fault() {
    let mut world = World::start().await;
    assert!(Fault::ALL.len() >= 20);
    for fault in Fault::ALL {
        let begun = Instant::now();
        fault.inject(&mut world).await;
        world.until_broken(&format!("{fault:?}"), fault.hop(), Some(fault.code())).await;
        // Whoever is asked, nobody names a hop that is sound.
        for asked in ["east", "west", "south"] {
            let seen = world.ask(&[asked], HOST, false).await;
            let Some(broken) = seen.answer.broken() else { continue };
            assert!(fault.may_show_as(broken), "{fault:?} asked at {asked}: {}", seen.table());
        }
        fault.heal(&mut world).await;
        world.until_reached(&format!("the end of {fault:?}")).await;
        println!("{fault:?}: {} {}, {:.1?}", fault.hop(), fault.code(), begun.elapsed());
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_names_the_earlier_one_of_two_faults() {
    let mut world = World::start().await;
    let mut dice = StdRng::seed_from_u64(SEED);
    for round in 0..PAIRS {
        let (first, second) = pair(&mut dice);
        let what = format!("pair {round}: {first:?} and {second:?}");
        let begun = Instant::now();
        // What only the store tells has to be told while there are tunnels.
        let both = if first.needs_store() { [first, second] } else { [second, first] };
        for fault in both {
            fault.inject(&mut world).await;
            let earliest = if fault == second && !first.needs_store() { second } else { first };
            world.until_broken(&what, earliest.hop(), None).await;
        }
        let again = world.ask(&BOTH, HOST, false).await;
        let hop = again.answer.broken().map(|step| step.hop);
        assert_eq!(hop, Some(first.hop()), "{what}, with both in force: {}", again.table());
        second.heal(&mut world).await;
        first.heal(&mut world).await;
        world.until_reached(&format!("the end of {what}")).await;
        println!("{what}: {}, {:.1?}", first.hop(), begun.elapsed());
    }
    world.stop().await;
}

/// Two faults of different hops, the earlier one first.
fn pair(dice: &mut StdRng) -> (Fault, Fault) {
    loop {
        let one = Fault::ALL[dice.random_range(0..Fault::ALL.len())];
        let other = Fault::ALL[dice.random_range(0..Fault::ALL.len())];
        match one.hop().cmp(&other.hop()) {
            std::cmp::Ordering::Less => return (one, other),
            std::cmp::Ordering::Greater => return (other, one),
            std::cmp::Ordering::Equal => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_answers_without_nodes_and_without_a_quorum() {
    let mut world = World::start().await;
    let unjoined = world.ask(&["east"], "shop/api.north:80", false).await;
    let broken = unjoined.answer.broken().unwrap_or_else(|| panic!("{}", unjoined.table()));
    assert_eq!((broken.hop, unjoined.code()), (Hop::Catalog, "FED6108".into()));

    // Requests do not need the nodes of the two clusters, and so the verdict does not blame them.
    world.fleet.cluster_mut("east").stop_federation().await;
    let blind = world.ask(&BOTH, "shop/api.west:80", false).await;
    assert_eq!(blind.answer.verdict(), Verdict::Undecided, "{}", blind.table());
    assert!(
        blind.table().contains("Silent: east: no federation node answers"),
        "{}",
        blind.table()
    );

    world.fleet.cluster_mut("south").stop_federation().await;
    wait::until_async("west to know that there is no quorum", LIMIT, async || {
        let alone = world.ask(&["west"], "shop/api.west:80", false).await;
        assert!(alone.answer.broken().is_none(), "{}", alone.table());
        alone.table().contains("which may be old: no quorum").then_some(())
    })
    .await;
    for cluster in ["east", "south"] {
        world.fleet.cluster_mut(cluster).start_federation().await.unwrap();
    }
    world.until_reached("the nodes to be back").await;

    let revoke = RevokeRequest {
        target: Some(Target::Cluster("west".into())),
        reason: "a test".into(),
        reanchor: vec![],
    };
    wait::until_async("the revocation", LIMIT, async || {
        world.operator("east").await.revoke(revoke.clone()).await.ok()
    })
    .await;
    for asked in [&["east"][..], &["south"], &BOTH] {
        wait::until_async("the revocation to be named", LIMIT, async || {
            let seen = world.ask(asked, "shop/api.west:80", false).await;
            (seen.code() == "FED6118").then_some(())
        })
        .await;
    }
    world.stop().await;
}
