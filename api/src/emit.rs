//! Writes manifests that [`crate::parse_manifest`] reads.

use model::ClusterPeer;
use serde::Serialize;
use wire::WireError;

use crate::kinds::OWN_VERSIONS;
use crate::kinds::cluster_peer::{Address, Domain, Spec};

/// The manifest of a ClusterPeer: what one cluster hands to another to be known there.
pub fn cluster_peer_manifest(peer: &ClusterPeer) -> Result<String, WireError> {
    let addresses = peer.addresses.iter().map(|address| Address {
        transport: address.transport.as_str().to_string(),
        host: address.host.clone(),
        port: address.port.into(),
    });
    let trust_domains = peer.trust_bundles.iter().map(|bundle| {
        let name = bundle.trust_domain.to_string();
        Ok(Domain { name, bundle: wire::bundle::format_bundle(bundle)? })
    });
    let document = Document {
        api_version: OWN_VERSIONS[0],
        kind: "ClusterPeer",
        metadata: Metadata { name: peer.name.to_string() },
        spec: Spec {
            addresses: addresses.collect(),
            trust_domains: trust_domains.collect::<Result<_, WireError>>()?,
        },
    };
    let text = serde_saphyr::to_string(&document);
    Ok(text.expect("a document of strings, lists and numbers is YAML"))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Serialize)]
struct Metadata {
    name: String,
}
