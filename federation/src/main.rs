//! `fedgate-federation --config F`: reads the configuration, starts the node, waits for a signal.

use std::fmt::Display;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use daemon::{ConfigFile, Log, LogArguments, Notifier};
use federation::app::{self, App};
use federation::config::FederationConfig;
use federation::membership::Mode;
use model::code::CONFIG_INVALID;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

const EXIT_FAILED: u8 = 1;
const EXIT_CONFIG: u8 = 2;
/// A node computes little; what it does must not compete with the gateway for every core.
const WORKER_THREADS: usize = 2;
/// How often the service manager's status is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The fields of the file that change while the node runs.
const RELOADABLE: [&str; 2] = ["log.level", "advertise"];

/// The federation node of a cluster: serves resources and identities to its gateways.
#[derive(Debug, Parser)]
#[command(name = "fedgate-federation", version)]
struct Arguments {
    /// Configuration file (YAML, kind FederationConfig)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    log: LogArguments,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let notifier = Notifier::from_environment();
    let fail = |problem: &dyn Display, code: u8| {
        notifier.status(&format!("failed: {problem}"));
        // Nothing is left to do if even standard error is closed.
        let _ = writeln!(io::stderr(), "error: {problem}");
        ExitCode::from(code)
    };
    let log = match Log::start(&arguments.log) {
        Ok(log) => log,
        Err(problem) => return fail(&format!("{CONFIG_INVALID}: {problem}"), EXIT_CONFIG),
    };
    let (text, config) = match read_config(&arguments.config) {
        Ok(read) => read,
        Err(problem) => return fail(&problem, EXIT_CONFIG),
    };
    log.follow_file(config.log_level.as_deref());
    match run(arguments.config, text, config, log, &notifier) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(&format!("{problem:#}"), EXIT_FAILED),
    }
}

fn read_config(path: &Path) -> Result<(String, FederationConfig), String> {
    let text = fs::read_to_string(path).map_err(|problem| {
        format!("cannot read the configuration {}: {problem}", path.display())
    })?;
    let config = parse_config(&text, path)?;
    Ok((text, config))
}

fn parse_config(text: &str, path: &Path) -> Result<FederationConfig, String> {
    FederationConfig::from_yaml(text, path)
        .map_err(|problem| format!("{CONFIG_INVALID}: {problem}"))
}

fn run(
    path: PathBuf,
    text: String,
    config: FederationConfig,
    log: Log,
    notifier: &Notifier,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let file = ConfigFile::watch(&path, text).context("listen for SIGHUP")?;
        let advertises = config.kubernetes.is_none();
        // On the runtime's own threads: it ends when they hang.
        tokio::spawn(notifier.clone().keep_alive(|| std::future::ready(true)));
        let node = Arc::new(app::build(config).await?);
        notifier.ready();
        let follow = tokio::spawn(follow(file, path, log, node.clone(), advertises));
        let unable = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            () = tell(&node, notifier) => None,
            reason = node.until_unable() => Some(reason),
        };
        notifier.stopping();
        notifier.status("stopping");
        follow.abort();
        let _cancelled = follow.await; // from here on the node is ours alone
        match Arc::try_unwrap(node) {
            Ok(node) => node.stop().await,
            Err(_) => anyhow::bail!("a task still holds the node"),
        }
        unable.map_or(Ok(()), |reason| Err(anyhow::Error::msg(reason)))
    })
}

/// With an API server the addresses are its gateways' Service's, unless the file has some; which of
/// the two it is, is decided at the start.
async fn follow(file: ConfigFile, path: PathBuf, log: Log, node: Arc<App>, advertises: bool) {
    let reloadable = if advertises { &RELOADABLE[..] } else { &RELOADABLE[..1] };
    let parse = |text: &str| parse_config(text, &path);
    let apply = |config: FederationConfig| {
        log.follow_file(config.log_level.as_deref());
        if advertises {
            node.advertise(config.advertise);
        }
    };
    file.follow(reloadable, parse, apply).await;
}

/// Tells the service manager how the node is, until it ends. It needs neither gateways nor other
/// clusters to have started.
async fn tell(node: &App, notifier: &Notifier) {
    let mut looks = interval(LOOK_INTERVAL);
    loop {
        looks.tick().await;
        let cluster = node.membership().name();
        if let Some(fault) = node.membership().store_fault() {
            notifier
                .status(&format!("{cluster} serves what it has; its store has failed: {fault}"));
            continue;
        }
        notifier.status(&match node.membership().mode() {
            Mode::Alone => {
                format!(
                    "{cluster} is in no federation: `fedctl init` or `fedctl join` changes that"
                )
            }
            Mode::Member => format!("{cluster} keeps the federation's store with others"),
            Mode::Replica => format!("{cluster} follows the federation's store"),
        });
    }
}
