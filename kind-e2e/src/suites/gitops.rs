//! Everything by manifests, as `docs/guide/gitops.md` says: no step calls fedctl.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::federated::{
    Load, SHOP, SOON, answered_by, condition, deploy_all, export, imported, install,
};
use crate::cluster::{Cluster, SYSTEM_NAMESPACE};
use crate::run::{Run, until};

/// The Secret with the token in the joining clusters, and the value that names it.
const TOKEN_SECRET: &str = "join";
const TOKEN_VALUE: &str = "federation.joinTokenSecret.name=join";
/// kubelet looks at the Secrets of running pods about once a minute.
const TOKEN_SEEN: Duration = Duration::from_secs(150);
/// How long requests go on while objects are broken.
const LOAD: Duration = Duration::from_secs(30);
const OWN: &str = "/status/conditions";
const ANCESTOR: &str = "/status/ancestors/0/conditions";

pub(super) async fn run(run: &Run) -> Result<()> {
    run.step("helm install in east, and in west before its token is there", async {
        let (east, west) = (run.east(), run.west());
        futures_util::future::try_join(install(run, east, &[]), install(run, west, &[TOKEN_VALUE]))
            .await
            .map(drop)
    })
    .await?;
    run.step("a Federation founds, and JoinGrants put tokens into Secrets", found(run.east()))
        .await?;
    run.step("south is installed with its token, west gets its own later", tokens(run)).await?;
    run.step("all are members, and ClusterPeers are Ready", members(run)).await?;
    run.step("web runs in east, api in west, db in south", deploy_all(run)).await?;
    run.step("grant, export and policy have conditions, and api answers", serve(run)).await?;
    run.step("kubectl get has rows that tell something", rows(run)).await?;
    run.step("kubectl explain knows nested fields", explained(run.east())).await?;
    run.step("what the API server can refuse never gets in", refused(run.east())).await?;
    run.step("what is wrong says so with a fix, and traffic goes on", wrong(run)).await?;
    run.step("a mended policy is taken up", mended(run)).await
}

fn own(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "fedgate.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name}, "spec": spec,
    })
}

fn join_grant(cluster: &str) -> Value {
    let secret = format!("join-{cluster}");
    let spec = json!({"cluster": cluster, "expires": "24h", "secretRef": {"name": secret}});
    own("JoinGrant", cluster, &spec)
}

async fn found(east: &Cluster) -> Result<()> {
    let federation = own("Federation", "default", &json!({"name": "The shop", "found": true}));
    let grants = [federation, join_grant("west"), join_grant("south")];
    east.apply(&json!({"apiVersion": "v1", "kind": "List", "items": grants})).await?;
    condition(east, ("federation/default", OWN), "Accepted", ("True", "Accepted")).await?;
    condition(east, ("federation/default", OWN), "Ready", ("True", "Ready")).await?;
    for name in ["west", "south"] {
        let grant = format!("joingrant/{name}");
        condition(east, (&grant, OWN), "Ready", ("True", "Ready")).await?;
        state(east, &grant, "Issued").await?;
    }
    Ok(())
}

async fn state(cluster: &Cluster, grant: &str, wanted: &str) -> Result<()> {
    until(format!("{grant} is {wanted}"), SOON, async || {
        let found = cluster.get([grant]).await?;
        ensure!(found["status"]["state"] == wanted, "{}", found["status"]);
        Ok(())
    })
    .await
}

/// A Secret of east's goes to the other cluster, by whatever moves Secrets there.
async fn tokens(run: &Run) -> Result<()> {
    for cluster in [run.south(), run.west()] {
        let name = format!("join-{}", cluster.name);
        let secret = run.east().get(["secret", &name, "--namespace", SYSTEM_NAMESPACE]).await?;
        ensure!(secret["data"]["token"].is_string(), "{name} has no token: {}", secret["metadata"]);
        cluster
            .apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}},
                {
                    "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                    "metadata": {"name": TOKEN_SECRET, "namespace": SYSTEM_NAMESPACE},
                    "data": {"token": secret["data"]["token"]},
                },
            ]}))
            .await?;
    }
    install(run, run.south(), &[TOKEN_VALUE]).await
}

async fn members(run: &Run) -> Result<()> {
    for cluster in [run.south(), run.west()] {
        // Without `found` it only shows what is.
        cluster.apply(&own("Federation", "default", &json!({}))).await?;
        let began = tokio::time::Instant::now();
        until(format!("{} has joined", cluster.name), TOKEN_SEEN, async || {
            let found = cluster.get(["federation", "default"]).await?;
            let status = &found["status"];
            ensure!(status["clusters"].as_u64() >= Some(2), "{status}");
            Ok(())
        })
        .await?;
        run.note(format!("{} is in after another {:.1?}", cluster.name, began.elapsed()));
        state(run.east(), &format!("joingrant/{}", cluster.name), "Redeemed").await?;
    }
    for cluster in run.clusters() {
        condition(cluster, ("federation/default", OWN), "Ready", ("True", "Ready")).await?;
        until("the Federation counts three", SOON, async || {
            let found = cluster.get(["federation", "default"]).await?;
            let status = &found["status"];
            ensure!(status["clusters"] == 3 && status["leader"].is_string(), "{status}");
            ensure!(status["observedGeneration"] == found["metadata"]["generation"], "{status}");
            Ok(())
        })
        .await?;
        for other in run.clusters().iter().filter(|other| other.name != cluster.name) {
            let peer = format!("clusterpeer/{}", other.name);
            condition(cluster, (&peer, OWN), "Accepted", ("True", "Accepted")).await?;
            condition(cluster, (&peer, OWN), "Ready", ("True", "Ready")).await?;
        }
    }
    Ok(())
}

async fn serve(run: &Run) -> Result<()> {
    let spec = json!({"namespaces": [{"name": SHOP}], "clusters": ["west"]});
    run.east().apply(&own("NamespaceGrant", "shop", &spec)).await?;
    condition(run.east(), ("namespacegrant/shop", OWN), "Ready", ("True", "Ready")).await?;
    export(run.west(), "api", &["east"]).await?;
    let (west, east) = (run.west(), run.east());
    condition(west, ("serviceexport/api", OWN), "Valid", ("True", "Valid")).await?;
    condition(west, ("serviceexport/api", OWN), "Ready", ("True", "Exported")).await?;
    condition(west, ("serviceexport/api", OWN), "Conflict", ("False", "NoConflicts")).await?;
    condition(west, ("accesspolicy/api", ANCESTOR), "Accepted", ("True", "Accepted")).await?;
    condition(west, ("accesspolicy/api", ANCESTOR), "Programmed", ("True", "Programmed")).await?;
    condition(east, ("serviceimport/api", OWN), "Ready", ("True", "Ready")).await?;
    answered_by((east, "web"), &api(), "west", SOON).await.map(drop)
}

fn api() -> String {
    format!("http://{}/", imported("api"))
}

/// Each row has something in every column, and shows what there is.
async fn rows(run: &Run) -> Result<()> {
    for (cluster, kind, words) in [
        (run.east(), "federations", &["default", "3", "True", "The shop"][..]),
        (run.east(), "clusterpeers", &["west", "south", "True", "west.fedgate.internal"]),
        (run.east(), "joingrants", &["west", "Redeemed", "join-west"]),
        (run.east(), "namespacegrants", &["shop", "True"]),
        (run.west(), "accesspolicies", &["api", "True"]),
    ] {
        let call = ["get", kind, "--all-namespaces", "--output", "wide"];
        let table = cluster.kubectl(call).text().await?;
        for word in words {
            ensure!(table.contains(word), "{word:?} is not in the rows of {kind}:\n{table}");
        }
        ensure!(!table.contains("<none>"), "{kind} has an empty column:\n{table}");
    }
    let all = run.east().kubectl(["get", "fed", "--all-namespaces"]).text().await?;
    for kind in ["federation", "clusterpeer", "joingrant", "namespacegrant"] {
        ensure!(all.contains(&format!("{kind}.fedgate.dev/")), "no {kind} among:\n{all}");
    }
    run.note(run.east().kubectl(["get", "federations,joingrants,clusterpeers"]).text().await?);
    Ok(())
}

async fn explained(east: &Cluster) -> Result<()> {
    for (field, word) in [
        ("accesspolicy.spec.allow.trustDomain", "Callers whose identity is in this trust domain"),
        ("joingrant.spec.secretRef.name", "Fedgate creates it"),
        ("clusterpeer.spec.trustDomains.bundle", "SPIFFE bundle document"),
        ("namespacegrant.spec.namespaces.prefix", "begin with"),
        ("federation.status.voters", "clusters that vote"),
    ] {
        let text = east.kubectl(["explain", field]).text().await?;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(text.contains(word), "{word:?} is not in the text of {field}: {text}");
    }
    Ok(())
}

/// One of each kind; the answer names the field or says what to write.
async fn refused(east: &Cluster) -> Result<()> {
    let policy = json!({
        "targetRefs": [{"group": "multicluster.x-k8s.io", "kind": "ServiceExport", "name": "api"}],
        "allow": [{}],
    });
    let mut policy = own("AccessPolicy", "bad", &policy);
    policy["metadata"]["namespace"] = json!(SHOP);
    let peer = json!({
        "addresses": [{"transport": "quic", "host": "west.example", "port": 0}],
        "trustDomains": [],
    });
    let grant = json!({"cluster": "west", "expires": "8d", "secretRef": {"name": "x"}});
    for (object, word) in [
        (own("Federation", "second", &json!({})), "name the object"),
        (own("ClusterPeer", "bad", &peer), "port"),
        (own("JoinGrant", "bad", &grant), "expires"),
        (own("NamespaceGrant", "bad", &json!({"namespaces": [{}], "clusters": []})), "prefix"),
        (policy, "names nobody"),
    ] {
        let call = east.kubectl(["apply", "--server-side", "--filename", "-"]);
        let output = call.input(object.to_string()).output().await?;
        ensure!(!output.status.success(), "the API server took {object}");
        ensure!(output.stderr.contains(word), "{word:?} is not in: {}", output.stderr);
    }
    Ok(())
}

/// Objects that only the node can judge. api is served meanwhile by what its policy said before.
async fn wrong(run: &Run) -> Result<()> {
    let url = format!("http://{}/load", imported("api"));
    let load = Load::during(run, &url, LOAD, wrong_objects(run)).await?;
    load.none_failed("while objects were wrong")
}

async fn wrong_objects(run: &Run) -> Result<()> {
    let (east, west) = (run.east(), run.west());
    let bundle = json!({
        "addresses": [],
        "trustDomains": [{"name": "far.example", "bundle": "no JSON"}],
    });
    let no_service = json!({
        "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
        "metadata": {"name": "nobody", "namespace": SHOP},
    });
    let mut taken = join_grant("west");
    taken["metadata"]["name"] = json!("again");
    taken["spec"]["secretRef"]["name"] = json!("join-again");
    let shop = json!({"namespaces": [{"prefix": "shop-"}], "clusters": ["west"]});
    try_join_all([
        east.apply(&own("ClusterPeer", "far", &bundle)),
        east.apply(&taken),
        west.apply(&own("NamespaceGrant", "mine", &shop)),
        west.apply(&own("Federation", "default", &json!({"name": "x", "found": true}))),
        west.apply(&no_service),
        west.apply(&policy("api", "spiffe://east.fedgate.internal/ns/..")),
        west.apply(&policy("orphan", "spiffe://east.fedgate.internal/ns/shop")),
    ])
    .await?;
    for (cluster, object, at, kind, reason) in [
        (east, "clusterpeer/far", OWN, "Accepted", "Invalid"),
        (east, "joingrant/again", OWN, "Ready", "Failed"),
        (west, "namespacegrant/mine", OWN, "Ready", "NotPermitted"),
        (west, "serviceexport/nobody", OWN, "Valid", "NoService"),
        (west, "accesspolicy/api", ANCESTOR, "Accepted", "Invalid"),
        (west, "accesspolicy/orphan", ANCESTOR, "Accepted", "TargetNotFound"),
    ] {
        condition(cluster, (object, at), kind, ("False", reason)).await?;
        let message = message(cluster, object, at, kind).await?;
        run.note(format!("{object}: {message}"));
        // A fix follows what is wrong, or a code that has one.
        ensure!(message.contains("; ") || message.contains("FED"), "{object}: {message}");
    }
    // Asked to found while it is a member: it stays one.
    condition(west, ("federation/default", OWN), "Ready", ("True", "Ready")).await
}

/// A policy for the export of its name, which a mistake in the caller makes wrong.
fn policy(name: &str, caller: &str) -> Value {
    let target = json!({"group": "multicluster.x-k8s.io", "kind": "ServiceExport", "name": name});
    let spec = json!({"targetRefs": [target], "allow": [{"spiffeId": caller}]});
    let mut policy = own("AccessPolicy", name, &spec);
    policy["metadata"]["namespace"] = json!(SHOP);
    policy
}

async fn message(cluster: &Cluster, object: &str, at: &str, kind: &str) -> Result<String> {
    let found = cluster.get([object, "--namespace", SHOP]).await?;
    let conditions = found.pointer(at).and_then(Value::as_array).context("it has conditions")?;
    let Some(one) = conditions.iter().find(|one| one["type"] == kind) else {
        bail!("{object} has no {kind}: {conditions:?}")
    };
    Ok(one["message"].as_str().unwrap_or_default().to_owned())
}

async fn mended(run: &Run) -> Result<()> {
    export(run.west(), "api", &["east"]).await?;
    let policy = ("accesspolicy/api", ANCESTOR);
    condition(run.west(), policy, "Accepted", ("True", "Accepted")).await?;
    condition(run.west(), policy, "Programmed", ("True", "Programmed")).await?;
    answered_by((run.east(), "web"), &api(), "west", SOON).await.map(drop)
}
