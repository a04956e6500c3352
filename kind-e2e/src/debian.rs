//! A Debian machine without Kubernetes: a container whose first process is systemd, with an address of
//! its own in the network that all of them share.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::command::Command;
use crate::limits::MACHINE_IMAGE_TIMEOUT;
use crate::machine::Machine;
use crate::run::until;

/// Where the administrator is.
const HOME: &str = "/root";
/// What is before each name, so that no other container has it.
const PREFIX: &str = "fedgate-machine-";
/// A shell does not end for `! command`.
const NO: &str = "no() { ! \"$@\" || { echo \"this works and should not: $*\"; exit 1; }; }";
/// Longest time from the container's start until everything that systemd starts is there.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// Names and addresses, as docs/guide/three-machines.md has them.
pub const MACHINES: [(&str, &str); 3] =
    [("east", "192.0.2.1"), ("west", "198.51.100.1"), ("south", "203.0.113.1")];
const NETWORKS: &str = "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24";

/// A machine that was started.
#[derive(Clone, Debug)]
pub struct Debian {
    pub name: &'static str,
    pub address: &'static str,
    host: Machine,
}

/// A service's properties, as `systemctl show` has them.
#[derive(Debug)]
pub struct Service(BTreeMap<String, String>);

impl Debian {
    /// Starts the three in place of what an earlier run left, and waits until each is up.
    pub async fn start_all(host: &Machine) -> Result<[Self; 3]> {
        let image = host.machine_image(MACHINE_IMAGE_TIMEOUT).await?;
        let machines = MACHINES.map(|(name, address)| Self { name, address, host: host.clone() });
        for machine in &machines {
            machine.remove().await?;
            machine.start(&image).await?;
        }
        for machine in &machines {
            machine.until_up().await?;
        }
        Ok(machines)
    }

    async fn start(&self, image: &str) -> Result<()> {
        let call = self.host.docker().args(["run", "--detach", "--privileged"]);
        let call = call.args(["--name", &self.container(), "--hostname", self.name]);
        let call = call.args(["--network", &self.host.network, "--cgroupns", "private"]);
        let call = call.args(["--security-opt", "seccomp=unconfined"]);
        let call = call.args(["--security-opt", "apparmor=unconfined"]);
        let call = call.args(["--tmpfs", "/run", "--tmpfs", "/tmp"]);
        let call = call.args(["--env", &format!("ADDRESS={}", self.address)]);
        let call = call.args(["--env", &format!("NETWORKS={NETWORKS}"), image]);
        call.text().await.map(drop)
    }

    /// As after `reboot`.
    pub async fn reboot(&self) -> Result<()> {
        let call = self.host.docker().args(["restart", "--time", "50", &self.container()]);
        call.timeout(BOOT_LIMIT).text().await?;
        self.until_up().await
    }

    async fn until_up(&self) -> Result<()> {
        until(format!("{} is up", self.name), BOOT_LIMIT, async || {
            let output = self.command("systemctl is-system-running || true").output().await?;
            let state = output.stdout.trim();
            ensure!(state == "running", "systemd says: {state} {}", output.last_words());
            Ok(())
        })
        .await
    }

    /// With everything on it.
    pub async fn remove(&self) -> Result<()> {
        let call = self.host.docker().args(["rm", "--force", "--volumes", &self.container()]);
        let output = call.output().await?;
        let absent = output.stderr.contains("No such container");
        ensure!(output.status.success() || absent, "{}", output.last_words());
        Ok(())
    }

    /// Commands of the administrator's, until one fails, or one after the word `no` works. What goes on
    /// in the background does not keep the call from ending.
    pub fn command(&self, commands: &str) -> Command {
        let commands = format!("{NO}\n{commands}");
        let whole = "told=$(mktemp); code=0; bash -euo pipefail -c \"$1\" >$told 2>&1 || code=$?
            cat $told; rm $told; exit $code";
        self.exec(&["bash", "-c", whole, "administrator", &commands])
    }

    /// Runs them, and returns what they print.
    pub async fn run(&self, commands: &str) -> Result<String> {
        self.command(commands).text().await.with_context(|| self.name)
    }

    /// A program whose output is passed on as it is.
    pub fn exec(&self, words: &[&str]) -> Command {
        let call = self.host.docker().args(["exec", "--interactive", "--workdir", HOME]);
        let call = call.args(["--env", "HOME=/root", "--env", "DEBIAN_FRONTEND=noninteractive"]);
        call.args([&self.container()]).args(words)
    }

    /// A file in the administrator's home folder, or at a path.
    pub async fn write(&self, path: &str, text: &str) -> Result<()> {
        let call = self.exec(&["sh", "-c", "umask 077; cat >\"$1\"", "write", path]).input(text);
        call.text().await.map(drop).with_context(|| format!("{}: {path}", self.name))
    }

    /// Copies a file of this host into a folder there.
    pub async fn receive(&self, file: &Path, folder: &str) -> Result<()> {
        let target = format!("{}:{folder}/", self.container());
        let call = self.host.docker().args(["cp", "--quiet"]).args([file]).args([target]);
        call.text().await.map(drop)
    }

    /// What systemd knows about a unit.
    pub async fn service(&self, unit: &str) -> Result<Service> {
        let text = self.exec(&["systemctl", "show", unit]).text().await?;
        let fields = text.lines().filter_map(|line| line.split_once('='));
        Ok(Service(fields.map(|(name, value)| (name.into(), value.into())).collect()))
    }

    /// What the journal has of a unit's present start, one object a line.
    pub async fn journal(&self, unit: &str) -> Result<String> {
        let id = self.service(unit).await?.get("InvocationID").to_owned();
        let this = format!("_SYSTEMD_INVOCATION_ID={id}");
        self.exec(&["journalctl", "--no-pager", "--output", "json", &this]).text().await
    }

    /// Waits until a unit's log has a line with this.
    pub async fn until_logged(&self, unit: &str, since: &str, sign: &str) -> Result<()> {
        let limit = BOOT_LIMIT;
        until(format!("{}: {unit} logs {sign:?}", self.name), limit, async || {
            let since = format!("--since=@{since}");
            let call = self.exec(&["journalctl", "--no-pager", "--unit", unit, &since]);
            let text = call.text().await?;
            ensure!(text.contains(sign), "{text}");
            Ok(())
        })
        .await
    }

    /// The time there, in seconds.
    pub async fn now(&self) -> Result<String> {
        Ok(self.exec(&["date", "+%s.%6N"]).text().await?.trim().to_owned())
    }

    /// Everything that a person would look at first.
    pub async fn evidence(&self) -> Result<String> {
        let look = "systemctl --no-pager --full status 'fedgate-*' || true
            dpkg --list fedgate || true; ls -lR /etc/fedgate /var/lib/fedgate || true
            journalctl --no-pager --output short-precise";
        let output = self.command(look).timeout(BOOT_LIMIT).output().await?;
        Ok(output.stdout + &output.stderr)
    }

    fn container(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }
}

impl Service {
    /// Empty if there is no such property.
    pub fn get(&self, property: &str) -> &str {
        self.0.get(property).map_or("", String::as_str)
    }

    /// Fails unless each property has its value.
    pub fn expect(&self, wanted: &[(&str, &str)]) -> Result<()> {
        let wrong: Vec<String> = wanted
            .iter()
            .filter(|(name, value)| self.get(name) != *value)
            .map(|(name, value)| format!("{name} is {:?}, not {value:?}", self.get(name)))
            .collect();
        let id = self.get("Id");
        ensure!(wrong.is_empty(), "{id}: {}; {}", wrong.join(", "), self.get("StatusText"));
        Ok(())
    }
}
