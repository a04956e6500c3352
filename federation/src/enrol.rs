//! Enrolment: SVIDs for the gateways of this cluster.
//!
//! Who may enrol is the Unix user at the other end of the socket. What is issued is exactly
//! `spiffe://<trust domain>/fedgate/gateway/<name>`: a caller chooses the name, nothing else.

use std::sync::Arc;
use std::time::SystemTime;

use identity::{Ca, IssueError};
use model::code::ENROLMENT_REFUSED;
use model::spiffe::Part;
use model::{ObjectName, SpiffeId};
use tonic::{Request, Response, Status};
use wire::resource::proto::enrolment_service_server::EnrolmentService;
use wire::resource::{EnrolRequest, EnrolResponse, proto};

use crate::gateways::Gateways;
use crate::limits::{NAME_WAIT, SVID_LIFETIME};
use crate::membership::Membership;
use crate::peer::{AllowedUsers, Caller};
use crate::refusal::refuse;

/// Log lines of this target are the record of what the CA issued and refused.
const AUDIT: &str = "fedgate::audit";

/// The enrolment service behind `resource.sock`.
#[derive(Debug, Clone)]
pub(crate) struct Enrolment {
    pub(crate) ca: Arc<Ca>,
    pub(crate) users: Arc<AllowedUsers>,
    pub(crate) gateways: Gateways,
    /// Knows the cluster's id.
    pub(crate) membership: Membership,
}

#[tonic::async_trait]
impl EnrolmentService for Enrolment {
    async fn enrol(
        &self,
        request: Request<proto::EnrolRequest>,
    ) -> Result<Response<proto::EnrolResponse>, Status> {
        let caller = match self.users.admit(&request) {
            Ok(caller) => caller,
            Err(status) => {
                let name = &request.get_ref().gateway;
                tracing::warn!(target: AUDIT, gateway = ?shorten(name), %status, "enrolment refused");
                return Err(status);
            }
        };
        let request = EnrolRequest::decode(request.into_inner());
        let request = request.map_err(|error| audited(caller, None, invalid(error)))?;
        let answer = match self.gateways.wait_free(&request.gateway, caller, NAME_WAIT).await {
            Ok(()) => self.issue(&request, caller, SystemTime::now()),
            Err(taken) => Err(refuse(tonic::Code::AlreadyExists, ENROLMENT_REFUSED, taken)),
        };
        answer
            .map(|answer| Response::new(answer.encode()))
            .map_err(|status| audited(caller, Some(&request.gateway), status))
    }
}

impl Enrolment {
    fn issue(
        &self,
        request: &EnrolRequest,
        caller: Caller,
        now: SystemTime,
    ) -> Result<EnrolResponse, Status> {
        let name = &request.gateway;
        let id = SpiffeId::of_part(self.ca.trust_domain(), Part::Gateway, name);
        let chain = self.ca.issue(&request.csr_der, &id, SVID_LIFETIME, now);
        let chain = chain.map_err(|error| refuse(grpc_code(&error), error.code(), error))?;
        tracing::info!(
            target: AUDIT,
            spiffe_id = %id,
            uid = caller.uid,
            pid = caller.pid,
            lifetime_s = SVID_LIFETIME.as_secs(),
            "SVID issued"
        );
        let chain_der = chain.iter().map(|certificate| certificate.to_vec()).collect();
        Ok(EnrolResponse { chain_der, bundle: self.ca.bundle(), cluster_id: self.membership.own() })
    }
}

/// Whether the caller or the node must change something.
fn grpc_code(error: &IssueError) -> tonic::Code {
    match error {
        IssueError::CaNotValid { .. } | IssueError::Signing { .. } => tonic::Code::Internal,
        _ => tonic::Code::InvalidArgument,
    }
}

fn invalid(error: impl std::fmt::Display) -> Status {
    refuse(tonic::Code::InvalidArgument, ENROLMENT_REFUSED, error)
}

fn audited(caller: Caller, name: Option<&ObjectName>, status: Status) -> Status {
    let gateway = name.map(ObjectName::as_str);
    let Caller { uid, pid } = caller;
    tracing::warn!(target: AUDIT, gateway, uid, pid, %status, "enrolment refused");
    status
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}
