//! Fleets under hostile eyes: several clusters in one process, built by the same code as the
//! programs, and everything done to them that clients, peers, operators and disks do.

#![expect(clippy::print_stdout, reason = "a wait that fails has told what it saw meanwhile")]

mod access_log;
mod admin;
mod bodies;
mod cordon;
mod drain;
mod failover;
mod fields;
mod framing;
mod imports;
mod intent;
mod listeners;
mod loops;
mod ping;
mod policy;
mod restart;
mod rotation;
mod trust;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fedctl::operator::Operator;
use http::StatusCode;
use tempfile::TempDir;
use testkit::access_log as access_log_of;
use testkit::{
    Answer, Cluster, Fleet, FleetSpec, Introduction, Origin, Speaks, TcpOrigin, client, wait,
};
use wire::operator::proto::{ClusterStatus, GatewayLink, SourcedDiagnostic};
use wire::resource::proto::Revision;

/// Far more than anything takes on a machine that is busy with other tests.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// Threads of every gateway.
pub(crate) const WORKERS: usize = 2;
/// The port of every cluster's HTTP listener.
pub(crate) const HTTP: u16 = 8080;
/// The port of every cluster's TCP listener.
pub(crate) const TCP: u16 = 9000;

/// A fleet and the folder that it lives in.
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    /// After the fleet, so that nobody writes into a folder that is gone.
    folder: TempDir,
    settled: AtomicU32,
}

impl World {
    /// Clusters that know each other, without any service.
    pub(crate) async fn start(clusters: &[&str]) -> Self {
        Self::start_apart(clusters, &[]).await
    }

    /// The same with one-way delays between clusters.
    pub(crate) async fn start_apart(clusters: &[&str], delays: &[(&str, &str, u64)]) -> Self {
        // Unix sockets have paths of at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("fg-").tempdir().unwrap();
        let delay = |&(a, b, ms): &(&str, &str, u64)| {
            (a.to_string(), b.to_string(), Duration::from_millis(ms))
        };
        let spec = FleetSpec {
            folder: folder.path().into(),
            clusters: clusters.iter().map(ToString::to_string).collect(),
            delays: delays.iter().map(delay).collect(),
            introduction: Introduction::Manifests,
            workers: WORKERS,
        };
        let fleet = Fleet::start(spec).await.unwrap();
        Self { fleet, folder, settled: AtomicU32::new(0) }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn cluster(&self, name: &str) -> &Cluster {
        self.fleet.cluster(name)
    }

    pub(crate) fn write(&self, cluster: &str, name: &str, yaml: &str) {
        self.cluster(cluster).write_manifest(name, yaml).unwrap();
    }

    pub(crate) fn http(&self, cluster: &str) -> SocketAddr {
        SocketAddr::new(self.cluster(cluster).address, HTTP)
    }

    pub(crate) fn tcp(&self, cluster: &str) -> SocketAddr {
        SocketAddr::new(self.cluster(cluster).address, TCP)
    }

    /// An application in a cluster that answers with `service@cluster`, as a Service there.
    pub(crate) async fn run(&self, cluster: &str, service: &str, speaks: Speaks) -> Origin {
        let label = format!("{service}@{cluster}");
        let address = self.cluster(cluster).address;
        let origin = Origin::start(&label, address, speaks).await.unwrap();
        let protocol = if speaks == Speaks::H2c { "kubernetes.io/h2c" } else { "http" };
        self.write(cluster, &format!("service-{service}"), &intent::service(service, protocol));
        self.write(cluster, &format!("slice-{service}"), &intent::slice(service, origin.address));
        origin
    }

    /// The same for TCP: `service`'s port 9000.
    pub(crate) async fn run_tcp(&self, cluster: &str, service: &str) -> TcpOrigin {
        let label = format!("{service}@{cluster}");
        let origin = TcpOrigin::start(&label, self.cluster(cluster).address).await.unwrap();
        self.write(cluster, &format!("service-{service}"), &intent::service(service, "tcp"));
        self.write(cluster, &format!("slice-{service}"), &intent::slice(service, origin.address));
        origin
    }

    pub(crate) fn export(&self, cluster: &str, service: &str, allow: &str) {
        let yaml = intent::export(service) + "---\n" + &intent::policy(service, allow);
        self.write(cluster, &format!("export-{service}"), &yaml);
    }

    /// A Gateway with the two usual ports.
    pub(crate) fn listen(&self, cluster: &str) {
        self.write(cluster, "gateway", &intent::gateway(&[HTTP], &[TCP]));
    }

    /// `service` as other clusters export it, under its clusterset name.
    pub(crate) fn import(&self, cluster: &str, service: &str, protocol: &str, exporters: &[&str]) {
        let yaml = intent::import(service, protocol, exporters)
            + "---\n"
            + &match protocol {
                "tcp" => intent::tcp_route(service, "ServiceImport"),
                _ => intent::http_route(service, &host(service), "ServiceImport"),
            };
        self.write(cluster, &format!("import-{service}"), &yaml);
    }

    pub(crate) async fn operator(&self, cluster: &str) -> Operator {
        Operator::connect(&self.cluster(cluster).operator_socket()).await.unwrap()
    }

    /// Returns when the cluster's gateway serves what is in its folder of manifests now.
    pub(crate) async fn settle(&self, cluster: &str) {
        let wanted = self.settle_node(cluster).await;
        let operator = self.operator(cluster).await;
        let what = format!("the gateway of {cluster} to serve what its folder has");
        wait::until_async(&what, LIMIT, async || {
            let gateways = operator.status().await.ok()?.gateways;
            let acknowledged = gateways.iter().find(|gateway| gateway.connected)?.acknowledged?;
            let fresh = acknowledged.epoch == wanted.epoch && acknowledged.index >= wanted.index;
            fresh.then_some(())
        })
        .await;
    }

    /// Returns when the cluster's node has what is in its folder of manifests now.
    ///
    /// A reading that has a marker began before what is written after it. So the reading that has a
    /// second marker, written once the first was seen, began after all that was written before.
    pub(crate) async fn settle_node(&self, cluster: &str) -> Revision {
        let operator = self.operator(cluster).await;
        let what = format!("the node of {cluster} to have what its folder has");
        for _ in 0..2 {
            let marker = format!("marker-{}", self.settled.fetch_add(1, Ordering::Relaxed));
            self.write(cluster, "marker", &intent::service(&marker, "http"));
            wait::until_async(&what, LIMIT, async || {
                let services = operator.services().await.ok()?.services;
                services.iter().any(|service| service.name == marker).then_some(())
            })
            .await;
        }
        operator.status().await.unwrap().revision.unwrap()
    }

    /// Returns when both clusters see a live tunnel to the other one.
    pub(crate) async fn linked(&self, a: &str, b: &str) {
        for (from, to) in [(a, b), (b, a)] {
            let what = format!("the tunnel from {from} to {to}");
            self.until_peer(&what, from, to, |peer| peer.links_live > 0).await;
        }
    }

    /// Waits until `from`'s node says this of `to`.
    pub(crate) async fn until_peer(
        &self,
        what: &str,
        from: &str,
        to: &str,
        holds: impl Fn(&ClusterStatus) -> bool,
    ) -> ClusterStatus {
        let operator = self.operator(from).await;
        wait::until_async(what, LIMIT, async || {
            let clusters = operator.clusters().await.ok()?.clusters;
            clusters.into_iter().find(|cluster| cluster.name == to).filter(|peer| holds(peer))
        })
        .await
    }

    /// The links to a cluster as another one's node shows them.
    pub(crate) async fn links(&self, from: &str, to: &str) -> Vec<GatewayLink> {
        let links = self.operator(from).await.links().await.unwrap().links;
        let about = |link: &GatewayLink| link.link.as_ref().is_some_and(|link| link.cluster == to);
        links.into_iter().filter(about).collect()
    }

    /// `FED3006 ClusterPeer/west spec...: message` for every finding of a cluster's.
    pub(crate) async fn diagnostics(&self, cluster: &str) -> Vec<String> {
        let diagnostics = self.operator(cluster).await.diagnostics().await.unwrap().diagnostics;
        let show = |sourced: SourcedDiagnostic| {
            let found = sourced.diagnostic.unwrap_or_default();
            format!("FED{:04} {} {}: {}", found.code, found.object, found.field, found.message)
        };
        diagnostics.into_iter().map(show).collect()
    }

    /// One GET through a cluster's gateway.
    pub(crate) async fn get(
        &self,
        cluster: &str,
        service: &str,
        path: &str,
    ) -> anyhow::Result<Answer> {
        client::get(self.http(cluster), &host(service), path).await
    }

    /// Waits until a GET through a cluster's gateway is answered with this text.
    pub(crate) async fn until_answer(&self, cluster: &str, service: &str, wanted: &str) {
        let what = format!("{wanted:?} by {cluster}");
        let mut last = String::new();
        wait::until_async(&what, LIMIT, async || {
            let told = self.get(cluster, service, "/").await.map(|answer| answer.text());
            let told = told.unwrap_or_else(|error| format!("{error:#}"));
            if told != wanted && told != last {
                println!("{cluster}: {told}");
                last.clone_from(&told);
            }
            (told == wanted).then_some(())
        })
        .await;
    }

    /// Waits until a GET through a cluster's gateway gets this status.
    pub(crate) async fn until_status(
        &self,
        cluster: &str,
        service: &str,
        wanted: StatusCode,
    ) -> Answer {
        let what = format!("{wanted} by {cluster}");
        let mut last = None;
        wait::until_async(&what, LIMIT, async || {
            let answer = self.get(cluster, service, "/").await.ok()?;
            if last != Some(answer.status) {
                println!("{cluster}: {}: {}", answer.status, answer.text());
                last = Some(answer.status);
            }
            (answer.status == wanted).then_some(answer)
        })
        .await
    }

    /// Stops everything. What was written stays until the answer is dropped.
    pub(crate) async fn stop(self) -> Stopped {
        self.fleet.stop().await;
        Stopped { folder: self.folder }
    }
}

/// What a fleet leaves behind.
pub(crate) struct Stopped {
    folder: TempDir,
}

impl Stopped {
    /// Every record of a gateway's: all of them are written by now.
    pub(crate) fn records(&self, cluster: &str) -> Vec<serde_json::Value> {
        access_log_of::records(&self.folder.path().join(cluster).join("access.log"))
    }

    /// Those for paths that begin with `prefix`.
    pub(crate) fn records_of(&self, cluster: &str, prefix: &str) -> Vec<serde_json::Value> {
        access_log_of::records_of(&self.folder.path().join(cluster).join("access.log"), prefix)
    }
}

/// The name of a service in the clusterset (KEP-1645).
pub(crate) fn host(service: &str) -> String {
    format!("{service}.shop.svc.clusterset.local")
}

/// East and west, where west runs `api` and east may call it.
pub(crate) async fn east_calls_west() -> (World, Origin) {
    let world = World::start(&["east", "west"]).await;
    let origin = world.run("west", "api", Speaks::Http1).await;
    world.export("west", "api", "[{cluster: east}]");
    world.listen("east");
    world.import("east", "api", "http", &["west"]);
    world.until_answer("east", "api", "api@west").await;
    (world, origin)
}

/// `api` runs in west and in south, and east calls it; west is nearer.
pub(crate) async fn two_exporters() -> (World, Origin, Origin) {
    let delays = [("east", "west", 1), ("east", "south", 8)];
    let world = World::start_apart(&["east", "west", "south"], &delays).await;
    let west = world.run("west", "api", Speaks::Http1).await;
    let south = world.run("south", "api", Speaks::Http1).await;
    for cluster in ["west", "south"] {
        world.export(cluster, "api", "[{cluster: east}]");
        world.linked("east", cluster).await;
        world.settle(cluster).await;
    }
    world.listen("east");
    world.import("east", "api", "http", &["west", "south"]);
    world.until_answer("east", "api", "api@west").await;
    (world, west, south)
}
