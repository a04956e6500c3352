//! `fedctl status`: one screen, once or for as long as somebody watches.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use wire::operator::proto::{Status, Store};

use super::clusters;
use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::{OutputFormat, Printer, age, milliseconds, on_a_terminal, table};
use crate::view::{ClusterView, Since, revision};

/// Between two looks with -w.
const ROUND: Duration = Duration::from_secs(1);
/// Gateways report each second; an older report is worth a word.
const REPORT_AGE_TOLD_MS: u64 = 5_000;
/// What changes although nothing happens.
const RESTLESS: [&str; 8] =
    ["ageMs", "time", "svidLeftS", "rttUs", "quorumAgeMs", "sourceAgeMs", "sent", "received"];

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
    store: StoreView,
    gateways: Vec<GatewayView>,
    clusters: Vec<ClusterView>,
}

/// How fresh is what this node knows of others.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StoreView {
    /// `alone`, `member` or `replica`; empty if the node does not say.
    mode: String,
    role: String,
    leader: String,
    /// Since a quorum confirmed the leader.
    quorum_age_ms: Option<u64>,
    source: String,
    source_age_ms: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    problem: String,
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
    /// When it said all this.
    reported: Since,
    svid_not_after: Option<String>,
    svid_left_s: Option<i64>,
}

pub(super) async fn run(
    watching: bool,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    if watching {
        return watch(node, printer).await;
    }
    printer.result(&fetch(node).await?, screen)
}

async fn fetch(node: &Operator) -> Result<StatusView, CommandError> {
    let now = Timestamp::now();
    let clusters = clusters::fetch(node).await?.items;
    let store = node.store().await;
    let store = store.unwrap_or_else(|error| Store { problem: error.message, ..Store::default() });
    Ok(view(node.status().await?, clusters, store, now))
}

/// Shows it anew whenever something changes: on a terminal in place, else one below the other. A node
/// that goes away is waited for; it is told since when.
async fn watch(node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    let in_place = on_a_terminal() && printer.format == OutputFormat::Table;
    // Who may not ask, or asks the wrong node, is not helped by asking again.
    let mut fetched: Result<StatusView, CommandError> = Ok(fetch(node).await?);
    let (mut shown, mut lost) = (Value::Null, false);
    loop {
        match &fetched {
            Ok(view) => {
                if std::mem::take(&mut lost) {
                    printer.talk("the node answers again");
                }
                let essence = essence(view);
                if in_place || essence != shown {
                    let clear = if in_place { "\x1b[H\x1b[2J" } else { "" };
                    let text = printer.text(view, screen)?;
                    if !printer.still_read(&format!("{clear}{text}"))? {
                        return Ok(());
                    }
                }
                shown = essence;
            }
            Err(error) if !lost => {
                lost = true;
                let now = Timestamp::now();
                printer.talk(&format!("{now:.0} {}; what is above is older", error.message));
            }
            Err(_) => {}
        }
        tokio::time::sleep(ROUND).await;
        fetched = fetch(node).await;
    }
}

/// What somebody who watches wants to hear of.
fn essence(view: &StatusView) -> Value {
    let mut value = serde_json::to_value(view).unwrap_or_default();
    settle(&mut value);
    value
}

fn settle(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(settle),
        Value::Object(fields) => {
            fields.retain(|name, _| !RESTLESS.contains(&name.as_str()));
            fields.values_mut().for_each(settle);
        }
        _ => {}
    }
}

fn view(status: Status, clusters: Vec<ClusterView>, store: Store, now: Timestamp) -> StatusView {
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
            reported: Since::age(gateway.report_age_ms, now),
            svid_not_after: end.map(|end| end.to_string()),
            svid_left_s: end.map(|end| end.duration_since(now).as_secs()),
        }
    });
    StatusView {
        api_version: "fedgate.dev/v1alpha1",
        kind: "Status",
        gateways: gateways.collect(),
        clusters,
        store: StoreView {
            mode: store.mode,
            role: store.role,
            leader: store.leader,
            quorum_age_ms: store.quorum_age_ms,
            source: store.source,
            source_age_ms: store.source_age_ms,
            problem: store.problem,
        },
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
            vec![cluster.name.clone(), cluster.shown_state(), rtt, cluster.services.to_string()]
        }),
    );
    text += &match (view.errors, view.warnings) {
        (0, 0) => "\n\nNothing was found wrong.".to_string(),
        (errors, warnings) => {
            format!("\n\n{errors} errors, {warnings} warnings → fedctl diagnostics")
        }
    };
    text += &format!("\n{}", view.store.line());
    for cluster in &view.clusters {
        if let Some(cordon) = &cluster.cordon {
            text += &format!("\n{}", cordon.line(&cluster.name));
        }
    }
    for gateway in &view.gateways {
        if gateway.connected && gateway.reported.age_ms > REPORT_AGE_TOLD_MS {
            text +=
                &format!("\n{} last reported {} ago.", gateway.name, age(gateway.reported.age_ms));
        }
    }
    if !view.note.is_empty() {
        text += &format!("\n{}", view.note);
    }
    text
}

impl StoreView {
    /// How old what it knows of others may be.
    fn line(&self) -> String {
        let ago = |age_ms: Option<u64>| age_ms.map(|age_ms| format!("{} ago", age(age_ms)));
        let mut line = match &*self.mode {
            "alone" => "In no federation.".to_owned(),
            "" => "The store does not say how old what it knows of others is.".into(),
            "replica" => match ago(self.source_age_ms).filter(|_| !self.source.is_empty()) {
                Some(ago) => format!("Store: replica, heard of {} {ago}.", self.source),
                None => "Store: replica without a source; what it knows of others is old.".into(),
            },
            _ if self.leader.is_empty() => {
                format!("Store: {}, no leader; what it knows of others is old.", self.role)
            }
            _ => {
                let quorum = ago(self.quorum_age_ms).map(|ago| format!(", confirmed {ago}"));
                format!(
                    "Store: {}, {} leads{}.",
                    self.role,
                    self.leader,
                    quorum.unwrap_or_default()
                )
            }
        };
        if !self.problem.is_empty() {
            line += &format!(" {}", self.problem);
        }
        line
    }
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
