//! From nothing to a request through three clusters.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::federated::{SHOP, SOON, answered_by, begin, condition, export, get, imported};
use super::fence;
use crate::cluster::Cluster;
use crate::run::{Run, until};

pub(super) async fn run(run: &Run) -> Result<()> {
    run.step("API servers are shut against other clusters", fence::raise(run)).await?;
    begin(run).await?;
    run.step("members and links are what fedctl and kubectl show", shown(run)).await?;
    run.step("api is exported for east, db for west", exports(run)).await?;
    run.step("imports have a Service for every pod", imports(run)).await?;
    run.step("web → api → db is answered over HTTP", through_three(run)).await?;
    run.step("the same over gRPC and over TCP", other_protocols(run)).await?;
    run.step("who is not allowed reaches nothing", denied(run)).await?;
    run.step(
        "no cluster holds another's credentials",
        super::clusters::no_credentials(run.clusters()),
    )
    .await?;
    run.step("an unexported service is gone", unexport(run)).await?;
    run.step("no API server was reached from outside its cluster", fence::is_untouched(run)).await
}

async fn shown(run: &Run) -> Result<()> {
    for cluster in run.clusters() {
        let members = cluster.fedctl(["clusters", "-o", "json"]).json().await?;
        let names: Vec<&str> = members["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["name"].as_str())
            .collect();
        for other in run.clusters().iter().filter(|other| other.name != cluster.name) {
            ensure!(names.contains(&other.name), "{} shows {names:?}", cluster.name);
        }
    }
    Ok(())
}

async fn exports(run: &Run) -> Result<()> {
    export(run.west(), "api", &["east"]).await?;
    export(run.south(), "db", &["west"]).await?;
    for (cluster, service) in [(run.west(), "api"), (run.south(), "db")] {
        let object = format!("serviceexport/{service}");
        let object = (object.as_str(), "/status/conditions");
        condition(cluster, object, "Valid", ("True", "Valid")).await?;
        condition(cluster, object, "Ready", ("True", "Exported")).await?;
    }
    Ok(())
}

async fn imports(run: &Run) -> Result<()> {
    for (cluster, service, from) in [(run.east(), "api", "west"), (run.west(), "db", "south")] {
        let name = format!("serviceimport/{service}");
        condition(cluster, (&name, "/status/conditions"), "Ready", ("True", "Ready")).await?;
        let import = cluster.get([&name, "--namespace", SHOP]).await?;
        ensure!(import["status"]["clusters"][0]["cluster"] == from, "{}", import["status"]);
        let derived = import
            .pointer("/metadata/annotations/multicluster.kubernetes.io~1derived-service")
            .and_then(Value::as_str)
            .context("the import names its Service")?;
        let service = cluster.get(["service", derived, "--namespace", SHOP]).await?;
        ensure!(service["spec"]["clusterIP"] == import["spec"]["ips"][0], "{import}");
    }
    Ok(())
}

/// web's pod asks api by its derived Service, and has it ask db by the one in west.
async fn through_three(run: &Run) -> Result<()> {
    let db = format!("http://{}/", imported("db"));
    answered_by((run.west(), "api"), &db, "south", SOON).await?;
    let api = format!("http://{}/call?url={db}", imported("api"));
    let answer = answered_by((run.east(), "web"), &api, "west", SOON).await?;
    ensure!(answer["called"]["answer"]["cluster"] == "south", "{answer}");
    Ok(())
}

async fn other_protocols(run: &Run) -> Result<()> {
    let web = "deployment/web";
    let address = format!("{}:9090", imported("api"));
    let echo = run.east().testapp(SHOP, web, ["grpc", &address]).await?.answer()?;
    ensure!(echo.to_string().contains("west"), "gRPC: {echo}");
    let address = format!("{}:9000", imported("api"));
    let echo = run.east().testapp(SHOP, web, ["tcp", &address, "hello over TCP"]).await?;
    ensure!(echo.stdout.trim_end() == "hello over TCP", "TCP: {}", echo.last_words());
    Ok(())
}

/// db admits west only: east does not even learn that it is there.
async fn denied(run: &Run) -> Result<()> {
    let listed = run.east().kubectl(["get", "serviceimports", "--namespace", SHOP, "-o", "name"]);
    let listed = listed.text().await?;
    ensure!(!listed.contains("/db"), "east has {listed}");
    let url = format!("http://{}/", imported("db"));
    let output = run.east().testapp(SHOP, "deployment/web", ["get", &url]).await?;
    ensure!(!output.status.success(), "east reached db: {}", output.stdout);
    Ok(())
}

async fn unexport(run: &Run) -> Result<()> {
    let delete = ["delete", "serviceexport", "api", "--namespace", SHOP];
    run.west().kubectl(delete).text().await?;
    until("east has no import of api any more", SOON, async || {
        let left = leftovers(run.east()).await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    let url = format!("http://{}/", imported("api"));
    ensure!(get(run.east(), "web", &url).await.is_err(), "api is still reached");
    Ok(())
}

/// What Fedgate made in the application's namespace.
async fn leftovers(cluster: &Cluster) -> Result<Vec<String>> {
    let kinds = "serviceimports,services,endpointslices";
    let label = "app.kubernetes.io/managed-by=fedgate";
    let call = cluster.kubectl(["get", kinds, "--namespace", SHOP, "-l", label, "-o", "name"]);
    Ok(call.text().await?.lines().map(str::to_owned).collect())
}
