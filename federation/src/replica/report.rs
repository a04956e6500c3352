//! What `fedctl store verify --all` shows: this node's state checked again, and every member's Heads
//! beside its own. Pure: the answers are parameters.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{ClusterId, ClusterName, Revision};
use wire::replica::KeptFinding;
use wire::store::Mark;

use super::compare::SeenHead;
use super::freshness::{OwnerAge, Standing};

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    pub revision: Revision,
    /// Every signature, digest and high-water mark of the local state: the number of records that
    /// were checked, or what is wrong.
    pub local: Result<usize, String>,
    pub owners: Vec<OwnerReport>,
    pub members: Vec<MemberReport>,
    /// What was noticed up to now, oldest first.
    pub findings: Vec<KeptFinding>,
}

/// One owner, as all who answered see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerReport {
    pub owner: ClusterId,
    pub name: ClusterName,
    /// What this node holds.
    pub held: Option<Mark>,
    pub records: usize,
    pub age: Option<Duration>,
    pub standing: Standing,
    /// Members that hold the same generation with the same digest.
    pub agree: Vec<ClusterId>,
    /// Members that hold an older generation: they lag, or are kept behind.
    pub behind: Vec<ClusterId>,
    /// Members that hold a newer one: this node lags, or is kept behind.
    pub ahead: Vec<ClusterId>,
    /// Members that hold another content under a generation that this node knows, too.
    pub differ: Vec<ClusterId>,
    /// Members that answered without a word of this owner.
    pub silent: Vec<ClusterId>,
}

impl OwnerReport {
    pub fn is_well(&self) -> bool {
        self.differ.is_empty() && self.ahead.is_empty() && self.standing == Standing::Fresh
    }
}

/// One member that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberReport {
    pub member: ClusterId,
    pub name: ClusterName,
    /// How long the answer took and how many Heads it had, or why there is none.
    pub outcome: Result<(Duration, usize), String>,
    /// Heads of its answer whose signature does not hold.
    pub refused: Vec<String>,
}

impl VerifyReport {
    pub fn is_well(&self) -> bool {
        let heard = |member: &MemberReport| member.outcome.is_ok() && member.refused.is_empty();
        self.local.is_ok()
            && self.owners.iter().all(OwnerReport::is_well)
            && self.members.iter().all(heard)
    }
}

/// What this node holds of an owner.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) owner: ClusterId,
    pub(crate) name: ClusterName,
    pub(crate) head: Option<SeenHead>,
    pub(crate) records: usize,
}

/// Lays the answers side by side.
pub(crate) fn owner_reports(
    held: &[Held],
    ages: &[OwnerAge],
    told: &BTreeMap<ClusterId, Vec<SeenHead>>,
) -> Vec<OwnerReport> {
    let report = |held: &Held| {
        let age = ages.iter().find(|age| age.owner == held.owner);
        let mut report = OwnerReport {
            owner: held.owner,
            name: held.name.clone(),
            held: held.head.as_ref().map(|head| head.issue.mark),
            records: held.records,
            age: age.map(|age| age.age),
            standing: age.map_or(Standing::Stale, |age| age.standing),
            agree: vec![],
            behind: vec![],
            ahead: vec![],
            differ: vec![],
            silent: vec![],
        };
        for (member, heads) in told {
            let theirs = heads.iter().find(|head| head.owner == held.owner);
            report.place(*member, held.head.as_ref(), theirs);
        }
        report
    };
    held.iter().map(report).collect()
}

impl OwnerReport {
    fn place(&mut self, member: ClusterId, ours: Option<&SeenHead>, theirs: Option<&SeenHead>) {
        let list = match (ours, theirs) {
            (None, None) => return,
            (Some(_), None) => &mut self.silent,
            (None, Some(_)) => &mut self.ahead,
            (Some(ours), Some(theirs)) => match ours.issue.mark.cmp(&theirs.issue.mark) {
                std::cmp::Ordering::Less => &mut self.ahead,
                std::cmp::Ordering::Greater => &mut self.behind,
                std::cmp::Ordering::Equal if ours.digest == theirs.digest => &mut self.agree,
                std::cmp::Ordering::Equal => &mut self.differ,
            },
        };
        list.push(member);
    }
}

#[cfg(test)]
mod tests {
    use super::super::freshness::Issue;
    use super::*;

    const SOUTH: ClusterId = ClusterId::from_bytes([2; 16]);

    fn head(generation: u64, digest: u8) -> SeenHead {
        let issue = Issue { mark: Mark { epoch: 1, generation }, issued_at_unix_ms: 1 };
        let key_id = model::KeyId::from_bytes([0; 16]);
        let signed = wire::store::Signed { payload: vec![].into(), key_id, signature: [0; 64] };
        SeenHead { owner: SOUTH, issue, digest: [digest; 32], signed }
    }

    fn member(number: u8) -> ClusterId {
        ClusterId::from_bytes([number; 16])
    }

    #[test]
    fn each_answer_is_in_one_list() {
        let name = ClusterName::parse("south").unwrap();
        let held = Held { owner: SOUTH, name, head: Some(head(5, 1)), records: 3 };
        let told = BTreeMap::from([
            (member(11), vec![head(5, 1)]),
            (member(12), vec![head(4, 1)]),
            (member(13), vec![head(6, 1)]),
            (member(14), vec![head(5, 9)]),
            (member(15), vec![]),
        ]);
        let issue = head(5, 1).issue;
        let (age, standing) = (Duration::from_secs(1), Standing::Fresh);
        let ages = [OwnerAge { owner: SOUTH, issue, age, standing, live_tunnel: false }];
        let report = owner_reports(&[held], &ages, &told).remove(0);
        assert_eq!(report.agree, [member(11)]);
        assert_eq!(report.behind, [member(12)]);
        assert_eq!(report.ahead, [member(13)]);
        assert_eq!(report.differ, [member(14)]);
        assert_eq!(report.silent, [member(15)]);
        assert!(!report.is_well());
        let well = OwnerReport { ahead: vec![], differ: vec![], ..report.clone() };
        assert!(well.is_well());
        assert!(!OwnerReport { standing: Standing::Stale, ..well }.is_well());
    }

    #[test]
    fn an_owner_of_which_only_others_know_is_ahead() {
        let name = ClusterName::parse("south").unwrap();
        let held = Held { owner: SOUTH, name, head: None, records: 0 };
        let told = BTreeMap::from([(member(11), vec![head(1, 1)]), (member(12), vec![])]);
        let report = owner_reports(&[held], &[], &told).remove(0);
        assert_eq!((report.held, report.ahead), (None, vec![member(11)]));
        assert!(report.silent.is_empty());
    }
}
