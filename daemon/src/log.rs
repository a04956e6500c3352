//! Log lines on standard error, and which of them there are.
//!
//! To journald a line begins with its priority (`<4>`, sd-daemon(3)), and has no time and no colours of
//! its own: the journal keeps all three. JSON keeps its time, for whoever takes the lines out of it.

use std::fmt;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::MetadataExt as _;

use clap::{Args, ValueEnum};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Without an option, a variable and a field of the file.
const LEVEL_DEFAULT: &str = "info";

/// Options that every daemon has.
#[derive(Debug, Clone, Args)]
pub struct LogArguments {
    /// How log lines on standard error look
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "FEDGATE_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// Which log lines there are: a level, or `target=level` pairs; goes before `log.level` of the
    /// file [default: info]
    #[arg(long, env = "FEDGATE_LOG")]
    pub log_level: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// For programs: one object per line
    Json,
}

/// The log of this process, from [`Log::start`] on.
#[derive(Debug, Clone)]
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    /// By the command line or the environment.
    fixed: bool,
}

impl Log {
    /// A wrong level is told once lines can be written.
    pub fn start(arguments: &LogArguments) -> Result<Self, String> {
        // A variable that is set to nothing says nothing.
        let given = arguments.log_level.as_deref().filter(|level| !level.is_empty());
        let (filter, problem) = match parse(given.unwrap_or(LEVEL_DEFAULT)) {
            Ok(filter) => (filter, None),
            Err(problem) => (EnvFilter::new(LEVEL_DEFAULT), Some(problem)),
        };
        let (filter, handle) = reload::Layer::new(filter);
        let registry = tracing_subscriber::registry().with(filter);
        let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
        let text = tracing_subscriber::fmt::format();
        match (arguments.log_format, to_journal()) {
            (LogFormat::Text, false) => {
                registry.with(lines.with_ansi(io::stderr().is_terminal())).init();
            }
            (LogFormat::Text, true) => {
                let text = Prefixed(text.without_time().with_ansi(false));
                registry.with(lines.with_ansi(false).event_format(text)).init();
            }
            (LogFormat::Json, false) => registry.with(lines.json()).init(),
            (LogFormat::Json, true) => {
                let json = lines.fmt_fields(JsonFields::new()).event_format(Prefixed(text.json()));
                registry.with(json).init();
            }
        }
        match problem {
            Some(problem) => Err(format!("--log-level or FEDGATE_LOG: {problem}")),
            None => Ok(Self { filter: handle, fixed: given.is_some() }),
        }
    }

    /// The filter in force.
    pub fn level(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_else(|error| error.to_string())
    }

    /// Puts another filter into force, until the process ends or the file has another one.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        self.filter.reload(parse(level)?).map_err(|error| error.to_string())
    }

    /// `log.level` of the file, which has the last word only if nobody else has said anything.
    pub fn follow_file(&self, level: Option<&str>) {
        if self.fixed {
            return;
        }
        let level = level.unwrap_or(LEVEL_DEFAULT);
        if let Err(problem) = self.set_level(level) {
            tracing::error!(level, problem, "the log level stays as it is");
        }
    }
}

/// Says what is wrong with a level, and what to write instead.
pub fn check_level(level: &str) -> Result<(), String> {
    parse(level).map(drop)
}

fn parse(level: &str) -> Result<EnvFilter, String> {
    let problem = |error| format!("{level:?}: {error}; use info, debug or target=level");
    EnvFilter::builder().parse(level).map_err(problem)
}

/// `$JOURNAL_STREAM` names the socket of journald that standard error was at the start (systemd.exec(5));
/// it may have been redirected since.
fn to_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM");
    let error = fs::metadata("/proc/self/fd/2");
    let (Ok(stream), Ok(error)) = (stream, error) else { return false };
    stream == format!("{}:{}", error.dev(), error.ino())
}

/// Begins each line with its syslog priority.
struct Prefixed<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prefixed<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_level_is_told_with_its_value_and_a_fix() {
        assert_eq!(check_level("info,tunnel=debug"), Ok(()));
        let problem = check_level("tunnel=loud").unwrap_err();
        assert!(problem.starts_with("\"tunnel=loud\": "), "{problem}");
        assert!(problem.ends_with("use info, debug or target=level"), "{problem}");
    }

    #[test]
    fn priorities_are_those_of_syslog() {
        let of = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        assert_eq!(of.map(priority), [3, 4, 6, 7, 7]);
    }
}
