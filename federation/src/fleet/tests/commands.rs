//! What accepted commands do.

use model::RoleSet;
use wire::store::{AdminChange, Change, Command, RevocationTarget};

use super::fixture::{NOW_MS, World, allow, domain, export, token_id};
use crate::fleet::{self, MemberStatus, TokenUse};

#[test]
fn a_federation_begins_with_its_root() {
    let (world, east) = World::founded();
    let fleet = world.state.fleet();
    assert_eq!(fleet.federation(), Some(east.federation()));
    assert_eq!(fleet.root(), Some(&east.id()));
    assert_eq!(fleet.member(&east.id()), Some(&east.member));
    assert_eq!(fleet.member_named(&east.member.name), Some(&east.member));
    assert_eq!(fleet.owner_of(&domain("east")), Some(&east.member));
    assert_eq!(fleet.high_water(&east.id()), None);
    assert!(fleet.owner(&east.id()).is_none());
}

#[test]
fn a_token_is_redeemed_once_and_makes_a_member() {
    let (mut world, east) = World::founded();
    let west = world.admit(&east, "west");
    assert_eq!(world.state.fleet().member(&west.id()), Some(&west.member));
    let token = world.state.token(&token_id("west")).unwrap();
    assert_eq!(token.used, TokenUse::Used { by: west.id(), at: world.revision() });
    let south = world.admit_with(&west, "south", RoleSet::NONE, 0);
    let children: Vec<_> = world.state.fleet().children(&west.id()).collect();
    assert_eq!(children, [&south.member]);
    assert_eq!(world.state.fleet().members().count(), 3);
}

#[test]
fn a_first_publish_comes_with_the_joining_or_nothing_does() {
    let (mut world, east) = World::founded();
    let grant = east.grant("west", RoleSet::all(), 1);
    let mut west = super::fixture::Cluster::joining("west", &grant, &east);
    world.accept(Change::IssueToken(east.sign(wire::store::Domain::Token, &grant.encode())));
    let peer = west.peer_resource();
    let Change::Publish(first) = west.publish(&[peer], &[]) else { unreachable!() };
    let Change::Redeem(mut redeem) = west.redeem(&east) else { unreachable!() };
    let mut bad = first.clone();
    bad.puts.clear();
    redeem.first = Some(bad);
    assert_eq!(world.refuse(Change::Redeem(redeem.clone())).code, model::code::DIGEST_WRONG);
    assert!(world.state.fleet().entry(&west.id()).is_none());
    redeem.first = Some(first);
    world.accept(Change::Redeem(redeem));
    assert_eq!(world.state.fleet().records(&west.id()).count(), 1);
    assert_eq!(world.state.fleet().high_water(&west.id()), Some(west.mark));
}

#[test]
fn records_come_change_and_go_under_newer_heads() {
    let (mut world, mut east) = World::founded();
    let (peer, api) = (east.peer_resource(), export("shop/api", 80));
    world.publish(&mut east, &[peer, api.clone(), allow("shop/api", &["west"])]);
    let first = world.revision();
    let key = wire::store::StoreKey::of(east.id(), &api.key());
    assert_eq!(world.state.fleet().record(&key).unwrap().since(), first);
    assert_eq!(world.state.fleet().record(&key).unwrap().resource(), Some(&api));

    let other = export("shop/api", 81);
    world.publish(&mut east, std::slice::from_ref(&other));
    let record = world.state.fleet().record(&key).unwrap();
    assert_eq!((record.since(), record.resource()), (first, Some(&other)), "it never was away");

    let gone = east.publish(&[], &[other]);
    world.accept(gone);
    assert!(world.state.fleet().record(&key).is_none());
    world.publish(&mut east, &[api]);
    assert_eq!(world.state.fleet().record(&key).unwrap().since(), world.revision());
    assert_eq!(world.state.fleet().high_water(&east.id()), Some(east.mark));

    east.mark.generation += 10;
    world.publish(&mut east, &[]);
    assert_eq!(world.state.fleet().head(&east.id()).unwrap().mark.generation, 15);
}

#[test]
fn a_request_that_is_sent_again_takes_effect_once() {
    let (mut world, mut east) = World::founded();
    let change = east.publish(&[export("shop/api", 80)], &[]);
    let command = Command { request_id: [0xee; 16], proposed_at_unix_ms: NOW_MS, change };
    world.index += 1;
    let first = world.apply_bytes(&command.encode()).unwrap();
    world.index += 1;
    let again = world.apply_bytes(&command.encode()).unwrap();
    assert_eq!(again.revision, first.revision);
    assert!(again.changes.is_empty() && again.writes.is_empty());
    assert_eq!(world.state.applied(&[0xee; 16]), Some(first.revision));
    for _ in 0..=fleet::limits::REQUESTS_MAX {
        let change = east.publish(&[], &[]);
        world.quick(change).unwrap();
    }
    assert_eq!(world.state.applied(&[0xee; 16]), None, "the table is bounded");
    world.index += 1;
    let late = world.apply_bytes(&command.encode()).unwrap_err();
    assert_eq!(late.code, model::code::GENERATION_STALE, "and then the Head's mark holds");
}

#[test]
fn who_leaves_takes_its_records_along_and_frees_its_names() {
    let (mut world, east) = World::founded();
    let mut west = world.admit(&east, "west");
    world.publish(&mut west, &[export("shop/api", 80)]);
    world.accept(west.leave(&west));
    let fleet = world.state.fleet();
    assert!(fleet.member(&west.id()).is_none() && fleet.owner(&west.id()).is_none());
    assert_eq!(fleet.entry(&west.id()).unwrap().status(), MemberStatus::Left);
    assert_eq!(fleet.high_water(&west.id()), Some(west.mark), "for ever");
    assert!(fleet.owner_of(&domain("west")).is_none());
    assert!(!world.disk.keys().any(|key| key[0] == b'r' || key[0] == b'h'));
    let south = world.admit(&east, "south");
    world.accept(south.leave(&east));
    assert!(world.state.fleet().member(&south.id()).is_none(), "an admin may end it too");
}

#[test]
fn a_revocation_takes_those_along_whom_nobody_else_answers_for() {
    let (mut world, east) = World::founded();
    let west = world.admit(&east, "west");
    let mut south = world.admit(&west, "south");
    let north = world.admit(&west, "north");
    let grandchild = world.admit(&south, "deep");
    world.publish(&mut south, &[export("shop/api", 80)]);
    world.accept(east.revoke(&west, &[(&north, &east)]));
    let fleet = world.state.fleet();
    for gone in [&west, &south, &grandchild] {
        assert!(fleet.is_revoked(&gone.id()) && fleet.member(&gone.id()).is_none());
        assert!(fleet.owner(&gone.id()).is_none());
    }
    assert_eq!(fleet.entry(&north.id()).unwrap().anchor(), &east.id());
    assert_eq!(fleet.children(&east.id()).count(), 1);
    assert_eq!(fleet.revocations().count(), 1);
}

#[test]
fn a_revoked_trust_domain_takes_its_owner_along_and_stays_barred() {
    let (mut world, east) = World::founded();
    let west = world.admit(&east, "west");
    let target = RevocationTarget::TrustDomain(domain("west"));
    world.accept(Change::Revoke(east.revocation(target, &[])));
    assert!(world.state.fleet().is_revoked(&west.id()));
    assert!(world.state.fleet().is_domain_revoked(&domain("west")));
    assert!(!world.state.fleet().is_domain_revoked(&domain("east")));
}

#[test]
fn standbys_are_those_of_the_last_statement_that_are_members() {
    let (mut world, east) = World::founded();
    let west = world.admit(&east, "west");
    let clusters = vec![west.id(), east.id()];
    world.accept(east.admin(AdminChange::Standbys { generation: 3, clusters: clusters.clone() }));
    assert_eq!(world.state.fleet().standbys(), clusters);
    assert_eq!(world.state.fleet().standbys_generation(), 3);
    world.accept(west.leave(&west));
    assert_eq!(world.state.fleet().standbys(), [east.id()]);
}

#[test]
fn old_tokens_are_forgotten_when_new_ones_come() {
    let (mut world, east) = World::founded();
    let issue =
        |name| east.sign(wire::store::Domain::Token, &east.grant(name, RoleSet::NONE, 0).encode());
    world.accept(Change::IssueToken(issue("old")));
    world.accept(east.admin(AdminChange::RevokeToken(token_id("old"))));
    let token = world.state.token(&token_id("old")).unwrap();
    assert_eq!(token.used, TokenUse::Revoked { at: world.revision() });
    let mut late = east.grant("late", RoleSet::NONE, 0);
    world.now_ms = NOW_MS + fleet::limits::TOKEN_MEMORY_MS + 1_000_000;
    late.issued_at_unix_ms = world.now_ms;
    late.expires_at_unix_ms = world.now_ms + 1000;
    let late = east.sign(wire::store::Domain::Token, &late.encode());
    world.accept(Change::IssueToken(late));
    assert!(world.state.token(&token_id("old")).is_none());
    assert_eq!(world.state.tokens().count(), 1);
}

/// A build that reads less than another one must hold the same state.
#[test]
fn what_a_newer_build_publishes_is_kept_unread() {
    let (mut world, mut east) = World::founded();
    let mut put = east.put(&export("shop/api", 80));
    put.key.kind = 999;
    let mut newer = wire::store::proto::StoreRecord {
        salt: vec![1; 16].into(),
        resource: Some(wire::resource::encode_resource(&export("shop/web", 80))),
    };
    newer.resource.as_mut().unwrap().schema = 77;
    let schema = wire::store::RecordPut {
        record: prost::Message::encode_to_vec(&newer).into(),
        ..east.put(&export("shop/web", 80))
    };
    let change = east.publish_raw(vec![put.clone(), schema.clone()], vec![]);
    world.accept(change);
    for put in [put, schema] {
        let record = world.state.fleet().record(&put.key).unwrap();
        assert_eq!(record.bytes(), &put.record);
        assert_eq!(record.resource(), None);
    }
    let loaded = fleet::FleetState::load(world.state.to_kv()).unwrap();
    assert_eq!(loaded.fleet().records(&east.id()).count(), 2);
    assert!(
        fleet::serving(loaded.fleet()).exporters(&super::fixture::service("shop/web")).is_empty()
    );
}
