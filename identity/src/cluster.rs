//! A cluster's id, as everybody who has its bundle can work it out.

use model::{ClusterId, TrustBundle};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// The hash of the bundle's first authority's key: what [`crate::Ca::cluster_id`] says, as long as
/// no root was ever rotated. `None` for a bundle without a readable authority.
pub fn cluster_id(bundle: &TrustBundle) -> Option<ClusterId> {
    let first = bundle.x509_authorities.first()?;
    let (_, certificate) = X509Certificate::from_der(first).ok()?;
    Some(ClusterId::of_key(certificate.public_key().raw))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use model::TrustDomain;

    use super::*;
    use crate::Ca;

    #[test]
    fn a_bundle_names_the_cluster_that_its_ca_names() {
        let folder = tempfile::tempdir().unwrap();
        let domain = TrustDomain::parse("east.fed").unwrap();
        let ca = Ca::load_or_create(folder.path(), &domain, SystemTime::now()).unwrap();
        assert_eq!(cluster_id(&ca.bundle()), Some(ca.cluster_id()));
        let mut spoilt = ca.bundle();
        spoilt.x509_authorities[0].truncate(20);
        assert_eq!(cluster_id(&spoilt), None);
        spoilt.x509_authorities.clear();
        assert_eq!(cluster_id(&spoilt), None);
    }
}
