//! Further rows from the node's answers: gateways, links, what others said and when, services.

use std::collections::BTreeMap;

use model::code;
use wire::operator::proto::{
    AuditVerdict, ClusterState, ClusterStatus, GatewayLink, GatewayStatus, MemberStatus,
    ServiceStatus, Status, Store,
};
use wire::resource::proto::{LinkState, Transport};

use super::Row;
use super::node::{FEDERATION, NODE, OBJECTS, TUNNELS, counted};
use super::pre::{SKEW_FAIL_SECONDS, SKEW_WARN_SECONDS};
use crate::printer::{age, milliseconds};

/// Gateways report each second.
const REPORT_AGE_MAX_MS: u64 = 5_000;
/// So many lost packets of a thousand slow down what is sent, or break it.
const LOSS_WARN_PERMILLE: u64 = 20;
const LOSS_FAIL_PERMILLE: u64 = 150;
/// Of fewer packets one cannot tell.
const LOSS_PACKETS_LEAST: u64 = 200;
/// A round trip that people notice in every request.
const RTT_WARN_US: u64 = 400_000;

/// What the node says beside the core of it.
#[derive(Debug, Default)]
pub struct Around {
    pub links: Vec<GatewayLink>,
    pub services: Vec<ServiceStatus>,
    /// `None` when it may not be asked.
    pub audit: Option<AuditVerdict>,
    /// Why others cannot dial this cluster; empty when they can.
    pub peer_note: String,
    /// Clusters that wait for approval.
    pub waiting: usize,
    /// The node's clock against this machine's.
    pub clock_ahead_ms: i64,
}

pub(super) fn node(status: &Status, around: &Around) -> Vec<Row> {
    let mut rows = vec![clock(around.clock_ahead_ms), versions(status), reports(status)];
    rows.extend([revisions(status), listeners(status)]);
    rows.extend(around.audit.as_ref().map(audit));
    rows
}

fn clock(ahead_ms: i64) -> Row {
    let side = if ahead_ms < 0 { "behind" } else { "ahead of" };
    let seconds = ahead_ms.unsigned_abs() / 1000;
    let text = format!("the node's clock is {seconds} s {side} this machine's");
    match seconds {
        0..SKEW_WARN_SECONDS => Row::pass(NODE, "the node's clock agrees with this machine's"),
        SKEW_WARN_SECONDS..SKEW_FAIL_SECONDS => Row::warn(NODE, text, code::CLOCK_SKEW),
        _ => Row::fail(NODE, text, code::CLOCK_SKEW),
    }
}

fn connected(status: &Status) -> impl Iterator<Item = &GatewayStatus> {
    status.gateways.iter().filter(|gateway| gateway.connected)
}

fn versions(status: &Status) -> Row {
    let other: Vec<String> = connected(status)
        .filter_map(|gateway| Some((gateway, gateway.report.as_ref()?)))
        .filter(|(_, report)| !report.version.is_empty() && report.version != status.version)
        .map(|(gateway, report)| format!("{} is of {}", gateway.name, report.version))
        .collect();
    match other.is_empty() {
        true => Row::pass(NODE, "gateways are of the node's version"),
        false => Row::warn(NODE, "gateways are of another version", code::VERSIONS_DIFFER)
            .cause(other.join(", ")),
    }
}

fn reports(status: &Status) -> Row {
    let late: Vec<String> = connected(status)
        .filter(|one| one.report.is_none() || one.report_age_ms > REPORT_AGE_MAX_MS)
        .map(|one| match one.report {
            None => format!("{} has not reported yet", one.name),
            Some(_) => format!("{} reported {} ago", one.name, age(one.report_age_ms)),
        })
        .collect();
    match late.is_empty() {
        true => Row::pass(NODE, "connected gateways report each second"),
        false => Row::warn(NODE, "what gateways say is old", code::GATEWAY_UNCONNECTED)
            .cause(late.join(", ")),
    }
}

fn revisions(status: &Status) -> Row {
    let at = status.revision.unwrap_or_default();
    let behind: Vec<&str> = connected(status)
        .filter(|gateway| {
            let served = gateway.report.as_ref().and_then(|report| report.revision);
            served.is_some_and(|served| (served.epoch, served.index) < (at.epoch, at.index))
        })
        .map(|gateway| gateway.name.as_str())
        .collect();
    match behind.is_empty() {
        true => Row::pass(NODE, "gateways serve the node's revision"),
        false => Row::warn(
            NODE,
            format!("an older revision is served by {}", behind.join(", ")),
            code::GATEWAY_BEHIND,
        ),
    }
}

fn listeners(status: &Status) -> Row {
    let reports =
        || connected(status).filter_map(|gateway| Some((gateway, gateway.report.as_ref()?)));
    let failed: Vec<String> = reports()
        .flat_map(|(gateway, report)| {
            let failed = report.listeners.iter().filter(|listener| !listener.error.is_empty());
            failed.map(|l| format!("{} at {}: {}: {}", gateway.name, l.address, l.name, l.error))
        })
        .collect();
    let all = reports().map(|(_, report)| report.listeners.len()).sum();
    match failed.is_empty() {
        true => Row::pass(NODE, format!("{} open", counted(all, "listener"))),
        false => {
            Row::fail(NODE, "listeners are not open", code::ADDRESS_IN_USE).cause(failed.join("; "))
        }
    }
}

fn audit(verdict: &AuditVerdict) -> Row {
    let entries = usize::try_from(verdict.entries).unwrap_or(usize::MAX);
    match verdict.breaks.is_empty() {
        true => Row::pass(NODE, format!("the audit record is whole, {entries} entries")),
        false => Row::fail(NODE, "the audit record is broken", code::AUDIT_BROKEN)
            .cause(verdict.breaks.join("; ")),
    }
}

pub(super) fn federation(
    store: &Store,
    members: &[MemberStatus],
    clusters: &[ClusterStatus],
    around: &Around,
) -> Vec<Row> {
    let mut rows = vec![];
    if store.mode == "member" {
        let active = members.iter().filter(|member| member.state == "active").count();
        rows.push(voters(store, active));
    }
    rows.push(advertised(around));
    rows.push(cordons(clusters));
    rows.extend(catalogs(members));
    if around.waiting > 0 {
        let text = format!(
            "waiting for approval: {}; `fedctl join --list`",
            counted(around.waiting, "cluster")
        );
        rows.push(Row::pass(FEDERATION, text));
    }
    rows
}

/// Two voters are worse than one: either can stop the store.
fn voters(store: &Store, members: usize) -> Row {
    let voters = store.voters.len();
    let text = match voters {
        1 if members < 3 => {
            return Row::pass(
                FEDERATION,
                "one voter, as long as there are fewer than three members",
            );
        }
        1 => "one voter: without it nothing can be changed".to_owned(),
        even if even % 2 == 0 => {
            format!("{even} voters: an even number is no safer than one fewer")
        }
        odd => {
            let spare = (odd - 1) / 2;
            return Row::pass(FEDERATION, format!("{odd} voters: {spare} may be away"));
        }
    };
    let fix = "more clusters with the role admit become voters by themselves; `fedctl store peers`";
    Row::warn(FEDERATION, text, code::STORE_NO_QUORUM).fix(fix)
}

fn advertised(around: &Around) -> Row {
    match around.peer_note.is_empty() {
        true => Row::pass(FEDERATION, "this cluster tells others an address"),
        false => {
            Row::warn(FEDERATION, "others cannot dial this cluster", code::GATEWAY_ADDRESS_PENDING)
                .cause(&*around.peer_note)
        }
    }
}

fn cordons(clusters: &[ClusterStatus]) -> Row {
    let cordoned: Vec<String> = clusters
        .iter()
        .filter_map(|cluster| Some((cluster, cluster.cordon.as_ref()?)))
        .map(|(cluster, cordon)| match &*cordon.reason {
            "" => cluster.name.clone(),
            reason => format!("{} ({reason})", cluster.name),
        })
        .collect();
    match cordoned.is_empty() {
        true => Row::pass(FEDERATION, "no cluster is cordoned"),
        false => Row::warn(
            FEDERATION,
            format!("no new exchanges are sent to {}", cordoned.join(", ")),
            code::CLUSTER_CORDONED,
        ),
    }
}

/// How old is what other clusters have published, as far as the node knows.
fn catalogs(members: &[MemberStatus]) -> Vec<Row> {
    let known = || members.iter().filter(|member| !member.own && !member.standing.is_empty());
    let mut rows = vec![];
    let fresh = known().filter(|member| member.standing == "fresh").count();
    if fresh > 0 {
        let text = format!("{} of others fresh", counted(fresh, "catalog"));
        rows.push(Row::pass(FEDERATION, text));
    }
    for member in known().filter(|member| member.standing != "fresh") {
        let heard = member.age_ms.map(|age_ms| format!("heard of it {} ago", age(age_ms)));
        let name = &member.name;
        let row = match member.standing == "withdrawn" {
            true => Row::fail(
                FEDERATION,
                format!("{name} has been silent for so long that its exports are withdrawn"),
                code::OWNER_WITHDRAWN,
            ),
            false => {
                Row::warn(FEDERATION, format!("the catalog of {name} is old"), code::OWNER_STALE)
            }
        };
        rows.push(Row { cause: heard, ..row });
    }
    rows
}

/// The live connections to one cluster together.
#[derive(Debug, Default)]
struct Sum {
    live: usize,
    all: usize,
    over_tcp: usize,
    sent: u64,
    lost: u64,
    rtt_us: Option<u64>,
}

pub(super) fn tunnels(clusters: &[ClusterStatus], around: &Around) -> Vec<Row> {
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for link in around.links.iter().filter(|row| row.connected).filter_map(|row| row.link.as_ref())
    {
        let sum = sums.entry(&link.cluster).or_default();
        sum.all += 1;
        if link.state() == LinkState::Live {
            sum.live += 1;
            sum.over_tcp += usize::from(link.transport() == Transport::Tcp);
            sum.sent += link.packets_sent;
            sum.lost += link.packets_lost;
            sum.rtt_us = [sum.rtt_us, link.rtt_us].into_iter().flatten().min();
        }
    }
    let up = |name: &str| {
        clusters.iter().any(|one| one.name == name && one.state() == ClusterState::Connected)
    };
    sums.retain(|_, sum| sum.live > 0);
    if sums.is_empty() {
        return vec![];
    }
    let mut rows = vec![connections(&sums, up), transports(&sums)];
    rows.extend([losses(&sums), round_trips(&sums)]);
    rows
}

fn connections(sums: &BTreeMap<&str, Sum>, up: impl Fn(&str) -> bool) -> Row {
    let partly: Vec<String> = sums
        .iter()
        .filter(|(name, sum)| up(name) && sum.live < sum.all)
        .map(|(name, sum)| format!("{name}: {} of {}", sum.live, sum.all))
        .collect();
    match partly.is_empty() {
        true => {
            let all = sums.values().map(|sum| sum.live).sum();
            Row::pass(TUNNELS, format!("{} live", counted(all, "connection")))
        }
        false => Row::warn(TUNNELS, "some connections are not live", code::TUNNEL_DOWN)
            .cause(partly.join(", "))
            .fix("`fedctl links` says of each why"),
    }
}

fn transports(sums: &BTreeMap<&str, Sum>) -> Row {
    let over_tcp: Vec<&str> =
        sums.iter().filter(|(_, sum)| sum.over_tcp > 0).map(|(name, _)| *name).collect();
    match over_tcp.is_empty() {
        true => Row::pass(TUNNELS, "all connections are QUIC"),
        false => Row::warn(
            TUNNELS,
            format!("connections run over TCP to {}", over_tcp.join(", ")),
            code::TUNNEL_FALLBACK,
        ),
    }
}

fn losses(sums: &BTreeMap<&str, Sum>) -> Row {
    let permille = |sum: &Sum| sum.lost.saturating_mul(1000) / sum.sent.max(1);
    let telling = || sums.iter().filter(|(_, sum)| sum.sent >= LOSS_PACKETS_LEAST);
    let worst = telling().map(|(_, sum)| permille(sum)).max().unwrap_or_default();
    let lossy: Vec<String> = telling()
        .filter(|(_, sum)| permille(sum) >= LOSS_WARN_PERMILLE)
        .map(|(name, sum)| {
            let permille = permille(sum);
            format!("{name}: {}.{} % of {} packets", permille / 10, permille % 10, sum.sent)
        })
        .collect();
    let text = "packets are lost";
    match worst {
        0..LOSS_WARN_PERMILLE => Row::pass(TUNNELS, "few packets are lost"),
        LOSS_WARN_PERMILLE..LOSS_FAIL_PERMILLE => {
            Row::warn(TUNNELS, text, code::LINK_POOR).cause(lossy.join(", "))
        }
        _ => Row::fail(TUNNELS, text, code::LINK_POOR).cause(lossy.join(", ")),
    }
}

fn round_trips(sums: &BTreeMap<&str, Sum>) -> Row {
    let shown = |(name, sum): (&&str, &Sum)| Some(format!("{name} {}", milliseconds(sum.rtt_us?)));
    let all: Vec<String> = sums.iter().filter_map(shown).collect();
    match sums.values().filter_map(|sum| sum.rtt_us).max() {
        Some(longest) if longest >= RTT_WARN_US => {
            Row::warn(TUNNELS, "round trips are long", code::LINK_POOR).cause(all.join(", "))
        }
        _ => Row::pass(TUNNELS, format!("round trips: {}", all.join(", "))),
    }
}

pub(super) fn services(cluster: &str, around: &Around) -> Vec<Row> {
    let named = |service: &ServiceStatus| format!("{}/{}", service.namespace, service.name);
    let exported = || around.services.iter().filter(|service| service.exported);
    let closed: Vec<String> = exported().filter(|one| !one.targeted).map(named).collect();
    let bare: Vec<String> =
        exported().filter(|service| has_no_endpoint(service, cluster)).map(named).collect();
    let imported = || around.services.iter().filter(|service| service.imported);
    let nowhere: Vec<String> = imported()
        .filter(|service| {
            let mut clusters = service.health.iter().flat_map(|health| &health.clusters).peekable();
            clusters.peek().is_some() && !clusters.any(|cluster| cluster.usable)
        })
        .map(named)
        .collect();
    let mut rows = vec![];
    rows.push(match closed.is_empty() {
        true => {
            Row::pass(OBJECTS, format!("{} with a policy", counted(exported().count(), "export")))
        }
        false => Row::warn(OBJECTS, "exports that nobody may reach", code::EXPORT_WITHOUT_POLICY)
            .cause(closed.join(", ")),
    });
    rows.push(match bare.is_empty() {
        true => Row::pass(OBJECTS, "exported services have ready endpoints"),
        false => {
            Row::warn(OBJECTS, "exported services without a ready endpoint", code::NO_ENDPOINT)
                .cause(bare.join(", "))
        }
    });
    rows.push(match nowhere.is_empty() {
        true => Row::pass(OBJECTS, format!("{} reachable", counted(imported().count(), "import"))),
        false => Row::fail(OBJECTS, "imports that no cluster serves now", code::NO_ENDPOINT)
            .cause(nowhere.join(", "))
            .fix("`fedctl services` says which clusters export them and which can be reached"),
    });
    rows
}

fn has_no_endpoint(service: &ServiceStatus, cluster: &str) -> bool {
    let own = service.health.iter().flat_map(|health| &health.clusters);
    let own = own.filter(|one| one.cluster == cluster).filter_map(|one| one.endpoints_ready);
    own.max() == Some(0)
}
