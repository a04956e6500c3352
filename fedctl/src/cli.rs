//! The command line: what can be said, not what it does. One file per command does that.

mod federation;
mod kubernetes;
mod objects;
mod operate;
mod plugin;
mod store;
mod why;

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::kubernetes::Role;
use crate::printer::OutputFormat;
pub use federation::{Join, Leave, Namespace, NamespaceGrant, Revoke, Token, TokenIssue};
pub use kubernetes::{Check, Install, Uninstall};
pub use objects::{Analyze, Apply, Delete, Diff, Export, Files, Get, Named, Unexport};
pub use operate::{BugReport, Cordon, Drain, Netcheck, Ping, Status, Uncordon};
pub use plugin::{is_plugin, parse_from};
pub use store::{Audit, Snapshot, Store};
pub use why::Why;

/// Operates a Fedgate federation.
#[derive(Debug, Parser)]
#[command(name = "fedctl", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Name of a context: which federation node to ask. `fedctl demo up` makes demo-east and so on
    #[arg(long, global = true, env = "FEDCTL_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// The node itself instead of a context: unix:PATH of its operator socket
    #[arg(long, global = true, value_name = "unix:PATH", conflicts_with = "context")]
    pub server: Option<String>,
    /// A kubeconfig's context instead: the node in that cluster, through its API server
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "server")]
    pub kube_context: Option<String>,
    /// The kubeconfig [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace that Fedgate itself runs in [default: fedgate-system, else where it is found]
    #[arg(long, global = true, value_name = "NAMESPACE")]
    pub fedgate_namespace: Option<String>,
    /// As whom to ask a node in Kubernetes [default: the strongest role that you may have]
    #[arg(long, global = true, value_enum)]
    pub role: Option<Role>,
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: OutputFormat,
    /// Say on standard error which node is asked, and as whom
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Whether this runs as `kubectl fed`.
    #[arg(skip)]
    pub plugin: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// A whole federation on this machine, without Kubernetes
    #[command(subcommand)]
    Demo(Demo),
    /// One screen: the node, its gateways, links, services and warnings
    Status(Status),
    /// The other clusters, and whether they can be reached
    Clusters,
    /// Connections between this cluster's gateways and others
    Links,
    /// Services of this cluster and of the clusterset
    Services,
    /// What was found wrong with the objects in service
    Diagnostics,
    /// This cluster's own ClusterPeer manifest, to be given to another cluster
    Peer,
    /// Found a federation with this cluster as its root
    Init,
    /// Tokens that let one new cluster in
    #[command(subcommand)]
    Token(Token),
    /// Join a federation by a token; or see and decide who joins through this cluster
    Join(Join),
    /// Take this cluster, or another one, out of the federation
    Leave(Leave),
    /// Shut a cluster, a trust domain or a stolen SVID of this cluster out at once
    Revoke(Revoke),
    /// Send no new exchanges to a cluster, until it is uncordoned
    Cordon(Cordon),
    /// Send exchanges to a cordoned cluster again
    Uncordon(Uncordon),
    /// Cordon a cluster, and wait until nothing is in flight to it
    Drain(Drain),
    /// Let other clusters reach a service of this one
    Export(Export),
    /// Withdraw a service from other clusters
    Unexport(Unexport),
    /// Which clusters may export in which namespaces
    #[command(subcommand)]
    Namespace(Namespace),
    /// Objects in service, whatever way they came
    Get(Get),
    /// One object with its source and what was found wrong with it
    Describe(Named),
    /// Take manifests into service: all of them, or none
    Apply(Apply),
    /// Take applied objects out of service
    Delete(Delete),
    /// What `apply` would change; exits with 1 if that is anything
    Diff(Diff),
    /// Judge manifests as a node would, without one; exits with 1 if there is an error
    Analyze(Analyze),
    /// The federation's store
    #[command(subcommand)]
    Store(Store),
    /// Trust domains that this cluster accepts
    #[command(subcommand)]
    Trust(Trust),
    /// Certificates of this cluster's parts
    #[command(subcommand)]
    Certs(Certs),
    /// What operators have changed, and whether that record is whole
    #[command(subcommand)]
    Audit(Audit),
    /// Install Fedgate into a Kubernetes cluster by Helm, with values that fit it
    Install(Install),
    /// Remove Fedgate from a Kubernetes cluster
    Uninstall(Uninstall),
    /// Check a cluster, its Fedgate and its way to other clusters, row by row
    Check(Check),
    /// Why a request reaches a service, or does not: hop by hop, to the first broken one
    Why(Why),
    /// How the gateways' links to a cluster do now: round trips, loss, path MTU; exits with 1 if nothing
    /// answers
    Ping(Ping),
    /// Which addresses of other clusters answer this machine by UDP/QUIC and by TCP; exits with 1 if a
    /// cluster has none that does
    Netcheck(Netcheck),
    /// Pack what others need to help into one file, without keys and tokens
    BugReport(BugReport),
    /// What a FED code means and what to do about it
    Explain(Explain),
    /// A shell's completion script
    Completion(Completion),
    /// What could come next on the command line, for `kubectl fed`
    #[command(name = "__complete", hide = true)]
    Complete {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Trust {
    /// Each trust domain, the cluster that owns it, and its authorities
    List,
    /// One stage of the rotation of this cluster's root: prepare, activate, then revoke the old one
    Rotate(TrustRotate),
}

#[derive(Debug, Args)]
pub struct TrustRotate {
    /// What is to be done now; each refuses while it would harm somebody
    #[arg(long, value_enum)]
    pub stage: RotationStage,
    /// Although a cluster would refuse the next root, or SVIDs of the old one live
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RotationStage {
    /// Make the next root and publish it; it signs nothing
    Prepare,
    /// Sign by it from now on
    Activate,
    /// Take the old root out of the bundle; before activation the prepared one
    Revoke,
}

#[derive(Debug, Subcommand)]
pub enum Certs {
    /// Each certificate and how long it is valid
    List,
    /// A new SVID for the node at once, and a new root if that has run out
    Rotate,
}

#[derive(Debug, Subcommand)]
pub enum Demo {
    /// Start four clusters, let them form a federation, and show faults and what they cost
    Up(DemoUp),
    /// Where the running demo's parts are
    Status(DemoFolder),
    /// Drop every packet from and to a cluster
    Cut(DemoCluster),
    /// Let a cluster's packets pass again
    Heal(DemoCluster),
    /// Stop the running demo
    Down(DemoFolder),
}

#[derive(Debug, Args)]
pub struct DemoUp {
    /// Go on in the background, once everything is up
    #[arg(long)]
    pub detach: bool,
    #[command(flatten)]
    pub folder: DemoFolder,
    /// Set by --detach for the process that it starts
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub in_background: bool,
}

#[derive(Debug, Args)]
pub struct DemoFolder {
    /// The demo's data folder [default: fedgate/demo in the user's state folder]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DemoCluster {
    /// east, west, south or north
    pub cluster: String,
    #[command(flatten)]
    pub folder: DemoFolder,
}

#[derive(Debug, Args)]
pub struct Explain {
    /// A code such as FED2001; without one, all of them
    pub code: Option<String>,
}

#[derive(Debug, Args)]
pub struct Completion {
    /// The shell; kubectl for the script kubectl_complete-fed
    #[arg(value_enum)]
    pub shell: Shell,
}

/// What asks for completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    Bash,
    Elvish,
    Fish,
    #[value(name = "powershell")]
    PowerShell,
    Zsh,
    /// `kubectl fed`, in any shell that completes kubectl
    Kubectl,
}

/// The whole tree, for completions and for the reference page.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tree_is_sound() {
        super::command().debug_assert();
    }
}
