//! From the options to a connection: which node is meant, and the way to it.

use std::path::{Path, PathBuf};

use crate::cli::Global;
use crate::context::{self, Context, Contexts};
use crate::error::{CommandError, Exit};
use crate::kubernetes::{self, Cluster, Door, Found, Kubeconfig, NoKubeconfig};
use crate::operator::Operator;
use crate::printer::Printer;

/// The operator socket of a node that was installed from a package (`packaging/`).
const MACHINE_SOCKET: &str = "/run/fedgate/operator.sock";

/// The way to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Socket(PathBuf),
    Kubernetes {
        /// The kubeconfig's context; `None` for the current one.
        context: Option<String>,
        namespace: Option<String>,
        /// Nobody named it: it is only the one that is there.
        guessed: bool,
    },
}

/// The node that the options name: `--server`, then `--kube-context`, then fedctl's own contexts, and
/// if there is none of all these, the cluster that kubectl would take.
pub fn target(global: &Global, contexts: &Contexts) -> Result<Target, CommandError> {
    if let Some(server) = &global.server {
        return Ok(Target::Socket(context::parse_server(server)?));
    }
    let namespace = global.fedgate_namespace.clone();
    if global.plugin || global.kube_context.is_some() {
        let context = global.kube_context.clone();
        return Ok(Target::Kubernetes { context, namespace, guessed: false });
    }
    Ok(match contexts.choose(global.context.as_deref())? {
        Some(Context::OperatorSocket(socket)) => Target::Socket(socket.clone()),
        Some(Context::Kubernetes(known)) => Target::Kubernetes {
            context: known.context.clone(),
            namespace: namespace.or_else(|| known.namespace.clone()),
            guessed: false,
        },
        None => Target::Kubernetes { context: None, namespace, guessed: true },
    })
}

/// Reads fedctl's contexts and says what the options mean.
pub fn chosen(global: &Global) -> Result<Target, CommandError> {
    let path = context::contexts_path(|name| std::env::var(name).ok());
    // A kubeconfig's context that is named needs no file of ours, not even a whole one.
    let contexts = match global.plugin || global.kube_context.is_some() {
        true => Contexts::default(),
        false => Contexts::load(&path)?,
    };
    target(global, &contexts)
}

/// The same for a command that wants a node: before a cluster is guessed, the node of this machine is
/// taken, if one is installed.
pub fn chosen_node(global: &Global) -> Result<Target, CommandError> {
    Ok(or_of_machine(chosen(global)?, global, Path::new(MACHINE_SOCKET)))
}

fn or_of_machine(target: Target, global: &Global, socket: &Path) -> Target {
    let guessed = matches!(target, Target::Kubernetes { guessed: true, .. });
    let means_kubernetes = global.kubeconfig.is_some() || global.fedgate_namespace.is_some();
    if guessed && !means_kubernetes && socket.exists() {
        return Target::Socket(socket.into());
    }
    target
}

/// Connects to the node that the options name.
pub async fn node(global: &Global, printer: &Printer) -> Result<Operator, CommandError> {
    let target = chosen_node(global)?;
    match &target {
        Target::Socket(socket) => Operator::connect(socket).await,
        Target::Kubernetes { namespace, .. } => {
            let cluster = cluster(global, &target, printer).await?;
            through(&cluster, namespace.as_deref(), global, printer).await
        }
    }
}

/// Connects to another node beside the one that the options name: a context, or `unix:PATH`.
pub async fn named(
    name: &str,
    global: &Global,
    printer: &Printer,
) -> Result<Operator, CommandError> {
    let is_socket = name.starts_with("unix:");
    let named = |it: bool| it.then(|| name.to_owned());
    let global = Global {
        context: named(!is_socket && !global.plugin),
        server: named(is_socket),
        kube_context: named(!is_socket && global.plugin),
        kubeconfig: global.kubeconfig.clone(),
        fedgate_namespace: global.fedgate_namespace.clone(),
        ..*global
    };
    node(&global, printer).await
}

/// The cluster that a target names; for the commands that need Kubernetes and no node.
pub async fn cluster(
    global: &Global,
    target: &Target,
    printer: &Printer,
) -> Result<Cluster, CommandError> {
    let Target::Kubernetes { context, guessed, .. } = target else {
        return Err(CommandError::usage("this command is about a Kubernetes cluster")
            .hint("name one with --kube-context"));
    };
    let wanted = Kubeconfig { file: global.kubeconfig.clone(), context: context.clone() };
    if !guessed {
        return Cluster::required(&wanted).await;
    }
    let cluster = Cluster::open(&wanted).await?.map_err(|NoKubeconfig| {
        CommandError::new(Exit::Usage, "no context is set, and there is no kubeconfig")
            .hint("start one with `fedctl demo up`, or name a node: --server unix:PATH, or --kubeconfig FILE")
    })?;
    printer.detail(&format!(
        "no context of fedctl's is set: the kubeconfig's {} is used",
        cluster.name
    ));
    Ok(cluster)
}

/// Through a cluster's API server to its federation node.
pub async fn through(
    cluster: &Cluster,
    namespace: Option<&str>,
    global: &Global,
    printer: &Printer,
) -> Result<Operator, CommandError> {
    let node = kubernetes::find(cluster, namespace).await?;
    let (role, token) = kubernetes::token(cluster, &node.namespace, global.role).await?;
    let (account, Found { namespace, pod }) = (role.service_account(), &node);
    printer.detail(&format!("asking {namespace}/{pod} of cluster {} as {account}", cluster.name));
    let trust = kubernetes::read_trust(cluster, &node.namespace).await?;
    printer.detail(&format!("it has to be a federation node of {}", trust.domain()));
    Operator::through(Door::new(cluster.clone(), node, trust)?, &token).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse_from;
    use crate::context::KubernetesContext;

    fn of(line: &str) -> Result<Target, CommandError> {
        let words = line.split(' ').map(std::ffi::OsString::from).collect();
        let mut contexts = Contexts::default();
        let west =
            KubernetesContext { context: Some("k-west".into()), namespace: Some("fg".into()) };
        contexts.contexts.insert("west".into(), Context::Kubernetes(west));
        contexts.contexts.insert("east".into(), Context::OperatorSocket("/e.sock".into()));
        target(&parse_from(words).unwrap().global, &contexts)
    }

    fn kubernetes(context: Option<&str>, namespace: Option<&str>, guessed: bool) -> Target {
        let (context, namespace) = (context.map(str::to_owned), namespace.map(str::to_owned));
        Target::Kubernetes { context, namespace, guessed }
    }

    #[test]
    fn the_most_exact_word_counts() {
        for (line, want) in [
            ("fedctl --server unix:/a status", Target::Socket("/a".into())),
            ("fedctl --context east status", Target::Socket("/e.sock".into())),
            ("fedctl --context west status", kubernetes(Some("k-west"), Some("fg"), false)),
            (
                "fedctl --context west --fedgate-namespace other status",
                kubernetes(Some("k-west"), Some("other"), false),
            ),
            ("fedctl --kube-context k status", kubernetes(Some("k"), None, false)),
            ("fedctl status", kubernetes(None, None, true)),
            ("kubectl-fed status", kubernetes(None, None, false)),
            ("kubectl-fed status --context west", kubernetes(Some("west"), None, false)),
        ] {
            assert_eq!(of(line).unwrap(), want, "{line}");
        }
        assert!(of("fedctl --context none status").unwrap_err().to_string().contains("east, west"));
    }

    #[test]
    fn the_machines_own_node_goes_before_a_guess() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("operator.sock");
        let chosen = |line: &str| {
            let words = line.split(' ').map(std::ffi::OsString::from).collect();
            or_of_machine(of(line).unwrap(), &parse_from(words).unwrap().global, &socket)
        };
        let guess = kubernetes(None, None, true);
        assert_eq!(chosen("fedctl status"), guess, "there is no node on this machine");
        std::fs::write(&socket, "").unwrap();
        assert_eq!(chosen("fedctl status"), Target::Socket(socket.clone()));
        assert_eq!(chosen("fedctl --kubeconfig f status"), guess);
        assert_eq!(chosen("fedctl --kube-context k status"), kubernetes(Some("k"), None, false));
        assert_eq!(chosen("fedctl --context east status"), Target::Socket("/e.sock".into()));
    }
}
