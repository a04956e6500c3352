//! Founding, joining and leaving a federation, and its store, as operators ask for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{ClusterId, ClusterName, RoleSet, ServiceName, TrustDomain};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status as GrpcStatus};
use wire::operator::proto::federation_service_server::FederationService;
use wire::operator::proto::{self, Changed};
use wire::store::TokenId;

use super::audited::{audited, caller};
use super::{denied, encode, trust};
use crate::audit::Audit;
use crate::denied::Denying;
use crate::membership::{
    LeaveRequest, Membership, MembershipError, RevokeRequest, RevokeTarget, TokenRequest, TokenRow,
    TokenText,
};
use crate::refusal::refuse;
use crate::rotation::Rotation;

/// Steps of a join that wait for a caller who reads slowly.
const JOIN_EVENTS_MAX: usize = 32;

/// The second service behind `operator.sock`. The gate stands before it.
#[derive(Debug)]
pub(crate) struct Federation {
    pub(crate) membership: Membership,
    pub(crate) audit: Arc<Audit>,
    pub(crate) rotation: Arc<Rotation>,
    pub(crate) denying: Arc<Denying>,
}

type Answer<T> = Result<Response<T>, GrpcStatus>;

#[tonic::async_trait]
impl FederationService for Federation {
    async fn found(&self, request: Request<proto::FoundRequest>) -> Answer<proto::Founded> {
        let (caller, membership) = (caller(&request)?, self.membership.clone());
        audited(&self.audit, caller, "Found", Vec::new(), async move {
            Ok(encode::founded(&membership.init().await?))
        })
        .await
    }

    async fn list_members(
        &self,
        request: Request<proto::ListMembersRequest>,
    ) -> Answer<proto::Members> {
        let rows = match &*request.get_ref().admitted_by {
            "" => self.membership.members(),
            name => self.membership.admitted_by(&cluster_name(name)?)?,
        };
        Ok(Response::new(proto::Members { members: rows.iter().map(encode::member).collect() }))
    }

    async fn list_exports(
        &self,
        request: Request<proto::ListExportsRequest>,
    ) -> Answer<proto::Exports> {
        let proto::ListExportsRequest { namespace, name } = request.into_inner();
        let service = ServiceName::parse(&format!("{namespace}/{name}"));
        let service = service.map_err(|error| GrpcStatus::invalid_argument(error.to_string()))?;
        let rows = self.membership.exports(&service);
        Ok(Response::new(proto::Exports { exports: rows.iter().map(encode::export).collect() }))
    }

    async fn issue_token(
        &self,
        request: Request<proto::IssueTokenRequest>,
    ) -> Answer<proto::IssuedToken> {
        let (caller, membership) = (caller(&request)?, self.membership.clone());
        let asked = token_request(request.get_ref())?;
        let parameters = vec![
            ("name", asked.name.to_string()),
            ("roles", asked.roles.to_string()),
            ("delegationDepth", asked.delegation_depth.to_string()),
            ("approvalNeeded", asked.approval_needed.to_string()),
            ("force", asked.force.to_string()),
        ];
        audited(&self.audit, caller, "IssueToken", parameters, async move {
            Ok(encode::issued(&membership.issue_token(asked).await?))
        })
        .await
    }

    async fn list_tokens(
        &self,
        request: Request<proto::ListTokensRequest>,
    ) -> Answer<proto::Tokens> {
        let proto::ListTokensRequest { name, linearizable } = request.into_inner();
        let rows = match linearizable {
            true => self.membership.tokens_now().await?,
            false => self.membership.tokens()?,
        };
        let asked = |row: &&TokenRow| name.is_empty() || row.name.as_str() == name;
        let tokens = rows.iter().filter(asked).map(encode::token).collect();
        Ok(Response::new(proto::Tokens { tokens }))
    }

    async fn revoke_token(&self, request: Request<proto::RevokeTokenRequest>) -> Answer<Changed> {
        let (caller, membership) = (caller(&request)?, self.membership.clone());
        let text = &request.get_ref().id;
        let id = TokenId::parse(text).ok_or_else(|| {
            let fix = "`fedctl token list` shows the ids, 32 hexadecimal digits each";
            GrpcStatus::invalid_argument(format!("{text:?} is no token's id; {fix}"))
        })?;
        let parameters = vec![("token", id.to_string())];
        audited(&self.audit, caller, "RevokeToken", parameters, async move {
            Ok(encode::changed(membership.revoke_token(id).await?))
        })
        .await
    }

    async fn try_token(&self, request: Request<proto::TokenText>) -> Answer<proto::TokenVerdict> {
        let token = TokenText::new(request.into_inner().text);
        let check = self.membership.check_token(&token).await?;
        Ok(Response::new(encode::verdict(&check)))
    }

    type JoinStream = ReceiverStream<Result<proto::JoinEvent, GrpcStatus>>;

    async fn join(&self, request: Request<proto::TokenText>) -> Answer<Self::JoinStream> {
        let (caller, membership) = (caller(&request)?, self.membership.clone());
        let token = TokenText::new(request.into_inner().text);
        let facts = membership.read_token(&token)?;
        let parameters = vec![
            ("token", facts.id.to_string()),
            ("federation", facts.federation.to_string()),
            ("inviter", facts.inviter.clone()),
            ("name", facts.name.to_string()),
            ("roles", facts.roles.to_string()),
        ];
        let (events, receiver) = mpsc::channel(JOIN_EVENTS_MAX);
        let audit = self.audit.clone();
        tokio::spawn(async move {
            let steps = events.clone();
            let joined = audited(&audit, caller, "Join", parameters, async move {
                let (progress, mut steps_made) = mpsc::channel(JOIN_EVENTS_MAX);
                let telling = tokio::spawn(async move {
                    while let Some(step) = steps_made.recv().await {
                        // Nobody listens any more: the join goes on.
                        let _ = steps.send(Ok(encode::progress(&step))).await;
                    }
                });
                let joined = membership.join(&token, progress).await;
                // Ends when the membership has dropped its sender; what it said comes first.
                let _ = telling.await;
                Ok(encode::joined(&joined?))
            });
            let last = joined.await.map(Response::into_inner);
            let _ = events.send(last).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list_pending_joins(
        &self,
        _: Request<proto::ListPendingJoinsRequest>,
    ) -> Answer<proto::PendingJoins> {
        let pending = self.membership.pending();
        let joins = pending.iter().map(encode::pending).collect();
        Ok(Response::new(proto::PendingJoins { joins }))
    }

    async fn decide_join(
        &self,
        request: Request<proto::DecideJoinRequest>,
    ) -> Answer<proto::Decided> {
        let (caller, membership) = (caller(&request)?, self.membership.clone());
        let proto::DecideJoinRequest { cluster, approve } = request.into_inner();
        let (cluster, name) = self.waiting(&cluster)?;
        let verdict = if approve { "approve" } else { "deny" };
        let parameters = vec![
            ("verdict", verdict.to_string()),
            ("cluster", cluster.to_string()),
            ("name", name.to_string()),
        ];
        audited(&self.audit, caller, "DecideJoin", parameters, async move {
            if approve {
                membership.approve(cluster)?;
            } else {
                membership.deny(cluster)?;
            }
            Ok(proto::Decided { cluster: cluster.to_string(), name: name.to_string() })
        })
        .await
    }

    async fn leave(&self, request: Request<proto::LeaveRequest>) -> Answer<proto::Left> {
        let (caller, membership) = (caller(&request)?, self.membership.clone());
        let proto::LeaveRequest { drain_ms, force } = request.into_inner();
        let asked = LeaveRequest { drain: drain_ms.map(Duration::from_millis), force };
        let drain = drain_ms.map_or_else(|| "none".into(), |ms| ms.to_string());
        let parameters = vec![("drainMs", drain), ("force", force.to_string())];
        audited(&self.audit, caller, "Leave", parameters, async move {
            let revision = membership.leave(asked).await?;
            Ok(proto::Left { revision: revision.map(encode::revision) })
        })
        .await
    }

    async fn remove_member(&self, request: Request<proto::RemoveMemberRequest>) -> Answer<Changed> {
        let (caller, membership) = (caller(&request)?, self.membership.clone());
        let name = cluster_name(&request.get_ref().name)?;
        let parameters = vec![("name", name.to_string())];
        audited(&self.audit, caller, "RemoveMember", parameters, async move {
            Ok(encode::changed(membership.remove(&name).await?))
        })
        .await
    }

    async fn revoke(&self, request: Request<proto::RevokeRequest>) -> Answer<proto::Revoked> {
        let (caller, membership) = (caller(&request)?, self.membership.clone());
        let asked = revoke_request(request.into_inner())?;
        let target = match &asked.target {
            RevokeTarget::Cluster(name) => format!("cluster {name}"),
            RevokeTarget::TrustDomain(domain) => format!("trust domain {domain}"),
        };
        let mut parameters = vec![("target", target), ("reason", asked.reason.clone())];
        parameters.extend(asked.reanchor.iter().map(|name| ("reanchor", name.to_string())));
        audited(&self.audit, caller, "Revoke", parameters, async move {
            Ok(encode::revoked(&membership.revoke(asked).await?))
        })
        .await
    }

    async fn revoke_svid(
        &self,
        request: Request<proto::RevokeSvidRequest>,
    ) -> Answer<proto::RevokedSvidStatus> {
        let caller = caller(&request)?;
        denied::revoke(&self.denying, &self.audit, caller, request.into_inner()).await
    }

    async fn rotate_trust(
        &self,
        request: Request<proto::RotateTrustRequest>,
    ) -> Answer<proto::Roots> {
        let caller = caller(&request)?;
        trust::rotate(&self.rotation, &self.audit, caller, request.get_ref()).await
    }

    async fn rotate_certificates(
        &self,
        request: Request<proto::RotateCertificatesRequest>,
    ) -> Answer<proto::RotatedCertificates> {
        trust::renew(&self.rotation, &self.audit, caller(&request)?).await
    }

    async fn get_store(&self, _: Request<proto::GetStoreRequest>) -> Answer<proto::Store> {
        Ok(Response::new(encode::store(&self.membership.store_status()?)))
    }

    async fn verify_store(
        &self,
        _: Request<proto::VerifyStoreRequest>,
    ) -> Answer<proto::StoreVerdict> {
        Ok(Response::new(encode::store_verdict(&self.membership.verify_all().await?)))
    }

    async fn transfer_leadership(
        &self,
        request: Request<proto::TransferLeadershipRequest>,
    ) -> Answer<proto::Transferred> {
        let (caller, membership) = (caller(&request)?, self.membership.clone());
        let to = match &*request.get_ref().to {
            "" => None,
            name => Some(cluster_name(name)?),
        };
        let parameters = to.iter().map(|name| ("to", name.to_string())).collect();
        audited(&self.audit, caller, "TransferLeadership", parameters, async move {
            let to = membership.transfer(to.as_ref()).await?;
            Ok(proto::Transferred { to: to.to_string() })
        })
        .await
    }

    async fn set_standbys(&self, request: Request<proto::SetStandbysRequest>) -> Answer<Changed> {
        let (caller, membership) = (caller(&request)?, self.membership.clone());
        let names = cluster_names(&request.get_ref().names)?;
        let parameters = names.iter().map(|name| ("standby", name.to_string())).collect();
        audited(&self.audit, caller, "SetStandbys", parameters, async move {
            Ok(encode::changed(membership.set_standbys(&names).await?))
        })
        .await
    }

    async fn save_snapshot(
        &self,
        request: Request<proto::SnapshotPath>,
    ) -> Answer<proto::Snapshot> {
        let (caller, membership) = (caller(&request)?, self.membership.clone());
        let path = absolute(&request.get_ref().path)?;
        let parameters = vec![("path", path.display().to_string())];
        audited(&self.audit, caller, "SaveSnapshot", parameters, async move {
            Ok(encode::snapshot(&membership.save_snapshot(&path).await?))
        })
        .await
    }

    async fn check_snapshot(
        &self,
        request: Request<proto::SnapshotPath>,
    ) -> Answer<proto::Snapshot> {
        let path = absolute(&request.get_ref().path)?;
        let facts = self.membership.verify_snapshot(&path).await?;
        Ok(Response::new(encode::snapshot(&facts)))
    }

    async fn restore_snapshot(&self, request: Request<proto::SnapshotPath>) -> Answer<Changed> {
        let (caller, membership) = (caller(&request)?, self.membership.clone());
        let path = absolute(&request.get_ref().path)?;
        let parameters = vec![("path", path.display().to_string())];
        audited(&self.audit, caller, "RestoreSnapshot", parameters, async move {
            Ok(encode::changed(membership.restore(&path).await?))
        })
        .await
    }

    async fn recover_store(&self, request: Request<proto::RecoverStoreRequest>) -> Answer<Changed> {
        let (caller, membership) = (caller(&request)?, self.membership.clone());
        audited(&self.audit, caller, "RecoverStore", Vec::new(), async move {
            Ok(encode::changed(membership.recover().await?))
        })
        .await
    }
}

impl Federation {
    /// The one cluster that waits under an id or a name.
    fn waiting(&self, text: &str) -> Result<(ClusterId, ClusterName), GrpcStatus> {
        let pending = self.membership.pending();
        let matching = pending
            .iter()
            .filter(|join| join.name.as_str() == text || join.cluster.to_string() == text);
        let found: Vec<_> = matching.map(|join| (join.cluster, join.name.clone())).collect();
        match &found[..] {
            [one] => Ok(one.clone()),
            [] => {
                let text = format!(
                    "no cluster {text:?} waits for approval here; `fedctl join --list` shows who does"
                );
                Err(refuse(tonic::Code::NotFound, model::code::JOIN_NOT_PENDING, text))
            }
            several => Err(GrpcStatus::invalid_argument(format!(
                "{} clusters wait under the name {text}; name one by its id, which `fedctl join \
                 --list` shows",
                several.len()
            ))),
        }
    }
}

fn token_request(asked: &proto::IssueTokenRequest) -> Result<TokenRequest, GrpcStatus> {
    let roles = RoleSet::parse(&asked.roles);
    Ok(TokenRequest {
        name: cluster_name(&asked.name)?,
        roles: roles.map_err(|error| GrpcStatus::invalid_argument(error.to_string()))?,
        delegation_depth: asked.delegation_depth,
        lifetime: (asked.lifetime_s > 0).then(|| Duration::from_secs(asked.lifetime_s)),
        approval_needed: asked.approval_needed,
        force: asked.force,
    })
}

fn revoke_request(asked: proto::RevokeRequest) -> Result<RevokeRequest, GrpcStatus> {
    use proto::revoke_request::Target;
    let target = match asked.target {
        Some(Target::Cluster(name)) => RevokeTarget::Cluster(cluster_name(&name)?),
        Some(Target::TrustDomain(name)) => {
            let domain = TrustDomain::parse(&name);
            let domain = domain.map_err(|error| GrpcStatus::invalid_argument(error.to_string()))?;
            RevokeTarget::TrustDomain(domain)
        }
        None => return Err(GrpcStatus::invalid_argument("target: name whom to revoke")),
    };
    Ok(RevokeRequest { target, reason: asked.reason, reanchor: cluster_names(&asked.reanchor)? })
}

fn cluster_names(names: &[String]) -> Result<Vec<ClusterName>, GrpcStatus> {
    names.iter().map(|name| cluster_name(name)).collect()
}

fn cluster_name(name: &str) -> Result<ClusterName, GrpcStatus> {
    ClusterName::parse(name).map_err(|error| GrpcStatus::invalid_argument(error.to_string()))
}

fn absolute(path: &str) -> Result<PathBuf, GrpcStatus> {
    let path = Path::new(path);
    if path.is_absolute() {
        return Ok(path.into());
    }
    let text = format!("{} is no absolute path, and the node is in another folder", path.display());
    Err(GrpcStatus::invalid_argument(text))
}

impl From<MembershipError> for GrpcStatus {
    fn from(error: MembershipError) -> Self {
        use MembershipError as E;
        let grpc = match &error {
            E::TokenMalformed { .. } => tonic::Code::InvalidArgument,
            E::UnknownCluster { .. } | E::NotPending { .. } => tonic::Code::NotFound,
            E::NoQuorum { .. } | E::JoinInterrupted { .. } | E::Disk { .. } | E::Store { .. } => {
                tonic::Code::Aborted
            }
            _ => tonic::Code::FailedPrecondition,
        };
        refuse(grpc, error.code(), &error)
    }
}
