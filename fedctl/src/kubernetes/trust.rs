//! The cluster's own trust bundle, from the ConfigMap that its node keeps.

use api::kubernetes::TRUST_BUNDLE_KEY as KEY;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use model::{TrustBundle, TrustDomain, code};

use super::{Access, Cluster, TRUST_CONFIG_MAP};
use crate::error::{CommandError, Exit};

/// Whom to believe on the connection to the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    pub bundle: TrustBundle,
}

impl Trust {
    pub fn domain(&self) -> &TrustDomain {
        &self.bundle.trust_domain
    }
}

pub async fn read_trust(cluster: &Cluster, namespace: &str) -> Result<Trust, CommandError> {
    let access = Access {
        verb: "get",
        group: "",
        resource: "configmaps",
        namespace: Some(namespace),
        name: Some(TRUST_CONFIG_MAP),
    };
    let maps = Api::<ConfigMap>::namespaced(cluster.client.clone(), namespace);
    let map = cluster.ask_optional(access, maps.get(TRUST_CONFIG_MAP)).await?;
    let text = map.and_then(|map| map.data).and_then(|mut data| data.remove(KEY));
    let place = format!("ConfigMap {namespace}/{TRUST_CONFIG_MAP} of cluster {}", cluster.name);
    let Some(text) = text else {
        return Err(unpublished(format!("{place} has no {KEY}"))
            .hint("the federation node writes it when it starts: look at its log"));
    };
    parse(&text).map_err(|why| {
        unpublished(format!("{place}: {why}"))
            .hint("delete the ConfigMap; the federation node writes it again")
    })
}

fn unpublished(message: String) -> CommandError {
    CommandError::new(Exit::Unreachable, message).code(code::TRUST_UNPUBLISHED)
}

/// A bundle document does not name its trust domain; its authorities do.
fn parse(text: &str) -> Result<Trust, String> {
    // The name is only for messages until the authorities have told the right one.
    let unnamed = TrustDomain::parse("unknown.invalid").map_err(|error| error.to_string())?;
    let mut bundle =
        wire::bundle::parse_bundle(text, &unnamed).map_err(|error| error.to_string())?;
    let domains: Option<Vec<TrustDomain>> =
        bundle.x509_authorities.iter().map(|der| identity::authority_domain(der)).collect();
    let mut domains = domains.ok_or("an authority does not say which trust domain is its own")?;
    domains.dedup();
    match &*domains {
        [domain] => bundle.trust_domain = domain.clone(),
        [] => return Err("the bundle has no authority".into()),
        _ => return Err("its authorities are of several trust domains".into()),
    }
    Ok(Trust { bundle })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_bundle_of_one_trust_domain_is_refused() {
        for (text, wanted) in
            [("{}", "keys"), ("{\"keys\": []}", "the bundle has no authority"), ("no", "bundle")]
        {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
