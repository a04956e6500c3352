//! A child process with a deadline, whose failure tells what was called and what it said.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process;

use crate::limits::{COMMAND_TIMEOUT, SHOWN_LINES};

/// A call that has not been made yet. The process is killed when its future is dropped.
#[derive(Debug)]
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    input: Option<String>,
    timeout: Duration,
    shows_progress: bool,
}

/// What became of a call.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Command {
    /// A call of a program, by path or by name.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            input: None,
            timeout: COMMAND_TIMEOUT,
            shows_progress: false,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|one| one.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// What it reads from standard input; nothing by default.
    #[must_use]
    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.input = Some(text.into());
        self
    }

    /// How long it may take.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Passes what it writes to standard error on, as it comes.
    #[must_use]
    pub const fn with_progress(mut self) -> Self {
        self.shows_progress = true;
        self
    }

    /// Makes the call. An exit code other than 0 is an output too.
    pub async fn output(self) -> Result<Output> {
        let line = self.line();
        let timeout = self.timeout;
        match tokio::time::timeout(timeout, self.run()).await {
            Ok(output) => output.with_context(|| format!("could not run `{line}`")),
            Err(_) => bail!("`{line}` took longer than {} s", timeout.as_secs()),
        }
    }

    /// Makes the call, which must end with exit code 0, and gives what it wrote to standard output.
    pub async fn text(self) -> Result<String> {
        let (line, shows_progress) = (self.line(), self.shows_progress);
        let output = self.output().await?;
        if !output.status.success() {
            let words = if shows_progress { "see above".to_owned() } else { output.last_words() };
            bail!("`{line}` failed with {}: {words}", output.status);
        }
        Ok(output.stdout)
    }

    /// As [`Self::text`], read as JSON.
    pub async fn json(self) -> Result<Value> {
        let line = self.line();
        let text = self.text().await?;
        serde_json::from_str(&text).with_context(|| format!("`{line}` wrote no JSON"))
    }

    async fn run(self) -> Result<Output> {
        let mut command = process::Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped());
        command.stderr(if self.shows_progress { Stdio::inherit() } else { Stdio::piped() });
        let mut child = command.kill_on_drop(true).spawn()?;
        let stdin = child.stdin.take();
        let feed = async {
            if let (Some(mut stdin), Some(input)) = (stdin, &self.input) {
                // A program that ends without reading it all says why itself.
                let _unread = stdin.write_all(input.as_bytes()).await;
            }
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), feed);
        let output = output?;
        Ok(Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// The call as a person would type it, without the folder of the program.
    fn line(&self) -> String {
        let program = Path::new(&self.program).file_name().unwrap_or(&self.program);
        let words = std::iter::once(program).chain(self.arguments.iter().map(OsString::as_os_str));
        words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
    }
}

impl Output {
    /// The end of what it wrote to standard error, or else to standard output.
    pub fn last_words(&self) -> String {
        let text = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let lines: Vec<&str> = text.trim_end().lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_tells_the_call_and_its_last_words() {
        let call = Command::new("/bin/sh").args(["-c", "seq 30 >&2; exit 3"]);
        let error = call.text().await.unwrap_err().to_string();
        assert!(
            error.starts_with("`sh -c seq 30 >&2; exit 3` failed with exit status: 3: 11\n"),
            "{error}"
        );
        assert!(error.ends_with("\n30"), "{error}");
    }

    #[tokio::test]
    async fn input_larger_than_a_pipe_is_fed_while_output_is_read() {
        let text = "x".repeat(1 << 20);
        let echoed = Command::new("cat").input(text.clone()).text().await.unwrap();
        assert!(echoed == text);
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_ended() {
        let call = Command::new("sleep").args(["600"]).timeout(Duration::from_millis(50));
        let error = call.output().await.unwrap_err().to_string();
        assert_eq!(error, "`sleep 600` took longer than 0 s");
    }
}
