//! Who may use which protocol: one function, asked before the first stream of any connection.

use std::fmt;

use identity::{ExpectedPeer, Identity, KnownPeer, VerifyError};
use model::code::{self, Code};
use model::spiffe::Part;
use model::{ClusterName, SpiffeId};
use rustls_pki_types::CertificateDer;
use std::time::SystemTime;
use wire::tunnel::{ALPN_JOIN, ALPN_STORE, ALPN_TUNNEL, ErrorCode};

/// What a peer asks to speak, by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Tunnel,
    Store,
    Join,
}

impl Protocol {
    /// `None`: not a protocol of ours.
    pub fn of_alpn(alpn: &[u8]) -> Option<Self> {
        match alpn {
            alpn if alpn == ALPN_TUNNEL => Some(Self::Tunnel),
            alpn if alpn == ALPN_STORE => Some(Self::Store),
            alpn if alpn == ALPN_JOIN => Some(Self::Join),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tunnel => "fedgate-tunnel/1",
            Self::Store => "fedgate-store/1",
            Self::Join => "fedgate-join/1",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A gateway of another cluster that may use the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    pub cluster: ClusterName,
    pub spiffe_id: SpiffeId,
    pub not_after: SystemTime,
}

/// Why a peer may not use a protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0} is not served by this version: use {tunnel}", tunnel = Protocol::Tunnel)]
    NotServed(Protocol),
    #[error("the ALPN {0:?} is not known: use {tunnel}", tunnel = Protocol::Tunnel)]
    UnknownAlpn(String),
    #[error(transparent)]
    Certificate(#[from] VerifyError),
    #[error(
        "{id} is not a gateway: only spiffe://<trust domain>/fedgate/gateway/<name> may use {protocol}"
    )]
    WrongKind { id: SpiffeId, protocol: Protocol },
    #[error(
        "{id} is of this gateway's own cluster {cluster:?}: a tunnel joins two clusters; take the \
         address that leads back here out of the ClusterPeer"
    )]
    OwnCluster { id: SpiffeId, cluster: ClusterName },
}

impl Refusal {
    /// What the connection is closed with.
    pub fn error_code(&self) -> ErrorCode {
        ErrorCode::AdmissionRefused
    }

    /// The code that a person is shown.
    pub fn code(&self) -> Code {
        match self {
            Self::NotServed(_) | Self::UnknownAlpn(_) => code::PEER_VERSION,
            Self::Certificate(_) | Self::WrongKind { .. } | Self::OwnCluster { .. } => {
                code::PEER_IDENTITY_REFUSED
            }
        }
    }
}

/// Decides on a peer by what it asks to speak and the chain that it showed, leaf first.
///
/// The tunnel is for gateways of other clusters whose trust domain we know. A gateway of our own
/// cluster is refused too: it would be an address that leads back to us, and a request sent there
/// would loop. The handshake has verified the chain already; it is verified again here, with the
/// trust in force now, so that this function alone is enough.
pub fn admit(
    alpn: &[u8],
    chain: &[CertificateDer<'_>],
    identity: &Identity,
    expected: &ExpectedPeer,
    now: SystemTime,
) -> Result<Admitted, Refusal> {
    let protocol = match Protocol::of_alpn(alpn) {
        Some(Protocol::Tunnel) => Protocol::Tunnel,
        Some(other) => return Err(Refusal::NotServed(other)),
        None => {
            let shown = String::from_utf8_lossy(&alpn[..alpn.len().min(64)]).into_owned();
            return Err(Refusal::UnknownAlpn(shown));
        }
    };
    let KnownPeer { id, trust_domain, cluster, not_after } =
        identity.verify_peer(chain, expected, now)?;
    if !matches!(id.part(), Some((Part::Gateway, _))) {
        return Err(Refusal::WrongKind { id, protocol });
    }
    let own = identity.svid.as_ref().map(|svid| svid.id().trust_domain());
    let own_cluster = own.and_then(|domain| identity.owners.owner(domain));
    if own == Some(&trust_domain) || own_cluster == Some(&cluster) {
        return Err(Refusal::OwnCluster { id, cluster });
    }
    Ok(Admitted { cluster, spiffe_id: id, not_after })
}
