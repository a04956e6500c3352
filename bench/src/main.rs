//! `bench`: runs a measurement and prints its report as Markdown.

use std::io::Write;

use bench::smoke;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A gateway pair beside a direct connection
    Smoke(smoke::Options),
}

fn main() -> anyhow::Result<()> {
    let Command::Smoke(options) = Cli::parse().command;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(smoke::run(&options))?;
    std::io::stdout().write_all(report.as_bytes())?;
    Ok(())
}
