//! Where UDP does not pass: from the start, later, one way, and when it passes again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{Transport, code};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tunnel::{LinkState, Part, StreamErrorKind};
use wan::{Impairment, LinkConfig, RelayConfig, UdpRelay};
use wire::tunnel::limits::FAST_STREAM_WINDOW_BYTES;
use wire::tunnel::{Dispatched, ErrorCode, StreamKind};

use crate::site::{Cluster, LONG, Options, Site, ask, pattern, read_pattern, wait_for};

/// Two sites with a network between them that has a will of its own about UDP.
pub(crate) struct Ways {
    pub(crate) east: Site,
    pub(crate) west: Site,
    relay: UdpRelay,
    forwards: Vec<AbortHandle>,
}

impl Ways {
    /// Nothing is dialled before `prepare` is done with the network.
    async fn new(options: impl Fn() -> Options, prepare: impl Fn(&UdpRelay)) -> Self {
        let clusters = ["east", "west"].map(Cluster::new);
        let all = [&clusters[0], &clusters[1]];
        let [east, west] = clusters.each_ref().map(|cluster| Site::start(cluster, &all, options()));
        Self::between(east, west, prepare).await
    }

    pub(crate) async fn between(east: Site, west: Site, prepare: impl Fn(&UdpRelay)) -> Self {
        let (relay, forwards) = relay_of_both(&east, &west).await;
        prepare(&relay);
        let address = |from, to| relay.addr(from, to).unwrap();
        east.tunnel.set_peers(vec![west.cluster.peer(&[address("east", "west")])]);
        west.tunnel.set_peers(vec![east.cluster.peer(&[address("west", "east")])]);
        Self { east, west, relay, forwards }
    }

    /// With no UDP at all.
    pub(crate) async fn tcp_only() -> Self {
        let ways = Self::new(Options::default, |relay| relay.cut("west").unwrap()).await;
        ways.east.reaches(&ways.west).await;
        ways.west.reaches(&ways.east).await;
        ways
    }

    /// With UDP that passes, until it is cut.
    pub(crate) async fn over_udp() -> Self {
        let ways = Self::new(Options::default, |_| {}).await;
        ways.run_over(Transport::Quic).await;
        ways
    }

    pub(crate) fn cut(&self) {
        self.relay.cut("west").unwrap();
    }

    fn both(&self) -> [(&Site, &Site); 2] {
        [(&self.east, &self.west), (&self.west, &self.east)]
    }

    /// Waits until both sites would send new exchanges over TCP, or over QUIC, and do.
    async fn run_over(&self, transport: Transport) {
        for (from, to) in self.both() {
            let deadline = Instant::now() + LONG;
            loop {
                // A pair that is idle finds nothing out.
                let asked = ask(from, to).await;
                let path = from.tunnel.path(&to.cluster.name);
                let is_tcp = path.map(|path| path.fallback);
                if asked.is_ok() && is_tcp == Some(transport == Transport::Tcp) {
                    break;
                }
                assert!(Instant::now() < deadline, "{asked:?}, {path:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

impl Drop for Ways {
    fn drop(&mut self) {
        self.forwards.iter().for_each(AbortHandle::abort);
    }
}

/// A relay for UDP, and the TCP ports of the same numbers, which lead to the same gateways.
async fn relay_of_both(east: &Site, west: &Site) -> (UdpRelay, Vec<AbortHandle>) {
    loop {
        let links = vec![
            LinkConfig::new("east", "west").target(west.addr()).impaired(Impairment::default()),
            LinkConfig::new("west", "east").target(east.addr()).impaired(Impairment::default()),
        ];
        let relay = UdpRelay::spawn_thread(RelayConfig { links, seed: 1 }).unwrap();
        let to_west = TcpListener::bind(relay.addr("east", "west").unwrap()).await;
        let to_east = TcpListener::bind(relay.addr("west", "east").unwrap()).await;
        // Another process may have the TCP port of a number that is free for UDP.
        if let (Ok(to_west), Ok(to_east)) = (to_west, to_east) {
            let forwards = [(to_west, west.addr()), (to_east, east.addr())];
            return (relay, forwards.map(|(from, to)| forward(from, to)).into());
        }
    }
}

pub(crate) fn forward(listener: TcpListener, target: SocketAddr) -> AbortHandle {
    let task = tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut to) = TcpStream::connect(target).await {
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    });
    task.abort_handle()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_udp_never_passes_all_of_it_runs_over_tcp_and_says_so() {
    let ways = Ways::tcp_only().await;
    ways.run_over(Transport::Tcp).await;
    for (from, to) in ways.both() {
        let mut exchange = from.open(to, "big-5000000", StreamKind::Tcp).await;
        exchange.send.end().await.unwrap();
        assert_eq!(read_pattern(&mut exchange).await.unwrap(), 5_000_000);
        let rows = from.tunnel.links();
        // Both sides may have dialled: one of two is on its way out then.
        let live = rows.iter().filter(|row| row.state == LinkState::Live);
        let row = live.max_by_key(|row| row.bytes_received).unwrap();
        assert_eq!((row.transport, row.gateway), (Transport::Tcp, Some(to.tunnel.gateway())));
        assert!(row.bytes_sent > 0 && row.bytes_received > 5_000_000, "{row:?}");
        let told = row.last_error.as_ref().unwrap();
        assert_eq!(told.code, code::TUNNEL_FALLBACK);
        assert!(told.text.contains("UDP does not pass: open"), "{}", told.text);
    }
    // QUIC is dialled all the while.
    let is_tried = || ways.east.tunnel.links().iter().any(|r| r.transport == Transport::Quic);
    wait_for("a dial over QUIC", is_tried).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_of_many_workers_meets_over_tcp() {
    let options = || Options { workers: 3, ..Options::default() };
    let ways = Ways::new(options, |relay| relay.cut("west").unwrap()).await;
    ways.run_over(Transport::Tcp).await;
    for (from, to) in ways.both() {
        for worker in &from.workers {
            let open = from.open_for("echo", StreamKind::Tcp);
            crate::site::ask_worker(worker, &to.cluster.name, &open).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_that_stops_is_replaced_and_when_it_passes_again_used_again() {
    let ways = Ways::over_udp().await;
    let live = |transport: Transport| {
        [&ways.east, &ways.west]
            .iter()
            .flat_map(|site| site.tunnel.links())
            .filter(|row| row.transport == transport && row.state == LinkState::Live)
            .count()
    };
    for (from, to) in [(None, "west"), (Some("east"), "west"), (Some("west"), "east")] {
        match from {
            None => ways.relay.cut(to).unwrap(),
            Some(from) => ways.relay.cut_path(from, to).unwrap(),
        }
        let cut = Instant::now();
        ways.run_over(Transport::Tcp).await;
        let took = cut.elapsed();
        println!("{from:?} to {to}: over TCP after {took:?}");
        assert!(took < Duration::from_secs(10), "{took:?}");
        match from {
            None => ways.relay.heal(to).unwrap(),
            Some(from) => ways.relay.heal_path(from, to).unwrap(),
        }
        let healed = Instant::now();
        ways.run_over(Transport::Quic).await;
        let took = healed.elapsed();
        println!("{from:?} to {to}: over QUIC after {took:?}");
        assert!(took < Duration::from_secs(10), "{took:?}");
        wait_for("the link over TCP to go", || live(Transport::Tcp) == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_over_tcp_goes_on_when_udp_is_back() {
    let ways = Ways::tcp_only().await;
    let mut exchange = ways.east.open(&ways.west, "echo", StreamKind::Tcp).await;
    assert_eq!(exchange.recv.opened().await.unwrap(), Ok(()));
    ways.relay.heal("west").unwrap();
    ways.run_over(Transport::Quic).await;
    wait_for("a while with both", || {
        let since = ways.east.tunnel.links().into_iter().filter(|r| r.transport == Transport::Quic);
        let live = since.filter(|row| row.state == LinkState::Live).map(|row| row.since);
        live.min().is_some_and(|s| s.elapsed().unwrap_or_default() > Duration::from_secs(5))
    })
    .await;
    exchange.send.data(Bytes::from_static(b"still")).await.unwrap();
    exchange.send.end().await.unwrap();
    let Part::Data(data) = exchange.recv.next().await.unwrap() else { panic!("no data") };
    assert_eq!(data, "still");
    assert!(matches!(exchange.recv.next().await.unwrap(), Part::End));
    drop(exchange);
    let has_tcp = || ways.east.tunnel.links().iter().any(|row| row.transport == Transport::Tcp);
    wait_for("its link to go", || !has_tcp()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_resets_and_stops_keep_their_codes_over_tcp() {
    let ways = Ways::tcp_only().await;
    for (from, to) in ways.both() {
        let mut exchange = from.open(to, "refuse", StreamKind::Tcp).await;
        let refused = exchange.recv.opened().await.unwrap().unwrap_err();
        assert_eq!(
            (refused.code, refused.dispatched),
            (ErrorCode::NoReadyEndpoint, Dispatched::No)
        );
        let stopped = timeout(LONG, exchange.send.stopped()).await.unwrap();
        assert_eq!(stopped.code, ErrorCode::NoReadyEndpoint);
        drop(exchange);

        let mut exchange = from.open(to, "reset", StreamKind::Tcp).await;
        exchange.send.data(Bytes::from_static(b"x")).await.unwrap();
        let error = loop {
            if let Err(error) = exchange.recv.next().await {
                break error;
            }
        };
        assert_eq!(error.kind, StreamErrorKind::Reset, "{error}");
        assert_eq!((error.code, error.dispatched), (ErrorCode::UpstreamReset, Dispatched::Yes));
        drop(exchange);

        // A writer is told that its reader has gone, and with what.
        let mut exchange = from.open(to, "source-400000000", StreamKind::Tcp).await;
        assert!(matches!(exchange.recv.next().await.unwrap(), Part::Data(_)));
        exchange.recv.stop(ErrorCode::DeadlineExceeded, Dispatched::Yes);
        wait_for("the writer to end", || to.tunnel.in_flight() == 0).await;
        exchange.send.reset(ErrorCode::DeadlineExceeded, Dispatched::Yes);

        // Dropped unfinished: both directions at once.
        let exchange = from.open(to, "source-400000000", StreamKind::Tcp).await;
        wait_for("the exchange", || to.tunnel.in_flight() == 1).await;
        drop(exchange);
        wait_for("its end", || from.tunnel.in_flight() + to.tunnel.in_flight() == 0).await;
    }
    ways.run_over(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stands_still_holds_up_its_own_exchange_alone() {
    let ways = Ways::tcp_only().await;
    for (from, to) in ways.both() {
        let mut held = from.open(to, "hold", StreamKind::Tcp).await;
        assert_eq!(held.recv.opened().await.unwrap(), Ok(()));
        let mut sent = 0;
        while timeout(Duration::from_millis(500), held.send.data(pattern(sent, 16_384)))
            .await
            .is_ok()
        {
            sent += 16_384;
            assert!(sent < 4 * FAST_STREAM_WINDOW_BYTES, "nothing holds the writer");
        }
        assert!(sent >= FAST_STREAM_WINDOW_BYTES / 2, "{sent}");
        for _ in 0..20 {
            ask(from, to).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_exchanges_of_the_listener_find_room() {
    let ways = Ways::tcp_only().await;
    for (from, to) in ways.both() {
        let asks = (0..300).map(|_| ask(from, to));
        for result in futures_util::future::join_all(asks).await {
            result.unwrap();
        }
        wait_for("their end", || from.tunnel.in_flight() + to.tunnel.in_flight() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_not_trusted_gets_no_further_over_tcp() {
    let [east, west] = ["east", "west"].map(Cluster::new);
    let west_site = Site::start(&west, &[&west], Options::default());
    let east_site = Site::start(&east, &[&east, &west], Options::default());
    let ways = Ways::between(east_site, west_site, |relay| relay.cut("west").unwrap()).await;
    wait_for("a refusal", || ways.west.tunnel.counters().peers_refused > 0).await;
    assert!(ways.east.tunnel.path(&ways.west.cluster.name).is_none());
    assert!(ways.west.tunnel.path(&ways.east.cluster.name).is_none());
    drop(ways);
    // The other way round: who is dialled is not who was meant.
    let east_site = Site::start(&east, &[&east, &west], Options::default());
    let other = Cluster::new("west");
    let west_site = Site::start(&other, &[&east, &other], Options::default());
    let ways = Ways::between(east_site, west_site, |relay| relay.cut("west").unwrap()).await;
    wait_for("a refusal", || ways.west.tunnel.counters().peers_refused > 0).await;
    assert!(ways.east.tunnel.path(&west.name).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_gateway_is_heard_over_tcp() {
    let ways = Ways::tcp_only().await;
    let mut exchange = ways.east.open(&ways.west, "hold", StreamKind::Tcp).await;
    assert_eq!(exchange.recv.opened().await.unwrap(), Ok(()));
    ways.west.tunnel.close();
    let closed = Instant::now();
    let error = exchange.recv.next().await.unwrap_err();
    assert_eq!(error.kind, StreamErrorKind::ConnectionLost);
    assert!(error.to_string().contains("the gateway stops"), "{error}");
    assert!(closed.elapsed() < Duration::from_secs(2), "{:?}", closed.elapsed());
    wait_for("no path", || ways.east.tunnel.path(&ways.west.cluster.name).is_none()).await;
}
