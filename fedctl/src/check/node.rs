//! What the federation node says of itself and of others, as rows.

use jiff::Timestamp;
use model::code;
use wire::operator::proto::{
    CertificateStatus, ClusterState, ClusterStatus, ListCertificatesRequest, ListMembersRequest,
    ListPendingJoinsRequest, ListTrustRequest, MemberStatus, Status, Store, TrustStatus,
    VerifyAuditRequest,
};

use super::Row;
use super::around::{self, Around};
use crate::error::CommandError;
use crate::netcheck::ahead_ms;
use crate::operator::Operator;
use crate::printer::age;

/// A certificate is renewed when half of its life is over; so much of it left means that it is not.
const LIFE_LEFT_LEAST_PERCENT: u64 = 25;
/// A quorum confirms a leader several times a second.
const QUORUM_AGE_MAX_MS: u64 = 10_000;

pub(super) const NODE: &str = "node";
pub(super) const FEDERATION: &str = "federation";
pub(super) const TUNNELS: &str = "tunnels";
const CERTIFICATES: &str = "certificates";
pub(super) const OBJECTS: &str = "objects";

/// The node's answers.
#[derive(Debug)]
pub struct FromNode {
    pub status: Status,
    pub clusters: Vec<ClusterStatus>,
    pub store: Store,
    pub members: Vec<MemberStatus>,
    pub certificates: Vec<CertificateStatus>,
    pub trust: Vec<TrustStatus>,
    pub around: Around,
}

pub async fn read_from_node(node: &Operator) -> Result<FromNode, CommandError> {
    let before = Timestamp::now();
    let status = node.status().await?;
    let clock_ahead_ms = ahead_ms(&status, before, Timestamp::now());
    let around = Around {
        links: node.links().await?.links,
        services: node.services().await?.services,
        // A record that is large, or a role that is low, costs its row only.
        audit: node.verify_audit(VerifyAuditRequest {}).await.ok(),
        peer_note: node.peer().await?.note,
        waiting: node.list_pending_joins(ListPendingJoinsRequest {}).await?.joins.len(),
        clock_ahead_ms,
    };
    Ok(FromNode {
        status,
        around,
        clusters: node.clusters().await?.clusters,
        store: node.store().await?,
        members: node.list_members(ListMembersRequest::default()).await?.members,
        certificates: node.list_certificates(ListCertificatesRequest {}).await?.certificates,
        trust: node.list_trust(ListTrustRequest {}).await?.trust,
    })
}

/// `found` is an error when the node was not to be asked; one row says so, the others are skipped.
pub fn node_rows(found: &Result<FromNode, CommandError>, now: Timestamp) -> Vec<Row> {
    let found = match found {
        Ok(found) => found,
        Err(error) => return silent(error),
    };
    let mut rows = vec![answers(&found.status), version(&found.status), gateways(&found.status)];
    rows.extend(around::node(&found.status, &found.around));
    rows.extend([membership(found), store(&found.store)]);
    let (store, members) = (&found.store, &found.members);
    rows.extend(around::federation(store, members, &found.clusters, &found.around));
    rows.extend(tunnels(&found.clusters));
    rows.extend(around::tunnels(&found.clusters, &found.around));
    rows.push(trust(&found.trust, now));
    rows.push(lives(&found.certificates, now));
    rows.push(objects(&found.status));
    rows.extend(around::services(&found.status.cluster, &found.around));
    rows
}

fn silent(error: &CommandError) -> Vec<Row> {
    let code = error.code.unwrap_or(code::FEDERATION_UNREACHABLE);
    let row = Row::fail(NODE, "the federation node does not answer", code).cause(&*error.message);
    let mut rows = vec![Row { fix: error.hint.clone(), ..row }];
    for (category, text) in [
        (FEDERATION, "membership and store"),
        (TUNNELS, "tunnels to other clusters"),
        (CERTIFICATES, "certificates"),
        (OBJECTS, "objects in service"),
    ] {
        rows.push(Row::skip(category, text, "the federation node does not answer"));
    }
    rows
}

fn answers(status: &Status) -> Row {
    let Status { cluster, trust_domain, version, .. } = status;
    Row::pass(
        NODE,
        format!("the node of cluster {cluster} ({trust_domain}) answers, version {version}"),
    )
}

fn version(status: &Status) -> Row {
    let own = env!("CARGO_PKG_VERSION");
    match status.version == own {
        true => Row::pass(NODE, "fedctl is of the node's version"),
        false => Row::warn(
            NODE,
            format!("fedctl is of version {own}, the node of {}", status.version),
            code::VERSIONS_DIFFER,
        ),
    }
}

fn gateways(status: &Status) -> Row {
    let connected: Vec<_> = status.gateways.iter().filter(|gateway| gateway.connected).collect();
    let ready = |report: &wire::resource::proto::StatusReport| report.ready && !report.draining;
    let ready = connected.iter().filter(|gateway| gateway.report.as_ref().is_some_and(ready));
    let text =
        format!("{} of {} connected gateways are ready", ready.clone().count(), connected.len());
    match (ready.count(), connected.len()) {
        (_, 0) => Row::fail(NODE, "no gateway is connected", code::GATEWAY_UNCONNECTED),
        (ready, all) if ready < all => Row::warn(NODE, text, code::GATEWAY_UNCONNECTED),
        _ => Row::pass(NODE, text),
    }
}

fn membership(found: &FromNode) -> Row {
    let active: Vec<&str> = found
        .members
        .iter()
        .filter(|member| member.state == "active")
        .map(|member| member.name.as_str())
        .collect();
    match found.store.federation.is_empty() {
        true => Row::warn(FEDERATION, "this cluster is in no federation", code::FEDERATION_NONE),
        false => Row::pass(
            FEDERATION,
            format!("{}: {}", counted(active.len(), "member"), active.join(", ")),
        ),
    }
}

fn store(store: &Store) -> Row {
    if !store.problem.is_empty() {
        return Row::fail(FEDERATION, "the store does not work here", code::STORE_FAULT)
            .cause(&*store.problem);
    }
    if store.mode == "alone" {
        return Row::pass(FEDERATION, "there is no store yet");
    }
    if store.mode == "replica" {
        return match store.source.is_empty() {
            true => Row::warn(FEDERATION, "nobody feeds this replica", code::WATCH_SOURCE_LOST),
            false => Row::pass(FEDERATION, format!("a replica, fed by {}", store.source)),
        };
    }
    if store.leader.is_empty() {
        return Row::fail(FEDERATION, "the store has no leader", code::STORE_NO_QUORUM);
    }
    let text =
        format!("{} leads the store, {}", store.leader, counted(store.voters.len(), "voter"));
    match store.quorum_age_ms {
        Some(old) if old > QUORUM_AGE_MAX_MS => Row::fail(FEDERATION, text, code::STORE_NO_QUORUM)
            .cause(format!("no quorum has confirmed it for {}", age(old))),
        _ => Row::pass(FEDERATION, text),
    }
}

/// One row for all that is well, and one for each cluster that is not.
fn tunnels(clusters: &[ClusterStatus]) -> Vec<Row> {
    let others = || clusters.iter().filter(|cluster| cluster.state() != ClusterState::Own);
    let connected = others().filter(|cluster| cluster.state() == ClusterState::Connected).count();
    if others().next().is_none() {
        return vec![Row::pass(TUNNELS, "there are no other clusters yet")];
    }
    let text = format!("{connected} of {} connected", counted(others().count(), "other cluster"));
    let mut rows = vec![];
    if connected > 0 {
        rows.push(Row::pass(TUNNELS, text));
    }
    for cluster in others() {
        let name = &cluster.name;
        let row = match cluster.state() {
            ClusterState::Degraded => Row::warn(
                TUNNELS,
                format!("{name} is connected from some gateways only"),
                code::TUNNEL_DOWN,
            ),
            ClusterState::Down => {
                Row::fail(TUNNELS, format!("{name} is not connected"), code::TUNNEL_DOWN)
            }
            ClusterState::Unknown => Row::skip(TUNNELS, name, "no gateway is connected"),
            _ => continue,
        };
        rows.push(match &cluster.last_error {
            Some(error) => row.cause(format!("{} ({} ago)", error.text, age(error.age_ms))),
            None => row,
        });
    }
    rows
}

fn trust(trust: &[TrustStatus], now: Timestamp) -> Row {
    let now = u64::try_from(now.as_second()).unwrap_or_default();
    let dead: Vec<&str> = trust
        .iter()
        .filter(|one| one.authorities.iter().all(|authority| authority.not_after_unix_s <= now))
        .map(|one| one.trust_domain.as_str())
        .collect();
    match dead.is_empty() {
        true => Row::pass(
            CERTIFICATES,
            format!("{} with a valid authority", counted(trust.len(), "trust domain")),
        ),
        false => Row::fail(
            CERTIFICATES,
            format!("no valid authority: {}", dead.join(", ")),
            code::AUTHORITY_EXPIRED,
        ),
    }
}

fn lives(certificates: &[CertificateStatus], now: Timestamp) -> Row {
    let now = u64::try_from(now.as_second()).unwrap_or_default();
    let named = |one: &CertificateStatus| match &*one.holder {
        "" => one.part.clone(),
        holder => format!("{} {holder}", one.part),
    };
    let known = || certificates.iter().filter(|one| one.not_after_unix_s > 0);
    let expired: Vec<String> =
        known().filter(|one| one.not_after_unix_s <= now).map(named).collect();
    if !expired.is_empty() {
        let text = format!("expired: {}", expired.join(", "));
        return Row::fail(CERTIFICATES, text, code::SVID_EXPIRED);
    }
    let late: Vec<String> = known()
        .filter(|one| {
            let life = one.not_after_unix_s.saturating_sub(one.not_before_unix_s);
            let left = one.not_after_unix_s.saturating_sub(now);
            one.not_before_unix_s > 0 && left * 100 < life * LIFE_LEFT_LEAST_PERCENT
        })
        .map(|one| {
            let left = one.not_after_unix_s.saturating_sub(now);
            format!("{}: {} left", named(one), age(left.saturating_mul(1000)))
        })
        .collect();
    match late.is_empty() {
        true => {
            Row::pass(CERTIFICATES, format!("{} in force", counted(known().count(), "certificate")))
        }
        false => Row::warn(CERTIFICATES, "renewal is late", code::SVID_RENEWAL_LATE)
            .cause(late.join(", ")),
    }
}

fn objects(status: &Status) -> Row {
    let text = format!("{} errors, {} warnings in objects", status.errors, status.warnings);
    match (status.errors, status.warnings) {
        (0, 0) => Row::pass(OBJECTS, "nothing was found wrong with the objects in service"),
        _ => Row::warn(OBJECTS, text, code::OBJECT_INVALID).fix("`fedctl diagnostics` lists them"),
    }
}

pub(super) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use wire::operator::proto::{
        AuditVerdict, AuthorityStatus, Cordon, GatewayLink, GatewayStatus, ServiceStatus,
    };
    use wire::resource::proto::{
        ClusterHealth, Link, LinkError, LinkState, Listener, Revision, ServiceHealth, StatusReport,
        Transport,
    };

    use super::*;
    use crate::check::Report;
    use crate::golden;

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    fn cluster(name: &str, state: ClusterState, error: Option<&str>) -> ClusterStatus {
        let last_error =
            error.map(|text| LinkError { text: text.into(), age_ms: 4000, ..LinkError::default() });
        ClusterStatus { name: name.into(), state: state.into(), last_error, ..Default::default() }
    }

    fn certificate(part: &str, begun_hours_ago: u64, hours_left: i64) -> CertificateStatus {
        let now = u64::try_from(now().as_second()).unwrap();
        CertificateStatus {
            part: part.into(),
            not_before_unix_s: now - begun_hours_ago * 3600,
            not_after_unix_s: now.checked_add_signed(hours_left * 3600).unwrap(),
            ..CertificateStatus::default()
        }
    }

    fn well() -> FromNode {
        let report = StatusReport { ready: true, ..StatusReport::default() };
        let gateway =
            GatewayStatus { connected: true, report: Some(report), ..GatewayStatus::default() };
        let authority = AuthorityStatus {
            not_after_unix_s: u64::try_from(now().as_second()).unwrap() + 1,
            ..AuthorityStatus::default()
        };
        let member = |name: &str| MemberStatus {
            name: name.into(),
            state: "active".into(),
            ..MemberStatus::default()
        };
        FromNode {
            status: Status {
                cluster: "east".into(),
                trust_domain: "east.example".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                gateways: vec![gateway],
                ..Status::default()
            },
            clusters: vec![
                cluster("east", ClusterState::Own, None),
                cluster("west", ClusterState::Connected, None),
            ],
            store: Store {
                mode: "member".into(),
                federation: "f".into(),
                leader: "east".into(),
                voters: vec!["east".into()],
                quorum_age_ms: Some(100),
                ..Store::default()
            },
            members: vec![member("east"), member("west")],
            certificates: vec![certificate("federation", 1, 23)],
            trust: vec![TrustStatus {
                trust_domain: "east.example".into(),
                authorities: vec![authority],
                ..TrustStatus::default()
            }],
            around: around(),
        }
    }

    fn link(cluster: &str, state: LinkState, lost: u64) -> GatewayLink {
        let link = Link {
            cluster: cluster.into(),
            transport: Transport::Quic.into(),
            state: state.into(),
            rtt_us: Some(18_000),
            packets_sent: 1000,
            packets_lost: lost,
            ..Link::default()
        };
        GatewayLink { connected: true, link: Some(link), ..GatewayLink::default() }
    }

    fn service(name: &str, ready: u32, usable: bool) -> ServiceStatus {
        let at = |cluster: &str, usable, endpoints_ready| ClusterHealth {
            cluster: cluster.into(),
            usable,
            endpoints_ready,
            ..ClusterHealth::default()
        };
        let clusters = vec![at("east", ready > 0, Some(ready)), at("west", usable, None)];
        ServiceStatus {
            namespace: "shop".into(),
            name: name.into(),
            exported: true,
            imported: true,
            targeted: ready > 0,
            health: vec![ServiceHealth { clusters, ..ServiceHealth::default() }],
            ..ServiceStatus::default()
        }
    }

    fn around() -> Around {
        Around {
            links: vec![link("west", LinkState::Live, 3), link("west", LinkState::Live, 0)],
            services: vec![service("api", 2, true)],
            audit: Some(AuditVerdict { entries: 12, ..AuditVerdict::default() }),
            ..Around::default()
        }
    }

    fn unwell_around() -> Around {
        let mut slow = link("south", LinkState::Live, 200);
        slow.link.as_mut().unwrap().rtt_us = Some(900_000);
        slow.link.as_mut().unwrap().transport = Transport::Tcp.into();
        Around {
            links: vec![slow, link("south", LinkState::Down, 0)],
            services: vec![service("db", 0, false)],
            audit: Some(AuditVerdict {
                breaks: vec!["audit.log line 2".into()],
                ..Default::default()
            }),
            peer_note: "this cluster advertises no address".into(),
            waiting: 1,
            clock_ahead_ms: -90_000,
        }
    }

    fn table(found: Result<FromNode, CommandError>) -> String {
        let table = Report { rows: node_rows(&found, now()) }.table();
        table.replace(env!("CARGO_PKG_VERSION"), "VERSION")
    }

    #[test]
    fn a_node_that_is_well_one_that_is_not_and_none_are_as_golden() {
        golden::check("check-node.txt", &table(Ok(well())));
        let mut unwell = well();
        let listener =
            Listener { name: "Gateway/a/b/c".into(), error: "in use".into(), ..Default::default() };
        let report = StatusReport {
            version: "0.0.2".into(),
            revision: Some(Revision { epoch: 1, index: 1 }),
            listeners: vec![listener],
            ..StatusReport::default()
        };
        unwell.status.gateways = vec![GatewayStatus {
            name: "gw-0".into(),
            connected: true,
            report: Some(report),
            report_age_ms: 12_000,
            ..GatewayStatus::default()
        }];
        unwell.status.revision = Some(Revision { epoch: 1, index: 2 });
        unwell.around = unwell_around();
        unwell.store.voters.push("west".into());
        unwell.status.version = "0.0.1".into();
        unwell.status.errors = 2;
        unwell.clusters = vec![
            cluster("west", ClusterState::Down, Some("timed out")),
            cluster("south", ClusterState::Degraded, None),
        ];
        unwell.clusters[0].cordon = Some(Cordon { reason: "disks".into(), ..Cordon::default() });
        unwell.members[0].standing = "withdrawn".into();
        (unwell.members[1].standing, unwell.members[1].age_ms) = ("stale".into(), Some(40_000));
        unwell.store.quorum_age_ms = Some(60_000);
        unwell.certificates = vec![certificate("federation", 23, 1), certificate("ca", 100, 9000)];
        unwell.trust[0].authorities[0].not_after_unix_s = 1;
        golden::check("check-node-bad.txt", &table(Ok(unwell)));
        let silent = CommandError::failed("cluster east has no federation pod in fedgate-system")
            .code(code::NOT_INSTALLED)
            .hint("`fedctl install` installs Fedgate");
        golden::check("check-node-silent.txt", &table(Err(silent)));
    }
}
