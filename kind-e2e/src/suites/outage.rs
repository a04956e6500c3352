//! West's API server is away: frozen first, then stopped. Requests go through west in both directions
//! meanwhile, gateways start anew from what they kept, and what changes is served when it is back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join;
use serde_json::json;
use tokio::time::Instant;

use super::failover::node;
use super::federated::{
    Load, SHOP, SOON, answered_by, begin, connected, deploy, export, get, imported, load_words,
};
use crate::cluster::{Cluster, SYSTEM_NAMESPACE};
use crate::command::Command;
use crate::run::{Run, until};

/// How many seconds the API server is stopped.
const SECONDS_VARIABLE: &str = "FEDGATE_OUTAGE_S";
const SECONDS_DEFAULT: u64 = 45;
/// How long it is frozen: less than its kubelet waits before it kills it.
const FROZEN: Duration = Duration::from_secs(20);
/// How long requests go on while gateways are restarted.
const RESTARTS: Duration = Duration::from_secs(20);
/// From when the API server is back until its changes are served.
const RESYNC_MAX: Duration = Duration::from_secs(5);
/// Where kubelet finds it, and where it does not.
const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
const PUT_ASIDE: &str = "/etc/kubernetes/kube-apiserver.yaml";
/// A Service whose endpoints the suite writes itself, so that no controller's return is measured.
const FIXED: &str = "fixed";

pub(super) async fn run(run: &Run) -> Result<()> {
    begin(run).await?;
    let pods =
        run.step("api runs twice in west; east calls it, and west calls db", calls(run)).await?;
    let west = West::find(run).await?;
    run.step("the API server is frozen: no request fails", frozen(run, &west)).await?;
    let seconds = outage_seconds()?;
    run.step(format!("it is stopped for {seconds} s: no request fails"), async {
        stop(run).await?;
        west.loaded(run, Duration::from_secs(seconds)).await
    })
    .await?;
    run.step("gateways that start anew meanwhile serve what they kept", west.restarts(run)).await?;
    run.step("it is back, and a change is served at once", back(run, &west, &pods)).await?;
    run.step("no gateway and no node has ended by itself", async {
        connected(run.clusters()).await?;
        get(run.east(), "web", &api()).await.map(drop)
    })
    .await
}

fn outage_seconds() -> Result<u64> {
    match std::env::var(SECONDS_VARIABLE) {
        Ok(text) => text.parse().with_context(|| format!("{SECONDS_VARIABLE} = {text:?}")),
        Err(_) => Ok(SECONDS_DEFAULT),
    }
}

fn api() -> String {
    format!("http://{}/", imported("api"))
}

/// The addresses of api's two pods.
async fn calls(run: &Run) -> Result<[String; 2]> {
    let west = run.west();
    deploy(run, west, "api", 2).await?;
    export(west, "api", &["east"]).await?;
    export(run.south(), "db", &["west"]).await?;
    answered_by((run.east(), "web"), &api(), "west", SOON).await?;
    let db = format!("http://{}/", imported("db"));
    answered_by((west, "api"), &db, "south", SOON).await?;
    let list = west.get(["pods", "--namespace", SHOP, "--selector", "app=api"]).await?;
    let address = |index: usize| {
        let address = list["items"][index]["status"]["podIP"].as_str().map(str::to_owned);
        address.context("a pod of api has an address")
    };
    let pods = [address(0)?, address(1)?];
    west.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": FIXED, "namespace": SHOP},
        "spec": {"ports": [{"name": "http", "port": 80, "appProtocol": "http"}]},
    }))
    .await?;
    west.apply(&slice(&pods[0])).await?;
    export(west, FIXED, &["east"]).await?;
    answered_by((run.east(), "web"), &fixed(), "west", SOON).await?;
    Ok(pods)
}

fn fixed() -> String {
    format!("http://{}/", imported(FIXED))
}

fn slice(address: &str) -> serde_json::Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "fixed-1", "namespace": SHOP,
            "labels": {"kubernetes.io/service-name": FIXED},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    })
}

/// What is needed of west while nobody can ask its API server.
struct West {
    node: String,
    /// The container of a pod of api.
    client: String,
}

impl West {
    async fn find(run: &Run) -> Result<Self> {
        let node = node(run.west());
        let containers = containers(run, &node, SHOP, "testapp").await?;
        let client = containers.into_iter().next().context("api has no container")?;
        Ok(Self { node, client })
    }

    /// Requests into west from east, and out of west to south.
    async fn loaded(&self, run: &Run, duration: Duration) -> Result<()> {
        for load in self.loads(run, duration, async { Ok(()) }).await? {
            load.none_failed("without the API server")?;
        }
        Ok(())
    }

    async fn loads(
        &self,
        run: &Run,
        duration: Duration,
        event: impl Future<Output = Result<()>>,
    ) -> Result<[Load; 2]> {
        let url = format!("http://{}/load", imported("api"));
        let inwards = Load::of(run, Load::call(run.east(), "web", &url, duration), event);
        let url = format!("http://{}/load", imported("db"));
        let outwards = self.testapp(run, load_words(&url, duration)).timeout(duration * 2 + SOON);
        let outwards = Load::of(run, outwards, async { Ok(()) });
        Ok(try_join(inwards, outwards).await?.into())
    }

    /// The test application in a pod of api, without the API server.
    fn testapp(&self, run: &Run, words: Vec<String>) -> Command {
        let call = containerd(run, &self.node).args(["tasks", "exec", "--exec-id", "e2e"]);
        call.args([&self.client]).args(["/testapp"]).args(words)
    }

    /// Gateways are killed one after another, without a word. kubelet starts them again, and the other
    /// one takes new tunnels; the cluster's Services still name both, so that connections from west's
    /// own pods are refused while one is away.
    async fn restarts(&self, run: &Run) -> Result<()> {
        let event = async {
            for container in containers(run, &self.node, SYSTEM_NAMESPACE, "gateway").await? {
                let kill =
                    containerd(run, &self.node).args(["tasks", "kill", "--signal", "SIGKILL"]);
                kill.args([&container]).text().await?;
                self.replaced(run, &container).await?;
            }
            anyhow::Ok(())
        };
        let [inwards, outwards] = self.loads(run, RESTARTS, event).await?;
        for load in [inwards, outwards] {
            ensure!(load.count("ok") > load.count("requests") * 8 / 10, "{:?}", load.0);
        }
        // From now on nothing of before is left.
        self.loaded(run, Duration::from_secs(10)).await
    }

    /// Another container runs in the killed one's place, and both directions are served.
    async fn replaced(&self, run: &Run, killed: &str) -> Result<()> {
        until("kubelet starts the gateway again", SOON, async || {
            let now = containers(run, &self.node, SYSTEM_NAMESPACE, "gateway").await?;
            ensure!(now.len() == 2 && !now.iter().any(|one| one == killed), "{now:?}");
            Ok(())
        })
        .await?;
        answered_by((run.east(), "web"), &api(), "west", SOON).await.map(drop)
    }
}

/// containerd's own client on a node, which needs no API server.
fn containerd(run: &Run, node: &str) -> Command {
    run.machine.docker().args(["exec", node, "ctr", "--namespace", "k8s.io"])
}

/// The containers of that name in a namespace that run.
async fn containers(run: &Run, node: &str, namespace: &str, name: &str) -> Result<Vec<String>> {
    let filter = format!(
        "labels.\"io.kubernetes.pod.namespace\"=={namespace},\
         labels.\"io.kubernetes.container.name\"=={name}"
    );
    let listed = containerd(run, node).args(["containers", "list", "--quiet", &filter]).text();
    let (listed, tasks) =
        try_join(listed, containerd(run, node).args(["tasks", "list"]).text()).await?;
    let running: Vec<&str> = tasks
        .lines()
        .filter(|line| line.ends_with("RUNNING"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    Ok(listed.lines().filter(|id| running.contains(id)).map(str::to_owned).collect())
}

/// Its connections stay, and nothing comes back on them.
async fn frozen(run: &Run, west: &West) -> Result<()> {
    let signal = |signal: &str| {
        let call = run.machine.docker().args(["exec", &west.node, "pkill"]);
        call.args([format!("-{signal}").as_str(), "-f", "^kube-apiserver "])
    };
    let again = signal("CONT");
    run.afterwards("the frozen API server", async move { again.output().await.map(drop) });
    signal("STOP").text().await?;
    ensure!(is_away(run.west()).await, "the API server answers although it is frozen");
    west.loaded(run, FROZEN).await?;
    signal("CONT").text().await?;
    ready(run.west()).await
}

/// As an operator does it with a static pod.
async fn stop(run: &Run) -> Result<()> {
    let (again, west) = (start(run), run.west().clone());
    run.afterwards("the stopped API server", async move {
        // It fails where nothing is put aside any more.
        again.output().await?;
        ready(&west).await
    });
    let west = run.west();
    let put_aside = ["exec", &node(west), "mv", MANIFEST, PUT_ASIDE];
    run.machine.docker().args(put_aside).text().await?;
    until("the API server is away", SOON, async || {
        ensure!(is_away(west).await, "it still answers");
        Ok(())
    })
    .await
}

fn start(run: &Run) -> Command {
    run.machine.docker().args(["exec", &node(run.west()), "mv", PUT_ASIDE, MANIFEST])
}

async fn is_away(cluster: &Cluster) -> bool {
    let call = cluster.kubectl(["get", "--raw", "/readyz", "--request-timeout", "1s"]);
    call.output().await.is_ok_and(|output| !output.status.success())
}

async fn ready(cluster: &Cluster) -> Result<()> {
    until("the API server is back", SOON * 2, async || {
        let call = cluster.kubectl(["get", "--raw", "/readyz", "--request-timeout", "1s"]);
        call.text().await.map(drop)
    })
    .await
}

/// The endpoint moves in the first moment in which pods reach the API server: until kube-proxy has
/// heard of it, its Service leads nowhere.
async fn back(run: &Run, west: &West, pods: &[String; 2]) -> Result<()> {
    let pod_of = async || anyhow::Ok(get(run.east(), "web", &fixed()).await?["pod"].clone());
    let before = pod_of().await?;
    start(run).text().await?;
    ready(run.west()).await?;
    let ready = Instant::now();
    until("pods reach the API server", SOON, async || {
        let words = ["get", "https://kubernetes.default.svc.cluster.local/livez"];
        west.testapp(run, words.map(str::to_owned).into()).text().await
    })
    .await?;
    let reached = Instant::now();
    run.west().apply(&slice(&pods[1])).await?;
    until("the other pod answers", RESYNC_MAX, async || {
        ensure!(pod_of().await? != before, "{before} still answers");
        Ok(())
    })
    .await?;
    run.note(format!(
        "pods reached it {} ms after it was ready; a change was served {} ms later",
        (reached - ready).as_millis(),
        reached.elapsed().as_millis()
    ));
    Ok(())
}
