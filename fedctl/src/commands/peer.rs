//! `fedctl peer`: this cluster's ClusterPeer manifest, ready for another cluster's folder.

use model::{ClusterName, ClusterPeer, PeerAddress, Transport, TrustDomain};

use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::{OutputFormat, Printer};

pub(super) async fn run(node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    if printer.format == OutputFormat::Json {
        return Err(CommandError::usage("`fedctl peer` prints a manifest, which is YAML")
            .hint("leave out -o json"));
    }
    printer.data(&manifest(node, printer).await?)
}

/// What other clusters need to know of this one.
pub(super) async fn manifest(node: &Operator, printer: &Printer) -> Result<String, CommandError> {
    let peer = node.peer().await?;
    if !peer.note.is_empty() {
        printer.talk(&format!("warning: {}", peer.note));
    }
    let unusable =
        |error: String| CommandError::failed(format!("the node's answer is unusable: {error}"));
    let mut trust_bundles = Vec::new();
    for domain in &peer.trust_domains {
        let name = TrustDomain::parse(&domain.name).map_err(|error| unusable(error.to_string()))?;
        let bundle = wire::bundle::parse_bundle(&domain.bundle_jwks, &name);
        trust_bundles.push(bundle.map_err(|error| unusable(error.to_string()))?);
    }
    let mut addresses = Vec::new();
    for address in peer.addresses {
        let port = u16::try_from(address.port).map_err(|error| unusable(error.to_string()))?;
        addresses.push(PeerAddress { transport: Transport::Quic, host: address.host, port });
    }
    let name = ClusterName::parse(&peer.name).map_err(|error| unusable(error.to_string()))?;
    let revoked_svids = Vec::new();
    let peer = ClusterPeer { name, addresses, trust_bundles, cordoned: false, revoked_svids };
    let manifest = api::emit::cluster_peer_manifest(&peer);
    manifest.map_err(|error| unusable(error.to_string()))
}
