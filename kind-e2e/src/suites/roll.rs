//! Everything is restarted in all three clusters at once, in rolling updates, while requests go through
//! all of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;

use super::federated::{
    Load, SHOP, SOON, answered_by, begin, connected, deploy, export_from_both, get, grant_both,
    imported,
};
use crate::cluster::{Cluster, SYSTEM_NAMESPACE};
use crate::run::Run;

/// Long enough for a rolling update of everything.
const LOAD: Duration = Duration::from_secs(120);

pub(super) async fn run(run: &Run) -> Result<()> {
    begin(run).await?;
    run.step("api runs twice in west and twice in south; web asks it for a client", spread(run))
        .await?;
    run.step("all of Fedgate and the application are restarted: no request fails", roll(run)).await
}

async fn spread(run: &Run) -> Result<()> {
    grant_both(run).await?;
    // The client is not restarted; what it asks is.
    let parts = [
        (run.east(), "client", 1),
        (run.east(), "web", 2),
        (run.west(), "api", 2),
        (run.south(), "api", 2),
    ];
    try_join_all(
        parts.map(async |(cluster, part, replicas)| deploy(run, cluster, part, replicas).await),
    )
    .await?;
    export_from_both(run, "api").await?;
    answered_by((run.east(), "client"), &url(), "east", SOON).await.map(drop)
}

/// web, and through it api.
fn url() -> String {
    format!("http://web.{SHOP}/call?url=http://{}/", imported("api"))
}

async fn roll(run: &Run) -> Result<()> {
    let before = pods(run).await?;
    let restart = async {
        try_join_all(run.clusters().iter().map(restart)).await?;
        anyhow::Ok(())
    };
    let call = Load::call(run.east(), "client", &url(), LOAD);
    let load = Load::of(run, call, restart).await?;
    let after = pods(run).await?;
    let left: Vec<&String> = before.iter().filter(|pod| after.contains(pod)).collect();
    ensure!(left.is_empty(), "these were not restarted: {left:?}");
    connected(run.clusters()).await?;
    get(run.east(), "client", &url()).await?;
    load.none_failed("while everything was restarted")
}

async fn restart(cluster: &Cluster) -> Result<()> {
    let workloads = workloads(cluster);
    for (namespace, workload) in &workloads {
        let call = cluster.kubectl(["rollout", "restart", workload, "--namespace", namespace]);
        call.text().await?;
    }
    for (namespace, workload) in &workloads {
        cluster.wait_for_rollout(namespace, workload).await?;
    }
    Ok(())
}

fn workloads(cluster: &Cluster) -> [(&'static str, &'static str); 3] {
    let part = if cluster.name == "east" { "deployment/web" } else { "deployment/api" };
    [
        (SYSTEM_NAMESPACE, "statefulset/fedgate-federation"),
        (SYSTEM_NAMESPACE, "deployment/fedgate-gateway"),
        (SHOP, part),
    ]
}

/// Everything that is to be another pod afterwards, by its uid.
async fn pods(run: &Run) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for cluster in run.clusters() {
        let parts = [
            (SYSTEM_NAMESPACE, "app.kubernetes.io/component in (gateway, federation)"),
            (SHOP, "app in (web, api)"),
        ];
        for (namespace, selector) in parts {
            let call = cluster.kubectl(["get", "pods", "--namespace", namespace]);
            let call = call.args(["--selector", selector, "--output"]);
            let uids = call.args(["jsonpath={range .items[*]}{.metadata.uid}{\"\\n\"}{end}"]);
            all.extend(uids.text().await?.lines().map(str::to_owned));
        }
    }
    Ok(all)
}
