//! Trust inside of one cluster: its processes know each other by the bundle of their own trust
//! domain alone, whatever the federation says of that domain.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use model::spiffe::Part;
use model::{SpiffeId, TrustBundle, TrustDomain};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;

use crate::bundle::{BundleError, BundleSet};
use crate::cell::IdentityCell;
use crate::revoked::RevokedSvids;
use crate::tls::{self, Judge};
use crate::verify::{VerifiedPeer, VerifyError, peer_id, verify_leaf};

/// The bundle of the own trust domain, which may be replaced.
///
/// It has no memory of sequences: who tells it is the owner of the domain itself, by a file or a
/// word that is already trusted, and a CA that was lost begins to count anew.
pub struct ClusterTrust {
    domain: TrustDomain,
    bundle: ArcSwapOption<(TrustBundle, BundleSet)>,
    revoked: ArcSwap<RevokedSvids>,
}

/// Which of the cluster's own processes is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnPeer {
    /// Any of this kind.
    Any(Part),
    /// This one.
    Exactly(SpiffeId),
}

/// Whether a port of the cluster asks its callers for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Callers show something else, inside of TLS.
    Unasked,
    /// Who has none may show something else; whoever shows one shows a good one.
    Optional(OwnPeer),
    Required(OwnPeer),
}

/// Why a handshake refused the other side, once it has: TLS tells no more than an alert. Of one
/// handshake alone.
pub type HandshakeRefusal = Arc<OnceLock<VerifyError>>;

impl ClusterTrust {
    /// Believes nobody yet.
    pub fn new(domain: TrustDomain) -> Self {
        Self { domain, bundle: ArcSwapOption::empty(), revoked: ArcSwap::default() }
    }

    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Whether there is a bundle.
    pub fn is_known(&self) -> bool {
        self.bundle.load().is_some()
    }

    /// From the next handshake on this bundle judges; `false` if it is the one in force.
    pub fn replace(&self, bundle: &TrustBundle) -> Result<bool, ClusterTrustError> {
        if bundle.trust_domain != self.domain {
            let (found, own) = (bundle.trust_domain.clone(), self.domain.clone());
            return Err(ClusterTrustError::ForeignDomain { found, own });
        }
        if self.bundle.load().as_ref().is_some_and(|current| current.0 == *bundle) {
            return Ok(false);
        }
        let mut bundles = BundleSet::default();
        bundles.insert(bundle.clone())?;
        self.bundle.store(Some(Arc::new((bundle.clone(), bundles))));
        Ok(true)
    }

    /// From the next handshake on these certificates are refused. Connections that live are for
    /// whoever serves them to end: [`Self::check_revoked`].
    pub fn replace_revoked(&self, revoked: RevokedSvids) {
        if **self.revoked.load() != revoked {
            self.revoked.store(Arc::new(revoked));
        }
    }

    /// Whether a peer that was verified once is revoked by now.
    pub fn check_revoked(&self, peer: &VerifiedPeer) -> Result<(), VerifyError> {
        self.revoked.load().check(peer)
    }

    /// Judges a chain, leaf first.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        expected: &OwnPeer,
        now: SystemTime,
    ) -> Result<VerifiedPeer, VerifyError> {
        let id = peer_id(chain)?;
        if *id.trust_domain() != self.domain {
            return Err(VerifyError::ForeignDomain { id, own: self.domain.clone() });
        }
        let bundle = self.bundle.load_full();
        let bundle = bundle.ok_or_else(|| VerifyError::NoAuthority { id: id.clone() })?;
        let (leaf, intermediates) = chain.split_first().ok_or(VerifyError::NoCertificate)?;
        let peer = verify_leaf(leaf, intermediates, &bundle.1, now)?;
        self.check_revoked(&peer)?;
        match expected {
            OwnPeer::Any(part) if peer.id.part().is_none_or(|(found, _)| found != *part) => {
                Err(VerifyError::WrongPart { id: peer.id, wanted: part.as_str() })
            }
            OwnPeer::Exactly(wanted) if peer.id != *wanted => {
                Err(VerifyError::NotExpected { id: peer.id, expected: wanted.clone() })
            }
            _ => Ok(peer),
        }
    }
}

/// For one handshake at a port that processes of the own cluster, or people with a token, reach.
pub fn cluster_server_config(
    cell: Arc<IdentityCell>,
    trust: Arc<ClusterTrust>,
    client: ClientCertificate,
    alpn: &[u8],
) -> (ServerConfig, HandshakeRefusal) {
    let refusal = HandshakeRefusal::default();
    let (expected, optional) = match client {
        ClientCertificate::Unasked => return (tls::unasking_server(cell, alpn), refusal),
        ClientCertificate::Optional(expected) => (expected, true),
        ClientCertificate::Required(expected) => (expected, false),
    };
    let judge = Judge::Own { trust, expected, optional, refusal: refusal.clone() };
    (tls::server_with(judge, cell, alpn), refusal)
}

/// For one handshake with a process of the own cluster. Without `cell` no certificate is shown.
pub fn cluster_client_config(
    cell: Option<Arc<IdentityCell>>,
    trust: Arc<ClusterTrust>,
    expected: OwnPeer,
    alpn: &[u8],
) -> (ClientConfig, HandshakeRefusal) {
    let refusal = HandshakeRefusal::default();
    let judge = Judge::Own { trust, expected, optional: false, refusal: refusal.clone() };
    (tls::client_with(judge, cell, alpn), refusal)
}

/// Why a bundle cannot be the own one; the one in force stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterTrustError {
    #[error("the bundle is of trust domain {found:?}, and this cluster's is {own:?}")]
    ForeignDomain { found: TrustDomain, own: TrustDomain },
    #[error(transparent)]
    Unusable(#[from] BundleError),
}

impl fmt::Debug for ClusterTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.is_known();
        f.debug_struct("ClusterTrust").field("domain", &self.domain).field("known", &known).finish()
    }
}
