//! Who owns what the node makes in its cluster: a ClusterRole of the release, after whose end the
//! API server's garbage collector takes the rest away. Only something without a namespace can own
//! things in all of them (Kubernetes, "Owners and Dependents").

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use model::ObjectName;
use model::code::API_SERVER_REFUSED;

use super::calls::{Failure, in_time};
use super::kinds::CLUSTER_ROLE;

/// Where to ask for the owner.
#[derive(Clone)]
pub(super) struct Owner {
    client: Client,
    /// `kubernetes.ownedBy`.
    name: Option<ObjectName>,
}

impl Owner {
    pub(super) fn new(client: Client, name: Option<ObjectName>) -> Self {
        Self { client, name }
    }

    /// The owner as it is now, since a new release has another of the same name: what refers to the
    /// old one's uid is deleted. Without it nothing is to be written. `Ok(None)`: nobody is to own
    /// anything.
    ///
    /// It does not block the owner's deletion, which would need a right to the owner's finalizers.
    pub(super) async fn reference(&self) -> Result<Option<OwnerReference>, Failure> {
        let Some(name) = &self.name else { return Ok(None) };
        let call = CLUSTER_ROLE.api(&self.client, None);
        let there = in_time(call.get_metadata_opt(name.as_str())).await?;
        let there = there.map_err(|error| Failure::of(&error))?.map(|object| object.metadata);
        let there = there.filter(|metadata| metadata.deletion_timestamp.is_none());
        let uid = there.and_then(|metadata| metadata.uid).ok_or_else(|| missing(name))?;
        Ok(Some(OwnerReference {
            api_version: CLUSTER_ROLE.api_version(),
            kind: CLUSTER_ROLE.kind.into(),
            name: name.to_string(),
            uid,
            ..OwnerReference::default()
        }))
    }
}

fn missing(name: &ObjectName) -> Failure {
    let problem = format!(
        "ClusterRole/{name}, which `kubernetes.ownedBy` names as the owner of what the node makes, is \
         not there; nothing is written without it"
    );
    Failure { code: API_SERVER_REFUSED, problem }
}
