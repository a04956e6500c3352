//! A federation of many clusters on one machine: what each costs the leader and a Replica.
//!
//! Real: the store on RocksDB with sync before each answer, [`FleetState`](federation::fleet), the
//! watch server, Replicas, every signature. Simulated: the other clusters, whose keys are this
//! process's; and the way between nodes, which is gRPC over loopback TCP without TLS and gateways.

pub mod child;
pub mod clusters;
pub mod machine;
pub mod meter;
pub mod node;
mod phases;
pub mod reader;
mod watchers;

use std::fmt::{Display, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tonic::transport::Channel;
use wire::store::limits::MESSAGE_BYTES_MAX;
use wire::store::proto::ProposeRequest;
use wire::store::proto::store_service_client::StoreServiceClient;
use wire::store::{Change, ProposeReply};

use self::child::{Process, free_address};
use self::clusters::{ALL_SEEING, Cluster, ROOT, Shape};
use self::meter::Meter;

/// Commands that the leader has before it at once while the federation is built.
const BUILDERS: usize = 8;

/// How much is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Member clusters, the leader's included
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..4000))]
    pub clusters: u32,
    /// Exports of each cluster
    #[arg(long, default_value_t = 50)]
    pub exports: u32,
    /// Members that watch the leader while changes are made
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..500))]
    pub watchers: u32,
    /// Changes of one export, one after the other
    #[arg(long, default_value_t = 100)]
    pub changes: u32,
    /// How long the watchers are observed while nothing changes
    #[arg(long, default_value_t = 30)]
    pub idle_s: u64,
    /// Where the stores' folders are made
    #[arg(long, default_value = "target")]
    pub disk: PathBuf,
}

/// Measures and returns the report as Markdown.
pub async fn run(options: &Options) -> anyhow::Result<String> {
    let folder = tempfile::Builder::new().prefix("fg-scale-").tempdir_in(&options.disk)?;
    let mut bench = Bench::start(options, folder.path()).await?;
    phases::build(&mut bench).await?;
    let readers = phases::readers(&mut bench).await?;
    phases::watch(&mut bench).await?;
    phases::heads(&mut bench).await?;
    phases::restart(bench, readers).await
}

/// A running leader, the clusters of its federation, and what was found so far.
struct Bench<'a> {
    options: &'a Options,
    shape: Shape,
    folder: &'a Path,
    clusters: Vec<Cluster>,
    leader: Leader,
    report: Report,
}

struct Leader {
    process: Process,
    address: std::net::SocketAddr,
    client: StoreServiceClient<Channel>,
    requests: AtomicU64,
    empty_kib: u64,
}

impl<'a> Bench<'a> {
    async fn start(options: &'a Options, folder: &'a Path) -> anyhow::Result<Self> {
        let shape = Shape { clusters: options.clusters, exports: options.exports };
        let clusters = (0..shape.clusters).map(Cluster::new).collect::<anyhow::Result<_>>()?;
        let leader = Leader::start(&folder.join("leader")).await?;
        Ok(Self { options, shape, folder, clusters, leader, report: Report::new() })
    }

    fn per_cluster(&self, kib: u64) -> f64 {
        kib as f64 / f64::from(self.shape.clusters)
    }
}

impl Leader {
    async fn start(folder: &Path) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut process = Process::verb("node", &node_arguments(folder, &address.to_string()))?;
        process.wait_for("listens").await?;
        let link = node::channel(address, ROOT)?;
        let client = StoreServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let empty_kib = process.resident_kib()?;
        Ok(Self { process, address, client, requests: AtomicU64::new(1), empty_kib })
    }

    /// Returns the revision's index.
    async fn propose(&self, change: Change) -> anyhow::Result<u64> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let what = change.as_str();
        let command = clusters::command(change, request).into();
        let reply = self.client.clone().propose(ProposeRequest { command }).await?.into_inner();
        match ProposeReply::decode(reply)? {
            ProposeReply::Accepted(revision) => Ok(revision.index),
            other => bail!("{what} was not accepted: {other:?}"),
        }
    }

    /// Several at a time.
    async fn propose_all(&self, changes: Vec<Change>) -> anyhow::Result<()> {
        let proposed = stream::iter(changes).map(|change| self.propose(change));
        proposed.buffer_unordered(BUILDERS).try_collect::<Vec<u64>>().await?;
        Ok(())
    }

    fn span(&self) -> anyhow::Result<Span> {
        Ok(Span { begun: Instant::now(), cpu: self.process.cpu()? })
    }
}

fn node_arguments(folder: &Path, address: &str) -> Vec<String> {
    let folder = folder.display().to_string();
    ["--folder", &folder, "--listen", address, "--cluster", "0", "--machine", "fleet"]
        .map(String::from)
        .into()
}

/// A stretch of the leader's time.
struct Span {
    begun: Instant,
    cpu: Duration,
}

impl Span {
    fn wall(&self) -> Duration {
        self.begun.elapsed()
    }

    fn cpu(&self, leader: &Leader) -> anyhow::Result<Duration> {
        Ok(leader.process.cpu()?.saturating_sub(self.cpu))
    }
}

/// One reader in a process of its own, behind a meter.
struct Reader {
    process: Process,
    meter: Meter,
    cluster: u32,
    folder: PathBuf,
    empty_kib: u64,
}

impl Reader {
    async fn start(bench: &Bench<'_>, cluster: u32) -> anyhow::Result<Self> {
        let meter = Meter::start(bench.leader.address).await?;
        let folder = bench.folder.join(format!("reader-{cluster}"));
        let mut process = Process::verb("reader", &reader_arguments(&folder, cluster, &meter))?;
        process.wait_for("opened").await?;
        let empty_kib = process.resident_kib()?;
        Ok(Self { process, meter, cluster, folder, empty_kib })
    }

    fn name(&self) -> &'static str {
        if self.cluster == ALL_SEEING { "Replica that may see everything" } else { "Replica" }
    }

    async fn reach(&mut self, index: u64) -> anyhow::Result<()> {
        while self.process.wait_for("at").await?.first().context("a revision")? < &index {}
        Ok(())
    }
}

fn reader_arguments(folder: &Path, cluster: u32, meter: &Meter) -> Vec<String> {
    let (folder, cluster) = (folder.display().to_string(), cluster.to_string());
    let source = meter.address().to_string();
    ["--folder", &folder, "--cluster", &cluster, "--source", &source].map(String::from).into()
}

/// Rows of a table.
struct Report(String);

impl Report {
    fn new() -> Self {
        Self("| what | figure |\n|---|---|\n".into())
    }

    fn row(&mut self, what: impl Display, figure: impl Display) -> anyhow::Result<()> {
        Ok(writeln!(self.0, "| {what} | {figure} |")?)
    }
}

/// Sorts.
fn quantile(times: &mut [Duration], quantile: f64) -> Duration {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    times.get((last as f64 * quantile).round() as usize).copied().unwrap_or_default()
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let mut times: Vec<Duration> = (0..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&mut times, 0.5), Duration::from_millis(50));
        assert_eq!(quantile(&mut times, 0.99), Duration::from_millis(99));
        assert_eq!(quantile(&mut [], 0.5), Duration::ZERO);
    }
}
