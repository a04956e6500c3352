//! Members that have just left. They stay peers for a moment, of the nodes and of the gateways: the answer
//! to a leave goes the way that it ends, and who did not get it asks again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::{ClusterId, ClusterPeer};
use tokio::time::Instant;

use crate::limits::LEFT_GRACE;

/// A member as its peers know it.
pub(super) type Peer = (ClusterId, ClusterPeer);

#[derive(Debug, Default)]
pub(super) struct Departed(Mutex<Peers>);

#[derive(Debug, Default)]
struct Peers {
    members: BTreeMap<ClusterId, ClusterPeer>,
    left: BTreeMap<ClusterId, (ClusterPeer, Instant)>,
}

impl Departed {
    /// Takes notice of who are peers now. `has_left` says of others whether they went in peace.
    pub(super) fn follow(
        &self,
        peers: &[Peer],
        has_left: impl Fn(&ClusterId) -> bool,
        now: Instant,
    ) {
        let mut known = self.lock();
        let before = std::mem::replace(&mut known.members, peers.iter().cloned().collect());
        let gone = before.into_iter().filter(|(id, _)| !peers.iter().any(|(other, _)| other == id));
        known.left.extend(gone.map(|(id, peer)| (id, (peer, now + LEFT_GRACE))));
        // Who comes back under the name of one that left takes its place.
        let is_taken = |peer: &ClusterPeer| peers.iter().any(|(_, other)| other.name == peer.name);
        known.left.retain(|id, (peer, until)| *until > now && has_left(id) && !is_taken(peer));
    }

    /// Who is still told that it has left.
    pub(super) fn list(&self) -> Vec<Peer> {
        self.lock().left.iter().map(|(id, (peer, _))| (*id, peer.clone())).collect()
    }

    pub(super) fn clear(&self) {
        *self.lock() = Peers::default();
    }

    fn lock(&self) -> MutexGuard<'_, Peers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: u8, name: &str) -> Peer {
        let peer = ClusterPeer {
            name: name.parse().unwrap(),
            trust_bundles: Vec::new(),
            addresses: Vec::new(),
            cordoned: false,
            revoked_svids: Vec::new(),
        };
        (ClusterId::from_bytes([id; 16]), peer)
    }

    #[test]
    fn who_left_in_peace_is_kept_for_a_moment_and_nobody_else() {
        let (departed, now) = (Departed::default(), Instant::now());
        let (east, west, south) = (peer(1, "east"), peer(2, "west"), peer(3, "south"));
        departed.follow(&[east.clone(), west.clone(), south.clone()], |_| false, now);
        assert!(departed.list().is_empty());
        // South was shut out at the same time.
        departed.follow(std::slice::from_ref(&east), |id| *id == west.0, now);
        assert_eq!(departed.list(), std::slice::from_ref(&west));
        let later = now + LEFT_GRACE / 2;
        departed.follow(std::slice::from_ref(&east), |id| *id == west.0, later);
        assert_eq!(departed.list(), [west]);
        departed.follow(&[east], |_| true, now + LEFT_GRACE);
        assert!(departed.list().is_empty());
    }

    #[test]
    fn who_comes_back_takes_the_place_of_who_left() {
        let (departed, now) = (Departed::default(), Instant::now());
        departed.follow(&[peer(1, "west")], |_| false, now);
        departed.follow(&[], |_| true, now);
        assert_eq!(departed.list().len(), 1);
        departed.follow(&[peer(2, "west")], |_| true, now);
        assert!(departed.list().is_empty());
    }
}
