//! `cargo run -p xtask -- <verb>`: the chores behind the Makefile.

use std::io::{self, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use xtask::repo::Repo;
use xtask::tally::{SKIPPED_LIST, Tally};
use xtask::tidy::{self, Graph};

#[derive(Debug, Parser)]
#[command(name = "xtask", about = "The project's chores")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check the rules that rustc and clippy do not know.
    Tidy,
    /// Write the generated pages under docs/reference/.
    Gen,
    /// Everything that a commit must pass: format, lints, all tests. Changes no file.
    Check,
    /// Run all tests and end with one line that counts them.
    Test,
}

fn main() -> ExitCode {
    let outcome = Repo::here().and_then(|repo| match Arguments::parse().verb {
        Verb::Tidy => run_tidy(&repo),
        Verb::Gen => generate(&repo),
        Verb::Check => check(&repo),
        Verb::Test => test(&repo.root),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run_tidy(repo: &Repo) -> Result<()> {
    let graph = Graph::load(&repo.root)?;
    let findings = tidy::check(repo, &graph);
    for finding in &findings {
        say(&finding.to_string());
    }
    if !findings.is_empty() {
        bail!("{} places to tidy", findings.len());
    }
    say(&format!("tidy: {} files are fine", repo.files.len()));
    Ok(())
}

/// The pages are written by the tests that check them, since some need the processes linked in.
fn generate(repo: &Repo) -> Result<()> {
    let mut command = cargo(&repo.root, &["test", "-q", "-p", "xtask", "--locked", "--test", "it"]);
    command.args(["--", "reference"]).env("UPDATE", "1");
    run(command)
}

fn check(repo: &Repo) -> Result<()> {
    run(cargo(&repo.root, &["fmt", "--all", "--check"]))
        .context("the format differs; run `make fix`")?;
    let lints = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    run(cargo(&repo.root, &lints))?;
    test(&repo.root)
}

fn test(root: &Path) -> Result<()> {
    let start = Instant::now();
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let mut command = cargo(root, &["test", "--workspace", "--locked", "--no-fail-fast"]);
    // `--show-output` lets the tally see which of the tests that passed skipped themselves.
    command.args(["--color", "never", "--", "--show-output"]);
    let stderr = writer.try_clone().context("cannot share the pipe")?;
    command.stdout(writer).stderr(stderr);
    say(&format!("$ {}", shown(&command)));
    let mut child = command.spawn().context("cannot run cargo")?;
    drop(command); // It holds the pipe's writing end, which must close when cargo ends.
    let mut tally = Tally::default();
    tally.follow(BufReader::new(reader), io::stdout().lock())?;
    if !child.wait().context("cannot wait for cargo")?.success() {
        tally.runner_failed();
    }
    let allowed = std::fs::read_to_string(root.join(SKIPPED_LIST));
    let unlisted = tally.unlisted(&allowed.with_context(|| format!("cannot read {SKIPPED_LIST}"))?);
    let is_complete = unlisted.is_empty() || std::env::var_os("CI").is_none();
    let level = if is_complete { "note" } else { "error" };
    for skip in unlisted {
        say(&format!("{level}: {skip}"));
    }
    let failure = tally.failure();
    say(&format!("\ntests took {} s", start.elapsed().as_secs()));
    say(&tally.to_string());
    match failure {
        Some(failure) => bail!(failure),
        None if !is_complete => bail!("a test was skipped that must run here"),
        None => Ok(()),
    }
}

fn run(mut command: Command) -> Result<()> {
    say(&format!("$ {}", shown(&command)));
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("`{}` failed", shown(&command));
    }
    Ok(())
}

fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root);
    command
}

fn shown(command: &Command) -> String {
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    format!("cargo {}", arguments.collect::<Vec<_>>().join(" "))
}

/// Writes a line to standard output. A reader that went away is no reason to fail.
fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    drop(written);
}
