//! What the node says of itself and of its gateways: status, findings, the cluster's own ClusterPeer.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::{Diagnostic, PeerAddress, ResourceKind, ResourceSet, Revision, Severity};
use tonic::Status as GrpcStatus;
use wire::operator::proto::{
    Diagnostics, GatewayLink, GatewayStatus, KindCount, Peer, PeerTrustDomain, SourcedDiagnostic,
    Status,
};
use wire::resource::encode_diagnostic;
use wire::resource::proto as resource;

use super::{Operator, View};
use crate::alarms::Looked;
use crate::gateways::GatewayView;
use crate::limits::DIAGNOSTICS_MAX;
use crate::room;

impl Operator {
    pub(super) fn view(&self, now: Instant) -> View {
        let (revision, resources) = self.revisions.resources();
        let findings = self.intake.findings();
        let kubernetes = self
            .kubernetes
            .as_ref()
            .map(|health| health.diagnostics(tokio::time::Instant::from_std(now)));
        let kubernetes = kubernetes.unwrap_or_default();
        let gateways = self.gateways.view(now);
        let looked = Looked {
            ca: &self.ca,
            svid: &self.svid,
            snapshot: &findings.snapshot,
            gateways: &gateways,
        };
        let mut alarms = looked.diagnostics(SystemTime::now());
        alarms.extend(room::alarm(&self.data_dir));
        View { revision, resources, findings, kubernetes, gateways, alarms }
    }

    pub(super) fn status(&self, now: Instant) -> Status {
        let view = self.view(now);
        let svid = self.svid.current();
        let count = |severity| {
            let all = own_findings(&view).filter(|(_, d)| d.severity == severity);
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
    pub(super) fn note(&self, gateways: &[GatewayView]) -> String {
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

    pub(super) fn diagnostics(&self, view: &View) -> Diagnostics {
        let own = own_findings(view).map(|(source, d)| (source.to_string(), d));
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

    pub(super) fn peer(&self) -> Result<Peer, GrpcStatus> {
        let bundle = self.ca.bundle();
        let bundle_jwks = wire::bundle::format_bundle(&bundle);
        let bundle_jwks = bundle_jwks.map_err(|error| GrpcStatus::internal(error.to_string()))?;
        let note = if !self.advertise.borrow().is_empty() {
            ""
        } else if self.kubernetes.is_some() {
            "this cluster advertises no address, so others cannot dial it (it dials them); \
             `fedctl analyze` says why the gateway's Service has none, and `advertise` in the \
             node's configuration sets one by hand"
        } else {
            "this cluster advertises no address, so others cannot dial it (it dials them); set \
             `advertise` in the node's configuration"
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

    pub(super) fn advertised(&self) -> Vec<resource::PeerAddress> {
        encode_addresses(&self.advertise.borrow())
    }
}

pub(super) fn own_findings(view: &View) -> impl Iterator<Item = (&'static str, &Diagnostic)> {
    let findings = &view.findings;
    let kubernetes = view.kubernetes.iter().map(|diagnostic| ("kubernetes", diagnostic));
    let discovery = findings.discovery.iter().map(|diagnostic| ("discovery", diagnostic));
    let federation = findings.federation.iter().map(|diagnostic| ("federation", diagnostic));
    let revisions = findings.revisions.iter().map(|diagnostic| ("revisions", diagnostic));
    let compile = findings.compile.iter().map(|diagnostic| ("compile", diagnostic));
    let alarms = view.alarms.iter().map(|diagnostic| ("certificates", diagnostic));
    discovery.chain(federation).chain(revisions).chain(compile).chain(kubernetes).chain(alarms)
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

pub(super) fn links_of(gateway: &GatewayView) -> Vec<GatewayLink> {
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
        transport: encode_transport(address.transport).into(),
        host: address.host.clone(),
        port: address.port.into(),
    };
    addresses.iter().map(encode).collect()
}

pub(super) fn encode_transport(transport: model::Transport) -> resource::Transport {
    match transport {
        model::Transport::Quic => resource::Transport::Quic,
        model::Transport::Tcp => resource::Transport::Tcp,
    }
}

fn encode_revision(revision: Revision) -> resource::Revision {
    resource::Revision { epoch: revision.epoch, index: revision.index }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn unix(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}
