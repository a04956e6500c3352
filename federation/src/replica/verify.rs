//! `fedctl store verify --all`: checks the node's own state again, and asks every member that can be
//! reached what it holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::ClusterId;
use wire::store::Member;

use crate::fleet::{Fleet, Owner, VerifiedView};

use super::client::Links;
use super::gossip::{self, Answer};
use super::heads;
use super::observer::{Now, Observer};
use super::report::{Held, MemberReport, VerifyReport, owner_reports};
use super::state::Replica;

impl Replica {
    /// Verifies what lies on the disk, not what is in memory, and lays every member's Heads beside
    /// it.
    pub async fn verify_all(&self, links: &dyn Links) -> VerifyReport {
        let (shelf, own, federation) = (self.shelf().clone(), self.own(), self.federation());
        let check = move || {
            let federation = federation.ok_or("this node is in no federation")?;
            let (pairs, _) = shelf.state().map_err(|error| error.to_string())?;
            let view = VerifiedView::load(own, federation, pairs);
            let view = view.map_err(|error| error.to_string())?;
            Ok(view.fleet().owners().flat_map(Owner::records).count())
        };
        let checked = tokio::task::spawn_blocking(check).await;
        let local = checked.unwrap_or_else(|error| Err(format!("the check ended badly: {error}")));
        verify_all(self.observer(), links, &self.state(), local).await
    }
}

/// The same for any node: `local` is how many records of its own state were verified again, or what
/// is wrong with them.
pub async fn verify_all(
    observer: &Observer,
    links: &dyn Links,
    fleet: &Arc<Fleet>,
    local: Result<usize, String>,
) -> VerifyReport {
    let answers = gossip::ask(observer, links, observer.others(), None).await;
    let now = Now::read();
    observer.tick(now);
    let told: BTreeMap<ClusterId, _> = answers
        .iter()
        .filter_map(|answer| Some((answer.member, answer.outcome.as_ref().ok()?.1.heads.clone())))
        .collect();
    let held: Vec<Held> = fleet.members().map(|member| held(fleet, member)).collect();
    VerifyReport {
        revision: fleet.revision(),
        local,
        owners: owner_reports(&held, &observer.owners(now), &told),
        members: answers.into_iter().filter_map(|answer| member_report(fleet, answer)).collect(),
        findings: observer.findings(),
    }
}

fn held(fleet: &Fleet, member: &Member) -> Held {
    let owner = fleet.owner(&member.cluster);
    Held {
        owner: member.cluster,
        name: member.name.clone(),
        head: owner.map(|owner| heads::seen(owner.head(), owner.signed_head())),
        records: owner.map_or(0, |owner| owner.records().count()),
    }
}

/// `None`: it left while it was asked.
fn member_report(fleet: &Fleet, answer: Answer) -> Option<MemberReport> {
    let name = fleet.member(&answer.member)?.name.clone();
    let (outcome, refused) = match answer.outcome {
        Ok((time, told)) => (Ok((time, told.heads.len())), told.refused),
        Err(problem) => (Err(problem), vec![]),
    };
    Some(MemberReport { member: answer.member, name, outcome, refused })
}
