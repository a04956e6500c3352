//! Joining as users meet it: tokens that do not work, a cluster that leaves and comes back under its
//! name, and two clusters that claim one name.

use anyhow::{Result, ensure};

use super::federated::{
    SOON, connected, deploy, export, found, imported, install_all, join, namespace, token,
};
use crate::cluster::Cluster;
use crate::run::{Run, until};

/// What `fedctl` answers when something was denied, is unhealthy or failed.
const EXIT_FAILED: i32 = 1;

pub(super) async fn run(run: &Run) -> Result<()> {
    run.step("helm install in each cluster", install_all(run)).await?;
    run.step("east founds the federation", found(run.east())).await?;
    run.step("a token that was altered is refused", altered(run)).await?;
    run.step("a token that was revoked is refused", revoked(run)).await?;
    run.step("a token for another name is refused", other_name(run)).await?;
    run.step("a token is used once", used(run)).await?;
    run.step("nobody else can have the name of a member", name_taken(run)).await?;
    run.step("south joins, and all are connected", async {
        join(run.east(), run.south()).await?;
        connected(run.clusters()).await
    })
    .await?;
    run.step("west leaves and joins again under its name, and is reached", rejoin(run)).await
}

/// `fedctl join` must fail, say a code and what to do, and change nothing.
async fn refused(joiner: &Cluster, token: &str, words: &[&str]) -> Result<()> {
    let output = joiner.fedctl(["join", "-"]).input(token).output().await?;
    let told = &output.stderr;
    ensure!(output.status.code() == Some(EXIT_FAILED), "{:?}: {told}", output.status.code());
    ensure!(told.contains("error:") && told.contains("hint:"), "{told}");
    for word in words {
        ensure!(told.contains(word), "{word:?} is not in: {told}");
    }
    let members = joiner.fedctl(["clusters", "-o", "json"]).json().await?;
    // The cluster itself is listed too.
    let known = members["items"].as_array().map_or(0, Vec::len);
    ensure!(known <= 1, "it has joined: {members}");
    Ok(())
}

async fn altered(run: &Run) -> Result<()> {
    let token = token(run.east(), "west").await?;
    let token = token.trim();
    // In the middle, where the secret or a pin is, whatever it is.
    let middle = token.len() / 2;
    let other = if &token[middle..=middle] == "A" { "B" } else { "A" };
    let altered = format!("{}{other}{}", &token[..middle], &token[middle + 1..]);
    let output = run.west().fedctl(["join", "-"]).input(altered).output().await?;
    ensure!(!output.status.success(), "an altered token was taken: {}", output.stdout);
    ensure!(output.stderr.contains("error:"), "{}", output.stderr);
    Ok(())
}

async fn revoked(run: &Run) -> Result<()> {
    let token = token(run.east(), "west").await?;
    let listed = run.east().fedctl(["token", "list", "-o", "json"]).json().await?;
    for one in listed["items"].as_array().into_iter().flatten() {
        let id = one["id"].as_str().unwrap_or_default();
        run.east().fedctl(["token", "revoke", id]).text().await?;
    }
    refused(run.west(), &token, &["revoked"]).await
}

async fn other_name(run: &Run) -> Result<()> {
    let token = token(run.east(), "elsewhere").await?;
    refused(run.west(), &token, &["elsewhere", "west"]).await
}

async fn used(run: &Run) -> Result<()> {
    let token = token(run.east(), "west").await?;
    run.west().fedctl(["join", "-"]).input(token.clone()).text().await?;
    // South's name is another anyway; that it is west's token and used is what it is told first.
    let output = run.south().fedctl(["join", "-"]).input(token).output().await?;
    ensure!(!output.status.success(), "a used token was taken: {}", output.stdout);
    Ok(())
}

async fn name_taken(run: &Run) -> Result<()> {
    let output = run.east().fedctl(["token", "issue", "west"]).output().await?;
    ensure!(!output.status.success(), "a token for the name of a member: {}", output.stdout);
    ensure!(output.stderr.contains("west"), "{}", output.stderr);
    Ok(())
}

async fn rejoin(run: &Run) -> Result<()> {
    for (cluster, part) in [(run.east(), "web"), (run.west(), "api")] {
        namespace(cluster).await?;
        deploy(run, cluster, part, 1).await?;
    }
    export(run.west(), "api", &["east"]).await?;
    let url = format!("http://{}/", imported("api"));
    let api = async || {
        super::federated::answered_by((run.east(), "web"), &url, "west", SOON).await.map(drop)
    };
    api().await?;
    run.west().fedctl(["leave", "--yes"]).text().await?;
    until("east does not know west any more", SOON, async || {
        let members = run.east().fedctl(["clusters", "-o", "json"]).json().await?;
        ensure!(!members.to_string().contains("\"west\""), "{members}");
        Ok(())
    })
    .await?;
    join(run.east(), run.west()).await?;
    connected(run.clusters()).await?;
    api().await
}
