//! `kubectl fed`: the same commands, with kubectl's word for a cluster. kubectl runs any program on the
//! PATH that is called `kubectl-fed`, so a link of that name is all it takes.

use std::ffi::OsString;
use std::path::Path;

use clap::{CommandFactory, FromArgMatches};

use super::Cli;

const PLUGIN: &str = "kubectl-fed";

/// Whether the program was called by the plugin's name.
pub fn is_plugin(arguments: &[OsString]) -> bool {
    let name = arguments.first().map(Path::new).and_then(Path::file_stem);
    name.is_some_and(|name| name == PLUGIN)
}

/// The command line, by the name under which the program was called.
pub fn parse_from(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let plugin = is_plugin(&arguments);
    let mut tree = if plugin { as_plugin() } else { Cli::command() };
    let matches = tree.try_get_matches_from_mut(arguments)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut tree))?;
    if plugin {
        cli.global.plugin = true;
        cli.global.kube_context = cli.global.context.take().or(cli.global.kube_context);
    }
    Ok(cli)
}

fn as_plugin() -> clap::Command {
    Cli::command()
        .name(PLUGIN)
        .bin_name("kubectl fed")
        .display_name("kubectl fed")
        // The environment names fedctl's own contexts, which a plugin has none of.
        .mut_arg("context", |context| {
            context.env(None::<&'static str>).help("Name of a kubeconfig's context, as for kubectl")
        })
        .mut_arg("kube_context", |context| context.hide(true))
        .mut_arg("server", |server| server.hide(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn as_a_plugin_context_means_kubectls() {
        let cli = parse_from(words("/usr/bin/kubectl-fed status --context kind-east")).unwrap();
        assert!(cli.global.plugin && cli.global.context.is_none());
        assert_eq!(cli.global.kube_context.as_deref(), Some("kind-east"));
        let cli = parse_from(words("fedctl status --context demo-east")).unwrap();
        assert!(!cli.global.plugin && cli.global.kube_context.is_none());
    }

    #[test]
    fn usage_says_kubectl_fed() {
        let error = parse_from(words("kubectl-fed token issue")).unwrap_err().to_string();
        assert!(error.contains("Usage: kubectl fed token issue"), "{error}");
        let help = parse_from(words("kubectl-fed status --help")).unwrap_err().to_string();
        assert!(help.contains("kubeconfig's context, as for kubectl"), "{help}");
        assert!(!help.contains("FEDCTL_CONTEXT") && !help.contains("--kube-context"), "{help}");
        as_plugin().debug_assert();
    }
}
