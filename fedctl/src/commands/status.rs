//! `fedctl status`: one screen.

use jiff::Timestamp;
use serde::Serialize;
use wire::operator::proto::Status;

use super::clusters;
use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::{Printer, age, milliseconds, table};
use crate::view::{ClusterView, Since, revision};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusView {
    api_version: &'static str,
    kind: &'static str,
    cluster: String,
    trust_domain: String,
    spiffe_id: String,
    version: String,
    revision: String,
    started: Since,
    objects: u32,
    errors: u32,
    warnings: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
    gateways: Vec<GatewayView>,
    clusters: Vec<ClusterView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GatewayView {
    name: String,
    connected: bool,
    since: Since,
    ready: bool,
    draining: bool,
    tunnel_address: String,
    admin_address: String,
    revision: String,
    svid_not_after: Option<String>,
    svid_left_s: Option<i64>,
}

pub(super) async fn run(node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    let now = Timestamp::now();
    let clusters = clusters::fetch(node).await?.items;
    let view = view(node.status().await?, clusters, now);
    printer.result(&view, screen)
}

fn view(status: Status, clusters: Vec<ClusterView>, now: Timestamp) -> StatusView {
    let gateways = status.gateways.iter().map(|gateway| {
        let report = gateway.report.clone().unwrap_or_default();
        let end = i64::try_from(report.svid_not_after_unix_s).ok().filter(|&end| end > 0);
        let end = end.and_then(|end| Timestamp::from_second(end).ok());
        GatewayView {
            name: gateway.name.clone(),
            connected: gateway.connected,
            since: Since::age(gateway.since_age_ms, now),
            ready: report.ready,
            draining: report.draining,
            tunnel_address: report.tunnel_address,
            admin_address: report.admin_address,
            revision: revision(report.revision),
            svid_not_after: end.map(|end| end.to_string()),
            svid_left_s: end.map(|end| end.duration_since(now).as_secs()),
        }
    });
    StatusView {
        api_version: "fedgate.dev/v1alpha1",
        kind: "Status",
        gateways: gateways.collect(),
        clusters,
        started: Since::age(status.uptime_ms, now),
        revision: revision(status.revision),
        objects: status.resources.iter().map(|kind| kind.objects).sum(),
        cluster: status.cluster,
        trust_domain: status.trust_domain,
        spiffe_id: status.spiffe_id,
        version: status.version,
        errors: status.errors,
        warnings: status.warnings,
        note: status.note,
    }
}

fn screen(view: &StatusView) -> String {
    let mut text = format!(
        "Cluster {}  {}  revision {}  {} objects  up {}  version {}\n\n",
        view.cluster,
        view.trust_domain,
        view.revision,
        view.objects,
        age(view.started.age_ms),
        view.version,
    );
    text += &table(
        &["GATEWAY", "STATE", "SINCE", "REVISION", "SVID", "TUNNEL", "ADMIN"],
        view.gateways.iter().map(gateway_row),
    );
    text += "\n\n";
    text += &table(
        &["CLUSTER", "STATE", "RTT", "SERVICES"],
        view.clusters.iter().map(|cluster| {
            let rtt = cluster.rtt_us.map_or_else(|| "-".into(), milliseconds);
            vec![cluster.name.clone(), cluster.state.into(), rtt, cluster.services.to_string()]
        }),
    );
    text += &match (view.errors, view.warnings) {
        (0, 0) => "\n\nNothing was found wrong.".to_string(),
        (errors, warnings) => {
            format!("\n\n{errors} errors, {warnings} warnings → fedctl diagnostics")
        }
    };
    if !view.note.is_empty() {
        text += &format!("\n{}", view.note);
    }
    text
}

fn gateway_row(gateway: &GatewayView) -> Vec<String> {
    let state = match gateway {
        GatewayView { connected: false, .. } => "Disconnected",
        GatewayView { draining: true, .. } => "Draining",
        GatewayView { ready: true, .. } => "Ready",
        _ => "NotReady",
    };
    let left = gateway.svid_left_s.map(|left| match u64::try_from(left) {
        Ok(seconds) => format!("{} left", age(seconds * 1000)),
        Err(_) => "expired".into(),
    });
    vec![
        gateway.name.clone(),
        state.into(),
        age(gateway.since.age_ms),
        gateway.revision.clone(),
        left.unwrap_or_else(|| "none".into()),
        gateway.tunnel_address.clone(),
        gateway.admin_address.clone(),
    ]
}
