//! A fence around each cluster's API server: what comes from another cluster is dropped and counted,
//! so that a suite that passes inside it needed no API server but each cluster's own.

use anyhow::{Context as _, Result, ensure};

use super::clusters::pairs;
use super::failover::node;
use super::federated::SHOP;
use crate::cluster::Cluster;
use crate::command::Command;
use crate::machine::Machine;
use crate::run::Run;

const API_SERVER_PORT: &str = "6443";
/// By it the rules are told from others.
const COMMENT: &str = "fedgate-e2e-fence";

/// Until the suite's end nobody of another cluster gets through to an API server.
pub(super) async fn raise(run: &Run) -> Result<()> {
    for (cluster, other) in pairs(run.clusters()) {
        let source = other.node_address().await?.to_string();
        let rule = |verb| rule(&run.machine, cluster, verb, &source);
        let again = rule("--delete");
        run.afterwards(format!("the fence of {} against {}", cluster.name, other.name), async {
            again.text().await.map(drop)
        });
        rule("--insert").text().await?;
    }
    Ok(())
}

/// Nobody has tried so far; and whoever tries is counted, which shows that the fence stands.
pub(super) async fn is_untouched(run: &Run) -> Result<()> {
    for cluster in run.clusters() {
        let tries = tries(run, cluster).await?;
        ensure!(tries == [0, 0], "{}: packets from other clusters: {tries:?}", cluster.name);
    }
    for (cluster, other) in pairs(run.clusters()) {
        let before = tries(run, cluster).await?;
        let url = format!("https://{}:{API_SERVER_PORT}/livez", cluster.node_address().await?);
        let call = ["get", &url, "--timeout", "500ms"];
        let output = other.testapp(SHOP, workload(other), call).await?;
        ensure!(!output.status.success(), "{} reached {url}: {}", other.name, output.stdout);
        let after = tries(run, cluster).await?;
        ensure!(
            after != before,
            "{}: {} tried, and no packet was counted",
            cluster.name,
            other.name
        );
    }
    Ok(())
}

/// The part of the application that runs in a cluster.
fn workload(cluster: &Cluster) -> &'static str {
    match cluster.name {
        "east" => "deployment/web",
        "west" => "deployment/api",
        _ => "deployment/db",
    }
}

/// Packets that the fence has dropped, by the rules' order.
async fn tries(run: &Run, cluster: &Cluster) -> Result<Vec<u64>> {
    let list = ["iptables", "--wait", "--list", "INPUT", "--verbose", "--exact", "--numeric"];
    let rules = run.machine.docker().args(["exec", &node(cluster)]).args(list).text().await?;
    let ours = rules.lines().filter(|line| line.contains(COMMENT));
    ours.map(|line| {
        let packets = line.split_whitespace().next().context("a rule begins with its count")?;
        packets.parse().with_context(|| format!("not a count: {line}"))
    })
    .collect()
}

fn rule(machine: &Machine, cluster: &Cluster, verb: &str, source: &str) -> Command {
    let matches = ["--protocol", "tcp", "--dport", API_SERVER_PORT, "--source", source];
    machine
        .docker()
        .args(["exec", &node(cluster), "iptables", "--wait", verb, "INPUT"])
        .args(matches)
        .args(["--match", "comment", "--comment", COMMENT, "--jump", "DROP"])
}
