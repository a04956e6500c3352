//! `fedctl`: parse, run, report. Called as `kubectl-fed` it is a plugin of kubectl.

use std::process::ExitCode;

use fedctl::cli;
use fedctl::commands::Outcome;
use fedctl::printer::Printer;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let plugin = cli::is_plugin(&arguments);
    let parsed = match cli::parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(usage) => usage.exit(),
    };
    match fedctl::commands::run(parsed) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Differs | Outcome::Unwell) => ExitCode::from(1),
        Ok(Outcome::Warned) => ExitCode::from(3),
        Err(error) => {
            Printer { plugin, ..Printer::default() }.talk(&error.to_string());
            ExitCode::from(error.exit as u8)
        }
    }
}
