//! The operator API: what this node serves, and what its gateways say of themselves.

mod audited;
mod clusters;
mod cordons;
mod denied;
mod encode;
mod federation;
mod gate;
mod node;
mod objects;
mod ping;
mod records;
mod roles;
mod services;
mod trust;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use identity::Ca;
use model::{ClusterName, Diagnostic, ResourceSet, Revision};
use tonic::{Request, Response, Status as GrpcStatus};
use wire::operator::proto::operator_service_server::OperatorService;
use wire::operator::proto::{
    ApplyObjectsRequest, AuditEntries, AuditVerdict, Certificates, Clusters, CordonSet,
    DeleteObjectsRequest, Diagnostics, GetPeerRequest, GetStatusRequest, Links, ListAuditRequest,
    ListCertificatesRequest, ListClustersRequest, ListDiagnosticsRequest, ListLinksRequest,
    ListObjectsRequest, ListServicesRequest, ListTrustRequest, ObjectChanges, Objects, Peer,
    PingClusterRequest, Pings, Services, SetCordonRequest, Status, Trust, VerifyAuditRequest,
};

use crate::applied::{Applied, Declared};
use crate::audit::Audit;
use crate::cordon::Cordons;
use crate::denied::Denials;
use crate::gateways::{GatewayView, Gateways};
use crate::intake::{Findings, Intake};
use crate::kubernetes::Health;
use crate::membership::{Advertised, Membership};
use crate::revisions::Revisions;
use crate::svid::OwnSvid;
use audited::caller;
pub(crate) use federation::Federation;
pub(crate) use gate::{Caller, Gate};
use node::links_of;
pub(crate) use roles::{OperatorUsers, User};

/// The service behind `operator.sock`. [`Gate`] stands before it.
#[derive(Debug)]
pub(crate) struct Operator {
    pub(crate) cluster: ClusterName,
    pub(crate) advertise: Advertised,
    pub(crate) resource_socket: PathBuf,
    pub(crate) ca: Arc<Ca>,
    pub(crate) svid: Arc<OwnSvid>,
    pub(crate) revisions: Arc<Revisions>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) gateways: Gateways,
    pub(crate) started: Started,
    pub(crate) audit: Arc<Audit>,
    pub(crate) applied: Arc<Applied>,
    pub(crate) cordons: Arc<Cordons>,
    pub(crate) denials: Arc<Denials>,
    pub(crate) membership: Membership,
    pub(crate) kubernetes: Option<Arc<Health>>,
    /// What was declared elsewhere than by `fedctl apply`.
    pub(crate) declared: Declared,
    pub(crate) data_dir: PathBuf,
}

/// When the node started, on both clocks: ages come from the monotonic one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started {
    pub(crate) at: Instant,
    pub(crate) wall: SystemTime,
}

/// What one answer is made of.
pub(super) struct View {
    pub(super) revision: Revision,
    pub(super) resources: ResourceSet,
    pub(super) findings: Arc<Findings>,
    /// How the node gets on with its cluster's API server.
    pub(super) kubernetes: Vec<Diagnostic>,
    pub(super) gateways: Vec<GatewayView>,
    /// Certificates of which little life is left, a disk that has little room.
    pub(super) alarms: Vec<Diagnostic>,
}

#[tonic::async_trait]
impl OperatorService for Operator {
    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<Status>, GrpcStatus> {
        Ok(Response::new(self.status(Instant::now())))
    }

    async fn list_clusters(
        &self,
        _: Request<ListClustersRequest>,
    ) -> Result<Response<Clusters>, GrpcStatus> {
        let view = self.view(Instant::now());
        let clusters = clusters::list(self, &view);
        Ok(Response::new(Clusters { clusters, note: self.note(&view.gateways) }))
    }

    async fn list_links(
        &self,
        _: Request<ListLinksRequest>,
    ) -> Result<Response<Links>, GrpcStatus> {
        let gateways = self.gateways.view(Instant::now());
        let links = gateways.iter().flat_map(links_of).collect();
        Ok(Response::new(Links { links, note: self.note(&gateways) }))
    }

    async fn list_services(
        &self,
        _: Request<ListServicesRequest>,
    ) -> Result<Response<Services>, GrpcStatus> {
        let view = self.view(Instant::now());
        let services = services::list(&view);
        Ok(Response::new(Services { services, note: self.note(&view.gateways) }))
    }

    async fn list_diagnostics(
        &self,
        _: Request<ListDiagnosticsRequest>,
    ) -> Result<Response<Diagnostics>, GrpcStatus> {
        Ok(Response::new(self.diagnostics(&self.view(Instant::now()))))
    }

    async fn get_peer(&self, _: Request<GetPeerRequest>) -> Result<Response<Peer>, GrpcStatus> {
        self.peer().map(Response::new)
    }

    async fn list_certificates(
        &self,
        _: Request<ListCertificatesRequest>,
    ) -> Result<Response<Certificates>, GrpcStatus> {
        Ok(Response::new(trust::certificates(self, &self.view(Instant::now()))))
    }

    async fn list_trust(
        &self,
        _: Request<ListTrustRequest>,
    ) -> Result<Response<Trust>, GrpcStatus> {
        Ok(Response::new(trust::trust(self, &self.view(Instant::now()))))
    }

    async fn list_objects(
        &self,
        request: Request<ListObjectsRequest>,
    ) -> Result<Response<Objects>, GrpcStatus> {
        let view = self.view(Instant::now());
        objects::list(self, &view, &request.into_inner()).map(Response::new)
    }

    async fn compare_objects(
        &self,
        request: Request<ApplyObjectsRequest>,
    ) -> Result<Response<ObjectChanges>, GrpcStatus> {
        objects::compare(self, &request.into_inner()).map(Response::new)
    }

    async fn apply_objects(
        &self,
        request: Request<ApplyObjectsRequest>,
    ) -> Result<Response<ObjectChanges>, GrpcStatus> {
        let caller = caller(&request)?;
        objects::apply(self, caller, request.into_inner()).await
    }

    async fn delete_objects(
        &self,
        request: Request<DeleteObjectsRequest>,
    ) -> Result<Response<ObjectChanges>, GrpcStatus> {
        let caller = caller(&request)?;
        objects::delete(self, caller, request.into_inner()).await
    }

    async fn ping_cluster(
        &self,
        request: Request<PingClusterRequest>,
    ) -> Result<Response<Pings>, GrpcStatus> {
        ping::ping(self, request.into_inner()).await.map(Response::new)
    }

    async fn set_cordon(
        &self,
        request: Request<SetCordonRequest>,
    ) -> Result<Response<CordonSet>, GrpcStatus> {
        let caller = caller(&request)?;
        cordons::set(self, caller, request.into_inner()).await
    }

    async fn list_audit(
        &self,
        request: Request<ListAuditRequest>,
    ) -> Result<Response<AuditEntries>, GrpcStatus> {
        records::list(self, request.into_inner().last).await.map(Response::new)
    }

    async fn verify_audit(
        &self,
        _: Request<VerifyAuditRequest>,
    ) -> Result<Response<AuditVerdict>, GrpcStatus> {
        records::verify(self).await.map(Response::new)
    }
}
