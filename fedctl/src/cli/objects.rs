//! Objects and exports: their options.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

#[derive(Debug, Args)]
pub struct Get {
    /// A kind such as ServiceExport, accesspolicies or svc; `all` for every kind
    pub kind: String,
    /// One object, as NAME or NAMESPACE/NAME
    pub name: Option<String>,
    /// Only this namespace
    #[arg(short, long)]
    pub namespace: Option<String>,
}

#[derive(Debug, Args)]
pub struct Named {
    /// The kind
    pub kind: String,
    /// As NAME or NAMESPACE/NAME
    pub name: String,
    /// The namespace, if the name does not say it
    #[arg(short, long)]
    pub namespace: Option<String>,
}

/// Manifests.
#[derive(Debug, Args)]
pub struct Files {
    /// A manifest, a folder of manifests, or - for standard input; may be repeated
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    pub files: Files,
    /// Say what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct Delete {
    /// The kind
    #[arg(group = "what", requires = "name")]
    pub kind: Option<String>,
    /// As NAME or NAMESPACE/NAME
    #[arg(requires = "kind")]
    pub name: Option<String>,
    /// The namespace, if the name does not say it
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// What these manifests name: a file, a folder, or - for standard input; may be repeated
    #[arg(short, long = "filename", group = "what", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// What does not exist is no error
    #[arg(long)]
    pub ignore_missing: bool,
}

#[derive(Debug, Args)]
pub struct Diff {
    #[command(flatten)]
    pub files: Files,
}

#[derive(Debug, Args)]
pub struct Analyze {
    /// A manifest, a folder of manifests, or - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The cluster whose node is to serve them
    #[arg(long, default_value = "this-cluster", value_name = "NAME")]
    pub cluster: String,
    /// Its trust domain, so that a ClusterPeer that claims it is found
    #[arg(long, value_name = "NAME")]
    pub trust_domain: Option<String>,
    /// There are more objects than in these files: one that is missing here is a warning
    #[arg(long)]
    pub partial: bool,
    /// Warnings count as failures
    #[arg(long)]
    pub strict: bool,
}

#[derive(Debug, Args)]
pub struct Export {
    /// The Service, as NAME or NAMESPACE/NAME
    pub service: String,
    /// The namespace, if the name does not say it
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Who may come: cluster=NAME, trust-domain=NAME or spiffe-id=ID, several by commas if all must
    /// match; may be repeated. Replaces who could come before
    #[arg(long = "to", required_unless_present = "to_nobody", value_name = "WHO")]
    pub to: Vec<String>,
    /// Export it, but let nobody in yet
    #[arg(long, conflicts_with = "to")]
    pub to_nobody: bool,
    /// Print the manifests instead (as YAML)
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Unexport {
    /// The Service, as NAME or NAMESPACE/NAME
    pub service: String,
    /// The namespace, if the name does not say it
    #[arg(short, long)]
    pub namespace: Option<String>,
}

/// `90s`, `15m`, `2h`, `7d`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: write a number and s, m, h or d, such as 15m");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(seconds).ok_or_else(wrong)?;
    if seconds == 0 || seconds > 366 * 86_400 {
        return Err(format!("{text:?} is out of range: 1s to 366d"));
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_a_number_and_a_unit() {
        for (text, want) in [("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604_800)] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_secs(want));
        }
        for (text, wanted) in [
            ("", "is no time"),
            ("15", "is no time"),
            ("m", "is no time"),
            ("-1m", "is no time"),
            ("1.5h", "is no time"),
            ("15min", "is no time"),
            ("99999999999999999999d", "is no time"),
            ("3é", "is no time"),
            ("0s", "out of range"),
            ("367d", "out of range"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
