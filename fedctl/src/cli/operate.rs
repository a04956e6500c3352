//! What an operator does on a bad day: options.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use wire::resource::limits::PING_PROBES_MAX;

use super::objects::parse_duration;

#[derive(Debug, Args)]
pub struct Status {
    /// Go on until interrupted, and show it anew whenever something changes
    #[arg(short, long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct Cordon {
    #[command(flatten)]
    pub whom: Cordoned,
    /// Why; `fedctl clusters` shows it
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT",
        conflicts_with = "gateway"
    )]
    pub reason: String,
    /// Also the last gateway of the cluster that serves
    #[arg(long, conflicts_with = "cluster")]
    pub force: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Cordoned {
    /// The cluster; this one's own name for what all others send here
    pub cluster: Option<String>,
    /// One gateway of this cluster, on this machine, in place of a whole cluster
    #[arg(long, value_name = "NAME")]
    pub gateway: Option<String>,
}

impl Cordoned {
    /// Without a gateway the command line has a cluster.
    pub fn cluster(&self) -> &str {
        self.cluster.as_deref().unwrap_or_default()
    }
}

#[derive(Debug, Args)]
pub struct Uncordon {
    #[command(flatten)]
    pub whom: Cordoned,
}

#[derive(Debug, Args)]
pub struct Drain {
    #[command(flatten)]
    pub cordon: Cordon,
    /// How long to wait for what is in flight
    #[arg(long, default_value = "2m", value_parser = parse_duration, value_name = "TIME")]
    pub wait: Duration,
}

#[derive(Debug, Args)]
pub struct BugReport {
    /// The file to write [default: fedgate-bug-report-TIME.tar.gz]
    #[arg(value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// Replace names and addresses, each by the same word in every file
    #[arg(long)]
    pub redact: bool,
    /// Pack the end of this file too, such as a log; may be repeated
    #[arg(long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Netcheck {
    /// Addresses to ask [default: all of the clusters that the node knows]
    #[arg(value_name = "HOST:PORT")]
    pub addresses: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Ping {
    /// The cluster
    pub cluster: String,
    /// How often each link is asked, five times a second: 1 to 100
    #[arg(
        short, long, default_value_t = 5, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(PING_PROBES_MAX))
    )]
    pub count: u32,
    /// Show how large packets may be on each link, as far as path MTU discovery has found it
    #[arg(long)]
    pub mtu: bool,
}
