//! What lies on disk: it comes back as it was, and what is signed in it cannot be altered.

use std::collections::BTreeMap;

use model::RoleSet;
use wire::store::{AdminChange, Change, Domain, Mark, RevocationTarget};

use super::fixture::{Cluster, World, allow, domain, export, grant_namespace};
use crate::fleet::FleetState;

/// A state with something in every table.
pub(super) fn everything() -> (World, Cluster, Cluster) {
    let (mut world, mut east) = World::founded();
    let mut west = world.admit(&east, "west");
    let south = world.admit(&west, "south");
    let north = world.admit(&east, "north");
    let peers = [east.peer_resource(), west.peer_resource()];
    world.publish(
        &mut east,
        &[
            peers[0].clone(),
            export("shop/api", 80),
            export("pay/card", 80),
            allow("shop/api", &["west"]),
            grant_namespace("all", &["shop"], &["east", "west"]),
        ],
    );
    world.publish(&mut west, &[peers[1].clone(), export("shop/api", 80)]);
    let mark = east.mark;
    world.accept(east.rekey(None, "east-2", mark));
    let grant = east.grant("later", RoleSet::NONE, 0);
    world.accept(Change::IssueToken(east.sign(Domain::Token, &grant.encode())));
    let clusters = vec![west.id()];
    world.accept(east.admin(AdminChange::Standbys { generation: 1, clusters }));
    world.accept(north.leave(&north));
    let target = RevocationTarget::TrustDomain(domain("south"));
    world.accept(Change::Revoke(east.revocation(target, &[])));
    assert!(world.state.fleet().is_revoked(&south.id()));
    (world, east, west)
}

#[test]
fn a_state_is_loaded_as_it_was() {
    let (world, east, west) = everything();
    let kv = world.state.to_kv();
    let tables: std::collections::BTreeSet<u8> = kv.iter().map(|(key, _)| key[0]).collect();
    assert_eq!(tables, b"ahmqrstvw".iter().copied().collect());
    let loaded = FleetState::load(kv.iter().rev().cloned()).unwrap();
    assert_eq!(loaded.to_kv(), kv);
    let (fleet, old) = (loaded.fleet(), world.state.fleet());
    assert_eq!(fleet.revision(), old.revision());
    assert_eq!(fleet.root(), old.root());
    for entry in old.entries() {
        let cluster = entry.member().cluster;
        let loaded = fleet.entry(&cluster).unwrap();
        assert_eq!(loaded.links(), entry.links());
        assert_eq!(loaded.status(), entry.status());
        assert_eq!(loaded.anchor(), entry.anchor());
        assert_eq!(loaded.high_water(), entry.high_water());
    }
    assert_eq!(fleet.standbys(), [west.id()]);
    let since = |fleet: &crate::fleet::Fleet| -> Vec<_> {
        fleet.records(&east.id()).map(|record| (record.key().clone(), record.since())).collect()
    };
    assert_eq!(since(fleet), since(old));
}

#[test]
fn nothing_is_loaded_as_nothing() {
    assert!(FleetState::load([]).unwrap().to_kv().is_empty());
    assert!(FleetState::empty().to_kv().is_empty());
}

#[test]
fn no_byte_of_what_is_signed_can_be_altered() {
    let (world, ..) = everything();
    let kv = world.state.to_kv();
    for (index, (key, value)) in kv.iter().enumerate() {
        // Of records and tokens the first bytes are the state's own word.
        let signed = match key[0] {
            b'm' | b'h' | b'v' | b's' => 0,
            b'r' => 16,
            b't' => 33,
            _ => continue,
        };
        for place in signed..value.len() {
            let mut altered = kv.clone();
            altered[index].1[place] ^= 0x10;
            let loaded = FleetState::load(altered);
            assert!(loaded.is_err(), "byte {place} of {}", key.escape_ascii());
        }
        for place in 0..key.len() {
            let mut altered = kv.clone();
            altered[index].0[place] ^= 0x10;
            let loaded = FleetState::load(altered);
            // The place of a revocation, and of a token in use, is not signed.
            assert!(loaded.is_err(), "byte {place} of the key {}", key.escape_ascii());
        }
    }
}

#[test]
fn what_is_missing_or_too_much_is_noticed() {
    let (world, east, west) = everything();
    let kv: BTreeMap<_, _> = world.state.to_kv().into_iter().collect();
    // Nothing else speaks of standbys, of tokens, of who left, and of the latest revocation.
    let of = |table: &[u8], id: &Cluster| [table, &id.id().as_bytes()[..]].concat();
    let record = kv.keys().find(|key| key[0] == b'r').unwrap().clone();
    let needed =
        [b"a".to_vec(), of(b"m", &east), of(b"m", &west), of(b"h", &east), of(b"w", &east), record];
    for key in needed {
        let mut less = kv.clone();
        less.remove(&key).unwrap();
        assert!(FleetState::load(less).is_err(), "without {}", key.escape_ascii());
    }
    for (key, value, problem) in [
        (b"zz".to_vec(), vec![], "no table of this build has such a key"),
        (vec![], vec![], "an empty key"),
        (b"m".to_vec(), vec![1], "0 bytes, not 16"),
        ([b"w", &[7; 16][..]].concat(), vec![0; 16], "no such member"),
        ([b"w", &east.id().as_bytes()[..]].concat(), vec![1; 16], "high-water mark"),
        (b"a".to_vec(), vec![1; 3], "it is cut"),
        (b"v\0\0\0\0\0\0\0\x09".to_vec(), vec![], "Signed.payload"),
    ] {
        let mut more = kv.clone();
        more.insert(key, value);
        let error = FleetState::load(more).unwrap_err();
        assert_eq!(error.code, model::code::STATE_DAMAGED);
        assert!(error.text.contains(problem), "{error}");
    }
}

/// Everything that an old disk says is true once: only the mark tells that it is old.
#[test]
fn a_loaded_state_takes_nothing_below_its_marks() {
    let (mut world, mut east, _) = everything();
    let old = east.publish(&[], &[]);
    east.mark = Mark { epoch: 1, generation: 7 };
    let new = east.publish(&[], &[]);
    world.accept(new);
    world.state = FleetState::load(world.state.to_kv()).unwrap();
    assert_eq!(world.refuse(old).code, model::code::GENERATION_STALE);
}
