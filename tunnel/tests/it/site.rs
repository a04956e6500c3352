//! Clusters for the tests: a CA, a gateway with its workers, and services that it answers for.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use identity::{BundleSet, Ca, Identity, IdentityCell, Svid, SvidKeyPair, TrustDomainOwners};
use model::spiffe::Part as OwnPart;
use model::{
    ClusterId, ClusterName, ClusterPeer, Namespace, ObjectName, PeerAddress, RequestId,
    ServiceName, SpiffeId, Transport, TrustDomain,
};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tunnel::{
    Exchange, IncomingExchange, Part, StreamError, Tunnel, TunnelConfig, TunnelLimits, WorkerTunnel,
};
use wan::{Impairment, LinkConfig, RelayConfig, UdpRelay};
use wire::tunnel::{Dispatched, ErrorCode, Head, Open, Refused, ResponseHead, StreamKind, Via};

pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A cluster's authority.
pub(crate) struct Cluster {
    pub(crate) name: ClusterName,
    pub(crate) domain: TrustDomain,
    pub(crate) ca: Ca,
    _folder: TempDir,
}

impl Cluster {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let domain = TrustDomain::parse(&format!("{name}.fed")).unwrap();
        let ca = Ca::load_or_create(folder.path(), &domain, SystemTime::now()).unwrap();
        let name = ClusterName::parse(name).unwrap();
        Arc::new(Self { name, domain, ca, _folder: folder })
    }

    pub(crate) fn gateway_id(&self, name: &str) -> SpiffeId {
        SpiffeId::of_part(&self.domain, OwnPart::Gateway, &ObjectName::parse(name).unwrap())
    }

    pub(crate) fn node_id(&self) -> SpiffeId {
        SpiffeId::of_part(&self.domain, OwnPart::Federation, &ObjectName::parse("node-0").unwrap())
    }

    pub(crate) fn svid(&self, id: &SpiffeId) -> Svid {
        self.svid_at(id, SystemTime::now(), Duration::from_secs(3600))
    }

    pub(crate) fn svid_at(&self, id: &SpiffeId, now: SystemTime, lifetime: Duration) -> Svid {
        let key = SvidKeyPair::generate().unwrap();
        let csr = key.csr_der(id).unwrap();
        key.into_svid(self.ca.issue(&csr, id, lifetime, now).unwrap()).unwrap()
    }

    pub(crate) fn peer(&self, addresses: &[SocketAddr]) -> Arc<ClusterPeer> {
        let address = |address: &SocketAddr| PeerAddress {
            transport: Transport::Quic,
            host: address.ip().to_string(),
            port: address.port(),
        };
        Arc::new(ClusterPeer {
            name: self.name.clone(),
            addresses: addresses.iter().map(address).collect(),
            trust_bundles: vec![self.ca.bundle()],
            cordoned: false,
            revoked_svids: Vec::new(),
        })
    }
}

/// An identity with this SVID that believes these clusters.
pub(crate) fn identity(svid: Svid, trusted: &[&Arc<Cluster>]) -> Arc<IdentityCell> {
    let mut identity = Identity { svid: Some(Arc::new(svid)), ..Identity::default() };
    (identity.bundles, identity.owners) = trust(trusted);
    Arc::new(IdentityCell::new(identity))
}

pub(crate) fn trust(trusted: &[&Arc<Cluster>]) -> (BundleSet, TrustDomainOwners) {
    let (mut bundles, mut owners) = (BundleSet::default(), TrustDomainOwners::default());
    for cluster in trusted {
        bundles.insert(cluster.ca.bundle()).unwrap();
        owners.claim(cluster.domain.clone(), cluster.name.clone()).unwrap();
    }
    (bundles, owners)
}

/// A running gateway.
pub(crate) struct Site {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) cell: Arc<IdentityCell>,
    pub(crate) tunnel: Tunnel,
    pub(crate) workers: Vec<WorkerTunnel>,
    threads: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
}

pub(crate) struct Options {
    pub(crate) workers: usize,
    pub(crate) limits: TunnelLimits,
    pub(crate) listen: SocketAddr,
    pub(crate) reset_key: [u8; 64],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 1,
            limits: TunnelLimits::default(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            reset_key: [7; 64],
        }
    }
}

impl Site {
    pub(crate) fn start(cluster: &Arc<Cluster>, trusted: &[&Arc<Cluster>], o: Options) -> Self {
        Self::start_named("gw-0", cluster, trusted, o)
    }

    pub(crate) fn start_named(
        name: &str,
        cluster: &Arc<Cluster>,
        trusted: &[&Arc<Cluster>],
        options: Options,
    ) -> Self {
        let cell = identity(cluster.svid(&cluster.gateway_id(name)), trusted);
        Self::start_as(cluster, cell, options)
    }

    pub(crate) fn start_as(
        cluster: &Arc<Cluster>,
        cell: Arc<IdentityCell>,
        options: Options,
    ) -> Self {
        let mut config =
            TunnelConfig::new(options.listen, options.workers, options.reset_key, rand::random());
        config.limits = options.limits;
        let (tunnel, workers) = Tunnel::bind(config, Arc::clone(&cell)).unwrap();
        let mut site = Self {
            cluster: Arc::clone(cluster),
            cell,
            tunnel,
            workers: Vec::new(),
            threads: Vec::new(),
        };
        for worker in workers {
            let (told, started) = std::sync::mpsc::sync_channel(1);
            let (stop, stopped) = oneshot::channel();
            let thread = std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async move {
                    let (opener, mut incoming) = worker.start().unwrap();
                    told.send(opener).unwrap();
                    tokio::spawn(async move {
                        while let Some(exchange) = incoming.next().await {
                            tokio::spawn(serve(exchange));
                        }
                    });
                    let _ = stopped.await;
                });
                // Tasks die with their runtime, as in a process that was killed: nobody is told.
                runtime.shutdown_background();
            });
            site.workers.push(started.recv().unwrap());
            site.threads.push((stop, thread));
        }
        site
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.tunnel.local_addr()
    }

    pub(crate) fn peer(&self) -> Arc<ClusterPeer> {
        self.cluster.peer(&[self.addr()])
    }

    /// Stops all workers at once, without a word to anyone.
    pub(crate) fn kill(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        for (stop, thread) in self.threads.drain(..) {
            drop(stop);
            thread.join().unwrap();
        }
    }

    pub(crate) async fn reaches(&self, other: &Self) {
        wait_for("a live path", || self.tunnel.path(&other.cluster.name).is_some()).await;
    }

    /// Waits until every worker has its own fast and bulk connection to the other.
    pub(crate) async fn is_settled_with(&self, other: &Self, slots: usize) {
        wait_for("all slots", || {
            let links = self.tunnel.links();
            links.iter().filter(|l| l.cluster == other.cluster.name && l.rtt.is_some()).count()
                == slots * 2
        })
        .await;
    }

    pub(crate) fn open_for(&self, service: &str, kind: StreamKind) -> Open {
        let svid = self.cell.load().svid.clone().unwrap();
        Open {
            kind,
            service: ServiceName::new(
                Namespace::parse("test").unwrap(),
                ObjectName::parse(service).unwrap(),
            ),
            port: 80,
            source: svid.id().clone(),
            unattested: true,
            trace: None,
            deadline_ms: None,
            request_id: RequestId::from_bytes(rand::random()),
            attempt: 1,
            retries_left: 0,
            via: Via::new(ClusterId::from_bytes([1; 16])),
            route: None,
        }
    }

    pub(crate) async fn open(&self, other: &Self, service: &str, kind: StreamKind) -> Exchange {
        let open = self.open_for(service, kind);
        self.workers[0].open(&other.cluster.name, &open).await.unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.tunnel.close();
        self.stop();
    }
}

/// Two sites that know each other and have their connections.
pub(crate) async fn pair(options: impl Fn() -> Options) -> (Site, Site) {
    let (east, west) = (Cluster::new("east"), Cluster::new("west"));
    let all = [&east, &west];
    let (east, west) = (Site::start(&east, &all, options()), Site::start(&west, &all, options()));
    east.tunnel.set_peers(vec![west.peer()]);
    west.tunnel.set_peers(vec![east.peer()]);
    east.reaches(&west).await;
    west.reaches(&east).await;
    (east, west)
}

/// The same through a relay, in both directions.
pub(crate) async fn relayed(
    impairment: Impairment,
    options: impl Fn() -> Options,
) -> (Site, Site, UdpRelay) {
    let (east, west) = (Cluster::new("east"), Cluster::new("west"));
    let all = [&east, &west];
    let (east, west) = (Site::start(&east, &all, options()), Site::start(&west, &all, options()));
    let links = vec![
        LinkConfig::new("east", "west").target(west.addr()).impaired(impairment.clone()),
        LinkConfig::new("west", "east").target(east.addr()).impaired(impairment),
    ];
    let relay = UdpRelay::spawn_thread(RelayConfig { links, seed: 1 }).unwrap();
    east.tunnel.set_peers(vec![west.cluster.peer(&[relay.addr("east", "west").unwrap()])]);
    west.tunnel.set_peers(vec![east.cluster.peer(&[relay.addr("west", "east").unwrap()])]);
    east.reaches(&west).await;
    west.reaches(&east).await;
    (east, west, relay)
}

/// Waits for a condition; panics with its name after half a minute.
pub(crate) async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + LONG;
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        ticks.tick().await;
    }
}

/// What a gateway does with an exchange here, by the service's name:
/// `echo`, `refuse`, `reset`, `sink`, `hold`, `source-<bytes>`, `big-<bytes>` (length told before).
pub(crate) async fn serve(incoming: IncomingExchange) {
    let service = incoming.open.service.name.as_str().to_owned();
    let kind = incoming.open.kind;
    if service == "refuse" {
        let refused = Refused::new(ErrorCode::NoReadyEndpoint, Dispatched::No, "nobody is ready");
        return incoming.refuse(refused).await;
    }
    let Ok(mut exchange) = incoming.accept().await else { return };
    let served: Result<(), StreamError> = match service.as_str() {
        "echo" if kind == StreamKind::Http => echo_http(&mut exchange).await,
        "echo" => echo(&mut exchange).await,
        "sink" => sink(&mut exchange).await,
        "hold" => std::future::pending().await,
        "reset" => {
            let _ = exchange.recv.next().await;
            return exchange.send.reset(ErrorCode::UpstreamReset, Dispatched::Yes);
        }
        other => {
            let (told, bytes) = other.split_once('-').expect("a service of the tests");
            let bytes = bytes.parse().unwrap();
            if told == "big" {
                exchange.send.expect_bytes(Some(bytes));
            }
            send_pattern(&mut exchange, bytes).await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "an exchange broke off");
    }
}

async fn echo(exchange: &mut Exchange) -> Result<(), StreamError> {
    loop {
        match exchange.recv.next().await? {
            Part::Data(data) => exchange.send.data(data).await?,
            Part::End => return exchange.send.end().await,
            part => panic!("{part:?} in a TCP exchange"),
        }
    }
}

async fn echo_http(exchange: &mut Exchange) -> Result<(), StreamError> {
    let Part::Head(head) = exchange.recv.next().await? else { panic!("no head") };
    let Head::Request(request) = *head else { panic!("not a request") };
    let status = http::StatusCode::OK;
    exchange.send.response_head(&ResponseHead { status, headers: request.headers }).await?;
    loop {
        match exchange.recv.next().await? {
            Part::Data(data) => exchange.send.data(data).await?,
            Part::Trailers(trailers) => exchange.send.trailers(&trailers).await?,
            Part::End => return exchange.send.end().await,
            Part::Head(head) => panic!("a second head: {head:?}"),
        }
    }
}

/// Reads everything and answers with its checksum.
async fn sink(exchange: &mut Exchange) -> Result<(), StreamError> {
    let mut sum = Checksum::default();
    while let Part::Data(data) = exchange.recv.next().await? {
        sum.add(&data);
    }
    exchange.send.data(Bytes::copy_from_slice(&sum.finish())).await?;
    exchange.send.end().await
}

pub(crate) const PIECE_BYTES: usize = 32 * 1024;

async fn send_pattern(exchange: &mut Exchange, bytes: u64) -> Result<(), StreamError> {
    let mut left = bytes;
    let mut offset = 0;
    while left > 0 {
        let length = left.min(PIECE_BYTES as u64) as usize;
        exchange.send.data(pattern(offset, length)).await?;
        (left, offset) = (left - length as u64, offset + length as u64);
    }
    exchange.send.end().await
}

/// Bytes that tell where they stand, so that nothing can be lost, repeated or swapped unseen.
pub(crate) fn pattern(offset: u64, length: usize) -> Bytes {
    let end = offset + length as u64;
    let mut bytes = Vec::with_capacity(length + 16);
    for word in offset / 8..end.div_ceil(8) {
        bytes.extend_from_slice(&word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    Bytes::from(bytes).slice((offset % 8) as usize..(offset % 8) as usize + length)
}

/// A running sum that depends on the order of bytes and not on where they were cut.
#[derive(Clone, Default)]
pub(crate) struct Checksum {
    sum: u64,
    bytes: u64,
}

impl Checksum {
    pub(crate) fn add(&mut self, data: &[u8]) {
        for &byte in data {
            self.sum = self.sum.wrapping_mul(31).wrapping_add(u64::from(byte) + 1);
        }
        self.bytes += data.len() as u64;
    }

    pub(crate) fn finish(&self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.sum.to_be_bytes());
        out[8..].copy_from_slice(&self.bytes.to_be_bytes());
        out
    }
}

/// Reads an exchange to its end and compares it with the pattern.
pub(crate) async fn read_pattern(exchange: &mut Exchange) -> Result<u64, StreamError> {
    let mut offset = 0;
    loop {
        match exchange.recv.next().await? {
            Part::Data(data) => {
                assert_eq!(data, pattern(offset, data.len()), "at {offset}");
                offset += data.len() as u64;
            }
            Part::End => return Ok(offset),
            part => panic!("{part:?}"),
        }
    }
}

/// One small question and its answer; how long it took.
pub(crate) async fn ask(from: &Site, to: &Site) -> Result<Duration, String> {
    let open = from.open_for("echo", StreamKind::Tcp);
    ask_worker(&from.workers[0], &to.cluster.name, &open).await
}

pub(crate) async fn ask_worker(
    worker: &WorkerTunnel,
    cluster: &ClusterName,
    open: &Open,
) -> Result<Duration, String> {
    let start = std::time::Instant::now();
    let opened = worker.open(cluster, open).await;
    let mut exchange = opened.map_err(|error| error.to_string())?;
    let text = |error: StreamError| error.to_string();
    exchange.send.data(Bytes::from_static(b"hello")).await.map_err(text)?;
    exchange.send.end().await.map_err(text)?;
    let mut answer = Vec::new();
    loop {
        match exchange.recv.next().await.map_err(text)? {
            Part::Data(data) => answer.extend_from_slice(&data),
            Part::End => break,
            part => return Err(format!("{part:?}")),
        }
    }
    assert_eq!(answer, b"hello");
    Ok(start.elapsed())
}
