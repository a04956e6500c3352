//! A configuration file, for messages that point into it, and how the plainest values are read.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_saphyr::{Error, Spanned};

use crate::check_level;

/// A value and where it stands.
pub type Text = Spanned<String>;

/// The file, for messages that point into it.
#[derive(Debug, Clone, Copy)]
pub struct ConfigSource<'a> {
    pub text: &'a str,
    pub path: &'a Path,
}

/// Why a configuration was refused; each message has the place, the field, the value and the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {problem}", path.display(), Line(*line))]
pub struct ConfigError {
    pub path: PathBuf,
    /// From 1; `None` when the whole file is meant.
    pub line: Option<u64>,
    pub problem: String,
}

/// `:7` or nothing.
struct Line(Option<u64>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

impl ConfigSource<'_> {
    pub fn error(&self, line: Option<u64>, problem: String) -> ConfigError {
        ConfigError { path: self.path.into(), line, problem }
    }

    pub fn refuse<T: fmt::Debug>(
        &self,
        field: &str,
        value: &Spanned<T>,
        problem: impl fmt::Display,
    ) -> ConfigError {
        let line = value.referenced.line();
        self.error(Some(line), format!("{field} = {:?}: {problem}", value.value))
    }

    /// The parser does not always name the field, but it knows the line, which is quoted.
    pub fn syntax_error(&self, error: &Error) -> ConfigError {
        let line = error.location().map(|location| location.line()).filter(|line| *line > 0);
        let full = error.without_snippet().to_string();
        // The parser speaks to programmers in these cases.
        let problem = match error.without_snippet() {
            Error::DuplicateMappingKey { .. } => "the field is there twice; remove one",
            Error::NullIntoString { .. } => "the value is missing; write one",
            Error::MultipleDocuments { .. } => {
                "a second document begins here; keep one, and give each process a file of its own"
            }
            _ => full.split(" at line ").next().unwrap_or_default().trim_end_matches(','),
        };
        let index = line.and_then(|line| usize::try_from(line - 1).ok());
        let quoted = index.and_then(|index| self.text.lines().nth(index)).map_or("", str::trim);
        let quoted = if quoted.is_empty() { String::new() } else { format!("`{quoted}`: ") };
        let fix = "docs/reference/config.md lists the fields";
        self.error(line, format!("{quoted}{problem}; {fix}"))
    }

    pub fn expect(&self, field: &str, value: &Text, wanted: &str) -> Result<(), ConfigError> {
        if value.value == wanted {
            return Ok(());
        }
        Err(self.refuse(field, value, format_args!("write {wanted}")))
    }

    pub fn parse<T, E: fmt::Display>(
        &self,
        field: &str,
        value: &Text,
        rule: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, ConfigError> {
        rule(&value.value).map_err(|error| self.refuse(field, value, error))
    }

    pub fn log_level(&self, value: Option<&Text>) -> Result<Option<String>, ConfigError> {
        let rule = |level: &str| check_level(level).map(|()| level.to_owned());
        value.map(|value| self.parse("log.level", value, rule)).transpose()
    }

    pub fn path(&self, field: &str, value: &Text) -> Result<PathBuf, ConfigError> {
        if value.value.is_empty() {
            return Err(self.refuse(field, value, "it is empty; give a path"));
        }
        Ok(self.path.parent().unwrap_or_else(|| Path::new("")).join(&value.value))
    }
}
