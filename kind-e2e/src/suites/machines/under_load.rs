//! What applications in south see of what is done to the machines: they call west's web server all the
//! time, by a new connection each.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::super::federated::{Load, load_words};
use super::{GATEWAY, NODE, SOON, URL, World};
use crate::debian::Debian;
use crate::run::{throughout, until};

/// A load ends when it is told to.
const LOAD_MAX: Duration = Duration::from_secs(300);
/// How long calls are looked at before and after what is done.
const BESIDE: Duration = Duration::from_secs(2);
/// How long one gateway of a cluster may be away for its restart. It has nothing to wait for.
const GAP_MAX: Duration = Duration::from_secs(5);
/// A download that takes some seconds, and its pace.
const DOWNLOAD_MB: u32 = 64;
const DOWNLOAD_PACE: &str = "8M";

pub(super) async fn restarts(world: &World<'_>) -> Result<()> {
    let run = world.run;
    run.step("systemctl restart of west's node: no request fails", async {
        let load = during(world, again(&world.west, "restart", NODE)).await?;
        load.none_failed("while west's node was restarted")
    })
    .await?;
    run.step("systemctl restart of west's gateway: a short gap, nothing torn", async {
        during(world, again(&world.west, "restart", GATEWAY)).await.and_then(|load| gap(&load))
    })
    .await?;
    run.step("systemctl restart of south's own gateway: the same", async {
        during(world, again(&world.south, "restart", GATEWAY)).await.and_then(|load| gap(&load))
    })
    .await
}

pub(super) async fn kills(world: &World<'_>) -> Result<()> {
    let run = world.run;
    run.step("kill -9 of west's node: no request fails, and it is back", async {
        let load = during(world, killed(&world.west, NODE)).await?;
        load.none_failed("while west's node was killed")
    })
    .await?;
    run.step("kill -9 of west's gateway: systemd has it back", async {
        during(world, killed(&world.west, GATEWAY)).await.map(drop)
    })
    .await
}

/// East founded the federation; south's calls to west are none of its business.
pub(super) async fn reboot(world: &World<'_>) -> Result<()> {
    let work = async {
        let load = during(world, async {
            let hosts = world.east.run("grep clusterset.local /etc/hosts").await?;
            world.east.reboot().await?;
            // Docker writes that file anew.
            world.east.run(&format!("echo '{}' >>/etc/hosts", hosts.trim())).await?;
            super::services::ready_on(&world.east).await?;
            world.until_answer(&world.east).await
        });
        load.await?.none_failed("while east was rebooted")
    };
    world.run.step("east reboots: all is back, and no request in south fails", work).await
}

pub(super) async fn upgrade(world: &World<'_>) -> Result<()> {
    let load = during(world, world.follow("Upgrade", &["hello from west"])).await?;
    let check = async {
        gap(&load)?;
        let version = "dpkg-query --show --showformat '${Version}' fedgate";
        let version = world.west.run(version).await?;
        ensure!(version == "1.0~2", "{version}");
        super::services::ready_on(&world.west).await
    };
    world.run.step("the upgrade had a short gap, and nothing torn", check).await
}

/// A download through west's gateway is whole, although the gateway was stopped in the middle of it.
pub(super) async fn drain(world: &World<'_>) -> Result<()> {
    let (west, south) = (&world.west, &world.south);
    west.run(&format!("head -c {DOWNLOAD_MB}M /dev/urandom >/srv/web/large")).await?;
    let sum = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
    let whole = sum(&west.run("sha256sum /srv/web/large").await?);
    let script = format!(
        "curl --silent --fail --limit-rate {DOWNLOAD_PACE} --output /tmp/large {URL}large
        sha256sum /tmp/large"
    );
    let download = south.command(&script).timeout(SOON).text();
    let stop = async {
        until("the download has begun", SOON, async || {
            let size = south.run("stat --format=%s /tmp/large").await?;
            ensure!(size.trim().parse::<u64>()? > 1 << 20, "{size}");
            Ok(())
        })
        .await?;
        let begun = Instant::now();
        west.run(&format!("systemctl stop {GATEWAY}")).await?;
        anyhow::Ok(begun.elapsed())
    };
    let (got, took) = tokio::try_join!(download, stop)?;
    ensure!(sum(&got) == whole, "the download is not what west has: {got}");
    ensure!(took > Duration::from_secs(1), "the gateway waited for nothing: {took:?}");
    world.run.note(format!("it waited {:.1} s for {DOWNLOAD_MB} MiB", took.as_secs_f64()));
    let service = west.service(GATEWAY).await?;
    service.expect(&[
        ("ActiveState", "inactive"),
        ("Result", "success"),
        ("ExecMainStatus", "0"),
    ])?;
    west.run(&format!("systemctl start {GATEWAY}; rm /srv/web/large")).await?;
    world.until_answer(south).await
}

/// Calls from south while something is done, which has to leave west's web server answering.
async fn during(world: &World<'_>, event: impl Future<Output = Result<()>>) -> Result<Load> {
    let south = &world.south;
    let start = ["systemd-run", "--unit=load", "--quiet", "--wait", "--pipe", "--collect"];
    let words = load_words(URL, LOAD_MAX);
    let words = words.iter().map(String::as_str);
    let words: Vec<&str> = start.into_iter().chain(["testapp"]).chain(words).collect();
    let call = south.exec(&words).timeout(LOAD_MAX * 2);
    let calls = || throughout("calls are answered", BESIDE, async || world.answer(south).await);
    let event = async {
        until("the load runs", SOON, async || {
            south.service("load.service").await?.expect(&[("ActiveState", "active")])
        })
        .await?;
        let done = async {
            calls().await?;
            event.await?;
            world.until_answer(south).await?;
            calls().await
        };
        let done = done.await;
        south.run("systemctl kill --signal=SIGTERM load.service").await?;
        done
    };
    Load::of(world.run, call, event).await
}

/// The only gateway of a machine was away for a moment: new requests had no way, and none that had
/// begun to be answered was cut off.
fn gap(load: &Load) -> Result<()> {
    let torn = ["truncated", "reset", "timed_out", "other"].map(|field| load.count(field));
    ensure!(torn == [0; 4], "torn answers: {}", load.0);
    let gap = Duration::from_millis(load.count("longest_gap_ms"));
    ensure!(gap < GAP_MAX, "no request was answered for {gap:?}: {}", load.0);
    Ok(())
}

/// `systemctl` returns when the unit is ready again.
async fn again(machine: &Debian, verb: &str, unit: &str) -> Result<()> {
    let before = machine.service(unit).await?;
    machine.run(&format!("systemctl {verb} {unit}")).await?;
    let after = machine.service(unit).await?;
    let ready = [("ActiveState", "active"), ("SubState", "running"), ("Result", "success")];
    after.expect(&ready)?;
    ensure!(before.get("MainPID") != after.get("MainPID"), "{unit} was not restarted");
    Ok(())
}

async fn killed(machine: &Debian, unit: &str) -> Result<()> {
    let before = machine.service(unit).await?;
    let kill = format!("systemctl kill --signal=SIGKILL --kill-whom=main {unit}");
    machine.run(&kill).await?;
    until(format!("systemd has {unit} back"), SOON, async || {
        let after = machine.service(unit).await?;
        let restarts: u32 = before.get("NRestarts").parse()?;
        let wanted = (restarts + 1).to_string();
        after.expect(&[("ActiveState", "active"), ("NRestarts", &wanted)])
    })
    .await
}
