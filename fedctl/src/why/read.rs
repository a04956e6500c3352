//! From a node's answers to facts. Every answer lies ready at the node: no quorum is asked.

use std::time::Duration;

use api::parse_manifest;
use jiff::Timestamp;
use model::code::Code;
use model::why::{
    Authority, Feed, GatewayFacts, LinkFacts, LinkFault, LinkState, ListenerFacts, MemberFacts,
    MemberState, NodeFacts, OfferFacts, Standing, StoreFacts, SvidFacts, TrustFacts,
};
use model::{
    AllowEntry, AppProtocol, ClusterName, ResourceKind, ResourceSet, Revision, ServiceName,
    ServicePort, SpiffeId, TrustDomain,
};
use wire::operator::proto::{
    ClusterStatus, ExportStatus, GatewayLink, GatewayStatus, GetStoreRequest, ListExportsRequest,
    ListMembersRequest, ListObjectsRequest, ListTrustRequest, MemberStatus, Store, TrustStatus,
};
use wire::resource::proto as resource;

use crate::error::CommandError;
use crate::operator::Operator;

/// Everything that routing is made of, but endpoints: there may be many of these.
const KINDS: [ResourceKind; 9] = [
    ResourceKind::ClusterPeer,
    ResourceKind::Service,
    ResourceKind::ServiceExport,
    ResourceKind::ServiceImport,
    ResourceKind::Gateway,
    ResourceKind::HttpRoute,
    ResourceKind::TcpRoute,
    ResourceKind::AccessPolicy,
    ResourceKind::ReferenceGrant,
];
/// A quorum confirms a leader several times a second, and that one speaks as often.
const QUORUM_AGE_MAX_MS: u64 = 5_000;

/// What a node says of itself and of others.
pub(super) async fn node(node: &Operator, now: Timestamp) -> Result<NodeFacts, CommandError> {
    let status = node.status().await?;
    let cluster = cluster_name(&status.cluster)?;
    let trust_domain = TrustDomain::parse(&status.trust_domain);
    let trust_domain = trust_domain.map_err(|error| unreadable(&error.to_string()))?;
    let (mut resources, mut left_out) = (ResourceSet::default(), 0);
    for kind in KINDS {
        left_out += objects(node, kind, "", &mut resources).await?;
    }
    let mut facts = NodeFacts::new(cluster, trust_domain, revision(status.revision), resources);
    facts.left_out = left_out;
    facts.gateways = status.gateways.iter().map(|it| gateway(it, now)).collect();
    facts.cordoned = node.clusters().await?.clusters.iter().filter_map(cordon).collect();
    facts.links = node.links().await?.links.iter().filter_map(link).collect();
    let trust = node.list_trust(ListTrustRequest {}).await?.trust;
    facts.trust = trust.iter().filter_map(|row| bundle(row, now)).collect();
    // Outside of a federation there is no store.
    if let Ok(store) = node.get_store(GetStoreRequest {}).await
        && store.mode != "alone"
    {
        let members = node.list_members(ListMembersRequest::default()).await?.members;
        facts.store = Some(StoreFacts {
            revision: revision(store.applied),
            feed: feed(&store),
            members: members.iter().filter_map(member).collect(),
            offers: vec![],
        });
    }
    Ok(facts)
}

/// Adds what is about one service: its endpoints, and who exports it.
pub(super) async fn about(
    node: &Operator,
    facts: NodeFacts,
    service: &ServiceName,
) -> Result<NodeFacts, CommandError> {
    let namespace = service.namespace.as_str();
    let mut resources = facts.resources.clone();
    let left_out = objects(node, ResourceKind::EndpointSlice, namespace, &mut resources).await?;
    let NodeFacts { cluster, trust_domain, snapshot, .. } = facts;
    let fresh = NodeFacts::new(cluster, trust_domain, snapshot.revision, resources);
    let mut facts = NodeFacts {
        left_out: facts.left_out + left_out,
        gateways: facts.gateways,
        links: facts.links,
        trust: facts.trust,
        cordoned: facts.cordoned,
        store: facts.store,
        ..fresh
    };
    if let Some(store) = &mut facts.store {
        let (namespace, name) = (namespace.into(), service.name.to_string());
        let exports = node.list_exports(ListExportsRequest { namespace, name }).await?.exports;
        store.offers = exports.iter().filter_map(offer).collect();
    }
    Ok(facts)
}

/// Adds the objects of a kind; says how many the node left out.
async fn objects(
    node: &Operator,
    kind: ResourceKind,
    namespace: &str,
    resources: &mut ResourceSet,
) -> Result<u32, CommandError> {
    let (kind, namespace) = (kind.as_str().to_owned(), namespace.to_owned());
    let request = ListObjectsRequest { kind, namespace, name: String::new() };
    let answer = node.list_objects(request).await?;
    for object in &answer.objects {
        let read = parse_manifest(&object.name, &object.manifest);
        let read = read.map_err(|error| unreadable(&format!("{}: {error}", object.name)))?;
        read.objects.into_iter().for_each(|object| resources.upsert(object.resource));
    }
    Ok(answer.left_out)
}

fn gateway(status: &GatewayStatus, now: Timestamp) -> GatewayFacts {
    let report = status.report.clone().unwrap_or_default();
    let seconds = |time: i64| Duration::from_secs(time.unsigned_abs());
    let end = i64::try_from(report.svid_not_after_unix_s).unwrap_or(i64::MAX);
    let svid = match end.saturating_sub(now.as_second()) {
        _ if end == 0 => SvidFacts::Missing,
        left if left > 0 => SvidFacts::Valid { left: seconds(left) },
        over => SvidFacts::Expired { ago: seconds(over) },
    };
    let listener = |listener: &resource::Listener| {
        let error = Some(listener.error.clone()).filter(|error| !error.is_empty());
        Some(ListenerFacts { address: listener.address.parse().ok()?, error })
    };
    GatewayFacts {
        name: status.name.clone(),
        connected: status.connected,
        since: ms(status.since_age_ms),
        report_age: status.report.is_some().then_some(ms(status.report_age_ms)),
        ready: report.ready,
        draining: report.draining,
        spiffe_id: SpiffeId::parse(&report.spiffe_id).ok(),
        svid,
        listeners: report.listeners.iter().filter_map(listener).collect(),
    }
}

fn link(row: &GatewayLink) -> Option<LinkFacts> {
    let link = row.link.as_ref()?;
    let fault = link.last_error.as_ref().map(|fault| LinkFault {
        code: Code::parse(&format!("{:04}", fault.code)),
        text: fault.text.clone(),
        age: ms(fault.age_ms),
    });
    Some(LinkFacts {
        gateway: row.gateway.clone(),
        current: row.connected,
        cluster: ClusterName::parse(&link.cluster).ok()?,
        address: link.address.clone(),
        transport: match link.transport() {
            resource::Transport::Quic => "quic",
            _ => "tcp",
        },
        state: match link.state() {
            resource::LinkState::Live => LinkState::Live,
            resource::LinkState::Draining => LinkState::Draining,
            resource::LinkState::Dialling => LinkState::Dialling,
            resource::LinkState::Down | resource::LinkState::Unspecified => LinkState::Down,
        },
        rtt: link.rtt_us.map(Duration::from_micros),
        fault,
    })
}

/// A cluster that is cordoned, and who wants that.
fn cordon(row: &ClusterStatus) -> Option<(ClusterName, String)> {
    let cordon = row.cordon.as_ref()?;
    let why = match (&*cordon.reason, cordon.by_itself) {
        ("", true) => "it says so itself",
        ("", false) => "an operator said so",
        (reason, _) => reason,
    };
    Some((ClusterName::parse(&row.name).ok()?, why.to_owned()))
}

fn bundle(row: &TrustStatus, now: Timestamp) -> Option<TrustFacts> {
    let now = u64::try_from(now.as_second()).unwrap_or(0);
    let authorities = row.authorities.iter().map(|authority| Authority {
        fingerprint: authority.fingerprint.clone(),
        expired: authority.not_after_unix_s <= now,
    });
    Some(TrustFacts {
        trust_domain: TrustDomain::parse(&row.trust_domain).ok()?,
        cluster: ClusterName::parse(&row.cluster).ok()?,
        sequence: row.sequence,
        authorities: authorities.collect(),
    })
}

fn feed(store: &Store) -> Feed {
    if store.mode == "replica" {
        return match ClusterName::parse(&store.source) {
            Ok(source) => Feed::Watch { source },
            Err(_) => Feed::Cut,
        };
    }
    let ages = [store.quorum_age_ms, store.leader_age_ms];
    let confirmed = ages.into_iter().flatten().all(|age| age < QUORUM_AGE_MAX_MS);
    match ClusterName::parse(&store.leader) {
        Ok(leader) if confirmed => Feed::Store { leader },
        _ => Feed::Leaderless,
    }
}

fn member(row: &MemberStatus) -> Option<MemberFacts> {
    let standing = match row.standing.as_str() {
        "fresh" => Some(Standing::Fresh),
        "stale" => Some(Standing::Stale),
        "withdrawn" => Some(Standing::Withdrawn),
        _ => None,
    };
    Some(MemberFacts {
        name: ClusterName::parse(&row.name).ok()?,
        state: match row.state.as_str() {
            "active" => MemberState::Active,
            "revoked" => MemberState::Revoked,
            _ => MemberState::Left,
        },
        heard: row.age_ms.map(ms).zip(standing),
    })
}

fn offer(row: &ExportStatus) -> Option<OfferFacts> {
    let idle = row.idle.clone().map(wire::resource::decode_diagnostic);
    let ports = row.ports.iter().filter_map(|port| {
        Some(ServicePort {
            name: Some(port.name.clone()).filter(|name| !name.is_empty()),
            port: u16::try_from(port.port).ok()?,
            protocol: match port.protocol() {
                resource::AppProtocol::Http => AppProtocol::Http,
                resource::AppProtocol::H2c => AppProtocol::H2c,
                resource::AppProtocol::Tcp | resource::AppProtocol::Unspecified => AppProtocol::Tcp,
            },
        })
    });
    Some(OfferFacts {
        cluster: ClusterName::parse(&row.cluster).ok()?,
        idle: idle.and_then(|read| read.ok().flatten()),
        ports: ports.collect(),
        targeted: row.targeted,
        allow: row.allow.iter().filter_map(allow_entry).collect(),
    })
}

/// An entry that cannot be read lets nobody in.
fn allow_entry(entry: &resource::AllowEntry) -> Option<AllowEntry> {
    let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Some(AllowEntry {
        cluster: set(&entry.cluster).map(|text| ClusterName::parse(&text)).transpose().ok()?,
        trust_domain: set(&entry.trust_domain)
            .map(|text| TrustDomain::parse(&text))
            .transpose()
            .ok()?,
        spiffe_id: set(&entry.spiffe_id).map(|text| SpiffeId::parse(&text)).transpose().ok()?,
    })
}

fn revision(revision: Option<resource::Revision>) -> Revision {
    revision.map_or_else(Revision::default, |it| Revision { epoch: it.epoch, index: it.index })
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn cluster_name(name: &str) -> Result<ClusterName, CommandError> {
    ClusterName::parse(name).map_err(|error| unreadable(&error.to_string()))
}

fn unreadable(problem: &str) -> CommandError {
    CommandError::failed(format!("the node's answer cannot be read: {problem}"))
        .code(model::code::VERSIONS_DIFFER)
}
