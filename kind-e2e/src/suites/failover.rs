//! What breaks in one cluster is not noticed in another that has a second exporter to go to.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::federated::{
    Load, SHOP, SOON, answered_by, begin, connected, deploy, export_from_both, get, grant_both,
    imported,
};
use crate::cluster::{Cluster, SYSTEM_NAMESPACE};
use crate::run::{Run, throughout, until};

/// How long a fault lasts under load.
const FAULT: Duration = Duration::from_secs(10);
/// How long requests go on that a fault falls into.
const LOAD: Duration = Duration::from_secs(20);
/// The longest gap that an outside client may see when a whole cluster vanishes: it takes three
/// beacons to notice, and requests that wait are sent anew.
const GAP_MS_MAX: u64 = 5_000;

pub(super) async fn run(run: &Run) -> Result<()> {
    begin(run).await?;
    run.step("api runs in west and in south, and east may call it", two_exporters(run)).await?;
    run.step("api in one cluster goes to zero: no request fails", scaled_to_zero(run)).await?;
    run.step("the federation pods are deleted: no request fails", control_gone(run)).await?;
    run.step("a gateway's pod is killed: its twin takes over", gateway_killed(run)).await?;
    run.step("a cluster's network is cut", cut(run)).await?;
    run.step("a whole cluster is paused", paused(run)).await
}

async fn two_exporters(run: &Run) -> Result<()> {
    grant_both(run).await?;
    deploy(run, run.south(), "api", 1).await?;
    export_from_both(run, "api").await?;
    // Either may answer; both have an endpoint, since their Deployments are rolled out.
    until("api answers", SOON, async || get(run.east(), "web", &api()).await).await?;
    Ok(())
}

/// The cluster that answers now, and the other one.
async fn serving(run: &Run) -> Result<(&Cluster, &Cluster)> {
    let answer = get(run.east(), "web", &api()).await?;
    let (west, south) = (run.west(), run.south());
    Ok(if answer["cluster"] == west.name { (west, south) } else { (south, west) })
}

async fn scaled_to_zero(run: &Run) -> Result<()> {
    let (first, second) = serving(run).await?;
    let fault = async {
        scale(first, 0).await?;
        answered_by((run.east(), "web"), &api(), second.name, SOON).await.map(drop)
    };
    let load = Load::during(run, &loaded(), LOAD, fault).await?;
    load.none_failed("while api went to zero")?;
    scale(first, 1).await?;
    first.wait_for_rollout(SHOP, "deployment/api").await
}

async fn scale(cluster: &Cluster, replicas: u32) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    let call = cluster.kubectl(["scale", "deployment/api", "--namespace", SHOP, &replicas]);
    call.text().await.map(drop)
}

/// All three nodes at once: nobody can write, and nobody needs to.
async fn control_gone(run: &Run) -> Result<()> {
    let fault = async {
        for cluster in run.clusters() {
            delete_pods(cluster, "federation").await?;
        }
        anyhow::Ok(())
    };
    let load = Load::during(run, &loaded(), LOAD, fault).await?;
    load.none_failed("without any federation node")?;
    for cluster in run.clusters() {
        cluster.wait_for_rollout(SYSTEM_NAMESPACE, "statefulset/fedgate-federation").await?;
    }
    connected(run.clusters()).await
}

/// Killed without a word: what was in flight there is lost, and nothing after it.
async fn gateway_killed(run: &Run) -> Result<()> {
    let (first, _) = serving(run).await?;
    let fault = async {
        let pods = pods(first, "gateway").await?;
        let victim = pods.first().context("there is no gateway")?;
        let call = first.kubectl(["delete", "pod", victim, "--namespace", SYSTEM_NAMESPACE]);
        call.args(["--grace-period=0", "--force"]).text().await.map(drop)
    };
    let load = Load::during(run, &loaded(), LOAD, fault).await?;
    ensure!(load.count("longest_gap_ms") < GAP_MS_MAX, "{}", load.summary());
    ensure!(load.count("ok") > load.count("requests") * 9 / 10, "{:?}", load.0);
    first.wait_for_rollout(SYSTEM_NAMESPACE, "deployment/fedgate-gateway").await
}

/// The node's container loses its network, as a site does whose line is cut.
async fn cut(run: &Run) -> Result<()> {
    let (first, second) = serving(run).await?;
    let (node, address) = (node(first), first.node_address().await?.to_string());
    let network = run.machine.network.clone();
    let connect = |machine: &crate::machine::Machine| {
        machine.docker().args(["network", "connect", "--ip", &address, &network, &node])
    };
    let again = connect(&run.machine);
    // Does nothing if it is connected: docker says so, and that is no failure here.
    run.afterwards("network of the cut cluster", async move { again.output().await.map(drop) });
    let fault = async {
        run.machine.docker().args(["network", "disconnect", &network, &node]).text().await?;
        answered_by((run.east(), "web"), &api(), second.name, SOON).await?;
        throughout("east is served", FAULT, async || {
            get(run.east(), "web", &api()).await.map(drop)
        })
        .await?;
        connect(&run.machine).text().await.map(drop)
    };
    under_load(run, fault).await?;
    connected(run.clusters()).await
}

/// Every process of the cluster stands still, its addresses stay.
async fn paused(run: &Run) -> Result<()> {
    let (first, second) = serving(run).await?;
    let node = node(first);
    let again = run.machine.docker().args(["unpause", &node]);
    run.afterwards("the paused cluster", async move { again.output().await.map(drop) });
    let fault = async {
        run.machine.docker().args(["pause", &node]).text().await?;
        answered_by((run.east(), "web"), &api(), second.name, SOON).await?;
        run.machine.docker().args(["unpause", &node]).text().await.map(drop)
    };
    under_load(run, fault).await?;
    connected(run.clusters()).await
}

async fn under_load(run: &Run, fault: impl Future<Output = Result<()>>) -> Result<()> {
    let load = Load::during(run, &loaded(), LOAD, fault).await?;
    ensure!(load.count("longest_gap_ms") < GAP_MS_MAX, "{}", load.summary());
    Ok(())
}

fn api() -> String {
    format!("http://{}/", imported("api"))
}

/// The same, as a load asks.
fn loaded() -> String {
    format!("http://{}/load", imported("api"))
}

pub(super) fn node(cluster: &Cluster) -> String {
    format!("{}-control-plane", cluster.name)
}

async fn delete_pods(cluster: &Cluster, component: &str) -> Result<()> {
    let selector = format!("app.kubernetes.io/component={component}");
    let call = cluster.kubectl(["delete", "pods", "--namespace", SYSTEM_NAMESPACE]);
    call.args(["--wait=false", "--selector", &selector]).text().await.map(drop)
}

async fn pods(cluster: &Cluster, component: &str) -> Result<Vec<String>> {
    let selector = format!("app.kubernetes.io/component={component}");
    let call = cluster.kubectl(["get", "pods", "--namespace", SYSTEM_NAMESPACE, "-o", "name"]);
    let names = call.args(["--selector", &selector]).text().await?;
    Ok(names.lines().map(|name| name.trim_start_matches("pod/").to_owned()).collect())
}
