//! Which gateways of a peer cluster there are, as far as this gateway knows.

use std::collections::BTreeSet;

use model::{GatewayId, PeerAddress, Transport};
use wire::tunnel::ConnectionClass;

use crate::limits::{ADDRESSES_PER_PEER_MAX, GATEWAYS_PER_CLUSTER_MAX};
use crate::tunnel::{Place, Shared};

use super::choice::{Candidate, Whereabouts};

/// Gateways that a link leads to, that answered at an address, or that others of their cluster name.
/// Who goes is none; nor is who has no link and is named by nobody, once anybody names any.
pub(super) fn candidates(shared: &Shared, place: &Place) -> Vec<Candidate> {
    let Place { cluster, class, worker, .. } = place;
    let links = shared.registry.load();
    let book = shared.address_book.load();
    let peers = shared.peers.borrow().clone();
    let peer = peers.iter().find(|peer| peer.name == *cluster);
    let addresses = peer.into_iter().flat_map(|peer| &peer.addresses);
    let addresses = addresses.filter(|address| address.transport == Transport::Quic);
    let addresses: Vec<_> = addresses.take(ADDRESSES_PER_PEER_MAX).collect();
    let seen_at = |address: &PeerAddress| {
        book.get(&(cluster.clone(), address.clone())).map_or(&[][..], Vec::as_slice)
    };
    let here = seen_at(&place.address);
    let before: Vec<_> =
        addresses.iter().take_while(|address| ***address != place.address).collect();

    let going = links.draining(cluster);
    let linked: BTreeSet<_> =
        links.of_cluster(cluster).iter().filter(|l| l.covers()).map(|l| l.peer.gateway).collect();
    let named = links.named(cluster);
    let is_gone = |gateway: &GatewayId| {
        going.iter().any(|(going, _)| going == gateway)
            || !(named.is_empty() || named.contains(gateway) || linked.contains(gateway))
    };
    let seen = addresses.iter().flat_map(|address| seen_at(address));
    let mut known = BTreeSet::new();
    for gateway in linked.iter().chain(seen).chain(&named) {
        if known.len() < GATEWAYS_PER_CLUSTER_MAX && !is_gone(gateway) {
            known.insert(*gateway);
        }
    }
    let candidate = |gateway: GatewayId| Candidate {
        gateway,
        is_covered: links.covers(cluster, gateway, *class, *worker),
        peer_dials: links.has_accepted(cluster, gateway, *class),
        has_fast: links.covers(cluster, gateway, ConnectionClass::Fast, *worker),
        at: if here.contains(&gateway) {
            let before = before.iter().filter(|address| seen_at(address).contains(&gateway));
            Whereabouts::Here { before: before.count() as u32 }
        } else if addresses.iter().any(|address| seen_at(address).contains(&gateway)) {
            Whereabouts::Elsewhere
        } else {
            Whereabouts::Unknown
        },
    };
    known.into_iter().map(candidate).collect()
}
