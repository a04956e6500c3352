//! `fedctl completion`: a script for the shell, or for kubectl, which asks `kubectl fed` itself.

use clap::Command;

use crate::cli::{self, Shell};
use crate::error::CommandError;
use crate::printer::Printer;

/// What kubectl runs for a plugin's completion.
const KUBECTL: &str = "\
#!/usr/bin/env sh
# Put this on the PATH as kubectl_complete-fed, beside kubectl-fed.
exec kubectl-fed __complete -- \"$@\"
";
/// Cobra's word for: nothing else fits, and no file names either.
const NO_FILES: &str = ":4";
/// Cobra's word for: file names may fit.
const FILES: &str = ":0";

pub(super) fn run(shell: Shell, printer: &Printer) -> Result<(), CommandError> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Elvish => clap_complete::Shell::Elvish,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::PowerShell => clap_complete::Shell::PowerShell,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Kubectl => return printer.data(KUBECTL),
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "fedctl", &mut script);
    printer.data(&String::from_utf8_lossy(&script))
}

/// Answers as Cobra does: a line for each word that fits, with what it means, then a directive.
pub(super) fn complete(words: &[String], printer: &Printer) -> Result<(), CommandError> {
    printer.data(&candidates(cli::command(), words))
}

fn candidates(mut tree: Command, words: &[String]) -> String {
    tree.build();
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, rest)| (&**last, rest));
    let mut here = &tree;
    for word in before {
        here = here.find_subcommand(word).unwrap_or(here);
    }
    let mut found: Vec<(String, String)> = Vec::new();
    let first_line = |text: Option<String>| text.unwrap_or_default();
    for command in here.get_subcommands().filter(|command| !command.is_hide_set()) {
        let about = command.get_about().map(ToString::to_string);
        found.push((command.get_name().into(), first_line(about)));
    }
    for option in here.get_arguments().filter(|option| !option.is_hide_set()) {
        if let Some(long) = option.get_long().filter(|_| last.starts_with('-')) {
            let help = option.get_help().map(ToString::to_string);
            found.push((format!("--{long}"), first_line(help)));
        }
    }
    found.retain(|(word, _)| word.starts_with(last));
    let directive = if found.is_empty() { FILES } else { NO_FILES };
    let mut lines: Vec<String> =
        found.into_iter().map(|(word, about)| format!("{word}\t{about}")).collect();
    lines.push(directive.into());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &[&str]) -> String {
        let words: Vec<String> = line.iter().map(ToString::to_string).collect();
        candidates(cli::command(), &words)
    }

    #[test]
    fn what_fits_is_told_as_cobra_tells_it() {
        assert_eq!(
            of(&["sta"]),
            "status\tOne screen: the node, its gateways, links, services and warnings\n:4"
        );
        let verbs = of(&["token", ""]);
        assert!(verbs.contains("issue\t") && verbs.contains("revoke\t"), "{verbs}");
        let options = of(&["token", "issue", "--e"]);
        assert!(
            options.starts_with("--expires\tHow long") && options.ends_with("\n:4"),
            "{options}"
        );
        assert_eq!(of(&["apply", "-f", "x"]), ":0", "perhaps a file");
        assert!(!of(&[""]).contains("__complete"));
    }
}
