//! What an API server's refusal means to a person: what was asked, where, and the rule that is missing.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use kube::client::UpgradeConnectionError;
use model::code;

use super::Cluster;
use crate::error::{CommandError, Exit};

/// An API server that takes longer to answer one question is as good as away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// One kind of request, as RBAC sees it.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    pub verb: &'static str,
    /// Empty for the core group.
    pub group: &'static str,
    /// With its subresource: `pods/portforward`.
    pub resource: &'static str,
    /// `None` for all namespaces, or for what is in none.
    pub namespace: Option<&'a str>,
    pub name: Option<&'a str>,
}

impl Access<'_> {
    /// The rule of a Role or ClusterRole that allows it.
    pub fn rule(&self) -> String {
        // A port-forward by WebSocket begins with GET, and is judged as create too since Kubernetes 1.35.
        let verbs = match self.resource {
            "pods/portforward" => "get, create",
            _ => self.verb,
        };
        let Self { group, resource, .. } = self;
        let names = self.name.filter(|_| !matches!(self.verb, "list" | "watch"));
        let names = names.map_or_else(String::new, |name| format!(", resourceNames: [{name}]"));
        format!("{{apiGroups: [\"{group}\"], resources: [{resource}]{names}, verbs: [{verbs}]}}")
    }

    fn role_kind(&self) -> String {
        match self.namespace {
            Some(namespace) => format!("a Role in {namespace}"),
            None => "a ClusterRole".into(),
        }
    }

    /// What to have done about a 403.
    pub fn missing(&self) -> String {
        format!("{} with the rule {} would allow it", self.role_kind(), self.rule())
    }
}

impl fmt::Display for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if let Some(name) = self.name {
            write!(f, " {name}")?;
        }
        match self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => Ok(()),
        }
    }
}

impl Cluster {
    /// Asks; a refusal comes back in a person's words.
    pub async fn ask<T>(
        &self,
        access: Access<'_>,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, CommandError> {
        match tokio::time::timeout(ANSWER_TIMEOUT, request).await {
            Ok(answer) => answer.map_err(|error| refused(&self.name, &access, &error)),
            Err(_) => Err(unreachable(
                &self.name,
                &format!("no answer to {access} within {} s", ANSWER_TIMEOUT.as_secs()),
            )),
        }
    }

    /// As [`Self::ask`], for what may be missing.
    pub async fn ask_optional<T>(
        &self,
        access: Access<'_>,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<Option<T>, CommandError> {
        let request = async {
            match request.await {
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
                answer => answer.map(Some),
            }
        };
        self.ask(access, request).await
    }
}

/// The words for one failure of the API server's.
pub fn refused(cluster: &str, access: &Access<'_>, error: &kube::Error) -> CommandError {
    use kube::Error;
    match error {
        Error::Api(status) => by_status(cluster, access, status.code, &status.message),
        Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => {
            by_status(cluster, access, status.as_u16(), "it does not switch to WebSocket")
        }
        Error::Auth(error) => unauthenticated(cluster, &innermost(error)),
        Error::Service(error) => unreachable(cluster, &innermost(&**error)),
        error => unreachable(cluster, &innermost(error)),
    }
}

/// Why there is no client at all.
pub(super) fn no_client(cluster: &str, error: &kube::Error) -> CommandError {
    use kube::Error::{ProxyProtocolDisabled, ProxyProtocolUnsupported};
    match error {
        // Its URL may have a password in it.
        ProxyProtocolDisabled { proxy_url, .. } | ProxyProtocolUnsupported { proxy_url } => {
            let proxy = proxy_url.host().unwrap_or_default();
            let why = format!("fedctl cannot go by the proxy {proxy}");
            unreachable(cluster, &why)
                .hint("unset HTTPS_PROXY, or list the API server's host in NO_PROXY")
        }
        error => unreachable(cluster, &innermost(error)),
    }
}

fn by_status(cluster: &str, access: &Access<'_>, status: u16, message: &str) -> CommandError {
    match status {
        401 => unauthenticated(cluster, message),
        403 => CommandError::failed(format!("cluster {cluster}: you may not {access}"))
            .code(code::API_SERVER_FORBIDDEN)
            .hint(access.missing()),
        404 => CommandError::failed(format!("cluster {cluster}: there is no such thing: {access}"))
            .code(code::NOT_INSTALLED)
            .hint("is Fedgate installed here? `fedctl check` says"),
        _ => CommandError::failed(format!(
            "cluster {cluster} refused to {access}: {message} (HTTP {status})"
        ))
        .code(code::API_SERVER_UNREACHABLE)
        .hint(
            "try again; `kubectl get --raw /readyz?verbose` shows whether the API server is well",
        ),
    }
}

fn unauthenticated(cluster: &str, why: &str) -> CommandError {
    CommandError::new(Exit::Unreachable, format!("cluster {cluster} does not know you: {why}"))
        .code(code::API_SERVER_UNREACHABLE)
        .hint("log in again; `kubectl auth whoami` with the same context must work")
}

fn unreachable(cluster: &str, why: &str) -> CommandError {
    let message = format!("the API server of cluster {cluster} does not answer: {why}");
    CommandError::new(Exit::Unreachable, message)
        .code(code::API_SERVER_UNREACHABLE)
        .hint("`kubectl version` with the same context must work")
}

pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    const ACCESS: Access<'static> = Access {
        verb: "create",
        group: "",
        resource: "serviceaccounts/token",
        namespace: Some("fedgate-system"),
        name: Some("fedgate-admin"),
    };

    fn told(status: u16, message: &str) -> CommandError {
        let status = Status { code: status, message: message.into(), ..Status::default() };
        refused("kind-east", &ACCESS, &kube::Error::Api(status.boxed()))
    }

    #[test]
    fn a_refusal_names_the_rule_that_is_missing() {
        let want = "error: cluster kind-east: you may not create serviceaccounts/token fedgate-admin \
                    in namespace fedgate-system (FED1103)\n\
                    hint: a Role in fedgate-system with the rule {apiGroups: [\"\"], resources: \
                    [serviceaccounts/token], resourceNames: [fedgate-admin], verbs: [create]} would allow it";
        assert_eq!(told(403, "").to_string(), want);
        let list = Access { verb: "list", resource: "pods", namespace: None, name: None, ..ACCESS };
        assert_eq!(
            list.missing(),
            "a ClusterRole with the rule {apiGroups: [\"\"], resources: [pods], verbs: [list]} would allow it"
        );
        let forward = Access { resource: "pods/portforward", name: None, ..ACCESS };
        assert!(forward.rule().ends_with("verbs: [get, create]}"), "{}", forward.rule());
    }

    #[test]
    fn who_is_not_known_and_what_does_not_answer_is_5() {
        let error = told(401, "Unauthorized");
        assert_eq!(error.exit, Exit::Unreachable);
        assert!(error.to_string().contains("kind-east does not know you: Unauthorized"), "{error}");
        let error = refused(
            "kind-east",
            &ACCESS,
            &kube::Error::Service(std::io::Error::other("Connection refused").into()),
        );
        assert_eq!(error.exit, Exit::Unreachable);
        assert!(
            error.to_string().contains("does not answer: Connection refused (FED1102)"),
            "{error}"
        );
        assert!(told(500, "etcd").to_string().contains("etcd (HTTP 500)"));
    }
}
