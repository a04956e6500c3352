//! Certificates that this cluster has, and the trust domains that it accepts.

use identity::certificate_validity;
use model::{Resource, TrustBundle};
use sha2::{Digest, Sha256};
use wire::operator::proto::{AuthorityStatus, CertificateStatus, Certificates, Trust, TrustStatus};

use super::node::unix;
use super::{Operator, View};

pub(super) fn certificates(node: &Operator, view: &View) -> Certificates {
    let own = node.ca.bundle();
    let id = format!("spiffe://{}", own.trust_domain);
    let authorities = own.x509_authorities.iter().map(|der| {
        let (not_before_unix_s, not_after_unix_s) = validity(der).unwrap_or_default();
        let holder = node.cluster.to_string();
        let (part, spiffe_id) = ("ca".into(), id.clone());
        CertificateStatus { part, spiffe_id, not_before_unix_s, not_after_unix_s, holder }
    });
    let svid = node.svid.current();
    let of_node = CertificateStatus {
        part: "federation".into(),
        spiffe_id: svid.id().to_string(),
        not_before_unix_s: unix(svid.not_before()).as_secs(),
        not_after_unix_s: unix(svid.not_after()).as_secs(),
        holder: svid.id().path().rsplit('/').next().unwrap_or_default().into(),
    };
    let gateways = view.gateways.iter().filter_map(|gateway| {
        let (report, _) = gateway.report.as_ref()?;
        Some(CertificateStatus {
            part: "gateway".into(),
            spiffe_id: report.spiffe_id.as_ref()?.to_string(),
            not_before_unix_s: 0,
            not_after_unix_s: report.svid_not_after_unix_s.unwrap_or_default(),
            holder: gateway.name.to_string(),
        })
    });
    Certificates { certificates: authorities.chain([of_node]).chain(gateways).collect() }
}

pub(super) fn trust(node: &Operator, view: &View) -> Trust {
    let own = status(&node.ca.bundle(), node.cluster.to_string(), true);
    let peers = view.resources.values().filter_map(|resource| match resource {
        Resource::ClusterPeer(peer) if peer.name != node.cluster => Some(peer),
        _ => None,
    });
    let theirs = peers.flat_map(|peer| {
        let bundles = peer.trust_bundles.iter();
        bundles.map(|bundle| status(bundle, peer.name.to_string(), false))
    });
    Trust { trust: [own].into_iter().chain(theirs).collect() }
}

fn status(bundle: &TrustBundle, cluster: String, own: bool) -> TrustStatus {
    let authority = |der: &Vec<u8>| AuthorityStatus {
        fingerprint: Sha256::digest(der).to_vec(),
        not_after_unix_s: validity(der).unwrap_or_default().1,
    };
    TrustStatus {
        trust_domain: bundle.trust_domain.to_string(),
        cluster,
        own,
        sequence: bundle.sequence,
        authorities: bundle.x509_authorities.iter().map(authority).collect(),
    }
}

/// From when and until when, in Unix seconds; `None` for what is no certificate.
fn validity(der: &[u8]) -> Option<(u64, u64)> {
    let (not_before, not_after) = certificate_validity(der)?;
    Some((unix(not_before).as_secs(), unix(not_after).as_secs()))
}
