//! Requests from outside of all clusters enter through east's Gateway and reach a service in west.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::federated::{SHOP, SOON, begin, condition, export};
use crate::cluster::{Cluster, SYSTEM_NAMESPACE};
use crate::run::{Run, until};

/// Where TCP connections for db come in.
const TCP_PORT: u16 = 5432;

pub(super) async fn run(run: &Run) -> Result<()> {
    begin(run).await?;
    run.step("west exports api, south exports db", async {
        export(run.west(), "api", &["east"]).await?;
        export(run.south(), "db", &["east"]).await
    })
    .await?;
    run.step("a Gateway and routes in east name the imports", async {
        run.east().apply(&routes()).await?;
        accepted(run.east()).await
    })
    .await?;
    run.step("a request from outside reaches api in west", request(run)).await?;
    run.step("a TCP connection from outside reaches db in south", connection(run)).await?;
    run.step("a route that is wrong says so, and the others stay", mistakes(run)).await?;
    run.step("without the Gateway its Service goes", removed(run)).await
}

fn routes() -> Value {
    let import = |name: &str, port: u16| {
        let (group, kind) = ("multicluster.x-k8s.io", "ServiceImport");
        json!({"group": group, "kind": kind, "name": name, "port": port})
    };
    let parent = |section: &str| json!([{"name": "edge", "sectionName": section}]);
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "edge", "namespace": SHOP},
            "spec": {"gatewayClassName": "fedgate", "listeners": [
                {"name": "http", "protocol": "HTTP", "port": 80},
                {"name": "db", "protocol": "TCP", "port": TCP_PORT},
            ]},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "api", "namespace": SHOP},
            "spec": {
                "parentRefs": parent("http"),
                "hostnames": ["shop.example"],
                "rules": [{"backendRefs": [import("api", 80)]}],
            },
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "TCPRoute",
            "metadata": {"name": "db", "namespace": SHOP},
            "spec": {"parentRefs": parent("db"), "rules": [{"backendRefs": [import("db", 9000)]}]},
        },
    ]})
}

async fn accepted(east: &Cluster) -> Result<()> {
    let gateway = ("gateway/edge", "/status/conditions");
    condition(east, gateway, "Accepted", ("True", "Accepted")).await?;
    condition(east, gateway, "Programmed", ("True", "Programmed")).await?;
    for route in ["httproute/api", "tcproute/db"] {
        let route = (route, "/status/parents/0/conditions");
        condition(east, route, "Accepted", ("True", "Accepted")).await?;
        condition(east, route, "ResolvedRefs", ("True", "ResolvedRefs")).await?;
    }
    let class = east.get(["gatewayclass", "fedgate"]).await?;
    ensure!(class["status"]["conditions"][0]["status"] == "True", "{}", class["status"]);
    Ok(())
}

/// The node port of one of the Gateway's listeners, from the Service made for it.
async fn node_port(east: &Cluster, port: u16) -> Result<String> {
    let name = format!("{SHOP}-edge");
    let service = until("the Gateway has a Service", SOON, async || {
        east.get(["service", &name, "--namespace", SYSTEM_NAMESPACE]).await
    });
    let service = service.await?;
    let ports = service["spec"]["ports"].as_array().context("a Service has ports")?;
    let one = ports.iter().find(|one| one["port"] == port);
    let one = one.with_context(|| format!("no port {port} in {ports:?}"))?;
    Ok(format!("{}:{}", east.node_address().await?, one["nodePort"]))
}

/// South's pods are outside of east.
async fn request(run: &Run) -> Result<()> {
    let url = format!("http://{}/", node_port(run.east(), 80).await?);
    let ask = async |host: &str| {
        let host = format!("Host={host}");
        let call = ["get", &url, "--header", &host];
        run.south().testapp(SHOP, "deployment/db", call).await?.answer()
    };
    until("api answers", SOON, async || {
        let answer = ask("shop.example").await?;
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap_or_default())?;
        ensure!(answer["status"] == 200 && body["cluster"] == "west", "{answer}");
        Ok(())
    })
    .await?;
    let answer = ask("other.example").await?;
    ensure!(answer["status"] == 404, "a host of nobody is answered with {answer}");
    Ok(())
}

async fn connection(run: &Run) -> Result<()> {
    let address = node_port(run.east(), TCP_PORT).await?;
    until("db echoes", SOON, async || {
        let call = ["tcp", &address, "through the edge"];
        let echo = run.west().testapp(SHOP, "deployment/api", call).await?;
        ensure!(echo.stdout.trim_end() == "through the edge", "{}", echo.last_words());
        Ok(())
    })
    .await
}

/// A reference to nothing: its own status names it, and the good route answers on.
async fn mistakes(run: &Run) -> Result<()> {
    let bad = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "bad", "namespace": SHOP},
        "spec": {
            "parentRefs": [{"name": "edge", "sectionName": "http"}],
            "hostnames": ["bad.example"],
            "rules": [{"backendRefs": [{"name": "nobody", "port": 80}]}],
        },
    });
    run.east().apply(&bad).await?;
    let route = ("httproute/bad", "/status/parents/0/conditions");
    condition(run.east(), route, "ResolvedRefs", ("False", "BackendNotFound")).await?;
    request(run).await
}

async fn removed(run: &Run) -> Result<()> {
    let delete = ["delete", "gateway", "edge", "--namespace", SHOP];
    run.east().kubectl(delete).text().await?;
    let name = format!("{SHOP}-edge");
    until("its Service is gone", SOON, async || {
        let call = run.east().kubectl(["get", "service", &name, "--namespace", SYSTEM_NAMESPACE]);
        let left = call.args(["--ignore-not-found", "-o", "name"]).text().await?;
        ensure!(left.is_empty(), "{left} is still there");
        Ok(())
    })
    .await
}
