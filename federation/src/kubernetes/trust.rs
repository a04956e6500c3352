//! ConfigMap `fedgate-trust`: the bundle of the cluster's own trust domain, by which gateways and
//! `fedctl` know the node.

use std::sync::Arc;

use api::kubernetes::{TRUST_BUNDLE_KEY, TRUST_CONFIG_MAP};
use identity::Ca;
use jiff::Timestamp;
use model::TrustBundle;
use serde_json::json;
use tokio::sync::watch;

use super::kinds::CONFIG_MAP;
use super::writer::{Owned, changed};
use super::{Cluster, Observed, Write, Writer};

/// Keeps the ConfigMap true: a rotation of the root, or somebody else, makes it untrue.
#[derive(Debug)]
pub(super) struct TrustWriter {
    namespace: String,
    ca: Arc<Ca>,
    rotated: watch::Receiver<u64>,
}

impl TrustWriter {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Self {
            namespace: cluster.config.namespace.to_string(),
            ca: cluster.around.ca.clone(),
            rotated: cluster.around.rotated.clone(),
        }
    }
}

impl Writer for TrustWriter {
    const NAME: &'static str = "trust";

    fn owned(&self) -> Vec<Owned> {
        vec![Owned { kind: &CONFIG_MAP, namespace: Some(self.namespace.clone()) }]
    }

    fn desired(&mut self, _: &Observed, _: Timestamp) -> Option<Vec<Write>> {
        match trust_config_map(&self.namespace, &self.ca.bundle()) {
            Ok(write) => Some(vec![write]),
            Err(problem) => {
                tracing::error!(%problem, "the trust bundle cannot be written down");
                None
            }
        }
    }

    async fn changed(&mut self) {
        changed(&mut self.rotated).await;
    }
}

fn trust_config_map(namespace: &str, bundle: &TrustBundle) -> Result<Write, wire::WireError> {
    let text = wire::bundle::format_bundle(bundle)?;
    let fields = json!({ "data": { TRUST_BUNDLE_KEY: text } });
    Ok(Write::whole(&CONFIG_MAP, Some(namespace), TRUST_CONFIG_MAP, fields))
}
