//! `fedctl completion`: a script for the shell.

use clap_complete::Shell;

use crate::cli;
use crate::error::CommandError;
use crate::printer::Printer;

pub(super) fn run(shell: Shell, printer: &Printer) -> Result<(), CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "fedctl", &mut script);
    printer.data(&String::from_utf8_lossy(&script))
}
