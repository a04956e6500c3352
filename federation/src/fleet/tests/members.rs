//! Changes of members: who may make which.

use model::code::{
    LAST_ADMIN, MEMBER_CHANGE_REFUSED, OTHER_FEDERATION, ROLE_MISSING, SIGNATURE_REFUSED,
    TRUST_DOMAIN_TAKEN,
};
use model::{Role, RoleSet};
use wire::store::{Change, Mark, Member};

use super::fixture::{Cluster, World, domain, export};

#[test]
fn a_rotation_closes_the_old_key_and_the_new_one_goes_on() {
    let (mut world, mut east) = World::founded();
    world.publish(&mut east, &[export("shop/api", 80)]);
    let (mark, old) = (east.mark, super::fixture::key("east"));
    let change = east.rekey(None, "east-2", mark);
    world.accept(change);
    assert_eq!(world.state.fleet().entry(&east.id()).unwrap().links().len(), 2);

    let new = std::mem::replace(&mut east.key, old);
    let by_closed = east.publish(&[export("shop/web", 80)], &[]);
    let refusal = world.refuse(by_closed);
    assert_eq!(refusal.code, SIGNATURE_REFUSED);
    assert!(refusal.text.contains("was closed at 1.1, before 1.2"), "{refusal}");

    east.key = new;
    east.mark.generation -= 1;
    let by_new = east.publish(&[export("shop/web", 80)], &[]);
    world.accept(by_new);
}

#[test]
fn a_key_is_not_closed_below_the_head_that_it_signed() {
    let (mut world, mut east) = World::founded();
    world.publish(&mut east, &[]);
    world.publish(&mut east, &[]);
    let change = east.rekey(None, "east-2", Mark { epoch: 1, generation: 1 });
    let refusal = world.refuse(change);
    assert_eq!(refusal.code, MEMBER_CHANGE_REFUSED);
    assert!(
        refusal.text.contains("keys[0].closed_at") && refusal.text.contains("1.2"),
        "{refusal}"
    );
}

#[test]
fn a_new_key_must_agree() {
    let (mut world, mut east) = World::founded();
    let Change::UpdateMember(mut link) =
        east.rekey(None, "east-2", Mark { epoch: 1, generation: 9 })
    else {
        unreachable!()
    };
    let proof = link.key_proof.take();
    let refusal = world.refuse(Change::UpdateMember(link.clone()));
    assert!(refusal.text.contains("key_proof = (absent)"), "{refusal}");
    link.key_proof = proof.map(|mut proof| {
        proof[0] ^= 1;
        proof
    });
    assert_eq!(world.refuse(Change::UpdateMember(link)).code, SIGNATURE_REFUSED);
}

#[test]
fn a_lost_key_is_bound_anew_by_who_could_have_admitted_its_owner() {
    let (mut world, east) = World::founded();
    let mut west = world.admit(&east, "west");
    let north = world.admit(&east, "north");
    let mark = Mark { epoch: 1, generation: 5 };
    let lost = Cluster { key: super::fixture::key("west"), member: west.member.clone(), ..empty() };
    let mut tried = Cluster { key: super::fixture::key("west"), ..lost };
    let by_equal = tried.rekey(Some(&north), "west-2", mark);
    let refusal = world.refuse(by_equal);
    assert_eq!(refusal.code, ROLE_MISSING);
    assert!(
        refusal.text.contains("delegation_depth = 2: below north it is at most 1"),
        "{refusal}"
    );
    let by_east = west.rekey(Some(&east), "west-2", mark);
    world.accept(by_east);
    let bump = west.own_update(|member| member.epoch = 2);
    world.accept(bump);
}

fn empty() -> Cluster {
    Cluster::root("nobody")
}

#[test]
fn an_epoch_is_bumped_and_the_heads_follow() {
    let (mut world, mut east) = World::founded();
    world.publish(&mut east, &[export("shop/api", 80)]);
    let change = east.own_update(|member| member.epoch = 2);
    world.accept(change);
    let stale = east.publish(&[], &[]);
    let refusal = world.refuse(stale);
    assert_eq!(refusal.code, model::code::EPOCH_WRONG);
    assert!(refusal.text.contains("Head.epoch = 1: the epoch of east is 2"), "{refusal}");
    east.member = east.changed(|member| member.epoch = 2);
    east.mark = Mark { epoch: 2, generation: 0 };
    world.publish(&mut east, &[]);
    assert_eq!(world.state.fleet().high_water(&east.id()), Some(Mark { epoch: 2, generation: 1 }));
}

/// Who signs, what changes, and why it is refused; `Ok` where it is not.
type Row = (&'static str, fn(&Fixture) -> Change, Result<(), (model::code::Code, &'static str)>);

struct Fixture {
    east: Cluster,
    west: Cluster,
    plain: Cluster,
}

#[test]
fn each_change_needs_its_signer() {
    let admits = RoleSet::NONE.with(Role::Admit);
    let rows: Vec<Row> = vec![
        ("gives up", |x| x.west.own_update(|it| it.roles = RoleSet::NONE), Ok(())),
        (
            "takes roles",
            |x| x.plain.own_update(|it| it.roles = RoleSet::all()),
            Err((ROLE_MISSING, "may give up, but not take")),
        ),
        (
            "takes depth",
            |x| x.west.own_update(|it| it.delegation_depth = 3),
            Err((ROLE_MISSING, "may give up, but not take")),
        ),
        (
            "takes a domain",
            |x| x.west.own_update(|it| it.trust_domains.push(domain("new"))),
            Err((MEMBER_CHANGE_REFUSED, "a member with the role admit signs this")),
        ),
        (
            "renames itself",
            |x| x.west.own_update(|it| it.name = x.plain.member.name.clone()),
            Err((MEMBER_CHANGE_REFUSED, "Member.name = plain: it is west")),
        ),
        (
            "changes its token",
            |x| x.west.own_update(|it| it.token_id = x.plain.member.token_id),
            Err((MEMBER_CHANGE_REFUSED, "token_id: it never changes")),
        ),
        (
            "changes its issuer",
            |x| x.west.own_update(|it| it.issuer = x.plain.id()),
            Err((MEMBER_CHANGE_REFUSED, "Member.issuer")),
        ),
        (
            "skips a generation",
            |x| x.west.own_update(|it| it.member_generation += 1),
            Err((MEMBER_CHANGE_REFUSED, "the one in force is 1; start from that one")),
        ),
        (
            "goes back",
            |x| x.west.own_update(|it| it.member_generation -= 1),
            Err((MEMBER_CHANGE_REFUSED, "the one in force is 1")),
        ),
        (
            "another federation",
            |x| {
                x.west.own_update(|it| {
                    it.federation = model::FederationId::from_bytes([1; 16]);
                })
            },
            Err((OTHER_FEDERATION, "Member.federation")),
        ),
        (
            "admin takes roles away",
            |x| x.west.update_by(&x.east, |it| it.roles = RoleSet::NONE),
            Ok(()),
        ),
        (
            "admin gives within its own",
            |x| {
                x.plain.update_by(&x.east, |it| {
                    it.roles = RoleSet::all();
                })
            },
            Ok(()),
        ),
        (
            "no admin",
            |x| x.east.update_by(&x.plain, |it| it.roles = RoleSet::NONE),
            Err((ROLE_MISSING, "plain lacks admin")),
        ),
        (
            "the root's rights",
            |x| x.east.update_by(&x.west, |it| it.roles = RoleSet::NONE),
            Err((ROLE_MISSING, "delegation_depth = 3")),
        ),
        (
            "admit adds a domain",
            |x| {
                x.west.update_by(&x.east, |it| {
                    it.trust_domains.push(domain("new"));
                })
            },
            Ok(()),
        ),
        (
            "a domain that is taken",
            |x| {
                x.west.update_by(&x.east, |it| {
                    it.trust_domains.push(domain("plain"));
                })
            },
            Err((TRUST_DOMAIN_TAKEN, "plain.fed belongs to plain")),
        ),
        (
            "an outsider",
            |x| x.west.update_by(&empty(), |it| it.epoch = 2),
            Err((SIGNATURE_REFUSED, "no active member's open key")),
        ),
        ("the last admin gives up", |x| x.east.own_update(|it| it.roles = RoleSet::NONE), Ok(())),
    ];
    for (name, change, expected) in rows {
        let (mut world, east) = World::founded();
        let west = world.admit(&east, "west");
        let plain = world.admit_with(&east, "plain", admits, 1);
        let outcome = world.apply(change(&Fixture { east, west, plain }));
        match expected {
            Ok(()) => assert!(outcome.is_ok(), "{name}: {outcome:?}"),
            Err((code, text)) => {
                let refusal = outcome.expect_err(name);
                assert_eq!(refusal.code, code, "{name}: {refusal}");
                assert!(refusal.text.contains(text), "{name}: {refusal}");
            }
        }
    }
}

#[test]
fn the_last_admin_stays_while_others_do() {
    let (mut world, east) = World::founded();
    let west = world.admit_with(&east, "west", RoleSet::NONE, 0);
    assert_eq!(world.refuse(east.leave(&east)).code, LAST_ADMIN);
    let gives_up = east.own_update(|member: &mut Member| member.roles = RoleSet::NONE);
    assert_eq!(world.refuse(gives_up).code, LAST_ADMIN);
    world.accept(west.leave(&west));
    world.accept(east.leave(&east));
}
