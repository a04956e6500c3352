//! Cuts, deaths and recoveries.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tunnel::{Exchange, Part, StreamErrorKind};
use wan::{Impairment, UdpRelay};
use wire::tunnel::{Dispatched, ErrorCode, StreamKind};

use crate::site::{Cluster, LONG, Options, Site, ask, pair, relayed, wait_for};

fn down(site: &Site, other: &Site) -> bool {
    site.tunnel.path(&other.cluster.name).is_none()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_death_within_a_second_and_healing_brings_a_new_source_port() {
    let ports = |site: &Site| -> Vec<_> {
        site.tunnel.links().iter().filter(|l| !l.dialled).filter_map(|l| l.remote).collect()
    };
    // Time in which our own event loops stood still is not counted, rightly, and a machine that runs
    // other tests beside this one has such times: the best of a few rounds is what the rule gives.
    // Each begins with processes that have shown no silence yet.
    let mut best = Duration::MAX;
    for _ in 0..4 {
        let (east, west, relay) =
            relayed(Impairment::delayed(Duration::from_millis(5)), Options::default).await;
        let before = [ports(&east), ports(&west)].concat();
        best = best.min(cut_west(&east, &west, &relay).await);
        relay.heal("west").unwrap();
        east.reaches(&west).await;
        west.reaches(&east).await;
        ask(&east, &west).await.unwrap();
        ask(&west, &east).await.unwrap();
        let after = [ports(&east), ports(&west)].concat();
        assert!(!before.is_empty() && !after.is_empty());
        assert!(after.iter().all(|port| !before.contains(port)), "{before:?} then {after:?}");
        if best < Duration::from_secs(1) {
            return;
        }
    }
    panic!("the path was gone after {best:?} at best");
}

/// Cuts west off in the middle of an exchange; how long until there is no path to it any more.
async fn cut_west(east: &Site, west: &Site, relay: &UdpRelay) -> Duration {
    let mut exchange = east.open(west, "echo", StreamKind::Tcp).await;
    exchange.send.data(Bytes::from_static(b"x")).await.unwrap();
    assert!(matches!(exchange.recv.next().await.unwrap(), Part::Data(_)));
    relay.cut("west").unwrap();
    let cut = Instant::now();
    let error = exchange.recv.next().await.unwrap_err();
    let told = cut.elapsed();
    assert_eq!((error.kind, error.code), (StreamErrorKind::ConnectionLost, ErrorCode::PeerSilent));
    assert_eq!(error.dispatched, Dispatched::Maybe);
    assert!(error.to_string().contains("nothing was heard for"), "{error}");
    assert!(told >= Duration::from_millis(500), "too soon: {told:?}");
    wait_for("no path", || down(east, west)).await;
    let gone = cut.elapsed();
    let open = east.open_for("echo", StreamKind::Tcp);
    let refused = east.workers[0].open(&west.cluster.name, &open).await.unwrap_err();
    assert!(refused.to_string().contains("no live tunnel"), "{refused}");
    let last_error = || east.tunnel.links().into_iter().find_map(|row| row.last_error);
    wait_for("an error to show", || last_error().is_some()).await;
    gone
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stands_still_again_and_again_loses_its_links_once() {
    let (east, west, relay) =
        relayed(Impairment::delayed(Duration::from_millis(5)), Options::default).await;
    let ask = async |exchange: &mut Exchange| {
        exchange.send.data(Bytes::from_static(b"x")).await.ok();
        exchange.recv.next().await
    };
    let pause = async |exchange: &mut Exchange| {
        relay.cut("west").unwrap();
        let (cut, dead) = (Instant::now(), east.tunnel.counters().links_dead);
        wait_for("a second of silence", || {
            cut.elapsed() > Duration::from_secs(1) || east.tunnel.counters().links_dead > dead
        })
        .await;
        relay.heal("west").unwrap();
        ask(exchange).await
    };
    let mut exchange = east.open(&west, "echo", StreamKind::Tcp).await;
    ask(&mut exchange).await.unwrap();
    // A first silence of a second is a death, unless a busy machine has taught patience already.
    if let Err(error) = pause(&mut exchange).await {
        assert_eq!(error.code, ErrorCode::PeerSilent);
    }
    // The pair's other connections may be about to die of the same silence.
    let mut exchange = loop {
        east.reaches(&west).await;
        let mut exchange = east.open(&west, "echo", StreamKind::Tcp).await;
        if ask(&mut exchange).await.is_ok() {
            break exchange;
        }
    };
    for _ in 0..2 {
        let answer = pause(&mut exchange).await;
        assert!(matches!(answer, Ok(Part::Data(_))), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_in_one_direction_ends_the_link_on_both_sides() {
    for (from, to) in [("east", "west"), ("west", "east")] {
        let (east, west, relay) = relayed(Impairment::default(), Options::default).await;
        let mut exchange = east.open(&west, "echo", StreamKind::Tcp).await;
        assert_eq!(exchange.recv.opened().await.unwrap(), Ok(()));
        relay.cut_path(from, to).unwrap();
        let cut = Instant::now();
        let error = exchange.recv.next().await.unwrap_err();
        assert_eq!(error.kind, StreamErrorKind::ConnectionLost);
        wait_for("both to see it", || down(&east, &west) && down(&west, &east)).await;
        assert!(cut.elapsed() < Duration::from_secs(5), "{from}: {:?}", cut.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_pair_is_quiet_and_finds_out_with_its_first_exchange() {
    let (east, west, relay) = relayed(Impairment::default(), Options::default).await;
    ask(&east, &west).await.unwrap();
    let packets = || -> u64 {
        relay.counters().iter().map(|l| l.forward.received_packets + l.back.received_packets).sum()
    };
    // Talk lingers for two seconds; then there is a second with nothing, or one keepalive each way.
    let mut quiet = u64::MAX;
    let deadline = Instant::now() + LONG;
    while quiet > 24 {
        assert!(Instant::now() < deadline, "never quiet: {quiet} packets a second");
        let before = packets();
        tokio::time::sleep(Duration::from_secs(1)).await;
        quiet = packets() - before;
    }
    relay.cut("west").unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(!down(&east, &west), "an idle pair judges nothing");
    let asked = Instant::now();
    ask(&east, &west).await.unwrap_err();
    wait_for("no path", || down(&east, &west)).await;
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_peer_breaks_its_exchanges_off_and_is_not_taken_for_complete() {
    let (east, west) = pair(Options::default).await;
    let mut exchange = east.open(&west, "source-400000000", StreamKind::Tcp).await;
    let Part::Data(_) = exchange.recv.next().await.unwrap() else { panic!() };
    let killed = Instant::now();
    tokio::task::spawn_blocking(move || west.kill()).await.unwrap();
    let error = loop {
        match exchange.recv.next().await {
            Ok(Part::Data(_)) => {}
            Ok(part) => panic!("{part:?} from a dead peer"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, StreamErrorKind::ConnectionLost);
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_is_found_out_at_once() {
    let (east, west) = pair(Options::default).await;
    let (cluster, cell, addr) =
        (std::sync::Arc::clone(&west.cluster), std::sync::Arc::clone(&west.cell), west.addr());
    let before: Vec<_> = east.tunnel.links().iter().map(|link| link.since).collect();
    tokio::task::spawn_blocking(move || west.kill()).await.unwrap();
    let options = Options { listen: addr, ..Options::default() };
    let west = Site::start_as(&cluster, cell, options);
    west.tunnel.set_peers(vec![east.peer()]);
    let restarted = Instant::now();
    west.reaches(&east).await;
    // The first exchange may meet the connection of the process that was: it fails fast.
    let deadline = Instant::now() + LONG;
    while ask(&east, &west).await.is_err() {
        assert!(Instant::now() < deadline, "the restarted peer was never reached");
    }
    assert!(restarted.elapsed() < Duration::from_secs(4), "{:?}", restarted.elapsed());
    wait_for("the old links to go", || {
        east.tunnel.links().iter().all(|link| !before.contains(&link.since))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_and_a_long_path_are_no_death() {
    let bad = Impairment::delayed(Duration::from_millis(100)).with_loss(0.1);
    let (east, west, _relay) = relayed(bad, Options::default).await;
    for _ in 0..10 {
        ask(&east, &west).await.unwrap();
    }
    let dead = [&east, &west].map(|site| site.tunnel.counters().links_dead);
    assert_eq!(dead, [0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_come_and_go_while_everything_runs() {
    let (east, west) = pair(Options::default).await;
    let mut exchange = east.open(&west, "echo", StreamKind::Tcp).await;
    assert_eq!(exchange.recv.opened().await.unwrap(), Ok(()));
    east.tunnel.set_peers(vec![]);
    assert!(down(&east, &west), "a peer that is gone has no path");
    let error = exchange.recv.next().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::AdmissionRefused);
    assert!(error.to_string().contains("cluster \"west\" is no peer any more"), "{error}");
    // West goes on dialling, and is refused.
    wait_for("west to be refused", || east.tunnel.links().is_empty() && down(&west, &east)).await;
    east.tunnel.set_peers(vec![west.peer()]);
    east.reaches(&west).await;
    ask(&east, &west).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_of_a_simultaneous_dial_are_sorted_out() {
    for _ in 0..5 {
        let (east, west) = pair(|| Options { workers: 2, ..Options::default() }).await;
        east.is_settled_with(&west, 2).await;
        west.is_settled_with(&east, 2).await;
        ask(&east, &west).await.unwrap();
        ask(&west, &east).await.unwrap();
    }
}

/// Only one side can be reached, whichever id is the smaller.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_side_without_inbound_reachability_takes_part_in_full() {
    for dialler in ["east", "west"] {
        let clusters = ["east", "west"].map(Cluster::new);
        let [east, west] = clusters.each_ref().map(|cluster| {
            let options = Options { workers: 2, ..Options::default() };
            Site::start(cluster, &[&clusters[0], &clusters[1]], options)
        });
        let (from, to) = if dialler == "east" { (&east, &west) } else { (&west, &east) };
        to.tunnel.set_peers(vec![from.cluster.peer(&[])]);
        from.tunnel.set_peers(vec![to.peer()]);
        from.is_settled_with(to, 2).await;
        ask(from, to).await.unwrap();
        ask(to, from).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_tried_in_turn_and_each_keeps_its_own_error() {
    let [east, west] = ["east", "west"].map(Cluster::new);
    let all = [&east, &west];
    let east = Site::start(&east, &all, Options::default());
    let west = Site::start(&west, &all, Options::default());
    // Nothing listens on the first; the second and third are the same gateway under two names.
    let dead = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut peer = (*west.cluster.peer(&[dead.local_addr().unwrap(), west.addr()])).clone();
    let port = west.addr().port();
    for host in ["localhost", "no-such-host.invalid"] {
        let transport = model::Transport::Quic;
        peer.addresses.push(model::PeerAddress { transport, host: host.into(), port });
    }
    west.tunnel.set_peers(vec![east.cluster.peer(&[])]);
    east.tunnel.set_peers(vec![std::sync::Arc::new(peer)]);
    east.reaches(&west).await;
    ask(&east, &west).await.unwrap();
    let error = |address: &str| {
        let rows = east.tunnel.links();
        let row =
            rows.into_iter().find(|row| row.address.starts_with(address) && row.rtt.is_none());
        row.and_then(|row| row.last_error).map(|error| error.text)
    };
    let dead_address = dead.local_addr().unwrap().to_string();
    wait_for("both errors", || {
        error(&dead_address).is_some() && error("no-such-host.invalid").is_some()
    })
    .await;
    let text = error(&dead_address).unwrap();
    assert!(text.contains("no answer within 3s: see whether its UDP port is reachable"), "{text}");
    let text = error("no-such-host.invalid").unwrap();
    assert!(text.contains("could not be looked up"), "{text}");
    // The second name of one gateway leaves no second connection behind.
    east.is_settled_with(&west, 1).await;
    ask(&east, &west).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_stops_tells_its_peers_at_once() {
    let (east, west) = pair(Options::default).await;
    ask(&east, &west).await.unwrap();
    let closed = Instant::now();
    west.tunnel.start_drain(Duration::from_secs(1));
    west.tunnel.drained().await;
    west.tunnel.close();
    wait_for("the peer to hear it", || down(&east, &west)).await;
    assert!(closed.elapsed() < Duration::from_secs(2), "{:?}", closed.elapsed());
    west.tunnel.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_two_gateways_survives_the_loss_of_one() {
    let [east, west] = ["east", "west"].map(Cluster::new);
    let all = [&east, &west];
    let east = Site::start(&east, &all, Options::default());
    let first = Site::start(&west, &all, Options::default());
    let second = Site::start_named("gw-1", &west, &all, Options::default());
    let peer = west.peer(&[first.addr(), second.addr()]);
    for gateway in [&first, &second] {
        gateway.tunnel.set_peers(vec![east.cluster.peer(&[])]);
    }
    east.tunnel.set_peers(vec![peer]);
    wait_for("links to both", || {
        let rows = east.tunnel.links();
        let mut gateways: Vec<_> =
            rows.iter().filter(|l| l.rtt.is_some()).map(|l| l.gateway).collect();
        gateways.sort_unstable();
        gateways.dedup();
        gateways.len() == 2
    })
    .await;
    ask(&east, &first).await.unwrap();
    tokio::task::spawn_blocking(move || second.kill()).await.unwrap();
    // What meets the dead one fails within its second; everything else goes to the living one.
    let (mut good, mut failed) = (0, 0);
    let deadline = Instant::now() + LONG;
    while good < 50 {
        assert!(Instant::now() < deadline, "{good} good, {failed} failed");
        match ask(&east, &first).await {
            Ok(_) => good += 1,
            Err(_) => failed += 1,
        }
        assert!(!down(&east, &first), "the cluster was given up for one gateway");
    }
    assert!(failed <= 5, "{failed} failed");
}

/// `[::]` serves IPv4 too, and dials it from one socket; people see plain addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dual_stack_gateway_meets_one_of_each_family() {
    let [east, west, south] = ["east", "west", "south"].map(Cluster::new);
    let all = [&east, &west, &south];
    let listen = |text: &str| Options { listen: text.parse().unwrap(), ..Options::default() };
    let east = Site::start(&east, &all, listen("[::]:0"));
    let west = Site::start(&west, &all, listen("127.0.0.1:0"));
    let south = Site::start(&south, &all, listen("[::1]:0"));
    let port = east.addr().port();
    east.tunnel.set_peers(vec![west.peer(), south.peer()]);
    west.tunnel.set_peers(vec![east.cluster.peer(&[([127, 0, 0, 1], port).into()])]);
    south.tunnel.set_peers(vec![east.cluster.peer(&[format!("[::1]:{port}").parse().unwrap()])]);
    for other in [&west, &south] {
        east.reaches(other).await;
        other.reaches(&east).await;
        ask(&east, other).await.unwrap();
        ask(other, &east).await.unwrap();
    }
    for row in east.tunnel.links() {
        if let Some(remote) = row.remote {
            assert_eq!(remote.is_ipv4(), row.cluster == west.cluster.name, "{remote}");
        }
    }
}
