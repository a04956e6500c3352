//! A federation made of public formats alone: keys, signed Members, Heads and records, and the
//! events of a watch stream, all written by hand from `docs/reference/store.md`. Honest nodes and
//! the liar are both built from it; the readers under test are not.

use std::collections::BTreeMap;

use identity::FederationKey;
use model::{
    AccessPolicy, AllowEntry, ClusterId, ClusterName, FederationId, Namespace, ObjectName,
    Resource, Revision, Role, RoleSet, ServiceExport, ServiceName, TrustDomain,
};
use wire::store::{
    Domain, Entry, FleetUpdate, Head, Mark, Member, MemberChain, MemberKey, NamespaceUpdate,
    OwnerUpdate, Record, RecordEntry, Signed, SignedMember, StoreKey, TokenId, WatchEvent,
    digest_of_records,
};

/// The epoch of all Heads and revisions of these tests.
pub(crate) const EPOCH: u64 = 1;

/// A cluster with its key.
pub(crate) struct Cluster {
    pub(crate) key: FederationKey,
    pub(crate) id: ClusterId,
    pub(crate) federation: FederationId,
    pub(crate) chain: MemberChain,
}

/// A cluster's records by key.
pub(crate) type Records = BTreeMap<Vec<u8>, (StoreKey, Vec<u8>)>;

/// The founder, which admits all others, first.
pub(crate) fn federation(names: &[&'static str]) -> Vec<Cluster> {
    let key = |index: usize| FederationKey::from_seed(&[index as u8 + 1; 32]);
    let root = key(0);
    let federation = root.federation_id();
    let cluster = |(index, name): (usize, &&'static str)| {
        let (key, name) = (key(index), *name);
        let id = key.cluster_id();
        let chain = chain(&root, &key, name, federation, index);
        Cluster { key, id, federation, chain }
    };
    names.iter().enumerate().map(cluster).collect()
}

fn chain(
    root: &FederationKey,
    key: &FederationKey,
    name: &str,
    federation: FederationId,
    index: usize,
) -> MemberChain {
    let roles = [Role::Admit, Role::Admin, Role::Export];
    let member = Member {
        federation,
        cluster: key.cluster_id(),
        name: ClusterName::parse(name).unwrap(),
        trust_domains: vec![TrustDomain::parse(&format!("{name}.fed")).unwrap()],
        keys: vec![MemberKey { spki: *key.public().spki(), closed_at: None }],
        epoch: EPOCH,
        member_generation: 1,
        roles: roles.into_iter().fold(RoleSet::NONE, RoleSet::with),
        delegation_depth: if index == 0 { 3 } else { 0 },
        issuer: root.cluster_id(),
        token_id: (index > 0).then(|| TokenId::from_bytes([index as u8; 16])),
    };
    let payload = member.encode();
    let key_proof = (index > 0).then(|| key.sign(Domain::Join.as_str(), &payload));
    let member = sign(root, Domain::Member, payload);
    MemberChain { links: vec![SignedMember { member, key_proof }], leave: None }
}

pub(crate) fn sign(key: &FederationKey, domain: Domain, payload: Vec<u8>) -> Signed {
    let signature = key.sign(domain.as_str(), &payload);
    Signed { payload: payload.into(), key_id: key.key_id(), signature }
}

pub(crate) fn revision(index: u64) -> Revision {
    Revision { epoch: EPOCH, index }
}

pub(crate) fn mark(generation: u64) -> Mark {
    Mark { epoch: EPOCH, generation }
}

impl Cluster {
    /// A Head over records; `issued` tells signatures of the same generation apart.
    pub(crate) fn head(&self, generation: u64, issued: u64, records: &Records) -> Signed {
        let set = records.values().map(|(key, record)| (key, record.as_slice()));
        let head = Head {
            federation: self.federation,
            cluster: self.id,
            mark: mark(generation),
            issued_at_unix_ms: issued,
            key_id: self.key.key_id(),
            digest: digest_of_records(set),
            records: records.len() as u32,
        };
        sign(&self.key, Domain::Head, head.encode())
    }

    /// Exports in the namespace `shop`, each with a policy that allows `consumer`.
    pub(crate) fn exports(&self, services: &[&str], consumer: &str) -> Records {
        let mut records = Records::new();
        for service in services {
            let name = ServiceName {
                namespace: Namespace::parse("shop").unwrap(),
                name: ObjectName::parse(service).unwrap(),
            };
            let policy = AccessPolicy {
                namespace: name.namespace.clone(),
                name: ObjectName::parse(&format!("{service}-policy")).unwrap(),
                targets: vec![name.name.clone()],
                allow: vec![AllowEntry {
                    cluster: Some(ClusterName::parse(consumer).unwrap()),
                    trust_domain: None,
                    spiffe_id: None,
                }],
            };
            self.put(&mut records, &Resource::ServiceExport(ServiceExport { name, ports: vec![] }));
            self.put(&mut records, &Resource::AccessPolicy(policy));
        }
        records
    }

    fn put(&self, records: &mut Records, resource: &Resource) {
        let key = StoreKey::of(self.id, &resource.key());
        // Salts are random in life; here they are as different as keys are.
        let salt = wire::store::leaf_hash(&key.encode(), b"salt")[..16].try_into().unwrap();
        records.insert(key.encode(), (key, Record::encode(salt, resource)));
    }

    /// Everything of this owner in the open.
    pub(crate) fn update(&self, head: Signed, records: &Records, since: u64) -> OwnerUpdate {
        let mut namespaces: BTreeMap<Option<Namespace>, Vec<Entry>> = BTreeMap::new();
        for (key, record) in records.values() {
            let record = record.clone().into();
            let entry = RecordEntry { key: key.clone(), record, since: revision(since) };
            namespaces.entry(key.namespace.clone()).or_default().push(Entry::Record(entry));
        }
        let shown = |(namespace, entries)| NamespaceUpdate::Records { namespace, entries };
        let namespaces = namespaces.into_iter().map(shown).collect();
        OwnerUpdate { cluster: self.id, head, namespaces, more: false }
    }
}

/// A whole snapshot in one part.
pub(crate) fn snapshot(
    clusters: &[Cluster],
    index: u64,
    owners: Vec<OwnerUpdate>,
) -> Vec<WatchEvent> {
    let revision = revision(index);
    let members = clusters.iter().map(|cluster| cluster.chain.clone()).collect();
    let update = FleetUpdate { members, revocations: vec![], owners };
    vec![
        WatchEvent::SnapshotBegin { revision, federation: clusters[0].federation },
        WatchEvent::SnapshotPart { revision, update },
        WatchEvent::SnapshotEnd { revision, parts: 1 },
    ]
}

/// A step that changes some owners.
pub(crate) fn delta(from: u64, to: u64, owners: Vec<OwnerUpdate>) -> WatchEvent {
    let update = FleetUpdate { members: vec![], revocations: vec![], owners };
    WatchEvent::Delta { from: revision(from), revision: revision(to), update }
}
