//! `bench`: runs a measurement and prints its report as Markdown.

use std::io::Write;

use bench::scale::{node, reader};
use bench::{etcd, far, scale, smoke, store, wan};
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
    /// HTTP, PostgreSQL and Redis between two sites far apart, beside direct connections
    Far(far::Options),
    /// One path over QUIC, over TCP while UDP is blocked, and over QUIC again
    Fallback(far::fallback::Options),
    /// The store of three real clusters: joins, changes, writes, and the deaths of leaders
    Store(store::Options),
    /// A federation of many simulated clusters: memory, bytes, egress
    Scale(scale::Options),
    /// Writes to the store beside writes to etcd
    Etcd(etcd::Options),
    /// A node of the store, started by other measurements
    #[command(hide = true)]
    Node(node::Options),
    /// A Replica, started by other measurements
    #[command(hide = true)]
    Reader(reader::Options),
}

/// As many as the product's node has.
const NODE_THREADS: usize = 2;

fn main() -> anyhow::Result<()> {
    let command = Cli::parse().command;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = match command {
        Command::Smoke(options) => runtime.block_on(smoke::run(&options)),
        Command::Wan(options) => runtime.block_on(wan::run(&options)),
        Command::Far(options) => far::run(&options),
        Command::Fallback(options) => far::fallback::run(&options),
        Command::Store(options) => runtime.block_on(store::run(&options)),
        Command::Scale(options) => runtime.block_on(scale::run(&options)),
        Command::Etcd(options) => runtime.block_on(etcd::run(&options)),
        Command::Node(options) => as_node(async { node::run(&options).await }),
        Command::Reader(options) => as_node(async { reader::run(&options).await }),
    }?;
    std::io::stdout().write_all(report.as_bytes())?;
    Ok(())
}

fn as_node(running: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<String> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(NODE_THREADS).enable_all().build()?;
    runtime.block_on(running).map(|()| String::new())
}
