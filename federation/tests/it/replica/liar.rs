//! The liar: an evil leader. It speaks the public wire format, with valid credentials and with a key
//! of its own, and shares no code with the readers. Everything it says is written out here by hand.
//!
//! Each of these lies, but for the one of which it says otherwise, was seen to succeed against readers
//! from which all the checks that stand at the tests had been taken out for a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use federation::replica::limits::WITHHELD_AFTER;
use federation::replica::{Now, Replica, Standpoint};
use model::ClusterId;
use model::code::{
    Code, DIGEST_WRONG, EVENT_OUT_OF_ORDER, EVENT_REFUSED, RECORDS_WITHHELD, ROLLED_BACK,
    SIGNATURE_REFUSED, SPLIT_VIEW,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use wire::store::proto::{HeadsReply, HeadsRequest, WatchRequest};
use wire::store::{
    Alive, Entry, Heads, NamespaceUpdate, OwnerUpdate, RecordEntry, Signed, StoreKey, WatchEvent,
};

use crate::fixture::soon;

use super::net::{Events, Net, Peer};
use super::voter::Node;
use super::world::{Cluster, Records, delta, federation, mark, revision, snapshot};
use super::{exports_of, reach};

/// What a liar tells, to each reader its own story.
#[derive(Clone)]
struct Liar(Arc<Mutex<Stories>>);

struct Stories {
    own: ClusterId,
    watches: BTreeMap<ClusterId, Vec<WatchEvent>>,
    heads: BTreeMap<ClusterId, Vec<Signed>>,
    /// Whoever asked, with the revision from which it wished to go on.
    asked: Vec<(ClusterId, Option<u64>)>,
}

impl Liar {
    fn new(own: ClusterId) -> Self {
        Self(Arc::new(Mutex::new(Stories {
            own,
            watches: BTreeMap::new(),
            heads: BTreeMap::new(),
            asked: vec![],
        })))
    }

    /// What a reader hears from the beginning of its next stream on.
    fn story(&self, reader: ClusterId, events: Vec<WatchEvent>) {
        self.0.lock().unwrap().watches.insert(reader, events);
    }

    fn heads(&self, reader: ClusterId, heads: Vec<Signed>) {
        self.0.lock().unwrap().heads.insert(reader, heads);
    }

    fn asked(&self) -> usize {
        self.0.lock().unwrap().asked.len()
    }
}

impl Peer for Liar {
    fn watch(&self, caller: ClusterId, request: WatchRequest) -> Result<Events, Status> {
        let mut stories = self.0.lock().unwrap();
        stories.asked.push((caller, request.resume.map(|at| at.index)));
        let (sender, receiver) = mpsc::channel(64);
        let alive = Alive { quorum: true, relayed: false, voters: vec![stories.own] };
        let sign = WatchEvent::Alive { revision: revision(1), alive };
        sender.try_send(Ok(sign.encode())).unwrap();
        for event in stories.watches.get(&caller).into_iter().flatten() {
            sender.try_send(Ok(event.encode())).unwrap();
        }
        tokio::spawn(async move {
            while sender.send(Ok(sign.encode())).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        });
        Ok(ReceiverStream::new(receiver))
    }

    fn heads(&self, caller: ClusterId, _: HeadsRequest) -> Result<HeadsReply, Status> {
        let heads = self.0.lock().unwrap().heads.get(&caller).cloned().unwrap_or_default();
        Ok(Heads { heads, revocations: vec![] }.encode_reply())
    }
}

/// east leads and lies, west owns, north and south read.
struct World {
    clusters: Vec<Cluster>,
    net: Net,
    liar: Liar,
    node: Node,
    records: Records,
}

impl World {
    /// The reader has an honest snapshot at revision 5, with west's generation 3.
    async fn new() -> Self {
        let clusters = federation(&["east", "west", "north", "south"]);
        let (net, liar) = (Net::default(), Liar::new(clusters[0].id));
        net.add(clusters[0].id, liar.clone());
        let node = Node::new(&clusters[2]);
        let records = clusters[1].exports(&["api"], "north");
        let world = Self { clusters, net, liar, node, records };
        let snapshot = world.honest_snapshot();
        world.node.replica().seed(world.east().id, snapshot, true).await.unwrap();
        world
    }

    fn honest_snapshot(&self) -> Vec<WatchEvent> {
        snapshot(&self.clusters, 5, vec![self.west_update(3, &self.records)])
    }

    fn east(&self) -> &Cluster {
        &self.clusters[0]
    }

    fn west(&self) -> &Cluster {
        &self.clusters[1]
    }

    fn north(&self) -> ClusterId {
        self.clusters[2].id
    }

    fn replica(&self) -> &Replica {
        self.node.replica()
    }

    fn west_update(&self, generation: u64, records: &Records) -> OwnerUpdate {
        let head = self.west().head(generation, 1_000 * generation, records);
        self.west().update(head, records, 5)
    }

    /// As far as the reader knows, the liar is the only voter.
    fn prefers_the_liar(&self) {
        let voters = [self.east().id].into();
        let standpoint = Standpoint { quorum: true, relayed: true, voters };
        self.replica().feed().set_standpoint(standpoint);
    }

    /// Tells the reader a story, and waits until it has noticed.
    async fn notice(&self, story: Vec<WatchEvent>) -> (Code, String) {
        self.liar.story(self.north(), story);
        self.node.follow(&self.net);
        noticed(self.replica()).await
    }

    /// Whatever was said, the last good state is in service.
    fn check_last_good(&self) {
        let exports = exports_of(self.replica(), self.west().id);
        assert_eq!(exports, BTreeSet::from(["api".to_string()]));
        assert_eq!(*self.replica().feed().revision().borrow(), Some(revision(5)));
        let fleet = self.replica().state();
        assert_eq!(fleet.head(&self.west().id).unwrap().mark, mark(3));
    }
}

/// The first finding of a node.
async fn noticed(replica: &Replica) -> (Code, String) {
    let found = async {
        loop {
            if let Some(finding) = replica.observer().findings().into_iter().next() {
                return (finding.code, finding.text);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Longer than what is withheld takes, where the clock is a paused one.
    let found = tokio::time::timeout(WITHHELD_AFTER * 4, found).await;
    found.expect("nothing was noticed")
}

/// As `reach`, where the clock is a paused one.
async fn reach_slowly(replica: &Replica, index: u64) {
    let mut revisions = replica.feed().revision();
    let there = revisions.wait_for(|at| *at == Some(revision(index)));
    tokio::time::timeout(WITHHELD_AFTER * 4, there).await.unwrap().unwrap();
}

/// Changes a record in the open part of an update.
fn first_record(update: &mut OwnerUpdate) -> &mut RecordEntry {
    let NamespaceUpdate::Records { entries, .. } = &mut update.namespaces[0] else { panic!() };
    let Entry::Record(record) = &mut entries[0] else { panic!() };
    record
}

/// Seen to succeed with `check_digest` off: the altered record was in service.
#[tokio::test]
async fn a_forged_record_is_refused() {
    let world = World::new().await;
    let mut update = world.west_update(4, &world.records);
    let record = first_record(&mut update);
    let mut bytes = record.record.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    record.record = bytes.into();
    let (code, text) = world.notice(vec![delta(5, 6, vec![update])]).await;
    assert_eq!(code, DIGEST_WRONG, "{text}");
    assert!(
        text.starts_with("east sent an event of the watch stream that was refused: "),
        "{text}"
    );
    world.check_last_good();
}

/// Seen to succeed with the Head's signature unchecked: the liar's own records were west's.
#[tokio::test]
async fn a_head_signed_by_the_liar_is_refused() {
    let world = World::new().await;
    let records = world.west().exports(&["api", "stolen"], "north");
    let mut update = world.west_update(4, &records);
    let forged = wire::store::Head::decode(&update.head.payload).unwrap();
    let payload = forged.encode();
    let signed = super::world::sign(&world.east().key, wire::store::Domain::Head, payload);
    update.head = Signed { key_id: update.head.key_id, ..signed };
    let (code, text) = world.notice(vec![delta(5, 6, vec![update])]).await;
    assert_eq!(code, SIGNATURE_REFUSED, "{text}");
    world.check_last_good();
}

/// Seen to succeed with the high-water mark unchecked: the withdrawn export was back in service.
#[tokio::test]
async fn an_older_head_is_refused() {
    let world = World::new().await;
    let old = world.west().exports(&["old"], "north");
    let update = world.west_update(2, &old);
    let (code, text) = world.notice(vec![delta(5, 6, vec![update])]).await;
    assert_eq!(code, ROLLED_BACK, "{text}");
    world.check_last_good();
}

/// The same, by a snapshot, which names no revision that it goes on from, and after a restart: the
/// mark is on the disk. Seen to succeed with the high-water mark unchecked.
#[tokio::test]
async fn an_older_snapshot_is_refused_after_a_restart_too() {
    let mut world = World::new().await;
    let north = federation(&["east", "west", "north", "south"]).remove(2);
    world.node.restart(&north).await;
    let old = world.west().exports(&["old"], "north");
    let story = snapshot(&world.clusters, 7, vec![world.west_update(2, &old)]);
    let (code, text) = world.notice(story).await;
    assert_eq!(code, ROLLED_BACK, "{text}");
    world.check_last_good();
}

/// Seen to succeed with `check_whole` off: west was gone.
#[tokio::test]
async fn a_snapshot_that_leaves_an_owner_out_is_refused() {
    let world = World::new().await;
    let (code, text) = world.notice(snapshot(&world.clusters, 7, vec![])).await;
    assert_eq!(code, ROLLED_BACK, "{text}");
    assert!(text.contains("west"), "{text}");
    world.check_last_good();
}

/// With the digest unchecked it was still refused: a Head says how many records there are.
#[tokio::test]
async fn a_record_left_out_is_refused() {
    let world = World::new().await;
    let mut update = world.west_update(4, &world.records);
    let NamespaceUpdate::Records { entries, .. } = &mut update.namespaces[0] else { panic!() };
    entries.remove(0);
    let (code, text) = world.notice(vec![delta(5, 6, vec![update])]).await;
    assert_eq!(code, DIGEST_WRONG, "{text}");
    world.check_last_good();
}

/// A snapshot in which everything is a hash, as if the reader might see nothing: the digest holds.
/// Seen to succeed with `hidden_policy` off: the export was gone.
#[tokio::test]
async fn a_snapshot_of_hashes_is_refused() {
    let world = World::new().await;
    let mut update = world.west_update(3, &world.records);
    let NamespaceUpdate::Records { entries, .. } = &mut update.namespaces[0] else { panic!() };
    for entry in entries {
        *entry = Entry::Leaf(entry.leaf());
    }
    let whole = NamespaceUpdate::Node(update.namespaces[0].node().unwrap());
    let by_leaf = snapshot(&world.clusters, 7, vec![update.clone()]);
    let (code, text) = world.notice(by_leaf).await;
    assert_eq!(code, RECORDS_WITHHELD, "{text}");
    assert!(text.contains("api-policy is only a hash now"), "{text}");
    world.check_last_good();
    // The whole namespace as one hash is the same.
    let again = World::new().await;
    update.namespaces = vec![whole];
    let (code, _) = again.notice(snapshot(&again.clusters, 7, vec![update])).await;
    assert_eq!(code, RECORDS_WITHHELD);
    again.check_last_good();
}

/// Deltas in another order than they were made in. A gap alone is no lie: the reader asks for a
/// snapshot. One that never mends it is named. Seen to succeed with the check of `from` off.
#[tokio::test]
async fn deltas_out_of_order_are_refused() {
    let world = World::new().await;
    let (more, most) = (
        world.west().exports(&["api", "b"], "north"),
        world.west().exports(&["api", "b", "c"], "north"),
    );
    let story = vec![
        delta(6, 7, vec![world.west_update(5, &most)]),
        delta(5, 6, vec![world.west_update(4, &more)]),
    ];
    world.liar.story(world.north(), story);
    world.node.follow(&world.net);
    let asked_again = async {
        while world.liar.asked() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("three attempts", asked_again).await;
    // The second and third time it asked for everything, and got a delta all the same.
    let asked: Vec<Option<u64>> =
        world.liar.0.lock().unwrap().asked.iter().map(|(_, resume)| *resume).take(3).collect();
    assert_eq!(asked, [Some(5), None, None]);
    world.check_last_good();
    let (code, text) = noticed(world.replica()).await;
    assert_eq!(code, EVENT_OUT_OF_ORDER, "{text}");
}

/// Records of one owner in another order. Seen to succeed with order and digest unchecked.
#[tokio::test]
async fn records_out_of_order_are_refused() {
    let world = World::new().await;
    let records = world.west().exports(&["api", "b"], "north");
    let mut update = world.west_update(4, &records);
    let NamespaceUpdate::Records { entries, .. } = &mut update.namespaces[0] else { panic!() };
    entries.swap(0, 1);
    let (code, text) = world.notice(vec![delta(5, 6, vec![update])]).await;
    assert_eq!(code, EVENT_REFUSED, "{text}");
    assert!(text.contains("ascending order"), "{text}");
    world.check_last_good();
}

/// A snapshot that ends before it is whole. Seen to succeed with the count of parts and
/// `check_whole` off.
#[tokio::test]
async fn a_truncated_snapshot_is_not_taken_up() {
    let world = World::new().await;
    let mut story = snapshot(&world.clusters, 7, vec![world.west_update(4, &world.records)]);
    story.remove(1);
    let (code, text) = world.notice(story).await;
    assert_eq!(code, EVENT_OUT_OF_ORDER, "{text}");
    assert!(text.contains("parts"), "{text}");
    world.check_last_good();
}

/// A record of the liar's own under west's name. Seen to succeed with key and digest unchecked.
#[tokio::test]
async fn a_record_of_another_owner_is_refused() {
    let world = World::new().await;
    let mut update = world.west_update(4, &world.records);
    let record = first_record(&mut update);
    record.key = StoreKey { cluster: world.east().id, ..record.key.clone() };
    let (code, text) = world.notice(vec![delta(5, 6, vec![update])]).await;
    assert_eq!(code, EVENT_REFUSED, "{text}");
    assert!(text.contains("another cluster"), "{text}");
    world.check_last_good();
}

/// The liar has west's generation 4 and shows it to south, but not to north: what north is sent is
/// all true, and old. Seen to go unnoticed with the comparison of Heads off.
#[tokio::test(start_paused = true)]
async fn withholding_is_noticed_named_and_left() {
    let world = World::new().await;
    let south = Node::new(&world.clusters[3]);
    let newer = world.west().exports(&["api", "new"], "north");
    let story = snapshot(&world.clusters, 6, vec![world.west_update(4, &newer)]);
    south.replica().seed(world.east().id, story.clone(), true).await.unwrap();
    world.net.add(south.id, south.server());
    // The owner's own node has everything of its own; here it votes, too.
    let west = Node::new(world.west());
    west.replica().seed(world.east().id, story, true).await.unwrap();
    west.serve_as_voter();
    world.net.add(west.id, west.server());
    world.prefers_the_liar();
    world.node.run(&world.net);
    let begun = tokio::time::Instant::now();
    let (code, text) = noticed(world.replica()).await;
    assert_eq!(code, RECORDS_WITHHELD, "{text}");
    assert!(text.starts_with("east has delivered generation 1.3 of west, "), "{text}");
    assert!(text.contains(" s after generation 1.4 was known from "), "{text}");
    // One round of questions, at most one and a half intervals, and the time of the source.
    assert!(begun.elapsed() <= WITHHELD_AFTER + Duration::from_secs(30), "{:?}", begun.elapsed());
    // The reader takes another source, and has what was withheld from it.
    reach_slowly(world.replica(), 6).await;
    assert_eq!(world.replica().source().map(|(source, _)| source), Some(west.id));
    assert_eq!(world.replica().state().head(&west.id).unwrap().mark, mark(4));
    assert_eq!(exports_of(world.replica(), west.id).len(), 2);
    let report = world.replica().verify_all(&*world.net.links(world.north())).await;
    let finding = &report.findings[0];
    assert_eq!((finding.source, finding.owner), (Some(world.east().id), Some(west.id)));
    assert!(!finding.told_by.is_empty() && !finding.told_by.contains(&world.east().id));
}

/// The liar is an owner, too, and signs two contents as one generation: one for each reader. Seen
/// to go unnoticed with the comparison of Heads off.
#[tokio::test(start_paused = true)]
async fn two_histories_are_noticed_by_both_readers() {
    let world = World::new().await;
    let east = world.east();
    let (one, two) = (east.exports(&["one"], "north"), east.exports(&["two"], "south"));
    let (for_north, for_south) = (east.head(9, 1_000, &one), east.head(9, 1_000, &two));
    let south = Node::new(&world.clusters[3]);
    south.replica().seed(east.id, world.honest_snapshot(), true).await.unwrap();
    world.net.add(south.id, south.server());
    world.net.add(world.north(), world.node.server());
    let story = vec![delta(5, 6, vec![east.update(for_north.clone(), &one, 5)])];
    world.liar.story(world.north(), story);
    let story = vec![delta(5, 6, vec![east.update(for_south.clone(), &two, 5)])];
    world.liar.story(south.id, story);
    world.liar.heads(world.north(), vec![for_north.clone()]);
    world.liar.heads(south.id, vec![for_south.clone()]);
    // Each is fed by the liar alone; only their questions pass between them.
    let only_heads = |node: &Node| {
        let (replica, net) = (node.replica().clone(), Net::default());
        net.add(east.id, world.liar.clone());
        let links = net.links(node.id);
        tokio::spawn(async move { replica.follow(links, Default::default()).await });
    };
    only_heads(&world.node);
    only_heads(&south);
    reach(world.replica(), 6).await;
    reach(south.replica(), 6).await;
    world.node.compare(&world.net);
    south.compare(&world.net);
    for node in [&world.node, &south] {
        let (code, text) = noticed(node.replica()).await;
        assert_eq!(code, SPLIT_VIEW, "{text}");
        assert!(text.starts_with("east signed two contents as generation 1.9: "), "{text}");
        // Both signed Heads are kept: anybody can verify them again.
        let finding = node.replica().observer().findings().remove(0);
        let evidence: BTreeSet<Vec<u8>> = finding.evidence.into_iter().collect();
        assert_eq!(evidence, BTreeSet::from([for_north.encode(), for_south.encode()]));
        assert_eq!(finding.owner, Some(east.id));
    }
    let report = world.replica().verify_all(&*world.net.links(world.north())).await;
    let row = report.owners.iter().find(|row| row.owner == east.id).unwrap();
    assert_eq!(row.differ, [south.id], "{row:?}");
}

/// A reader that has one content of a generation is sent the other one. Seen to succeed with the
/// check of equal marks off.
#[tokio::test]
async fn another_content_of_the_same_generation_is_refused_and_names_the_owner() {
    let mut world = World::new().await;
    let other = world.west().exports(&["other"], "north");
    let story = vec![delta(5, 6, vec![world.west_update(3, &other)])];
    let (code, text) = world.notice(story).await;
    assert_eq!(code, SPLIT_VIEW, "{text}");
    assert!(text.starts_with("west signed two contents as generation 1.3: "), "{text}");
    let codes: Vec<Code> =
        world.replica().observer().findings().iter().map(|finding| finding.code).collect();
    assert_eq!(codes, [SPLIT_VIEW, EVENT_REFUSED]);
    world.check_last_good();
    // The evidence is on the disk.
    let before = world.replica().observer().findings();
    let north = federation(&["east", "west", "north", "south"]).remove(2);
    world.node.restart(&north).await;
    assert_eq!(world.replica().observer().findings(), before);
    assert_eq!(before[0].evidence.len(), 2);
}

/// Heads that somebody tells count only with their owner's signature: nobody can frame an owner or
/// a source. Seen to succeed with the verification of told Heads off.
#[tokio::test]
async fn heads_that_nobody_signed_frame_nobody() {
    let world = World::new().await;
    let other = world.west().exports(&["other"], "north");
    let forged = |generation| {
        let payload = world.west().head(generation, 1, &other).payload.to_vec();
        let signed = super::world::sign(&world.east().key, wire::store::Domain::Head, payload);
        Signed { key_id: world.west().key.key_id(), ..signed }
    };
    let heads = [forged(3), forged(8)];
    let told = world.replica().observer().tell(world.east().id, &heads, Now::read());
    assert_eq!((told.heads.len(), told.refused.len()), (0, 2), "{told:?}");
    assert!(told.refused[0].starts_with("west: FED6102: "), "{told:?}");
    assert!(world.replica().observer().findings().is_empty());
    world.check_last_good();
}
