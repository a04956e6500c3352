//! `fedctl why`: its options.

use clap::Args;

#[derive(Debug, Args)]
pub struct Why {
    /// Who asks: CLUSTER, CLUSTER/NAMESPACE/SERVICEACCOUNT, or a SPIFFE ID
    #[arg(value_name = "SRC")]
    pub source: String,
    /// What for: NAMESPACE/SERVICE[.CLUSTER][:PORT], or the host name that clients call: HOST[:PORT]
    #[arg(value_name = "DST")]
    pub target: String,
    /// Path of the HTTP request
    #[arg(long, default_value = "/")]
    pub path: String,
    /// Ask this node too, best that of DST: a context, or unix:PATH; may be given several times
    #[arg(long, value_name = "NODE")]
    pub also: Vec<String>,
    /// Send a real request through the gateway of SRC
    #[arg(long)]
    pub live: bool,
    /// Exit with 3 if nothing is broken, but not everything is known
    #[arg(long)]
    pub strict: bool,
}
