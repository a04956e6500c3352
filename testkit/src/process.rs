//! A child process that a test started: its output goes to a file, and it ends with the test.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// Ends with `SIGKILL` when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`, in a network namespace if one is named. Its output is added to `log`.
    pub fn start<S: AsRef<OsStr>>(
        name: &str,
        program: impl AsRef<OsStr>,
        arguments: &[S],
        namespace: Option<&str>,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let mut command = match namespace {
            None => Command::new(&program),
            Some(namespace) => {
                let mut ip = Command::new("ip");
                // `ip` replaces itself by the program, so the process id is the program's.
                ip.args(["netns", "exec", namespace]).arg(&program);
                ip
            }
        };
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| format!("open {}", log.display()))?;
        command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.into(), child, log: log.into() })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Everything that it has printed.
    pub fn output(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Asks it to end and waits until it has.
    pub fn terminate(mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        self.send(Signal::TERM)?;
        let what = format!("{} to end after SIGTERM", self.name);
        Ok(wait::until(&what, limit, || self.child.try_wait().ok().flatten()))
    }

    /// Stops it where it is, as a machine that is starved or suspended.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.send(Signal::STOP)
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) -> anyhow::Result<()> {
        self.send(Signal::CONT)
    }

    fn send(&self, signal: Signal) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(id.context("a child has a process id")?, signal)?)
    }

    /// Ends it without a warning, as a power cut would.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_ended = self.child.kill();
        let _status = self.child.wait();
    }
}
