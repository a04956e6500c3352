//! `fedgate-gateway`: the data plane of one cluster.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use daemon::limits::START_WAIT_MAX;
use daemon::{ConfigFile, Log, LogArguments, Notifier};
use gateway::LogLevel;
use gateway::app::App;
use gateway::config::{ConfigError, GatewayConfig, Overrides};
use model::code::CONFIG_INVALID;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
/// How often it is looked at what changes by time alone, such as an SVID that expires.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The fields of the file that change while the gateway runs.
const RELOADABLE: [&str; 1] = ["log.level"];

/// Runs a Fedgate gateway.
#[derive(Debug, Parser)]
#[command(name = "fedgate-gateway", version)]
struct Arguments {
    /// Bootstrap configuration (kind GatewayConfig).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    log: LogArguments,
    /// The gateway's name, in place of the one in the file.
    #[arg(long, env = "FEDGATE_NAME")]
    name: Option<String>,
    /// What the federation node is told in place of 0.0.0.0 in `listen.relay`: the pod's own address.
    #[arg(env = "FEDGATE_POD_IP", long, hide = true)]
    pod_ip: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse(); // exits with 2 itself
    let notifier = Notifier::from_environment();
    let log = match Log::start(&arguments.log) {
        Ok(log) => log,
        Err(problem) => return refuse(&anyhow::anyhow!(problem), &notifier),
    };
    let (text, config) = match read_config(&arguments) {
        Ok(read) => read,
        Err(error) => return refuse(&error, &notifier),
    };
    log.follow_file(config.log_level.as_deref());
    match run(arguments, text, config, &log, &notifier) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            notifier.status(&format!("failed: {error:#}"));
            tracing::error!(error = format!("{error:#}"), "the gateway ends");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn refuse(error: &anyhow::Error, notifier: &Notifier) -> ExitCode {
    notifier.status(&format!("{CONFIG_INVALID}: {error:#}"));
    tracing::error!(code = %CONFIG_INVALID, error = format!("{error:#}"), "the gateway does not start");
    ExitCode::from(EXIT_USAGE)
}

fn read_config(arguments: &Arguments) -> anyhow::Result<(String, GatewayConfig)> {
    let path = &arguments.config;
    let text = fs::read_to_string(path)
        .with_context(|| format!("failed to read --config {}", path.display()))?;
    let config = arguments.parse_config(&text)?;
    Ok((text, config))
}

impl Arguments {
    fn parse_config(&self, text: &str) -> Result<GatewayConfig, ConfigError> {
        let overrides = Overrides { name: self.name.clone(), pod_ip: self.pod_ip.clone() };
        GatewayConfig::from_yaml_with(text, &self.config, &overrides)
    }
}

fn run(
    arguments: Arguments,
    text: String,
    config: GatewayConfig,
    log: &Log,
    notifier: &Notifier,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let file = ConfigFile::watch(&arguments.config, text)?;
        let app = Arc::new(gateway::app::build_with(config, Some(log_level(log)))?);
        tokio::spawn(keep_alive(app.clone(), notifier.clone()));
        tokio::spawn(follow(file, arguments, log.clone()));
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = app.drain_requested() => {}
            () = tell(&app, notifier) => {}
        }
        notifier.stopping();
        notifier.status("draining: what is in progress ends, nothing new is taken");
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

/// For the admin port.
fn log_level(log: &Log) -> LogLevel {
    let (reader, writer) = (log.clone(), log.clone());
    LogLevel {
        read: Arc::new(move || reader.level()),
        change: Arc::new(move |text| writer.set_level(text)),
    }
}

/// The watchdog is fed as long as this runtime and all workers' do their work.
async fn keep_alive(app: Arc<App>, notifier: Notifier) {
    let app = &app;
    notifier.keep_alive(|| app.pulse()).await;
}

async fn follow(file: ConfigFile, arguments: Arguments, log: Log) {
    let parse = |text: &str| {
        arguments.parse_config(text).map_err(|error| format!("{CONFIG_INVALID}: {error}"))
    };
    file.follow(&RELOADABLE, parse, |config| log.follow_file(config.log_level.as_deref())).await;
}

/// Tells the service manager how the gateway is, until it ends. It counts as started when `/readyz`
/// says so. What it waits for may be a federation node that is started after it, so that whoever
/// started the gateway is not kept waiting for long.
async fn tell(app: &App, notifier: &Notifier) {
    let started = Instant::now();
    let mut is_announced = false;
    let mut changes = app.state().changes();
    let mut looks = interval(LOOK_INTERVAL);
    loop {
        let unready = app.state().unready();
        match unready.first() {
            None => notifier.status("ready"),
            Some((code, text)) => notifier.status(&format!("not ready: {code}: {text}")),
        }
        if !is_announced && (unready.is_empty() || started.elapsed() >= START_WAIT_MAX) {
            notifier.ready();
            is_announced = true;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return; // cannot be: the sender lives in the state
            },
            _ = looks.tick() => {}
        }
    }
}
