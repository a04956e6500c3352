//! `make bench-store`: three real clusters and their store. How long joins take, how soon a change is
//! at every gateway, what writes cost, and how soon they work again after the leader's death, while
//! an outside client sends requests all the time.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fedctl::demo::manifests::{self, BackendRefKind, HTTP_PORT, clusterset_host};
use fedctl::demo::probe::{self, Probe};
use fedctl::operator::Operator;
use testkit::{Site, SiteSpec, store, wait};
use wire::operator::proto::{
    ApplyObjectsRequest, GetStatusRequest, IssueTokenRequest, ListObjectsRequest, ManifestFile,
    RevokeTokenRequest,
};

use crate::origin;

const NAMES: [&str; 3] = ["east", "west", "south"];
const LIMIT: Duration = Duration::from_secs(30);
const WRITERS: usize = 16;

/// How much is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Leaders that are killed, in each profile
    #[arg(long, default_value_t = 30)]
    pub deaths: usize,
    /// Exports whose way to every gateway is timed, in each profile
    #[arg(long, default_value_t = 50)]
    pub changes: usize,
    /// Federations that are founded for the joins alone
    #[arg(long, default_value_t = 4)]
    pub foundings: usize,
    /// Seconds of each measurement of writes
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Round-trip time of the profile `wan`
    #[arg(long, default_value_t = 150)]
    pub rtt_ms: u64,
}

/// Three clusters that are one federation, and a client outside of it.
struct Trio {
    sites: Vec<Site>,
    /// Of each site, a token that it may revoke again and again: a write without consequences.
    tokens: Vec<String>,
    joins: Vec<Duration>,
    outside: Probe,
    relay: Option<Box<dyn std::any::Any>>,
}

/// Measures and returns the report as Markdown.
pub async fn run(options: &Options) -> anyhow::Result<String> {
    let mut text =
        String::from("| what | profile | count | p50 | p99 | most |\n|---|---|---|---|---|---|\n");
    let mut joins = Vec::new();
    for _ in 0..options.foundings {
        let folder = tempfile::Builder::new().prefix("fg-store-").tempdir()?;
        joins.extend(Trio::start(folder.path(), "lan", Duration::ZERO).await?.joins);
    }
    for (profile, rtt) in [("lan", 0), ("wan", options.rtt_ms)] {
        let folder = tempfile::Builder::new().prefix("fg-store-").tempdir()?;
        let rtt = Duration::from_millis(rtt);
        let mut trio = Trio::start(folder.path(), profile, rtt / 2).await?;
        let begun = Instant::now();
        let also = match profile {
            "lan" => std::mem::take(&mut joins),
            _ => Vec::new(),
        };
        let joined = also.into_iter().chain(trio.joins.clone()).collect();
        row(&mut text, "join, from the token's text to the end", profile, joined)?;
        let changes = trio.changes(options.changes).await?;
        row(&mut text, "an export until every gateway has it", profile, changes)?;
        for (whose, leads) in [("the leader", true), ("another voter", false)] {
            for writers in [1, WRITERS] {
                let (times, per_second) = trio.writes(leads, writers, options.seconds).await?;
                let what = format!("write at {whose}, {writers} at once, {per_second:.0}/s");
                row(&mut text, &what, profile, times)?;
            }
        }
        let deaths = trio.deaths(options.deaths).await?;
        row(&mut text, "writes again after the leader's death", profile, deaths)?;
        let seen = probe::outage(begun, &trio.outside.since(begun));
        ensure!(seen.requests > 0, "the outside client sent nothing");
        let (requests, failed) = (seen.requests, seen.failed);
        writeln!(
            text,
            "| the outside client's requests meanwhile, {failed} failed | {profile} | {requests} | | | |"
        )?;
        drop(trio.relay.take());
    }
    Ok(text)
}

fn row(text: &mut String, what: &str, profile: &str, mut times: Vec<Duration>) -> std::fmt::Result {
    times.sort_unstable();
    let count = times.len();
    let at = |share: usize| times.get((count * share / 100).min(count.saturating_sub(1)));
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let (p50, p99, most) = (ms(at(50)), ms(at(99)), ms(times.last()));
    writeln!(text, "| {what} | {profile} | {count} | {p50:.1} ms | {p99:.1} ms | {most:.1} ms |")
}

impl Trio {
    async fn start(folder: &Path, profile: &str, one_way: Duration) -> anyhow::Result<Self> {
        let far = one_way > Duration::ZERO;
        let mut sites = Vec::new();
        for (host, name) in (1..).zip(NAMES) {
            let site = prepare(name, host, far, folder)?;
            let from = site.spec.routes;
            store::configure(&site, &format!("{{profile: {profile}, dialFrom: \"{from}\"}}"))?;
            sites.push(site);
        }
        let relay = match far {
            true => Some(Box::new(store::relay(&sites, one_way)?) as Box<dyn std::any::Any>),
            false => None,
        };
        for site in &mut sites {
            site.start_federation()?;
            site.start_gateway()?;
        }
        let joins = store::found_and_join(&sites).await?;
        store::settled(&sites, NAMES.len()).await?;
        let mut tokens = Vec::new();
        for site in &sites {
            let token = IssueTokenRequest {
                name: "spare".into(),
                roles: "export".into(),
                force: true,
                ..IssueTokenRequest::default()
            };
            let issued = store::operator(site).await?.issue_token(token).await;
            tokens.push(issued.map_err(anyhow::Error::msg)?.id);
        }
        let outside = serve(&sites).await?;
        Ok(Self { sites, tokens, joins, outside, relay })
    }

    /// West exports one service after the other; at every node it must be in service, and what is
    /// in service must be acknowledged by the node's gateway.
    async fn changes(&self, count: usize) -> anyhow::Result<Vec<Duration>> {
        let west = store::operator(&self.sites[1]).await?;
        let mut times = Vec::new();
        for number in 0..count {
            let name = format!("change-{number}");
            let origin = SocketAddr::from(([127, 0, 0, 1], 9));
            let service = format!("change-{number}-service");
            self.sites[1].write_manifest(&service, &manifests::service(&name, origin, origin))?;
            wait::until_async("the service", LIMIT, async || found(&west, "Service", &name).await)
                .await;
            let text = manifests::export(&name, &["east", "south"]);
            let files = vec![ManifestFile { name: name.clone(), text }];
            let begun = Instant::now();
            let applied = west.apply_objects(ApplyObjectsRequest { files }).await;
            applied.map_err(anyhow::Error::msg)?;
            let there = |site: usize| {
                let name = &name;
                async move {
                    let node = store::operator(&self.sites[site]).await?;
                    let acknowledged = async || {
                        found(&node, "ServiceImport", name).await?;
                        let status = node.get_status(GetStatusRequest {}).await.ok()?;
                        let newest = status.revision?;
                        let has = |gateway: &wire::operator::proto::GatewayStatus| {
                            gateway.acknowledged.is_some_and(|revision| revision == newest)
                        };
                        status.gateways.iter().all(has).then_some(begun.elapsed())
                    };
                    let what = "an export to be at the gateway";
                    anyhow::Ok(wait::until_async(what, LIMIT, acknowledged).await)
                }
            };
            let (east, south) = tokio::join!(there(0), there(2));
            times.push(east?.max(south?));
        }
        Ok(times)
    }

    /// Each writer writes again as soon as its write is acknowledged.
    async fn writes(
        &self,
        at_leader: bool,
        writers: usize,
        seconds: u64,
    ) -> anyhow::Result<(Vec<Duration>, f64)> {
        let (_, leader) = store::settled(&self.sites, NAMES.len()).await?;
        let site = NAMES.iter().position(|name| (*name == leader) == at_leader);
        let site = site.context("no such voter")?;
        let (begun, lasting) = (Instant::now(), Duration::from_secs(seconds));
        let mut tasks = Vec::new();
        for _ in 0..writers {
            let node = store::operator(&self.sites[site]).await?;
            let id = self.tokens[site].clone();
            tasks.push(tokio::spawn(async move {
                let mut times = Vec::new();
                while begun.elapsed() < lasting {
                    times.push(write(&node, &id).await?);
                }
                anyhow::Ok(times)
            }));
        }
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await??);
        }
        let per_second = times.len() as f64 / begun.elapsed().as_secs_f64();
        Ok((times, per_second))
    }

    /// From `kill -9` of the leader's node until another voter's next write is acknowledged.
    async fn deaths(&mut self, count: usize) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::new();
        for number in 0..count {
            let (_, leader) = store::settled(&self.sites, NAMES.len()).await?;
            let at = NAMES.iter().position(|name| *name == leader).context("an unknown leader")?;
            let writer = (at + 1 + number % 2) % NAMES.len();
            let node = store::operator(&self.sites[writer]).await?;
            write(&node, &self.tokens[writer]).await?;
            let begun = Instant::now();
            self.sites[at].kill_federation()?;
            let again = async || write(&node, &self.tokens[writer]).await.ok();
            wait::until_async("a write without the leader", LIMIT, again).await;
            times.push(begun.elapsed());
            self.sites[at].start_federation()?;
        }
        Ok(times)
    }
}

/// Revokes what is revoked: an entry in the log of every voter, and nothing else.
async fn write(node: &Operator, id: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let request = RevokeTokenRequest { id: id.into() };
    node.revoke_token(request).await.map_err(anyhow::Error::msg)?;
    Ok(begun.elapsed())
}

async fn found(node: &Operator, kind: &str, name: &str) -> Option<()> {
    let request = ListObjectsRequest { kind: kind.into(), name: name.into(), ..Default::default() };
    (!node.list_objects(request).await.ok()?.objects.is_empty()).then_some(())
}

/// West exports an origin to east, where a client outside sends requests.
async fn serve(sites: &[Site]) -> anyhow::Result<Probe> {
    let [east, west, ..] = sites else { anyhow::bail!("three sites") };
    let origin = origin::start(SocketAddr::new(west.spec.routes, 0))?;
    west.write_manifest("service", &manifests::service("api", origin, origin))?;
    west.write_manifest("export", &manifests::export("api", &["east"]))?;
    east.write_manifest("gateway", &manifests::gateway(&["api"]))?;
    let host = clusterset_host("api");
    let routes = manifests::routes("api", BackendRefKind::ServiceImport, &host);
    east.write_manifest("routes", &routes)?;
    let address = SocketAddr::new(east.spec.routes, HTTP_PORT);
    let answer = async || probe::get_once(address, &host).await.ok();
    wait::until_async("the first answer", LIMIT, answer).await;
    Probe::start(address, &host)
}

fn prepare(name: &str, host: u8, far: bool, folder: &Path) -> anyhow::Result<Site> {
    let address: IpAddr = Ipv4Addr::new(127, 72, 2, host).into();
    let tunnel = SocketAddr::new(address, 8443);
    let relay = SocketAddr::from(([127, 72, 2, 250], 8443 + u16::from(host)));
    Site::prepare(SiteSpec {
        name: name.into(),
        folder: folder.join(name),
        namespace: None,
        advertise: if far { relay } else { tunnel },
        tunnel,
        routes: address,
        admin: SocketAddr::new(address, 9901),
        workers: 1,
    })
}
