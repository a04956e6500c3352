//! The federation that the vectors speak of: east founded it, west joined with a token of east's.

use bytes::Bytes;
use model::{
    AccessPolicy, AllowEntry, AppProtocol, ClusterId, ClusterName, ClusterPeer, FederationId,
    KeyId, Namespace, NamespaceGrant, NamespaceMatch, NamespacePrefix, ObjectName, PeerAddress,
    Resource, Revision, RevokedSvid, Role, RoleSet, ServiceExport, ServiceName, ServicePort,
    SpiffeId, Transport, TrustBundle, TrustDomain,
};
use wire::store::{
    AdminChange, AdminStatement, Change, Command, Entry, FleetUpdate, Head, JoinToken, Leave, Mark,
    Member, MemberChain, MemberKey, NamespaceUpdate, OwnerUpdate, Publish, Reanchor, Record,
    RecordEntry, RecordPut, Redeem, Revocation, RevocationTarget, Signed, SignedMember, SpkiBytes,
    StoreKey, TokenGrant, TokenId, TokenSecret, digest_of_records,
};

use crate::vectors::unhex;

/// 2026-01-01T00:00:00Z.
pub(crate) const NOW_UNIX_MS: u64 = 1_767_225_600_000;
pub(crate) const REQUEST: [u8; 16] = [0x77; 16];

/// The public keys of the seeds that are 32 times 1, 2, 3 (see `signatures.txt`).
pub(crate) fn spki(seed: usize) -> SpkiBytes {
    let keys = [
        "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
        "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394",
        "ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1",
    ];
    let spki = ["302a300506032b6570032100", keys[seed - 1]].concat();
    unhex(&spki).try_into().unwrap()
}

pub(crate) fn east() -> ClusterId {
    ClusterId::of_key(&spki(1))
}

pub(crate) fn west() -> ClusterId {
    ClusterId::of_key(&spki(2))
}

pub(crate) fn federation() -> FederationId {
    FederationId::of_key(&spki(1))
}

pub(crate) fn key_id(seed: usize) -> KeyId {
    KeyId::of_key(&spki(seed))
}

pub(crate) fn token_id() -> TokenId {
    TokenId::from_bytes([0x33; 16])
}

pub(crate) fn secret() -> TokenSecret {
    TokenSecret::from_bytes([0x44; 32])
}

pub(crate) fn revision(index: u64) -> Revision {
    Revision { epoch: 1, index }
}

fn name(text: &str) -> ClusterName {
    ClusterName::parse(text).unwrap()
}

fn domain(text: &str) -> TrustDomain {
    TrustDomain::parse(text).unwrap()
}

pub(crate) fn namespace(text: &str) -> Namespace {
    Namespace::parse(text).unwrap()
}

pub(crate) fn object(text: &str) -> ObjectName {
    ObjectName::parse(text).unwrap()
}

/// An envelope whose signature is filler: here nobody checks it.
pub(crate) fn signed(seed: usize, payload: Vec<u8>) -> Signed {
    Signed { payload: payload.into(), key_id: key_id(seed), signature: [0x5a; 64] }
}

pub(crate) fn root() -> Member {
    Member {
        federation: federation(),
        cluster: east(),
        name: name("east"),
        trust_domains: vec![domain("east.example")],
        keys: vec![MemberKey { spki: spki(1), closed_at: None }],
        epoch: 1,
        member_generation: 1,
        roles: RoleSet::all(),
        delegation_depth: 3,
        issuer: east(),
        token_id: None,
    }
}

pub(crate) fn member() -> Member {
    Member {
        cluster: west(),
        name: name("west"),
        trust_domains: vec![domain("west.example"), domain("west-old.example")],
        keys: vec![MemberKey { spki: spki(2), closed_at: None }],
        roles: RoleSet::NONE.with(Role::Export),
        delegation_depth: 0,
        token_id: Some(token_id()),
        ..root()
    }
}

/// West with a new key: its first one is closed at 1.7.
pub(crate) fn rotated() -> Member {
    let closed_at = Some(Mark { epoch: 1, generation: 7 });
    Member {
        keys: vec![
            MemberKey { spki: spki(2), closed_at },
            MemberKey { spki: spki(3), closed_at: None },
        ],
        member_generation: 2,
        ..member()
    }
}

pub(crate) fn signed_root() -> SignedMember {
    SignedMember { member: signed(1, root().encode()), key_proof: None }
}

pub(crate) fn signed_member() -> SignedMember {
    SignedMember { member: signed(1, member().encode()), key_proof: Some([0x6b; 64]) }
}

pub(crate) fn signed_rotation() -> SignedMember {
    SignedMember { member: signed(2, rotated().encode()), key_proof: Some([0x6b; 64]) }
}

pub(crate) fn chain() -> MemberChain {
    let links = vec![signed_member(), signed_rotation()];
    MemberChain { links, leave: Some(signed(3, leave().encode())) }
}

pub(crate) fn grant() -> TokenGrant {
    TokenGrant {
        federation: federation(),
        token_id: token_id(),
        name: name("west"),
        roles: RoleSet::NONE.with(Role::Export),
        delegation_depth: 0,
        issued_at_unix_ms: NOW_UNIX_MS,
        expires_at_unix_ms: NOW_UNIX_MS + 900_000,
        secret_hmac: secret().hmac(&token_id(), &federation(), &name("west")),
        approval_needed: true,
        issuer: east(),
    }
}

pub(crate) fn revocation() -> Revocation {
    Revocation {
        federation: federation(),
        target: RevocationTarget::Cluster(west()),
        not_before_unix_ms: NOW_UNIX_MS,
        issuer: east(),
        reason: "its disk was stolen".into(),
        reanchor: vec![Reanchor { child: ClusterId::from_bytes([9; 16]), issuer: east() }],
    }
}

pub(crate) fn domain_revocation() -> Revocation {
    Revocation {
        target: RevocationTarget::TrustDomain(domain("west-old.example")),
        not_before_unix_ms: 0,
        reason: String::new(),
        reanchor: vec![],
        ..revocation()
    }
}

pub(crate) fn leave() -> Leave {
    Leave { federation: federation(), cluster: west(), issuer: west(), member_generation: 2 }
}

pub(crate) fn standbys() -> AdminStatement {
    let clusters = vec![west(), ClusterId::from_bytes([9; 16])];
    let change = AdminChange::Standbys { generation: 4, clusters };
    AdminStatement { federation: federation(), issuer: east(), change }
}

pub(crate) fn token_revocation() -> AdminStatement {
    AdminStatement { change: AdminChange::RevokeToken(token_id()), ..standbys() }
}

/// West's objects: one cluster-wide, two in `shop`, one in `shop-eu`, one grant.
pub(crate) fn resources() -> Vec<Resource> {
    let service = |text| ServiceName::parse(text).unwrap();
    let port = |name: Option<&str>, port, protocol| ServicePort {
        name: name.map(Into::into),
        port,
        protocol,
    };
    vec![
        Resource::ClusterPeer(ClusterPeer {
            name: name("west"),
            addresses: vec![PeerAddress {
                transport: Transport::Quic,
                host: "gw.west.example".into(),
                port: 8443,
            }],
            trust_bundles: vec![TrustBundle {
                trust_domain: domain("west.example"),
                sequence: 3,
                refresh_hint_seconds: Some(300),
                x509_authorities: vec![vec![0x30, 0]],
            }],
            cordoned: false,
            revoked_svids: Vec::new(),
        }),
        Resource::ServiceExport(ServiceExport {
            name: service("shop/api"),
            ports: vec![
                port(Some("http"), 80, AppProtocol::Http),
                port(Some("grpc"), 81, AppProtocol::H2c),
            ],
        }),
        Resource::AccessPolicy(AccessPolicy {
            namespace: namespace("shop"),
            name: object("api"),
            targets: vec![object("api")],
            allow: vec![AllowEntry { cluster: Some(name("east")), ..AllowEntry::default() }],
        }),
        Resource::ServiceExport(ServiceExport {
            name: service("shop-eu/db"),
            ports: vec![port(None, 6379, AppProtocol::Tcp)],
        }),
        Resource::NamespaceGrant(NamespaceGrant {
            name: object("shops"),
            namespaces: vec![
                NamespaceMatch::Name(namespace("shop")),
                NamespaceMatch::Prefix(NamespacePrefix::parse("shop-").unwrap()),
            ],
            clusters: vec![name("west")],
        }),
    ]
}

/// The objects as records, the n-th with a salt of 16 times n.
pub(crate) fn records() -> Vec<(StoreKey, Bytes)> {
    let record = |(index, resource): (usize, Resource)| {
        let key = StoreKey::of(west(), &resource.key());
        (key, Record::encode([index as u8 + 1; 16], &resource).into())
    };
    resources().into_iter().enumerate().map(record).collect()
}

/// West's ClusterPeer with a gateway whose key is in other hands, salted as the first record.
pub(crate) fn denying_record() -> (StoreKey, Bytes) {
    let Resource::ClusterPeer(mut peer) = resources().swap_remove(0) else { unreachable!() };
    peer.revoked_svids = vec![RevokedSvid {
        id: SpiffeId::parse("spiffe://west.example/fedgate/gateway/gw-0").unwrap(),
        not_before_unix_s: NOW_UNIX_MS / 1000 - 59,
    }];
    let resource = Resource::ClusterPeer(peer);
    let bytes = Record::encode([1; 16], &resource);
    let key = StoreKey::of(west(), &resource.key());
    let read = Record::decode(&key, &bytes).unwrap();
    assert_eq!(read.resource, Some(resource));
    (key, bytes.into())
}

pub(crate) fn head_over(records: &[(StoreKey, Bytes)], generation: u64) -> Head {
    Head {
        federation: federation(),
        cluster: west(),
        mark: Mark { epoch: 1, generation },
        issued_at_unix_ms: NOW_UNIX_MS,
        key_id: key_id(2),
        digest: digest_of_records(records.iter().map(|(key, record)| (key, &record[..]))),
        records: records.len() as u32,
    }
}

pub(crate) fn head() -> Head {
    head_over(&records(), 7)
}

pub(crate) fn publish() -> Publish {
    let puts = records().into_iter().map(|(key, record)| RecordPut { key, record }).collect();
    let old = StoreKey { name: object("old"), ..records()[1].0.clone() };
    Publish { head: signed(2, head().encode()), puts, removes: vec![old] }
}

pub(crate) fn redeem() -> Redeem {
    let first = Publish { removes: vec![], ..publish() };
    Redeem { token_id: token_id(), member: signed_member(), first: Some(first) }
}

pub(crate) fn command(change: Change) -> Command {
    Command { request_id: REQUEST, proposed_at_unix_ms: NOW_UNIX_MS, change }
}

/// West's records in the order of the tree, nothing withheld.
pub(crate) fn owner_update() -> OwnerUpdate {
    owner_update_of(&records())
}

pub(crate) fn owner_update_of(records: &[(StoreKey, Bytes)]) -> OwnerUpdate {
    let mut sorted: Vec<_> = records.to_vec();
    sorted.sort_by(|(a, _), (b, _)| (&a.namespace, a).cmp(&(&b.namespace, b)));
    let mut namespaces: Vec<NamespaceUpdate> = Vec::new();
    for (key, record) in sorted {
        let namespace = key.namespace.clone();
        let entry = Entry::Record(RecordEntry { key, record, since: revision(5) });
        match namespaces.last_mut() {
            Some(NamespaceUpdate::Records { namespace: last, entries }) if *last == namespace => {
                entries.push(entry);
            }
            _ => namespaces.push(NamespaceUpdate::Records { namespace, entries: vec![entry] }),
        }
    }
    let head = signed(2, head_over(records, 7).encode());
    OwnerUpdate { cluster: west(), head, namespaces, more: false }
}

/// As a reader sees it that may not see the policy and nothing of `shop-eu`.
pub(crate) fn filtered_update() -> OwnerUpdate {
    let mut update = owner_update();
    let NamespaceUpdate::Records { entries, .. } = &mut update.namespaces[1] else { panic!() };
    entries[1] = Entry::Leaf(entries[1].leaf());
    update.namespaces[2] = NamespaceUpdate::Node(update.namespaces[2].node().unwrap());
    update
}

pub(crate) fn fleet_update() -> FleetUpdate {
    FleetUpdate {
        members: vec![MemberChain { links: vec![signed_root()], leave: None }, chain()],
        revocations: vec![signed(1, revocation().encode())],
        owners: vec![filtered_update()],
    }
}

pub(crate) fn token() -> JoinToken {
    JoinToken {
        token_id: token_id(),
        federation: federation(),
        issuer: east(),
        issuer_name: name("east"),
        ca_pin: [0x55; 32],
        spiffe_id: SpiffeId::parse("spiffe://east.example/fedgate/federation/node").unwrap(),
        addresses: vec![PeerAddress {
            transport: Transport::Quic,
            host: "gw.east.example".into(),
            port: 8443,
        }],
        name: name("west"),
        roles: RoleSet::NONE.with(Role::Export),
        delegation_depth: 0,
        secret: secret(),
        expires_at_unix_ms: NOW_UNIX_MS + 900_000,
        approval_needed: true,
    }
}
