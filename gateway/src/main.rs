//! `fedgate-gateway`: the data plane of one cluster.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use gateway::LogLevel;
use gateway::config::{GatewayConfig, Overrides};
use model::code::CONFIG_INVALID;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, reload};

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// Runs a Fedgate gateway.
#[derive(Debug, Parser)]
#[command(name = "fedgate-gateway", version)]
struct Arguments {
    /// Bootstrap configuration (kind GatewayConfig).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How log lines on standard error look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Which log lines there are: a level, or `target=level` pairs.
    #[arg(long, default_value = "info", env = "FEDGATE_LOG")]
    log_level: String,
    /// The gateway's name, in place of the one in the file.
    #[arg(long, env = "FEDGATE_NAME")]
    name: Option<String>,
    /// What the federation node is told in place of 0.0.0.0 in `listen.relay`: the pod's own address.
    #[arg(env = "FEDGATE_POD_IP", long, hide = true)]
    pod_ip: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse(); // exits with 2 itself
    let log_level = match start_log(&arguments) {
        Ok(log_level) => log_level,
        Err(error) => return refuse(&error),
    };
    let config = match read_config(&arguments) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    match run(config, log_level) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the gateway ends");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn refuse(error: &anyhow::Error) -> ExitCode {
    tracing::error!(code = %CONFIG_INVALID, error = format!("{error:#}"), "the gateway does not start");
    ExitCode::from(EXIT_USAGE)
}

fn read_config(arguments: &Arguments) -> anyhow::Result<GatewayConfig> {
    let path: &Path = &arguments.config;
    let overrides = Overrides { name: arguments.name.clone(), pod_ip: arguments.pod_ip.clone() };
    let text = fs::read_to_string(path)
        .with_context(|| format!("failed to read --config {}", path.display()))?;
    Ok(GatewayConfig::from_yaml_with(&text, path, &overrides)?)
}

/// Log lines go to standard error: standard output is the access log's by default.
fn start_log(arguments: &Arguments) -> anyhow::Result<LogLevel> {
    let parse = |text: &str| EnvFilter::builder().parse(text);
    let filter = parse(&arguments.log_level);
    let (filter, failed) = match filter {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    match arguments.log_format {
        LogFormat::Text => registry.with(lines).init(),
        LogFormat::Json => registry.with(lines.json()).init(),
    }
    if let Some(error) = failed {
        anyhow::bail!(
            "--log-level {:?}: {error}; use info, debug or target=level",
            arguments.log_level
        );
    }
    let reader = handle.clone();
    Ok(LogLevel {
        read: Arc::new(move || {
            reader.with_current(ToString::to_string).unwrap_or_else(|error| error.to_string())
        }),
        change: Arc::new(move |text| {
            let filter = parse(text).map_err(|error| error.to_string())?;
            handle.reload(filter).map_err(|error| error.to_string())
        }),
    })
}

fn run(config: GatewayConfig, log_level: LogLevel) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let app = gateway::app::build_with(config, Some(log_level))?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = app.drain_requested() => {}
        }
        tokio::select! {
            () = app.drain_and_stop() => return Ok(()),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("a second signal: what is in progress is cut off");
        app.stop_now().await;
        Ok(())
    })
}
