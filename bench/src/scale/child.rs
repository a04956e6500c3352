//! This program, started again as another process that speaks in lines.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::proc;

/// The longest that any step of a measurement takes on a machine that is busy.
const STEP_TIMEOUT: Duration = Duration::from_secs(300);

/// Ends with `SIGKILL` when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: u32,
    lines: Option<Lines<BufReader<ChildStdout>>>,
    input: Option<ChildStdin>,
}

impl Process {
    /// A verb of this program.
    pub fn verb<S: AsRef<OsStr>>(verb: &str, arguments: &[S]) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("where this program is")?);
        command.arg(verb).args(arguments).stderr(Stdio::inherit());
        Self::start(command)
    }

    /// Another program; what it says goes to a file.
    pub fn program<S: AsRef<OsStr>>(
        program: &Path,
        arguments: &[S],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stderr(std::fs::File::create(log).context("make a log file")?);
        Self::start(command)
    }

    fn start(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let pid = child.id().context("a process has an id")?;
        let lines = child.stdout.take().map(|out| BufReader::new(out).lines());
        let input = child.stdin.take();
        Ok(Self { child, pid, lines, input })
    }

    /// The numbers of the next line that begins with a word; lines before it are passed over.
    pub async fn wait_for(&mut self, word: &str) -> anyhow::Result<Vec<u64>> {
        let lines = self.lines.as_mut().context("its output is not read any more")?;
        let found = async {
            while let Some(line) = lines.next_line().await? {
                let mut words = line.split(' ');
                if words.next() == Some(word) {
                    return Ok(words.filter_map(|word| word.parse().ok()).collect());
                }
            }
            anyhow::bail!("it ended without the line `{word}`")
        };
        tokio::time::timeout(STEP_TIMEOUT, found).await.with_context(|| format!("no `{word}`"))?
    }

    /// Tells it to go on.
    pub async fn go(&mut self) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("its input is open")?;
        Ok(input.write_all(b"go\n").await?)
    }

    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        proc::resident_kib(self.pid)
    }

    pub fn cpu(&self) -> anyhow::Result<Duration> {
        proc::cpu_time(self.pid)
    }

    /// `SIGKILL`, and waits until it is gone.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Waits until it ends by itself.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        let status = tokio::time::timeout(STEP_TIMEOUT, self.child.wait()).await??;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

/// An address that nobody listens on.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?)
}

/// Bytes that the files of a folder take.
pub fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, facts) = (entry.path(), entry.metadata()?);
        bytes += if facts.is_dir() { folder_bytes(&path)? } else { facts.len() };
    }
    Ok(bytes)
}
