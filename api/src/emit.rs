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

#[cfg(test)]
mod tests {
    use model::{ClusterName, PeerAddress, Resource, Transport, TrustDomain};

    use super::*;
    use crate::parse_manifest;

    /// The peer of the file provider's golden test, with a real certificate.
    const GOLDEN: &str = include_str!("../../discovery/testdata/translate/cluster-peer.in.yaml");

    #[test]
    fn what_is_written_reads_back_as_it_was() {
        let peers = parse_manifest("golden", GOLDEN).unwrap().objects;
        assert!(peers.len() >= 3);
        for peer in peers {
            let Resource::ClusterPeer(peer) = peer.resource else { panic!("another kind") };
            let text = cluster_peer_manifest(&peer).unwrap();
            let again = parse_manifest("again", &text).unwrap();
            assert_eq!(again.diagnostics, [], "{text}");
            assert_eq!(again.objects[0].resource, Resource::ClusterPeer(peer), "{text}");
        }
    }

    #[test]
    fn texts_that_look_like_something_else_are_quoted() {
        for name in ["null", "true", "1e3", "0x10", "123", "on", "y"] {
            let peer = ClusterPeer {
                name: ClusterName::parse(name).unwrap(),
                addresses: ["::1", "1.2.3.4", "gw.example"]
                    .map(|host| PeerAddress {
                        transport: Transport::Quic,
                        host: host.into(),
                        port: 1,
                    })
                    .into(),
                trust_bundles: vec![model::TrustBundle {
                    trust_domain: TrustDomain::parse("1.5").unwrap(),
                    sequence: u64::MAX,
                    refresh_hint_seconds: Some(300),
                    x509_authorities: vec![],
                }],
                cordoned: false,
                revoked_svids: Vec::new(),
            };
            let text = cluster_peer_manifest(&peer).unwrap();
            let again = parse_manifest("again", &text).unwrap();
            assert_eq!(again.diagnostics, [], "{text}");
            assert_eq!(again.objects[0].resource, Resource::ClusterPeer(peer));
        }
    }
}
