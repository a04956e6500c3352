//! What the pages tell a reader to write or to type is taken by the real parsers.

use std::path::Path;

use clap::error::ErrorKind;
use federation::config::FederationConfig;
use gateway::config::GatewayConfig;
use xtask::repo::Repo;
use xtask::tidy::{Command, Manifest, commands, manifests};

// Objects in the pages are read by a test of `discovery`.
#[test]
fn every_configuration_file_is_read() {
    let manifests = manifests(&Repo::here().unwrap());
    let read: Vec<_> = manifests.iter().filter_map(read_configuration).collect();
    let problems: Vec<&str> =
        read.iter().filter_map(|r| r.as_ref().err()).map(String::as_str).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(read.len() >= 2, "the guide shows a file for each process");
}

#[test]
fn every_fedctl_command_exists() {
    let problems: Vec<String> =
        commands(&Repo::here().unwrap()).iter().filter_map(problem_of_command).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_wrong_file_or_command_would_be_found() {
    for kind in [federation::config::KIND, gateway::config::KIND] {
        let text = format!("apiVersion: fedgate.dev/v1alpha1\nkind: {kind}\nno: 1\n");
        let manifest = Manifest { path: "a.md".into(), line: 1, text };
        assert!(matches!(read_configuration(&manifest), Some(Err(_))), "{kind}");
    }

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

/// What the process says of its configuration file; `None` for an object.
fn read_configuration(manifest: &Manifest) -> Option<Result<(), String>> {
    let place = format!("{}:{}", manifest.path, manifest.line);
    let path = Path::new(&place);
    let kind = manifest.text.lines().find_map(|line| line.strip_prefix("kind: "))?;
    match kind.trim() {
        federation::config::KIND => {
            let read = FederationConfig::from_yaml(&manifest.text, path);
            Some(read.map(drop).map_err(|error| error.to_string()))
        }
        gateway::config::KIND => {
            let read = GatewayConfig::from_yaml(&manifest.text, path);
            Some(read.map(drop).map_err(|error| error.to_string()))
        }
        _ => None,
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
