//! Certificates live for seconds here, so that they rotate many times while one connection and one
//! stream stand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::{join3, try_join_all};
use serde_json::Value;

use super::federated::{
    Load, SHOP, SOON, answered_by, connected, deploy_all, export, imported, install_all_with,
    join_all,
};
use crate::cluster::{Cluster, SYSTEM_NAMESPACE};
use crate::command::Command;
use crate::run::Run;

/// Renewed at half of it.
const LIFETIME_S: u64 = 20;
/// How often each certificate is to change meanwhile.
const ROTATIONS_MIN: usize = 4;
/// How often they are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the connection, the stream and the short requests go on.
const STANDING: Duration = Duration::from_secs(75);

pub(super) async fn run(run: &Run) -> Result<()> {
    let lifetime = format!("identity.svidLifetimeSeconds={LIFETIME_S}");
    run.step(
        format!("helm install in each cluster, with SVIDs that live {LIFETIME_S} s"),
        install_all_with(run, &[&lifetime]),
    )
    .await?;
    run.step("three clusters join", join_all(run)).await?;
    run.step("west exports api to east", async {
        deploy_all(run).await?;
        export(run.west(), "api", &["east"]).await?;
        let url = format!("http://{}/", imported("api"));
        answered_by((run.east(), "web"), &url, "west", SOON).await.map(drop)
    })
    .await?;
    run.step("a stream and a connection stand while all certificates change", stand(run)).await?;
    run.step("gateways and nodes that start anew are let in", restarted(run)).await
}

async fn stand(run: &Run) -> Result<()> {
    let standing = async {
        let stream = standing(run.east(), "grpc", 9090);
        let connection = standing(run.east(), "tcp", 9000);
        let url = format!("http://{}/load", imported("api"));
        let load = Load::during(run, &url, STANDING, async { Ok(()) });
        let (stream, connection, load) = join3(stream.json(), connection.json(), load).await;
        for (name, one) in [("gRPC stream", stream?), ("TCP connection", connection?)] {
            let (count, longest) = (&one["exchanges"], &one["longest_ms"]);
            run.note(format!("{name}: {count} exchanges, the longest took {longest} ms"));
            ensure!(one["failure"] == "", "the {name} did not stand: {one}");
        }
        load?.none_failed("while certificates changed")
    };
    tokio::pin!(standing);
    let mut all = Certificates::new();
    loop {
        tokio::select! {
            result = &mut standing => break result?,
            seen = certificates(run) => {
                for (holder, ends) in seen? {
                    all.entry(holder).or_default().extend(ends);
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
    }
    ensure!(all.len() >= 3 * 3, "a node and two gateways in each cluster: {all:?}");
    for (holder, ends) in all {
        ensure!(ends.len() > ROTATIONS_MIN, "{holder} had the SVIDs that end at {ends:?}");
        run.note(format!("{holder}: {} SVIDs one after another", ends.len()));
    }
    Ok(())
}

fn standing(cluster: &Cluster, protocol: &str, port: u16) -> Command {
    let (address, seconds) =
        (format!("{}:{port}", imported("api")), format!("{}s", STANDING.as_secs()));
    let call = cluster.kubectl(["exec", "--namespace", SHOP, "deployment/web", "--", "/testapp"]);
    call.args(["stand", "--duration", &seconds, protocol, &address]).timeout(STANDING * 2)
}

/// When the SVIDs of each holder end: each has an end of its own.
type Certificates = BTreeMap<String, BTreeSet<String>>;

/// What `fedctl certs list` shows in each cluster now, but for the CAs.
async fn certificates(run: &Run) -> Result<Certificates> {
    let lists =
        run.clusters().iter().map(|cluster| cluster.fedctl(["certs", "list", "-o", "json"]));
    let lists = try_join_all(lists.map(Command::json)).await?;
    let all = lists.iter().filter_map(|list| list["items"].as_array()).flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lasting = all.filter(|one| one["part"] != "ca");
    let mut seen = Certificates::new();
    for one in lasting {
        let end = &one["expires"]["time"];
        ensure!(end.is_string(), "no end: {one}");
        seen.entry(text(&one["spiffeId"])).or_default().insert(text(end));
    }
    Ok(seen)
}

/// Certificates of later rotations open new connections as well.
async fn restarted(run: &Run) -> Result<()> {
    let west = run.west();
    for workload in ["deployment/fedgate-gateway", "statefulset/fedgate-federation"] {
        let call = west.kubectl(["rollout", "restart", workload, "--namespace", SYSTEM_NAMESPACE]);
        call.text().await?;
        west.wait_for_rollout(SYSTEM_NAMESPACE, workload).await?;
    }
    connected(run.clusters()).await
}
