//! The fleet: what the federation's store agreed on, and what follows from it. Pure and
//! deterministic: no I/O, no clock, no randomness, no order of a hash table.
//!
//! ```text
//! voters:   command --FleetState::apply--> Fleet + Changes + writes to disk
//! watch:    Fleet --View::of, View::step_from--> WatchEvents, without what the reader may not see
//! Replicas: WatchEvent --VerifiedView::apply--> Fleet
//! then:     Fleet --resources_for, serving--> what a cluster's gateways are told
//! and back: a cluster's own objects --own_records--> records to publish under its next Head
//! ```
//!
//! Both sides end in the same [`Fleet`], which answers all questions. Whatever is signed is verified
//! on each way in: by `apply`, by `load`, and by `VerifiedView::apply`.

mod apply;
mod command;
mod filter;
mod kv;
pub mod limits;
mod member;
mod own;
mod owner;
mod proof;
mod record;
mod refusal;
mod requests;
mod resources;
mod revoked;
mod serving;
mod state;
mod token;
mod verified;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{ClusterId, ClusterName, FederationId, KeyId, Namespace, Revision, TrustDomain};
use wire::store::{Head, Mark, Member, Signed, StoreKey};

pub use apply::{Applied, Change, KvWrite};
pub use member::{MemberEntry, MemberStatus};
pub use own::{OwnStep, own_records};
pub use owner::{NamespaceRecords, Owner};
pub use proof::verify;
pub use record::Record;
pub use refusal::{FleetError, Refusal, ViewError};
pub use resources::{merge, resources_for};
pub use revoked::RevocationEntry;
pub use serving::{Exporter, Finding, Serving, serving};
pub use state::FleetState;
pub use token::{TokenEntry, TokenUse};
pub use verified::{VerifiedView, ViewChange};
pub use view::{View, ViewStep};

/// What is known of the federation. On a voter it is everything; on a Replica some records are
/// withheld. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    revision: Revision,
    federation: Option<FederationId>,
    root: Option<ClusterId>,
    members: Arc<BTreeMap<ClusterId, Arc<MemberEntry>>>,
    owners: Arc<BTreeMap<ClusterId, Arc<Owner>>>,
    /// In the order in which they were logged.
    revocations: Arc<Vec<Arc<RevocationEntry>>>,
    /// Not told to Replicas, which have no use for it.
    standbys: Option<Arc<Standbys>>,
}

/// The standbys that an admin named last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standbys {
    signed: Signed,
    generation: u64,
    clusters: Vec<ClusterId>,
}

impl Fleet {
    /// The last change that is in here.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// `None` before the federation is founded.
    pub fn federation(&self) -> Option<FederationId> {
        self.federation
    }

    /// The member that founded the federation.
    pub fn root(&self) -> Option<&ClusterId> {
        self.root.as_ref()
    }

    /// The active members, in order of their ids.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|entry| entry.is_active()).map(|entry| entry.member())
    }

    /// An active member.
    pub fn member(&self, cluster: &ClusterId) -> Option<&Member> {
        self.entry(cluster).filter(|entry| entry.is_active()).map(MemberEntry::member)
    }

    /// The active member of this name.
    pub fn member_named(&self, name: &ClusterName) -> Option<&Member> {
        self.members().find(|member| member.name == *name)
    }

    /// The active member that owns a trust domain.
    pub fn owner_of(&self, domain: &TrustDomain) -> Option<&Member> {
        self.members().find(|member| member.trust_domains.contains(domain))
    }

    /// Everyone who ever was a member.
    pub fn entries(&self) -> impl Iterator<Item = &MemberEntry> {
        self.members.values().map(|entry| &**entry)
    }

    pub fn entry(&self, cluster: &ClusterId) -> Option<&MemberEntry> {
        self.members.get(cluster).map(|entry| &**entry)
    }

    /// Active members for whom this one answers.
    pub fn children(&self, cluster: &ClusterId) -> impl Iterator<Item = &Member> {
        let child = move |entry: &&MemberEntry| {
            entry.is_active() && entry.anchor() == cluster && entry.member().cluster != *cluster
        };
        self.entries().filter(child).map(MemberEntry::member)
    }

    /// A member's Head and records, once it has published.
    pub fn owner(&self, cluster: &ClusterId) -> Option<&Owner> {
        self.owners.get(cluster).map(|owner| &**owner)
    }

    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.owners.values().map(|owner| &**owner)
    }

    pub fn head(&self, cluster: &ClusterId) -> Option<&Head> {
        self.owner(cluster).map(Owner::head)
    }

    /// Every owner's Head, as it was signed.
    pub fn heads(&self) -> impl Iterator<Item = &Signed> {
        self.owners().map(Owner::signed_head)
    }

    /// What is known of a cluster's records.
    pub fn records(&self, cluster: &ClusterId) -> impl Iterator<Item = &Record> {
        self.owner(cluster).into_iter().flat_map(Owner::records)
    }

    pub fn record(&self, key: &StoreKey) -> Option<&Record> {
        self.owner(&key.cluster)?.record(key)
    }

    /// A cluster's records in one namespace, if any of them is known.
    pub fn namespace(&self, cluster: &ClusterId, name: &Namespace) -> Option<&NamespaceRecords> {
        self.owner(cluster)?.namespace(name)
    }

    /// Nothing below this position is taken from the cluster any more.
    pub fn high_water(&self, cluster: &ClusterId) -> Option<Mark> {
        self.entry(cluster).and_then(MemberEntry::high_water)
    }

    /// In the order in which they were logged.
    pub fn revocations(&self) -> impl Iterator<Item = &RevocationEntry> {
        self.revocations.iter().map(|entry| &**entry)
    }

    /// Whether the cluster was revoked, by itself or with the one that had admitted it.
    pub fn is_revoked(&self, cluster: &ClusterId) -> bool {
        self.entry(cluster).is_some_and(|entry| entry.status() == MemberStatus::Revoked)
    }

    pub fn is_domain_revoked(&self, domain: &TrustDomain) -> bool {
        self.revocations().any(|entry| entry.revokes_domain(domain))
    }

    /// Active members that are to hold the log without voting, as an admin named them last.
    pub fn standbys(&self) -> Vec<ClusterId> {
        let named = self.standbys.iter().flat_map(|standbys| &standbys.clusters);
        named.filter(|cluster| self.member(cluster).is_some()).copied().collect()
    }

    /// Of the last statement about standbys; the next one has a greater one.
    pub fn standbys_generation(&self) -> u64 {
        self.standbys.as_ref().map_or(0, |standbys| standbys.generation)
    }

    /// Why this state cannot follow one that was verified before, if it cannot: it is another
    /// federation's, or has lost members, revocations or Heads. A leader whose log was made up looks
    /// like that. What both share costs next to nothing to compare.
    pub fn rolls_back(&self, before: &Self) -> Option<String> {
        if let (Some(was), Some(is)) = (before.federation, self.federation)
            && was != is
        {
            return Some(format!("it is of the federation {is}, and this one is {was}"));
        }
        for (cluster, was) in &*before.members {
            let Some(is) = self.members.get(cluster) else {
                return Some(format!("it has lost the member {}", was.member().name));
            };
            if Arc::ptr_eq(was, is) {
                continue;
            }
            let (old, new) = (was.chain(), is.chain());
            if !new.links.starts_with(&old.links) || (old.leave.is_some() && new.leave.is_none()) {
                return Some(format!("it has an older state of {}", was.member().name));
            }
            if is.high_water() < was.high_water() {
                return Some(format!("it has an older Head of {}", was.member().name));
            }
        }
        let lost = |entry: &&RevocationEntry| {
            !self.revocations().any(|other| other.signed.payload == entry.signed.payload)
        };
        let same = Arc::ptr_eq(&before.revocations, &self.revocations);
        let lost = if same { None } else { before.revocations().find(lost) };
        lost.map(|entry| format!("it has lost the revocation of {:?}", entry.revocation.target))
    }

    /// The active member whose open key this is.
    pub fn signer(&self, key: &KeyId) -> Option<&Member> {
        self.members().find(|member| member.open_key().id() == *key)
    }
}

#[cfg(test)]
mod tests;
