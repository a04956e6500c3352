//! Bytes of the bad vectors: each is a good message with one thing wrong.

use bytes::Bytes;
use prost::Message;
use wire::store::{Change, EMPTY_DIGEST, Head, WatchEvent, proto};

use super::built::stranger;
use super::samples::*;
use crate::vectors::Built;

pub(crate) fn keys() -> Built {
    let good = records()[1].0.encode();
    let cut = |end: usize| good[..end].to_vec();
    let with = |at: usize, bytes: &[u8]| {
        let mut key = good.clone();
        key.splice(at..at + bytes.len(), bytes.iter().copied());
        key
    };
    // "/v1/", 16 and the cluster, 2 and the kind, 4 and "shop", 3 and "api".
    let mut peer = records()[0].0.encode();
    peer.splice(24..25, *b"\x01a");
    let mut homeless = good.clone();
    homeless.splice(24..29, [0]);
    Built::from([
        ("no-prefix", good[4..].to_vec()),
        ("other-version", with(2, b"2")),
        ("cut-in-cluster", cut(12)),
        ("cut-before-name", cut(29)),
        ("cut-in-name", cut(good.len() - 1)),
        ("trailing", [&good[..], b"x"].concat()),
        ("cluster-too-short", [&b"/v1/\x0f"[..], &good[6..]].concat()),
        ("kind-too-long", [&good[..21], &[3, 0, 0], &good[23..]].concat()),
        ("kind-zero", with(22, &[0, 0])),
        ("namespace-upper-case", with(25, b"S")),
        ("name-empty", [&good[..29], &[0]].concat()),
        ("name-not-utf8", with(30, &[0xff])),
        ("peer-with-namespace", peer),
        ("export-without-namespace", homeless),
        ("too-long", [&good[..], &[0; 400]].concat()),
        ("empty", vec![]),
    ])
}

pub(crate) fn messages() -> Built {
    [heads(), members(), statements(), envelopes(), commands(), events()]
        .into_iter()
        .flatten()
        .collect()
}

/// Decodes good bytes as `M`, changes the message, and encodes it again.
fn changed<M: Message + Default>(bytes: Vec<u8>, change: impl FnOnce(&mut M)) -> Vec<u8> {
    let mut message = M::decode(&bytes[..]).unwrap();
    change(&mut message);
    message.encode_to_vec()
}

fn heads() -> Built {
    let spoil = |change: fn(&mut proto::Head)| changed(head().encode(), change);
    let foreign = Head { key_id: key_id(3), ..head() };
    Built::from([
        ("head-cut", head().encode()[..50].to_vec()),
        ("head-no-federation", spoil(|x| x.federation.clear())),
        ("head-short-cluster", spoil(|x| x.cluster = vec![1; 15].into())),
        ("head-epoch-zero", spoil(|x| x.epoch = 0)),
        ("head-generation-zero", spoil(|x| x.generation = 0)),
        ("head-no-time", spoil(|x| x.issued_at_unix_ms = 0)),
        ("head-long-digest", spoil(|x| x.digest = vec![1; 33].into())),
        ("head-too-many-records", spoil(|x| x.records = 4097)),
        ("head-no-records", spoil(|x| x.records = 0)),
        ("head-records-of-nothing", spoil(|x| x.digest = EMPTY_DIGEST.to_vec().into())),
        ("head-wire-type", [&head().encode()[..], &[0x1a, 1, 1]].concat()),
        ("signed-head-other-key", signed(2, foreign.encode()).encode()),
    ])
}

fn members() -> Built {
    let spoil = |change: fn(&mut proto::Member)| changed(member().encode(), change);
    let rotation = |change: fn(&mut proto::Member)| changed(rotated().encode(), change);
    let root = |change: fn(&mut proto::Member)| changed(root().encode(), change);
    Built::from([
        ("member-name", spoil(|x| x.name = "West".into())),
        ("member-no-trust-domain", spoil(|x| x.trust_domains.clear())),
        ("member-trust-domain", spoil(|x| x.trust_domains[0] = "a b".into())),
        ("member-trust-domain-twice", spoil(|x| x.trust_domains[1] = "west.example".into())),
        ("member-trust-domains", spoil(|x| x.trust_domains = vec!["a".into(); 17])),
        ("member-no-key", spoil(|x| x.keys.clear())),
        ("member-short-key", spoil(|x| x.keys[0].spki = vec![0; 32].into())),
        ("member-other-key-kind", spoil(|x| x.keys[0].spki = vec![0x30; 44].into())),
        ("member-foreign-id", spoil(|x| x.cluster = stranger().as_bytes().to_vec().into())),
        ("member-all-closed", rotation(|x| x.keys[1].closed_at = x.keys[0].closed_at)),
        ("member-two-open", rotation(|x| x.keys[0].closed_at = None)),
        ("member-key-twice", rotation(|x| x.keys[1].spki = x.keys[0].spki.clone())),
        ("member-generation-zero", spoil(|x| x.member_generation = 0)),
        ("member-role-unknown", spoil(|x| x.roles.push(4))),
        ("member-role-twice", spoil(|x| x.roles = vec![3, 3])),
        ("member-too-deep", spoil(|x| x.delegation_depth = 9)),
        ("member-no-token", spoil(|x| x.token_id.clear())),
        ("member-root-with-token", root(|x| x.token_id = vec![1; 16].into())),
        ("member-root-of-another", root(|x| x.federation = vec![1; 16].into())),
    ])
}

fn statements() -> Built {
    let grant = |change: fn(&mut proto::TokenGrant)| changed(grant().encode(), change);
    let revocation = |change: fn(&mut proto::Revocation)| changed(revocation().encode(), change);
    let admin = |change: fn(&mut proto::AdminStatement)| changed(standbys().encode(), change);
    fn standbys_of(x: &mut proto::AdminStatement) -> &mut proto::Standbys {
        match x.statement.as_mut().unwrap() {
            proto::admin_statement::Statement::Standbys(x) => x,
            other => panic!("{other:?}"),
        }
    }
    Built::from([
        ("grant-never-valid", grant(|x| x.expires_at_unix_ms = x.issued_at_unix_ms)),
        ("grant-too-long", grant(|x| x.expires_at_unix_ms += 7 * 24 * 3600 * 1000)),
        ("grant-hmac", grant(|x| x.secret_hmac = vec![1; 31].into())),
        ("revocation-no-target", revocation(|x| x.target = None)),
        ("revocation-long-reason", revocation(|x| x.reason = "a".repeat(257))),
        ("revocation-child-twice", revocation(|x| x.reanchor.push(x.reanchor[0].clone()))),
        (
            "revocation-own-issuer",
            revocation(|x| x.reanchor[0].issuer = x.reanchor[0].child.clone()),
        ),
        ("leave-generation-zero", {
            changed(leave().encode(), |x: &mut proto::Leave| x.member_generation = 0)
        }),
        ("admin-unknown", admin(|x| x.statement = None)),
        ("admin-standbys-generation", admin(|x| standbys_of(x).generation = 0)),
        ("admin-standbys-five", admin(|x| standbys_of(x).clusters = vec![vec![1; 16].into(); 5])),
        ("admin-standby-twice", admin(|x| standbys_of(x).clusters = vec![vec![1; 16].into(); 2])),
    ])
}

fn envelopes() -> Built {
    let spoil =
        |change: fn(&mut proto::Signed)| changed(signed(2, head().encode()).encode(), change);
    let chain = |change: fn(&mut proto::MemberChain)| changed(chain().encode(), change);
    Built::from([
        ("signed-nothing", spoil(|x| x.payload.clear())),
        ("signed-short-key-id", spoil(|x| x.key_id = vec![1; 8].into())),
        ("signed-short-signature", spoil(|x| x.signature = vec![1; 63].into())),
        ("signed-no-signature", spoil(|x| x.signature.clear())),
        ("chain-empty", chain(|x| x.links.clear())),
        ("chain-no-member", chain(|x| x.links[1].member = None)),
        ("chain-short-proof", chain(|x| x.links[1].key_proof = vec![1; 63].into())),
    ])
}

fn commands() -> Built {
    use proto::command::Change as Sent;
    let good = || command(Change::Publish(publish())).encode();
    let spoil = |change: fn(&mut proto::Command)| changed(good(), change);
    let publish = |change: fn(&mut proto::Publish)| {
        changed(good(), |x: &mut proto::Command| match x.change.as_mut().unwrap() {
            Sent::Publish(x) => change(x),
            other => panic!("{other:?}"),
        })
    };
    Built::from([
        ("command-empty", vec![]),
        ("command-newer", spoil(|x| x.change = None)),
        ("command-request-id", spoil(|x| x.request_id = vec![1; 15].into())),
        ("command-no-time", spoil(|x| x.proposed_at_unix_ms = 0)),
        ("publish-no-head", publish(|x| x.head = None)),
        ("publish-key", publish(|x| x.puts[1].key = b"/v1/".to_vec().into())),
        ("publish-key-twice", publish(|x| x.puts.push(x.puts[0].clone()))),
        ("publish-put-and-remove", publish(|x| x.removes[0] = x.puts[2].key.clone())),
        ("publish-no-record", publish(|x| x.puts[0].record.clear())),
        ("publish-remove-key", publish(|x| x.removes[0] = Bytes::new())),
    ])
}

fn events() -> Built {
    use proto::watch_event::Event;
    let good = || {
        let (from, revision) = (revision(8), revision(9));
        WatchEvent::Delta { from, revision, update: fleet_update() }.encode().encode_to_vec()
    };
    let spoil = |change: fn(&mut proto::WatchEvent)| changed(good(), change);
    let delta = |change: fn(&mut proto::FleetDelta)| {
        changed(good(), |x: &mut proto::WatchEvent| match x.event.as_mut().unwrap() {
            Event::Delta(x) => change(x),
            other => panic!("{other:?}"),
        })
    };
    fn owner(x: &mut proto::FleetDelta) -> &mut proto::OwnerUpdate {
        &mut x.update.as_mut().unwrap().owners[0]
    }
    fn records(x: &mut proto::FleetDelta, index: usize) -> &mut proto::NamespaceRecords {
        match owner(x).namespaces[index].content.as_mut().unwrap() {
            proto::namespace_update::Content::Records(x) => x,
            other => panic!("{other:?}"),
        }
    }
    fn entry(x: &mut proto::FleetDelta) -> &mut proto::RecordEntry {
        match records(x, 1).entries[0].content.as_mut().unwrap() {
            proto::entry::Content::Record(x) => x,
            other => panic!("{other:?}"),
        }
    }
    let foreign =
        wire::store::StoreKey { cluster: stranger(), ..super::samples::records()[1].0.clone() };
    Built::from([
        ("watch-no-revision", spoil(|x| x.revision = None)),
        ("watch-newer", spoil(|x| x.event = None)),
        ("delta-no-from", delta(|x| x.from = None)),
        ("delta-from-later", delta(|x| x.from.as_mut().unwrap().index = 9)),
        ("delta-no-update", delta(|x| x.update = None)),
        ("delta-more", delta(|x| owner(x).more = true)),
        ("owner-no-head", delta(|x| owner(x).head = None)),
        ("owner-namespace-order", delta(|x| owner(x).namespaces.swap(0, 1))),
        ("owner-namespace-nothing", delta(|x| owner(x).namespaces[0].content = None)),
        ("owner-namespace-empty", delta(|x| records(x, 0).entries.clear())),
        ("owner-short-node", {
            let node = proto::namespace_update::Content::Node(vec![1; 31].into());
            changed(good(), |x: &mut proto::WatchEvent| match x.event.as_mut().unwrap() {
                Event::Delta(x) => owner(x).namespaces[2].content = Some(node),
                other => panic!("{other:?}"),
            })
        }),
        ("entry-nothing", delta(|x| records(x, 1).entries[1].content = None)),
        (
            "entry-twice",
            delta(|x| {
                let records = records(x, 1);
                records.entries.push(records.entries[0].clone());
            }),
        ),
        ("entry-elsewhere", delta(|x| records(x, 1).namespace = "shoq".into())),
        ("entry-of-another", {
            changed(good(), |x: &mut proto::WatchEvent| match x.event.as_mut().unwrap() {
                Event::Delta(x) => entry(x).key = foreign.encode().into(),
                other => panic!("{other:?}"),
            })
        }),
        ("entry-no-record", delta(|x| entry(x).record.clear())),
        ("entry-no-since", delta(|x| entry(x).since = None)),
    ])
}

/// What is too long for a file of vectors, with the words in which it is refused.
pub(crate) fn oversized() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let with_records = |length: usize, count: usize| {
        let mut publish = publish();
        let record = Bytes::from(vec![1; length]);
        publish.puts.iter_mut().take(count).for_each(|put| put.record = record.clone());
        command(Change::Publish(publish)).encode()
    };
    let mut chain = chain();
    chain.links = vec![chain.links[0].clone(); 65];
    let chain = chain.encode();
    let head = [&head().encode()[..], &[0xda, 5, 0x80, 0x80, 2], &[0; 32768]].concat();
    vec![
        ("Head", head, "Head = 32874 bytes: at most 32768 bytes are allowed"),
        ("MemberChain", chain, "MemberChain.links = 65 entries: at most 64 entries are allowed"),
        (
            "Signed",
            signed(2, vec![1; 32769]).encode(),
            "Signed.payload = 32769 bytes: at most 32768 bytes are allowed",
        ),
        (
            "Signed",
            signed(2, vec![1; 33000]).encode(),
            "Signed = 33088 bytes: at most 32896 bytes are allowed",
        ),
        (
            "Command",
            with_records(65537, 1),
            "Command.publish.puts[0].record = 65537 bytes: at most 65536 bytes are allowed",
        ),
        (
            "Command",
            with_records(65536, 4),
            "Command = 262665 bytes: at most 262144 bytes are allowed",
        ),
    ]
}

/// Texts that are no tokens, and what a person did to them.
pub(crate) fn tokens() -> Built {
    let good = token().to_text().unwrap().to_string();
    let swapped = {
        let mut bytes = good.clone().into_bytes();
        let at = (100..).find(|at| bytes[*at] != bytes[at + 1]).unwrap();
        bytes.swap(at, at + 1);
        bytes
    };
    let ending = |text: String| text.into_bytes();
    Built::from([
        ("other-version", ending(good.replacen("fedgate1.", "fedgate2.", 1))),
        ("wrong-character", ending(good.replacen("fedgate1.", "fedgate1.*", 1))),
        ("a-word-before", ending(format!("token:{good}"))),
        ("one-missing", ending(good[..good.len() - 1].into())),
        ("two-missing", ending(good[..good.len() - 2].into())),
        ("half", ending(good[..good.len() / 2].into())),
        ("prefix-only", ending(good[..9].into())),
        ("one-more", ending(format!("{good}A"))),
        ("a-line-more", ending(format!("{good}AAAA"))),
        ("two-swapped", swapped),
        ("last-bits", ending(format!("{}{}", &good[..good.len() - 1], "_"))),
    ])
}
