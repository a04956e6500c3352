//! The charts in a user's hands: what they make is accepted, upgraded from the commit before and rolled
//! back to it under traffic, and taken away whole.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::federated::{
    Load, SHOP, SOON, answered_by, chart, condition, connected, deploy_all, export, helm_upgrade,
    helm_upgrade_to, imported, install, install_definitions, join_all,
};
use crate::cluster::{Cluster, SYSTEM_NAMESPACE};
use crate::machine::{CLUSTERS, Earlier};
use crate::run::{Run, until};

/// Longer than it takes to replace everything in three clusters, one after the other.
const LOAD: Duration = Duration::from_secs(150);
/// The first revision of the release.
const FIRST: &str = "1";

pub(super) async fn run(run: &Run) -> Result<()> {
    let earlier = begin(run).await?;
    run.step("west exports api to east and south", async {
        export(run.west(), "api", &["east", "south"]).await?;
        let conditions = ("serviceexport/api", "/status/conditions");
        condition(run.west(), conditions, "Ready", ("True", "Exported")).await?;
        answered_by((run.east(), "web"), &api(), "west", SOON).await.map(drop)
    })
    .await?;
    run.step("upgrade to today's programs and charts: no request fails", under_load(run, upgrade))
        .await?;
    run.step("rollback: no request fails", under_load(run, rollback)).await?;
    run.step("upgrade once more: no request fails", under_load(run, upgrade)).await?;
    run.note(format_args!("upgraded from {}", earlier.revision));
    run.step("every object passes the API server's own checks", dry_run(run)).await?;
    run.step("helm test passes", tests(run.east())).await?;
    run.step("fedctl check finds nothing wrong", check(run)).await?;
    run.step("what the node makes has an owner, and a Gateway its Service", made(run.south()))
        .await?;
    run.step("uninstall leaves nothing but definitions", uninstall(run.south())).await?;
    run.step("a new release keeps what it makes", anew(run, run.south())).await
}

/// All three clusters as they would be with the commit before.
async fn begin(run: &Run) -> Result<Earlier> {
    let building = run.machine.earlier(&CLUSTERS);
    let earlier = run.step("programs of the commit before are built", building).await?;
    let charts = earlier.tree.join("helm");
    let install = async |cluster: &Cluster| {
        install_definitions(cluster, &charts.join("fedgate-crds")).await?;
        let call = helm_upgrade_to(&earlier.image, cluster, &charts.join("fedgate"), &[]);
        call.text().await.map(drop)
    };
    let installing = try_join_all(run.clusters().iter().map(install));
    run.step("helm install of these in each cluster", installing).await?;
    run.step("east founds the federation, west and south join by a token each", join_all(run))
        .await?;
    run.step("web runs in east, api in west, db in south", deploy_all(run)).await?;
    Ok(earlier)
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

/// Requests from east to west while something happens to all; it has to be over before they are.
async fn under_load<'a>(
    run: &'a Run,
    change: impl AsyncFnOnce(&'a Run) -> Result<()>,
) -> Result<()> {
    let timed = async {
        let begun = Instant::now();
        change(run).await?;
        run.note(format_args!("it took {} s", begun.elapsed().as_secs()));
        ensure!(begun.elapsed() < LOAD, "it took longer than the requests: {:?}", begun.elapsed());
        Ok(())
    };
    let load = Load::during(run, &api(), LOAD, timed).await?;
    load.none_failed("from east to west")?;
    connected(run.clusters()).await
}

/// One cluster after the other, as the guide says: so there is always one to go back to, and here nobody
/// starves on the one machine of all three.
async fn upgrade(run: &Run) -> Result<()> {
    for cluster in run.clusters() {
        install_definitions(cluster, &chart("fedgate-crds")).await?;
        let call = helm_upgrade(run, cluster, &chart("fedgate"), &[]);
        call.text().await.context(cluster.name)?;
    }
    Ok(())
}

async fn rollback(run: &Run) -> Result<()> {
    for cluster in run.clusters() {
        let call = cluster.helm(["rollback", "fedgate", FIRST, "--wait", "--timeout", "180s"]);
        let call = call.args(["--namespace", SYSTEM_NAMESPACE]).timeout(LOAD * 3);
        call.text().await.context(cluster.name)?;
    }
    Ok(())
}

/// One object of each kind that the node makes.
const MADE: [(&str, &str, &str); 5] = [
    ("configmap", SYSTEM_NAMESPACE, "fedgate-trust"),
    ("lease", SYSTEM_NAMESPACE, "fedgate-writer"),
    ("service", SYSTEM_NAMESPACE, "shop-edge"),
    ("service", SHOP, "imported-api"),
    ("serviceimport", SHOP, "api"),
];

async fn made(cluster: &Cluster) -> Result<()> {
    let spec = json!({
        "gatewayClassName": "fedgate",
        "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}],
    });
    cluster
        .apply(&json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "edge", "namespace": SHOP}, "spec": spec,
        }))
        .await?;
    for (kind, namespace, name) in MADE {
        owned(cluster, kind, namespace, name).await?;
    }
    Ok(())
}

/// That it is the ClusterRole's of the release that is installed now.
async fn owned(cluster: &Cluster, kind: &str, namespace: &str, name: &str) -> Result<()> {
    until(format!("{kind} {name} has its owner"), SOON * 2, async || {
        let role = cluster.get(["clusterrole", "fedgate-federation"]).await?;
        let object = cluster.get([kind, name, "--namespace", namespace]).await?;
        let (owner, role) = (&object["metadata"]["ownerReferences"], &role["metadata"]["uid"]);
        ensure!(role.is_string() && owner[0]["uid"] == *role, "{owner}");
        Ok(())
    })
    .await
}

async fn uninstall(cluster: &Cluster) -> Result<()> {
    let call = cluster.helm(["uninstall", "fedgate", "--namespace", SYSTEM_NAMESPACE, "--wait"]);
    call.timeout(SOON * 3).text().await?;
    until("nothing of ours is left", SOON, async || {
        let mut left = left(cluster).await?;
        for (kind, namespace, name) in MADE {
            let call = ["get", kind, name, "--namespace", namespace, "--ignore-not-found"];
            left.extend(cluster.kubectl(call).text().await?.lines().map(str::to_owned));
        }
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    let crds = cluster.kubectl(["get", "customresourcedefinitions", "-o", "name"]).text().await?;
    ensure!(crds.contains("accesspolicies.fedgate.dev"), "the definitions are gone: {crds}");
    // What a user made is the user's.
    cluster.get(["gateway", "edge", "--namespace", SHOP]).await.map(drop)
}

/// The garbage collector would take what refers to the old release's objects.
async fn anew(run: &Run, cluster: &Cluster) -> Result<()> {
    install(run, cluster, &[]).await?;
    for (kind, namespace, name) in &MADE[..3] {
        owned(cluster, kind, namespace, name).await?;
    }
    Ok(())
}

/// Objects that carry our labels, in all namespaces and in none.
async fn left(cluster: &Cluster) -> Result<Vec<String>> {
    let kinds = "all,configmaps,secrets,serviceaccounts,persistentvolumeclaims,leases,roles,\
        rolebindings,clusterroles,clusterrolebindings,networkpolicies,poddisruptionbudgets,\
        endpointslices,gatewayclasses,serviceimports,clusterpeers";
    let mut names = Vec::new();
    for label in ["app.kubernetes.io/name=fedgate", "app.kubernetes.io/managed-by=fedgate"] {
        let found = cluster.get([kinds, "--all-namespaces", "--selector", label]).await?;
        let found = found["items"].as_array().context("a list has items")?;
        let name = |one: &Value| format!("{} {}", one["kind"], one["metadata"]["name"]);
        names.extend(found.iter().map(name));
    }
    Ok(names)
}
