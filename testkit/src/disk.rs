//! File systems for one node's data, in a mount namespace of their own: small ones that get full, and one
//! that loses what was not synced. And a disk's answers as the kernel would give them, put into a
//! running process by strace.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::{Process, wait};

const MOUNTED: Duration = Duration::from_secs(10);
const ATTACHED: Duration = Duration::from_secs(10);
/// The least that mkfs.xfs makes; the file is sparse.
const XFS_BYTES: u64 = 320 * 1024 * 1024;

/// Why such disks cannot be made here, if they cannot: the reason of a skipped test.
pub fn unavailable(programs: &[&'static str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".into());
    }
    let missing = |program: &&&str| Command::new(**program).arg("-V").output().is_err();
    let missing = programs.iter().find(missing)?;
    Some(format!("needs the program {missing}; scripts/setup.sh test installs it"))
}

/// A mounted file system. It and its namespace end when this is dropped.
#[derive(Debug)]
pub struct Disk {
    /// A process that does nothing but keep the namespace.
    holder: Process,
    place: PathBuf,
    image: Option<PathBuf>,
}

impl Disk {
    /// Memory of so many bytes, mounted at a folder, which is made.
    pub fn small(place: &Path, bytes: u64) -> anyhow::Result<Self> {
        let disk = Self::hold(place, None)?;
        let size = format!("size={bytes},mode=0700");
        disk.run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &disk.shown()])?;
        Ok(disk)
    }

    /// An XFS in a file beside the folder, which loses what was not synced when its power fails.
    pub fn durable(place: &Path) -> anyhow::Result<Self> {
        let image = place.with_extension("xfs");
        std::fs::File::create(&image)?.set_len(XFS_BYTES)?;
        let disk = Self::hold(place, Some(image.clone()))?;
        disk.run("mkfs.xfs", &["-q", &image.display().to_string()])?;
        disk.mount()?;
        Ok(disk)
    }

    fn hold(place: &Path, image: Option<PathBuf>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(place)?;
        let log = place.with_extension("mounts.log");
        let arguments = ["--mount", "--propagation", "private", "sleep", "infinity"];
        let holder = Process::start("a mount namespace", "unshare", &arguments, None, &log)?;
        let own = std::fs::read_link("/proc/self/ns/mnt")?;
        let there = format!("/proc/{}/ns/mnt", holder.id());
        wait::until("a mount namespace", MOUNTED, || {
            std::fs::read_link(&there).ok().filter(|there| *there != own)
        });
        Ok(Self { holder, place: place.into(), image })
    }

    fn mount(&self) -> anyhow::Result<()> {
        let image = self.image.as_ref().context("only a file is mounted again")?;
        self.run("mount", &["-o", "loop", &image.display().to_string(), &self.shown()])?;
        self.run("chmod", &["0700", &self.shown()])?;
        Ok(())
    }

    /// In front of a command that is to see the disk.
    pub fn under(&self) -> Vec<String> {
        vec!["nsenter".into(), format!("--mount=/proc/{}/ns/mnt", self.holder.id())]
    }

    /// Runs a command that sees the disk.
    pub fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let under = self.under();
        let command = [program].into_iter().chain(arguments.iter().copied());
        let output = Command::new(&under[0]).args(&under[1..]).args(command).output()?;
        said(program, &output)
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> anyhow::Result<()> {
        let filler = self.place.join("filler");
        let out = format!("of={}", filler.display());
        let full = self.run("dd", &["if=/dev/zero", &out, "bs=4k"]);
        ensure!(full.is_err(), "the disk has no end");
        Ok(())
    }

    /// Takes room until so much is left.
    pub fn fill_to(&self, left: u64) -> anyhow::Result<()> {
        let told = self.run("df", &["--block-size=1", "--output=avail", &self.shown()])?;
        let free: u64 = told.split_whitespace().last().unwrap_or_default().parse()?;
        let length = free.checked_sub(left).context("less than that is left already")?;
        let filler = self.place.join("filler").display().to_string();
        self.run("fallocate", &["--length", &length.to_string(), &filler]).map(drop)
    }

    /// Gives it back.
    pub fn free(&self) -> anyhow::Result<()> {
        self.run("rm", &[&self.place.join("filler").display().to_string()]).map(drop)
    }

    /// From now on nothing reaches the disk, and what was not synced never will.
    pub fn power_off(&self) -> anyhow::Result<()> {
        self.run("xfs_io", &["-x", "-c", "shutdown", &self.shown()]).map(drop)
    }

    /// Mounts what is left. Nobody may use it any more.
    pub fn power_on(&self) -> anyhow::Result<()> {
        self.run("umount", &[&self.shown()])?;
        self.mount()
    }

    fn shown(&self) -> String {
        self.place.display().to_string()
    }
}

fn said(program: &str, output: &Output) -> anyhow::Result<String> {
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed: {}", error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What each sync of a running process's files meets, until this is dropped.
#[derive(Debug)]
pub struct Syncs(Option<Process>);

impl Syncs {
    /// Each takes so much longer.
    pub fn slow(process: &Process, by: Duration, log: &Path) -> anyhow::Result<Self> {
        Self::inject(process, &format!("delay_enter={}", by.as_micros()), log)
    }

    /// Each fails.
    pub fn fail(process: &Process, log: &Path) -> anyhow::Result<Self> {
        Self::inject(process, "error=EIO", log)
    }

    fn inject(process: &Process, what: &str, log: &Path) -> anyhow::Result<Self> {
        let calls = "fsync,fdatasync,sync_file_range";
        let [trace, inject] = [format!("trace={calls}"), format!("inject={calls}:{what}")];
        let id = process.id().to_string();
        let arguments = ["-f", "-e", &trace, "-e", &inject, "-p", &id];
        let strace = Process::start("strace", "strace", &arguments, None, log)?;
        let own = strace.id().to_string();
        wait::until("strace at work", ATTACHED, || traced_by(process.id(), &own));
        Ok(Self(Some(strace)))
    }

    /// All is as ever again.
    pub fn end(mut self) -> anyhow::Result<()> {
        match self.0.take() {
            Some(strace) => strace.terminate(ATTACHED).map(drop),
            None => Ok(()),
        }
    }
}

/// All threads of a process are.
fn traced_by(process: u32, tracer: &str) -> Option<()> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let traced = |task: std::fs::DirEntry| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        line.is_some_and(|id| id.trim() == tracer)
    };
    tasks.flatten().all(traced).then_some(())
}
