//! Which cluster is meant: a context of the kubeconfig, or the cluster that this process runs in.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig as File, KubeconfigError};
use model::{ClusterName, code};

use super::refusal::{innermost, no_client};
use crate::error::{CommandError, Exit};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Set by Kubernetes in each pod.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

/// Which kubeconfig, and which of its contexts.
#[derive(Debug, Clone, Default)]
pub struct Kubeconfig {
    /// Else `$KUBECONFIG`, else `~/.kube/config`.
    pub file: Option<PathBuf>,
    /// Else the current one.
    pub context: Option<String>,
}

/// There is no kubeconfig at all, which is a mistake only if one was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoKubeconfig;

/// A cluster's API server, and what messages call the cluster.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    pub name: String,
    /// The API server's address.
    pub server: String,
    /// The namespace of the context.
    pub namespace: String,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, server, .. } = self;
        f.debug_struct("Cluster")
            .field("name", name)
            .field("server", server)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Reads the kubeconfig; nothing is asked of the cluster yet. The inner error: there is none.
    pub async fn open(wanted: &Kubeconfig) -> Result<Result<Self, NoKubeconfig>, CommandError> {
        let Some(file) = read(wanted)? else {
            return match std::env::var_os(IN_CLUSTER) {
                Some(_) if wanted.context.is_none() => Self::around().map(Ok),
                _ => Ok(Err(NoKubeconfig)),
            };
        };
        let name = chosen_context(&file, wanted.context.as_deref())?;
        let named_proxy = has_proxy(&file, &name);
        let options = KubeConfigOptions { context: Some(name.clone()), ..Default::default() };
        let config = Config::from_custom_kubeconfig(file, &options).await;
        let mut config =
            config.map_err(|error| unusable(format!("context {name:?}: {}", innermost(&error))))?;
        // kube takes HTTPS_PROXY from the environment and does not look at NO_PROXY.
        let exceptions = std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy"));
        let host = config.cluster_url.host().unwrap_or_default();
        if !named_proxy && is_direct(host, &exceptions.unwrap_or_default()) {
            config.proxy_url = None;
        }
        Self::of(config, name).map(Ok)
    }

    /// As [`Self::open`], where a kubeconfig is needed.
    pub async fn required(wanted: &Kubeconfig) -> Result<Self, CommandError> {
        Self::open(wanted).await?.map_err(|NoKubeconfig| no_kubeconfig(wanted))
    }

    /// The cluster around this pod.
    fn around() -> Result<Self, CommandError> {
        let config = Config::incluster();
        let config = config.map_err(|error| unusable(format!("in this pod: {error}")))?;
        Self::of(config, "around this pod".into())
    }

    /// Also for tests, whose API server is no real one.
    pub fn of(mut config: Config, name: String) -> Result<Self, CommandError> {
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // A person waits: one clear answer is worth more than a late one.
        config.default_retry = false;
        let (server, namespace) =
            (config.cluster_url.to_string(), config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| no_client(&name, &error))?;
        Ok(Self { client, name, server, namespace })
    }
}

/// `None`: there is no such file where one is looked for by default.
fn read(wanted: &Kubeconfig) -> Result<Option<File>, CommandError> {
    let read = match &wanted.file {
        Some(file) => File::read_from(file),
        None => File::read(),
    };
    match read {
        Ok(file) => Ok(Some(file)),
        Err(KubeconfigError::FindPath) => Ok(None),
        Err(KubeconfigError::ReadConfig(error, path)) => match error.kind() {
            std::io::ErrorKind::NotFound if wanted.file.is_none() => Ok(None),
            _ => Err(unusable(format!("{}: {error}", path.display()))),
        },
        Err(error) => Err(unusable(innermost(&error))),
    }
}

fn chosen_context(file: &File, wanted: Option<&str>) -> Result<String, CommandError> {
    let current = file.current_context.as_deref().filter(|name| !name.is_empty());
    let Some(name) = wanted.or(current) else {
        return Err(unusable("no context is current".into()).hint(known(file)));
    };
    match file.contexts.iter().any(|context| context.name == name) {
        true => Ok(name.into()),
        false => Err(unusable(format!("there is no context {name:?}")).hint(known(file))),
    }
}

fn has_proxy(file: &File, context: &str) -> bool {
    let context = file.contexts.iter().find(|named| named.name == context);
    let cluster = context.and_then(|named| named.context.as_ref()).map(|context| &context.cluster);
    let cluster = file.clusters.iter().find(|named| Some(&named.name) == cluster);
    let proxy = cluster.and_then(|named| named.cluster.as_ref()?.proxy_url.as_ref());
    proxy.is_some_and(|url| !url.is_empty())
}

/// Whether a host is reached without the environment's proxy, as Go and so kubectl judge it: this
/// machine, and what NO_PROXY lists by name, domain, address or range.
fn is_direct(host: &str, exceptions: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    exceptions.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        if let Some((network, bits)) = entry.split_once('/') {
            return address.is_some_and(|address| is_within(address, network, bits));
        }
        let domain = entry.trim_start_matches("*.").trim_start_matches('.');
        entry == "*" || host == domain || host.ends_with(&format!(".{domain}"))
    })
}

fn is_within(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse(), bits.parse::<u32>()) else { return false };
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (u128::from(address.to_bits()), u128::from(network.to_bits()), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    // No bits at all mean every address of the family.
    bits == 0 || (bits <= width && (address ^ network) >> (width - bits) == 0)
}

fn known(file: &File) -> String {
    let names: Vec<&str> = file.contexts.iter().map(|context| context.name.as_str()).collect();
    match names.is_empty() {
        true => "the kubeconfig has no contexts".into(),
        false => format!("name one of these with --kube-context: {}", names.join(", ")),
    }
}

fn unusable(why: String) -> CommandError {
    CommandError::new(Exit::Usage, format!("kubeconfig: {why}"))
        .code(code::KUBECONFIG_UNUSABLE)
        .hint("set KUBECONFIG or --kubeconfig to a file that `kubectl` accepts")
}

pub(crate) fn no_kubeconfig(wanted: &Kubeconfig) -> CommandError {
    let context = wanted.context.as_ref();
    let context = context.map_or_else(String::new, |name| format!(", so no context {name:?}"));
    unusable(format!("there is none{context}"))
}

/// A cluster's name as the makers of its kubeconfig hide it in the context's: `kind-east`,
/// `arn:aws:eks:eu-west-1:1234:cluster/east`, `gke_project_europe-west1_east`, `admin@east`.
pub fn default_cluster_name(context: &str) -> Option<ClusterName> {
    let name = match context {
        arn if arn.starts_with("arn:") => arn.rsplit('/').next()?,
        gke if gke.starts_with("gke_") => gke.rsplit('_').next()?,
        other => {
            let other = other.rsplit('@').next()?;
            ["kind-", "k3d-"].iter().find_map(|prefix| other.strip_prefix(prefix)).unwrap_or(other)
        }
    };
    ClusterName::parse(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
current-context: kind-east
clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]
users: [{name: u, user: {token: t}}]
contexts:
- {name: kind-east, context: {cluster: c, user: u, namespace: shop}}
- {name: broken, context: {cluster: gone, user: u}}
";

    async fn open(text: &str, context: Option<&str>) -> Result<Cluster, CommandError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        std::fs::write(&file, text).unwrap();
        let wanted = Kubeconfig { file: Some(file), context: context.map(str::to_owned) };
        Cluster::required(&wanted).await
    }

    #[tokio::test]
    async fn the_current_context_counts_unless_another_is_named() {
        let cluster = open(KUBECONFIG, None).await.unwrap();
        assert_eq!((cluster.name.as_str(), cluster.namespace.as_str()), ("kind-east", "shop"));
        for (context, wanted) in [
            (
                "kind-west",
                "\"kind-west\" (FED1101)\nhint: name one of these with --kube-context: kind-east, broken",
            ),
            ("broken", "context \"broken\": "),
        ] {
            let error = open(KUBECONFIG, Some(context)).await.unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_missing_or_damaged_is_named() {
        let wanted = Kubeconfig { file: Some("/nonexistent/config".into()), context: None };
        let error = Cluster::required(&wanted).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/config"), "{error}");
        assert!(open("]", None).await.unwrap_err().to_string().contains("(FED1101)"));
        let none = open("apiVersion: v1\nkind: Config\n", None).await.unwrap_err().to_string();
        assert!(
            none.contains("no context is current") && none.contains("has no contexts"),
            "{none}"
        );
    }

    #[test]
    fn a_proxy_is_passed_by_as_kubectl_does() {
        for (host, exceptions, want) in [
            ("localhost", "", true),
            ("127.0.0.1", "", true),
            ("[::1]", "", true),
            ("api.example", "", false),
            ("api.example", "other.example, api.example", true),
            ("api.example", ".example", true),
            ("api.example", "*.example", true),
            ("apiexample", "example", false),
            ("api.example", "*", true),
            ("10.1.2.3", "10.0.0.0/8", true),
            ("11.1.2.3", "10.0.0.0/8", false),
            ("11.1.2.3", "0.0.0.0/0", true),
            ("fd00::1", "fd00::/8", true),
            ("fd00::1", "10.0.0.0/8,fe00::/8", false),
        ] {
            assert_eq!(is_direct(host, exceptions), want, "{host} {exceptions}");
        }
    }

    #[test]
    fn a_contexts_name_tells_the_clusters() {
        for (context, want) in [
            ("kind-east", Some("east")),
            ("arn:aws:eks:eu-west-1:1234:cluster/east", Some("east")),
            ("gke_project-1_europe-west1-b_east", Some("east")),
            ("admin@east", Some("east")),
            ("east", Some("east")),
            ("my cluster", None),
        ] {
            let name = default_cluster_name(context);
            assert_eq!(name.as_ref().map(ClusterName::as_str), want, "{context}");
        }
    }
}
