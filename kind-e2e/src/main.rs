//! `kind-e2e`: makes three real Kubernetes clusters on this machine and runs suites on them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use kind_e2e::machine::{CLUSTERS, Images, Machine, Turn};
use kind_e2e::{report, runner, suites};

#[derive(Debug, Parser)]
#[command(about = "Suites on three real Kubernetes clusters")]
struct Cli {
    /// The folder of the programs that go into the image [default: that of this program]
    #[arg(long, global = true)]
    programs: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the clusters that are not there, and load our images into them
    Up,
    /// The same, of two clusters or those that are named, and print what a shell is to `eval`:
    /// kubeconfigs, tools, programs and images
    Env {
        #[arg(default_values = ["east", "west"], value_parser = CLUSTERS)]
        clusters: Vec<String>,
    },
    /// Remove the clusters, and the Docker engine if `up` started it
    Down,
    /// Make our images anew and load them into the clusters, which must be up
    Images,
    /// Make the clusters that are not there and needed, and run a suite, those for CI (`ci`), or all
    Run {
        /// A suite's name, or `ci`; all by default
        name: Option<String>,
        /// Leave everything in the clusters afterwards, to look at it
        #[arg(long)]
        keep: bool,
    },
    /// Show the suites
    List,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let programs = match cli.programs {
        Some(folder) => std::path::absolute(folder)?,
        None => own_folder()?,
    };
    match cli.command {
        Command::Up => {
            let _turn = Turn::take().await?;
            let machine = Machine::up(&programs, &CLUSTERS).await?;
            show(&machine, &machine.images(&CLUSTERS).await?);
        }
        Command::Env { clusters } => {
            let _turn = Turn::take().await?;
            let clusters: Vec<&str> = clusters.iter().map(String::as_str).collect();
            let machine = Machine::up(&programs, &clusters).await?;
            let images = machine.images(&clusters).await?;
            report::line(&machine.shell(&clusters, &images)?);
        }
        Command::Down => Machine::down().await?,
        Command::Images => {
            let _turn = Turn::take().await?;
            let machine = Machine::find(&programs).await?;
            show(&machine, &machine.images(&CLUSTERS).await?);
        }
        Command::Run { name, keep } => {
            let chosen = suites::choose(name.as_deref())?;
            let _turn = Turn::take().await?;
            let needed = chosen.iter().any(|suite| suite.clusters);
            let clusters: &[&str] = if needed { &CLUSTERS } else { &[] };
            let machine = Machine::up(&programs, clusters).await?;
            let images = machine.images(clusters).await?;
            runner::run(&machine, &images, &chosen, keep).await?;
        }
        Command::List => {
            for suite in suites::ALL {
                let ci = if suite.ci { "ci" } else { "" };
                report::line(&format!("{:<16} {ci:<3} {}", suite.name, suite.about));
            }
        }
    }
    Ok(())
}

/// Cargo puts all programs of a build into one folder.
fn own_folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("this program's own path is not known")?;
    Ok(program.parent().context("this program is in no folder")?.to_owned())
}

fn show(machine: &Machine, images: &Images) {
    report::line(&format!("kubeconfigs: {}", machine.cache.join("kubeconfig").display()));
    report::line(&format!("images: {}, {}", images.fedgate, images.testapp));
}
