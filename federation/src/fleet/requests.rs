//! The latest requests, so that a command which is sent again is not carried out again.

use std::collections::BTreeMap;

use model::Revision;

use super::limits::REQUESTS_MAX;

pub(super) type RequestId = [u8; 16];

/// Ids of accepted commands, and where each was applied. The oldest are forgotten.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests {
    revisions: BTreeMap<RequestId, Revision>,
    ids: BTreeMap<Revision, RequestId>,
}

impl Requests {
    pub(super) fn get(&self, id: &RequestId) -> Option<Revision> {
        self.revisions.get(id).copied()
    }

    /// Returns the revision that is forgotten for this one.
    pub(super) fn insert(&mut self, id: RequestId, revision: Revision) -> Option<Revision> {
        self.revisions.insert(id, revision);
        self.ids.insert(revision, id);
        if self.ids.len() <= REQUESTS_MAX {
            return None;
        }
        let (oldest, id) = self.ids.pop_first()?;
        self.revisions.remove(&id);
        Some(oldest)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Revision, &RequestId)> {
        self.ids.iter().map(|(revision, id)| (*revision, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_and_only_that() {
        let mut requests = Requests::default();
        let id = |n: usize| (n as u128).to_be_bytes();
        let revision = |n: usize| Revision { epoch: 1, index: n as u64 };
        for n in 1..=REQUESTS_MAX {
            assert_eq!(requests.insert(id(n), revision(n)), None);
        }
        assert_eq!(requests.insert(id(0), revision(REQUESTS_MAX + 1)), Some(revision(1)));
        assert_eq!(requests.get(&id(1)), None);
        assert_eq!(requests.get(&id(2)), Some(revision(2)));
        assert_eq!(requests.get(&id(0)), Some(revision(REQUESTS_MAX + 1)));
        assert_eq!(requests.iter().count(), REQUESTS_MAX);
    }
}
