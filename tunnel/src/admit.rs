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

/// Who may use which protocol. The variant says what for, so that nobody who was let in for one
/// thing is served another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// A gateway of another cluster.
    Tunnel(AdmittedPeer),
    /// Another cluster's federation node, or its gateway if we dialled.
    Store(AdmittedPeer),
    /// `None`: whoever has the key of a self-signed certificate. What it may do is told inside.
    Join(Option<AdmittedPeer>),
}

/// A peer that has proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedPeer {
    pub cluster: ClusterName,
    pub spiffe_id: SpiffeId,
    pub not_after: SystemTime,
}

/// Why a peer may not use a protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "the ALPN {0:?} is not known: use {tunnel}, {store} or {join}",
        tunnel = Protocol::Tunnel, store = Protocol::Store, join = Protocol::Join
    )]
    UnknownAlpn(String),
    #[error(transparent)]
    Certificate(#[from] VerifyError),
    #[error(
        "{id} is not a {wanted}: only spiffe://<trust domain>/fedgate/{wanted}/<name> may use \
         {protocol}"
    )]
    WrongKind { id: SpiffeId, wanted: &'static str, protocol: Protocol },
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
            Self::UnknownAlpn(_) => code::PEER_VERSION,
            Self::Certificate(_) | Self::WrongKind { .. } | Self::OwnCluster { .. } => {
                code::PEER_IDENTITY_REFUSED
            }
        }
    }
}

/// Decides on a peer by what it asks to speak and the chain that it showed, leaf first.
///
/// The tunnel is for gateways of other clusters whose trust domain we know, the store for their
/// federation nodes, so that a stolen gateway key reaches no store. Where we dialled, the other end
/// is a gateway in both cases. Joining is open to a federation node, and to whoever shows a key of
/// its own: the handshake lets such a key in since rustls does not tell its verifier the ALPN, so it
/// is this function that keeps it from everything else. A gateway of our own cluster is refused: it
/// would be an address that leads back to us, and a request sent there would loop.
///
/// The handshake has verified the chain already; it is verified again here, with the trust in force
/// now, so that this function alone is enough.
pub fn admit(
    alpn: &[u8],
    chain: &[CertificateDer<'_>],
    identity: &Identity,
    expected: &ExpectedPeer,
    now: SystemTime,
) -> Result<Admitted, Refusal> {
    let Some(protocol) = Protocol::of_alpn(alpn) else {
        let shown = String::from_utf8_lossy(&alpn[..alpn.len().min(64)]).into_owned();
        return Err(Refusal::UnknownAlpn(shown));
    };
    if protocol == Protocol::Join && identity::self_signed_key(chain).is_ok() {
        return Ok(Admitted::Join(None));
    }
    let KnownPeer { id, trust_domain, cluster, not_after } =
        identity.verify_peer(chain, expected, now)?;
    let we_dialled = matches!(expected, ExpectedPeer::Cluster(_));
    let wanted = match protocol {
        Protocol::Store | Protocol::Join if !we_dialled => Part::Federation,
        _ => Part::Gateway,
    };
    if id.part().is_none_or(|(part, _)| part != wanted) {
        return Err(Refusal::WrongKind { id, wanted: wanted.as_str(), protocol });
    }
    let own = identity.svid.as_ref().map(|svid| svid.id().trust_domain());
    let own_cluster = own.and_then(|domain| identity.owners.owner(domain));
    let is_own = own == Some(&trust_domain) || own_cluster == Some(&cluster);
    // A node may look whether its own advertised addresses lead to a joining that works.
    if is_own && protocol != Protocol::Join {
        return Err(Refusal::OwnCluster { id, cluster });
    }
    let peer = AdmittedPeer { cluster, spiffe_id: id, not_after };
    Ok(match protocol {
        Protocol::Tunnel => Admitted::Tunnel(peer),
        Protocol::Store => Admitted::Store(peer),
        Protocol::Join => Admitted::Join(Some(peer)),
    })
}
