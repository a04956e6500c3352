//! A trial of the next root: its SVID is shown to every peer's gateway, and the handshake says whether
//! it is believed there. Nothing else is said on the connection.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use identity::{BundleSet, Identity, IdentityCell, Svid, TrustDomainOwners};
use model::{ClusterName, ClusterPeer, PeerAddress};
use tunnel::{Inner, InnerError, NodeEndpoint, RelayConnection};
use wire::tunnel::ErrorCode;

use crate::limits::{DIAL_ADDRESSES_MAX, TRIALS_MAX};

/// What a peer made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Its gateway let the connection in.
    Known,
    Refused(String),
    /// Nobody answered, or not well enough to tell.
    Silent(String),
    /// There is no address to ask at.
    Unasked,
}

/// Asks all peers, a few at a time.
pub(super) async fn show(
    peers: Vec<ClusterPeer>,
    svid: Svid,
    source: Option<IpAddr>,
) -> Vec<(ClusterName, Answer)> {
    let cell = Arc::new(cell(&peers, svid));
    let endpoint = NodeEndpoint::from_source(cell.clone(), source);
    let asking = peers.into_iter().map(|peer| {
        let (endpoint, cell) = (endpoint.clone(), cell.clone());
        async move {
            let answer = ask(&endpoint, &cell, &peer).await;
            (peer.name, answer)
        }
    });
    let answers = stream::iter(asking).buffered(TRIALS_MAX).collect().await;
    endpoint.close().await;
    answers
}

/// Believes each peer by its own bundles, as the node does.
fn cell(peers: &[ClusterPeer], svid: Svid) -> IdentityCell {
    let (mut bundles, mut owners) = (BundleSet::default(), TrustDomainOwners::default());
    let mut trusted = Vec::new();
    for peer in peers {
        for bundle in &peer.trust_bundles {
            let claim = owners.claim(bundle.trust_domain.clone(), peer.name.clone());
            if claim.is_ok() {
                trusted.push((peer.name.clone(), bundle.clone()));
            }
        }
    }
    for problem in bundles.replace_all(trusted) {
        tracing::warn!(%problem, "a trust bundle is not used");
    }
    IdentityCell::new(Identity {
        svid: Some(Arc::new(svid)),
        bundles,
        owners,
        ..Identity::default()
    })
}

/// The first address that lets it in decides; else a refusal weighs more than silence.
async fn ask(endpoint: &NodeEndpoint, cell: &Arc<IdentityCell>, peer: &ClusterPeer) -> Answer {
    let mut worst = Answer::Unasked;
    for address in peer.addresses.iter().take(DIAL_ADDRESSES_MAX) {
        match ask_at(endpoint, cell, &peer.name, address).await {
            Answer::Known => return Answer::Known,
            refused @ Answer::Refused(_) => worst = refused,
            other if !matches!(worst, Answer::Refused(_)) => worst = other,
            _ => {}
        }
    }
    worst
}

async fn ask_at(
    endpoint: &NodeEndpoint,
    cell: &Arc<IdentityCell>,
    name: &ClusterName,
    address: &PeerAddress,
) -> Answer {
    let connection = match endpoint.dial_store(name, address).await {
        Ok(connection) => connection,
        Err(error) if error.code() == model::code::PEER_IDENTITY_REFUSED => {
            return Answer::Refused(error.text);
        }
        Err(error) => return Answer::Silent(error.to_string()),
    };
    let answer = beyond(&connection, cell, name).await;
    connection.close(ErrorCode::NoError, "it was a trial");
    answer
}

/// In TLS 1.3 the dialler is done before the other side has judged its certificate. A gateway that
/// passes a stream on, or says that nobody is behind it, has let the connection in.
async fn beyond(
    connection: &RelayConnection,
    cell: &Arc<IdentityCell>,
    name: &ClusterName,
) -> Answer {
    let opened = match connection.open().await {
        Ok(stream) => Inner::open_store(stream, cell, name).await.map(|_| ()),
        Err(error) => Err(InnerError::Handshake(error)),
    };
    match opened {
        Ok(()) => Answer::Known,
        Err(_) if !connection.is_live() => Answer::Refused(connection.closed().await),
        Err(InnerError::Timeout) => Answer::Silent(InnerError::Timeout.to_string()),
        Err(_) => Answer::Known,
    }
}
