//! The demo's story up to the point where everything runs: four clusters come up alone, found a
//! federation, and talk. Each step is checked by what an outside client or the operator API sees,
//! and shown as it happens.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::app::{self, App, Next};
use super::fleet::{Cluster, Fleet, FleetSpec, Introduction};
use super::founding;
use super::manifests::{self, BackendRefKind, HTTP_PORT, PUBLIC_HOST, clusterset_host, tcp_port};
use super::probe;
use crate::operator::Operator;
use crate::printer::{self, Printer};

/// What a step may take; the usual time is a tenth of it.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(10);

/// `(cluster, cluster, one-way delay)`: of what exports the same, west is nearest to east, and
/// south to west.
const DELAYS_MS: [(&str, &str, u64); 6] = [
    ("east", "west", 2),
    ("east", "south", 6),
    ("east", "north", 8),
    ("west", "south", 3),
    ("west", "north", 5),
    ("south", "north", 4),
];
/// The demo's clusters, in the order in which they enter the federation.
pub const CLUSTERS: [&str; 4] = ["east", "west", "south", "north"];
/// Which tunnels carry the demo's requests.
const PATHS: [(&str, &str); 3] = [("east", "west"), ("east", "south"), ("west", "south")];
pub(super) const CHAIN: &str = "web@east → api@west → db@south";

/// The running demo.
#[derive(Debug)]
pub struct Demo {
    pub fleet: Fleet,
    _apps: Vec<App>,
}

impl Demo {
    /// Starts everything and shows each step.
    pub async fn start(folder: &Path, printer: &Printer) -> anyhow::Result<Self> {
        let begun = Instant::now();
        printer
            .talk("Four clusters in one process; between them nothing but UDP through our relay.");
        let fleet = Fleet::start(fleet_spec(folder)).await?;
        let apps = start_applications(&fleet).await?;
        let demo = Self { fleet, _apps: apps };
        for cluster in demo.fleet.clusters() {
            demo.show_cluster(cluster, printer).await?;
        }
        founding::tell(&demo.fleet, printer).await?;
        write_intent(&demo.fleet)?;
        for (a, b) in PATHS {
            let rtt_us = demo.tunnel_up(a, b).await?;
            let rtt = printer::milliseconds(rtt_us);
            printer.talk(&format!(
                " ✓ {:<15} tunnel  quic, mTLS both ways, {rtt}",
                format!("{a} ⇄ {b}")
            ));
        }
        demo.show_requests(printer).await?;
        printer.talk(&format!("Ready in {:.1} s.", begun.elapsed().as_secs_f64()));
        Ok(demo)
    }

    /// Where the outside world reaches `web`.
    pub fn public_http(&self) -> SocketAddr {
        SocketAddr::new(self.fleet.cluster("east").address, HTTP_PORT)
    }

    pub fn public_tcp(&self) -> SocketAddr {
        SocketAddr::new(self.fleet.cluster("east").address, tcp_port("web"))
    }

    async fn show_cluster(&self, cluster: &Cluster, printer: &Printer) -> anyhow::Result<()> {
        let operator = Operator::connect(&cluster.operator_socket()).await?;
        let waited_for = format!("the gateway of {} to be ready", cluster.name);
        let status = wait_for(&waited_for, async || {
            let status = operator.status().await?;
            let ready = status.gateways.iter().any(|gateway| gateway.connected);
            Ok(ready.then_some(status))
        })
        .await?;
        let (name, udp) = (&cluster.name, cluster.tunnel_address());
        printer.talk(&format!(" ✓ {name:<15} own CA {:<19} udp {udp}", status.trust_domain));
        Ok(())
    }

    /// Waits for a live tunnel between two clusters and tells its round-trip time.
    async fn tunnel_up(&self, a: &str, b: &str) -> anyhow::Result<u64> {
        let operator = Operator::connect(&self.fleet.cluster(a).operator_socket()).await?;
        wait_for(&format!("the tunnel {a} to {b}"), async || {
            let clusters = operator.clusters().await?.clusters;
            let peer = clusters.into_iter().find(|cluster| cluster.name == b);
            Ok(peer.filter(|peer| peer.links_live > 0).and_then(|peer| peer.rtt_us))
        })
        .await
    }

    async fn show_requests(&self, printer: &Printer) -> anyhow::Result<()> {
        let (http, tcp) = (self.public_http(), self.public_tcp());
        let host = PUBLIC_HOST;
        wait_for("the first answer over HTTP", async || {
            Ok(probe::get_once(http, host).await.ok().filter(|chain| chain == CHAIN))
        })
        .await?;
        wait_for("the first answer over TCP", async || {
            Ok(app::call_tcp(tcp, "hello").await.ok().filter(|chain| chain == CHAIN))
        })
        .await?;
        let begun = Instant::now();
        let chain = probe::get_once(http, host).await?;
        anyhow::ensure!(chain == CHAIN, "the request went another way: {chain}");
        let took = printer::milliseconds(micros(begun.elapsed()));
        printer.talk(&format!(" ✓ {:<15} {chain}   200 in {took}", "HTTP"));
        let begun = Instant::now();
        let chain = app::call_tcp(tcp, "hello").await?;
        anyhow::ensure!(chain == CHAIN, "the connection went another way: {chain}");
        let took = printer::milliseconds(micros(begun.elapsed()));
        printer.talk(&format!(" ✓ {:<15} {chain}   in {took}", "TCP"));
        Ok(())
    }

    pub async fn stop(self) {
        self.fleet.stop().await;
    }
}

fn fleet_spec(folder: &Path) -> FleetSpec {
    let delay = |(a, b, ms): (&str, &str, u64)| (a.into(), b.into(), Duration::from_millis(ms));
    FleetSpec {
        folder: folder.into(),
        clusters: CLUSTERS.map(String::from).into(),
        delays: DELAYS_MS.map(delay).into(),
        introduction: Introduction::None,
        workers: 1,
    }
}

/// web runs in east, api in west and in south, db in south and in north.
async fn start_applications(fleet: &Fleet) -> anyhow::Result<Vec<App>> {
    let mut apps = Vec::new();
    for (cluster, services) in
        [("east", &["web"][..]), ("west", &["api"]), ("south", &["api", "db"]), ("north", &["db"])]
    {
        let cluster = fleet.cluster(cluster);
        for service in services {
            let label = format!("{service}@{}", cluster.name);
            let next = next_of(service).map(|next| Next {
                host: clusterset_host(next),
                http: SocketAddr::new(cluster.address, HTTP_PORT),
                tcp: SocketAddr::new(cluster.address, tcp_port(next)),
            });
            let app = app::start(label, cluster.address, next).await?;
            let service_yaml = manifests::service(service, app.http, app.tcp);
            cluster.write_manifest(&format!("service-{service}"), &service_yaml)?;
            apps.push(app);
        }
    }
    Ok(apps)
}

fn next_of(service: &str) -> Option<&'static str> {
    match service {
        "web" => Some("api"),
        "api" => Some("db"),
        _ => None,
    }
}

/// The services that have a TCP listener in a cluster: those that its applications call, and in east
/// the one that the outside calls.
pub fn tcp_services(cluster: &str) -> &'static [&'static str] {
    match cluster {
        "east" => &["web", "api"],
        "north" => &[],
        _ => &["db"],
    }
}

/// Grants, exports and routes. What others export is known from the store, so nothing imports.
fn write_intent(fleet: &Fleet) -> anyhow::Result<()> {
    let [east, west, south, north] = CLUSTERS.map(|name| fleet.cluster(name));
    let import_routes =
        |name: &str| manifests::routes(name, BackendRefKind::ServiceImport, &clusterset_host(name));
    let web_routes = manifests::routes("web", BackendRefKind::Service, PUBLIC_HOST);
    east.write_manifest("grant-shop", &manifests::grant(&CLUSTERS))?;
    for cluster in [east, west, south] {
        cluster.write_manifest("gateway", &manifests::gateway(tcp_services(&cluster.name)))?;
    }
    east.write_manifest("routes", &(web_routes + "---\n" + &import_routes("api")))?;
    for cluster in [west, south] {
        cluster.write_manifest("routes", &import_routes("db"))?;
        cluster.write_manifest("export-api", &manifests::export("api", &["east"]))?;
    }
    for cluster in [south, north] {
        cluster.write_manifest("export-db", &manifests::export("db", &["west", "south"]))?;
    }
    Ok(())
}

/// Looks again and again until there is a value; says what it waited for when there is none.
pub(super) async fn wait_for<T>(
    what: &str,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let mut pace = tokio::time::interval(POLL);
    let looking = async {
        loop {
            pace.tick().await;
            if let Some(value) = look().await? {
                return anyhow::Ok(value);
            }
        }
    };
    let found = tokio::time::timeout(STEP_TIMEOUT, looking).await;
    found.with_context(|| format!("waited {} s for {what}", STEP_TIMEOUT.as_secs()))?
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
