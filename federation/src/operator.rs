//! The operator API: what this node serves, and what its gateways say of themselves.

mod clusters;
mod services;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use identity::Ca;
use model::{ClusterName, Diagnostic, PeerAddress, ResourceKind, ResourceSet, Revision, Severity};
use tonic::{Request, Response, Status as GrpcStatus};
use wire::operator::proto::operator_service_server::OperatorService;
use wire::operator::proto::{
    Clusters, Diagnostics, GatewayLink, GatewayStatus, GetPeerRequest, GetStatusRequest, KindCount,
    Links, ListClustersRequest, ListDiagnosticsRequest, ListLinksRequest, ListServicesRequest,
    Peer, PeerTrustDomain, Services, SourcedDiagnostic, Status,
};
use wire::resource::encode_diagnostic;
use wire::resource::proto as resource;

use crate::gateways::{GatewayView, Gateways};
use crate::intake::{Findings, Intake};
use crate::limits::DIAGNOSTICS_MAX;
use crate::peer::AllowedUsers;
use crate::revisions::Revisions;
use crate::svid::OwnSvid;

/// The service behind `operator.sock`.
#[derive(Debug)]
pub(crate) struct Operator {
    pub(crate) cluster: ClusterName,
    pub(crate) advertise: Vec<PeerAddress>,
    pub(crate) resource_socket: PathBuf,
    pub(crate) users: AllowedUsers,
    pub(crate) ca: Arc<Ca>,
    pub(crate) svid: Arc<OwnSvid>,
    pub(crate) revisions: Arc<Revisions>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) gateways: Gateways,
    pub(crate) started: Started,
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
    pub(super) findings: Findings,
    pub(super) gateways: Vec<GatewayView>,
}

#[tonic::async_trait]
impl OperatorService for Operator {
    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<Status>, GrpcStatus> {
        self.users.admit(&request)?;
        Ok(Response::new(self.status(Instant::now())))
    }

    async fn list_clusters(
        &self,
        request: Request<ListClustersRequest>,
    ) -> Result<Response<Clusters>, GrpcStatus> {
        self.users.admit(&request)?;
        let view = self.view(Instant::now());
        let clusters = clusters::list(self, &view);
        Ok(Response::new(Clusters { clusters, note: self.note(&view.gateways) }))
    }

    async fn list_links(
        &self,
        request: Request<ListLinksRequest>,
    ) -> Result<Response<Links>, GrpcStatus> {
        self.users.admit(&request)?;
        let gateways = self.gateways.view(Instant::now());
        let links = gateways.iter().flat_map(links_of).collect();
        Ok(Response::new(Links { links, note: self.note(&gateways) }))
    }

    async fn list_services(
        &self,
        request: Request<ListServicesRequest>,
    ) -> Result<Response<Services>, GrpcStatus> {
        self.users.admit(&request)?;
        let view = self.view(Instant::now());
        let services = services::list(&view);
        Ok(Response::new(Services { services, note: self.note(&view.gateways) }))
    }

    async fn list_diagnostics(
        &self,
        request: Request<ListDiagnosticsRequest>,
    ) -> Result<Response<Diagnostics>, GrpcStatus> {
        self.users.admit(&request)?;
        Ok(Response::new(self.diagnostics(&self.view(Instant::now()))))
    }

    async fn get_peer(
        &self,
        request: Request<GetPeerRequest>,
    ) -> Result<Response<Peer>, GrpcStatus> {
        self.users.admit(&request)?;
        self.peer().map(Response::new)
    }
}

impl Operator {
    fn view(&self, now: Instant) -> View {
        let (revision, resources) = self.revisions.resources();
        let findings = self.intake.findings();
        View { revision, resources, findings, gateways: self.gateways.view(now) }
    }

    fn status(&self, now: Instant) -> Status {
        let view = self.view(now);
        let svid = self.svid.current();
        let count = |severity| {
            let all = own_findings(&view.findings).filter(|(_, d)| d.severity == severity);
            u32::try_from(all.count()).unwrap_or(u32::MAX)
        };
        Status {
            cluster: self.cluster.to_string(),
            trust_domain: self.ca.trust_domain().to_string(),
            spiffe_id: svid.id().to_string(),
            svid_not_after_unix_s: unix(svid.not_after()).as_secs(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_unix_ms: millis(unix(self.started.wall)),
            uptime_ms: millis(now.saturating_duration_since(self.started.at)),
            revision: Some(encode_revision(view.revision)),
            resources: kind_counts(&view.resources),
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            note: self.note(&view.gateways),
            gateways: view.gateways.into_iter().map(gateway_status).collect(),
        }
    }

    /// Without a connected gateway nobody knows about links and health: the answer says so.
    fn note(&self, gateways: &[GatewayView]) -> String {
        // The reader may be in another folder than this process.
        let socket = std::path::absolute(&self.resource_socket);
        let socket = socket.as_deref().unwrap_or(&self.resource_socket).display();
        if gateways.iter().any(|gateway| gateway.connected) {
            String::new()
        } else if gateways.is_empty() {
            format!(
                "no gateway has connected since this node started, so links and health are \
                 unknown; start fedgate-gateway with `federation.socket: {socket}`"
            )
        } else {
            "no gateway is connected now, so links and health are as they were last reported"
                .to_string()
        }
    }

    fn diagnostics(&self, view: &View) -> Diagnostics {
        let own = own_findings(&view.findings).map(|(source, d)| (source.to_string(), d));
        // A gateway compiles the same objects: only what it alone found is news.
        let of_gateway = |gateway: &'_ GatewayView| {
            let source = format!("gateway {}", gateway.name);
            let news = gateway.diagnostics.iter().filter(|d| !view.findings.compile.contains(d));
            news.map(|diagnostic| (source.clone(), diagnostic.clone())).collect::<Vec<_>>()
        };
        let theirs: Vec<_> = view.gateways.iter().flat_map(of_gateway).collect();
        let all = own.map(|(source, d)| (source, d.clone())).chain(theirs);
        let mut diagnostics: Vec<_> = all
            .map(|(source, diagnostic)| SourcedDiagnostic {
                source,
                diagnostic: Some(encode_diagnostic(&diagnostic)),
            })
            .collect();
        let left_out = diagnostics.len().saturating_sub(DIAGNOSTICS_MAX);
        diagnostics.truncate(DIAGNOSTICS_MAX);
        let left_out = u32::try_from(left_out).unwrap_or(u32::MAX);
        Diagnostics { diagnostics, left_out, note: self.note(&view.gateways) }
    }

    fn peer(&self) -> Result<Peer, GrpcStatus> {
        let bundle = self.ca.bundle();
        let bundle_jwks = wire::bundle::format_bundle(&bundle);
        let bundle_jwks = bundle_jwks.map_err(|error| GrpcStatus::internal(error.to_string()))?;
        let note = if self.advertise.is_empty() {
            "this cluster advertises no address, so others cannot dial it (it dials them); set \
             `advertise` in the node's configuration"
        } else {
            ""
        };
        Ok(Peer {
            name: self.cluster.to_string(),
            addresses: self.advertised(),
            trust_domains: vec![PeerTrustDomain {
                name: bundle.trust_domain.to_string(),
                bundle_jwks,
            }],
            note: note.into(),
        })
    }

    fn advertised(&self) -> Vec<resource::PeerAddress> {
        encode_addresses(&self.advertise)
    }
}

fn own_findings(findings: &Findings) -> impl Iterator<Item = (&'static str, &Diagnostic)> {
    let discovery = findings.discovery.iter().map(|diagnostic| ("discovery", diagnostic));
    let revisions = findings.revisions.iter().map(|diagnostic| ("revisions", diagnostic));
    let compile = findings.compile.iter().map(|diagnostic| ("compile", diagnostic));
    discovery.chain(revisions).chain(compile)
}

fn kind_counts(resources: &ResourceSet) -> Vec<KindCount> {
    let count = |kind: ResourceKind| {
        let objects = resources.iter().filter(|(key, _)| key.kind == kind).count();
        let objects = u32::try_from(objects).unwrap_or(u32::MAX);
        (objects > 0).then(|| KindCount { kind: kind.as_str().into(), objects })
    };
    ResourceKind::ALL.into_iter().filter_map(count).collect()
}

fn gateway_status(gateway: GatewayView) -> GatewayStatus {
    let age = gateway.report.as_ref().map_or(Duration::ZERO, |(_, age)| *age);
    GatewayStatus {
        name: gateway.name.to_string(),
        connected: gateway.connected,
        since_age_ms: millis(gateway.since_age),
        report: gateway.report.map(|(report, _)| report.encode()),
        report_age_ms: millis(age),
        acknowledged: gateway.acknowledged.map(encode_revision),
    }
}

fn links_of(gateway: &GatewayView) -> Vec<GatewayLink> {
    let Some((report, age)) = &gateway.report else { return Vec::new() };
    let link = |link| GatewayLink {
        gateway: gateway.name.to_string(),
        connected: gateway.connected,
        report_age_ms: millis(*age),
        link: Some(link),
    };
    report.encode().links.into_iter().map(link).collect()
}

pub(super) fn encode_addresses(addresses: &[PeerAddress]) -> Vec<resource::PeerAddress> {
    let encode = |address: &PeerAddress| resource::PeerAddress {
        transport: match address.transport {
            model::Transport::Quic => resource::Transport::Quic.into(),
        },
        host: address.host.clone(),
        port: address.port.into(),
    };
    addresses.iter().map(encode).collect()
}

fn encode_revision(revision: Revision) -> resource::Revision {
    resource::Revision { epoch: revision.epoch, index: revision.index }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unix(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}
