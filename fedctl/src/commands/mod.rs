//! One file per command.

mod clusters;
mod completion;
mod demo;
mod diagnostics;
mod explain;
mod links;
mod peer;
mod services;
mod status;

use std::path::PathBuf;

use crate::cli::{Cli, Command, Global};
use crate::context::{self, Contexts};
use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::Printer;

/// Runs one command on a runtime of its own.
pub fn run(cli: Cli) -> Result<(), CommandError> {
    let Cli { global, command } = cli;
    let printer = Printer { format: global.output };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CommandError::failed(format!("start: {error}")))?;
    runtime.block_on(async {
        match command {
            Command::Demo(verb) => demo::run(verb, &printer).await,
            Command::Status => status::run(&node(&global).await?, &printer).await,
            Command::Clusters => clusters::run(&node(&global).await?, &printer).await,
            Command::Links => links::run(&node(&global).await?, &printer).await,
            Command::Services => services::run(&node(&global).await?, &printer).await,
            Command::Diagnostics => diagnostics::run(&node(&global).await?, &printer).await,
            Command::Peer => peer::run(&node(&global).await?, &printer).await,
            Command::Explain(args) => explain::run(args.code.as_deref(), &printer),
            Command::Completion(args) => completion::run(args.shell, &printer),
        }
    })
}

/// The node that the options name.
async fn node(global: &Global) -> Result<Operator, CommandError> {
    let socket: PathBuf = match &global.server {
        Some(server) => context::parse_server(server)?,
        None => {
            let contexts = Contexts::load(&contexts_path())?;
            contexts.choose(global.context.as_deref())?.operator_socket.clone()
        }
    };
    Operator::connect(&socket).await
}

fn contexts_path() -> PathBuf {
    context::contexts_path(|name| std::env::var(name).ok())
}
