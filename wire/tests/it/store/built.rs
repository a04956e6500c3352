//! What the encoder gives for each good vector.

use model::code::{NAME_TAKEN, STORE_NO_QUORUM};
use model::{ClusterId, ObjectName};
use prost::Message as _;
use wire::store::{
    Alive, Change, CheckReply, FleetUpdate, Head, Joined, MemberChain, OwnerUpdate, ProposeReply,
    ReadReply, RecordEntry, RedeemEvent, RedeemRequest, Refusal, Stage, StoreKey, TokenState,
    WatchEvent, leaf_hash,
};

use super::samples::*;
use crate::vectors::Built;

pub(crate) fn keys() -> Built {
    let key = |index: usize| records()[index].0.clone();
    let long = ObjectName::parse(&vec!["a".repeat(63); 4].join(".")[..253]).unwrap();
    [
        ("cluster-wide", key(0)),
        ("namespaced", key(1)),
        ("longest-name", StoreKey { name: long, ..key(1) }),
        ("newer-kind", StoreKey { kind: 4711, ..key(1) }),
        ("newer-kind-cluster-wide", StoreKey { kind: 4711, namespace: None, ..key(1) }),
        ("not-storable", StoreKey { kind: 3, ..key(1) }),
    ]
    .into_iter()
    .map(|(name, key)| (name, key.encode()))
    .collect()
}

/// A leaf's hex is the key and the record after it; an owner's is an OwnerUpdate.
pub(crate) fn digests() -> Built {
    let all = records();
    let leaf = |index: usize| {
        let (key, record) = &all[index];
        let joined = [&key.encode()[..], record].concat();
        assert_eq!(leaf_hash(&joined, b""), leaf_hash(&key.encode(), record));
        joined
    };
    let joined = |(key, record): (StoreKey, bytes::Bytes)| [&key.encode()[..], &record].concat();
    let owner = |update: OwnerUpdate| {
        let update = FleetUpdate { owners: vec![update], ..FleetUpdate::default() };
        let part = WatchEvent::SnapshotPart { revision: revision(1), update };
        part.encode().encode_to_vec()
    };
    Built::from([
        ("leaf-cluster-wide", leaf(0)),
        ("leaf-namespaced", leaf(1)),
        ("leaf-revoked-svids", joined(denying_record())),
        ("set-empty", owner(owner_update_of(&[]))),
        ("set-of-one", owner(owner_update_of(&all[..1]))),
        ("set-of-two-namespaces", owner(owner_update_of(&all[..2]))),
        ("set-of-two-in-one", owner(owner_update_of(&all[1..3]))),
        ("set-whole", owner(owner_update())),
        ("set-filtered", owner(filtered_update())),
    ])
}

pub(crate) fn messages() -> Built {
    [payloads(), commands(), events(), answers()].into_iter().flatten().collect()
}

fn payloads() -> Built {
    let empty = head_over(&[], 1);
    let later = Head { issued_at_unix_ms: NOW_UNIX_MS + 30_000, ..head() };
    // Fields 90 (varint) and 91 (bytes), as a newer version might send them.
    let unknown = [&head().encode()[..], &[0xd0, 5, 1, 0xda, 5, 2, 1, 2]].concat();
    Built::from([
        ("head", head().encode()),
        ("head-signed-again", later.encode()),
        ("head-empty", empty.encode()),
        ("head-unknown-fields", unknown),
        ("member-root", root().encode()),
        ("member", member().encode()),
        ("member-rotated", rotated().encode()),
        ("token-grant", grant().encode()),
        ("revocation-cluster", revocation().encode()),
        ("revocation-trust-domain", domain_revocation().encode()),
        ("leave", leave().encode()),
        ("admin-standbys", standbys().encode()),
        ("admin-revoke-token", token_revocation().encode()),
        ("signed", signed(2, head().encode()).encode()),
        ("member-chain", chain().encode()),
    ])
}

fn commands() -> Built {
    let signed = |payload| signed(1, payload);
    [
        ("command-found", Change::Found(signed_root())),
        ("command-publish", Change::Publish(publish())),
        ("command-issue-token", Change::IssueToken(signed(grant().encode()))),
        ("command-redeem", Change::Redeem(redeem())),
        ("command-update-member", Change::UpdateMember(signed_rotation())),
        ("command-leave", Change::Leave(signed(leave().encode()))),
        ("command-revoke", Change::Revoke(signed(revocation().encode()))),
        ("command-admin", Change::Admin(signed(standbys().encode()))),
    ]
    .into_iter()
    .map(|(name, change)| (name, command(change).encode()))
    .collect()
}

fn events() -> Built {
    let revision = revision(9);
    let first = OwnerUpdate { more: true, ..filtered_update() };
    let update = FleetUpdate { owners: vec![first], ..fleet_update() };
    let alive = Alive { quorum: true, relayed: false, voters: vec![east()] };
    [
        ("watch-begin", WatchEvent::SnapshotBegin { revision, federation: federation() }),
        ("watch-part", WatchEvent::SnapshotPart { revision, update }),
        ("watch-end", WatchEvent::SnapshotEnd { revision, parts: 2 }),
        ("watch-delta", {
            let from = super::samples::revision(8);
            WatchEvent::Delta { from, revision, update: fleet_update() }
        }),
        ("watch-alive", WatchEvent::Alive { revision, alive }),
    ]
    .into_iter()
    .map(|(name, event)| (name, event.encode().encode_to_vec()))
    .collect()
}

fn answers() -> Built {
    let refusal = |code, text: &str| Refusal { code: Some(code), text: text.into() };
    let (key, record) = records().swap_remove(1);
    let entry = RecordEntry { key, record, since: revision(5) };
    let joined = Joined {
        revision: revision(9),
        member: MemberChain { links: vec![signed_member()], leave: None },
        root: MemberChain { links: vec![signed_root()], leave: None },
    };
    let waiting = RedeemEvent::Progress {
        stage: Some(Stage::WaitingForApproval),
        text: "a person in east must approve".into(),
    };
    let request = RedeemRequest {
        token_id: token_id(),
        secret: secret(),
        member: member().encode().into(),
        key_proof: [0x6b; 64],
        possession: [0x7c; 64],
        first: redeem().first.unwrap(),
    };
    let check = CheckReply {
        federation: federation(),
        cluster: east(),
        name: root().name,
        now_unix_ms: NOW_UNIX_MS,
        token: TokenState::Open,
        members: 1,
        version: "0.1.0".into(),
    };
    let propose = |reply: ProposeReply| reply.encode().encode_to_vec();
    let taken = refusal(NAME_TAKEN, "west is a member already");
    let unsure = refusal(STORE_NO_QUORUM, "1 of 3 voters answers");
    Built::from([
        ("propose-accepted", propose(ProposeReply::Accepted(revision(9)))),
        ("propose-refused", propose(ProposeReply::Refused(taken.clone()))),
        ("propose-not-leader", propose(ProposeReply::NotLeader(Some(west())))),
        ("propose-no-leader", propose(ProposeReply::NotLeader(None))),
        ("propose-unknown", propose(ProposeReply::Unknown(unsure))),
        ("read-record", {
            let reply = ReadReply::Answer { revision: revision(9), record: Some(entry) };
            reply.encode().encode_to_vec()
        }),
        ("read-none", {
            let reply = ReadReply::Answer { revision: revision(9), record: None };
            reply.encode().encode_to_vec()
        }),
        ("join-check", check.encode().encode_to_vec()),
        ("join-redeem", request.encode().encode_to_vec()),
        ("join-waiting", waiting.encode().encode_to_vec()),
        ("join-joined", RedeemEvent::Joined(joined).encode().encode_to_vec()),
        ("join-refused", RedeemEvent::Refused(taken).encode().encode_to_vec()),
    ])
}

pub(crate) fn tokens() -> Built {
    let text = token().to_text().unwrap().as_bytes().to_vec();
    let wrapped = [b"  ", &text[..40], b" ", &text[40..]].concat();
    Built::from([("token", text), ("token-wrapped", wrapped)])
}

/// Another cluster's id, for what must not fit.
pub(crate) fn stranger() -> ClusterId {
    ClusterId::from_bytes([9; 16])
}
