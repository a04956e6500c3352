//! The units as systemd runs them: readiness, walls, journal, files, standstill, packages.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::Value;

use super::{GATEWAY, NODE, SOON, UNITS, World};
use crate::debian::Debian;
use crate::run::until;

/// systemd's judgement, from 0 (all that can be closed is closed) to 10, times ten.
const EXPOSURE_MAX: u32 = 20;
/// Longer than `WatchdogSec=` and a restart.
const WATCHDOG_LIMIT: Duration = Duration::from_secs(90);

/// Installed and enabled, and not failed either.
pub(super) async fn none_runs(world: &World<'_>) -> Result<()> {
    for machine in world.machines() {
        for unit in UNITS {
            let idle = [
                ("ActiveState", "inactive"),
                ("ConditionResult", "no"),
                ("UnitFileState", "enabled"),
            ];
            machine.service(unit).await?.expect(&idle).context(machine.name)?;
        }
        machine.run("id fedgate; no pgrep fedgate").await?;
    }
    Ok(())
}

pub(super) async fn ready(world: &World<'_>) -> Result<()> {
    try_join_all(world.machines().map(ready_on)).await.map(drop)
}

/// Ready by what the daemons said themselves, at the first try.
pub(super) async fn ready_on(machine: &Debian) -> Result<()> {
    for unit in UNITS {
        let service = machine.service(unit).await?;
        let ready = [
            ("Type", "notify"),
            ("ActiveState", "active"),
            ("SubState", "running"),
            ("Result", "success"),
            ("NRestarts", "0"),
            ("WatchdogUSec", "30s"),
        ];
        service.expect(&ready).context(machine.name)?;
        let status = service.get("StatusText");
        ensure!(!status.is_empty(), "{}: {unit} has no status", machine.name);
        ensure!(unit != GATEWAY || status == "ready", "{}: {unit}: {status}", machine.name);
    }
    Ok(())
}

/// What the units forbid cannot be done from within them, and what the daemons need works.
pub(super) async fn walls(world: &World<'_>) -> Result<()> {
    let west = &world.west;
    let uid = west.run("id --user fedgate").await?.trim().to_owned();
    for (unit, capabilities, own, other) in [
        (NODE, "0000000000000000", "federation", "gateway"),
        (GATEWAY, "0000000000000400", "gateway", "federation"),
    ] {
        let pid = west.service(unit).await?.get("MainPID").to_owned();
        let status = west.run(&format!("cat /proc/{pid}/status")).await?;
        let ids = format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}");
        let effective = format!("CapEff:\t{capabilities}");
        for line in [&*ids, &effective, "NoNewPrivs:\t1", "Seccomp:\t2"] {
            ensure!(status.lines().any(|found| found == line), "{unit}: no {line}: {status}");
        }
        let script = format!(
            "as_daemon() {{
                nsenter --target {pid} --mount -- \\
                    setpriv --reuid fedgate --regid fedgate --clear-groups \"$@\"
            }}
            test -n \"$(ls /var/lib/fedgate/{own} /var/lib/fedgate/{other})\"
            as_daemon touch /var/lib/fedgate/{own}/touched
            rm /var/lib/fedgate/{own}/touched
            no as_daemon ls /var/lib/fedgate/{other}
            for path in /etc/fedgate /usr/bin /var/lib/fedgate; do
                no nsenter --target {pid} --mount -- touch $path/touched
            done
            no as_daemon test -e /dev/mem
            no as_daemon ls /root
            systemd-analyze security --no-pager --threshold={EXPOSURE_MAX} {unit}"
        );
        west.run(&script).await.context(unit)?;
    }
    // A port below 1024, and the tunnel's, are the gateway's.
    let south = &world.south;
    let listeners = south.run("ss --tcp --udp --listening --numeric --processes").await?;
    for port in [":80 ", ":8443 "] {
        let ours = |line: &str| line.contains(port) && line.contains("fedgate-gateway");
        ensure!(listeners.lines().any(ours), "nobody listens at {port}: {listeners}");
    }
    Ok(())
}

/// Text lines have their level as the journal's priority; so have JSON lines, which are objects.
pub(super) async fn journal(world: &World<'_>) -> Result<()> {
    let east = &world.east;
    for unit in UNITS {
        let lines = lines(east, unit).await?;
        ensure!(!lines.is_empty(), "{unit} wrote nothing");
        for (priority, message) in &lines {
            let level = message.split_whitespace().next().unwrap_or_default();
            ensure!(priority_of(level) == Some(priority), "{unit}: {priority}: {message}");
        }
        let name = unit.trim_end_matches(".service");
        east.run(&format!(
            "sed -i 's/^#FEDGATE_LOG_FORMAT=.*/FEDGATE_LOG_FORMAT=json/' /etc/default/{name}
            systemctl restart {unit}"
        ))
        .await?;
    }
    for unit in UNITS {
        let lines = lines(east, unit).await?;
        ensure!(!lines.is_empty(), "{unit} wrote no JSON");
        for (priority, message) in &lines {
            let line: Value =
                serde_json::from_str(message).with_context(|| format!("{unit}: {message}"))?;
            let level = line["level"].as_str().unwrap_or_default();
            ensure!(priority_of(level) == Some(priority), "{unit}: {priority}: {message}");
            ensure!(line["fields"]["message"].is_string(), "{unit}: {message}");
        }
    }
    world.until_answer(east).await
}

/// Priority and message of each line of a daemon's own, since its last start.
async fn lines(machine: &Debian, unit: &str) -> Result<Vec<(String, String)>> {
    let journal = machine.journal(unit).await?;
    let mut lines = Vec::new();
    for line in journal.lines() {
        let entry: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let field = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        if field("_TRANSPORT") == "stdout" {
            lines.push((field("PRIORITY"), field("MESSAGE")));
        }
    }
    Ok(lines)
}

fn priority_of(level: &str) -> Option<&'static str> {
    match level {
        "ERROR" => Some("3"),
        "WARN" => Some("4"),
        "INFO" => Some("6"),
        "DEBUG" | "TRACE" => Some("7"),
        _ => None,
    }
}

/// Without `systemctl reload`.
pub(super) async fn file(world: &World<'_>) -> Result<()> {
    let south = &world.south;
    let path = "/etc/fedgate/gateway.yaml";
    let pid = south.service(GATEWAY).await?.get("MainPID").to_owned();
    let since = south.now().await?;
    south.run(&format!("cp {path} {path}.before; echo 'log: {{level: debug}}' >>{path}")).await?;
    south.until_logged(GATEWAY, &since, "configuration read again").await?;
    south.until_logged(GATEWAY, &since, "DEBUG").await?;
    let since = south.now().await?;
    south.run(&format!("echo 'nonsense: true' >>{path}")).await?;
    south.until_logged(GATEWAY, &since, "nonsense").await?;
    let since = south.now().await?;
    south.run(&format!("mv {path}.before {path}")).await?;
    south.until_logged(GATEWAY, &since, "configuration read again").await?;
    let service = south.service(GATEWAY).await?;
    service.expect(&[("ActiveState", "active"), ("MainPID", &pid)])?;
    world.until_answer(south).await
}

/// Another start would not mend it, so systemd does not try one.
pub(super) async fn mistake(world: &World<'_>) -> Result<()> {
    let east = &world.east;
    for (unit, file) in
        [(NODE, "/etc/fedgate/federation.yaml"), (GATEWAY, "/etc/fedgate/gateway.yaml")]
    {
        let since = east.now().await?;
        let broken = format!(
            "cp {file} {file}.before; sed -i 's/^cluster:.*/cluster: Not_A_Name/' {file}
            no systemctl restart {unit}"
        );
        east.run(&broken).await?;
        let failed = [
            ("ActiveState", "failed"),
            ("Result", "exit-code"),
            ("ExecMainStatus", "2"),
            ("NRestarts", "0"),
        ];
        east.service(unit).await?.expect(&failed)?;
        east.until_logged(unit, &since, "Not_A_Name").await?;
        east.run(&format!("mv {file}.before {file}; systemctl start {unit}")).await?;
    }
    ready_on(east).await?;
    world.until_answer(east).await
}

/// `WatchdogSec=`, at both daemons at once.
pub(super) async fn standstill(world: &World<'_>) -> Result<()> {
    let east = &world.east;
    east.run("systemctl kill --signal=SIGSTOP fedgate-federation fedgate-gateway").await?;
    for unit in UNITS {
        until(format!("systemd starts {unit} again"), WATCHDOG_LIMIT, async || {
            let service = east.service(unit).await?;
            service.expect(&[("ActiveState", "active"), ("NRestarts", "1")])
        })
        .await?;
        east.until_logged(unit, "0", "Watchdog timeout").await?;
    }
    world.until_answer(east).await
}

/// logrotate copies the log and empties it; the gateway has it open all the time.
pub(super) async fn rotated(world: &World<'_>) -> Result<()> {
    let west = &world.west;
    let rotate = "cd /var/log/fedgate
        test -s access.log
        before=$(wc --lines <access.log)
        logrotate --force /etc/logrotate.d/fedgate
        test \"$(wc --lines <access.log.1)\" -ge $before
        stat --format='%U %a' access.log.1";
    let told = west.run(rotate).await?;
    ensure!(told == "fedgate 600\n", "{told}");
    world.until_answer(&world.south).await?;
    until("the access log has a whole first line", SOON, async || {
        let first = west.run("head --lines 1 /var/log/fedgate/access.log").await?;
        let line: Value = serde_json::from_str(&first)?;
        ensure!(line.is_object(), "{first}");
        Ok(())
    })
    .await
}

/// Configuration, settings of the administrator's, keys, and the federation that it is in.
pub(super) async fn again(world: &World<'_>) -> Result<()> {
    let east = &world.east;
    let keep = "cat /etc/fedgate/*.yaml /etc/fedgate/manifests/* /etc/default/fedgate-*
        cd /var/lib/fedgate
        sha256sum federation/ca/ca.key federation/federation-key/key federation/contacts/federation";
    let before = east.run(keep).await?;
    east.run("dpkg -i fedgate_*.deb").await?;
    let after = east.run(keep).await?;
    ensure!(before == after, "before: {before}\nafter: {after}");
    ready_on(east).await?;
    world.until_answer(east).await
}

pub(super) async fn purged(world: &World<'_>) -> Result<()> {
    let left = "no pgrep fedgate
        no ls -d /var/lib/fedgate /var/log/fedgate /run/fedgate /usr/bin/fedctl /etc/default/fedgate-gateway
        no ls /etc/systemd/system/*fedgate* /etc/systemd/system/*/*fedgate* /usr/lib/systemd/system/fedgate*
        test -s /etc/fedgate/federation.yaml; test -s /etc/fedgate/manifests/web.yaml
        test \"$(systemctl is-system-running)\" = running";
    world.south.run(left).await.map(drop)
}

/// The same cluster comes back, without being asked anything.
pub(super) async fn removed(world: &World<'_>) -> Result<()> {
    let east = &world.east;
    let removed = "apt remove -y fedgate
        no pgrep fedgate
        test -d /var/lib/fedgate/federation/ca; test -s /etc/fedgate/federation.yaml
        no systemctl start fedgate-gateway";
    east.run(removed).await?;
    east.run("apt install -y ./fedgate_*.deb").await?;
    ready_on(east).await?;
    world.until_answer(east).await
}
