//! Signed statements beside Heads and Members: revocations, leaving, and decisions of admins.

use std::collections::BTreeSet;

use model::{ClusterId, FederationId, TrustDomain};
use prost::Message as _;

use super::convert::{cluster, copied, federation, fixed, message, positive};
use super::limits;
use super::proto::{self, admin_statement::Statement, revocation::Target};
use super::token::TokenId;
use crate::error::{At, WireError};
use crate::resource::convert::{list, parse};

/// The payload of [`super::Domain::Revocation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub federation: FederationId,
    pub target: RevocationTarget,
    /// What the target signed or was issued from then on does not count; 0: nothing ever counted.
    pub not_before_unix_ms: u64,
    pub issuer: ClusterId,
    pub reason: String,
    pub reanchor: Vec<Reanchor>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RevocationTarget {
    Cluster(ClusterId),
    TrustDomain(TrustDomain),
}

/// A member whom the revoked one had admitted, and who answers for it from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reanchor {
    pub child: ClusterId,
    pub issuer: ClusterId,
}

impl Revocation {
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let at = At::message("Revocation");
        let sent: proto::Revocation = message(&at, payload, limits::PAYLOAD_BYTES_MAX)?;
        let target = match sent.target {
            Some(Target::Cluster(id)) => {
                RevocationTarget::Cluster(cluster(at.field("cluster"), &id)?)
            }
            Some(Target::TrustDomain(domain)) => {
                let at = at.field("trust_domain");
                RevocationTarget::TrustDomain(parse(at, &domain, TrustDomain::parse)?)
            }
            None => return Err(at.field("target").missing("set cluster or trust_domain")),
        };
        at.field("reason").check_bytes(sent.reason.len(), limits::REASON_BYTES_MAX)?;
        let reanchor = list(&at, "reanchor", sent.reanchor, limits::REANCHORS_MAX, |at, entry| {
            Ok(Reanchor {
                child: cluster(at.field("child"), &entry.child)?,
                issuer: cluster(at.field("issuer"), &entry.issuer)?,
            })
        })?;
        check_children(&at, &reanchor)?;
        Ok(Self {
            federation: federation(at.field("federation"), &sent.federation)?,
            target,
            not_before_unix_ms: sent.not_before_unix_ms,
            issuer: cluster(at.field("issuer"), &sent.issuer)?,
            reason: sent.reason,
            reanchor,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let target = match &self.target {
            RevocationTarget::Cluster(id) => Target::Cluster(copied(id.as_bytes())),
            RevocationTarget::TrustDomain(domain) => Target::TrustDomain(domain.to_string()),
        };
        let reanchor = |entry: &Reanchor| proto::Reanchor {
            child: copied(entry.child.as_bytes()),
            issuer: copied(entry.issuer.as_bytes()),
        };
        let revocation = proto::Revocation {
            federation: copied(self.federation.as_bytes()),
            target: Some(target),
            not_before_unix_ms: self.not_before_unix_ms,
            issuer: copied(self.issuer.as_bytes()),
            reason: self.reason.clone(),
            reanchor: self.reanchor.iter().map(reanchor).collect(),
        };
        revocation.encode_to_vec()
    }
}

fn check_children(at: &At<'_>, reanchor: &[Reanchor]) -> Result<(), WireError> {
    let mut seen = BTreeSet::new();
    for (index, entry) in reanchor.iter().enumerate() {
        let at = at.entry("reanchor", index);
        if !seen.insert(entry.child) {
            return Err(at.field("child").refuse(entry.child, "name each child once"));
        }
        if entry.child == entry.issuer {
            return Err(at.field("issuer").refuse(entry.issuer, "nobody answers for itself"));
        }
    }
    Ok(())
}

/// The payload of [`super::Domain::Leave`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leave {
    pub federation: FederationId,
    pub cluster: ClusterId,
    /// The cluster itself, or an admin.
    pub issuer: ClusterId,
    /// Of the Member that it ends.
    pub member_generation: u64,
}

impl Leave {
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let at = At::message("Leave");
        let sent: proto::Leave = message(&at, payload, limits::PAYLOAD_BYTES_MAX)?;
        let generation = at.field("member_generation");
        Ok(Self {
            federation: federation(at.field("federation"), &sent.federation)?,
            cluster: cluster(at.field("cluster"), &sent.cluster)?,
            issuer: cluster(at.field("issuer"), &sent.issuer)?,
            member_generation: positive(generation, sent.member_generation)?,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let leave = proto::Leave {
            federation: copied(self.federation.as_bytes()),
            cluster: copied(self.cluster.as_bytes()),
            issuer: copied(self.issuer.as_bytes()),
            member_generation: self.member_generation,
        };
        leave.encode_to_vec()
    }
}

/// The payload of [`super::Domain::Admin`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminStatement {
    pub federation: FederationId,
    pub issuer: ClusterId,
    pub change: AdminChange,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminChange {
    /// By the token's issuer or an admin.
    RevokeToken(TokenId),
    /// By an admin. The generation grows with every statement.
    Standbys { generation: u64, clusters: Vec<ClusterId> },
}

impl AdminStatement {
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let at = At::message("AdminStatement");
        let sent: proto::AdminStatement = message(&at, payload, limits::PAYLOAD_BYTES_MAX)?;
        let change = match sent.statement {
            Some(Statement::RevokeToken(x)) => {
                let at = at.field("revoke_token");
                let id = fixed(at.field("token_id"), &x.token_id)?;
                AdminChange::RevokeToken(TokenId::from_bytes(id))
            }
            Some(Statement::Standbys(x)) => standbys(at.field("standbys"), x)?,
            None => {
                let fix = "it is empty or newer than this build; every node must know it";
                return Err(at.field("statement").missing(fix));
            }
        };
        Ok(Self {
            federation: federation(at.field("federation"), &sent.federation)?,
            issuer: cluster(at.field("issuer"), &sent.issuer)?,
            change,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let statement = match &self.change {
            AdminChange::RevokeToken(id) => {
                let token_id = copied(id.as_bytes());
                Statement::RevokeToken(proto::TokenRevocation { token_id })
            }
            AdminChange::Standbys { generation, clusters } => {
                let clusters = clusters.iter().map(|id| copied(id.as_bytes())).collect();
                Statement::Standbys(proto::Standbys { generation: *generation, clusters })
            }
        };
        let statement = proto::AdminStatement {
            federation: copied(self.federation.as_bytes()),
            issuer: copied(self.issuer.as_bytes()),
            statement: Some(statement),
        };
        statement.encode_to_vec()
    }
}

fn standbys(at: At<'_>, sent: proto::Standbys) -> Result<AdminChange, WireError> {
    let generation = positive(at.field("generation"), sent.generation)?;
    let id = |at: At<'_>, id: bytes::Bytes| cluster(at, &id);
    let clusters = list(&at, "clusters", sent.clusters, limits::STANDBYS_MAX, id)?;
    let mut seen = BTreeSet::new();
    match clusters.iter().find(|id| !seen.insert(**id)) {
        Some(twice) => Err(at.field("clusters").refuse(twice, "name each cluster once")),
        None => Ok(AdminChange::Standbys { generation, clusters }),
    }
}
