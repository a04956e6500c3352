//! What a node knows of every owner's word, whichever way it came: from its own state, from beacons
//! that gateways report, from other members' answers. One for voters and Replicas alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::code::{OWNER_STALE, OWNER_WITHDRAWN, RECORDS_WITHHELD, SPLIT_VIEW};
use model::{ClusterId, ClusterName, Diagnostic, Severity};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wire::replica::{KeptAge, KeptFinding};
use wire::store::{Heads, Mark, Signed};

use crate::fleet::{Fleet, ViewError};

use super::client::Links;
use super::compare::{Comparison, Finding, SeenHead};
use super::freshness::{Freshness, FreshnessConfig, Issue, KeptAge as Age, OwnerAge, Standing};
use super::gossip;
use super::heads;
use super::limits::OWNERS_MAX;
use super::notebook::Notebook;
use super::shelf::{Shelf, ShelfError};

/// Both clocks, read together. Ages are judged by the monotonic one; the other one is for people.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub instant: Instant,
    pub wall: SystemTime,
}

impl Now {
    pub fn read() -> Self {
        Self { instant: tokio::time::Instant::now().into_std(), wall: SystemTime::now() }
    }
}

/// Shared by everything that hears of owners. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Observer {
    own: ClusterId,
    shelf: Shelf,
    inner: Arc<Mutex<Inner>>,
    /// Counts changes of what is in service.
    withdrawn: Arc<watch::Sender<BTreeSet<ClusterId>>>,
}

#[derive(Debug)]
struct Inner {
    fleet: Arc<Fleet>,
    source: ClusterId,
    freshness: Freshness,
    comparison: Comparison,
    notebook: Notebook,
    /// The newest issue of the Head that the state has, for others.
    newest: BTreeMap<ClusterId, SeenHead>,
    revocations: Vec<Signed>,
}

/// What came of Heads that somebody told.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Told {
    pub heads: Vec<SeenHead>,
    /// Why the others do not count.
    pub refused: Vec<String>,
    /// Owners that this node does not know as members.
    pub unknown: usize,
}

impl Observer {
    /// Restores what the disk has. What is damaged of it was of use only to people.
    pub(crate) fn open(
        own: ClusterId,
        shelf: Shelf,
        config: FreshnessConfig,
        now: Now,
    ) -> Result<Self, ShelfError> {
        let mut freshness = Freshness::new(own, config, now.instant);
        for (owner, age) in readable(shelf.ages())? {
            freshness.restore(owner, restored(&age), now.instant);
        }
        let inner = Inner {
            fleet: Arc::default(),
            source: own,
            freshness,
            comparison: Comparison::default(),
            notebook: Notebook::restore(readable(shelf.findings())?),
            newest: BTreeMap::new(),
            revocations: vec![],
        };
        let withdrawn = Arc::new(watch::Sender::new(BTreeSet::new()));
        Ok(Self { own, shelf, inner: Arc::new(Mutex::new(inner)), withdrawn })
    }

    /// Compares Heads with other members, and judges what only time can show, until `stop`: in
    /// every node of a federation. Revocations that others tell go to `revocations`, whose reader
    /// judges them.
    pub async fn run(
        &self,
        links: Arc<dyn Links>,
        revocations: mpsc::Sender<Vec<Signed>>,
        stop: CancellationToken,
    ) {
        gossip::compare(self.clone(), links, revocations, stop).await;
    }

    /// The node's verified state has changed; `source` is the member that it came from.
    pub fn hold(&self, fleet: &Arc<Fleet>, source: ClusterId, now: Now) {
        let mut inner = self.lock();
        let seen = |owner: &crate::fleet::Owner| heads::seen(owner.head(), owner.signed_head());
        let heads: Vec<SeenHead> = fleet.owners().map(seen).collect();
        let member = |owner: &ClusterId| fleet.member(owner).is_some();
        inner.freshness.retain(member);
        inner.comparison.retain(member);
        inner.newest.retain(|owner, _| member(owner));
        let mut found = Vec::new();
        for head in heads {
            inner.freshness.hear(head.owner, head.issue, now.instant);
            found.extend(inner.comparison.hold(&head, source));
            inner.renew(head);
        }
        inner.fleet = fleet.clone();
        inner.source = source;
        drop(inner);
        self.note_all(found, now);
        self.tick(now);
    }

    /// Somebody told of Heads: another member, or an owner by its beacons.
    pub fn tell(&self, by: ClusterId, heads: &[Signed], now: Now) -> Told {
        let told = self.verify(heads);
        let (mut found, mut inner) = (Vec::new(), self.lock());
        for head in &told.heads {
            inner.freshness.hear(head.owner, head.issue, now.instant);
            found.extend(inner.comparison.tell(head, by, now.instant));
            inner.renew(head.clone());
        }
        drop(inner);
        self.note_all(found, now);
        told
    }

    /// Not under the lock: there is a Head for each member, and a signature on each. Most are known,
    /// byte for byte.
    fn verify(&self, heads: &[Signed]) -> Told {
        let (fleet, newest) = {
            let inner = self.lock();
            (inner.fleet.clone(), inner.newest.clone())
        };
        let known: BTreeMap<&[u8], &SeenHead> =
            newest.values().map(|head| (&head.signed.payload[..], head)).collect();
        let mut told = Told::default();
        for signed in heads.iter().take(OWNERS_MAX) {
            let known = known.get(&signed.payload[..]).filter(|known| known.signed == *signed);
            match known
                .map_or_else(|| heads::verify(&fleet, signed), |known| Ok(Some((*known).clone())))
            {
                Ok(Some(head)) => told.heads.push(head),
                Ok(None) => told.unknown += 1,
                Err(problem) => told.refused.push(problem),
            }
        }
        told
    }

    /// What this node tells others: the Heads that its state has, each as its owner signed it last,
    /// and the revocations that it knows.
    pub fn word(&self) -> Heads {
        let inner = self.lock();
        let heads = inner.newest.values().map(|head| head.signed.clone()).collect();
        Heads { heads, revocations: inner.revocations.clone() }
    }

    /// Revocations that others are to be told, those that are not in the log yet included.
    pub fn set_revocations(&self, revocations: Vec<Signed>) {
        self.lock().revocations = revocations;
    }

    /// The other active members.
    pub(crate) fn others(&self) -> Vec<ClusterId> {
        let inner = self.lock();
        let members = inner.fleet.members().map(|member| member.cluster);
        members.filter(|cluster| *cluster != self.own).collect()
    }

    /// Somebody who knows said that the store has a quorum.
    pub fn quorum_heard(&self, now: Now) {
        self.lock().freshness.quorum_heard(now.instant);
    }

    /// Clusters to which this cluster's gateways have a live tunnel.
    pub fn set_live_tunnels(&self, live: BTreeSet<ClusterId>, now: Now) {
        self.lock().freshness.set_live_tunnels(live, now.instant);
        self.tick(now);
    }

    /// A source sent what verification refused.
    pub(crate) fn refused(&self, source: ClusterId, error: &ViewError, now: Now) {
        let text = format!(
            "{} sent an event of the watch stream that was refused: {}",
            self.name(&source),
            error.text
        );
        tracing::error!(code = %error.code, source = %source, "{text}");
        self.note(KeptFinding {
            noticed_at_unix_ms: unix_ms(now.wall),
            code: error.code,
            owner: None,
            source: Some(source),
            told_by: vec![],
            text,
            evidence: vec![],
        });
    }

    /// Judges what only time can show.
    pub fn tick(&self, now: Now) {
        let mut inner = self.lock();
        let source = inner.source;
        let overdue = inner.comparison.overdue(source, now.instant);
        let withdrawn = inner.freshness.withdrawn(now.instant);
        drop(inner);
        self.note_all(overdue, now);
        self.withdrawn.send_if_modified(|known| {
            let changed = *known != withdrawn;
            *known = withdrawn;
            changed
        });
    }

    /// Whether a source was found to withhold something since then.
    pub(crate) fn found_late(&self, source: ClusterId, since: Instant) -> bool {
        self.lock().comparison.named_since(source, since)
    }

    /// A new source has the time that the old one had.
    pub(crate) fn source_changed(&self, source: ClusterId, now: Now) {
        let mut inner = self.lock();
        if inner.source != source {
            inner.source = source;
            inner.comparison.source_changed(now.instant);
        }
    }

    /// Owners whose exports are out of service; changes when one goes or comes back.
    pub fn withdrawn(&self) -> watch::Receiver<BTreeSet<ClusterId>> {
        self.withdrawn.subscribe()
    }

    pub fn owners(&self, now: Now) -> Vec<OwnerAge> {
        self.lock().freshness.owners(now.instant)
    }

    /// What was noticed, oldest first.
    pub fn findings(&self) -> Vec<KeptFinding> {
        self.lock().notebook.all()
    }

    /// Writes the ages down; a restart goes on from them.
    pub(crate) fn save_ages(&self, now: Now) -> Result<(), ShelfError> {
        let kept = self.lock().freshness.keep(now.instant);
        let kept: Vec<_> = kept.into_iter().map(|(owner, age)| (owner, keepable(&age))).collect();
        self.shelf.keep_ages(&kept)
    }

    /// For status: owners that are stale or withdrawn, and findings.
    pub fn diagnostics(&self, now: Now) -> Vec<Diagnostic> {
        let owners = self.owners(now);
        let aged = owners.iter().filter_map(|owner| self.age_diagnostic(owner));
        let noticed = self.findings().into_iter().map(|finding| self.finding_diagnostic(&finding));
        aged.chain(noticed).collect()
    }

    pub(crate) fn member_name(&self, cluster: &ClusterId) -> Option<ClusterName> {
        self.lock().fleet.member(cluster).map(|member| member.name.clone())
    }

    /// As people call it.
    pub(crate) fn name(&self, cluster: &ClusterId) -> String {
        self.member_name(cluster).map_or_else(|| cluster.to_string(), |name| name.to_string())
    }

    fn age_diagnostic(&self, owner: &OwnerAge) -> Option<Diagnostic> {
        let (code, severity) = match owner.standing {
            Standing::Fresh => return None,
            Standing::Stale => (OWNER_STALE, Severity::Warning),
            Standing::Withdrawn => (OWNER_WITHDRAWN, Severity::Error),
        };
        let seconds = owner.age.as_secs();
        Some(Diagnostic {
            severity,
            code,
            object: format!("Cluster/{}", self.name(&owner.owner)),
            field: String::new(),
            message: format!("its last fresh word came {seconds} s ago"),
            fix: code.entry().fix.into(),
        })
    }

    fn finding_diagnostic(&self, finding: &KeptFinding) -> Diagnostic {
        let about = finding.owner.or(finding.source).unwrap_or(self.own);
        Diagnostic {
            severity: Severity::Error,
            code: finding.code,
            object: format!("Cluster/{}", self.name(&about)),
            field: String::new(),
            message: finding.text.clone(),
            fix: finding.code.entry().fix.into(),
        }
    }

    fn note_all(&self, found: Vec<Finding>, now: Now) {
        for finding in found {
            let kept = self.describe(&finding, now);
            tracing::error!(code = %kept.code, "{}", kept.text);
            self.note(kept);
        }
    }

    fn note(&self, finding: KeptFinding) {
        let number = self.lock().notebook.add(&finding);
        let Some(number) = number else { return };
        if let Err(problem) = self.shelf.keep_finding(number, &finding) {
            tracing::error!(%problem, "a finding could not be written down");
        }
    }

    fn describe(&self, finding: &Finding, now: Now) -> KeptFinding {
        let noticed_at_unix_ms = unix_ms(now.wall);
        match finding {
            Finding::SplitView { ours, theirs, told_by } => KeptFinding {
                noticed_at_unix_ms,
                code: SPLIT_VIEW,
                owner: Some(ours.owner),
                source: None,
                told_by: vec![*told_by],
                text: format!(
                    "{} signed two contents as generation {}: {} here, {} at {}",
                    self.name(&ours.owner),
                    ours.issue.mark,
                    hex(&ours.digest),
                    hex(&theirs.digest),
                    self.name(told_by)
                ),
                evidence: vec![ours.signed.encode(), theirs.signed.encode()],
            },
            Finding::Withheld { known, held, told_by, source, overdue } => KeptFinding {
                noticed_at_unix_ms,
                code: RECORDS_WITHHELD,
                owner: Some(known.owner),
                source: Some(*source),
                told_by: told_by.clone(),
                text: self.describe_withheld(known, *held, told_by, source, *overdue),
                evidence: vec![known.signed.encode()],
            },
        }
    }

    fn describe_withheld(
        &self,
        known: &SeenHead,
        held: Option<Mark>,
        told_by: &[ClusterId],
        source: &ClusterId,
        overdue: Duration,
    ) -> String {
        let held = held.map_or_else(|| "nothing".to_string(), |held| format!("generation {held}"));
        let tellers: Vec<String> = told_by.iter().map(|id| self.name(id)).collect();
        // An owner alone could frame a source with a generation that it never published.
        let alone = told_by == [known.owner];
        let doubt = if alone { "; nobody but the owner says so" } else { "" };
        let late = if *source == self.own {
            "this node's own store has".to_string()
        } else {
            format!("{} has delivered", self.name(source))
        };
        format!(
            "{late} {held} of {}, {} s after generation {} was known from {}{doubt}",
            self.name(&known.owner),
            overdue.as_secs(),
            known.issue.mark,
            tellers.join(", ")
        )
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No change below is left half done by a panic that matters to the next one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Keeps the newest issue of what the state has. A Head that the state does not have yet is
    /// handed on to nobody: whoever is told of it takes it for something that this node holds.
    fn renew(&mut self, head: SeenHead) {
        let held = self.comparison.held(&head.owner);
        let newer = |known: &SeenHead| known.issue < head.issue || held != Some(known.issue.mark);
        if held == Some(head.issue.mark) && self.newest.get(&head.owner).is_none_or(newer) {
            self.newest.insert(head.owner, head);
        }
    }
}

fn readable<T>(read: Result<Vec<T>, ShelfError>) -> Result<Vec<T>, ShelfError> {
    match read {
        Err(error @ ShelfError::Damaged { .. }) => {
            tracing::error!(%error, "what was known of owners' ages and findings is lost");
            Ok(vec![])
        }
        read => read,
    }
}

fn restored(kept: &KeptAge) -> Age {
    let KeptAge { epoch, generation, issued_at_unix_ms, age_ms, expiry_age_ms } = *kept;
    Age {
        issue: Issue { mark: Mark { epoch, generation }, issued_at_unix_ms },
        age: Duration::from_millis(age_ms),
        expiry_age: Duration::from_millis(expiry_age_ms),
    }
}

fn keepable(age: &Age) -> KeptAge {
    let Issue { mark: Mark { epoch, generation }, issued_at_unix_ms } = age.issue;
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (age_ms, expiry_age_ms) = (millis(age.age), millis(age.expiry_age));
    KeptAge { epoch, generation, issued_at_unix_ms, age_ms, expiry_age_ms }
}

fn unix_ms(wall: SystemTime) -> u64 {
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Enough of a digest to tell two apart.
fn hex(digest: &[u8]) -> String {
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
