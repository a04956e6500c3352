//! Issues and revokes the tokens of JoinGrants, as the operator API would: one after the other,
//! each in the audit record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use discovery::kubernetes::WatchedKind;
use model::code::OBJECT_FOREIGN;
use rand::Rng as _;
use serde_json::json;
use tokio::sync::watch;
use wire::store::TokenId;

use super::audited::audited;
use super::join_grants::{Ask, Asks, Progress, is_foreign};
use crate::kubernetes::calls::{Failure, in_time};
use crate::kubernetes::kinds::{Kind, SECRET};
use crate::kubernetes::{Cluster, Write, changed};
use crate::limits::{KUBERNETES_RETRY_MAX, KUBERNETES_RETRY_MIN};

const NOTE: &str = "join tokens";

/// Does what is asked for while this node is the one that writes, until it stops.
pub(super) async fn run(
    cluster: Cluster,
    mut asks: watch::Receiver<Asks>,
    progress: Arc<watch::Sender<Progress>>,
) {
    let stop = cluster.around.stop.clone();
    let issuing = async {
        let mut pause = KUBERNETES_RETRY_MIN;
        loop {
            let asked = asks.borrow_and_update().clone();
            let patience = match attempt(&cluster, asked, &progress).await {
                true => {
                    pause = KUBERNETES_RETRY_MIN;
                    Duration::MAX
                }
                false => {
                    let patience = pause;
                    pause = (pause * 2).min(KUBERNETES_RETRY_MAX);
                    patience.mul_f64(rand::rng().random_range(0.8..1.2))
                }
            };
            // Nothing is lost: what is asked for stays so until it is there.
            drop(tokio::time::timeout(patience, changed(&mut asks)).await);
        }
    };
    stop.run_until_cancelled(issuing).await;
}

/// Whether all of it was done.
async fn attempt(cluster: &Cluster, asked: Asks, progress: &watch::Sender<Progress>) -> bool {
    if !*cluster.leader.borrow() && asked != Asks::default() {
        return false;
    }
    let mut troubles = BTreeMap::new();
    let mut failures = BTreeMap::new();
    for ask in asked.issue {
        if progress.borrow().fresh.contains_key(&ask.uid) {
            continue;
        }
        if let Err(failure) = issue(cluster, &ask, progress).await {
            if let Some(kind) = Kind::served(&cluster.cache, WatchedKind::JoinGrant) {
                let target = Write::whole(kind, None, &ask.name, json!({})).target;
                failures.insert(target, failure.clone());
            }
            troubles.insert(ask.uid, failure);
        }
    }
    let mut all_revoked = true;
    for token in asked.revoke {
        if let Err(failure) = revoke(cluster, token).await {
            tracing::warn!(%token, %failure, "the token of a deleted JoinGrant is not revoked yet");
            all_revoked = false;
        }
    }
    let all_issued = troubles.is_empty();
    cluster.health.failed(NOTE, failures);
    progress.send_if_modified(|progress| {
        let is_new = progress.troubles != troubles;
        progress.troubles = troubles;
        is_new
    });
    all_issued && all_revoked
}

async fn issue(
    cluster: &Cluster,
    ask: &Ask,
    progress: &watch::Sender<Progress>,
) -> Result<(), Failure> {
    check_free(cluster, &ask.secret).await?;
    let (membership, request) = (cluster.around.membership.clone(), ask.request.clone());
    let parameters = vec![
        ("object", format!("JoinGrant/{}", ask.name)),
        ("name", request.name.to_string()),
        ("roles", request.roles.to_string()),
        ("delegationDepth", request.delegation_depth.to_string()),
        ("approvalNeeded", request.approval_needed.to_string()),
    ];
    let issuing = async move { membership.issue_token(request).await };
    let token = audited(&cluster.around.audit, "IssueToken", parameters, issuing).await?;
    progress.send_modify(|progress| {
        progress.troubles.remove(&ask.uid);
        progress.fresh.insert(ask.uid.clone(), token);
    });
    Ok(())
}

/// Asked before a token is made that could not be handed over.
async fn check_free(cluster: &Cluster, secret: &str) -> Result<(), Failure> {
    let namespace = cluster.config.namespace.as_str();
    let api = SECRET.api(&cluster.client, Some(namespace));
    let there = in_time(api.get_metadata_opt(secret)).await?;
    let Some(there) = there.map_err(|error| Failure::of(&error))? else { return Ok(()) };
    if is_foreign(&there.metadata.labels.unwrap_or_default()) {
        let problem = format!(
            "Secret {namespace}/{secret} is there already and was not made for a JoinGrant; it is \
             left alone: create this one again with another spec.secretRef.name"
        );
        return Err(Failure { code: OBJECT_FOREIGN, problem });
    }
    Ok(())
}

async fn revoke(cluster: &Cluster, token: TokenId) -> Result<(), Failure> {
    let membership = cluster.around.membership.clone();
    let parameters = vec![("token", token.to_string())];
    let revoking = async move { membership.revoke_token(token).await };
    audited(&cluster.around.audit, "RevokeToken", parameters, revoking).await?;
    Ok(())
}
