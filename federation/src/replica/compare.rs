//! What several members say of the same owners, laid side by side: pure, the clock is a parameter.
//!
//! A source can leave out, delay, or tell two readers two stories. Records it cannot forge; so what
//! gives it away is that another member holds a Head, signed by the owner, that does not fit.
//! Only verified Heads come in here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::ClusterId;
use wire::store::{Hash, Mark, Signed};

use super::limits::{HEADS_PER_OWNER_MAX, OWNERS_MAX, TELLERS_MAX, WITHHELD_AFTER};

use super::freshness::Issue;

/// A Head whose signature was verified, with the signed bytes as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenHead {
    pub owner: ClusterId,
    pub issue: Issue,
    pub digest: Hash,
    /// What anybody can verify again.
    pub signed: Signed,
}

/// What the comparison found. Each is told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// The owner signed two contents as one generation.
    SplitView { ours: SeenHead, theirs: SeenHead, told_by: ClusterId },
    /// Others hold a newer generation, and the source has not delivered it in time.
    Withheld {
        known: SeenHead,
        /// `None`: nothing of this owner was delivered at all.
        held: Option<Mark>,
        told_by: Vec<ClusterId>,
        source: ClusterId,
        overdue: Duration,
    },
}

/// The Heads of all owners, from all who told of them.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    owners: BTreeMap<ClusterId, Owner>,
}

#[derive(Debug, Default)]
struct Owner {
    /// What this node's own view has.
    held: Option<Mark>,
    /// The latest ones, by place: what was delivered and what was only heard of.
    heads: BTreeMap<Mark, SeenHead>,
    /// Where others are ahead of this node, at most [`HEADS_PER_OWNER_MAX`] places.
    ahead: BTreeMap<Mark, Ahead>,
    /// The sources that were named for what is behind, and when.
    named: Vec<(ClusterId, Instant)>,
    /// Places at which this owner was already found to have signed twice.
    split: Option<Mark>,
}

#[derive(Debug, Clone)]
struct Ahead {
    /// When this node first heard of it.
    since: Instant,
    told_by: Vec<ClusterId>,
}

impl Comparison {
    /// This node's view has come to hold a Head.
    pub(super) fn hold(&mut self, head: &SeenHead, source: ClusterId) -> Option<Finding> {
        let owner = self.owner(head.owner)?;
        owner.held = Some(head.issue.mark);
        owner.ahead.retain(|mark, _| *mark > head.issue.mark);
        if owner.ahead.is_empty() {
            owner.named.clear();
        }
        owner.note(head, source)
    }

    /// Another member, or the owner's own beacon, told of a Head.
    pub(super) fn tell(&mut self, head: &SeenHead, by: ClusterId, now: Instant) -> Option<Finding> {
        let owner = self.owner(head.owner)?;
        let mark = head.issue.mark;
        if owner.held < Some(mark) {
            owner.ahead(mark, by, now);
        }
        owner.note(head, by)
    }

    /// What `source` is late with.
    pub(super) fn overdue(&mut self, source: ClusterId, now: Instant) -> Vec<Finding> {
        let overdue = |owner: &mut Owner| owner.overdue(source, now);
        self.owners.values_mut().filter_map(overdue).collect()
    }

    /// Whether a source was named since then for what it still has not delivered.
    pub(super) fn named_since(&self, source: ClusterId, since: Instant) -> bool {
        let named = self.owners.values().flat_map(|owner| &owner.named);
        named.into_iter().any(|(named, at)| *named == source && *at >= since)
    }

    /// A new source has the time that the old one had.
    pub(super) fn source_changed(&mut self, now: Instant) {
        for ahead in self.owners.values_mut().flat_map(|owner| owner.ahead.values_mut()) {
            ahead.since = now;
        }
    }

    /// What this node's view has of an owner.
    pub(super) fn held(&self, owner: &ClusterId) -> Option<Mark> {
        self.owners.get(owner)?.held
    }

    /// Forgets owners that are members no more.
    pub(super) fn retain(&mut self, members: impl Fn(&ClusterId) -> bool) {
        self.owners.retain(|owner, _| members(owner));
    }

    fn owner(&mut self, id: ClusterId) -> Option<&mut Owner> {
        let room = self.owners.len() < OWNERS_MAX || self.owners.contains_key(&id);
        room.then(|| self.owners.entry(id).or_default())
    }
}

impl Owner {
    /// Keeps the Head, and says whether another content was signed at its place.
    fn note(&mut self, head: &SeenHead, by: ClusterId) -> Option<Finding> {
        let mark = head.issue.mark;
        match self.heads.get(&mark) {
            Some(known) if known.digest != head.digest => {
                let told = self.split.is_some_and(|split| split >= mark);
                self.split = self.split.max(Some(mark));
                return (!told).then(|| Finding::SplitView {
                    ours: known.clone(),
                    theirs: head.clone(),
                    told_by: by,
                });
            }
            Some(_) => return None,
            None => {}
        }
        self.heads.insert(mark, head.clone());
        while self.heads.len() > HEADS_PER_OWNER_MAX {
            self.heads.pop_first();
        }
        None
    }

    /// Each place has its own time, so that a source that is always a little behind a busy owner is
    /// not taken for one that withholds.
    fn ahead(&mut self, to: Mark, by: ClusterId, now: Instant) {
        if self.ahead.len() >= HEADS_PER_OWNER_MAX && !self.ahead.contains_key(&to) {
            // The lowest has waited longest, the highest is what is known: between them is room.
            self.ahead.pop_last();
        }
        let ahead = self.ahead.entry(to).or_insert(Ahead { since: now, told_by: vec![] });
        if !ahead.told_by.contains(&by) && ahead.told_by.len() < TELLERS_MAX {
            ahead.told_by.push(by);
        }
    }

    fn overdue(&mut self, source: ClusterId, now: Instant) -> Option<Finding> {
        let overdue = now.saturating_duration_since(self.ahead.first_key_value()?.1.since);
        if overdue < WITHHELD_AFTER || !self.may_name(source) {
            return None;
        }
        let (mark, ahead) = self.ahead.last_key_value()?;
        let (known, told_by) = (self.heads.get(mark)?.clone(), ahead.told_by.clone());
        self.named.push((source, now));
        Some(Finding::Withheld { known, held: self.held, told_by, source, overdue })
    }

    fn may_name(&self, source: ClusterId) -> bool {
        self.named.len() < TELLERS_MAX && !self.named.iter().any(|(named, _)| *named == source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUTH: ClusterId = ClusterId::from_bytes([2; 16]);
    const EAST: ClusterId = ClusterId::from_bytes([3; 16]);
    const WEST: ClusterId = ClusterId::from_bytes([4; 16]);
    const NORTH: ClusterId = ClusterId::from_bytes([5; 16]);

    fn head(generation: u64, digest: u8) -> SeenHead {
        let mark = Mark { epoch: 1, generation };
        let issue = Issue { mark, issued_at_unix_ms: 1_000 };
        let payload = vec![generation as u8, digest].into();
        let key_id = model::KeyId::from_bytes([0; 16]);
        let signed = Signed { payload, key_id, signature: [0; 64] };
        SeenHead { owner: SOUTH, issue, digest: [digest; 32], signed }
    }

    #[test]
    fn two_contents_of_one_generation_are_found_whoever_is_ahead() {
        let now = Instant::now();
        // The same generation; one that we are past; one that we do not have yet.
        for (held, told) in [(5, 5), (7, 5), (3, 5)] {
            let mut book = Comparison::default();
            for generation in 1..=held {
                assert_eq!(book.hold(&head(generation, 1), EAST), None);
            }
            if held < told {
                assert_eq!(book.tell(&head(told, 1), WEST, now), None);
            }
            let Some(Finding::SplitView { ours, theirs, told_by }) =
                book.tell(&head(told, 9), NORTH, now)
            else {
                panic!("{held} {told}");
            };
            assert_eq!((ours, theirs, told_by), (head(told, 1), head(told, 9), NORTH));
            // Once is enough, by whomever.
            assert_eq!(book.tell(&head(told, 9), WEST, now), None);
        }
    }

    #[test]
    fn a_head_signed_again_is_no_split() {
        let (mut book, now) = (Comparison::default(), Instant::now());
        book.hold(&head(5, 1), EAST);
        let mut again = head(5, 1);
        again.issue.issued_at_unix_ms += 30_000;
        assert_eq!(book.tell(&again, WEST, now), None);
        assert_eq!(book.overdue(EAST, now + WITHHELD_AFTER * 9), vec![]);
    }

    #[test]
    fn what_others_have_for_30_s_is_withheld() {
        let (mut book, now) = (Comparison::default(), Instant::now());
        book.hold(&head(5, 1), EAST);
        book.tell(&head(6, 1), WEST, now);
        let later = now + Duration::from_secs(20);
        book.tell(&head(7, 1), NORTH, later);
        book.tell(&head(7, 1), NORTH, later);
        assert_eq!(book.overdue(EAST, now + WITHHELD_AFTER - Duration::from_millis(1)), vec![]);
        let found = book.overdue(EAST, now + WITHHELD_AFTER);
        let expected = Finding::Withheld {
            known: head(7, 1),
            held: Some(head(5, 1).issue.mark),
            told_by: vec![NORTH],
            source: EAST,
            overdue: WITHHELD_AFTER,
        };
        assert_eq!(found, vec![expected]);
        assert!(book.named_since(EAST, now + WITHHELD_AFTER));
        assert!(!book.named_since(EAST, now + WITHHELD_AFTER * 2));
        // Named once; the next source gets its own time, then is named too.
        assert_eq!(book.overdue(EAST, now + WITHHELD_AFTER * 2), vec![]);
        let switched = now + WITHHELD_AFTER;
        book.source_changed(switched);
        assert_eq!(book.overdue(WEST, switched), vec![]);
        assert_eq!(book.overdue(WEST, switched + WITHHELD_AFTER).len(), 1);
    }

    #[test]
    fn what_comes_in_time_is_not_withheld() {
        let (mut book, now) = (Comparison::default(), Instant::now());
        book.hold(&head(5, 1), EAST);
        book.tell(&head(6, 1), WEST, now);
        book.hold(&head(6, 1), EAST);
        assert_eq!(book.overdue(EAST, now + WITHHELD_AFTER * 9), vec![]);
        // Nor is what keeps coming, a little later each time.
        for second in 0..120 {
            let then = now + Duration::from_secs(second);
            book.tell(&head(7 + second, 1), WEST, then);
            book.hold(&head(6 + second, 1), EAST);
            assert_eq!(book.overdue(EAST, then), vec![]);
        }
        book.hold(&head(126, 1), EAST);
        // A peer that is behind says nothing about the source.
        book.tell(&head(5, 1), WEST, now);
        assert_eq!(book.overdue(EAST, now + WITHHELD_AFTER * 9), vec![]);
    }

    #[test]
    fn an_owner_of_which_nothing_was_delivered_is_withheld_too() {
        let (mut book, now) = (Comparison::default(), Instant::now());
        book.tell(&head(1, 1), WEST, now);
        let found = book.overdue(EAST, now + WITHHELD_AFTER);
        assert!(matches!(&found[..], [Finding::Withheld { held: None, .. }]), "{found:?}");
    }

    #[test]
    fn an_owner_cannot_fill_the_book() {
        let (mut book, now) = (Comparison::default(), Instant::now());
        for generation in 1..500 {
            book.tell(&head(generation, 1), WEST, now);
        }
        assert_eq!(book.owners[&SOUTH].heads.len(), HEADS_PER_OWNER_MAX);
        book.retain(|_| false);
        assert!(book.owners.is_empty());
    }
}
