//! Every guard of `apply`, by an attempt that it stops; the heavier ones are first seen to succeed
//! without it.

use std::sync::Arc;

use bytes::Bytes;
use model::code::{self, Code};
use model::{FederationId, Resource, Revision, RoleSet, Service};
use wire::store::{
    AdminChange, Change, Command, Domain, Head, Publish, RecordPut, RevocationTarget, StoreKey,
    TokenGrant,
};

use super::fixture::{Cluster, NOW_MS, World, domain, export, key, service, sign, token_id};
use crate::fleet::apply::Draft;
use crate::fleet::owner::{self, Step};
use crate::fleet::{Fleet, FleetState, Record};

/// East with a record, west and its own child, and a token that waits for `north`.
struct Scene {
    world: World,
    east: Cluster,
    west: Cluster,
    south: Cluster,
}

fn scene() -> Scene {
    let (mut world, mut east) = World::founded();
    let west = world.admit(&east, "west");
    let south = world.admit_with(&west, "south", RoleSet::NONE, 0);
    world.publish(&mut east, &[export("shop/api", 80)]);
    let grant = north_grant(&east);
    world.accept(Change::IssueToken(east.sign(Domain::Token, &grant.encode())));
    Scene { world, east, west, south }
}

fn north_grant(east: &Cluster) -> TokenGrant {
    east.grant("north", RoleSet::NONE.with(model::Role::Export), 1)
}

/// North, as it asks to be let in.
fn north(scene: &Scene) -> Cluster {
    Cluster::joining("north", &north_grant(&scene.east), &scene.east)
}

type Attempt = fn(&mut Scene) -> Change;

fn check(rows: &[(&str, Attempt, Code, &str)]) {
    for (name, attempt, code, text) in rows {
        let mut scene = scene();
        let change = attempt(&mut scene);
        // `refuse` sees to it that nothing has changed.
        let refusal = scene.world.refuse(change);
        assert_eq!(refusal.code, *code, "{name}: {refusal}");
        assert!(refusal.text.contains(text), "{name}: {refusal}");
    }
}

#[test]
fn bytes_that_are_no_command() {
    let (mut world, east) = World::founded();
    for bytes in [&[][..], &[0xff; 40], &vec![0; 300 * 1024]] {
        let refusal = world.apply_bytes(bytes).unwrap_err();
        assert_eq!(refusal.code, code::COMMAND_INVALID, "{refusal}");
        assert!(refusal.text.contains("Command"), "{refusal}");
    }
    let command = Command {
        request_id: [1; 16],
        proposed_at_unix_ms: NOW_MS,
        change: Change::Found(east.root_link()),
    };
    let refusal = world.state.apply(Revision::default(), &command.encode()).unwrap_err();
    assert!(refusal.text.contains("is applied already"), "{refusal}");
}

#[test]
fn founding() {
    let founded: Attempt = |_| Change::Found(Cluster::root("other").root_link());
    check(&[("twice", founded, code::OTHER_FEDERATION, "is founded already")]);
    let mut world = World { now_ms: NOW_MS, ..World::default() };
    let mut root = Cluster::root("east");
    let publish = root.publish(&[], &[]);
    let refusal = world.refuse(publish);
    assert!(refusal.text.contains("no federation is founded here yet"), "{refusal}");
    let mut forged = root.root_link();
    forged.member.signature[5] ^= 1;
    assert_eq!(world.refuse(Change::Found(forged)).code, code::SIGNATURE_REFUSED);
    let payload = root.member.encode();
    let by_other = sign(&key("other"), Domain::Member, &payload);
    let by_other = wire::store::SignedMember { member: by_other, key_proof: None };
    assert_eq!(world.refuse(Change::Found(by_other)).code, code::SIGNATURE_REFUSED);
    let later = root.changed(|_| ());
    let later = sign(&root.key, Domain::Member, &later.encode());
    let later = wire::store::SignedMember { member: later, key_proof: None };
    assert!(world.refuse(Change::Found(later)).text.contains("member_generation = 2"));
}

/// A publish of east's whose Head is changed before it is signed.
fn with_head(scene: &mut Scene, change: impl FnOnce(&mut Head)) -> Change {
    let Change::Publish(publish) = scene.east.publish(&[export("shop/web", 80)], &[]) else {
        unreachable!()
    };
    let mut head = scene.east.head();
    change(&mut head);
    let head = scene.east.sign(Domain::Head, &head.encode());
    Change::Publish(Publish { head, ..publish })
}

fn altered(scene: &mut Scene, change: impl FnOnce(&mut Publish)) -> Change {
    let Change::Publish(mut publish) = scene.east.publish(&[export("shop/web", 80)], &[]) else {
        unreachable!()
    };
    change(&mut publish);
    Change::Publish(publish)
}

#[test]
fn publishing() {
    check(&[
        (
            "another federation",
            |x| with_head(x, |head| head.federation = FederationId::from_bytes([1; 16])),
            code::OTHER_FEDERATION,
            "Head.federation",
        ),
        (
            "a stranger",
            |_| Cluster::root("stranger").publish_as_stranger(),
            code::OTHER_FEDERATION,
            "Head.federation",
        ),
        (
            "who never joined",
            |x| north(x).publish(&[], &[]),
            code::NOT_A_MEMBER,
            "is no active member",
        ),
        (
            "a flipped signature",
            |x| altered(x, |it| it.head.signature[9] ^= 1),
            code::SIGNATURE_REFUSED,
            "",
        ),
        (
            "signed for another purpose",
            |x| {
                x.east.mark.generation += 1;
                let head = x.east.sign(Domain::Member, &x.east.head().encode());
                Change::Publish(Publish { head, puts: vec![], removes: vec![] })
            },
            code::SIGNATURE_REFUSED,
            "",
        ),
        (
            "another cluster's key",
            |x| {
                x.east.mark.generation += 1;
                let head = Head { key_id: x.west.key.key_id(), ..x.east.head() };
                let head = x.west.sign(Domain::Head, &head.encode());
                Change::Publish(Publish { head, puts: vec![], removes: vec![] })
            },
            code::SIGNATURE_REFUSED,
            "it is no key of the member east",
        ),
        (
            "the same generation",
            |x| with_head(x, |head| head.mark.generation = 1),
            code::GENERATION_STALE,
            "1.1 is in force; publish above it",
        ),
        (
            "an epoch of its own",
            |x| with_head(x, |head| head.mark.epoch = 2),
            code::EPOCH_WRONG,
            "Head.epoch = 2: the epoch of east is 1",
        ),
        (
            "another's record",
            |x| {
                let put = x.west.put(&export("shop/web", 80));
                x.east.publish_raw(vec![put], vec![])
            },
            code::NOT_OWNER,
            "owns and writes it",
        ),
        (
            "a remove of another's",
            |x| {
                let key = StoreKey::of(x.west.id(), &export("shop/web", 80).key());
                x.east.publish_raw(vec![], vec![key])
            },
            code::NOT_OWNER,
            "owns and writes it",
        ),
        (
            "what stays local",
            |x| {
                let local = Resource::Service(Service { name: service("shop/web"), ports: vec![] });
                x.east.publish(&[local], &[])
            },
            code::NOT_OWNER,
            "objects of this kind stay in their cluster",
        ),
        (
            "another's ClusterPeer",
            |x| {
                let peer = x.west.peer_resource();
                x.east.publish(&[peer], &[])
            },
            code::NOT_OWNER,
            "the ClusterPeer of this member is named east",
        ),
        (
            "a record left out",
            |x| altered(x, |it| it.puts.clear()),
            code::DIGEST_WRONG,
            "Head.records = 2: there are 1",
        ),
        (
            "a record altered",
            |x| {
                altered(x, |it| {
                    let mut bytes = it.puts[0].record.to_vec();
                    bytes[4] ^= 1;
                    it.puts[0].record = Bytes::from(bytes);
                })
            },
            code::DIGEST_WRONG,
            "Head.digest",
        ),
        (
            "a wrong count",
            |x| with_head(x, |head| head.records = 3),
            code::DIGEST_WRONG,
            "Head.records = 3: there are 2",
        ),
    ]);
}

impl Cluster {
    /// Its own federation's Head, which nobody here has asked for.
    fn publish_as_stranger(mut self) -> Change {
        self.publish(&[], &[])
    }
}

#[test]
fn quotas() {
    let (mut world, mut east) = World::founded();
    let wide: Vec<RecordPut> = (0..=crate::fleet::limits::NAMESPACES_PER_CLUSTER_MAX)
        .map(|n| east.put(&export(&format!("n{n}/x"), 80)))
        .collect();
    let refusal = publish_all(&mut world, &mut east, wide);
    assert_eq!(refusal.code, code::QUOTA_EXCEEDED);
    assert!(
        refusal.text.contains("1025 namespaces are more than a cluster's quota of 1024"),
        "{refusal}"
    );

    let max = wire::store::limits::RECORD_BYTES_PER_CLUSTER_MAX;
    let (mut world, mut east) = World::founded();
    let large = vec![b'x'; wire::store::limits::RECORD_BYTES_MAX];
    let heavy: Vec<RecordPut> = (0..=max / large.len())
        .map(|n| {
            let key = StoreKey::of(east.id(), &export(&format!("shop/x{n}"), 80).key());
            RecordPut { key, record: Bytes::from(large.clone()) }
        })
        .collect();
    let refusal = publish_all(&mut world, &mut east, heavy);
    assert_eq!(refusal.code, code::QUOTA_EXCEEDED);
    assert!(refusal.text.contains("bytes of records are more than"), "{refusal}");
}

/// Publishes in steps of three until one is refused.
fn publish_all(
    world: &mut World,
    cluster: &mut Cluster,
    puts: Vec<RecordPut>,
) -> crate::fleet::Refusal {
    let step = if puts[0].record.len() > 1000 { 3 } else { 500 };
    for puts in puts.chunks(step) {
        let change = cluster.publish_raw(puts.to_vec(), vec![]);
        if let Err(refusal) = world.quick(change) {
            return refusal;
        }
    }
    panic!("nothing was refused");
}

fn token(by: &Cluster, grant: &TokenGrant) -> Change {
    Change::IssueToken(by.sign(Domain::Token, &grant.encode()))
}

#[test]
fn tokens() {
    check(&[
        ("again", |x| token(&x.east, &north_grant(&x.east)), code::TOKEN_USED, "issued already"),
        (
            "another federation",
            |x| {
                let federation = FederationId::from_bytes([1; 16]);
                token(&x.east, &TokenGrant { federation, ..x.east.grant("a", RoleSet::NONE, 0) })
            },
            code::OTHER_FEDERATION,
            "TokenGrant.federation",
        ),
        (
            "by who may not admit",
            |x| token(&x.south, &x.south.grant("a", RoleSet::NONE, 0)),
            code::ROLE_MISSING,
            "south has the roles none and lacks admit",
        ),
        (
            "in another's name",
            |x| token(&x.west, &x.east.grant("a", RoleSet::NONE, 0)),
            code::SIGNATURE_REFUSED,
            "the open key of east is",
        ),
        (
            "deeper than oneself",
            |x| token(&x.west, &x.west.grant("a", RoleSet::NONE, 2)),
            code::ROLE_MISSING,
            "delegation_depth = 2: below west it is at most 1",
        ),
        (
            "a name that is taken",
            |x| {
                let grant = TokenGrant {
                    token_id: token_id("b"),
                    ..x.east.grant("west", RoleSet::NONE, 0)
                };
                token(&x.east, &grant)
            },
            code::NAME_TAKEN,
            "name = west",
        ),
        (
            "expired on arrival",
            |x| {
                x.world.now_ms += super::fixture::TOKEN_LIFETIME_MS;
                token(&x.east, &x.east.grant("a", RoleSet::NONE, 0))
            },
            code::TOKEN_EXPIRED,
            "issue another one",
        ),
        (
            "revoked by a stranger to it",
            |x| x.south.admin(AdminChange::RevokeToken(token_id("north"))),
            code::ROLE_MISSING,
            "lacks admin",
        ),
        (
            "revoked though unknown",
            |x| x.east.admin(AdminChange::RevokeToken(token_id("zz"))),
            code::TOKEN_UNKNOWN,
            "no such token",
        ),
        (
            "revoked after use",
            |x| x.east.admin(AdminChange::RevokeToken(token_id("west"))),
            code::TOKEN_USED,
            "revoke that member",
        ),
    ]);
    let (mut world, east) = World::founded();
    for n in 0..wire::store::limits::OPEN_TOKENS_MAX {
        let grant = east.grant(&format!("c{n}"), RoleSet::NONE, 0);
        world.quick(token(&east, &grant)).unwrap();
    }
    let refusal = world.refuse(token(&east, &east.grant("last", RoleSet::NONE, 0)));
    assert_eq!(refusal.code, code::STORE_TABLE_FULL);
    assert!(refusal.text.contains("256 open tokens"), "{refusal}");
}

#[test]
fn redeeming() {
    check(&[
        (
            "unknown",
            |x| {
                let grant = x.east.grant("zz", RoleSet::NONE, 0);
                Cluster::joining("zz", &grant, &x.east).redeem(&x.east)
            },
            code::TOKEN_UNKNOWN,
            "no such token was issued here",
        ),
        ("used", |x| x.west.redeem(&x.east), code::TOKEN_USED, "redeemed it at revision"),
        (
            "revoked",
            |x| {
                x.world.accept(x.east.admin(AdminChange::RevokeToken(token_id("north"))));
                north(x).redeem(&x.east)
            },
            code::TOKEN_REVOKED,
            "it was revoked at revision",
        ),
        (
            "expired",
            |x| {
                x.world.now_ms += super::fixture::TOKEN_LIFETIME_MS;
                north(x).redeem(&x.east)
            },
            code::TOKEN_EXPIRED,
            "it has expired",
        ),
        (
            "another name",
            |x| {
                let mut it = north(x);
                it.member.name = model::ClusterName::parse("nord").unwrap();
                it.redeem(&x.east)
            },
            code::TOKEN_MISMATCH,
            "Member.name = nord: the token grants north",
        ),
        (
            "more roles",
            |x| {
                let mut it = north(x);
                it.member.roles = RoleSet::all();
                it.redeem(&x.east)
            },
            code::TOKEN_MISMATCH,
            "Member.roles = admit,admin,export: the token grants export",
        ),
        (
            "more depth",
            |x| {
                let mut it = north(x);
                it.member.delegation_depth = 2;
                it.redeem(&x.east)
            },
            code::TOKEN_MISMATCH,
            "Member.delegation_depth = 2: the token grants at most 1",
        ),
        (
            "another issuer",
            |x| {
                let mut it = north(x);
                it.member.issuer = x.west.id();
                it.redeem(&x.west)
            },
            code::TOKEN_MISMATCH,
            "Member.issuer",
        ),
        (
            "another token inside",
            |x| {
                let mut it = north(x);
                let Change::Redeem(redeem) = it.redeem(&x.east) else { unreachable!() };
                it.member.token_id = Some(token_id("west"));
                let member = it.link_by(&x.east);
                Change::Redeem(wire::store::Redeem { member, ..redeem })
            },
            code::TOKEN_MISMATCH,
            "Member.token_id",
        ),
        (
            "without the issuer's word",
            |x| north(x).redeem(&x.west),
            code::SIGNATURE_REFUSED,
            "the open key of east is",
        ),
        (
            "without its own consent",
            |x| {
                let Change::Redeem(mut redeem) = north(x).redeem(&x.east) else { unreachable!() };
                redeem.member.key_proof = None;
                Change::Redeem(redeem)
            },
            code::SIGNATURE_REFUSED,
            "key_proof = (absent)",
        ),
        (
            "with another's consent",
            |x| {
                let Change::Redeem(mut redeem) = north(x).redeem(&x.east) else { unreachable!() };
                let payload = &redeem.member.member.payload;
                redeem.member.key_proof = Some(x.west.key.sign(Domain::Join.as_str(), payload));
                Change::Redeem(redeem)
            },
            code::SIGNATURE_REFUSED,
            "",
        ),
        (
            "a trust domain that is taken",
            |x| {
                let mut it = north(x);
                it.member.trust_domains = vec![domain("west")];
                it.redeem(&x.east)
            },
            code::TRUST_DOMAIN_TAKEN,
            "west.fed belongs to west",
        ),
        (
            "another's first Head",
            |x| {
                let first = x.east.publish(&[], &[]);
                let (Change::Redeem(mut redeem), Change::Publish(first)) =
                    (north(x).redeem(&x.east), first)
                else {
                    unreachable!()
                };
                redeem.first = Some(first);
                Change::Redeem(redeem)
            },
            code::NOT_OWNER,
            "Redeem.first.head.cluster",
        ),
    ]);
}

#[test]
fn two_that_race_for_one_token() {
    let mut scene = scene();
    let first = north(&scene);
    let mut second = north(&scene);
    second.key = key("second");
    second.member.cluster = second.key.cluster_id();
    second.member.keys[0].spki = *second.key.public().spki();
    scene.world.accept(first.redeem(&scene.east));
    let refusal = scene.world.refuse(second.redeem(&scene.east));
    assert_eq!(refusal.code, code::TOKEN_USED);
    assert!(refusal.text.contains(&first.id().to_string()), "{refusal}");
}

#[test]
fn a_name_is_taken_and_keys_do_not_come_back() {
    let mut scene = scene();
    let other =
        Cluster::joining("north", &scene.east.grant("north", RoleSet::NONE, 0), &scene.east);
    let mut twin = other;
    twin.key = key("twin");
    let grant = TokenGrant { token_id: token_id("t2"), ..north_grant(&scene.east) };
    scene.world.accept(token(&scene.east, &grant));
    scene.world.accept(north(&scene).redeem(&scene.east));
    twin.member = Cluster::joining("north", &grant, &scene.east).member;
    twin.member.cluster = twin.key.cluster_id();
    twin.member.keys[0].spki = *twin.key.public().spki();
    twin.member.trust_domains = vec![domain("twin")];
    let refusal = scene.world.refuse(twin.redeem(&scene.east));
    assert_eq!(refusal.code, code::NAME_TAKEN, "{refusal}");

    scene.world.accept(scene.south.leave(&scene.south));
    let grant = scene.east.grant("back", RoleSet::NONE, 0);
    scene.world.accept(token(&scene.east, &grant));
    let mut back = Cluster::joining("back", &grant, &scene.east);
    back.key = key("south");
    back.member.cluster = scene.south.id();
    back.member.keys[0].spki = *back.key.public().spki();
    let refusal = scene.world.refuse(back.redeem(&scene.east));
    assert!(refusal.text.contains("has left; join with a new key"), "{refusal}");
}

#[test]
fn leaving_and_revoking() {
    check(&[
        ("by a bystander", |x| x.west.leave(&x.south), code::ROLE_MISSING, "lacks admin"),
        (
            "an old leave",
            |x| {
                let leave = x.west.leave(&x.west);
                x.world.accept(x.west.own_update(|it| it.epoch = 2));
                leave
            },
            code::MEMBER_CHANGE_REFUSED,
            "the Member of west in force is 2",
        ),
        (
            "twice",
            |x| {
                x.world.accept(x.south.leave(&x.south));
                x.south.leave(&x.east)
            },
            code::NOT_A_MEMBER,
            "is no active member",
        ),
        (
            "revoked by no admin",
            |x| x.south.revoke(&x.west, &[]),
            code::ROLE_MISSING,
            "lacks admin",
        ),
        ("revoked though unknown", |x| x.east.revoke(&north(x), &[]), code::NOT_A_MEMBER, ""),
        (
            "revoked twice",
            |x| {
                x.world.accept(x.east.revoke(&x.south, &[]));
                x.east.revoke(&x.south, &[])
            },
            code::MEMBER_REVOKED,
            "it is revoked already",
        ),
        (
            "a domain twice",
            |x| {
                let target = RevocationTarget::TrustDomain(domain("zz"));
                x.world.accept(Change::Revoke(x.east.revocation(target.clone(), &[])));
                Change::Revoke(x.east.revocation(target, &[]))
            },
            code::MEMBER_REVOKED,
            "it is revoked already",
        ),
        (
            "by a signer that would go too",
            |x| x.west.revoke(&x.east, &[]),
            code::MEMBER_CHANGE_REFUSED,
            "name another one to answer for it",
        ),
        (
            "moved to one that goes too",
            |x| x.east.revoke(&x.west, &[(&x.south, &x.west)]),
            code::MEMBER_CHANGE_REFUSED,
            "cannot answer for",
        ),
        (
            "moved to one that may not admit",
            |x| x.east.revoke(&x.west, &[(&x.west, &x.south)]),
            code::ROLE_MISSING,
            "lacks the role admit",
        ),
        (
            "the last admin by itself",
            |x| {
                x.world.accept(x.west.own_update(|it| it.roles = RoleSet::NONE));
                x.east.revoke(&x.east, &[(&x.west, &x.east)])
            },
            code::MEMBER_CHANGE_REFUSED,
            "cannot answer for",
        ),
        (
            "altered",
            |x| {
                let Change::Revoke(mut signed) = x.east.revoke(&x.west, &[]) else {
                    unreachable!()
                };
                signed.signature[1] ^= 1;
                Change::Revoke(signed)
            },
            code::SIGNATURE_REFUSED,
            "",
        ),
        (
            "a revoked one goes on",
            |x| {
                x.world.accept(x.east.revoke(&x.west, &[]));
                x.west.publish(&[], &[])
            },
            code::MEMBER_REVOKED,
            "was revoked",
        ),
        (
            "a barred domain",
            |x| {
                let target = RevocationTarget::TrustDomain(domain("north"));
                x.world.accept(Change::Revoke(x.east.revocation(target, &[])));
                north(x).redeem(&x.east)
            },
            code::MEMBER_REVOKED,
            "north.fed was revoked",
        ),
    ]);
}

#[test]
fn standbys() {
    check(&[
        ("by no admin", |x| x.south.admin(named(1, &[&x.east])), code::ROLE_MISSING, "lacks admin"),
        ("who is no member", |x| x.east.admin(named(1, &[&north(x)])), code::NOT_A_MEMBER, ""),
        (
            "an old statement",
            |x| {
                x.world.accept(x.east.admin(named(2, &[&x.west])));
                x.east.admin(named(2, &[&x.east]))
            },
            code::GENERATION_STALE,
            "Standbys.generation = 2: use a number above 2",
        ),
    ]);
}

fn named(generation: u64, clusters: &[&Cluster]) -> AdminChange {
    let clusters = clusters.iter().map(|cluster| cluster.id()).collect();
    AdminChange::Standbys { generation, clusters }
}

/// What `apply` would do without its checks of signature, generation and owner: each of these
/// publishes succeeds in what lies behind the guard, so the guard is what stops it.
#[test]
fn without_the_guards_a_forged_publish_takes_effect() {
    let scene = scene();
    let fleet = scene.world.state.fleet();
    let entry = fleet.entry(&scene.east.id()).unwrap().clone();

    // Forged by west in east's name: only the signature tells.
    let mut forger = Cluster { key: key("west"), ..copy(&scene.east) };
    let Change::Publish(forged) = forger.publish(&[export("shop/evil", 80)], &[]) else {
        unreachable!()
    };
    let head = Head::decode(&forged.head.payload).unwrap();
    let mut draft = draft(&scene.world.state);
    draft.take_up(&forged, head, entry.clone()).unwrap();
    assert!(has(draft.state.fleet(), &scene.east, "shop/evil"));
    let mut world = scene.world.clone();
    assert_eq!(world.refuse(Change::Publish(forged)).code, code::SIGNATURE_REFUSED);

    // East's own word from before, sent again: only the mark tells.
    let mut old = copy(&scene.east);
    old.mark.generation = 0;
    let mut world = scene.world.clone();
    let mut now = copy(&scene.east);
    world.publish(&mut now, &[export("shop/api", 81)]);
    let Change::Publish(replay) = old.publish(&[export("shop/api", 80)], &[]) else {
        unreachable!()
    };
    let head = Head::decode(&replay.head.payload).unwrap();
    let mut draft = self::draft(&world.state);
    draft.take_up(&replay, head, entry).unwrap();
    assert_eq!(draft.state.fleet().head(&old.id()).unwrap().mark.generation, 1, "rolled back");
    assert_eq!(world.refuse(Change::Publish(replay)).code, code::GENERATION_STALE);
}

/// Without the digest's check a record that its owner never signed is in the state.
#[test]
fn without_the_digest_a_mixed_set_would_pass() {
    let scene = scene();
    let owner = scene.world.state.fleet().owner(&scene.east.id()).unwrap();
    let put = scene.east.put(&export("shop/evil", 80));
    let record = Record::new(put.key, put.record, Revision { epoch: 1, index: 9 });
    let nodes = owner::after(Some(owner), Step { puts: vec![record], removes: vec![] });
    let mixed = owner.with_nodes(nodes.clone());
    assert_eq!(mixed.records().count(), 2, "nothing but the digest tells");
    let refusal = owner::check_digest(owner.head(), &nodes).unwrap_err();
    assert_eq!(refusal.code, code::DIGEST_WRONG);
}

/// Without the check of owners west would write under east's name in its own set.
#[test]
fn a_foreign_key_would_be_in_the_set_without_the_owner_rule() {
    let mut scene = scene();
    let put = scene.east.put(&export("shop/evil", 80));
    let record = Record::new(put.key.clone(), put.record.clone(), Revision { epoch: 1, index: 9 });
    let nodes = owner::after(None, Step { puts: vec![record], removes: vec![] });
    let Change::Publish(foreign) = scene.west.publish_raw(vec![put], vec![]) else {
        unreachable!()
    };
    let head = Head::decode(&foreign.head.payload).unwrap();
    owner::check_digest(&head, &nodes).unwrap();
    assert_eq!(scene.world.refuse(Change::Publish(foreign)).code, code::NOT_OWNER);
}

#[test]
fn a_refused_command_leaves_the_shared_state_alone() {
    let mut scene = scene();
    let before = scene.world.state.clone();
    let change = with_head(&mut scene, |head| head.records = 9);
    scene.world.refuse(change);
    assert!(Arc::ptr_eq(&before.fleet().owners, &scene.world.state.fleet().owners));
}

fn draft(state: &FleetState) -> Draft {
    let index = state.revision().index + 1;
    Draft::new(state, Revision { epoch: 1, index }, NOW_MS)
}

fn copy(cluster: &Cluster) -> Cluster {
    Cluster {
        key: key(&cluster.seed),
        seed: cluster.seed.clone(),
        member: cluster.member.clone(),
        mark: cluster.mark,
        records: cluster.records.clone(),
    }
}

fn has(fleet: &Fleet, cluster: &Cluster, name: &str) -> bool {
    fleet.record(&StoreKey::of(cluster.id(), &export(name, 80).key())).is_some()
}
