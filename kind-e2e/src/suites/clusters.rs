//! What every other suite takes for granted: clusters that work, that reach each other only by their
//! nodes' addresses, as clusters of different sites do, and that hold no credentials for each other.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::run::{Run, until};

const NAMESPACE: &str = "e2e-clusters";
const APP: &str = "deployment/echo";
const HTTP_NODE_PORT: u16 = 30080;
const UDP_NODE_PORT: u16 = 30901;
/// For what a controller or the kubelet has to bring about.
const SOON: Duration = Duration::from_secs(30);

pub(super) async fn run(run: &Run) -> Result<()> {
    let clusters = run.clusters();
    run.step("three clusters are Ready and sign tokens of their own", identities(clusters)).await?;
    run.step("Gateway API and MCS API are served", definitions(clusters)).await?;
    run.step("an application runs in each", deploy(run)).await?;
    run.step("pods reach pods of their cluster, by address and by name", within(clusters)).await?;
    run.step("pods reach other clusters by NodePort, TCP and UDP", across(clusters)).await?;
    run.step("pods of other clusters have no route", no_route(clusters)).await?;
    run.step(
        "a claim of the default class is bound, and its volume goes with it",
        volumes(run.east()),
    )
    .await?;
    run.step("no cluster holds another's credentials", no_credentials(clusters)).await?;
    run.step("no API server takes another cluster's token", foreign_tokens(clusters)).await
}

async fn identities(clusters: &[Cluster]) -> Result<()> {
    let mut issuers = BTreeSet::new();
    for cluster in clusters {
        let nodes = cluster.get(["nodes"]).await?;
        let conditions = nodes["items"][0]["status"]["conditions"].as_array().into_iter().flatten();
        let ready =
            conditions.filter(|one| one["type"] == "Ready").any(|one| one["status"] == "True");
        ensure!(ready, "{}: the node is not Ready", cluster.name);
        let discovery =
            cluster.kubectl(["get", "--raw", "/.well-known/openid-configuration"]).json().await?;
        issuers.insert(discovery["issuer"].to_string());
    }
    ensure!(issuers.len() == clusters.len(), "issuers of tokens: {issuers:?}");
    Ok(())
}

async fn definitions(clusters: &[Cluster]) -> Result<()> {
    for cluster in clusters {
        let listed = cluster.kubectl(["api-resources", "--output", "name"]).text().await?;
        for name in [
            "serviceexports.multicluster.x-k8s.io",
            "serviceimports.multicluster.x-k8s.io",
            "gateways.gateway.networking.k8s.io",
            "httproutes.gateway.networking.k8s.io",
            "grpcroutes.gateway.networking.k8s.io",
            "tcproutes.gateway.networking.k8s.io",
            "tlsroutes.gateway.networking.k8s.io",
            "referencegrants.gateway.networking.k8s.io",
        ] {
            ensure!(
                listed.lines().any(|line| line == name),
                "{} does not serve {name}",
                cluster.name
            );
        }
    }
    Ok(())
}

async fn deploy(run: &Run) -> Result<()> {
    try_join_all(run.clusters().iter().map(|cluster| async move {
        cluster.create_namespace(NAMESPACE).await?;
        cluster.apply(&application(cluster.name, &run.images.testapp)).await?;
        cluster.wait_for_rollout(NAMESPACE, APP).await.context(cluster.name)
    }))
    .await
    .map(drop)
}

/// Two pods, so that one can call the other.
fn application(cluster: &str, image: &str) -> Value {
    let labels = json!({"app": "echo"});
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "echo", "namespace": NAMESPACE},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [{
                    "name": "testapp", "image": image, "args": ["serve", "--drain=0s"],
                    "env": [
                        {"name": "CLUSTER_NAME", "value": cluster},
                        field("POD_NAME", "metadata.name"),
                        field("POD_NAMESPACE", "metadata.namespace"),
                    ],
                    "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                }]}},
            },
        },
        {
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "echo", "namespace": NAMESPACE},
            "spec": {"type": "NodePort", "selector": labels, "ports": [
                {"name": "http", "port": 80, "targetPort": 8080, "nodePort": HTTP_NODE_PORT},
                {"name": "udp", "port": 9001, "protocol": "UDP", "nodePort": UDP_NODE_PORT},
            ]},
        },
    ]})
}

async fn within(clusters: &[Cluster]) -> Result<()> {
    for cluster in clusters {
        for address in pod_addresses(cluster).await? {
            let answer = get(cluster, &format!("http://{address}:8080/")).await?;
            ensure!(answer["cluster"] == cluster.name, "{address} is answered by {answer}");
        }
        let url = format!("http://echo.{NAMESPACE}.svc.cluster.local/");
        let answer = until(&url, SOON, async || get(cluster, &url).await).await?;
        ensure!(answer["cluster"] == cluster.name, "{url} is answered by {answer}");
    }
    Ok(())
}

async fn across(clusters: &[Cluster]) -> Result<()> {
    for (from, to) in pairs(clusters) {
        let node = to.node_address().await?;
        let url = format!("http://{node}:{HTTP_NODE_PORT}/");
        let answer = until(&url, SOON, async || get(from, &url).await).await?;
        ensure!(answer["cluster"] == to.name, "{url} is answered by {answer}");

        let udp = format!("{node}:{UDP_NODE_PORT}");
        let text = format!("from {}", from.name);
        let echo = from.testapp(NAMESPACE, APP, ["udp", &udp, &text]).await?;
        ensure!(echo.stdout.trim_end() == text, "UDP {udp}: {}", echo.last_words());
    }
    Ok(())
}

async fn no_route(clusters: &[Cluster]) -> Result<()> {
    for (from, to) in pairs(clusters) {
        let address = pod_addresses(to).await?.swap_remove(0);
        let url = format!("http://{address}:8080/");
        let output = from.testapp(NAMESPACE, APP, ["get", &url, "--timeout", "1s"]).await?;
        // Something between may answer, such as a proxy of the machine's network; a pod may not.
        let answered = output
            .answer()
            .ok()
            .and_then(|answer| serde_json::from_str::<Value>(answer["body"].as_str()?).ok());
        ensure!(answered.is_none(), "{} reached {url}: {answered:?}", from.name);
    }
    Ok(())
}

async fn volumes(cluster: &Cluster) -> Result<()> {
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": NAMESPACE},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    });
    cluster.apply(&claim).await?;
    let bound = until("the claim is bound", SOON, async || {
        let claim =
            cluster.get(["persistentvolumeclaim", "data", "--namespace", NAMESPACE]).await?;
        ensure!(claim["status"]["phase"] == "Bound", "it is {}", claim["status"]["phase"]);
        Ok(claim)
    });
    let bound = bound.await?;
    let volume =
        bound["spec"]["volumeName"].as_str().context("a bound claim names its volume")?.to_owned();
    let delete =
        cluster.kubectl(["delete", "persistentvolumeclaim", "data", "--namespace", NAMESPACE]);
    delete.text().await?;
    until("the volume is gone", SOON, async || {
        let call = cluster.kubectl([
            "get",
            "persistentvolume",
            &volume,
            "--ignore-not-found",
            "--output",
            "name",
        ]);
        let left = call.text().await?;
        ensure!(left.is_empty(), "{left} is still there");
        Ok(())
    })
    .await
}

/// Looks in all Secrets and ConfigMaps for what a kubeconfig of another cluster would hold.
pub(super) async fn no_credentials(clusters: &[Cluster]) -> Result<()> {
    let mut marks = Vec::new();
    for cluster in clusters {
        marks.push((cluster.name, marks_of(cluster).await?));
    }
    for cluster in clusters {
        let objects = cluster.get(["secrets,configmaps", "--all-namespaces"]).await?;
        let objects = objects["items"].as_array().context("a list has items")?;
        // Without this, a mistake in the search would look like a success.
        let own = marks.iter().find(|(name, _)| *name == cluster.name).map(|(_, own)| own);
        ensure!(
            objects.iter().any(|object| own.is_some_and(|own| holds(object, own))),
            "the search finds nothing"
        );
        for (other, marks) in marks.iter().filter(|(name, _)| *name != cluster.name) {
            if let Some(found) = objects.iter().find(|object| holds(object, marks)) {
                bail!("{} holds credentials for {other}, in {}", cluster.name, found["metadata"]);
            }
        }
    }
    Ok(())
}

/// The addresses of its API server, and its certificate authority.
async fn marks_of(cluster: &Cluster) -> Result<Vec<String>> {
    let view = cluster.kubectl(["config", "view", "--raw", "--output", "json"]).json().await?;
    let view = &view["clusters"][0]["cluster"];
    let server = view["server"].as_str().context("a kubeconfig names the server")?;
    let authority = view["certificate-authority-data"].as_str().context("and its authority")?;
    let pem = String::from_utf8(STANDARD.decode(authority)?)?;
    // A line of a certificate's text is enough of it, however the whole is wrapped.
    let line = pem.lines().nth(4).context("a certificate has more than four lines")?.to_owned();
    Ok(vec![
        server.to_owned(),
        format!("https://{}:6443", cluster.node_address().await?),
        format!("https://{}-control-plane:6443", cluster.name),
        line,
        authority.to_owned(),
    ])
}

/// Whether a Secret or ConfigMap contains one of the texts.
fn holds(object: &Value, texts: &[String]) -> bool {
    let values = |field: &str| {
        object[field].as_object().into_iter().flatten().filter_map(|(_, value)| value.as_str())
    };
    let decoded = values("data").filter(|_| object["kind"] == "Secret").filter_map(|value| {
        Some(String::from_utf8_lossy(&STANDARD.decode(value).ok()?).into_owned())
    });
    let plain = values("data").filter(|_| object["kind"] != "Secret").map(str::to_owned);
    decoded.chain(plain).any(|value| texts.iter().any(|text| value.contains(text)))
}

/// An address is no credential: API servers can be reached, but refuse what another one signed.
async fn foreign_tokens(clusters: &[Cluster]) -> Result<()> {
    for (from, to) in pairs(clusters) {
        let token =
            from.kubectl(["create", "token", "default", "--namespace", NAMESPACE]).text().await?;
        let url = format!("https://{}:6443/api/v1/namespaces", to.node_address().await?);
        let header = format!("Authorization=Bearer {}", token.trim());
        let output = from.testapp(NAMESPACE, APP, ["get", &url, "--header", &header]).await?;
        let status = &output.answer()?["status"];
        ensure!(*status == 401, "{} answered a token of {} with {status}", to.name, from.name);
    }
    Ok(())
}

/// One request from a pod; the answer's own text.
async fn get(cluster: &Cluster, url: &str) -> Result<Value> {
    let answer = cluster.testapp(NAMESPACE, APP, ["get", url]).await?.answer()?;
    let body = answer["body"].as_str().context("an answer has a body")?;
    serde_json::from_str(body).with_context(|| format!("{url} answered {answer}"))
}

async fn pod_addresses(cluster: &Cluster) -> Result<Vec<String>> {
    let pods = cluster.get(["pods", "--namespace", NAMESPACE, "--selector", "app=echo"]).await?;
    let pods = pods["items"].as_array().into_iter().flatten();
    let addresses: Vec<String> =
        pods.filter_map(|pod| Some(pod["status"]["podIP"].as_str()?.to_owned())).collect();
    ensure!(!addresses.is_empty(), "{}: no pod has an address", cluster.name);
    Ok(addresses)
}

/// Every cluster with every other.
pub(super) fn pairs(clusters: &[Cluster]) -> impl Iterator<Item = (&Cluster, &Cluster)> {
    let all = clusters.iter().flat_map(move |from| clusters.iter().map(move |to| (from, to)));
    all.filter(|(from, to)| from.name != to.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_in_secrets_and_in_config_maps() {
        let marks = ["https://172.28.100.130:6443".to_owned()];
        let text = "server: https://172.28.100.130:6443\n";
        let secret =
            |value: &str| json!({"kind": "Secret", "data": {"a": "bm8=", "config": value}});
        assert!(holds(&secret(&STANDARD.encode(text)), &marks));
        assert!(!holds(&secret("bm8="), &marks));
        assert!(holds(&json!({"kind": "ConfigMap", "data": {"kubeconfig": text}}), &marks));
        assert!(!holds(&json!({"kind": "ConfigMap"}), &marks));
    }
}
