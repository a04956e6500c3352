//! Links whose certificates end: younger ones take their places, and nobody notices.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::future::join_all;
use model::{ClusterName, Transport, code};
use tokio::task::JoinHandle;
use tunnel::{Exchange, Part, TunnelLimits, WorkerTunnel};
use wan::{FlowSpread, UdpRelay};
use wire::tunnel::{ErrorCode, Open, StreamKind};

use crate::fallback::Ways;
use crate::site::{
    Cluster, LONG, Options, Site, ask, ask_worker, identity, read_pattern, wait_for,
};

/// How long the SVIDs of these tests live, and how often there are new ones.
const LIFE: Duration = Duration::from_secs(10);
const RENEWED_EVERY: Duration = Duration::from_secs(2);
/// The longest exchange: less than a link has left when another one is in its place.
const LONG_EXCHANGE: Duration = Duration::from_millis(1500);

/// No mercy for who has expired, and links that are replaced as soon as it is their time.
fn strict() -> TunnelLimits {
    TunnelLimits {
        expired_svid_age_max: Duration::ZERO,
        replace_interval_min: Duration::from_millis(500),
        replaced_link_idle: Duration::from_secs(1),
        ..TunnelLimits::default()
    }
}

fn options(limits: &TunnelLimits, workers: usize) -> Options {
    Options { workers, limits: limits.clone(), ..Options::default() }
}

fn renew(site: &Site, life: Duration) {
    let id = site.cell.load().svid.as_ref().unwrap().id().clone();
    site.cell.replace_svid(site.cluster.svid_at(&id, SystemTime::now(), life));
}

fn start(name: &str, cluster: &Arc<Cluster>, all: &[&Arc<Cluster>], options: Options) -> Site {
    let svid = cluster.svid_at(&cluster.gateway_id(name), SystemTime::now(), LIFE);
    Site::start_as(cluster, identity(svid, all), options)
}

/// Two sites with short SVIDs that do not know each other yet.
fn sites(limits: &TunnelLimits, workers: usize) -> [Site; 2] {
    let clusters = ["east", "west"].map(Cluster::new);
    let all = [&clusters[0], &clusters[1]];
    clusters.each_ref().map(|cluster| start("gw-0", cluster, &all, options(limits, workers)))
}

async fn connect(east: &Site, west: &Site, workers: usize) {
    east.tunnel.set_peers(vec![west.peer()]);
    west.tunnel.set_peers(vec![east.peer()]);
    east.is_settled_with(west, workers).await;
    west.is_settled_with(east, workers).await;
}

fn replaced(sites: [&Site; 2]) -> u64 {
    sites.iter().map(|site| site.tunnel.counters().links_replaced).sum()
}

/// Renews the SVIDs of sites for as long as it lives.
struct Renewal(JoinHandle<()>);

impl Renewal {
    fn of(sites: [&Site; 2]) -> Self {
        let parts = sites.map(|site| {
            let id = site.cell.load().svid.as_ref().unwrap().id().clone();
            (Arc::clone(&site.cluster), Arc::clone(&site.cell), id)
        });
        Self(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(RENEWED_EVERY);
            loop {
                ticks.tick().await;
                for (cluster, cell, id) in &parts {
                    cell.replace_svid(cluster.svid_at(id, SystemTime::now(), LIFE));
                }
            }
        }))
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Requests without a pause, exchanges of a second and a half that overlap, and downloads that move to
/// bulk, from both sides.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(sites: [&Site; 2]) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            done: Arc::default(),
            failures: Arc::default(),
            tasks: vec![],
        };
        for (from, to) in [(sites[0], sites[1]), (sites[1], sites[0])] {
            for worker in &from.workers {
                load.add(from, to, worker, "echo", |caller| async move {
                    ask_worker(&caller.worker, &caller.cluster, &caller.open).await.map(|_| ())
                });
            }
            for number in 0..3 {
                let worker = &from.workers[number % from.workers.len()];
                load.add(from, to, worker, "echo", |caller| async move { caller.talk().await });
            }
            load.add(from, to, &from.workers[0], "source-4194304", |caller| async move {
                let mut exchange = caller.begin().await?;
                let read = read_pattern(&mut exchange).await.map_err(|error| error.to_string())?;
                (read == 4 << 20).then_some(()).ok_or_else(|| format!("{read} bytes"))
            });
        }
        load
    }

    fn add<F>(
        &mut self,
        from: &Site,
        to: &Site,
        worker: &WorkerTunnel,
        service: &str,
        once: impl Fn(Caller) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), String>> + Send,
    {
        let (worker, cluster) = (worker.clone(), to.cluster.name.clone());
        let caller = Caller { worker, cluster, open: from.open_for(service, StreamKind::Tcp) };
        let (stop, done) = (Arc::clone(&self.stop), Arc::clone(&self.done));
        let (failures, began) = (Arc::clone(&self.failures), Instant::now());
        self.tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                if let Err(error) = once(caller.clone()).await {
                    failures.lock().unwrap().push(format!("{:?}: {error}", began.elapsed()));
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }

    /// How many were made; none failed.
    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        join_all(self.tasks).await;
        assert_eq!(*self.failures.lock().unwrap(), Vec::<String>::new());
        self.done.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct Caller {
    worker: WorkerTunnel,
    cluster: ClusterName,
    open: Open,
}

impl Caller {
    async fn begin(&self) -> Result<Exchange, String> {
        self.worker.open(&self.cluster, &self.open).await.map_err(|error| error.to_string())
    }

    async fn talk(&self) -> Result<(), String> {
        let mut exchange = self.begin().await?;
        let (began, mut ticks) = (Instant::now(), tokio::time::interval(Duration::from_millis(50)));
        while began.elapsed() < LONG_EXCHANGE {
            ticks.tick().await;
            say(&mut exchange).await?;
        }
        exchange.send.end().await.map_err(|error| error.to_string())?;
        match exchange.recv.next().await {
            Ok(Part::End) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
}

async fn say(exchange: &mut Exchange) -> Result<(), String> {
    let text = Bytes::from_static(b"still there?");
    exchange.send.data(text.clone()).await.map_err(|error| error.to_string())?;
    let mut heard = 0;
    while heard < text.len() {
        match exchange.recv.next().await.map_err(|error| error.to_string())? {
            Part::Data(data) => heard += data.len(),
            part => return Err(format!("{part:?}")),
        }
    }
    Ok(())
}

/// Waits for so many replacements; longer than other conditions need.
async fn until_replaced(sites: [&Site; 2], count: u64) -> Duration {
    let began = Instant::now();
    while replaced(sites) < count {
        assert!(began.elapsed() < LONG * 3, "{} of {count} were replaced", replaced(sites));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    began.elapsed()
}

fn rows(site: &Site) -> usize {
    site.tunnel.links().iter().filter(|row| row.rtt.is_some()).count()
}

fn retiring(site: &Site) -> usize {
    site.tunnel.links().iter().filter(|row| row.retiring).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_fails_over_several_lives_of_the_certificates() {
    let [east, west] = sites(&strict(), 2);
    let renewal = Renewal::of([&east, &west]);
    connect(&east, &west, 2).await;
    let load = Load::on([&east, &west]);
    // Two workers, two classes: each link more than five times, which takes three lives at least.
    let count = 22;
    let took = until_replaced([&east, &west], count).await;
    println!("{count} links were replaced in {took:?}, {} exchanges", load.end().await);
    assert!(took > LIFE, "links were replaced too often: {took:?}");
    // The older ones go by themselves.
    drop(renewal);
    wait_for("one link of each", || rows(&east) == 4 && rows(&west) == 4).await;
}

/// What is guarded against.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_nobody_replaces_ends_with_its_certificates_and_takes_its_exchanges_along() {
    let never = TunnelLimits { replace_interval_min: LONG * 100, ..strict() };
    let [east, west] = sites(&never, 1);
    let _renewal = Renewal::of([&east, &west]);
    connect(&east, &west, 1).await;
    let mut exchange = east.open(&west, "echo", StreamKind::Tcp).await;
    let began = Instant::now();
    let error = loop {
        if let Err(error) = exchange.send.data(Bytes::from_static(b"x")).await {
            break error;
        }
        exchange.recv.next().await.ok();
        assert!(began.elapsed() < LONG, "the link lives on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(error.code, ErrorCode::AdmissionRefused, "{error}");
    assert!(error.to_string().contains("SVID expired"), "{error}");
    assert_eq!(replaced([&east, &west]), 0);
}

/// East's node is away, so that east has no younger SVID. West's is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_outlives_its_svid_to_the_limit_and_nobody_connects_with_that_anew() {
    /// What `EXPIRED_SVID_AGE_MAX` is elsewhere.
    const LIVES_ON: Duration = Duration::from_secs(6);
    let limits = TunnelLimits { expired_svid_age_max: LIVES_ON, ..strict() };
    let clusters = ["east", "west"].map(Cluster::new);
    let all = [&clusters[0], &clusters[1]];
    let site = |name, cluster: usize| start(name, &clusters[cluster], &all, options(&limits, 1));
    let (east, late, west) = (site("gw-0", 0), site("gw-1", 0), site("gw-0", 1));
    connect(&east, &west, 1).await;
    let end = |site: &Site| site.cell.load().svid.as_ref().unwrap().not_after();
    let (ends_at, ends_last) = (end(&east), end(&east).max(end(&late)));
    let mut exchange = east.open(&west, "echo", StreamKind::Tcp).await;
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    while SystemTime::now() <= ends_last {
        say(&mut exchange).await.unwrap();
        tick.tick().await;
    }
    renew(&west, LIFE * 10);

    late.tunnel.set_peers(vec![west.peer()]);
    let refused = || late.tunnel.links().into_iter().find_map(|row| row.last_error);
    wait_for("the refusal of a new connection", || refused().is_some()).await;
    let error = refused().unwrap();
    assert_eq!(error.code, code::PEER_IDENTITY_REFUSED, "{}", error.text);
    assert!(rows(&late) == 0 && ends_at + LIVES_ON > SystemTime::now());

    let error = loop {
        if let Err(error) = say(&mut exchange).await {
            break error;
        }
        tick.tick().await;
    };
    let lived_on = ends_at.elapsed().unwrap();
    assert!(lived_on >= LIVES_ON && lived_on < LIVES_ON * 2, "{lived_on:?}: {error}");
    assert!(error.contains("SVID expired"), "{error}");
    assert_eq!(replaced([&east, &west]), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_lasts_keeps_its_link_while_younger_ones_come_and_go() {
    let limits = TunnelLimits { expired_svid_age_max: LONG * 100, ..strict() };
    let [east, west] = sites(&limits, 1);
    let renewal = Renewal::of([&east, &west]);
    connect(&east, &west, 1).await;
    let mut lasting = [
        east.open(&west, "echo", StreamKind::Tcp).await,
        west.open(&east, "echo", StreamKind::Tcp).await,
    ];
    let began = Instant::now();
    while replaced([&east, &west]) < 6 {
        for exchange in &mut lasting {
            say(exchange).await.unwrap();
        }
        ask(&east, &west).await.unwrap();
        ask(&west, &east).await.unwrap();
        assert!(began.elapsed() < LONG * 3, "{}", replaced([&east, &west]));
    }
    drop(renewal);
    // Theirs, which is as old as they are, and one of each class.
    wait_for("those between to go", || rows(&east) == 3 && rows(&west) == 3).await;
    assert_eq!((retiring(&east), retiring(&west)), (1, 1));
    for exchange in &mut lasting {
        say(exchange).await.unwrap();
    }
    drop(lasting);
    wait_for("theirs to go", || rows(&east) == 2 && rows(&west) == 2).await;
    assert_eq!((retiring(&east), retiring(&west)), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tcp_links_are_replaced_too() {
    let [east, west] = sites(&strict(), 1);
    let _renewal = Renewal::of([&east, &west]);
    let no_udp = |relay: &UdpRelay| relay.cut("west").unwrap();
    let ways = Ways::between(east, west, no_udp).await;
    let (east, west) = (&ways.east, &ways.west);
    east.reaches(west).await;
    west.reaches(east).await;
    let load = Load::on([east, west]);
    until_replaced([east, west], 3).await;
    load.end().await;
    let is_tcp = |site: &Site| {
        let links = site.tunnel.links();
        links.iter().filter(|row| row.rtt.is_some()).all(|row| row.transport == Transport::Tcp)
    };
    assert!(is_tcp(east) && is_tcp(west));
    wait_for("the older ones to go", || rows(east) == 1 && rows(west) == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_nothing_younger_to_show_is_asked_again_later() {
    let [east, west] = sites(&strict(), 1);
    // Long enough for some pauses, which grow, between the time of the links and their end.
    let life = LIFE * 2;
    renew(&east, life);
    renew(&west, life);
    // One side dials, so that there are no duplicates.
    west.tunnel.set_peers(vec![east.cluster.peer(&[])]);
    east.tunnel.set_peers(vec![west.peer()]);
    east.is_settled_with(&west, 1).await;
    west.is_settled_with(&east, 1).await;
    let both = [&east, &west];
    let since = |site: &Site| site.tunnel.links().iter().map(|row| row.since).max().unwrap();
    let first = both.map(since);
    let began = SystemTime::now();
    let quiet_until = async |share: u32| {
        while SystemTime::now() < began + life * share / 10 {
            ask(&east, &west).await.unwrap();
            ask(&west, &east).await.unwrap();
            assert_eq!((replaced(both), both.map(since)), (0, first), "a link is no better");
        }
    };
    quiet_until(1).await;
    // One of them has a new one, in time; a link would end as soon as the other's does.
    renew(&east, life);
    quiet_until(6).await;
    renew(&west, life);
    until_replaced(both, 2).await;
    ask(&east, &west).await.unwrap();
    ask(&west, &east).await.unwrap();
}

/// Two gateways of west behind one address: east's links to each are replaced by links to the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_balancer_a_younger_link_leads_to_the_same_gateway() {
    let clusters = ["east", "west"].map(Cluster::new);
    let all = [&clusters[0], &clusters[1]];
    let site = |name, cluster: usize| start(name, &clusters[cluster], &all, options(&strict(), 1));
    let (east, west) = (site("gw-0", 0), [site("gw-0", 1), site("gw-1", 1)]);
    let targets: Vec<SocketAddr> = west.iter().map(Site::addr).collect();
    let spread = FlowSpread::start(targets, 5).unwrap();
    let _renewals = [Renewal::of([&east, &west[0]]), Renewal::of([&east, &west[1]])];
    let names: std::collections::BTreeSet<_> = west.iter().map(|s| s.tunnel.gateway()).collect();
    for gateway in &west {
        gateway.tunnel.set_peers(vec![clusters[0].peer(&[])]);
        gateway.tunnel.set_siblings(names.clone());
    }
    east.tunnel.set_peers(vec![clusters[1].peer(&[spread.addr()])]);
    wait_for("links to both", || rows(&east) == 4).await;
    let began = Instant::now();
    while east.tunnel.counters().links_replaced < 12 {
        ask(&east, &west[0]).await.unwrap();
        let reached = |gateway: &Site| {
            let id = gateway.tunnel.gateway();
            east.tunnel.links().iter().any(|row| row.gateway == Some(id) && row.rtt.is_some())
        };
        assert!(west.iter().all(reached), "a gateway was lost");
        assert!(began.elapsed() < LONG * 3, "{}", east.tunnel.counters().links_replaced);
    }
}
