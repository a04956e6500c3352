//! `fedctl cordon`, `fedctl uncordon` and `fedctl drain`: whether exchanges are sent to a cluster.

use std::time::{Duration, Instant};

use model::code::CLUSTER_CORDONED;
use serde::Serialize;
use wire::operator::proto::{ClusterState, ClusterStatus, GatewayStatus, SetCordonRequest};
use wire::resource::proto::Revision;

use super::gateway_cordon;
use crate::cli::{Cordon, Drain, Uncordon};
use crate::error::{CommandError, Exit};
use crate::operator::Operator;
use crate::printer::{OutputFormat, Printer};

/// Between two looks at what is in flight.
pub(super) const ROUND: Duration = Duration::from_millis(250);
/// Nothing is in flight when it is so in every report for so long: gateways report each second, and a
/// request that has chosen its cluster a moment before the cordon may still be on its way there.
pub(super) const QUIET: Duration = Duration::from_secs(2);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CordonView {
    api_version: &'static str,
    kind: &'static str,
    cluster: String,
    cordoned: bool,
    /// It was not so already.
    changed: bool,
    /// Known after a drain.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight: Option<u32>,
}

pub(super) async fn cordon(
    args: &Cordon,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    if let Some(gateway) = &args.whom.gateway {
        return gateway_cordon::cordon(gateway, args.force, node, printer).await;
    }
    let changed = set(args, node).await?;
    let cluster = args.whom.cluster();
    show(view(cluster, true, changed, None), printer, |view| match view.changed {
        true => format!("{cluster} is cordoned: no new exchanges are sent to it."),
        false => format!("{cluster} was cordoned already."),
    })?;
    undo(cluster, printer);
    Ok(())
}

pub(super) async fn uncordon(
    args: &Uncordon,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    if let Some(gateway) = &args.whom.gateway {
        return gateway_cordon::uncordon(gateway, node, printer).await;
    }
    let cluster = args.whom.cluster();
    let request = SetCordonRequest { cluster: cluster.into(), ..SetCordonRequest::default() };
    let changed = node.set_cordon(request).await?.changed;
    show(view(cluster, false, changed, None), printer, |view| match view.changed {
        true => format!("{cluster} is uncordoned: exchanges are sent to it again."),
        false => format!("{cluster} was not cordoned here."),
    })?;
    let status = find(node, cluster).await?;
    if status.and_then(|status| status.cordon).is_some_and(|cordon| cordon.by_itself) {
        printer
            .talk(&format!("{cluster} cordoned itself too: run fedctl uncordon {cluster} there."));
    }
    Ok(())
}

pub(super) async fn drain(
    args: &Drain,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    if let Some(gateway) = &args.cordon.whom.gateway {
        return gateway_cordon::drain(gateway, args, node, printer).await;
    }
    let cluster = args.cordon.whom.cluster();
    let changed = set(&args.cordon, node).await?;
    let seconds = args.wait.as_secs();
    printer.talk(&format!(
        "{cluster} is cordoned; waiting {seconds} s at most for what is in flight."
    ));
    let (begun, mut quiet_since, mut needed) = (Instant::now(), None, None);
    loop {
        let stage = look(node, cluster, &mut needed).await?;
        match stage {
            Stage::Idle => {
                let since = *quiet_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= QUIET {
                    break;
                }
            }
            _ => quiet_since = None,
        }
        if begun.elapsed() >= args.wait {
            let message = format!("{cluster} is not drained after {seconds} s: {}", stage.told());
            return Err(CommandError::new(Exit::TimedOut, message).code(CLUSTER_CORDONED).hint(
                format!(
                    "it stays cordoned: run this again to wait on, or fedctl uncordon {cluster}"
                ),
            ));
        }
        printer.detail(&stage.told());
        tokio::time::sleep(ROUND).await;
    }
    show(view(cluster, true, changed, Some(0)), printer, |_| {
        format!("{cluster} is drained: nothing is in flight to it.")
    })?;
    undo(cluster, printer);
    Ok(())
}

async fn set(args: &Cordon, node: &Operator) -> Result<bool, CommandError> {
    let request = SetCordonRequest {
        cluster: args.whom.cluster().into(),
        cordoned: true,
        reason: args.reason.clone(),
    };
    Ok(node.set_cordon(request).await?.changed)
}

fn view(cluster: &str, cordoned: bool, changed: bool, in_flight: Option<u32>) -> CordonView {
    let (api_version, kind) = ("fedgate.dev/v1alpha1", "Cordon");
    CordonView { api_version, kind, cluster: cluster.into(), cordoned, changed, in_flight }
}

fn show(
    view: CordonView,
    printer: &Printer,
    table: impl FnOnce(&CordonView) -> String,
) -> Result<(), CommandError> {
    printer.result(&view, table)
}

fn undo(cluster: &str, printer: &Printer) {
    if printer.format == OutputFormat::Table {
        printer.talk(&format!("Undo: fedctl uncordon {cluster}"));
    }
}

async fn find(node: &Operator, cluster: &str) -> Result<Option<ClusterStatus>, CommandError> {
    let clusters = node.clusters().await?.clusters;
    Ok(clusters.into_iter().find(|status| status.name == cluster))
}

/// How far a drain is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// Those who send do not know yet.
    Telling,
    NobodyKnows,
    /// These gateways serve an older revision.
    Behind(Vec<String>),
    InFlight(u32),
    Idle,
}

/// `needed` is the revision that gateways have to serve, once it is known.
async fn look(
    node: &Operator,
    cluster: &str,
    needed: &mut Option<Revision>,
) -> Result<Stage, CommandError> {
    // In this order: the node's revision is at least the one that has the cordon.
    let status = find(node, cluster).await?;
    let of_node = node.status().await?;
    if needed.is_none() && status.as_ref().is_some_and(is_in_force) {
        *needed = of_node.revision;
    }
    Ok(stage(status.as_ref(), &of_node.gateways, *needed))
}

fn is_in_force(status: &ClusterStatus) -> bool {
    status.cordon.as_ref().is_some_and(|cordon| cordon.in_force)
}

fn stage(
    status: Option<&ClusterStatus>,
    gateways: &[GatewayStatus],
    needed: Option<Revision>,
) -> Stage {
    let Some((status, needed)) = status.filter(|status| is_in_force(status)).zip(needed) else {
        return Stage::Telling;
    };
    let connected: Vec<_> = gateways.iter().filter(|gateway| gateway.connected).collect();
    if connected.is_empty() {
        return Stage::NobodyKnows;
    }
    // What others send here is seen here; what this cluster sends, by gateways that know.
    let own = status.state() == ClusterState::Own;
    let serves = |gateway: &GatewayStatus| {
        let served = gateway.report.as_ref().and_then(|report| report.revision);
        served.is_some_and(|at| (at.epoch, at.index) >= (needed.epoch, needed.index))
    };
    let behind: Vec<String> = connected
        .iter()
        .filter(|gateway| if own { gateway.report.is_none() } else { !serves(gateway) })
        .map(|gateway| gateway.name.clone())
        .collect();
    if !behind.is_empty() {
        return Stage::Behind(behind);
    }
    match if own { status.received } else { status.sent } {
        0 => Stage::Idle,
        count => Stage::InFlight(count),
    }
}

impl Stage {
    fn told(&self) -> String {
        match self {
            Self::Telling => "those who send to it do not know of it yet".into(),
            Self::NobodyKnows => {
                "no gateway is connected, so nobody knows what is in flight".into()
            }
            Self::Behind(names) => format!("{} did not say yet that it knows", names.join(", ")),
            Self::InFlight(1) => "1 exchange is in flight".into(),
            Self::InFlight(count) => format!("{count} exchanges are in flight"),
            Self::Idle => "nothing has been in flight for less than 2 s".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::operator::proto;
    use wire::resource::proto::StatusReport;

    use super::*;

    const AT: Revision = Revision { epoch: 3, index: 7 };

    fn cluster(in_force: bool, sent: u32, state: ClusterState) -> ClusterStatus {
        ClusterStatus {
            name: "west".into(),
            state: state.into(),
            cordon: Some(proto::Cordon { in_force, ..proto::Cordon::default() }),
            sent,
            received: sent * 2,
            ..ClusterStatus::default()
        }
    }

    fn gateway(name: &str, connected: bool, index: u64) -> GatewayStatus {
        let revision = Some(Revision { epoch: 3, index });
        let report = Some(StatusReport { revision, ..StatusReport::default() });
        GatewayStatus { name: name.into(), connected, report, ..GatewayStatus::default() }
    }

    #[test]
    fn a_drain_is_over_when_everybody_knows_and_nothing_is_left() {
        let peer = |in_force, sent| cluster(in_force, sent, ClusterState::Connected);
        let both = [gateway("gw-0", true, 7), gateway("gw-1", true, 6)];
        let known = [gateway("gw-0", true, 7), gateway("gw-1", false, 1)];
        for (status, gateways, needed, want) in [
            (None, &known[..], Some(AT), Stage::Telling),
            (Some(peer(false, 0)), &known, Some(AT), Stage::Telling),
            (Some(peer(true, 0)), &known, None, Stage::Telling),
            (Some(peer(true, 0)), &both, Some(AT), Stage::Behind(vec!["gw-1".into()])),
            (Some(peer(true, 0)), &known[1..], Some(AT), Stage::NobodyKnows),
            (Some(peer(true, 2)), &known, Some(AT), Stage::InFlight(2)),
            (Some(peer(true, 0)), &known, Some(AT), Stage::Idle),
            // The own cluster waits for what the others send.
            (Some(cluster(true, 2, ClusterState::Own)), &both, Some(AT), Stage::InFlight(4)),
        ] {
            assert_eq!(stage(status.as_ref(), gateways, needed), want);
        }
    }
}
