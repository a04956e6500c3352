//! Two clusters that want the same at the same moment: a name in the federation, or a service's name in
//! a namespace. Exactly one gets it, and the other is told what to do.

use anyhow::{Context as _, Result, ensure};
use futures_util::future::{join, try_join, try_join_all};
use serde_json::Value;

use super::federated::{
    SHOP, SOON, answered_by, chart, condition, deploy, export, found, helm_upgrade, imported,
    install, join as join_by_token, namespace, token,
};
use crate::cluster::Cluster;
use crate::command::Output;
use crate::run::{Run, until};

/// What west and south both call themselves at first.
const CLAIMED: &str = "twin";

pub(super) async fn run(run: &Run) -> Result<()> {
    run.step("helm install; west and south have one name", install_twins(run)).await?;
    run.step("east founds the federation", found(run.east())).await?;
    let (winner, loser) = run
        .step("both join at once, each with a token of its own: one is let in", claim_name(run))
        .await?;
    run.step("the other joins under another name", other_name(run, loser)).await?;
    run.step("both export api at once: one serves it", claim_service(run, winner, loser)).await
}

async fn install_twins(run: &Run) -> Result<()> {
    let name = format!("cluster.name={CLAIMED}");
    let twin = |cluster: &'static str| {
        [name.clone(), format!("cluster.trustDomain={cluster}.fedgate.internal")]
    };
    let installs = run.clusters().iter().map(async |cluster| {
        let twin = twin(cluster.name);
        let sets: Vec<&str> = twin.iter().map(String::as_str).collect();
        let sets = if cluster.name == run.east().name { &[][..] } else { &sets };
        install(run, cluster, sets).await
    });
    try_join_all(installs).await.map(drop)
}

/// Who got the name, and who did not.
async fn claim_name(run: &Run) -> Result<(&Cluster, &Cluster)> {
    let tokens = [token(run.east(), CLAIMED).await?, token(run.east(), CLAIMED).await?];
    let [first, second] = tokens;
    let (west, south) = (run.west(), run.south());
    let enter = |cluster: &Cluster, token| cluster.fedctl(["join", "-"]).input(token).output();
    let (first, second) = join(enter(west, first), enter(south, second)).await;
    let (first, second) = (first?, second?);
    let (winner, loser, told) = match (first.status.success(), second.status.success()) {
        (true, false) => (west, south, second),
        (false, true) => (south, west, first),
        (both, _) => anyhow::bail!("both let in: {both}; {} {}", first.stderr, second.stderr),
    };
    run.note(format!("{} has it; {} was told: {}", winner.name, loser.name, told.stderr.trim()));
    explained(&told)?;
    let members = run.east().fedctl(["clusters", "-o", "json"]).json().await?;
    let known = members["items"].as_array().into_iter().flatten();
    let known = known.filter(|one| one["name"] == CLAIMED).count();
    ensure!(known == 1, "east knows {known} clusters of that name: {members}");
    Ok((winner, loser))
}

/// It names the name, has a code, and says what to do.
fn explained(told: &Output) -> Result<()> {
    let text = &told.stderr;
    for word in [CLAIMED, "FED", "hint:"] {
        ensure!(text.contains(word), "{word:?} is not in: {text}");
    }
    Ok(())
}

async fn other_name(run: &Run, cluster: &Cluster) -> Result<()> {
    let domain = format!("cluster.trustDomain={}.fedgate.internal", cluster.name);
    helm_upgrade(run, cluster, &chart("fedgate"), &[&domain]).text().await?;
    join_by_token(run.east(), cluster).await?;
    until("east has both", SOON, async || {
        let members = run.east().fedctl(["clusters", "-o", "json"]).json().await?;
        let up = members["items"].as_array().into_iter().flatten();
        let up: Vec<&Value> = up.filter(|one| one["state"] == "Up").collect();
        ensure!(up.len() == 2, "{members}");
        Ok(())
    })
    .await
}

/// No grant names the namespace: whose export the federation had first serves.
async fn claim_service(run: &Run, west: &Cluster, south: &Cluster) -> Result<()> {
    try_join_all([(run.east(), "web"), (west, "api"), (south, "api")].map(
        async |(cluster, part)| {
            namespace(cluster).await?;
            deploy(run, cluster, part, 1).await
        },
    ))
    .await?;
    try_join(export(west, "api", &["east"]), export(south, "api", &["east"])).await?;
    let (first, second) = until("one of them serves", SOON, async || {
        let (west_state, south_state) = (export_state(west).await?, export_state(south).await?);
        match (west_state.as_str(), south_state.as_str()) {
            ("Exported", "ExportedElsewhere") => Ok((west, south)),
            ("ExportedElsewhere", "Exported") => Ok((south, west)),
            both => anyhow::bail!("{both:?}"),
        }
    })
    .await?;
    let told = export_conditions(second).await?;
    run.note(format!("{} serves; {} is told: {}", first.name, second.name, told["Conflict"]));
    let message = told["Conflict"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("FED") && told["Ready"]["status"] == "False", "{told:?}");
    let url = format!("http://{}/", imported("api"));
    answered_by((run.east(), "web"), &url, first.name, SOON).await?;
    let delete = ["delete", "serviceexport", "api", "--namespace", SHOP];
    first.kubectl(delete).text().await?;
    let object = ("serviceexport/api", "/status/conditions");
    condition(second, object, "Ready", ("True", "Exported")).await?;
    answered_by((run.east(), "web"), &url, second.name, SOON).await.map(drop)
}

/// The reason of Conflict where it is true, else that of Ready.
async fn export_state(cluster: &Cluster) -> Result<String> {
    let told = export_conditions(cluster).await?;
    let of = if told["Conflict"]["status"] == "True" { "Conflict" } else { "Ready" };
    Ok(told[of]["reason"].as_str().unwrap_or_default().to_owned())
}

async fn export_conditions(cluster: &Cluster) -> Result<serde_json::Map<String, Value>> {
    let export = cluster.get(["serviceexport", "api", "--namespace", SHOP]).await?;
    let conditions = export["status"]["conditions"].as_array().context("no conditions yet")?;
    let by_type = |one: &Value| (one["type"].as_str().unwrap_or_default().into(), one.clone());
    Ok(conditions.iter().map(by_type).collect())
}
