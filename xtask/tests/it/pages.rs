//! What the pages tell a reader to write or to type is taken by the real parsers.

use std::path::Path;

use clap::error::ErrorKind;
use federation::config::FederationConfig;
use gateway::config::GatewayConfig;
use model::Severity;
use xtask::repo::Repo;
use xtask::tidy::{Command, Manifest, commands, manifests};

#[test]
fn every_manifest_is_read_without_an_error() {
    let problems: Vec<String> =
        manifests(&Repo::here().unwrap()).iter().flat_map(problems_of_manifest).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_fedctl_command_exists() {
    let problems: Vec<String> =
        commands(&Repo::here().unwrap()).iter().filter_map(problem_of_command).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_wrong_manifest_or_command_would_be_found() {
    let manifest = |text: &str| Manifest { path: "a.md".into(), line: 1, text: text.into() };
    let unknown = "apiVersion: v1\nkind: Service\nmetadata:\n  name: api\nspec:\n  ports: 5\n";
    assert!(!problems_of_manifest(&manifest(unknown)).is_empty());
    assert!(!problems_of_manifest(&manifest("apiVersion: [")).is_empty());
    let config = "apiVersion: fedgate.dev/v1alpha1\nkind: FederationConfig\nno: 1\n";
    assert!(!problems_of_manifest(&manifest(config)).is_empty());

    let command = |line: &str| Command {
        path: "a.md".into(),
        line: 1,
        words: line.split(' ').map(str::to_owned).collect(),
    };
    for wrong in ["fedctl statsu", "fedctl status --json", "target/debug/fedctl demo upp"] {
        assert!(problem_of_command(&command(wrong)).is_some(), "{wrong}");
    }
    for right in ["fedctl status -o json", "fedctl demo", "fedctl --help", "cargo statsu"] {
        assert_eq!(problem_of_command(&command(right)), None, "{right}");
    }
}

/// Documents of one block are judged apart: configuration files by their process, objects by `api`.
fn problems_of_manifest(manifest: &Manifest) -> Vec<String> {
    let place = format!("{}:{}", manifest.path, manifest.line);
    let kind =
        |name: &str| manifest.text.lines().any(|line| line.trim_end() == format!("kind: {name}"));
    let path = Path::new(&place);
    if kind(federation::config::KIND) {
        let read = FederationConfig::from_yaml(&manifest.text, path);
        return read.err().map(|error| error.to_string()).into_iter().collect();
    }
    if kind(gateway::config::KIND) {
        let read = GatewayConfig::from_yaml(&manifest.text, path);
        return read.err().map(|error| error.to_string()).into_iter().collect();
    }
    match api::parse_manifest(&place, &manifest.text) {
        Err(error) => vec![format!("{place}: {error}")],
        Ok(read) => {
            let errors = read.diagnostics.into_iter().filter(|d| d.severity == Severity::Error);
            errors.map(|error| format!("{place}: {error:?}")).collect()
        }
    }
}

fn problem_of_command(command: &Command) -> Option<String> {
    let program = command.words.first()?;
    if program.rsplit('/').next() != Some("fedctl") {
        return None;
    }
    let tree = fedctl::cli::command();
    let error = tree.try_get_matches_from(&command.words).err()?;
    // A page may name a command without what must follow it.
    let incomplete = [
        ErrorKind::DisplayHelp,
        ErrorKind::DisplayVersion,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
        ErrorKind::MissingSubcommand,
        ErrorKind::MissingRequiredArgument,
    ];
    if incomplete.contains(&error.kind()) {
        return None;
    }
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    Some(format!("{}:{}: `{}`: {first}", command.path, command.line, command.words.join(" ")))
}
