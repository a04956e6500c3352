//! The leader's care for the Raft group: who votes and who stands by follows from who is a member.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use futures_util::future::join_all;
use model::ClusterId;
use model::code::{LEAVE_UNSAFE, STORE_FAULT};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::store::proto::store_service_client::StoreServiceClient;
use wire::store::{ReadReply, ReadRequest};

use super::error::MembershipError;
use super::node::{Node, node_id};
use super::voters::{Eligible, Group, plan};
use crate::limits::{
    CONTROL_INTERVAL, EXCLUSION_TIMEOUT, GROUP_CHANGE_PAUSE, GROUP_CHANGE_TIMEOUT, HEIR_PATIENCE,
    PROBE_TIMEOUT, PROBES_MAX, PROPOSE_PAUSE_MAX, PROPOSE_PAUSE_MIN,
};
use crate::store::MembersError;

impl Node {
    /// Keeps the group as it should be while this node leads. A change is made when two looks in a
    /// row agree on it, so that a group in motion is left alone.
    pub(crate) async fn keep_group(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(CONTROL_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut wished: Option<Group> = None;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let Some(now) = self.group_led() else {
                wished = None;
                continue;
            };
            // Who is waited for may be long in coming; who leaves does not wait for that.
            let mut outgoing = std::pin::pin!(self.outgoing.notified());
            outgoing.as_mut().enable();
            let wanted = self.plan_group(&now).await;
            if wanted == now {
                wished = None;
            } else if wished.as_ref() == Some(&wanted) {
                wished = None;
                tokio::select! {
                    changed = self.change_group(wanted) => if let Err(problem) = changed {
                        tracing::warn!(%problem, "the store's voters were not changed yet");
                    },
                    () = outgoing => {}
                }
            } else {
                wished = Some(wanted);
            }
        }
    }

    /// Takes a cluster that is about to leave out of the group, while it still is a member and can
    /// be talked to. Only the leader does so; on others this does nothing.
    pub(crate) async fn exclude(&self, leaving: ClusterId) -> Result<(), MembershipError> {
        let Some(now) = self.group_led() else { return Ok(()) };
        let node = node_id(&leaving);
        self.excluded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(leaving, Instant::now() + EXCLUSION_TIMEOUT);
        self.outgoing.notify_waiters();
        if !now.voters.contains(&node) && !now.standbys.contains(&node) {
            return Ok(());
        }
        let wanted = self.plan_without(node, &now).await;
        if wanted.voters.contains(&node) {
            return Err(MembershipError::NotAllowed {
                code: LEAVE_UNSAFE,
                problem: format!(
                    "{} is the store's last voter, and no other member answers to take over",
                    self.name_of(&leaving)
                ),
                fix: "bring another member back first",
            });
        }
        if leaving == self.own.id {
            return self.hand_over(&now, &wanted).await;
        }
        self.change_group(wanted).await
    }

    /// The plan without this node, as soon as somebody answers who can take over: a member that has just
    /// joined may not be reached yet.
    async fn plan_without(&self, node: u64, now: &Group) -> Group {
        let deadline = Instant::now() + HEIR_PATIENCE;
        let mut pause = PROPOSE_PAUSE_MIN;
        loop {
            let wanted = self.plan_group(now).await;
            if !wanted.voters.contains(&node) || Instant::now() + pause >= deadline {
                return wanted;
            }
            self.pause(pause).await;
            pause = (pause * 2).min(PROPOSE_PAUSE_MAX);
        }
    }

    /// A leader cannot take itself out: it sees to it that those who stay vote, and lets one of them
    /// lead, who takes it out then.
    async fn hand_over(&self, now: &Group, wanted: &Group) -> Result<(), MembershipError> {
        let voters = now.voters.union(&wanted.voters).copied().collect();
        let standbys = now.standbys.difference(&wanted.voters).copied().collect();
        self.change_group(Group { voters, standbys }).await?;
        let mut failure = "nobody else votes".to_string();
        for heir in &wanted.voters {
            match self.store().transfer(*heir).await {
                Ok(()) => return Ok(()),
                Err(error) => failure = error.to_string(),
            }
        }
        Err(MembershipError::NoQuorum { detail: failure })
    }

    /// The group, if this node leads it.
    fn group_led(&self) -> Option<Group> {
        let status = self.store().status();
        (status.leader == Some(self.own.node)).then(|| Group {
            voters: status.voters.iter().copied().collect(),
            standbys: status.standbys.iter().copied().collect(),
        })
    }

    async fn change_group(&self, group: Group) -> Result<(), MembershipError> {
        let named = |nodes: &BTreeSet<u64>| {
            let name = |node: &u64| {
                let cluster = self.cluster_of(*node);
                cluster.map_or_else(|| node.to_string(), |cluster| self.name_of(&cluster))
            };
            nodes.iter().map(name).collect::<Vec<_>>().join(" ")
        };
        let (voters, standbys) = (named(&group.voters), named(&group.standbys));
        let store = self.store();
        let changing = async {
            loop {
                match store.set_members(group.voters.clone(), group.standbys.clone()).await {
                    // Its end is near: it is given up for this one, or is another such.
                    Err(MembersError::InProgress) => tokio::time::sleep(GROUP_CHANGE_PAUSE).await,
                    done => return done,
                }
            }
        };
        let changed = tokio::time::timeout(GROUP_CHANGE_TIMEOUT, changing).await;
        let changed = changed.map_err(|_| MembershipError::NoQuorum {
            detail: format!("the voters were not changed to {voters} in time"),
        })?;
        changed.map_err(|error| MembershipError::NoQuorum { detail: error.to_string() })?;
        tracing::info!(%voters, %standbys, "the store's group was changed");
        Ok(())
    }

    async fn plan_group(&self, now: &Group) -> Group {
        let excluded = self.excluded_now();
        let eligible: Vec<ClusterId> =
            self.elders().filter(|cluster| !excluded.contains(cluster)).collect();
        let (probed, lost) = self.probe(&eligible, now).await;
        // Who has lost its log may have promised what it no longer knows: it is let go, and comes
        // back as a new one.
        let eligible: Vec<ClusterId> =
            eligible.into_iter().filter(|id| !lost.contains(id)).collect();
        let members: Vec<Eligible> = eligible
            .iter()
            .map(|cluster| Eligible { node: node_id(cluster), reachable: probed.contains(cluster) })
            .collect();
        let standbys = self.state().map(|(_, fleet)| fleet.standbys()).unwrap_or_default();
        let named: Vec<u64> = standbys.iter().map(node_id).collect();
        plan(self.own.node, &members, now, &named)
    }

    fn excluded_now(&self) -> BTreeSet<ClusterId> {
        let mut excluded = self.excluded.lock().unwrap_or_else(PoisonError::into_inner);
        excluded.retain(|_, until| *until > Instant::now());
        excluded.keys().copied().collect()
    }

    /// Who of the group and of the most senior others answers.
    async fn probe(
        &self,
        eligible: &[ClusterId],
        now: &Group,
    ) -> (BTreeSet<ClusterId>, BTreeSet<ClusterId>) {
        let in_group = |cluster: &&ClusterId| {
            let node = node_id(cluster);
            now.voters.contains(&node) || now.standbys.contains(&node)
        };
        let others = eligible.iter().filter(|cluster| !in_group(cluster));
        let asked = eligible.iter().filter(in_group).chain(others).take(PROBES_MAX);
        let answers = asked.map(|cluster| async { (*cluster, self.answer_of(cluster).await) });
        let answers = join_all(answers).await;
        let who = |wanted: Answer| {
            let those = answers.iter().filter(move |(_, answer)| *answer == wanted);
            those.map(|(cluster, _)| *cluster).collect()
        };
        (who(Answer::Up), who(Answer::LogLost))
    }

    async fn answer_of(&self, cluster: &ClusterId) -> Answer {
        if *cluster == self.own.id {
            return Answer::Up;
        }
        let Some(channel) = self.channel(cluster) else { return Answer::None };
        let question = ReadRequest { linearizable: false, key: None }.encode();
        let mut client = StoreServiceClient::new(channel);
        let asked = tokio::time::timeout(PROBE_TIMEOUT, client.read(question)).await;
        let Ok(Ok(reply)) = asked else { return Answer::None };
        match ReadReply::decode(reply.into_inner()) {
            Ok(ReadReply::Refused(refusal)) if refusal.code == Some(STORE_FAULT) => Answer::LogLost,
            Ok(_) => Answer::Up,
            Err(_) => Answer::None,
        }
    }
}

/// What a member said when it was asked whether it is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Up,
    LogLost,
    None,
}
