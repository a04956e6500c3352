//! Workers that share a port: a packet reaches the worker that has its connection.

use model::SpiffeId;
use wire::tunnel::{ConnectionClass, StreamKind};

use crate::site::{Cluster, Options, Site, identity, wait_for};
use crate::stranger::Stranger;

/// The peer changes its address until the kernel has chosen another worker's socket at least once.
/// With the comparison in `keep_own` taken out, the first change that the kernel answers with
/// another worker ends the connection with a stateless reset: seen so before it was put back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_outlives_a_change_of_address_to_another_workers_socket() {
    let (east, west) = (Cluster::new("east"), Cluster::new("west"));
    let all = [&east, &west];
    let site = Site::start(&west, &all, Options { workers: 4, ..Options::default() });
    site.tunnel.set_peers(vec![east.peer(&[])]);
    let id = east.gateway_id("gw-0");
    let stranger = Stranger::tunnel(identity(east.svid(&id), &all), &site).await.unwrap();
    stranger.greet(&stranger.hello()).await.unwrap();
    let open = open(&site, &id);
    let mut ports = Vec::new();
    for round in 0..12 {
        let text = format!("round {round}");
        assert_eq!(stranger.echo(&open, &text).await, text);
        ports.push(stranger.change_port());
    }
    assert_eq!(stranger.echo(&open, "the last one").await, "the last one");
    let counters = site.tunnel.counters();
    assert!(counters.batches_steered > 0, "no packet took the other way: {ports:?}");
    assert_eq!(counters.batches_dropped, 0);
    let links = site.tunnel.links();
    assert_eq!(links.len(), 1, "one connection all the time: {links:?}");
    assert_eq!(links[0].remote, ports.last().copied());
}

/// The kernel chooses by source port, so a few are tried: over some rounds nearly all pairs spread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_a_pair_spread_over_the_peers_workers() {
    let (mut spread, rounds) = (0, 8);
    for _ in 0..rounds {
        let [east, west] = ["east", "west"].map(Cluster::new);
        let all = [&east, &west];
        let two = || Options { workers: 2, ..Options::default() };
        let (east, west) = (Site::start(&east, &all, two()), Site::start(&west, &all, two()));
        west.tunnel.set_peers(vec![east.cluster.peer(&[])]);
        east.tunnel.set_peers(vec![west.peer()]);
        east.is_settled_with(&west, 2).await;
        west.is_settled_with(&east, 2).await;
        let mut workers: Vec<_> = west.tunnel.links().iter().map(|l| (l.class, l.worker)).collect();
        workers.sort_unstable();
        workers.dedup();
        let fast = |(class, _): &&(ConnectionClass, u8)| *class == ConnectionClass::Fast;
        spread += usize::from(workers.iter().filter(fast).count() == 2);
        assert_eq!(west.tunnel.counters().peers_refused, 0, "a change of mind is no refusal");
    }
    // One try alone gives 4 of 8 on average; three more give 15 of 16 pairs.
    assert!(spread >= 5, "{spread} of {rounds} pairs were spread");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kernel_says_what_buffers_it_gave() {
    let east = Cluster::new("east");
    let site = Site::start(&east, &[&east], Options { workers: 2, ..Options::default() });
    let buffers = site.tunnel.udp_buffers();
    assert_eq!(buffers.asked_bytes, tunnel::limits::UDP_BUFFER_BYTES);
    assert!(buffers.receive_bytes > 0 && buffers.send_bytes > 0);
    assert_eq!(
        buffers.is_clamped(),
        buffers.receive_bytes.min(buffers.send_bytes) < buffers.asked_bytes
    );
    wait_for("no link", || site.tunnel.links().is_empty()).await;
}

#[test]
fn a_port_that_is_held_is_told_with_the_fix() {
    let held = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let east = Cluster::new("east");
    let cell = identity(east.svid(&east.gateway_id("gw-0")), &[&east]);
    for workers in [1, 2] {
        let listen = held.local_addr().unwrap();
        let config = tunnel::TunnelConfig::new(listen, workers, [0; 64], 1);
        let error = tunnel::Tunnel::bind(config, cell.clone()).unwrap_err();
        assert_eq!(error.code(), model::code::ADDRESS_IN_USE);
        let text = error.to_string();
        assert!(text.starts_with(&format!("cannot bind UDP {listen}: Address already")), "{text}");
        assert!(text.ends_with("see with `ss -lunp` who holds the port, or choose another"));
    }
    let config = tunnel::TunnelConfig::new("127.0.0.1:0".parse().unwrap(), 1, [0; 64], 1);
    let error = tunnel::Tunnel::bind(config, Default::default()).unwrap_err();
    assert_eq!(error.code(), model::code::SVID_MISSING);
}

fn open(site: &Site, source: &SpiffeId) -> wire::tunnel::Open {
    let mut open = site.open_for("echo", StreamKind::Tcp);
    open.source = source.clone();
    open
}
