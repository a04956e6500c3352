//! `fedctl`: parse, run, report.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = fedctl::cli::Cli::parse();
    match fedctl::commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            fedctl::printer::Printer::default().talk(&error.to_string());
            ExitCode::from(error.exit as u8)
        }
    }
}
