//! The charts in a user's hands: what they make is accepted, upgraded and rolled back under traffic, and
//! taken away whole.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::federated::{
    Load, SOON, answered_by, begin, chart, condition, connected, export, helm_upgrade, imported,
};
use crate::cluster::{Cluster, SYSTEM_NAMESPACE};
use crate::run::{Run, until};

/// Long enough for two rolling updates of everything in a cluster.
const LOAD: Duration = Duration::from_secs(120);

pub(super) async fn run(run: &Run) -> Result<()> {
    begin(run).await?;
    run.step("west exports api to east", async {
        export(run.west(), "api", &["east"]).await?;
        condition(
            run.west(),
            ("serviceexport/api", "/status/conditions"),
            "Ready",
            ("True", "Exported"),
        )
        .await?;
        answered_by((run.east(), "web"), &api(), "west", SOON).await.map(drop)
    })
    .await?;
    run.step("every object passes the API server's own checks", dry_run(run)).await?;
    run.step("helm test passes", tests(run.east())).await?;
    run.step("fedctl check finds nothing wrong", check(run)).await?;
    run.step("upgrade and rollback of both sides: no request fails", upgrade(run)).await?;
    run.step("uninstall leaves nothing but definitions", uninstall(run.south())).await
}

fn api() -> String {
    format!("http://{}/", imported("api"))
}

async fn dry_run(run: &Run) -> Result<()> {
    let chart = chart("fedgate");
    let sets = ["gateway.autoscaling.enabled=true", "metrics.dashboards.enabled=true"];
    // The pod of `helm test` needs what stands before it among the hooks; it is run below.
    let render = run.east().helm(["template", "fedgate", "--no-hooks"]).args([&chart]);
    let mut render = render
        .args(["--namespace", SYSTEM_NAMESPACE, "--values"])
        .args([chart.join("values-kind.yaml")])
        .args(["--set", "cluster.name=east", "--set", "gatewayClass.create=true"]);
    for set in sets {
        render = render.args(["--set", set]);
    }
    let rendered = render.text().await?;
    let apply =
        ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--filename", "-"];
    let accepted = run.east().kubectl(apply).input(rendered).text().await?;
    ensure!(accepted.lines().count() > 10, "only these were accepted: {accepted}");
    Ok(())
}

async fn tests(cluster: &Cluster) -> Result<()> {
    let call =
        cluster.helm(["test", "fedgate", "--namespace", SYSTEM_NAMESPACE, "--timeout", "90s"]);
    call.timeout(SOON * 2).text().await.map(drop)
}

async fn check(run: &Run) -> Result<()> {
    for cluster in run.clusters() {
        let report = cluster.fedctl(["check", "-o", "json"]).output().await?;
        ensure!(report.status.success(), "{}: {} {}", cluster.name, report.stdout, report.stderr);
    }
    Ok(())
}

/// A changed annotation is a new revision of every pod.
async fn upgrade(run: &Run) -> Result<()> {
    let change = async {
        let sets =
            ["gateway.podAnnotations.revision=second", "federation.podAnnotations.revision=second"];
        for cluster in [run.east(), run.west()] {
            helm_upgrade(run, cluster, &chart("fedgate"), &sets).text().await?;
        }
        for cluster in [run.east(), run.west()] {
            let call = cluster.helm(["rollback", "fedgate", "1", "--wait", "--timeout", "180s"]);
            call.args(["--namespace", SYSTEM_NAMESPACE]).timeout(LOAD * 2).text().await?;
        }
        anyhow::Ok(())
    };
    let load = Load::during(run, &api(), LOAD, change).await?;
    load.none_failed("during the upgrade and the rollback")?;
    connected(run.clusters()).await
}

async fn uninstall(cluster: &Cluster) -> Result<()> {
    let call = cluster.helm(["uninstall", "fedgate", "--namespace", SYSTEM_NAMESPACE, "--wait"]);
    call.timeout(SOON * 3).text().await?;
    until("nothing of ours is left", SOON, async || {
        let left = left(cluster).await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    let crds = cluster.kubectl(["get", "customresourcedefinitions", "-o", "name"]).text().await?;
    ensure!(crds.contains("accesspolicies.fedgate.dev"), "the definitions are gone: {crds}");
    Ok(())
}

/// Objects that carry our labels, in all namespaces and in none.
async fn left(cluster: &Cluster) -> Result<Vec<String>> {
    let kinds = "all,configmaps,secrets,serviceaccounts,persistentvolumeclaims,leases,roles,\
        rolebindings,clusterroles,clusterrolebindings,networkpolicies,poddisruptionbudgets,\
        endpointslices,gatewayclasses";
    let mut names = Vec::new();
    for label in ["app.kubernetes.io/name=fedgate", "app.kubernetes.io/managed-by=fedgate"] {
        let found = cluster.get([kinds, "--all-namespaces", "--selector", label]).await?;
        let found = found["items"].as_array().context("a list has items")?;
        let name = |one: &Value| format!("{} {}", one["kind"], one["metadata"]["name"]);
        names.extend(found.iter().map(name));
    }
    Ok(names)
}
