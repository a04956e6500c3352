//! `docs/guide/two-kind-clusters.md`, run as it stands. Its first command has been run when a suite
//! begins; what it prints for the shell is taken from the same place.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::federated::SOON;
use crate::cluster::Cluster;
use crate::command::Command;
use crate::run::{Run, until};

const PAGE: &str = include_str!("../../../docs/guide/two-kind-clusters.md");
const CLUSTERS: [&str; 2] = ["east", "west"];
/// How the page makes the clusters.
const FIRST: &str = "eval \"$(make --silent e2e-env)\"";
/// How many commands the page may have.
const COMMANDS_MAX: usize = 6;
/// Longest time for one of them.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);

pub(super) async fn run(run: &Run) -> Result<()> {
    let mut commands = commands(PAGE);
    let count = commands.len();
    ensure!(count <= COMMANDS_MAX, "the page promises {COMMANDS_MAX} commands and has {count}");
    ensure!(commands.remove(0) == FIRST, "the page's first command is not `{FIRST}`");
    let shell = run.machine.shell(&CLUSTERS, &run.images)?;
    // Undone from the last to the first: east's import goes with west's export.
    for cluster in [run.east(), run.west()] {
        run.afterwards(format!("the guide's objects in {}", cluster.name), remove(cluster.clone()));
    }
    let begun = Instant::now();
    let mut told = String::new();
    for command in commands {
        let title = command.lines().next().unwrap_or_default();
        told = run.step(title, in_shell(&shell, &command).text()).await?;
    }
    run.note(format!("from the first install to the answer: {} s", begun.elapsed().as_secs()));
    run.step("the answer is west's", async {
        let (status, from) = ("\"status\":200", "\\\"cluster\\\":\\\"west\\\"");
        let told: String = told.split_whitespace().collect();
        ensure!(told.contains(status) && told.contains(from), "the last command printed {told}");
        Ok(())
    })
    .await
}

/// The page's blocks for a shell: each is one command.
fn commands(page: &str) -> Vec<String> {
    let mut lines = page.lines();
    let mut commands = Vec::new();
    while lines.by_ref().any(|line| line == "```sh") {
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        commands.push(block.join("\n"));
    }
    commands
}

/// As a person would type it at the top of this checkout.
fn in_shell(environment: &str, command: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let script = format!("set -euo pipefail\ncd \"$1\"\n{environment}\n{command}\n");
    let call = Command::new("bash").args(["-c", &script, "guide"]).args([root]);
    call.timeout(COMMAND_TIMEOUT)
}

/// The page works in the namespace `default`, which no suite removes.
async fn remove(cluster: Cluster) -> Result<()> {
    let kinds = ["serviceexport/api", "deployment/api", "service/api", "pod/web"];
    let call = cluster.kubectl(["delete", "--ignore-not-found", "--namespace", "default"]);
    call.args(kinds).text().await.context(cluster.name)?;
    until("no import is left", SOON, async || {
        let kinds = "serviceimports,services,endpointslices";
        let label = "app.kubernetes.io/managed-by=fedgate";
        let call = cluster.kubectl(["get", kinds, "--namespace", "default", "-l", label]);
        let left = call.args(["-o", "name"]).text().await?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_six_commands_and_the_first_makes_the_clusters() {
        let commands = commands(PAGE);
        assert!(commands.len() <= COMMANDS_MAX, "{commands:#?}");
        assert_eq!(commands[0], FIRST);
        assert!(commands.iter().all(|command| !command.is_empty()), "{commands:#?}");
    }
}
