//! What most suites stand on: Fedgate installed by Helm in the three clusters, joined by tokens, and an
//! application whose parts are in different ones: web in east calls api, which calls db.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::cluster::{Cluster, SUITE_LABEL, SYSTEM_NAMESPACE};
use crate::command::Command;
use crate::run::{Run, until};

/// The application's namespace, in every cluster.
pub(super) const SHOP: &str = "shop";
/// How long anything may take that pods and controllers bring about.
pub(super) const SOON: Duration = Duration::from_secs(60);
/// The release's name.
const RELEASE: &str = "fedgate";
/// How long Helm waits until everything is ready.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(240);

/// Installs in all clusters and joins them; web runs in east, api in west, db in south.
pub(super) async fn begin(run: &Run) -> Result<()> {
    run.step("helm install in each cluster", install_all(run)).await?;
    run.step("east founds the federation, west and south join by a token each", join_all(run))
        .await?;
    run.step("web runs in east, api in west, db in south", deploy_all(run)).await
}

pub(super) async fn install_all(run: &Run) -> Result<()> {
    install_all_with(run, &[]).await
}

/// With these values in each cluster.
pub(super) async fn install_all_with(run: &Run, sets: &[&str]) -> Result<()> {
    let installs = run.clusters().iter().map(|cluster| install(run, cluster, sets));
    try_join_all(installs).await.map(drop)
}

/// Both charts, as a user installs them on kind.
pub(super) async fn install(run: &Run, cluster: &Cluster, sets: &[&str]) -> Result<()> {
    install_definitions(cluster, &chart("fedgate-crds")).await?;
    helm_upgrade(run, cluster, &chart("fedgate"), sets).text().await.map(drop)
}

/// The chart of definitions, and a namespace that takes nothing that Pod Security `restricted` forbids.
pub(super) async fn install_definitions(cluster: &Cluster, chart: &Path) -> Result<()> {
    let call = cluster.helm(["upgrade", "--install", "fedgate-crds"]).args([chart]);
    call.args(["--namespace", SYSTEM_NAMESPACE, "--create-namespace"]).text().await?;
    let level = "pod-security.kubernetes.io/enforce=restricted";
    let call = cluster.kubectl(["label", "--overwrite", "namespace", SYSTEM_NAMESPACE, level]);
    call.text().await.map(drop)
}

/// `helm upgrade --install --wait` of a chart folder with the values for kind and these.
pub(super) fn helm_upgrade(run: &Run, cluster: &Cluster, chart: &Path, sets: &[&str]) -> Command {
    helm_upgrade_to(&run.images.fedgate, cluster, chart, sets)
}

/// The same with another image.
pub(super) fn helm_upgrade_to(
    image: &str,
    cluster: &Cluster,
    chart: &Path,
    sets: &[&str],
) -> Command {
    let (repository, tag) = image.rsplit_once(':').unwrap_or((image, ""));
    let seconds = format!("{}s", INSTALL_TIMEOUT.as_secs());
    let mut call = cluster
        .helm(["upgrade", "--install", RELEASE])
        .args([chart])
        .args(["--namespace", SYSTEM_NAMESPACE, "--create-namespace", "--wait"])
        .args(["--timeout", &seconds, "--values"])
        .args([chart.join("values-kind.yaml")])
        .args(["--set", &format!("cluster.name={}", cluster.name)])
        .args(["--set", &format!("image.repository={repository}")])
        .args(["--set-string", &format!("image.tag={tag}")])
        .args(["--set", "gatewayClass.create=true"])
        .timeout(INSTALL_TIMEOUT * 2);
    for set in sets {
        call = call.args(["--set", set]);
    }
    call
}

/// A chart's folder in this checkout.
pub(super) fn chart(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm").join(name)
}

pub(super) async fn join_all(run: &Run) -> Result<()> {
    found(run.east()).await?;
    for joiner in [run.west(), run.south()] {
        join(run.east(), joiner).await.context(joiner.name)?;
    }
    connected(run.clusters()).await
}

/// `fedctl init`, as soon as the node answers and knows where others reach it.
pub(super) async fn found(cluster: &Cluster) -> Result<()> {
    cluster.fedctl(["init"]).text().await.map(drop)
}

/// `fedctl token issue` there and `fedctl join` here, with nothing else carried between the two.
pub(super) async fn join(inviter: &Cluster, joiner: &Cluster) -> Result<()> {
    let token = token(inviter, joiner.name).await?;
    joiner.fedctl(["join", "-"]).input(token).text().await.map(drop)
}

/// A token as text. The node may not know its own addresses in its first seconds.
pub(super) async fn token(inviter: &Cluster, name: &str) -> Result<String> {
    until("a token", SOON, async || inviter.fedctl(["token", "issue", name]).text().await).await
}

/// Every cluster has a live tunnel to every other.
pub(super) async fn connected(clusters: &[Cluster]) -> Result<()> {
    for cluster in clusters {
        until(format!("{} is connected", cluster.name), SOON, async || {
            let listed = cluster.fedctl(["clusters", "-o", "json"]).json().await?;
            let listed = listed["items"].as_array().context("a list has items")?;
            let up = listed.iter().filter(|one| one["state"] == "Up").count();
            ensure!(up + 1 == clusters.len(), "{up} other clusters are Up: {listed:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

pub(super) async fn deploy_all(run: &Run) -> Result<()> {
    let parts = [(run.east(), "web"), (run.west(), "api"), (run.south(), "db")];
    try_join_all(parts.map(|(cluster, part)| async move {
        namespace(cluster).await?;
        deploy(run, cluster, part, 1).await
    }))
    .await
    .map(drop)
}

/// The application's namespace; it goes with the suite.
pub(super) async fn namespace(cluster: &Cluster) -> Result<()> {
    let labels = json!({SUITE_LABEL: "true"});
    cluster
        .apply(&json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SHOP, "labels": labels},
        }))
        .await
}

/// A part of the application: a Deployment and a Service of one name.
pub(super) async fn deploy(run: &Run, cluster: &Cluster, part: &str, replicas: u32) -> Result<()> {
    cluster.apply(&application(part, cluster.name, &run.images.testapp, replicas)).await?;
    cluster.wait_for_rollout(SHOP, &format!("deployment/{part}")).await.context(cluster.name)
}

fn application(part: &str, cluster: &str, image: &str, replicas: u32) -> Value {
    let labels = json!({"app": part});
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": part, "namespace": SHOP},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [{
                    "name": "testapp", "image": image, "args": ["serve", "--drain=5s"],
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
            "metadata": {"name": part, "namespace": SHOP},
            "spec": {"selector": labels, "ports": [
                {"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"},
                {"name": "grpc", "port": 9090, "targetPort": 9090, "appProtocol": "kubernetes.io/h2c"},
                {"name": "echo", "port": 9000, "targetPort": 9000},
            ]},
        },
    ]})
}

/// A ServiceExport, and who may come, as objects of Kubernetes.
pub(super) async fn export(cluster: &Cluster, service: &str, consumers: &[&str]) -> Result<()> {
    let allow: Vec<Value> = consumers.iter().map(|name| json!({"cluster": name})).collect();
    cluster
        .apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
                "metadata": {"name": service, "namespace": SHOP},
            },
            {
                "apiVersion": "fedgate.dev/v1alpha1", "kind": "AccessPolicy",
                "metadata": {"name": service, "namespace": SHOP},
                "spec": {
                    "targetRefs": [{
                        "group": "multicluster.x-k8s.io", "kind": "ServiceExport", "name": service,
                    }],
                    "allow": allow,
                },
            },
        ]}))
        .await
}

/// Lets west and south export in the shop's namespace.
pub(super) async fn grant_both(run: &Run) -> Result<()> {
    let grant = ["namespace", "grant", SHOP, "--clusters", "west,south"];
    run.east().fedctl(grant).text().await.map(drop)
}

/// West and south export a service to east, and east has it from both.
pub(super) async fn export_from_both(run: &Run, service: &str) -> Result<()> {
    for cluster in [run.west(), run.south()] {
        export(cluster, service, &["east"]).await?;
    }
    until("east imports it from both", SOON, async || {
        let import = run.east().get(["serviceimport", service, "--namespace", SHOP]).await?;
        let clusters = import["status"]["clusters"].as_array().map_or(0, Vec::len);
        ensure!(clusters == 2, "{}", import["status"]);
        Ok(())
    })
    .await
}

/// The derived Service by which any pod reaches an import.
pub(super) fn imported(service: &str) -> String {
    format!("imported-{service}.{SHOP}.svc.cluster.local")
}

/// One request from a pod of `deployment/<part>`; the answer's text, which must be the echo of 200.
pub(super) async fn get(cluster: &Cluster, part: &str, url: &str) -> Result<Value> {
    let workload = format!("deployment/{part}");
    let answer = cluster.testapp(SHOP, &workload, ["get", url]).await?.answer()?;
    ensure!(answer["status"] == 200, "{url} was answered with {answer}");
    let body = answer["body"].as_str().context("an answer has a body")?;
    serde_json::from_str(body).with_context(|| format!("{url} was answered with {answer}"))
}

/// As [`get`], again and again until that cluster answers.
pub(super) async fn answered_by(
    from: (&Cluster, &str),
    url: &str,
    cluster: &str,
    within: Duration,
) -> Result<Value> {
    let (source, part) = from;
    until(format!("{url} answered by {cluster}"), within, async || {
        let answer = get(source, part, url).await?;
        ensure!(answer["cluster"] == cluster, "{} answered", answer["cluster"]);
        Ok(answer)
    })
    .await
}

/// The status of a condition of an object, once it is that of the object's present generation.
pub(super) async fn condition(
    cluster: &Cluster,
    object: (&str, &str),
    kind: &str,
    wanted: (&str, &str),
) -> Result<()> {
    let ((what, pointer), (status, reason)) = (object, wanted);
    until(format!("{what} has {kind}={status} {reason}"), SOON, async || {
        let found = cluster.get([what, "--namespace", SHOP]).await?;
        let conditions = found.pointer(pointer).and_then(Value::as_array);
        let one = conditions.into_iter().flatten().find(|one| one["type"] == kind);
        let one = one.with_context(|| format!("there is none in {}", found["status"]))?;
        ensure!(one["status"] == status && one["reason"] == reason, "it is {one}");
        ensure!(one["observedGeneration"] == found["metadata"]["generation"], "it is old: {one}");
        Ok(())
    })
    .await
}

/// What a load client of the test application reports.
#[derive(Debug)]
pub(super) struct Load(pub(super) Value);

impl Load {
    /// Runs it in a pod of web while something happens, and longer if that is over sooner.
    pub(super) async fn during(
        run: &Run,
        url: &str,
        duration: Duration,
        event: impl Future<Output = Result<()>>,
    ) -> Result<Self> {
        let call = Self::call(run.east(), "web", url, duration);
        Self::of(run, call, event).await
    }

    /// Of any call that prints a load's report, while something happens.
    pub(super) async fn of(
        run: &Run,
        call: Command,
        event: impl Future<Output = Result<()>>,
    ) -> Result<Self> {
        let (load, event) = futures_util::future::join(call.json(), event).await;
        event?;
        let load = Self(load?);
        run.note(load.summary());
        Ok(load)
    }

    /// The call in a pod of `deployment/<part>`.
    pub(super) fn call(cluster: &Cluster, part: &str, url: &str, duration: Duration) -> Command {
        let call = cluster.kubectl(["exec", "--namespace", SHOP, &format!("deployment/{part}")]);
        call.args(["--", "/testapp"]).args(load_words(url, duration)).timeout(duration * 2 + SOON)
    }

    pub(super) fn failed(&self) -> u64 {
        self.count("requests") - self.count("ok")
    }

    pub(super) fn count(&self, field: &str) -> u64 {
        self.0[field].as_u64().unwrap_or_default()
    }

    /// Whether requests were sent and none failed.
    pub(super) fn none_failed(&self, what: impl Display) -> Result<()> {
        ensure!(self.count("ok") > 0, "{what}: no request succeeded: {}", self.0);
        ensure!(self.failed() == 0, "{what}: {} requests failed: {}", self.failed(), self.0);
        Ok(())
    }

    /// What a person wants to know of it.
    pub(super) fn summary(&self) -> String {
        let Self(report) = self;
        format!(
            "{} requests, {} failed, longest gap {} ms, p50 {} ms, p99 {} ms",
            report["requests"],
            self.failed(),
            report["longest_gap_ms"],
            report["p50_ms"],
            report["p99_ms"]
        )
    }
}

/// The words of the test application's verb for a load: 40 new connections a second.
pub(super) fn load_words(url: &str, duration: Duration) -> Vec<String> {
    let seconds = format!("{}s", duration.as_secs());
    ["load", url, "--rate", "40", "--duration", &seconds].map(str::to_owned).into()
}
