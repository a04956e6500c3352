//! Installing and checking: their options.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::objects::parse_duration;

#[derive(Debug, Args)]
pub struct Install {
    /// This cluster's name in the federation [default: from the name of the kubeconfig's context]
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// This cluster's trust domain; never changed later [default: CLUSTER.fedgate.internal]
    #[arg(long, value_name = "NAME")]
    pub trust_domain: Option<String>,
    /// Values of your own, which win over those that are chosen; may be repeated
    #[arg(short = 'f', long = "values", value_name = "FILE")]
    pub values: Vec<PathBuf>,
    /// One value of your own, which wins over all others; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Folder of the chart fedgate, beside which fedgate-crds lies [default: helm/fedgate]
    #[arg(long, value_name = "PATH")]
    pub chart: Option<PathBuf>,
    /// Name of the Helm release
    #[arg(long, default_value = "fedgate", value_name = "NAME")]
    pub release: String,
    /// Print the chosen values as YAML, with the reason for each, and do nothing; needs no helm
    #[arg(long, conflicts_with_all = ["dry_run", "wait"])]
    pub print_values: bool,
    /// Let helm render everything and the API server judge it, and install nothing
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
    /// Wait until everything is ready
    #[arg(
        long, value_parser = parse_duration, value_name = "TIME", num_args = 0..=1,
        default_missing_value = "5m"
    )]
    pub wait: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct Uninstall {
    /// Name of the Helm release
    #[arg(long, default_value = "fedgate", value_name = "NAME")]
    pub release: String,
    /// Remove the custom resource definitions too, and with them every object of Fedgate's kinds
    #[arg(long)]
    pub crds: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct Check {
    /// Before an installation: whether this cluster can take Fedgate, and you may install it
    #[arg(long, conflicts_with = "wait")]
    pub pre: bool,
    /// Only these categories, such as kubernetes or tunnels
    #[arg(long, value_delimiter = ',', value_name = "CATEGORIES")]
    pub only: Vec<String>,
    /// Warnings count as failures
    #[arg(long)]
    pub strict: bool,
    /// Check again until nothing fails, for so long at most
    #[arg(
        long, value_parser = parse_duration, value_name = "TIME", num_args = 0..=1,
        default_missing_value = "5m"
    )]
    pub wait: Option<Duration>,
}
