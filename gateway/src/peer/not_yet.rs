//! "Not yet": a destination that is behind a producer route's revision asks the source to come
//! back, for a short while (DESIGN §4).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::{ClusterName, Revision};

use crate::limits::{NOT_YET_MAX, NOT_YET_PEERS_MAX};

/// Since when peers have demanded revisions that are not here.
#[derive(Debug, Default)]
pub struct NotYet(Mutex<HashMap<ClusterName, Demand>>);

#[derive(Debug)]
struct Demand {
    revision: Revision,
    since: Duration,
}

impl NotYet {
    /// Whether to answer "not yet". Touches the table only when the demanded revision is missing,
    /// so the usual case takes no lock.
    pub fn applies(
        &self,
        peer: &ClusterName,
        demanded: Revision,
        own: Revision,
        now: Duration,
    ) -> bool {
        if demanded <= own {
            return false;
        }
        let mut demands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !demands.contains_key(peer) && demands.len() >= NOT_YET_PEERS_MAX {
            return false; // serve with what is here, rather than grow
        }
        let demand =
            demands.entry(peer.clone()).or_insert(Demand { revision: demanded, since: now });
        // What was demanded first may be here by now; then the wait for the newer one begins.
        if demand.revision <= own {
            *demand = Demand { revision: demanded, since: now };
        }
        now.saturating_sub(demand.since) < NOT_YET_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_says_not_yet_for_two_seconds_and_then_serves() {
        let not_yet = NotYet::default();
        let east = ClusterName::parse("east").unwrap();
        let at = |index| Revision { epoch: 1, index };
        let seconds = Duration::from_secs;
        assert!(!not_yet.applies(&east, at(5), at(5), seconds(0)));
        assert!(not_yet.applies(&east, at(6), at(5), seconds(1)));
        assert!(
            not_yet.applies(&east, at(7), at(5), seconds(2)),
            "a newer demand starts no new wait"
        );
        assert!(!not_yet.applies(&east, at(7), at(5), seconds(3)), "served with what is here");
        assert!(not_yet.applies(&east, at(7), at(6), seconds(3)), "6 came, the wait for 7 begins");
        assert!(!not_yet.applies(&east, at(7), at(7), seconds(4)));
        let west = ClusterName::parse("west").unwrap();
        assert!(not_yet.applies(&west, at(9), at(7), seconds(9)), "each peer waits for itself");
    }
}
