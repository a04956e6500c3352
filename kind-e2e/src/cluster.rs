//! One cluster, as its operator sees it.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::command::{Command, Output};
use crate::limits::{CLEAN_TIMEOUT, ROLLOUT_TIMEOUT};
use crate::machine::Machine;

/// On every namespace that a suite makes, so that the next run finds what a broken one left.
pub const SUITE_LABEL: &str = "fedgate.dev/e2e";

/// Where Fedgate is installed.
pub const SYSTEM_NAMESPACE: &str = "fedgate-system";

/// What our charts and controllers put on objects of no namespace.
const OUR_LABELS: [&str; 2] =
    ["app.kubernetes.io/managed-by=fedgate", "app.kubernetes.io/name=fedgate"];

/// Kinds without a namespace of which we make objects.
const OUR_CLUSTER_KINDS: &str = "clusterroles,clusterrolebindings,gatewayclasses,\
    validatingadmissionpolicies,validatingadmissionpolicybindings";

/// The API group of our own kinds.
const OUR_GROUP: &str = "fedgate.dev";

/// A cluster that is up.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: &'static str,
    machine: Machine,
}

impl Cluster {
    /// The cluster of that name, which need not be up yet.
    pub const fn new(name: &'static str, machine: Machine) -> Self {
        Self { name, machine }
    }

    /// The administrator's credentials.
    pub fn kubeconfig(&self) -> PathBuf {
        self.machine.cache.join("kubeconfig").join(self.name)
    }

    /// A call of kubectl as administrator: the words of a command line.
    pub fn kubectl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        self.machine.tool("kubectl").env("KUBECONFIG", self.kubeconfig()).args(arguments)
    }

    /// A call of helm as administrator.
    pub fn helm<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        self.machine.tool("helm").env("KUBECONFIG", self.kubeconfig()).args(arguments)
    }

    /// A call of fedctl on this machine, as the cluster's administrator.
    pub fn fedctl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        self.machine.program("fedctl").env("KUBECONFIG", self.kubeconfig()).args(arguments)
    }

    /// `kubectl get`, read as JSON.
    pub async fn get<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Value> {
        self.kubectl(["get", "--output", "json"]).args(arguments).json().await
    }

    /// Creates or changes objects: a manifest, or several in a `List`.
    pub async fn apply(&self, manifest: &Value) -> Result<()> {
        let call = self.kubectl(["apply", "--server-side", "--filename", "-"]);
        call.input(manifest.to_string()).text().await.map(drop)
    }

    /// Creates a namespace that is removed with the suite.
    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {SUITE_LABEL: "true"}},
        }))
        .await
    }

    /// Waits until a Deployment or StatefulSet, such as `deployment/web`, runs as its manifest says.
    pub async fn wait_for_rollout(&self, namespace: &str, workload: &str) -> Result<()> {
        let timeout = format!("{}s", ROLLOUT_TIMEOUT.as_secs());
        let call = self.kubectl(["rollout", "status", workload]);
        let call = call.args(["--namespace", namespace, "--timeout", &timeout]);
        // It gives up by itself, and says what it waited for.
        call.timeout(ROLLOUT_TIMEOUT * 2).text().await.map(drop)
    }

    /// Runs a verb of the test application in a pod of it, such as `deployment/web`.
    pub async fn testapp<'a>(
        &self,
        namespace: &str,
        workload: &str,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Result<Output> {
        let call = self.kubectl(["exec", "--namespace", namespace, workload, "--", "/testapp"]);
        call.args(arguments).output().await
    }

    /// The address of its one node, at which other clusters reach its NodePorts.
    pub async fn node_address(&self) -> Result<IpAddr> {
        let nodes = self.get(["nodes"]).await?;
        let addresses = nodes["items"][0]["status"]["addresses"].as_array().into_iter().flatten();
        let internal = addresses
            .filter(|address| address["type"] == "InternalIP")
            .find_map(|address| address["address"].as_str()?.parse().ok());
        internal.with_context(|| format!("the node of {} has no InternalIP", self.name))
    }

    /// Removes what suites make, whoever left it: Helm releases, our kinds with all their objects,
    /// namespaces of suites, and what our programs made outside of namespaces.
    pub async fn clean(&self) -> Result<()> {
        self.remove_releases().await?;
        self.remove_namespaces().await?;
        self.remove_own_kinds().await?;
        for label in OUR_LABELS {
            let call = self.kubectl(["delete", OUR_CLUSTER_KINDS, "--selector", label]);
            call.args(["--ignore-not-found", "--timeout=60s"])
                .timeout(CLEAN_TIMEOUT)
                .text()
                .await?;
        }
        Ok(())
    }

    async fn remove_releases(&self) -> Result<()> {
        let releases = self.helm(["list", "--all-namespaces", "--output", "json"]).json().await?;
        for release in releases.as_array().into_iter().flatten() {
            let text = |field: &str| release[field].as_str().unwrap_or_default().to_owned();
            let (name, namespace) = (text("name"), text("namespace"));
            let call = self.helm(["uninstall", &name, "--namespace", &namespace, "--no-hooks"]);
            call.timeout(CLEAN_TIMEOUT).text().await?;
        }
        Ok(())
    }

    async fn remove_namespaces(&self) -> Result<()> {
        let waiting = ["--ignore-not-found", "--timeout=110s"];
        let call = self.kubectl(["delete", "namespaces", "--selector", SUITE_LABEL]);
        call.args(waiting).timeout(CLEAN_TIMEOUT).text().await?;
        let call = self.kubectl(["delete", "namespaces", SYSTEM_NAMESPACE]);
        call.args(waiting).timeout(CLEAN_TIMEOUT).text().await.map(drop)
    }

    async fn remove_own_kinds(&self) -> Result<()> {
        let listed =
            self.kubectl(["get", "customresourcedefinitions", "--output", "name"]).text().await?;
        let ours: Vec<&str> = listed.lines().filter(|name| name.ends_with(OUR_GROUP)).collect();
        if ours.is_empty() {
            return Ok(());
        }
        let call = self.kubectl(["delete", "--timeout=60s"]).args(ours);
        call.timeout(CLEAN_TIMEOUT).text().await.map(drop)
    }
}

impl Output {
    /// What a verb of the test application printed, if it succeeded.
    pub fn answer(&self) -> Result<Value> {
        ensure!(self.status.success(), "the test application failed: {}", self.last_words());
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {}", self.stdout))
    }
}
