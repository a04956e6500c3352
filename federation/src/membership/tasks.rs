//! What a node does all the time: follows its own store or others' watch, tells transport, gateways
//! and intake what follows from the state, signs its Head anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use model::code::ROLLED_BACK;
use model::{ClusterId, Resource};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::resource::{HeardFromPeer, StoreNews};
use wire::store::{Head, Signed};

use super::current::Current;
use super::departed;
use super::node::{Node, node_id, unix_ms};
use crate::fleet::{Fleet, MemberStatus, View};
use crate::limits::{
    FOLLOW_INTERVAL, HEAD_INTERVAL, HEARD_MAX, LEADER_SILENCE_MAX, NEWS_HEADS_MAX, PROBES_MAX,
};
use crate::replica::{Links, Now, Standpoint, TransportLinks};
use crate::store::Role;
use crate::transport::TransportPeer;

impl Node {
    /// Starts everything; it ends when `self.stop` is cancelled.
    pub(super) fn run(self: &Arc<Self>) {
        let links: Arc<dyn Links> =
            Arc::new(TransportLinks::new(self.transport.clone(), self.observer.clone()));
        let (revocations, told) = mpsc::channel(HEARD_MAX);
        let stop = || self.stop.clone();
        let node = || self.clone();
        self.tasks.spawn(node().follow_store());
        self.tasks.spawn(node().follow_others(links.clone()));
        self.tasks.spawn(node().keep_group(stop()));
        self.tasks.spawn(node().keep_published(stop()));
        self.tasks.spawn(node().keep_enforced());
        self.tasks.spawn(node().keep_head_fresh());
        self.tasks.spawn(node().keep_contacts());
        self.tasks.spawn(node().take_told(told));
        let observer = self.observer.clone();
        let stop = stop();
        self.tasks.spawn(async move { observer.run(links, revocations, stop).await });
    }

    /// While this node is in the group, its own store is where the state comes from. At the start
    /// that is the last good state, before the group is known.
    async fn follow_store(self: Arc<Self>) {
        let mut reopened = self.reopened.subscribe();
        let mut ticks = tokio::time::interval(FOLLOW_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut changes = self.store().changes();
            loop {
                changes.mark_unchanged();
                self.take_own_state();
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { break },
                    changed = reopened.changed() => {
                        if changed.is_err() { return }
                        break;
                    }
                    _ = ticks.tick() => {}
                    () = self.stop.cancelled() => return,
                }
            }
            // A store that is closed ends its channel before the next one is there.
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    pub(super) fn take_own_state(&self) {
        let status = self.store().status();
        let own = self.own.node;
        let listed = status.voters.contains(&own) || status.standbys.contains(&own);
        let heard = status.silence.is_none_or(|silence| silence < LEADER_SILENCE_MAX);
        let machine = self.store().state();
        let (revision, fleet) = (machine.0.revision(), machine.0.fleet());
        if fleet.federation().is_none() {
            return;
        }
        let quorum = match status.role {
            Role::Leader => status.quorum_ack_age.is_some_and(|age| age < LEADER_SILENCE_MAX),
            _ => status.leader.is_some() && heard,
        };
        let voters = status.voters.iter().filter_map(|node| {
            fleet.members().map(|member| member.cluster).find(|id| node_id(id) == *node)
        });
        let standpoint = Standpoint { quorum, relayed: false, voters: voters.collect() };
        let known = self.state().map(|(known, _)| known);
        let was_relayed = self.feed.standpoint().relayed;
        // A node that is new in the group catches up first: nobody is led back behind what he has.
        let replaced = self.state_replaced.swap(false, Ordering::Relaxed);
        let newer = replaced || known.is_none_or(|known| revision > known);
        if let Some(problem) = self.distrusted(fleet).filter(|_| !replaced) {
            tracing::error!(code = %ROLLED_BACK, problem, "the store's log is not taken over");
            return;
        }
        if newer || (listed && heard && was_relayed && known == Some(revision)) {
            let fleet = Arc::new(fleet.clone());
            self.observer.hold(&fleet, self.own.id, Now::read());
            self.feed.set_standpoint(standpoint);
            self.feed.publish(fleet);
        } else if listed && (heard || !was_relayed) && known == Some(revision) {
            self.feed.set_standpoint(standpoint);
        }
        if listed && quorum {
            self.observer.quorum_heard(Now::read());
        }
    }

    /// What is here was verified up from the federation's root, and nobody leads back behind it: the
    /// log that a leader hands to a new voter is no better than the leader.
    fn distrusted(&self, fleet: &Fleet) -> Option<String> {
        let (_, known) = self.state().filter(|(known, _)| fleet.revision() > *known)?;
        fleet.rolls_back(&known)
    }

    /// While this node is not in the group, or has heard of no leader for long, it watches others.
    async fn follow_others(self: Arc<Self>, links: Arc<dyn Links>) {
        let mut ticks = tokio::time::interval(FOLLOW_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut following: Option<CancellationToken> = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.stop.cancelled() => return,
            }
            let silence = self.store().status().silence.unwrap_or_default();
            let wanted = match self.state() {
                None => self.has_lost_its_state() && !self.contacts.is_empty(),
                Some(_) => !self.in_group() || silence >= LEADER_SILENCE_MAX,
            };
            if self.has_lost_its_log() {
                self.ask_to_come_back().await;
            }
            if !wanted {
                if let Some(stop) = following.take() {
                    stop.cancel();
                }
            } else if following.is_none() {
                self.seed_replica().await;
                let stop = self.stop.child_token();
                let (replica, links) = (self.replica.clone(), links.clone());
                let ended = stop.clone();
                self.tasks.spawn(async move { replica.follow(links, ended).await });
                following = Some(stop);
            }
        }
    }

    /// Once the members have let this node go, it is an empty one that can be taken in.
    async fn ask_to_come_back(&self) {
        let voters = self.feed.standpoint().voters;
        let others = self.elders().filter(|cluster| !voters.contains(cluster));
        let all = voters.iter().copied().chain(others).filter(|cluster| *cluster != self.own.id);
        let voters: Vec<u64> = all.map(|cluster| node_id(&cluster)).take(PROBES_MAX).collect();
        match self.store().readmit(&voters).await {
            Ok(()) => tracing::info!("the members have let this node go; it can come back"),
            Err(problem) => tracing::debug!(%problem, "this node is not let go yet"),
        }
    }

    /// A node that was in the group goes on from what it had there.
    async fn seed_replica(&self) {
        let Some((revision, fleet)) = self.state() else { return };
        let Some(federation) = fleet.federation() else { return };
        if self.replica.state().revision() >= revision {
            return;
        }
        let serving = crate::fleet::serving(&fleet);
        let snapshot = View::of(&fleet, &serving, &self.own.id).snapshot();
        self.replica.begin(federation);
        if let Err(error) = self.replica.seed(self.own.id, snapshot, true).await {
            tracing::error!(code = %error.code, text = error.text, "the own state was refused");
        }
    }

    /// Whatever changes, transport, gateways and intake are told what follows from it.
    async fn keep_enforced(self: Arc<Self>) {
        let mut revisions = self.feed.revision();
        let mut withdrawn = self.observer.withdrawn();
        let mut heads = self.head.subscribe();
        let mut ticks = tokio::time::interval(FOLLOW_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.enforce();
            tokio::select! {
                changed = revisions.changed() => if changed.is_err() { return },
                changed = withdrawn.changed() => if changed.is_err() { return },
                changed = heads.changed() => if changed.is_err() { return },
                _ = ticks.tick() => self.note_tunnels(),
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Makes what the state says true outside of it.
    pub(crate) fn enforce(&self) {
        let state = self.state();
        let fleet = state.as_ref().map(|(_, fleet)| &**fleet);
        self.tell_transport(fleet);
        self.tell_gateways(fleet);
        self.publish_shared();
    }

    fn tell_transport(&self, fleet: Option<&Fleet>) {
        self.transport.set_own_revoked(self.own.denials.in_force(SystemTime::now()));
        let Some(fleet) = fleet else {
            self.departed.clear();
            self.transport.set_peers(self.contacted(), BTreeSet::new());
            return;
        };
        let (clusters, mut domains) = self.shut_out_early(fleet);
        domains.extend(revoked_domains(fleet));
        // Who is out of the federation itself is spoken with by nobody, and speaks with nobody.
        let is_in = fleet.member(&self.own.id).is_some();
        let (resources, _) = crate::fleet::resources_for(fleet, &self.own.id);
        let peers = resources.into_iter().filter_map(|resource| {
            let Resource::ClusterPeer(peer) = resource else { return None };
            let id = fleet.member_named(&peer.name)?.cluster;
            (is_in && !clusters.contains(&id)).then_some((id, peer))
        });
        let peers: Vec<departed::Peer> = peers.collect();
        let has_left = |id: &ClusterId| {
            let has_left = fleet.entry(id).is_some_and(|e| e.status() == MemberStatus::Left);
            is_in && has_left && !clusters.contains(id)
        };
        self.departed.follow(&peers, has_left, Instant::now());
        let held = self.held_peers();
        let all = peers.into_iter().chain(self.departed.list());
        let all = all.map(|(id, peer)| TransportPeer {
            hold: held.contains(&id),
            name: peer.name,
            id,
            addresses: peer.addresses,
            bundles: peer.trust_bundles,
            revoked_svids: peer.revoked_svids,
        });
        self.transport.set_peers(all.collect(), domains);
    }

    /// Peers to which a connection is kept, so that they can reach this node even where they cannot
    /// dial it: those who vote or stand by.
    fn held_peers(&self) -> BTreeSet<ClusterId> {
        let status = self.store().status();
        let group = status.voters.iter().chain(&status.standbys);
        let mut held: BTreeSet<ClusterId> =
            group.filter_map(|node| self.cluster_of(*node)).collect();
        held.extend(self.feed.standpoint().voters);
        held
    }

    fn tell_gateways(&self, fleet: Option<&Fleet>) {
        let mut revoked = BTreeSet::new();
        let mut heads: Vec<bytes::Bytes> = Vec::new();
        if let Some(fleet) = fleet {
            revoked = self.shut_out_early(fleet).1;
            revoked.extend(revoked_domains(fleet));
            let own = self.head.borrow().as_ref().map(|head| head.encode().into());
            heads.extend(own);
            let others = self.observer.word().heads;
            let others = others.iter().filter(|head| self.is_others(head));
            heads.extend(others.map(|head| head.encode().into()).take(NEWS_HEADS_MAX));
        }
        let revocations = self.revocations().iter().map(|signed| signed.encode().into()).collect();
        let news = Arc::new(StoreNews {
            cluster_id: self.own.id,
            heads,
            revocations,
            revoked_domains: revoked,
            revoked_svids: self.own.denials.in_force(SystemTime::now()),
        });
        self.news.send_if_modified(|known| {
            let changed = *known != news;
            *known = news;
            changed
        });
    }

    fn is_others(&self, head: &Signed) -> bool {
        Head::decode(&head.payload).is_ok_and(|head| head.cluster != self.own.id)
    }

    /// Owners behind a live tunnel stay in service however old their last word is.
    fn note_tunnels(&self) {
        let Some((_, fleet)) = self.state() else { return };
        let live = self.gateways.live_tunnels();
        let ids = live.iter().filter_map(|name| fleet.member_named(name));
        let ids = ids.map(|member| member.cluster).collect();
        self.observer.set_live_tunnels(ids, Now::read());
    }

    /// Signs the Head in force again, with the same mark, so that others can tell a quiet owner from
    /// one that is gone.
    async fn keep_head_fresh(self: Arc<Self>) {
        let mut revisions = self.feed.revision();
        let mut ticks = tokio::time::interval(HEAD_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut signed: Option<wire::store::Mark> = None;
        loop {
            let is_due = tokio::select! {
                changed = revisions.changed() => {
                    if changed.is_err() { return }
                    false
                }
                _ = ticks.tick() => true,
                () = self.stop.cancelled() => return,
            };
            let state = self.state();
            let head = state.as_ref().and_then(|(_, fleet)| fleet.head(&self.own.id));
            let Some(head) = head else {
                signed = None;
                self.head.send_replace(None);
                continue;
            };
            // Heads that another incarnation of this cluster signed are not this node's to repeat.
            let is_own = head.mark <= self.signed_mark();
            if is_own && (is_due || signed != Some(head.mark)) {
                signed = Some(head.mark);
                self.sign_again(head);
            }
        }
    }

    fn sign_again(&self, head: &Head) {
        let fresh = self.sign_head(Head {
            issued_at_unix_ms: unix_ms(SystemTime::now()).max(head.issued_at_unix_ms),
            key_id: self.own.key.key_id(),
            ..*head
        });
        self.observer.tell(self.own.id, std::slice::from_ref(&fresh), Now::read());
        self.head.send_replace(Some(fresh));
    }

    async fn take_told(self: Arc<Self>, mut told: mpsc::Receiver<Vec<Signed>>) {
        while let Some(Some(revocations)) = self.stop.run_until_cancelled(told.recv()).await {
            self.take_revocations(&revocations);
        }
    }

    fn take_heard(self: &Arc<Self>, heard: &HeardFromPeer) {
        let Some((_, fleet)) = self.state() else { return };
        let Some(teller) = fleet.member_named(&heard.cluster) else { return };
        let decode = |bytes: &bytes::Bytes| Signed::decode(bytes).ok();
        let heads: Vec<Signed> = heard.heads.iter().filter_map(decode).collect();
        self.observer.tell(teller.cluster, &heads, Now::read());
        let revocations: Vec<Signed> = heard.revocations.iter().filter_map(decode).collect();
        self.take_revocations(&revocations);
    }
}

/// Takes what gateways heard of their peers, for whichever node is in force.
pub(crate) async fn take_heard(
    current: Current,
    mut heard: mpsc::Receiver<HeardFromPeer>,
    stop: CancellationToken,
) {
    while let Some(Some(heard)) = stop.run_until_cancelled(heard.recv()).await {
        current.node().take_heard(&heard);
    }
}

fn revoked_domains(fleet: &Fleet) -> impl Iterator<Item = model::TrustDomain> {
    let revoked = fleet.entries().filter(|entry| fleet.is_revoked(&entry.member().cluster));
    let of_members = revoked.flat_map(|entry| entry.member().trust_domains.clone());
    let named = fleet.revocations().filter_map(|entry| match &entry.revocation.target {
        wire::store::RevocationTarget::TrustDomain(domain) => Some(domain.clone()),
        wire::store::RevocationTarget::Cluster(_) => None,
    });
    of_members.chain(named).filter(|domain| fleet.owner_of(domain).is_none())
}
