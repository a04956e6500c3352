//! `bench`: runs a measurement and prints its report as Markdown.

use std::io::Write;

use bench::{smoke, store, wan};
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
    /// Small requests beside a long download at 40 ms
    Wan(wan::Options),
    /// The store of three real clusters: joins, changes, writes, and the deaths of leaders
    Store(store::Options),
}

fn main() -> anyhow::Result<()> {
    let command = Cli::parse().command;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = match command {
        Command::Smoke(options) => runtime.block_on(smoke::run(&options)),
        Command::Wan(options) => runtime.block_on(wan::run(&options)),
        Command::Store(options) => runtime.block_on(store::run(&options)),
    }?;
    std::io::stdout().write_all(report.as_bytes())?;
    Ok(())
}
