//! Writes through every node, while leadership is handed over and leaders are stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use federation::membership::{
    Membership, MembershipError, Mode, StoreRole, TokenRequest, TokenState,
};
use tokio::task::JoinHandle;
use wire::store::TokenId;

use super::site::{Cluster, federation, request, stop_all};
use crate::fixture::until;

/// Rounds of a hand-over and a stop.
const ROUNDS: usize = 3;
/// Writes that are to be acknowledged between two changes.
const WRITES: usize = 6;

/// What all writers were told is written, and where each of them writes at the moment.
#[derive(Default)]
struct Load {
    /// Tokens that were issued, and whether it was acknowledged that they were revoked.
    acknowledged: Mutex<BTreeMap<TokenId, bool>>,
    count: AtomicUsize,
    ended: AtomicBool,
}

impl Load {
    fn note(&self, id: TokenId, revoked: bool) {
        let mut all = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(all.insert(id, revoked).is_some(), revoked);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn writer(self: &Arc<Self>, membership: Membership, name: &'static str) -> JoinHandle<()> {
        let load = self.clone();
        tokio::spawn(async move {
            let wanted = TokenRequest {
                lifetime: Some(Duration::from_secs(3600)),
                // What every member may grant.
                delegation_depth: 1,
                force: true,
                ..request(name)
            };
            while !load.ended.load(Ordering::Relaxed) {
                let token = match membership.issue_token(wanted.clone()).await {
                    Ok(token) => token,
                    // A writer that may not write would leave all the work to the others.
                    Err(error @ MembershipError::Refused { .. }) => panic!("{name}: {error}"),
                    // What is not acknowledged may be there or not.
                    Err(_) => continue,
                };
                load.note(token.id, false);
                // So that there are never too many open ones.
                if membership.revoke_token(token.id).await.is_ok() {
                    load.note(token.id, true);
                }
            }
        })
    }

    /// Writes go on: so many more are acknowledged.
    async fn until_more(&self, what: &str) {
        let start = self.count.load(Ordering::Relaxed);
        let count = || async { self.count.load(Ordering::Relaxed) };
        until(&format!("writes {what}"), count, |now| *now >= start + WRITES).await;
    }
}

async fn leader(clusters: &[Cluster]) -> usize {
    let leads = |cluster: &Cluster| {
        let status = cluster.membership().store_status();
        status.is_ok_and(|status| status.role == StoreRole::Leader)
    };
    let found = || async { clusters.iter().position(leads) };
    until("a leader", found, Option::is_some).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_while_leaders_change() {
    let mut clusters = federation(&["east", "west", "south"]).await;
    for cluster in &clusters {
        cluster.until_mode(Mode::Member).await;
    }
    let load = Arc::new(Load::default());
    let names = ["one", "two", "three"];
    let mut writers: Vec<JoinHandle<()>> = Vec::new();
    for (cluster, name) in clusters.iter().zip(names) {
        writers.push(load.writer(cluster.membership(), name));
    }
    let mut terms = BTreeSet::new();
    for round in 0..ROUNDS {
        load.until_more("before a hand-over").await;
        let old = leader(&clusters).await;
        let heir = clusters[(old + 1 + round % 2) % 3].name.clone();
        // Under load it may be refused, or another be elected meanwhile: then it is asked for again.
        let hand_over = || async {
            let leads = leader(&clusters).await;
            if clusters[leads].name == heir {
                return true;
            }
            clusters[leads].membership().transfer(Some(&heir)).await.is_ok()
        };
        until("a hand-over", hand_over, |done| *done).await;
        load.until_more("after a hand-over").await;
        let old = leader(&clusters).await;
        terms.insert(clusters[old].membership().store_status().unwrap().term);
        // Its writer goes down with it.
        writers[old].abort();
        let _ = (&mut writers[old]).await;
        clusters[old].stop_node().await;
        load.until_more("without the old leader").await;
        clusters[old].start_node().await;
        writers[old] = load.writer(clusters[old].membership(), names[old]);
    }
    load.until_more("at the end").await;
    load.ended.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(terms.len(), ROUNDS, "leaders did change: {terms:?}");
    let acknowledged = load.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(acknowledged.values().filter(|revoked| **revoked).count() >= ROUNDS * WRITES);
    for cluster in &clusters {
        let membership = cluster.membership();
        let missing = || async {
            let rows = membership.tokens().unwrap_or_default();
            let state = |id| rows.iter().find(|row| row.id == id).map(|row| row.state);
            let is_missing = |(id, revoked): &(&TokenId, &bool)| match state(**id) {
                Some(state) => **revoked && state != TokenState::Revoked,
                None => true,
            };
            acknowledged.iter().filter(is_missing).count()
        };
        until(&format!("every write at {}", cluster.name), missing, |count| *count == 0).await;
    }
    stop_all(clusters).await;
}
