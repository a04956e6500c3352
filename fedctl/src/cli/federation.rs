//! Founding, joining, leaving: their options.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::objects::parse_duration;

#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token for one new cluster; its text goes to standard output and is a secret
    Issue(TokenIssue),
    /// Tokens and what has become of them
    List {
        /// Everything that was acknowledged before, by whatever node; needs a quorum of the store
        #[arg(long)]
        linearizable: bool,
    },
    /// Make a token useless
    Revoke {
        /// As `fedctl token list` shows it
        id: String,
    },
}

#[derive(Debug, Args)]
pub struct TokenIssue {
    /// The name that the new cluster will have
    pub name: String,
    /// What it may do: a list of admit, admin and export, or none
    #[arg(long, default_value = "export", value_name = "ROLES")]
    pub roles: String,
    /// How many generations of clusters it may admit in turn
    #[arg(long, default_value_t = 0, value_name = "GENERATIONS")]
    pub depth: u32,
    /// How long the token can be used, such as 15m or 2h
    #[arg(long, default_value = "15m", value_parser = parse_duration, value_name = "TIME")]
    pub expires: Duration,
    /// Whoever uses it waits until a person approves: `fedctl join --approve NAME`
    #[arg(long)]
    pub approve: bool,
    /// Make it although no address of this cluster answers
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct Join {
    /// The token, or - to read it from standard input, which keeps it out of the shell's history
    #[arg(group = "what")]
    pub token: Option<String>,
    /// Try the token's addresses and ask the inviter, but change nothing
    #[arg(long, requires = "token", conflicts_with = "dry_run")]
    pub pre: bool,
    /// As --pre, and print what other clusters would learn of this one (a ClusterPeer, as YAML)
    #[arg(long, requires = "token")]
    pub dry_run: bool,
    /// How long to wait for the end; the node goes on by itself
    #[arg(long, default_value = "2m", value_parser = parse_duration, value_name = "TIME")]
    pub wait: Duration,
    /// Show clusters that wait here for approval
    #[arg(long, group = "what")]
    pub list: bool,
    /// Let a waiting cluster in, by its name or id
    #[arg(long, group = "what", value_name = "CLUSTER")]
    pub approve: Option<String>,
    /// Turn a waiting cluster away, by its name or id
    #[arg(long, group = "what", value_name = "CLUSTER")]
    pub deny: Option<String>,
}

#[derive(Debug, Args)]
pub struct Leave {
    /// Another cluster to take out; without it, this one leaves
    pub name: Option<String>,
    /// Withdraw all exports first, and wait so long before leaving
    #[arg(
        long, value_parser = parse_duration, value_name = "TIME", num_args = 0..=1,
        default_missing_value = "30s", conflicts_with = "name"
    )]
    pub drain: Option<Duration>,
    /// Leave although nobody can be told
    #[arg(long, conflicts_with = "name")]
    pub force: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("whom").required(true))]
pub struct Revoke {
    /// The cluster
    #[arg(group = "whom")]
    pub cluster: Option<String>,
    /// A trust domain instead of a cluster
    #[arg(long, group = "whom", value_name = "NAME")]
    pub trust_domain: Option<String>,
    /// A gateway of this cluster, whose key is in other hands; it gets a new SVID by itself
    #[arg(long, group = "whom", value_name = "NAME", conflicts_with_all = ["reanchor", "also"])]
    pub gateway: Option<String>,
    /// Any other SVID of this cluster's trust domain
    #[arg(long, group = "whom", value_name = "ID", conflicts_with_all = ["reanchor", "also"])]
    pub spiffe_id: Option<String>,
    /// Why; every member sees it, but for an SVID of this cluster
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub reason: String,
    /// Of the clusters that it had admitted, those that stay; this cluster becomes their issuer
    #[arg(long, value_delimiter = ',', value_name = "CLUSTERS", conflicts_with = "trust_domain")]
    pub reanchor: Vec<String>,
    /// Of the clusters that it had admitted, those that are revoked too
    #[arg(long, value_delimiter = ',', value_name = "CLUSTERS", conflicts_with = "trust_domain")]
    pub also: Vec<String>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Subcommand)]
pub enum Namespace {
    /// Let clusters, and no others, export in a namespace; counts if this cluster has the role admin
    Grant(NamespaceGrant),
}

#[derive(Debug, Args)]
pub struct NamespaceGrant {
    /// Namespaces; team-a-* means all whose names begin so
    #[arg(required = true, value_name = "NAMESPACE")]
    pub namespaces: Vec<String>,
    /// The clusters that may export there
    #[arg(long, required = true, value_delimiter = ',', value_name = "CLUSTERS")]
    pub clusters: Vec<String>,
    /// The NamespaceGrant's name [default: the first namespace]
    #[arg(long)]
    pub name: Option<String>,
    /// Print the manifest instead (with -o yaml alone)
    #[arg(long)]
    pub dry_run: bool,
}
