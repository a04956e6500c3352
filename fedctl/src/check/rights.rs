//! Whether the caller may do what an installation needs, asked of the API server itself.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};

use crate::error::CommandError;
use crate::kubernetes::{Access, Cluster};

/// What Helm creates in the namespace; the last is where it keeps its release.
const IN_NAMESPACE: [(&str, &str); 11] = [
    ("", "configmaps"),
    ("", "services"),
    ("", "serviceaccounts"),
    ("apps", "statefulsets"),
    ("apps", "deployments"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("networking.k8s.io", "networkpolicies"),
    ("policy", "poddisruptionbudgets"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("", "secrets"),
];
/// And outside of it.
const CLUSTER_WIDE: [(&str, &str); 4] = [
    ("", "namespaces"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
];
/// What `fedctl` itself needs afterwards.
const OPERATING: [(&str, &str); 2] = [("", "serviceaccounts/token"), ("", PORT_FORWARD)];
const PORT_FORWARD: &str = "pods/portforward";

/// What the API server says, by what it is needed for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    pub in_namespace: Missing,
    pub cluster_wide: Missing,
    pub operating: Missing,
}

/// Of so many rights to create something, those that are missing, as group and resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    pub asked: usize,
    /// `None` for what is in no namespace.
    pub namespace: Option<String>,
    pub missing: Vec<(&'static str, &'static str)>,
}

impl Missing {
    pub fn role_kind(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("a Role in {namespace}"),
            None => "a ClusterRole".into(),
        }
    }

    /// One rule that gives them all.
    pub fn rule(&self) -> String {
        let mut groups: Vec<String> =
            self.missing.iter().map(|(group, _)| format!("\"{group}\"")).collect();
        groups.sort_unstable();
        groups.dedup();
        let resources: Vec<&str> = self.missing.iter().map(|(_, resource)| *resource).collect();
        let verbs = if resources.contains(&PORT_FORWARD) { "get, create" } else { "create" };
        let (groups, resources) = (groups.join(", "), resources.join(", "));
        format!("{{apiGroups: [{groups}], resources: [{resources}], verbs: [{verbs}]}}")
    }
}

pub async fn read_rights(cluster: &Cluster, namespace: &str) -> Result<Rights, CommandError> {
    Ok(Rights {
        in_namespace: ask(cluster, Some(namespace), &IN_NAMESPACE).await?,
        cluster_wide: ask(cluster, None, &CLUSTER_WIDE).await?,
        operating: ask(cluster, Some(namespace), &OPERATING).await?,
    })
}

async fn ask(
    cluster: &Cluster,
    namespace: Option<&str>,
    resources: &[(&'static str, &'static str)],
) -> Result<Missing, CommandError> {
    let namespace_name = namespace.map(str::to_owned);
    let mut found =
        Missing { asked: resources.len(), namespace: namespace_name, missing: Vec::new() };
    let reviews = Api::<SelfSubjectAccessReview>::all(cluster.client.clone());
    for (group, resource) in resources {
        let parts = resource.split_once('/');
        let (plain, subresource) = parts.map_or((*resource, None), |(a, b)| (a, Some(b)));
        let attributes = ResourceAttributes {
            verb: Some("create".into()),
            group: Some((*group).into()),
            resource: Some(plain.into()),
            subresource: subresource.map(str::to_owned),
            namespace: namespace.map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let itself = Access {
            verb: "create",
            group: "authorization.k8s.io",
            resource: "selfsubjectaccessreviews",
            namespace: None,
            name: None,
        };
        let parameters = PostParams::default();
        let answer = cluster.ask(itself, reviews.create(&parameters, &review)).await?;
        if !answer.status.is_some_and(|status| status.allowed) {
            found.missing.push((*group, *resource));
        }
    }
    Ok(found)
}
