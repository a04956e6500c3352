//! Readers: what they may see, and what they do not believe.

use std::collections::BTreeSet;

use model::code::{
    DIGEST_WRONG, EVENT_OUT_OF_ORDER, EVENT_REFUSED, NOT_A_MEMBER, OTHER_FEDERATION, ROLLED_BACK,
    SIGNATURE_REFUSED,
};
use model::{ClusterId, FederationId, Resource, Revision};
use wire::store::{
    Change, Command, Entry, FleetUpdate, NamespaceUpdate, RecordEntry, StoreKey, WatchEvent,
};

use super::fixture::{Cluster, World, allow, domain, export, grant_namespace};
use crate::fleet::{Fleet, FleetState, VerifiedView, View, ViewError, ViewStep, serving};

/// A reader, and what it has been sent.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub(super) id: ClusterId,
    pub(super) view: VerifiedView,
    pub(super) sent: Option<View>,
}

impl Reader {
    pub(super) fn new(cluster: &Cluster) -> Self {
        let view = VerifiedView::new(cluster.id(), cluster.federation());
        Self { id: cluster.id(), view, sent: None }
    }

    pub(super) fn offered(&self, fleet: &Fleet) -> View {
        let serving = serving(fleet);
        match &self.sent {
            Some(sent) => sent.at(fleet, &serving),
            None => View::of(fleet, &serving, &self.id),
        }
    }

    /// The events of an honest source.
    pub(super) fn events(&self, fleet: &Fleet) -> Vec<WatchEvent> {
        let now = self.offered(fleet);
        let step = self.sent.as_ref().map(|sent| now.step_from(sent, self.view.fleet().revision()));
        match step {
            Some(ViewStep::Nothing) => vec![],
            Some(ViewStep::Delta(event)) => vec![event],
            Some(ViewStep::Snapshot) | None => now.snapshot(),
        }
    }

    /// Reads on from an honest source, and sees what it is to see.
    pub(super) fn read(&mut self, world: &World) {
        let fleet = world.state.fleet();
        for event in self.events(fleet) {
            let event = WatchEvent::decode(event.encode()).expect("it survives the wire");
            self.view.apply(&event).unwrap_or_else(|error| panic!("refused: {error}"));
        }
        let now = self.offered(fleet);
        assert_eq!(keys(self.view.fleet()), keys(now.fleet()));
        assert_eq!(names(self.view.fleet()), names(fleet));
        self.sent = Some(now);
        let kv = self.view.to_kv();
        let loaded = VerifiedView::load(self.id, self.view.anchor(), kv.clone()).unwrap();
        assert_eq!(loaded.to_kv(), kv);
    }

    /// A refusal leaves the view as it was.
    fn refuse(&mut self, event: &WatchEvent) -> ViewError {
        let before = self.view.to_kv();
        let error = self.view.apply(event).expect_err("it should be refused");
        assert_eq!(self.view.to_kv(), before);
        error
    }

    fn sees(&self, cluster: &Cluster, name: &str) -> bool {
        let key = StoreKey::of(cluster.id(), &export(name, 80).key());
        self.view.fleet().record(&key).is_some()
    }
}

pub(super) fn keys(fleet: &Fleet) -> BTreeSet<(StoreKey, Revision)> {
    let records = fleet.owners().flat_map(crate::fleet::Owner::records);
    records.map(|record| (record.key().clone(), record.since())).collect()
}

pub(super) fn names(fleet: &Fleet) -> Vec<(String, &'static str)> {
    fleet.entries().map(|it| (it.member().name.to_string(), it.status().as_str())).collect()
}

/// East exports an api to west and a bank to nobody; north reads nothing yet.
fn scene() -> (World, Cluster, Cluster, Reader) {
    let (mut world, mut east) = World::founded();
    let west = world.admit(&east, "west");
    let peer = east.peer_resource();
    world.publish(
        &mut east,
        &[
            peer,
            export("shop/api", 80),
            allow("shop/api", &["west"]),
            export("shop/bank", 80),
            allow("shop/bank", &["north"]),
            export("secret/plans", 80),
        ],
    );
    let mut reader = Reader::new(&west);
    reader.read(&world);
    (world, east, west, reader)
}

#[test]
fn a_reader_sees_what_it_could_reach_and_hashes_of_the_rest() {
    let (_, east, _, reader) = scene();
    assert!(reader.sees(&east, "shop/api"));
    assert!(!reader.sees(&east, "shop/bank") && !reader.sees(&east, "secret/plans"));
    assert_eq!(reader.view.fleet().records(&east.id()).count(), 3);
    let bytes = format!("{:?}", reader.view.to_kv());
    for hidden in ["bank", "plans", "secret"] {
        let shown = format!("{:?}", hidden.as_bytes());
        assert!(!bytes.contains(shown.trim_matches(['[', ']'])), "{hidden} was sent");
    }
}

#[test]
fn a_reader_follows_by_deltas() {
    let (mut world, mut east, mut west, mut reader) = scene();
    world.publish(&mut east, &[allow("shop/bank", &["west", "north"])]);
    let events = reader.events(world.state.fleet());
    let [WatchEvent::Delta { update, .. }] = &events[..] else { panic!("{events:?}") };
    let sent = |update: &FleetUpdate| -> usize {
        let entries = update.owners[0].namespaces.iter().map(|it| match it {
            NamespaceUpdate::Node(_) => 0,
            NamespaceUpdate::Records { entries, .. } => {
                entries.iter().filter(|entry| matches!(entry, Entry::Record(_))).count()
            }
        });
        entries.sum()
    };
    assert_eq!(sent(update), 2, "the policy and its target; what it holds is a hash");
    reader.read(&world);
    assert!(reader.sees(&east, "shop/bank"));

    world.publish(&mut east, &[allow("shop/api", &["north"])]);
    reader.read(&world);
    assert!(!reader.sees(&east, "shop/api"), "what it may not see any more it forgets");
    let nothing_of_west = world.revision();
    world.publish(&mut east, &[export("secret/more", 80)]);
    reader.read(&world);
    assert!(reader.view.fleet().revision() > nothing_of_west, "the Head is new");
    world.publish(&mut west, &[export("secret/plans", 80)]);
    reader.read(&world);
    assert!(reader.sees(&east, "secret/plans"), "a conflict is shown to both");
    let gone = east.publish(&[], &[allow("shop/bank", &[]), export("shop/bank", 80)]);
    world.accept(gone);
    reader.read(&world);
    world.accept(east.revoke(&west, &[]));
    reader.read(&world);
    assert!(reader.view.fleet().member(&west.id()).is_none());
}

/// What a new voter is handed as the log is laid beside what it has verified as a reader.
#[test]
fn a_log_that_was_made_up_is_told_from_one_that_goes_on() {
    let (mut world, mut east, west, mut reader) = scene();
    reader.read(&world);
    let short = world.state.fleet().clone();
    world.publish(&mut east, &[export("shop/new", 80)]);
    let published = world.state.fleet().clone();
    let south = world.admit(&east, "south");
    let joined = world.state.fleet().clone();
    world.accept(east.revoke(&south, &[]));
    let revoked = world.state.fleet().clone();
    world.accept(west.leave(&west));
    let left = world.state.fleet().clone();
    let all = [&short, &published, &joined, &revoked, &left];
    for (n, earlier) in all.iter().enumerate() {
        for later in &all[n..] {
            assert_eq!(later.rolls_back(earlier), None);
        }
        assert_eq!(left.rolls_back(reader.view.fleet()), None, "a reader's part of it");
    }
    let lost = |now: &Fleet, before: &Fleet| now.rolls_back(before).unwrap();
    assert_eq!(lost(&short, &published), "it has an older Head of east");
    assert_eq!(lost(&published, &joined), "it has lost the member south");
    assert!(lost(&joined, &revoked).starts_with("it has lost the revocation of Cluster("));
    assert_eq!(lost(&revoked, &left), "it has an older state of west");
    let grant = east.grant("north", model::RoleSet::NONE, 0);
    let signed = east.sign(wire::store::Domain::Token, &grant.encode());
    world.accept(Change::IssueToken(signed));
    let open = world.state.clone();
    world.accept(east.admin(wire::store::AdminChange::RevokeToken(grant.token_id)));
    let closed = world.state.clone();
    assert_eq!(closed.rolls_back(&open), None);
    let text = format!("the token {} is open in it again", grant.token_id);
    assert_eq!(open.rolls_back(&closed), Some(text));
    let forged = Cluster::root("mallory");
    let mut other = FleetState::empty();
    let found = Change::Found(forged.root_link());
    let command = Command { request_id: [1; 16], proposed_at_unix_ms: 1, change: found };
    other.apply(Revision { epoch: 9, index: 9 }, &command.encode()).unwrap();
    assert!(lost(other.fleet(), &short).starts_with("it is of the federation "));
}

/// An export that a hidden one keeps from serving has to go from the view; a delta could not say so.
#[test]
fn what_a_hidden_export_supplants_goes_by_a_snapshot() {
    let (mut world, mut east) = World::founded();
    let mut west = world.admit(&east, "west");
    let south = world.admit(&east, "south");
    world.publish(&mut east, &[export("shop/api", 80), grant_namespace("g", &["shop"], &["west"])]);
    world.publish(&mut west, &[export("shop/api", 80), allow("shop/api", &["south"])]);
    let mut reader = Reader::new(&south);
    reader.read(&world);
    assert!(reader.sees(&west, "shop/api"), "the grant lets west serve");
    let gone = east.publish(&[], &[grant_namespace("g", &[], &[])]);
    world.accept(gone);
    let events = reader.events(world.state.fleet());
    assert!(matches!(events[0], WatchEvent::SnapshotBegin { .. }), "{events:?}");
    reader.read(&world);
    assert!(!reader.sees(&west, "shop/api"), "east was first, though south may not see it");
}

#[test]
fn a_large_view_comes_in_parts() {
    let (mut world, mut east) = World::founded();
    let west = world.admit(&east, "west");
    for n in 0..10 {
        let records: Vec<Resource> = (0..400)
            .map(|it| {
                let name = format!("n{n}/{}.{}.{it}", "y".repeat(60), "y".repeat(60));
                export(&name, 80)
            })
            .collect();
        let change = east.publish(&records, &[]);
        world.accept(change);
    }
    let mut reader = Reader::new(&east);
    assert!(reader.events(world.state.fleet()).len() > 3);
    reader.read(&world);
    assert_eq!(reader.view.fleet().records(&east.id()).count(), 4000);
    Reader::new(&west).read(&world);
}

/// The next event for a reader after east changed something.
fn pending(scene: &mut (World, Cluster, Cluster, Reader)) -> (Revision, Revision, FleetUpdate) {
    let (world, east, _, reader) = scene;
    world.publish(east, &[export("shop/api", 81)]);
    let events = reader.events(world.state.fleet());
    let [WatchEvent::Delta { from, revision, update }] = &events[..] else { panic!("{events:?}") };
    (*from, *revision, update.clone())
}

type Lie = fn(&mut FleetUpdate, &mut Revision, &Cluster);

#[test]
fn a_lying_source_is_not_believed() {
    fn entries(update: &mut FleetUpdate) -> &mut Vec<Entry> {
        let shown = update.owners[0].namespaces.iter_mut().find_map(|it| match it {
            NamespaceUpdate::Records { entries, .. } => Some(entries),
            NamespaceUpdate::Node(_) => None,
        });
        shown.expect("the changed namespace")
    }
    fn record(update: &mut FleetUpdate) -> &mut RecordEntry {
        let found = entries(update).iter_mut().find_map(|entry| match entry {
            Entry::Record(record) => Some(record),
            Entry::Leaf(_) => None,
        });
        found.expect("the changed record")
    }
    let lies: Vec<(&str, Lie, model::code::Code)> = vec![
        ("a leaf withheld", |x, _, _| drop(entries(x).pop()), DIGEST_WRONG),
        (
            "a leaf altered",
            |x, _, _| {
                entries(x)[2] = Entry::Leaf([9; 32]);
            },
            DIGEST_WRONG,
        ),
        ("leaves in another order", |x, _, _| entries(x).reverse(), DIGEST_WRONG),
        (
            "a record forged",
            |x, _, east| {
                record(x).record = east.put(&export("shop/api", 666)).record;
            },
            DIGEST_WRONG,
        ),
        (
            "a record more",
            |x, _, east| {
                let put = east.put(&export("shop/zzz", 80));
                let since = record(x).since;
                entries(x).push(Entry::Record(RecordEntry {
                    key: put.key,
                    record: put.record,
                    since,
                }));
            },
            DIGEST_WRONG,
        ),
        ("a namespace left out", |x, _, _| drop(x.owners[0].namespaces.pop()), DIGEST_WRONG),
        (
            "a namespace more",
            |x, _, _| {
                x.owners[0].namespaces.push(NamespaceUpdate::Node([1; 32]));
            },
            DIGEST_WRONG,
        ),
        (
            "a Head without its owner's signature",
            |x, _, _| {
                x.owners[0].head.signature[3] ^= 1;
            },
            SIGNATURE_REFUSED,
        ),
        (
            "a Head of another key",
            |x, _, _| {
                let other = super::fixture::key("mallory");
                let mut head = wire::store::Head::decode(&x.owners[0].head.payload).unwrap();
                head.key_id = other.key_id();
                x.owners[0].head =
                    super::fixture::sign(&other, wire::store::Domain::Head, &head.encode());
            },
            SIGNATURE_REFUSED,
        ),
        (
            "a Head in another's place",
            |x, _, _| {
                x.owners[0].cluster = ClusterId::from_bytes([1; 16]);
            },
            NOT_A_MEMBER,
        ),
        (
            "an owner twice",
            |x, _, _| {
                let owner = x.owners[0].clone();
                x.owners.push(owner);
            },
            EVENT_REFUSED,
        ),
        (
            "an export older than it was",
            |x, _, _| {
                record(x).since = Revision { epoch: 1, index: 1 };
            },
            EVENT_REFUSED,
        ),
        (
            "an export of the future",
            |x, _, _| {
                record(x).since = Revision { epoch: 9, index: 1 };
            },
            EVENT_REFUSED,
        ),
        ("an event left out before", |_, from, _| from.index += 1, EVENT_OUT_OF_ORDER),
    ];
    for (name, lie, code) in lies {
        let mut scene = scene();
        let (mut from, revision, mut update) = pending(&mut scene);
        let honest = WatchEvent::Delta { from, revision, update: update.clone() };
        lie(&mut update, &mut from, &scene.1);
        let event = WatchEvent::Delta { from, revision, update };
        let error = scene.3.refuse(&event);
        assert_eq!(error.code, code, "{name}: {error}");
        scene.3.view.apply(&honest).unwrap_or_else(|error| panic!("{name}: {error}"));
        let again = scene.3.refuse(&honest);
        assert_eq!(again.code, EVENT_OUT_OF_ORDER, "replayed");
        assert!(again.is_gap());
    }
}

/// Without the digest's check the same lie is in the reader's state: so it is the check that stops it.
#[test]
fn without_the_digest_a_forged_record_would_be_believed() {
    let mut scene = scene();
    let (_, _, update) = pending(&mut scene);
    let (_, east, _, reader) = &scene;
    let owner = reader.view.fleet().owner(&east.id()).unwrap();
    let forged = east.put(&export("shop/api", 666));
    let record = crate::fleet::Record::new(forged.key.clone(), forged.record, scene.0.revision());
    let entry = crate::fleet::record::Entry::Record(std::sync::Arc::new(record));
    let namespace = crate::fleet::NamespaceRecords::new(forged.key.namespace.clone(), vec![entry]);
    let node = crate::fleet::owner::NamespaceNode::Shown(namespace);
    let believed = owner.with_nodes(vec![std::sync::Arc::new(node)]);
    assert!(believed.record(&forged.key).is_some());
    let head = wire::store::Head::of(&update.owners[0].head).unwrap();
    let refusal = crate::fleet::owner::check_digest(&head, believed.nodes()).unwrap_err();
    assert_eq!(refusal.code, DIGEST_WRONG);
}

#[test]
fn snapshots_are_whole_or_nothing() {
    let (mut world, mut east, west, mut reader) = scene();
    let old = reader.sent.clone().unwrap().snapshot();
    world.publish(&mut east, &[export("shop/api", 81)]);
    world.accept(east.own_update(|member| member.epoch = 2));
    reader.read(&world);
    let now = reader.sent.clone().unwrap().snapshot();
    let fed = |reader: &mut Reader, events: &[WatchEvent]| -> ViewError {
        let before = reader.view.to_kv();
        let error = events.iter().find_map(|event| reader.view.apply(event).err());
        assert_eq!(reader.view.to_kv(), before);
        error.expect("it should be refused")
    };
    let error = fed(&mut reader, &old);
    assert_eq!(error.code, ROLLED_BACK, "an older state: {error}");
    let cut = [&now[..1], &now[2..]].concat();
    assert_eq!(fed(&mut reader, &cut).code, EVENT_OUT_OF_ORDER, "a part left out");
    assert_eq!(fed(&mut reader, &now[1..]).code, EVENT_OUT_OF_ORDER, "without its beginning");
    let parts = |change: fn(&mut FleetUpdate)| -> Vec<WatchEvent> {
        let mut events = now.clone();
        for event in &mut events {
            if let WatchEvent::SnapshotPart { update, .. } = event {
                change(update);
            }
        }
        events
    };
    let error = fed(&mut reader, &parts(|update| update.owners.clear()));
    assert_eq!(error.code, ROLLED_BACK);
    assert!(error.text.contains("leaves out the Head of east"), "{error}");
    let error = fed(&mut reader, &parts(|update| update.members.retain(|it| it.links.len() > 1)));
    assert!(error.text.contains("leaves out the member west"), "{error}");
    let error = fed(
        &mut reader,
        &parts(|update| {
            update.members.iter_mut().for_each(|chain| chain.links.truncate(1));
        }),
    );
    assert_eq!(error.code, ROLLED_BACK, "a shorter chain: {error}");
    let (revision, other) = (world.revision(), FederationId::from_bytes([1; 16]));
    let begin = WatchEvent::SnapshotBegin { revision, federation: other };
    assert_eq!(fed(&mut reader, &[begin]).code, OTHER_FEDERATION);
    for event in &now {
        reader.view.apply(event).unwrap();
    }
    assert!(reader.view.fleet().member(&west.id()).is_some());
}

#[test]
fn a_stranger_is_no_member_whatever_a_source_says() {
    let (world, east, west, mut reader) = scene();
    let from = reader.view.fleet().revision();
    let revision = Revision { index: from.index + 1, ..from };
    let delta = |chain: wire::store::MemberChain| WatchEvent::Delta {
        from,
        revision,
        update: FleetUpdate { members: vec![chain], ..FleetUpdate::default() },
    };
    let chain = |link| wire::store::MemberChain { links: vec![link], leave: None };
    let other = Cluster::root("mallory");
    let error = reader.refuse(&delta(chain(other.root_link())));
    assert_eq!(error.code, OTHER_FEDERATION, "a root of its own");
    let grant = east.grant("mallory", model::RoleSet::NONE, 0);
    let mallory = Cluster::joining("mallory", &grant, &east);
    let error = reader.refuse(&delta(chain(mallory.link_by(&mallory))));
    assert_eq!(error.code, NOT_A_MEMBER, "signed by itself");
    let mut altered = mallory.link_by(&east);
    altered.member.signature[0] ^= 1;
    assert_eq!(reader.refuse(&delta(chain(altered))).code, SIGNATURE_REFUSED);
    let mut greedy = mallory;
    greedy.member.issuer = west.id();
    greedy.member.delegation_depth = 2;
    let error = reader.refuse(&delta(chain(greedy.link_by(&west))));
    assert_eq!(error.code, model::code::ROLE_MISSING, "deeper than its issuer: {error}");
    assert_eq!(names(reader.view.fleet()), names(world.state.fleet()));
}

#[test]
fn a_revocation_counts_by_any_path_and_stays() {
    let (mut world, east, mut west, mut reader) = scene();
    let south = world.admit(&west, "south");
    reader.read(&world);
    let target = wire::store::RevocationTarget::TrustDomain(domain("west"));
    let forged = south.revocation(target.clone(), &[]);
    let mut by_west = forged.clone();
    by_west.signature[0] ^= 1;
    assert!(reader.view.revoke(&by_west).is_err());
    let signed = east.revocation(target, &[]);
    let change = reader.view.revoke(&signed).unwrap();
    assert_eq!(change.revision, reader.view.fleet().revision());
    assert!(reader.view.fleet().is_revoked(&west.id()));
    assert!(reader.view.fleet().is_revoked(&south.id()), "and whom it answers for");
    world.publish(&mut west, &[export("shop/late", 80)]);
    for event in reader.events(world.state.fleet()) {
        reader.view.apply(&event).expect("the source does not know yet, which is no lie");
    }
    assert!(reader.view.fleet().owner(&west.id()).is_none(), "and it changes nothing");
    reader.sent = Some(reader.offered(world.state.fleet()));
    world.accept(Change::Revoke(signed));
    reader.read(&world);
    assert_eq!(reader.view.fleet().revocations().count(), 1, "it came a second time");
}

#[test]
fn a_stored_view_is_verified_again() {
    let (_, east, west, reader) = scene();
    let kv = reader.view.to_kv();
    for (index, (key, value)) in kv.iter().enumerate() {
        if !matches!(key[0], b'm' | b'v') {
            continue;
        }
        for place in 0..value.len() {
            let mut altered = kv.clone();
            altered[index].1[place] ^= 0x10;
            let loaded = VerifiedView::load(west.id(), east.federation(), altered);
            assert!(loaded.is_err(), "byte {place} of {}", key.escape_ascii());
        }
    }
    let mut without = kv.clone();
    without.retain(|(key, _)| key[0] != b'o');
    let error = VerifiedView::load(west.id(), east.federation(), without).unwrap_err();
    assert!(error.text.contains("the Head at the high-water mark is missing"), "{error}");
    let other = FederationId::from_bytes([1; 16]);
    assert!(VerifiedView::load(west.id(), other, kv).is_err());
}
