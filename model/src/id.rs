//! Identifiers with a fixed width: clusters, gateways, requests, revisions.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::spiffe::SpiffeId;

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id128!(
    /// A cluster: the hash of its first federation key, so that the name stays a mere label
    /// (DESIGN §5).
    ClusterId
);
id128!(
    /// A gateway: the hash of its SPIFFE ID. Connections belong to gateways, peers are clusters.
    GatewayId
);
id128!(
    /// One request or connection, from its first gateway to its last; also the access log's id.
    RequestId
);

id128!(
    /// A federation: the hash of the federation key of the cluster that founded it (its root).
    FederationId
);
id128!(
    /// A federation key: the hash of its public half. Signatures name it.
    KeyId
);

impl FederationId {
    /// Hash of the root's first federation key (the SubjectPublicKeyInfo's DER bytes).
    pub fn of_key(spki_der: &[u8]) -> Self {
        Self(hash128(b"fedgate/federation-id/v1", spki_der))
    }
}

impl KeyId {
    /// Hash of a public key (the SubjectPublicKeyInfo's DER bytes).
    pub fn of_key(spki_der: &[u8]) -> Self {
        Self(hash128(b"fedgate/key-id/v1", spki_der))
    }
}

impl ClusterId {
    /// Hash of a public key (the SubjectPublicKeyInfo's DER bytes).
    pub fn of_key(spki_der: &[u8]) -> Self {
        Self(hash128(b"fedgate/cluster-id/v1", spki_der))
    }
}

impl GatewayId {
    pub fn of(id: &SpiffeId) -> Self {
        Self(hash128(b"fedgate/gateway-id/v1", id.as_str().as_bytes()))
    }

    /// The server id within this gateway's QUIC connection ids (8 bytes, QUIC-LB's width).
    pub fn server_id(&self) -> [u8; 8] {
        let mut server_id = [0; 8];
        server_id.copy_from_slice(&self.0[..8]);
        server_id
    }
}

fn hash128(domain: &[u8], input: &[u8]) -> [u8; 16] {
    let digest =
        Sha256::new().chain_update(domain).chain_update([0]).chain_update(input).finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}

/// A position in a stream of changes: it may only grow within an epoch, and an epoch only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// Grows when the counter below begins anew (a reinstall, a lost disk).
    pub epoch: u64,
    pub index: u64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_depend_on_every_byte_and_on_their_kind() {
        let a = SpiffeId::parse("spiffe://east.fed/fedgate/gateway/a").unwrap();
        let b = SpiffeId::parse("spiffe://east.fed/fedgate/gateway/b").unwrap();
        assert_ne!(GatewayId::of(&a), GatewayId::of(&b));
        assert_ne!(
            GatewayId::of(&a).as_bytes(),
            ClusterId::of_key(a.as_str().as_bytes()).as_bytes()
        );
        assert_eq!(GatewayId::of(&a).to_string().len(), 32);
        assert_eq!(GatewayId::of(&a).server_id(), GatewayId::of(&a).as_bytes()[..8]);
    }

    #[test]
    fn an_epoch_outranks_an_index() {
        assert!(Revision { epoch: 2, index: 0 } > Revision { epoch: 1, index: 99 });
    }
}
