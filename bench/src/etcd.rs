//! Writes to our store beside writes to etcd: the same disk, the same run, the same load, both
//! synced to the device by a quorum before they are acknowledged.
//!
//! Both are processes of their own, asked by unary gRPC over loopback TCP without TLS. Ours is the
//! store with a register as its machine, which verifies nothing, as etcd does.

mod disk;
mod group;

use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;
use http::uri::PathAndQuery;
use tokio::task::JoinSet;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::Channel;
use wire::store::ProposeReply;
use wire::store::proto::ProposeRequest;
use wire::store::proto::store_service_client::StoreServiceClient;

use self::group::Group;

/// Keys that are written over and over.
const KEYS: u64 = 10_000;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests of the run that shows that a failure is reported.
const CHECK_REQUESTS: u64 = 50;

/// How much is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// etcd 3.5, as scripts/etcd.sh builds it
    #[arg(long)]
    pub etcd: PathBuf,
    /// Clients at a time
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    pub clients: Vec<usize>,
    /// Rounds of each, the two in turn
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// How long one round writes
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 256)]
    pub value: usize,
    /// Where the data folders are made
    #[arg(long, default_value = "target")]
    pub disk: PathBuf,
}

/// Measures and returns the report as Markdown.
pub async fn run(options: &Options) -> anyhow::Result<String> {
    let folder = tempfile::Builder::new().prefix("fg-etcd-").tempdir_in(&options.disk)?;
    let mut text = String::from(
        "| nodes, clients | ours p50 / p99, ms | etcd p50 / p99, ms | ours, writes/s | etcd, \
         writes/s | p50, p99, rate: ours to etcd |\n|---|---|---|---|---|---|\n",
    );
    for nodes in [1, 3] {
        let ours = Group::ours(&folder.path().join(format!("ours-{nodes}")), nodes).await?;
        let etcd =
            Group::etcd(&options.etcd, &folder.path().join(format!("etcd-{nodes}")), nodes).await?;
        check(&ours).await?;
        check(&etcd).await?;
        for clients in &options.clients {
            let figures = compare(options, &ours, &etcd, *clients).await?;
            writeln!(text, "| {nodes}, {clients} | {figures} |")?;
        }
        ours.end().await?;
        etcd.end().await?;
    }
    let sync = disk::sync_latency(folder.path())?;
    writeln!(
        text,
        "\nA 512-byte append and `fdatasync` alone on this disk: p50 {:.2} ms, p99 {:.2} ms.",
        millis(sync.value_at_quantile(0.5)),
        millis(sync.value_at_quantile(0.99))
    )?;
    Ok(text)
}

/// Medians over the rounds.
async fn compare(
    options: &Options,
    ours: &Group,
    etcd: &Group,
    clients: usize,
) -> anyhow::Result<String> {
    let lasting = Lasting::Time(Duration::from_secs(options.seconds));
    let mut figures = [Vec::new(), Vec::new()];
    for round in 0..options.rounds {
        // Whoever comes second finds a warmer machine: in turn.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let group = [ours, etcd][which];
            let load = Load { clients, lasting, value: options.value, injected: None };
            let outcome = load.run(group).await?;
            ensure!(
                outcome.failed == 0,
                "{} writes failed: the figures mean nothing",
                outcome.failed
            );
            figures[which].push(outcome.figures());
        }
    }
    let [a, b] = figures.map(|rounds| [0, 1, 2].map(|n| median(rounds.iter().map(|it| it[n]))));
    Ok(format!(
        "{:.2} / {:.2} | {:.2} / {:.2} | {:.0} | {:.0} | {:.2}, {:.2}, {:.2}",
        a[0],
        a[1],
        b[0],
        b[1],
        a[2],
        b[2],
        a[0] / b[0],
        a[1] / b[1],
        a[2] / b[2]
    ))
}

/// One write that is no write is reported as one failure, and nothing else is.
async fn check(group: &Group) -> anyhow::Result<()> {
    for (injected, failures) in [(None, 0), (Some(CHECK_REQUESTS / 2), 1)] {
        let lasting = Lasting::Requests(CHECK_REQUESTS);
        let load = Load { clients: 1, lasting, value: 16, injected };
        let outcome = load.run(group).await?;
        let found = (outcome.latency.len() + outcome.failed, outcome.failed);
        ensure!(found == (CHECK_REQUESTS, failures), "the load generator is wrong: {found:?}");
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Lasting {
    Time(Duration),
    /// Of each client.
    Requests(u64),
}

/// Clients, each on its own connection, each writing again when it is answered.
#[derive(Debug, Clone, Copy)]
struct Load {
    clients: usize,
    lasting: Lasting,
    value: usize,
    /// The request of each client that the other side must refuse.
    injected: Option<u64>,
}

#[derive(Debug)]
struct Outcome {
    failed: u64,
    elapsed: Duration,
    /// Microseconds.
    latency: Histogram<u64>,
}

impl Outcome {
    fn new() -> anyhow::Result<Self> {
        let latency = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        Ok(Self { failed: 0, elapsed: Duration::ZERO, latency })
    }

    /// p50 and p99 in milliseconds, writes a second.
    fn figures(&self) -> [f64; 3] {
        let [p50, p99] = [0.5, 0.99].map(|at| millis(self.latency.value_at_quantile(at)));
        [p50, p99, self.latency.len() as f64 / self.elapsed.as_secs_f64()]
    }
}

impl Load {
    async fn run(self, group: &Group) -> anyhow::Result<Outcome> {
        let mut targets = Vec::new();
        for _ in 0..self.clients {
            let mut target = group.target().await?;
            // The connection is there before the clock starts.
            target.write(&0_u64.to_be_bytes(), b"first").await?;
            targets.push(target);
        }
        let (begun, mut clients) = (Instant::now(), JoinSet::new());
        for (client, target) in targets.into_iter().enumerate() {
            clients.spawn(self.one(client as u64, target, begun));
        }
        let mut all = Outcome::new()?;
        while let Some(outcome) = clients.join_next().await {
            let outcome = outcome.context("a client's task")??;
            all.failed += outcome.failed;
            all.latency.add(&outcome.latency)?;
        }
        all.elapsed = begun.elapsed();
        Ok(all)
    }

    async fn one(self, client: u64, mut target: Target, begun: Instant) -> anyhow::Result<Outcome> {
        let (mut outcome, value) = (Outcome::new()?, vec![b'v'; self.value]);
        for number in 0.. {
            let ends = match self.lasting {
                Lasting::Time(time) => begun.elapsed() >= time,
                Lasting::Requests(count) => number >= count,
            };
            if ends {
                break;
            }
            // A large odd step: clients do not write the same keys at the same time.
            let key = (client * 7919 + number) % KEYS;
            let (key, sent) = (key.to_be_bytes(), Instant::now());
            let written = match self.injected {
                Some(injected) if injected == number => target.write(&[], &[]).await,
                _ => target.write(&key, &value).await,
            };
            match written {
                Ok(()) => {
                    let took = u64::try_from(sent.elapsed().as_micros())?;
                    outcome.latency.saturating_record(took.max(1));
                }
                Err(_) => outcome.failed += 1,
            }
        }
        Ok(outcome)
    }
}

/// The leader of a group.
#[derive(Debug)]
enum Target {
    Ours(StoreServiceClient<Channel>),
    Etcd(Grpc<Channel>),
}

impl Target {
    /// Returns when the write is acknowledged.
    async fn write(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        let written = tokio::time::timeout(REQUEST_TIMEOUT, self.ask(key, value)).await;
        written.context("no answer in time")?
    }

    async fn ask(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Ours(client) => {
                let command = [key, value].concat().into();
                let reply = client.propose(ProposeRequest { command }).await?.into_inner();
                match ProposeReply::decode(reply)? {
                    ProposeReply::Accepted(_) => Ok(()),
                    other => bail!("not accepted: {other:?}"),
                }
            }
            Self::Etcd(client) => {
                let request = PutRequest { key: key.into(), value: value.into() };
                let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
                client.ready().await?;
                let codec = tonic_prost::ProstCodec::<PutRequest, PutResponse>::default();
                let response = client.unary(Request::new(request), path, codec).await?;
                let revision = response.into_inner().header.map_or(0, |header| header.revision);
                ensure!(revision > 0, "the answer has no revision");
                Ok(())
            }
        }
    }
}

/// Of etcd's `rpc.proto`: what is used of it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
    #[prost(int64, tag = "3")]
    revision: i64,
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < f64::EPSILON);
    }
}
