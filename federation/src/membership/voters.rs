//! Who votes: 1 voter until the third cluster, then 3, and 5 in a large federation. Pure.

use std::collections::BTreeSet;

use crate::limits::{CLUSTERS_FOR_FIVE_VOTERS, CLUSTERS_FOR_THREE_VOTERS, STANDBYS_MAX};

/// A member that may vote: active, not revoked, not on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Eligible {
    pub(crate) node: u64,
    /// It has answered this node lately.
    pub(crate) reachable: bool,
}

/// The Raft group that there should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) voters: BTreeSet<u64>,
    pub(crate) standbys: BTreeSet<u64>,
}

/// How many voters a federation of so many clusters has.
pub(crate) fn voters_wanted(clusters: usize) -> usize {
    match clusters {
        0..CLUSTERS_FOR_THREE_VOTERS => 1,
        CLUSTERS_FOR_THREE_VOTERS..CLUSTERS_FOR_FIVE_VOTERS => 3,
        _ => 5,
    }
}

/// The group as the leader `own` should make it; unchanged when nobody could vote.
///
/// `eligible` is in order of admission. A voter that is down stays one: only a member that leaves,
/// is removed or revoked is replaced, since a replacement for every outage would move the quorum
/// around. An even number of voters outlives no more failures than the next lower odd one and has
/// more to lose, so it is never chosen.
pub(crate) fn plan(own: u64, eligible: &[Eligible], now: &Group, named: &[u64]) -> Group {
    let voting = |member: &&Eligible| now.voters.contains(&member.node);
    let up = |member: &&Eligible| member.reachable || member.node == own;
    let spare = |member: &&Eligible| now.standbys.contains(&member.node);
    // From the surest to the last resort; one who does not vote yet must be up to begin.
    let in_order = (eligible.iter().filter(voting).filter(|member| member.node == own))
        .chain(eligible.iter().filter(voting).filter(up))
        .chain(eligible.iter().filter(voting))
        .chain(eligible.iter().filter(spare).filter(up))
        .chain(eligible.iter().filter(up));
    let mut chosen: Vec<u64> = Vec::new();
    for member in in_order {
        if !chosen.contains(&member.node) {
            chosen.push(member.node);
        }
    }
    chosen.truncate(voters_wanted(eligible.len()));
    if chosen.is_empty() {
        return now.clone();
    }
    if chosen.len().is_multiple_of(2) {
        chosen.pop();
    }
    let is_eligible = |node: &&u64| eligible.iter().any(|member| member.node == **node);
    let standbys = named.iter().filter(is_eligible).filter(|node| !chosen.contains(node));
    let standbys = standbys.take(STANDBYS_MAX).copied().collect();
    Group { voters: chosen.into_iter().collect(), standbys }
}

/// Whether the voters that stay are too few to let the others go.
pub(crate) fn loses_quorum(voters: &[u64], stays: impl Fn(u64) -> bool) -> bool {
    voters.iter().filter(|node| stays(**node)).count() * 2 <= voters.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(spec: &[(u64, bool)]) -> Vec<Eligible> {
        spec.iter()
            .map(|(node, reachable)| Eligible { node: *node, reachable: *reachable })
            .collect()
    }

    fn group(voters: &[u64], standbys: &[u64]) -> Group {
        Group {
            voters: voters.iter().copied().collect(),
            standbys: standbys.iter().copied().collect(),
        }
    }

    #[test]
    fn voters_grow_with_the_third_and_the_seventh_cluster() {
        let all: Vec<Eligible> = (1..=9).map(|node| Eligible { node, reachable: true }).collect();
        let mut now = group(&[1], &[]);
        let mut sizes = Vec::new();
        for clusters in 1..=9 {
            now = plan(1, &all[..clusters], &now, &[]);
            sizes.push(now.voters.len());
        }
        assert_eq!(sizes, [1, 1, 3, 3, 3, 3, 5, 5, 5]);
        // The elder ones vote; the fourth, as the eighth, is a Replica.
        assert_eq!(now.voters, BTreeSet::from([1, 2, 3, 4, 5]));
    }

    #[test]
    fn plans_for_changes() {
        let up = true;
        let down = false;
        // (who is there, voters now, standbys now, named) -> voters, standbys
        type Row<'a> = (&'a [(u64, bool)], &'a [u64], &'a [u64], &'a [u64], &'a [u64], &'a [u64]);
        let rows: &[(&str, Row<'_>)] = &[
            (
                "the third is not up: stay",
                (&[(1, up), (2, up), (3, down)], &[1], &[], &[], &[1], &[]),
            ),
            (
                "a dead voter stays",
                (&[(1, up), (2, down), (3, up), (4, up)], &[1, 2, 3], &[], &[], &[1, 2, 3], &[]),
            ),
            (
                "one left, the fourth takes over",
                (&[(1, up), (3, up), (4, up)], &[1, 2, 3], &[], &[], &[1, 3, 4], &[]),
            ),
            (
                "one left, nobody can take over",
                (&[(1, up), (3, up)], &[1, 2, 3], &[], &[], &[1], &[]),
            ),
            (
                "one left, the fourth is down",
                (&[(1, up), (3, up), (4, down)], &[1, 2, 3], &[], &[], &[1], &[]),
            ),
            (
                "the leader itself leaves: one that is up stays",
                (&[(2, down), (3, up)], &[1, 2, 3], &[], &[], &[3], &[]),
            ),
            ("the one voter leaves: another takes over", (&[(2, up)], &[1], &[], &[], &[2], &[])),
            (
                "a standby is the first to take over",
                (&[(1, up), (3, up), (4, up), (5, up)], &[1, 2, 3], &[5], &[5], &[1, 3, 5], &[]),
            ),
            (
                "named standbys only",
                (
                    &[(1, up), (2, up), (3, up), (4, up), (5, up)],
                    &[1, 2, 3],
                    &[5],
                    &[4, 1, 99],
                    &[1, 2, 3],
                    &[4],
                ),
            ),
            (
                "five of seven, one left: three",
                (
                    &[(1, up), (2, up), (3, up), (4, up), (6, down), (7, down)],
                    &[1, 2, 3, 4, 5],
                    &[],
                    &[],
                    &[1, 2, 3],
                    &[],
                ),
            ),
        ];
        for (what, (there, voters, standbys, named, wanted, spare)) in rows {
            let got = plan(1, &members(there), &group(voters, standbys), named);
            assert_eq!(got, group(wanted, spare), "{what}");
        }
    }

    #[test]
    fn most_of_the_voters_must_stay() {
        let rows: [(&[u64], &[u64], bool); 6] = [
            (&[1], &[], false),
            (&[1], &[1], true),
            (&[1, 2, 3], &[2], false),
            (&[1, 2, 3], &[2, 3], true),
            (&[1, 2, 3, 4, 5], &[2, 3, 9], false),
            (&[1, 2, 3, 4, 5], &[2, 3, 4], true),
        ];
        for (voters, gone, lost) in rows {
            assert_eq!(loses_quorum(voters, |node| !gone.contains(&node)), lost, "{gone:?}");
        }
    }

    #[test]
    fn a_plan_is_its_own_successor() {
        for mask in 0_u64..128 {
            let there: Vec<Eligible> = (1..=7)
                .map(|node| Eligible { node, reachable: mask >> (node - 1) & 1 == 1 })
                .collect();
            let first = plan(1, &there, &group(&[1], &[]), &[6, 7]);
            assert_eq!(plan(1, &there, &first, &[6, 7]), first, "{mask:b}");
            assert_eq!(first.voters.len() % 2, 1);
        }
    }
}
