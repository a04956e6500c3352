//! Where output goes: data to stdout, talk to stderr, colour only on a terminal.

use std::io::{BufRead, IsTerminal, Read, Write};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use crate::error::CommandError;

/// Longest answer to a question.
const ANSWER_BYTES_MAX: u64 = 64;

/// How a reading command shows its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// For programs: an object with `apiVersion` and `kind`.
    Json,
    /// The same as YAML; manifests where the command is about manifests.
    Yaml,
    /// `check` and `why` only: what is wrong, without what is well.
    Short,
    /// `check` only: for systems that collect test results.
    Junit,
}

/// Writes data to stdout and talk to stderr.
#[derive(Debug, Clone, Copy, Default)]
pub struct Printer {
    pub format: OutputFormat,
    /// Whether details are told too.
    pub verbose: bool,
    /// Whether people called `kubectl fed`, so that hints say it so.
    pub plugin: bool,
}

impl Printer {
    /// One result: as a JSON document, or as the text that `table` makes of it.
    pub fn result<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), CommandError> {
        self.data(&self.text(value, table)?)
    }

    /// The same as a text.
    pub fn text<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<String, CommandError> {
        Ok(match self.format {
            OutputFormat::Json => serde_json::to_string_pretty(value)
                .map_err(|error| CommandError::failed(format!("output as JSON: {error}")))?,
            OutputFormat::Yaml => serde_saphyr::to_string(value)
                .map_err(|error| CommandError::failed(format!("output as YAML: {error}")))?,
            OutputFormat::Table | OutputFormat::Short | OutputFormat::Junit => table(value),
        })
    }

    /// Lines of data. A closed pipe (`| head`) is no error.
    pub fn data(&self, text: &str) -> Result<(), CommandError> {
        self.still_read(text).map(drop)
    }

    /// The same; `false` when nobody reads any more.
    pub fn still_read(&self, text: &str) -> Result<bool, CommandError> {
        match writeln!(std::io::stdout().lock(), "{}", text.trim_end()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(CommandError::failed(format!("write to stdout: {error}"))),
        }
    }

    /// A line for the person watching. Nothing depends on its being seen.
    pub fn talk(&self, line: &str) {
        let line = if self.plugin { as_plugin(line) } else { line.to_owned() };
        let _unseen = writeln!(std::io::stderr().lock(), "{line}");
    }

    /// A line for the person who asked for details.
    pub fn detail(&self, line: &str) {
        if self.verbose {
            self.talk(line);
        }
    }
}

/// Commands in a hint as they are typed to the plugin: `fedctl init` is `kubectl fed init`.
pub fn as_plugin(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("fedctl ") {
        let (before, after) = rest.split_at(at);
        // Not a path that ends so, nor another program.
        let word = !before.ends_with(|last: char| last.is_alphanumeric() || "/-_.".contains(last));
        shown += before;
        shown += if word { "kubectl fed " } else { "fedctl " };
        rest = &after["fedctl ".len()..];
    }
    shown + rest
}

/// Asks a person; `false` when the answer is anything but yes. Only for a terminal.
pub fn ask(question: &str) -> bool {
    let _unseen = write!(std::io::stderr().lock(), "{question} [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().lock().take(ANSWER_BYTES_MAX).read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Whether a person can be asked.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Whether a person is watching both ends.
pub fn on_a_terminal() -> bool {
    std::io::stdout().is_terminal() && std::io::stderr().is_terminal()
}

/// Columns aligned by spaces, without lines, as kubectl has them.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_string()).collect();
    lines.join("\n")
}

/// An age as people say it: `0.4s`, `12s`, `3m`, `5h`, `2d`.
pub fn age(milliseconds: u64) -> String {
    match milliseconds {
        0..10_000 => format!("{:.1}s", milliseconds as f64 / 1e3),
        10_000..120_000 => format!("{}s", milliseconds / 1000),
        120_000..7_200_000 => format!("{}m", milliseconds / 60_000),
        7_200_000..172_800_000 => format!("{}h", milliseconds / 3_600_000),
        _ => format!("{}d", milliseconds / 86_400_000),
    }
}

/// A duration in milliseconds with a precision that fits: `0.21 ms`, `4.1 ms`, `180 ms`.
pub fn milliseconds(microseconds: u64) -> String {
    let ms = microseconds as f64 / 1e3;
    match ms {
        x if x < 1.0 => format!("{ms:.2} ms"),
        x if x < 100.0 => format!("{ms:.1} ms"),
        _ => format!("{ms:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_have_no_trailing_space() {
        let text = table(&["A", "LONG"], [vec!["xyz".into(), "1".into()]]);
        assert_eq!(text, "A    LONG\nxyz  1");
    }

    #[test]
    fn hints_name_the_program_that_was_called() {
        for (text, want) in [
            ("Next: fedctl init", "Next: kubectl fed init"),
            (
                "`fedctl check` or /usr/bin/fedctl check",
                "`kubectl fed check` or /usr/bin/fedctl check",
            ),
            ("fedctl", "fedctl"),
        ] {
            assert_eq!(as_plugin(text), want);
        }
    }

    #[test]
    fn ages_and_durations_read_well() {
        for (ms, want) in [(400, "0.4s"), (12_000, "12s"), (180_000, "3m"), (7_200_000, "2h")] {
            assert_eq!(age(ms), want);
        }
        assert_eq!(age(400_000_000), "4d");
        for (us, want) in [(210, "0.21 ms"), (4_100, "4.1 ms"), (180_000, "180 ms")] {
            assert_eq!(milliseconds(us), want);
        }
    }
}
