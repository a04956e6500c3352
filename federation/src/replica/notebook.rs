//! What was noticed about owners and sources: a bounded list, on disk, for operators.

use std::collections::VecDeque;

use wire::replica::KeptFinding;

use super::limits::FINDINGS_MAX;

/// The findings, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Notebook {
    entries: VecDeque<(u64, KeptFinding)>,
    next: u64,
}

impl Notebook {
    pub(crate) fn restore(entries: Vec<(u64, KeptFinding)>) -> Self {
        let next = entries.last().map_or(0, |(number, _)| number + 1);
        Self { entries: entries.into(), next }
    }

    /// The number under which the finding is to be kept; `None` if the same was noticed before. One
    /// who lies again and again fills no disk and pushes no other evidence out.
    pub(crate) fn add(&mut self, finding: &KeptFinding) -> Option<u64> {
        let same = |(_, known): &(u64, KeptFinding)| {
            known.code == finding.code
                && known.owner == finding.owner
                && known.source == finding.source
        };
        if self.entries.iter().any(same) {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.entries.push_back((number, finding.clone()));
        while self.entries.len() > FINDINGS_MAX {
            self.entries.pop_front();
        }
        Some(number)
    }

    pub(crate) fn all(&self) -> Vec<KeptFinding> {
        self.entries.iter().map(|(_, finding)| finding.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use model::ClusterId;
    use model::code::{RECORDS_WITHHELD, SPLIT_VIEW};

    use super::*;

    fn finding(owner: u8, source: u8) -> KeptFinding {
        KeptFinding {
            noticed_at_unix_ms: 1,
            code: RECORDS_WITHHELD,
            owner: Some(ClusterId::from_bytes([owner; 16])),
            source: Some(ClusterId::from_bytes([source; 16])),
            told_by: vec![],
            text: "late".into(),
            evidence: vec![],
        }
    }

    #[test]
    fn the_same_is_noted_once() {
        let mut book = Notebook::default();
        assert_eq!(book.add(&finding(1, 1)), Some(0));
        let again = KeptFinding { text: "later".into(), ..finding(1, 1) };
        assert_eq!(book.add(&again), None);
        assert_eq!(book.add(&finding(1, 2)), Some(1));
        let split = KeptFinding { code: SPLIT_VIEW, ..finding(1, 1) };
        assert_eq!(book.add(&split), Some(2));
        assert_eq!(book.all().len(), 3);
    }

    #[test]
    fn it_is_bounded_and_goes_on_counting_after_a_restart() {
        let mut book = Notebook::default();
        for owner in 0..=255 {
            assert!(book.add(&finding(owner, 1)).is_some());
        }
        assert_eq!(book.all().len(), FINDINGS_MAX);
        let mut again = Notebook::restore(book.entries.into());
        assert_eq!(again.add(&finding(255, 1)), None);
        assert_eq!(again.add(&finding(255, 2)), Some(256));
    }
}
