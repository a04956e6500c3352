//! SPIFFE identity: the cluster's CA, SVIDs on disk, trust bundles, and the rustls configurations
//! that make every connection between clusters mutually authenticated (DESIGN §8).
//!
//! The way of an identity: [`Ca`] signs the CSR of an [`SvidKeyPair`], [`SvidStore`] keeps the
//! resulting [`Svid`], [`IdentityCell`] holds it beside the [`BundleSet`] and the owners of trust
//! domains, and [`server_config`] and [`client_config`] read that cell anew at each handshake. So a
//! rotation changes the next handshake and touches no connection that lives.
//!
//! Invariant: a certificate is judged by the bundle of its own trust domain and by no other;
//! nothing here ever makes one pool of several bundles.

mod bundle;
mod ca;
mod cell;
mod cluster;
mod csr;
mod endpoint;
mod federation_key;
mod file;
mod joiner;
pub mod limits;
mod owner;
mod pem;
mod profile;
mod provider;
mod revoked;
mod svid;
mod tls;
mod verify;

pub use bundle::{BundleChange, BundleError, BundleSet};
pub use ca::{Ca, CaError, REFRESH_HINT, RootFacts, RootState, RotationError};
pub use cell::{ExpectedPeer, Identity, IdentityCell, KnownPeer, Refusal};
pub use cluster::{
    ClientCertificate, ClusterTrust, ClusterTrustError, HandshakeRefusal, OwnPeer,
    cluster_client_config, cluster_server_config,
};
pub use csr::IssueError;
pub use endpoint::{
    WebCertificate, WebCertificateError, spiffe_endpoint_config, spiffe_poller_config,
    web_endpoint_config, web_poller_config,
};
pub use federation_key::{
    FederationKey, FederationKeyError, FederationPublicKey, PublicKeyError, SignatureError,
};
pub use file::FileError;
pub use joiner::{Inviter, JoinCertificate, JoinCertificateError, self_signed_key};
pub use owner::{OwnerConflict, TrustDomainOwners};
pub use profile::{authority_domain, certificate_validity};
pub use revoked::RevokedSvids;
pub use svid::{Svid, SvidError, SvidKeyPair, SvidStore};
pub use tls::{
    client_config, federation_client_config, federation_server_config, join_client_config,
    join_server_config, public_server_config, server_config,
};
pub use verify::{VerifiedPeer, VerifyError, peer_id, verify_chain};
