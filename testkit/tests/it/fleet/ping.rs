//! Pings: what gateways measure on their links, and what is said where there is nothing to measure.

use std::time::Duration;

use fedctl::commands::Outcome;
use fedctl::error::{CommandError, Exit};
use testkit::wait;
use wan::Impairment;
use wire::operator::proto::gateway_ping;
use wire::operator::proto::{GatewayPing, PingClusterRequest};
use wire::resource::proto::{LinkState, PingedLink};

use super::cordon::fedctl;
use super::{LIMIT, WORKERS, World, trust};

const PROBES: u32 = 5;
/// Of the path from east to west, one way.
const DELAY_MS: u64 = 15;

async fn pings(world: &World, to: &str) -> Vec<GatewayPing> {
    let request = PingClusterRequest { cluster: to.into(), probes: PROBES };
    world.operator("east").await.ping_cluster(request).await.unwrap().gateways
}

/// What the one gateway of east has measured.
async fn pinged(world: &World, to: &str) -> Vec<PingedLink> {
    let mut gateways = pings(world, to).await;
    assert_eq!(gateways.len(), 1, "{gateways:?}");
    match gateways.remove(0).outcome {
        Some(gateway_ping::Outcome::Answer(answer)) => answer.links,
        outcome => panic!("{outcome:?}"),
    }
}

async fn fails(world: &World, words: &str) -> CommandError {
    fedctl(world, "east", words).await.unwrap().unwrap_err()
}

/// Both classes at each worker.
async fn all_linked(world: &World, to: &str) {
    world.linked("east", to).await;
    wait::until_async("all links", LIMIT, async || {
        let links = world.links("east", to).await;
        let live = links.iter().filter(|row| row.link.as_ref().unwrap().state() == LinkState::Live);
        (live.count() >= 2 * WORKERS).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ping_measures_each_link_until_the_cluster_is_cut_off() {
    let delays = [("east", "west", DELAY_MS)];
    let mut world = World::start_apart(&["east", "west"], &delays).await;
    all_linked(&world, "west").await;
    let links = pinged(&world, "west").await;
    assert!(links.len() >= 2 * WORKERS, "{links:#?}");
    for measured in &links {
        assert_eq!((measured.sent, measured.answered), (PROBES, PROBES), "{measured:#?}");
        assert!(measured.min_us() >= 2_000 * DELAY_MS, "{measured:#?}");
        assert!(measured.min_us() <= measured.avg_us() && measured.avg_us() <= measured.max_us());
        let mtu = measured.mtu.unwrap();
        assert!(mtu.current_bytes >= 1200 && mtu.max_bytes == 1452, "{mtu:?}");
    }
    assert_eq!(
        fedctl(&world, "east", "ping west --mtu -c 2").await.unwrap().unwrap(),
        Outcome::Done
    );

    // The path takes smaller packets from now on: what is lost by it is no probe.
    let narrow = Impairment {
        mtu_bytes: Some(1200),
        ..Impairment::delayed(Duration::from_millis(DELAY_MS))
    };
    world.fleet.relay().set_all(&narrow).unwrap();
    assert_eq!(fedctl(&world, "east", "ping west --mtu").await.unwrap().unwrap(), Outcome::Done);

    world.fleet.relay().cut("west").unwrap();
    let links = pinged(&world, "west").await;
    assert!(!links.is_empty() && links.iter().all(|row| row.answered == 0), "{links:#?}");
    let silent = |row: &&PingedLink| row.sent > 0 && code(row) == 2002;
    assert!(links.iter().filter(silent).count() > 0, "the links die of it: {links:#?}");
    assert_eq!(fedctl(&world, "east", "ping west").await.unwrap().unwrap(), Outcome::Unwell);

    // Whoever is asked about nothing says so.
    for (words, exit, wanted) in [
        ("ping nowhere", Exit::Failed, "nowhere is no peer of this cluster (FED4007)"),
        ("ping east", Exit::Usage, "east is this cluster, to which there is no tunnel (FED4007)"),
    ] {
        let error = fails(&world, words).await;
        assert_eq!(error.exit, exit, "{error}");
        assert!(error.to_string().contains(wanted), "{error}");
    }
    world.fleet.cluster_mut("east").stop_gateway().await;
    let error = fails(&world, "ping west").await;
    assert!(error.to_string().contains("no gateway is connected to this node"), "{error}");
    assert_eq!((error.exit, error.code.map(|code| code.number())), (Exit::Failed, Some(1119)));
    let records = world.stop().await;
    assert!(records.records("west").is_empty(), "a probe is no request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_down_is_named_beside_those_that_answer() {
    let world = World::start(&["east", "west"]).await;
    all_linked(&world, "west").await;
    // West has another address now, and nobody is there.
    let bundle = trust::bundle(&world, "west");
    let peer = trust::peer(&world, "east", "west", &[bundle]);
    let address = world.fleet.relay().addr("east", "west").unwrap();
    let dead = format!("{}:1", address.ip());
    let more = format!("}}, {{transport: quic, host: {}, port: 1}}]", address.ip());
    world.write("east", "peer-west", &peer.replacen("}]", &more, 1));
    let rows = wait::until_async("a link that is down", LIMIT, async || {
        let rows = pinged(&world, "west").await;
        let is_down = |row: &PingedLink| {
            let link = row.link.as_ref().unwrap();
            link.address == dead && link.state() == LinkState::Down && code(row) > 0
        };
        rows.iter().any(is_down).then_some(rows)
    })
    .await;
    for row in rows {
        let expected = if row.link.as_ref().unwrap().address == dead { 0 } else { PROBES };
        assert_eq!((row.sent, row.answered), (expected, expected), "{row:#?}");
    }
    assert_eq!(fedctl(&world, "east", "ping west").await.unwrap().unwrap(), Outcome::Done);
    world.stop().await;
}

fn code(row: &PingedLink) -> u32 {
    let error = row.link.as_ref().and_then(|link| link.last_error.as_ref());
    error.map_or(0, |error| error.code)
}
