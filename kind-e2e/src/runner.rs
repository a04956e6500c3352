//! Runs suites one after another, and leaves the clusters as they were, also after a panic, a hang or
//! Ctrl-C.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::FutureExt as _;
use futures_util::future::try_join_all;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::cluster::{Cluster, SUITE_LABEL, SYSTEM_NAMESPACE};
use crate::limits::SUITE_TIMEOUT;
use crate::machine::{Images, Machine};
use crate::report;
use crate::run::Run;
use crate::suites::Suite;

/// Whether suites stopped because somebody asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Finished,
    Interrupted,
}

/// Runs all of them. A suite that fails does not keep the next from running; an interrupt does.
pub async fn run(
    machine: &Machine,
    images: &Images,
    suites: &[&'static Suite],
    keep: bool,
) -> Result<()> {
    let mut interrupts = Interrupts::listen()?;
    let mut failed = Vec::new();
    for suite in suites {
        let (passed, ending) = run_one(machine, images, suite, keep, &mut interrupts).await;
        if !passed {
            failed.push(suite.name);
        }
        if ending == Ending::Interrupted {
            bail!("interrupted in {}", suite.name);
        }
    }
    report::line(&format!("\n{} of {} suites passed", suites.len() - failed.len(), suites.len()));
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

async fn run_one(
    machine: &Machine,
    images: &Images,
    suite: &Suite,
    keep: bool,
    interrupts: &mut Interrupts,
) -> (bool, Ending) {
    report::heading(suite.name, suite.about);
    let started = Instant::now();
    let run = Run::new(machine.clone(), images.clone());
    let mut ending = Ending::Finished;
    let result = tokio::select! {
        result = work(suite, &run) => result,
        () = interrupts.next() => {
            ending = Ending::Interrupted;
            Err(anyhow!("interrupted"))
        }
    };
    let mut passed = result.is_ok();
    if let Err(error) = &result {
        report::line(&format!("\n{}: FAILED: {error:#}", suite.name));
        if ending == Ending::Finished && suite.clusters {
            keep_evidence(&run, suite).await;
        }
    }
    if keep {
        report::line("left as it is, because --keep asks for it; the next run cleans it");
    } else if let Err(error) = tear_down(suite, &run).await {
        passed = false;
        report::line(&format!("{}: the clusters are not clean: {error:#}", suite.name));
    }
    if passed {
        let took = started.elapsed().as_secs_f64();
        report::line(&format!("{}: passed, {} steps, {took:.0} s", suite.name, run.step_count()));
    }
    (passed, ending)
}

/// What an earlier run left is removed first: a run that was killed could not.
async fn work(suite: &Suite, run: &Run) -> Result<()> {
    clean(suite, run).await.context("what an earlier run left could not be removed")?;
    let suite = AssertUnwindSafe((suite.run)(run)).catch_unwind();
    match tokio::time::timeout(SUITE_TIMEOUT, suite).await {
        Ok(Ok(result)) => result,
        // The hook has shown its words and place already.
        Ok(Err(_)) => bail!("it panicked"),
        Err(_) => bail!("it took longer than {} s", SUITE_TIMEOUT.as_secs()),
    }
}

async fn tear_down(suite: &Suite, run: &Run) -> Result<()> {
    let mut failures = run.undo().await;
    if let Err(error) = clean(suite, run).await {
        failures.push(format!("{error:#}"));
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
}

async fn clean(suite: &Suite, run: &Run) -> Result<()> {
    if !suite.clusters {
        return Ok(());
    }
    try_join_all(
        run.clusters()
            .iter()
            .map(|cluster| async { cluster.clean().await.with_context(|| cluster.name) }),
    )
    .await
    .map(drop)
}

/// Writes what a person would look at first to files, before it is removed.
async fn keep_evidence(run: &Run, suite: &Suite) {
    let folder = run.machine.cache.join("failures").join(suite.name);
    let _absent = tokio::fs::remove_dir_all(&folder).await;
    for cluster in run.clusters() {
        if let Err(error) = write_evidence(cluster, folder.join(cluster.name)).await {
            report::line(&format!("no evidence from {}: {error:#}", cluster.name));
        }
    }
    report::line(&format!("objects, events and logs of all clusters are in {}", folder.display()));
}

async fn write_evidence(cluster: &Cluster, folder: PathBuf) -> Result<()> {
    tokio::fs::create_dir_all(&folder).await?;
    let views: [(&str, &[&str]); 3] = [
        ("pods", &["get", "pods", "--all-namespaces", "--output", "wide"]),
        ("events", &["get", "events", "--all-namespaces", "--sort-by", ".lastTimestamp"]),
        (
            "objects.yaml",
            &[
                "get",
                "serviceexports,serviceimports,services,endpointslices,gateways,httproutes",
                "--all-namespaces",
                "--output",
                "yaml",
            ],
        ),
    ];
    for (name, arguments) in views {
        let output = cluster.kubectl(arguments.iter().copied()).output().await?;
        tokio::fs::write(folder.join(name), output.stdout + &output.stderr).await?;
    }
    for namespace in suite_namespaces(cluster).await? {
        let pods = cluster
            .kubectl(["get", "pods", "--namespace", &namespace, "--output", "name"])
            .text()
            .await?;
        for pod in pods.lines() {
            let call =
                cluster.kubectl(["logs", "--all-containers", "--namespace", &namespace, pod]);
            let output = call.output().await?;
            let file = format!("{namespace}-{}.log", pod.trim_start_matches("pod/"));
            tokio::fs::write(folder.join(file), output.stdout + &output.stderr).await?;
        }
    }
    Ok(())
}

async fn suite_namespaces(cluster: &Cluster) -> Result<Vec<String>> {
    let call =
        cluster.kubectl(["get", "namespaces", "--selector", SUITE_LABEL, "--output", "name"]);
    let listed = call.text().await?;
    let names = listed.lines().map(|line| line.trim_start_matches("namespace/").to_owned());
    Ok(names.chain([SYSTEM_NAMESPACE.to_owned()]).collect())
}

/// Ctrl-C, and what `timeout` sends.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn listen() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
