//! A machine of the test: its own root (what is written is gone with it), its own processes, and a
//! network namespace. It has no init: `systemctl` is a program of ours that runs what a unit says.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::{Process, wait};
use wan::netns::{self, Netns};

const LIMIT: Duration = Duration::from_secs(30);
/// Where the administrator is.
const HOME: &str = "/root";
const SCRIPT: &str = include_str!("machine.sh");
const STAND_IN: &str = include_str!("systemctl.py");

/// Ends with all its processes when dropped.
pub(crate) struct Machine {
    pub(crate) name: String,
    folder: PathBuf,
    /// Its first process, as this machine numbers it.
    first: u32,
    _unshare: Process,
}

/// Why there can be no such machine here.
pub(crate) fn unavailable() -> Option<&'static str> {
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    netns::unavailable().or_else(|| {
        let wanted = ["unshare", "nsenter", "setpriv", "dpkg", "systemd-sysusers"];
        (!wanted.into_iter().all(has)).then_some("needs Debian with systemd's programs")
    })
}

impl Machine {
    pub(crate) fn start(name: &str, netns: &Netns, folder: &Path) -> Self {
        let folder = folder.join(name);
        std::fs::create_dir_all(folder.join("layer")).unwrap();
        for (file, text) in [("machine.sh", SCRIPT), ("systemctl.py", STAND_IN)] {
            std::fs::write(folder.join(file), text).unwrap();
        }
        let path = |name: &str| folder.join(name).display().to_string();
        let log = folder.join("machine.log");
        let arguments = [
            "--mount".into(),
            "--pid".into(),
            "--fork".into(),
            "--kill-child".into(),
            "sh".into(),
            path("machine.sh"),
            path("layer"),
            path("systemctl.py"),
        ];
        let mut unshare =
            Process::start(name, "unshare", &arguments, Some(netns.name()), &log).unwrap();
        let first = wait::until(&format!("{name} to be up"), LIMIT, || {
            assert!(unshare.is_running(), "{}", unshare.output());
            unshare.output().contains("the machine is up").then_some(())?;
            let id = unshare.id();
            let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
            children.ok()?.trim().parse().ok()
        });
        Self { name: name.into(), folder, first, _unshare: unshare }
    }

    /// A file of the machine's, for this one.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.first))
    }

    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        std::fs::write(self.path(path), text).unwrap();
    }

    /// A file in the administrator's home folder.
    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.path(HOME).join(name)
    }

    /// Copies a file there.
    pub(crate) fn receive(&self, file: &Path) {
        let name = file.file_name().unwrap().to_str().unwrap();
        std::fs::copy(file, self.home(name)).unwrap();
    }

    /// Runs commands as the administrator until one fails, and returns what they printed.
    pub(crate) fn run(&self, commands: &str, limit: Duration) -> String {
        let log = self.folder.join("commands.log");
        let before = std::fs::metadata(&log).map_or(0, |file| file.len());
        let target = format!("--target={}", self.first);
        let script = format!("set -eu\n{commands}\necho these commands end here\n");
        let (folder, home) = (format!("--wdns={HOME}"), format!("HOME={HOME}"));
        let inside = ["--mount", "--pid", "--net", "--root", &folder, "--"];
        let shell = [
            "env",
            "-i",
            &home,
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND=noninteractive",
            "bash",
            "-c",
            &script,
        ];
        let arguments = [&[&*target][..], &inside, &shell].concat();
        // Into a file: what is left running in the background would keep a pipe open.
        let mut nsenter = Process::start("nsenter", "nsenter", &arguments, None, &log).unwrap();
        let what = format!("{}: {commands}", self.name);
        wait::until(&what, limit, || (!nsenter.is_running()).then_some(()));
        let told = nsenter.output().split_off(usize::try_from(before).unwrap());
        let ended = told.contains("these commands end here");
        assert!(ended, "{what}\n{told}\n{}", self.logs());
        told
    }

    /// What the daemons told their service manager.
    pub(crate) fn notified(&self, unit: &str) -> String {
        self.read(&format!("/run/systemd/stand-in/{unit}.notify"))
    }

    pub(crate) fn log(&self, unit: &str) -> String {
        self.read(&format!("/run/systemd/stand-in/{unit}.log"))
    }

    fn logs(&self) -> String {
        ["fedgate-federation", "fedgate-gateway"]
            .map(|unit| {
                format!("{unit} of {}:\n{}\n{}", self.name, self.log(unit), self.notified(unit))
            })
            .join("\n")
    }
}
