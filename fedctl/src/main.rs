//! `fedctl`: parse, run, report.

use std::process::ExitCode;

use clap::Parser;
use fedctl::commands::Outcome;

fn main() -> ExitCode {
    let cli = fedctl::cli::Cli::parse();
    match fedctl::commands::run(cli) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Differs) => ExitCode::from(1),
        Err(error) => {
            fedctl::printer::Printer::default().talk(&error.to_string());
            ExitCode::from(error.exit as u8)
        }
    }
}
