//! One file per command.

mod analyze;
mod apply;
mod audit;
mod bug_report;
mod check;
mod clusters;
mod completion;
mod cordon;
mod demo;
mod diagnostics;
mod explain;
mod export;
mod gateway_cordon;
mod get;
mod init;
mod install;
mod join;
mod kinds;
mod leave;
mod links;
mod members;
mod netcheck;
mod peer;
mod ping;
mod services;
mod status;
mod store;
mod token;
mod trust;
mod unified;
mod verify;
mod why;

use std::path::PathBuf;

use crate::cli::{Certs, Cli, Command, Global, Namespace, Trust};
use crate::connect::{self, node};
use crate::context;
use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::{OutputFormat, Printer};

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// `fedctl diff` found a difference.
    Differs,
    /// `fedctl check`, `fedctl ping` and others like them found something that does not work.
    Unwell,
    /// With `--strict` one of them found something that may not work.
    Warned,
}

/// Runs one command on a runtime of its own.
pub fn run(cli: Cli) -> Result<Outcome, CommandError> {
    let Cli { global, mut command } = cli;
    let printer = Printer { format: global.output, verbose: global.verbose, plugin: global.plugin };
    let fits = match printer.format {
        OutputFormat::Short => matches!(command, Command::Check(_) | Command::Why(_)),
        OutputFormat::Junit => matches!(command, Command::Check(_)),
        OutputFormat::Table | OutputFormat::Json | OutputFormat::Yaml => true,
    };
    if !fits {
        let message =
            "-o short is for `fedctl check` and `fedctl why`, -o junit for `fedctl check`";
        return Err(CommandError::usage(message).hint("use table, json or yaml"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CommandError::failed(format!("start: {error}")))?;
    runtime.block_on(async {
        if global.plugin {
            set_namespace(&mut command, &global, &printer).await?;
        }
        match command {
            Command::Demo(verb) => demo::run(verb, &printer).await,
            Command::Explain(args) => explain::run(args.code.as_deref(), &printer),
            Command::Completion(args) => completion::run(args.shell, &printer),
            Command::Complete { words } => completion::complete(&words, &printer),
            Command::Install(args) => install::install(&args, &global, &printer).await,
            Command::Uninstall(args) => install::uninstall(&args, &global, &printer).await,
            Command::Check(args) => return check::run(&args, &global, &printer).await,
            Command::Why(args) => return why::run(&args, &global, &printer).await,
            Command::Analyze(args) => return analyze::run(&args, &printer),
            Command::Netcheck(args) => return netcheck::run(&args, &global, &printer).await,
            Command::Ping(args) => {
                return ping::run(&args, &node(&global, &printer).await?, &printer).await;
            }
            Command::BugReport(args) => bug_report::run(&args, &global, &printer).await,
            Command::Export(args) if args.dry_run => export::print_export(&args, &printer),
            Command::Namespace(Namespace::Grant(args)) if args.dry_run => {
                export::print_grant(&args, &printer)
            }
            Command::Diff(args) => {
                let differs = apply::diff(&args, &node(&global, &printer).await?, &printer).await?;
                return Ok(if differs { Outcome::Differs } else { Outcome::Done });
            }
            command => ask_node(command, &node(&global, &printer).await?, &printer).await,
        }?;
        Ok(Outcome::Done)
    })
}

/// As for kubectl, a Service without a namespace is in that of the kubeconfig's context.
async fn set_namespace(
    command: &mut Command,
    global: &Global,
    printer: &Printer,
) -> Result<(), CommandError> {
    let (service, namespace) = match command {
        Command::Export(args) => (&args.service, &mut args.namespace),
        Command::Unexport(args) => (&args.service, &mut args.namespace),
        _ => return Ok(()),
    };
    if namespace.is_none() && !service.contains('/') {
        let target = connect::chosen(global)?;
        *namespace = Some(connect::cluster(global, &target, printer).await?.namespace);
    }
    Ok(())
}

/// The commands that talk with a federation node.
async fn ask_node(
    command: Command,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    match command {
        Command::Status(args) => status::run(args.watch, node, printer).await,
        Command::Clusters => clusters::run(node, printer).await,
        Command::Links => links::run(node, printer).await,
        Command::Services => services::run(node, printer).await,
        Command::Diagnostics => diagnostics::run(node, printer).await,
        Command::Peer => peer::run(node, printer).await,
        Command::Init => init::run(node, printer).await,
        Command::Token(verb) => token::run(verb, node, printer).await,
        Command::Join(args) => join::run(args, node, printer).await,
        Command::Leave(args) => leave::leave(args, node, printer).await,
        Command::Revoke(args) => leave::revoke(args, node, printer).await,
        Command::Cordon(args) => cordon::cordon(&args, node, printer).await,
        Command::Uncordon(args) => cordon::uncordon(&args, node, printer).await,
        Command::Drain(args) => cordon::drain(&args, node, printer).await,
        Command::Export(args) => export::export(&args, node, printer).await,
        Command::Unexport(args) => export::unexport(&args, node, printer).await,
        Command::Namespace(Namespace::Grant(args)) => export::grant(&args, node, printer).await,
        Command::Get(args) => get::get(&args, node, printer).await,
        Command::Describe(args) => get::describe(&args, node, printer).await,
        Command::Apply(args) => apply::apply(&args, node, printer).await,
        Command::Delete(args) => apply::delete(&args, node, printer).await,
        Command::Store(verb) => store::run(verb, node, printer).await,
        Command::Trust(Trust::List) => trust::list(node, printer).await,
        Command::Trust(Trust::Rotate(args)) => trust::rotate(&args, node, printer).await,
        Command::Certs(Certs::List) => trust::certs(node, printer).await,
        Command::Certs(Certs::Rotate) => trust::renew(node, printer).await,
        Command::Audit(verb) => audit::run(verb, node, printer).await,
        Command::Demo(_)
        | Command::Explain(_)
        | Command::Analyze(_)
        | Command::BugReport(_)
        | Command::Netcheck(_)
        | Command::Ping(_)
        | Command::Completion(_)
        | Command::Complete { .. }
        | Command::Install(_)
        | Command::Uninstall(_)
        | Command::Check(_)
        | Command::Why(_)
        | Command::Diff(_) => Err(CommandError::failed("this command asks no node")),
    }
}

fn contexts_path() -> PathBuf {
    context::contexts_path(|name| std::env::var(name).ok())
}
