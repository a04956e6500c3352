//! Cordons, as operators set and see them.

use std::sync::Arc;
use std::time::SystemTime;

use model::code::FEDERATION_NONE;
use model::{ClusterName, Resource};
use tonic::{Response, Status as GrpcStatus};
use wire::operator::proto::{self, CordonSet, SetCordonRequest};

use super::audited::{audited, blocking};
use super::node::{millis, unix};
use super::{Caller, Operator, View};
use crate::cordon::CordonError;
use crate::fleet::Fleet;
use crate::membership::Mode;
use crate::refusal::refuse;

pub(super) async fn set(
    node: &Operator,
    caller: Caller,
    request: SetCordonRequest,
) -> Result<Response<CordonSet>, GrpcStatus> {
    let SetCordonRequest { cluster, cordoned, reason } = request;
    let cluster = ClusterName::parse(&cluster)
        .map_err(|error| GrpcStatus::invalid_argument(format!("cluster: {error}")))?;
    if cordoned {
        check_known(node, &cluster)?;
    }
    let parameters = vec![
        ("cluster", cluster.to_string()),
        ("cordoned", cordoned.to_string()),
        ("reason", reason.clone()),
    ];
    let cordons = Arc::clone(&node.cordons);
    let change = blocking(move || match cordoned {
        true => cordons.cordon(cluster, &reason, SystemTime::now()),
        false => cordons.uncordon(&cluster),
    });
    audited(&node.audit, caller, "SetCordon", parameters, async {
        Ok(CordonSet { changed: change.await?? })
    })
    .await
}

/// A cordon that could never count is refused.
fn check_known(node: &Operator, cluster: &ClusterName) -> Result<(), GrpcStatus> {
    if *cluster == node.cluster {
        if node.membership.mode() == Mode::Alone {
            let text = format!(
                "{cluster} is this cluster, which is in no federation that could tell the others; \
                 cordon it at each of them"
            );
            return Err(refuse(tonic::Code::FailedPrecondition, FEDERATION_NONE, text));
        }
        return Ok(());
    }
    match is_peer(node, cluster) {
        true => Ok(()),
        false => Err(CordonError::NoPeer(cluster.clone()).into()),
    }
}

pub(super) fn is_peer(node: &Operator, cluster: &ClusterName) -> bool {
    let (_, resources) = node.revisions.resources();
    let is_it = |resource: &Resource| matches!(resource, Resource::ClusterPeer(peer) if peer.name == *cluster);
    resources.values().any(is_it)
}

/// What is to be said of a cluster: `None` if nobody cordoned it.
pub(super) fn of(node: &Operator, view: &View, cluster: &ClusterName) -> Option<proto::Cordon> {
    let here = node.cordons.current().get(cluster).cloned();
    let state = node.membership.state();
    let published = state.is_some_and(|(_, fleet)| says_of_itself(&fleet, cluster));
    let own = *cluster == node.cluster;
    if here.is_none() && (own || !published) {
        return None;
    }
    let marked = view.resources.values().any(|resource| {
        matches!(resource, Resource::ClusterPeer(peer) if peer.name == *cluster && peer.cordoned)
    });
    Some(proto::Cordon {
        by_itself: published && !own,
        since_unix_ms: here.as_ref().map_or(0, |cordon| millis(unix(cordon.since))),
        reason: here.map_or_else(String::new, |cordon| cordon.reason),
        in_force: if own { published } else { marked },
    })
}

fn says_of_itself(fleet: &Fleet, cluster: &ClusterName) -> bool {
    let member = fleet.members().find(|member| member.name == *cluster);
    member.is_some_and(|member| {
        fleet.records(&member.cluster).any(|record| {
            matches!(record.resource(), Some(Resource::ClusterPeer(peer)) if peer.cordoned)
        })
    })
}

impl From<CordonError> for GrpcStatus {
    fn from(error: CordonError) -> Self {
        match (&error, error.code()) {
            (CordonError::NoPeer(_), Some(code)) => refuse(tonic::Code::NotFound, code, &error),
            (_, Some(code)) => refuse(tonic::Code::Aborted, code, &error),
            (_, None) => Self::invalid_argument(error.to_string()),
        }
    }
}
