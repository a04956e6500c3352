//! Enrolment: SVIDs for the gateways of this cluster.
//!
//! Who may enrol is the Unix user at the other end of the socket, or the pod that a token is bound
//! to. What is issued is exactly `spiffe://<trust domain>/fedgate/gateway/<name>`: a process on this
//! host chooses the name, nothing else, and a pod has its own.

mod pods;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{Ca, IssueError};
use model::code::ENROLMENT_REFUSED;
use model::spiffe::Part;
use model::{ObjectName, SpiffeId};
use tonic::{Request, Response, Status};
use wire::resource::proto::enrolment_service_server::EnrolmentService;
use wire::resource::{EnrolRequest, EnrolResponse, proto};

use crate::gateways::Gateways;
use crate::limits::NAME_WAIT;
use crate::membership::Membership;
use crate::peer::{AllowedUsers, Caller};
use crate::port::PortInfo;
use crate::refusal::refuse;

pub(crate) use pods::PodEnrolment;

/// Log lines of this target are the record of what the CA issued and refused.
const AUDIT: &str = "fedgate::audit";

/// The enrolment service behind `resource.sock` and `listen.gateways`.
#[derive(Debug, Clone)]
pub(crate) struct Enrolment {
    pub(crate) ca: Arc<Ca>,
    /// Of each SVID that is issued.
    pub(crate) lifetime: Duration,
    /// On the socket.
    pub(crate) users: Arc<AllowedUsers>,
    /// At the port, if there is one.
    pub(crate) pods: Option<Arc<PodEnrolment>>,
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
        let caller = match self.admit(&request).await {
            Ok(caller) => caller,
            Err(status) => {
                let name = shorten(&request.get_ref().gateway);
                let remote = request.extensions().get::<PortInfo>().map(|port| port.remote);
                tracing::warn!(target: AUDIT, gateway = ?name, ?remote, %status, "enrolment refused");
                return Err(status);
            }
        };
        let request = EnrolRequest::decode(request.into_inner());
        let request = request.map_err(|error| audited(&caller, None, invalid(error)))?;
        let answer = match self.check_name(&request.gateway, &caller).await {
            Ok(()) => self.issue(&request, &caller, SystemTime::now()),
            Err(status) => Err(status),
        };
        answer
            .map(|answer| Response::new(answer.encode()))
            .map_err(|status| audited(&caller, Some(&request.gateway), status))
    }
}

impl Enrolment {
    async fn admit(&self, request: &Request<proto::EnrolRequest>) -> Result<Caller, Status> {
        match (request.extensions().get::<PortInfo>(), &self.pods) {
            (None, _) => self.users.admit(request),
            (Some(port), Some(pods)) => {
                pods.admit(port, request.metadata(), SystemTime::now()).await
            }
            // The port is not served without it.
            (Some(_), None) => Err(Status::unimplemented("nobody enrols here")),
        }
    }

    async fn check_name(&self, name: &ObjectName, caller: &Caller) -> Result<(), Status> {
        if let Caller::Pod { gateway, .. } = caller
            && gateway != name
        {
            let text = format!(
                "EnrolRequest.gateway = {name:?}: the caller is the pod {gateway:?}; set \
                 FEDGATE_NAME to the pod's name"
            );
            return Err(refuse(tonic::Code::PermissionDenied, ENROLMENT_REFUSED, text));
        }
        let free = self.gateways.wait_free(name, caller, NAME_WAIT).await;
        free.map_err(|taken| refuse(tonic::Code::AlreadyExists, ENROLMENT_REFUSED, taken))
    }

    fn issue(
        &self,
        request: &EnrolRequest,
        caller: &Caller,
        now: SystemTime,
    ) -> Result<EnrolResponse, Status> {
        let name = &request.gateway;
        let id = SpiffeId::of_part(self.ca.trust_domain(), Part::Gateway, name);
        let chain = self.ca.issue(&request.csr_der, &id, self.lifetime, now);
        let chain = chain.map_err(|error| refuse(grpc_code(&error), error.code(), error))?;
        tracing::info!(
            target: AUDIT,
            spiffe_id = %id,
            ?caller,
            lifetime_s = self.lifetime.as_secs(),
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

fn audited(caller: &Caller, name: Option<&ObjectName>, status: Status) -> Status {
    let gateway = name.map(ObjectName::as_str);
    tracing::warn!(target: AUDIT, gateway, ?caller, %status, "enrolment refused");
    status
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}
