//! `fedgate-federation --config F`: reads the configuration, starts the node, waits for a signal.

use std::fmt::Display;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use federation::app;
use federation::config::FederationConfig;
use model::code::CONFIG_INVALID;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

const EXIT_FAILED: u8 = 1;
const EXIT_CONFIG: u8 = 2;
/// A node computes little; what it does must not compete with the gateway for every core.
const WORKER_THREADS: usize = 2;

/// The federation node of a cluster: serves resources and identities to its gateways.
#[derive(Debug, Parser)]
#[command(name = "fedgate-federation", version)]
struct Arguments {
    /// Configuration file (YAML, kind FederationConfig)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How log lines on standard error look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Which log lines there are: a level, or `target=level` pairs
    #[arg(long, default_value = "info", env = "FEDGATE_LOG")]
    log_level: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(problem) = start_log(&arguments) {
        return fail(&problem, EXIT_CONFIG);
    }
    let config = match read_config(&arguments.config) {
        Ok(config) => config,
        Err(problem) => return fail(&problem, EXIT_CONFIG),
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(&format!("{problem:#}"), EXIT_FAILED),
    }
}

fn read_config(path: &PathBuf) -> Result<FederationConfig, String> {
    let text = fs::read_to_string(path).map_err(|problem| {
        format!("cannot read the configuration {}: {problem}", path.display())
    })?;
    FederationConfig::from_yaml(&text, path)
        .map_err(|problem| format!("{CONFIG_INVALID}: {problem}"))
}

fn run(config: FederationConfig) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let node = app::build(config).await?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        node.stop().await;
        Ok(())
    })
}

fn start_log(arguments: &Arguments) -> Result<(), String> {
    let level = &arguments.log_level;
    let filter = EnvFilter::builder().parse(level).map_err(|problem| {
        format!(
            "{CONFIG_INVALID}: --log-level {level:?}: {problem}; use info, debug or target=level"
        )
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match arguments.log_format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

fn fail(problem: &impl Display, code: u8) -> ExitCode {
    // Nothing is left to do if even standard error is closed.
    let _ = writeln!(io::stderr(), "error: {problem}");
    ExitCode::from(code)
}
