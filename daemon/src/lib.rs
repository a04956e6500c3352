//! What a long-running process has to do with the system around it, whatever it serves: log lines, its
//! service manager, and a configuration file that changes while it runs.

mod config_file;
mod difference;
pub mod limits;
mod log;
mod notify;
mod source;

pub use config_file::ConfigFile;
pub use log::{Log, LogArguments, LogFormat, check_level};
pub use notify::Notifier;
pub use source::{ConfigError, ConfigSource, Text};
