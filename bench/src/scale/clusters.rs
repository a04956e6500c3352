//! Simulated clusters: their keys, what they export and to whom, and the commands that they sign.

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::Context;
use bytes::Bytes;
use identity::FederationKey;
use model::{
    AccessPolicy, AllowEntry, AppProtocol, ClusterName, ClusterPeer, Namespace, ObjectName,
    PeerAddress, Resource, RoleSet, ServiceExport, ServiceName, ServicePort, Transport,
    TrustBundle, TrustDomain,
};
use wire::store::{
    Change, Command, Domain, Head, Mark, Member, MemberKey, Publish, Record, RecordPut, Redeem,
    Signed, SignedMember, StoreKey, TokenGrant, TokenId, digest_of_records,
};

/// Namespaces of one cluster, each with one policy for all of its exports.
pub const NAMESPACES: u32 = 5;
/// Clusters that a policy allows, beside [`ALL_SEEING`].
const CONSUMERS_PER_NAMESPACE: u32 = 2;
/// This one founds the federation and leads its store.
pub const ROOT: u32 = 0;
/// Every policy allows this one, so that its node is shown everything.
pub const ALL_SEEING: u32 = 1;
/// About what an Ed25519 or P-256 CA certificate has.
const CA_CERTIFICATE_BYTES: usize = 420;
const TOKEN_LIFETIME_MS: u64 = 3_600_000;

/// The key of a simulated cluster: every process of a measurement knows it by the number.
pub fn key(number: u32) -> FederationKey {
    let mut seed = [0x5c; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    FederationKey::from_seed(&seed)
}

/// One cluster, from its own point of view.
#[derive(Debug)]
pub struct Cluster {
    number: u32,
    key: FederationKey,
    member: Member,
    mark: Mark,
    records: BTreeMap<StoreKey, Bytes>,
}

/// What all of them have.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub clusters: u32,
    pub exports: u32,
}

impl Cluster {
    pub fn new(number: u32) -> anyhow::Result<Self> {
        let (key, root) = (key(number), key(ROOT));
        let is_root = number == ROOT;
        let member = Member {
            federation: root.federation_id(),
            cluster: key.cluster_id(),
            name: name(number)?,
            trust_domains: vec![domain(number)?],
            keys: vec![MemberKey { spki: *key.public().spki(), closed_at: None }],
            epoch: 1,
            member_generation: 1,
            roles: RoleSet::all(),
            delegation_depth: u32::from(is_root),
            issuer: root.cluster_id(),
            token_id: (!is_root).then(|| token_id(number)),
        };
        let mark = Mark { epoch: 1, generation: 0 };
        Ok(Self { number, key, member, mark, records: BTreeMap::new() })
    }

    pub fn found(&self) -> Change {
        let member = sign(&self.key, Domain::Member, self.member.encode());
        Change::Found(SignedMember { member, key_proof: None })
    }

    /// The root's word that this one may join, and its joining.
    pub fn admission(&self, root: &Self) -> [Change; 2] {
        let (token_id, now) = (token_id(self.number), unix_ms());
        let grant = TokenGrant {
            federation: self.member.federation,
            token_id,
            name: self.member.name.clone(),
            roles: self.member.roles,
            delegation_depth: self.member.delegation_depth,
            issued_at_unix_ms: now,
            expires_at_unix_ms: now + TOKEN_LIFETIME_MS,
            secret_hmac: [7; 32],
            approval_needed: false,
            issuer: root.member.cluster,
        };
        let payload = self.member.encode();
        let key_proof = Some(self.key.sign(Domain::Join.as_str(), &payload));
        let member = SignedMember { member: sign(&root.key, Domain::Member, payload), key_proof };
        let issued = Change::IssueToken(sign(&root.key, Domain::Token, grant.encode()));
        [issued, Change::Redeem(Redeem { token_id, member, first: None })]
    }

    /// Everything that it has: its ClusterPeer, its exports, and a policy for each namespace.
    pub fn publish_all(&mut self, shape: Shape, port: u16) -> anyhow::Result<Change> {
        let mut objects = vec![self.peer()];
        for namespace in 0..NAMESPACES {
            objects.push(self.policy(shape, namespace)?);
        }
        for export in 0..shape.exports {
            objects.push(self.export(export, port)?);
        }
        Ok(self.publish(&objects))
    }

    /// One export gets another port.
    pub fn publish_one(&mut self, export: u32, port: u16) -> anyhow::Result<Change> {
        let object = self.export(export, port)?;
        Ok(self.publish(&[object]))
    }

    fn publish(&mut self, objects: &[Resource]) -> Change {
        let salt = |n: usize| {
            let mut salt = [0; 16];
            salt[..8].copy_from_slice(&self.mark.generation.to_be_bytes());
            salt[8..].copy_from_slice(&(n as u64).to_be_bytes());
            salt
        };
        let put = |(n, object): (usize, &Resource)| RecordPut {
            key: StoreKey::of(self.member.cluster, &object.key()),
            record: Record::encode(salt(n), object).into(),
        };
        let puts: Vec<RecordPut> = objects.iter().enumerate().map(put).collect();
        let held = puts.iter().map(|put| (put.key.clone(), put.record.clone()));
        self.records.extend(held);
        self.mark.generation += 1;
        Change::Publish(Publish { head: self.head(), puts, removes: Vec::new() })
    }

    /// The Head of what it has, signed now.
    pub fn head(&self) -> Signed {
        let head = Head {
            federation: self.member.federation,
            cluster: self.member.cluster,
            mark: self.mark,
            issued_at_unix_ms: unix_ms(),
            key_id: self.key.key_id(),
            digest: digest_of_records(self.records.iter().map(|(key, it)| (key, &it[..]))),
            records: u32::try_from(self.records.len()).unwrap_or(u32::MAX),
        };
        sign(&self.key, Domain::Head, head.encode())
    }

    /// Bytes of its keys and records.
    pub fn record_bytes(&self) -> usize {
        self.records.iter().map(|(key, record)| key.encode().len() + record.len()).sum()
    }

    pub fn records(&self) -> usize {
        self.records.len()
    }

    fn peer(&self) -> Resource {
        let host = format!("gw.c{:04}.example.net", self.number);
        let bundle = TrustBundle {
            trust_domain: self.member.trust_domains[0].clone(),
            sequence: 1,
            refresh_hint_seconds: None,
            x509_authorities: vec![vec![0x30; CA_CERTIFICATE_BYTES]],
        };
        Resource::ClusterPeer(ClusterPeer {
            name: self.member.name.clone(),
            addresses: vec![PeerAddress { transport: Transport::Quic, host, port: 8443 }],
            trust_bundles: vec![bundle],
            cordoned: false,
            revoked_svids: Vec::new(),
        })
    }

    fn export(&self, export: u32, port: u16) -> anyhow::Result<Resource> {
        let namespace = namespace(self.number, export % NAMESPACES)?;
        let name = ServiceName { namespace, name: service(export)? };
        let ports = vec![ServicePort { name: None, port, protocol: AppProtocol::Http }];
        Ok(Resource::ServiceExport(ServiceExport { name, ports }))
    }

    /// Each cluster is allowed by equally many others.
    fn policy(&self, shape: Shape, number: u32) -> anyhow::Result<Resource> {
        let next =
            |n: u32| (self.number + 1 + number * CONSUMERS_PER_NAMESPACE + n) % shape.clusters;
        let consumers = (0..CONSUMERS_PER_NAMESPACE).map(next).chain([ALL_SEEING]);
        let entry =
            |consumer| Ok(AllowEntry { cluster: Some(name(consumer)?), ..AllowEntry::default() });
        let targets = (0..shape.exports).filter(|export| export % NAMESPACES == number);
        Ok(Resource::AccessPolicy(AccessPolicy {
            namespace: namespace(self.number, number)?,
            name: ObjectName::parse("consumers").context("a policy's name")?,
            targets: targets.map(service).collect::<anyhow::Result<_>>()?,
            allow: consumers.map(entry).collect::<anyhow::Result<_>>()?,
        }))
    }
}

/// A change as a command of its own.
pub fn command(change: Change, request: u64) -> Vec<u8> {
    let request_id = u128::from(request).to_be_bytes();
    Command { request_id, proposed_at_unix_ms: unix_ms(), change }.encode()
}

fn sign(key: &FederationKey, domain: Domain, payload: Vec<u8>) -> Signed {
    let signature = key.sign(domain.as_str(), &payload);
    Signed { payload: payload.into(), key_id: key.key_id(), signature }
}

fn name(number: u32) -> anyhow::Result<ClusterName> {
    ClusterName::parse(&format!("c{number:04}")).context("a cluster's name")
}

fn domain(number: u32) -> anyhow::Result<TrustDomain> {
    TrustDomain::parse(&format!("c{number:04}.example.net")).context("a trust domain")
}

fn namespace(cluster: u32, number: u32) -> anyhow::Result<Namespace> {
    Namespace::parse(&format!("team{number}-c{cluster:04}")).context("a namespace")
}

fn service(export: u32) -> anyhow::Result<ObjectName> {
    ObjectName::parse(&format!("service-{export:03}")).context("a service's name")
}

fn token_id(number: u32) -> TokenId {
    let mut bytes = [3; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    TokenId::from_bytes(bytes)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
