//! What federation nodes tell each other through their gateways: Heads and revocations ride in HELLO
//! and beacons. A gateway does not judge them; it passes on what its node gave it, and passes up
//! what peers say, both bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use model::{ClusterName, GatewayId};
use tokio::sync::Notify;
use wire::tunnel::limits::{BEACON_HEADS_MAX, BEACON_REVOCATIONS_MAX, SIBLINGS_MAX};

use crate::limits::{HEARD_CLUSTERS_MAX, HEARD_HEADS_MAX, HEARD_REVOCATIONS_MAX};

/// What peers are to be told, whole each time; signed envelopes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// The own cluster's Head first: it is in each HELLO.
    pub heads: Vec<Bytes>,
    pub revocations: Vec<Bytes>,
}

/// What gateways of a peer cluster have said since the last look. Nobody has judged it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub cluster: ClusterName,
    pub heads: Vec<Bytes>,
    pub revocations: Vec<Bytes>,
}

/// Both directions, for all workers.
#[derive(Debug, Default)]
pub(crate) struct Gossip {
    told: ArcSwap<Told>,
    siblings: ArcSwap<Siblings>,
    heard: Mutex<BTreeMap<ClusterName, Heard>>,
    arrived: Notify,
}

/// The news with a number for each item, so that a connection knows what it has told already.
#[derive(Debug, Default)]
pub(crate) struct Told {
    own_head: Bytes,
    /// In the order of their numbers, which never repeat.
    heads: Vec<(u64, Bytes)>,
    revocations: Vec<(u64, Bytes)>,
    last: u64,
}

/// The gateways of the own cluster that serve, ascending, with a number that grows with each change.
#[derive(Debug, Default)]
pub(crate) struct Siblings {
    pub(crate) ids: Vec<GatewayId>,
    pub(crate) version: u64,
}

/// How far a connection's peer was told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    heads: u64,
    revocations: u64,
}

impl Gossip {
    pub(crate) fn own_head(&self) -> Bytes {
        self.told.load().own_head.clone()
    }

    pub(crate) fn siblings(&self) -> Arc<Siblings> {
        self.siblings.load_full()
    }

    /// `true`: they are others than before. An empty list changes nothing: whoever cannot say who
    /// serves leaves it at what was said last. One task calls it.
    pub(crate) fn set_siblings(&self, ids: BTreeSet<GatewayId>) -> bool {
        let ids: Vec<_> = ids.into_iter().take(SIBLINGS_MAX).collect();
        let before = self.siblings.load();
        if ids.is_empty() || before.ids == ids {
            return false;
        }
        let version = before.version + 1;
        self.siblings.store(Arc::new(Siblings { ids, version }));
        true
    }

    pub(crate) fn told(&self) -> Arc<Told> {
        self.told.load_full()
    }

    /// Only what is new gets a new number, and is told again. One task calls it.
    pub(crate) fn tell(&self, news: News) {
        let before = self.told.load_full();
        let mut last = before.last;
        let own_head = news.heads.first().cloned().unwrap_or_default();
        let heads = numbered(news.heads, &before.heads, &mut last);
        let revocations = numbered(news.revocations, &before.revocations, &mut last);
        self.told.store(Arc::new(Told { own_head, heads, revocations, last }));
    }

    /// Keeps what a peer said until it is passed up; beyond the limits it is left out, and comes
    /// again with the next Head.
    pub(crate) fn hear(&self, cluster: &ClusterName, heads: &[Bytes], revocations: &[Bytes]) {
        if heads.iter().chain(revocations).all(Bytes::is_empty) {
            return;
        }
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() >= HEARD_CLUSTERS_MAX && !heard.contains_key(cluster) {
            return;
        }
        let entry = heard.entry(cluster.clone()).or_insert_with(|| Heard {
            cluster: cluster.clone(),
            heads: Vec::new(),
            revocations: Vec::new(),
        });
        keep(&mut entry.heads, heads, HEARD_HEADS_MAX);
        keep(&mut entry.revocations, revocations, HEARD_REVOCATIONS_MAX);
        drop(heard);
        self.arrived.notify_one();
    }

    /// Waits for what any peer says; one task calls it.
    pub(crate) async fn heard(&self) -> Heard {
        loop {
            let arrived = self.arrived.notified();
            let first = self.heard.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
            if let Some((_, heard)) = first {
                return heard;
            }
            arrived.await;
        }
    }
}

fn numbered(items: Vec<Bytes>, before: &[(u64, Bytes)], last: &mut u64) -> Vec<(u64, Bytes)> {
    let known: BTreeMap<&Bytes, u64> =
        before.iter().map(|(number, item)| (item, *number)).collect();
    let mut next: Vec<_> = items
        .into_iter()
        .map(|item| {
            let number = known.get(&item).copied().unwrap_or_else(|| {
                *last += 1;
                *last
            });
            (number, item)
        })
        .collect();
    next.sort_by_key(|(number, _)| *number);
    next
}

fn keep(kept: &mut Vec<Bytes>, said: &[Bytes], max: usize) {
    for item in said {
        if kept.len() < max && !item.is_empty() && !kept.contains(item) {
            // A chunk of its own: the packet's buffer need not wait with it.
            kept.push(Bytes::copy_from_slice(item));
        }
    }
}

impl Told {
    /// What the next beacon carries to a peer that was told as far as `cursor`, and how far it is
    /// told then.
    pub(crate) fn after(&self, cursor: Cursor) -> (Vec<Bytes>, Vec<Bytes>, Cursor) {
        let (heads, heads_at) = next(&self.heads, cursor.heads, BEACON_HEADS_MAX);
        let (revocations, revocations_at) =
            next(&self.revocations, cursor.revocations, BEACON_REVOCATIONS_MAX);
        (heads, revocations, Cursor { heads: heads_at, revocations: revocations_at })
    }

    pub(crate) fn has_after(&self, cursor: Cursor) -> bool {
        let is_new = |items: &[(u64, Bytes)], at| items.last().is_some_and(|(n, _)| *n > at);
        is_new(&self.heads, cursor.heads) || is_new(&self.revocations, cursor.revocations)
    }
}

fn next(items: &[(u64, Bytes)], at: u64, max: usize) -> (Vec<Bytes>, u64) {
    let from = items.partition_point(|(number, _)| *number <= at);
    let chosen = &items[from..items.len().min(from + max)];
    let reached = chosen.last().map_or(at, |(number, _)| *number);
    (chosen.iter().map(|(_, item)| item.clone()).collect(), reached)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn bytes(texts: &[&str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect()
    }

    #[test]
    fn only_what_is_new_is_told_again() {
        let gossip = Gossip::default();
        assert!(!gossip.told().has_after(Cursor::default()));
        gossip.tell(News { heads: bytes(&["own1", "west"]), revocations: bytes(&["r"]) });
        assert_eq!(gossip.own_head(), "own1");
        let (heads, revocations, cursor) = gossip.told().after(Cursor::default());
        assert_eq!((heads, revocations), (bytes(&["own1", "west"]), bytes(&["r"])));
        assert!(!gossip.told().has_after(cursor));
        gossip.tell(News { heads: bytes(&["own2", "west"]), revocations: bytes(&["r"]) });
        let (heads, revocations, cursor) = gossip.told().after(cursor);
        assert_eq!((heads, revocations), (bytes(&["own2"]), vec![]));
        gossip.tell(News::default());
        assert!(!gossip.told().has_after(cursor));
        gossip.tell(News { heads: bytes(&["own2"]), revocations: vec![] });
        assert!(gossip.told().has_after(cursor), "it was gone in between");
    }

    #[test]
    fn siblings_are_kept_while_nobody_says_better() {
        let gossip = Gossip::default();
        let ids = |count: u8| (0..count).map(|n| GatewayId::from_bytes([n; 16])).collect();
        assert!(gossip.set_siblings(ids(2)));
        assert!(!gossip.set_siblings(ids(2)) && !gossip.set_siblings(ids(0)));
        assert_eq!((gossip.siblings().ids.len(), gossip.siblings().version), (2, 1));
        assert!(gossip.set_siblings(ids(200)));
        assert_eq!((gossip.siblings().ids.len(), gossip.siblings().version), (SIBLINGS_MAX, 2));
    }

    #[test]
    fn what_does_not_fit_a_beacon_comes_with_the_next() {
        let gossip = Gossip::default();
        let names: Vec<_> = (0..BEACON_HEADS_MAX + 3).map(|n| format!("{n:02}")).collect();
        let heads = bytes(&names.iter().map(String::as_str).collect::<Vec<_>>());
        gossip.tell(News { heads: heads.clone(), revocations: vec![] });
        let told = gossip.told();
        let (first, _, cursor) = told.after(Cursor::default());
        assert!(told.has_after(cursor));
        let (second, _, cursor) = told.after(cursor);
        assert!(!told.has_after(cursor));
        assert_eq!([first, second].concat(), heads);
    }

    #[tokio::test]
    async fn what_is_heard_waits_within_limits() {
        let gossip = Gossip::default();
        let west = ClusterName::parse("west").unwrap();
        gossip.hear(&west, &[Bytes::new()], &[]);
        assert!(gossip.heard().now_or_never().is_none());
        let heads: Vec<_> =
            (0..HEARD_HEADS_MAX + 9).map(|n| Bytes::from(format!("head {n}"))).collect();
        gossip.hear(&west, &heads, &[]);
        gossip.hear(&west, &heads, &bytes(&["r", "r"]));
        let heard = gossip.heard().await;
        assert_eq!(heard.heads, heads[..HEARD_HEADS_MAX]);
        assert_eq!(heard.revocations, bytes(&["r"]));
        for n in 0..HEARD_CLUSTERS_MAX + 5 {
            let name = ClusterName::parse(&format!("c{n}")).unwrap();
            gossip.hear(&name, &bytes(&["h"]), &[]);
        }
        assert_eq!(gossip.heard.lock().unwrap().len(), HEARD_CLUSTERS_MAX);
    }
}
