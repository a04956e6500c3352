//! Which gateway answered at which address: learned by dialling, forgotten when it goes.

use std::collections::HashMap;
use std::sync::Arc;

use model::{ClusterName, ClusterPeer, GatewayId, PeerAddress};

use crate::limits::GATEWAYS_PER_ADDRESS_MAX;
use crate::tunnel::Shared;

impl Shared {
    pub(crate) fn learn_address(
        &self,
        cluster: &ClusterName,
        address: &PeerAddress,
        gateway: GatewayId,
    ) {
        let key = (cluster.clone(), address.clone());
        let known = |book: &HashMap<_, Vec<GatewayId>>| {
            book.get(&key).is_some_and(|gateways| gateways.contains(&gateway))
        };
        if known(&self.address_book.load()) {
            return;
        }
        self.address_book.rcu(|book| {
            let mut next = HashMap::clone(book);
            if !known(&next) {
                let gateways: &mut Vec<_> = next.entry(key.clone()).or_default();
                if gateways.len() >= GATEWAYS_PER_ADDRESS_MAX {
                    gateways.remove(0); // whoever is there still is met again
                }
                gateways.push(gateway);
            }
            next
        });
        self.changed();
    }

    /// Who said that it goes is not looked for any more; should it come back, it is met again.
    pub(crate) fn unlearn_gateway(&self, gateway: GatewayId) {
        let is_known = |book: &HashMap<_, Vec<GatewayId>>| {
            book.values().any(|gateways| gateways.contains(&gateway))
        };
        if !is_known(&self.address_book.load()) {
            return;
        }
        self.address_book.rcu(|book| {
            let mut next = HashMap::clone(book);
            next.values_mut().for_each(|gateways| gateways.retain(|known| *known != gateway));
            next.retain(|_, gateways| !gateways.is_empty());
            next
        });
    }

    /// Forgets addresses that no peer has any more.
    pub(crate) fn prune_addresses(&self, peers: &[Arc<ClusterPeer>]) {
        let is_current = |cluster: &ClusterName, address: &PeerAddress| {
            peers.iter().any(|peer| peer.name == *cluster && peer.addresses.contains(address))
        };
        self.address_book.rcu(|book| {
            let kept = book.iter().filter(|((cluster, address), _)| is_current(cluster, address));
            kept.map(|(key, gateways)| (key.clone(), gateways.clone())).collect::<HashMap<_, _>>()
        });
    }
}
