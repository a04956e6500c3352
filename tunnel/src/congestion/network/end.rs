//! Who speaks over the path.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{BundleSet, Ca, Identity, IdentityCell, SvidKeyPair, TrustDomainOwners};
use model::spiffe::Part;
use model::{ClusterName, ObjectName, SpiffeId, TrustDomain};
use quinn_proto::{Connection, Endpoint, EndpointConfig};

use super::ANSWERS;
use crate::config::TunnelLimits;
use crate::transport::ServerConfigs;

pub(super) struct End {
    pub(super) endpoint: Endpoint,
    pub(super) connections: Vec<Connection>,
}

impl End {
    pub(super) fn new(number: usize, seed: u64) -> Self {
        let mut config = EndpointConfig::default();
        config.rng_seed(Some([seed as u8 ^ number as u8; 32]));
        let server = (number == ANSWERS).then(|| {
            // Never asked for: each handshake gets its own.
            let limits = TunnelLimits::default();
            Arc::new(ServerConfigs::new(&limits, site()).unwrap().any())
        });
        let endpoint = Endpoint::new(Arc::new(config), server, true, None);
        Self { endpoint, connections: Vec::new() }
    }
}

pub(super) fn address(end: usize) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, end as u8 + 1), 8443).into()
}

/// A gateway that knows its own cluster.
pub(super) fn site() -> Arc<IdentityCell> {
    let folder = tempfile::tempdir().unwrap();
    let (domain, now) = (TrustDomain::parse("east.fed").unwrap(), SystemTime::now());
    let ca = Ca::load_or_create(folder.path(), &domain, now).unwrap();
    let id = SpiffeId::of_part(&domain, Part::Gateway, &ObjectName::parse("gw-0").unwrap());
    let key = SvidKeyPair::generate().unwrap();
    let csr = key.csr_der(&id).unwrap();
    let svid = ca.issue(&csr, &id, Duration::from_secs(3600), now).unwrap();
    let (mut bundles, mut owners) = (BundleSet::default(), TrustDomainOwners::default());
    bundles.insert(ca.bundle()).unwrap();
    owners.claim(domain, ClusterName::parse("east").unwrap()).unwrap();
    let svid = Some(Arc::new(key.into_svid(svid).unwrap()));
    Arc::new(IdentityCell::new(Identity { svid, bundles, owners, ..Identity::default() }))
}
