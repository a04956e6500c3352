//! Certificates that this cluster has, and the trust domains that it accepts.

use std::sync::Arc;
use std::time::SystemTime;

use identity::{RootFacts, Svid, certificate_validity};
use model::{Resource, TrustBundle};
use sha2::{Digest, Sha256};
use tonic::{Response, Status as GrpcStatus};
use wire::operator::proto::{
    AuthorityStatus, CertificateStatus, Certificates, Roots, RotateTrustRequest,
    RotatedCertificates, RotationStage, Trust, TrustStatus,
};

use super::audited::audited;
use super::node::unix;
use super::{Caller, Operator, View, denied};
use crate::audit::Audit;
use crate::refusal::refuse;
use crate::rotation::{Rotation, Stage, StageError};

pub(super) fn certificates(node: &Operator, view: &View) -> Certificates {
    let own = node.ca.bundle();
    let id = format!("spiffe://{}", own.trust_domain);
    let authorities = own.x509_authorities.iter().map(|der| {
        let (not_before_unix_s, not_after_unix_s) = validity(der).unwrap_or_default();
        let holder = node.cluster.to_string();
        let (part, spiffe_id) = ("ca".into(), id.clone());
        CertificateStatus { part, spiffe_id, not_before_unix_s, not_after_unix_s, holder }
    });
    let of_node = of_node(&node.svid.current());
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

fn of_node(svid: &Svid) -> CertificateStatus {
    CertificateStatus {
        part: "federation".into(),
        spiffe_id: svid.id().to_string(),
        not_before_unix_s: unix(svid.not_before()).as_secs(),
        not_after_unix_s: unix(svid.not_after()).as_secs(),
        holder: svid.id().path().rsplit('/').next().unwrap_or_default().into(),
    }
}

pub(super) fn trust(node: &Operator, view: &View) -> Trust {
    let mut own = status(&node.ca.bundle(), node.cluster.to_string(), true);
    own.authorities = node.ca.roots().iter().map(root).collect();
    own.revoked_svids = denied::own(node);
    let peers = view.resources.values().filter_map(|resource| match resource {
        Resource::ClusterPeer(peer) if peer.name != node.cluster => Some(peer),
        _ => None,
    });
    let theirs = peers.flat_map(|peer| {
        let bundles = peer.trust_bundles.iter();
        bundles.map(|bundle| TrustStatus {
            revoked_svids: denied::of_peer(peer, &bundle.trust_domain),
            ..status(bundle, peer.name.to_string(), false)
        })
    });
    Trust { trust: [own].into_iter().chain(theirs).collect() }
}

fn status(bundle: &TrustBundle, cluster: String, own: bool) -> TrustStatus {
    let authority = |der: &Vec<u8>| AuthorityStatus {
        fingerprint: Sha256::digest(der).to_vec(),
        not_after_unix_s: validity(der).unwrap_or_default().1,
        ..AuthorityStatus::default()
    };
    TrustStatus {
        trust_domain: bundle.trust_domain.to_string(),
        cluster,
        own,
        sequence: bundle.sequence,
        authorities: bundle.x509_authorities.iter().map(authority).collect(),
        revoked_svids: Vec::new(),
    }
}

fn root(root: &RootFacts) -> AuthorityStatus {
    AuthorityStatus {
        fingerprint: Sha256::digest(&root.der).to_vec(),
        not_after_unix_s: unix(root.not_after).as_secs(),
        state: root.state.as_str().into(),
        svids_until_unix_s: root.svids_until.map(|until| unix(until).as_secs()).unwrap_or_default(),
    }
}

/// One stage of the root's rotation.
pub(super) async fn rotate(
    rotation: &Arc<Rotation>,
    audit: &Arc<Audit>,
    caller: Caller,
    request: &RotateTrustRequest,
) -> Result<Response<Roots>, GrpcStatus> {
    let stage = match request.stage() {
        RotationStage::Prepare => Stage::Prepare,
        RotationStage::Activate => Stage::Activate,
        RotationStage::Revoke => Stage::Revoke,
        RotationStage::Unspecified => {
            return Err(GrpcStatus::invalid_argument("RotateTrustRequest.stage is missing"));
        }
    };
    let (rotation, force) = (rotation.clone(), request.force);
    let parameters = vec![("stage", stage.as_str().into()), ("force", force.to_string())];
    audited(audit, caller, "RotateTrust", parameters, async move {
        let roots = rotation.stage(stage, force, SystemTime::now()).await.map_err(refused)?;
        let sequence = rotation.ca.bundle().sequence;
        Ok(Roots { sequence, roots: roots.iter().map(root).collect() })
    })
    .await
}

/// A new SVID for the node, and a new root if that has run out.
pub(super) async fn renew(
    rotation: &Arc<Rotation>,
    audit: &Arc<Audit>,
    caller: Caller,
) -> Result<Response<RotatedCertificates>, GrpcStatus> {
    let rotation = rotation.clone();
    audited(audit, caller, "RotateCertificates", Vec::new(), async move {
        let new_root = rotation.renew(SystemTime::now()).await.map_err(refused)?;
        let certificate = Some(of_node(&rotation.svid.current()));
        Ok(RotatedCertificates { new_root, certificate })
    })
    .await
}

fn refused(error: StageError) -> GrpcStatus {
    refuse(tonic::Code::FailedPrecondition, error.code(), error)
}

/// From when and until when, in Unix seconds; `None` for what is no certificate.
fn validity(der: &[u8]) -> Option<(u64, u64)> {
    let (not_before, not_after) = certificate_validity(der)?;
    Some((unix(not_before).as_secs(), unix(not_after).as_secs()))
}
