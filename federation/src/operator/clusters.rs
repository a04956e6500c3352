//! The rows of `ListClusters`: this cluster, then its peers.

use model::{ClusterName, ClusterPeer, Resource};
use wire::operator::proto::{ClusterState, ClusterStatus};
use wire::resource::{ClusterExchanges, Link, LinkState};

use super::node::encode_addresses;
use super::{Operator, View, cordons};
use crate::gateways::GatewayView;

pub(super) fn list(node: &Operator, view: &View) -> Vec<ClusterStatus> {
    let exports = count(view, |resource| matches!(resource, Resource::ServiceExport(_)));
    let own = ClusterStatus {
        name: node.cluster.to_string(),
        state: ClusterState::Own.into(),
        trust_domains: vec![node.ca.trust_domain().to_string()],
        addresses: node.advertised(),
        services: exports,
        cordon: cordons::of(node, view, &node.cluster),
        sent: exchanges(view, |_| true, |with| with.sent),
        received: exchanges(view, |_| true, |with| with.received),
        ..ClusterStatus::default()
    };
    let peers = view.resources.values().filter_map(|resource| match resource {
        Resource::ClusterPeer(peer) if peer.name != node.cluster => Some(ClusterStatus {
            cordon: cordons::of(node, view, &peer.name),
            ..peer_status(peer, view)
        }),
        _ => None,
    });
    std::iter::once(own).chain(peers).collect()
}

fn peer_status(peer: &ClusterPeer, view: &View) -> ClusterStatus {
    let connected: Vec<&GatewayView> = view.gateways.iter().filter(|g| g.connected).collect();
    let links: Vec<&Link> = connected.iter().flat_map(|g| links_to(g, &peer.name)).collect();
    let live = |link: &Link| link.state == LinkState::Live;
    let of_peer = |link: &&&Link| live(link);
    let errors = links.iter().filter_map(|link| link.last_error.as_ref());
    let youngest = errors.min_by_key(|error| error.age_ms);
    let imports = count(view, |resource| match resource {
        Resource::ServiceImport(import) => import.clusters.contains(&peer.name),
        _ => false,
    });
    ClusterStatus {
        name: peer.name.to_string(),
        state: state(&connected, &peer.name).into(),
        trust_domains: peer.trust_bundles.iter().map(|b| b.trust_domain.to_string()).collect(),
        addresses: encode_addresses(&peer.addresses),
        links_live: links.iter().filter(of_peer).count().try_into().unwrap_or(u32::MAX),
        links_total: links.len().try_into().unwrap_or(u32::MAX),
        rtt_us: links.iter().filter(of_peer).filter_map(|link| link.rtt_us).min(),
        last_error: youngest.map(|error| error.encode()),
        services: imports,
        cordon: None,
        sent: exchanges(view, |cluster| *cluster == peer.name, |with| with.sent),
        received: exchanges(view, |cluster| *cluster == peer.name, |with| with.received),
    }
}

/// What all connected gateways together have in progress.
fn exchanges(
    view: &View,
    with: impl Fn(&ClusterName) -> bool,
    count: impl Fn(&ClusterExchanges) -> u32,
) -> u32 {
    let connected = view.gateways.iter().filter(|gateway| gateway.connected);
    let reports = connected.filter_map(|gateway| gateway.report.as_ref());
    let all = reports.flat_map(|(report, _)| &report.exchanges);
    all.filter(|one| with(&one.cluster)).fold(0, |sum, one| sum.saturating_add(count(one)))
}

/// A gateway that has not reported yet says neither yes nor no.
fn state(connected: &[&GatewayView], cluster: &ClusterName) -> ClusterState {
    let reported = connected.iter().filter(|gateway| gateway.report.is_some());
    let (mut with, mut without) = (0, 0);
    for gateway in reported {
        let is_live = |link: &&Link| link.state == LinkState::Live;
        match links_to(gateway, cluster).find(is_live) {
            Some(_) => with += 1,
            None => without += 1,
        }
    }
    match (with, without) {
        (0, 0) => ClusterState::Unknown,
        (0, _) => ClusterState::Down,
        (_, 0) => ClusterState::Connected,
        _ => ClusterState::Degraded,
    }
}

fn links_to<'a>(
    gateway: &'a GatewayView,
    cluster: &'a ClusterName,
) -> impl Iterator<Item = &'a Link> {
    let links = gateway.report.iter().flat_map(|(report, _)| &report.links);
    links.filter(move |link| link.cluster == *cluster)
}

fn count(view: &View, wanted: impl Fn(&Resource) -> bool) -> u32 {
    let count = view.resources.values().filter(|resource| wanted(resource)).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}
