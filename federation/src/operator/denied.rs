//! SVIDs that clusters deny, as operators add to them and see them.

use std::sync::Arc;
use std::time::SystemTime;

use model::spiffe::Part;
use model::{ClusterPeer, ObjectName, SpiffeId};
use tonic::{Response, Status as GrpcStatus};
use wire::operator::proto::{
    RevokeSvidRequest, RevokedSvid, RevokedSvidStatus, revoke_svid_request::Target,
};

use super::audited::audited;
use super::{Caller, Operator, encode};
use crate::audit::Audit;
use crate::denied::{DenialError, Denying, SvidRevoked};
use crate::refusal::refuse;

pub(super) async fn revoke(
    denying: &Arc<Denying>,
    audit: &Arc<Audit>,
    caller: Caller,
    request: RevokeSvidRequest,
) -> Result<Response<RevokedSvidStatus>, GrpcStatus> {
    let id = target(denying, request.target)?;
    let (denying, reason) = (denying.clone(), request.reason);
    let parameters = vec![("spiffe_id", id.to_string()), ("reason", reason.clone())];
    audited(audit, caller, "RevokeSvid", parameters, async move {
        let done = denying.revoke(id, reason.clone(), SystemTime::now()).await?;
        let SvidRevoked { svid, revision, alone, unseen } = done;
        Ok(RevokedSvidStatus {
            revoked: Some(told(&svid, reason)),
            revision: revision.map(encode::revision),
            alone,
            unseen,
        })
    })
    .await
}

fn target(denying: &Denying, target: Option<Target>) -> Result<SpiffeId, GrpcStatus> {
    let own = denying.svid.current().id().trust_domain().clone();
    match target {
        Some(Target::Gateway(name)) => {
            let name = ObjectName::parse(&name).map_err(|error| wrong("gateway", &error))?;
            Ok(SpiffeId::of_part(&own, Part::Gateway, &name))
        }
        Some(Target::SpiffeId(id)) => {
            SpiffeId::parse(&id).map_err(|error| wrong("spiffe_id", &error))
        }
        None => Err(GrpcStatus::invalid_argument("target: name a gateway or a SPIFFE ID")),
    }
}

fn wrong(field: &str, error: &dyn std::error::Error) -> GrpcStatus {
    GrpcStatus::invalid_argument(format!("{field}: {error}"))
}

/// Those of this cluster.
pub(super) fn own(node: &Operator) -> Vec<RevokedSvid> {
    let denials = node.denials.current();
    let of_own = node.denials.in_force(SystemTime::now()).into_iter().map(|svid| {
        let reason = denials.get(&svid.id).map_or_else(String::new, |it| it.reason.clone());
        told(&svid, reason)
    });
    of_own.collect()
}

/// Those of another one, in one of its trust domains.
pub(super) fn of_peer(peer: &ClusterPeer, domain: &model::TrustDomain) -> Vec<RevokedSvid> {
    let in_domain = peer.revoked_svids.iter().filter(|svid| svid.id.trust_domain() == domain);
    in_domain.map(|svid| told(svid, String::new())).collect()
}

fn told(svid: &model::RevokedSvid, reason: String) -> RevokedSvid {
    let (spiffe_id, not_before_unix_s) = (svid.id.to_string(), svid.not_before_unix_s);
    RevokedSvid { spiffe_id, not_before_unix_s, reason }
}

impl From<DenialError> for GrpcStatus {
    fn from(error: DenialError) -> Self {
        match error.code() {
            Some(code) => refuse(tonic::Code::Aborted, code, &error),
            None => Self::invalid_argument(error.to_string()),
        }
    }
}
