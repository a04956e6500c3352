//! A federation for tests: clusters with keys, and a state that checks itself at every command.

use std::collections::BTreeMap;

use bytes::Bytes;
use identity::FederationKey;
use model::{
    AccessPolicy, AllowEntry, AppProtocol, ClusterId, ClusterName, ClusterPeer, FederationId,
    Namespace, NamespaceGrant, NamespaceMatch, ObjectName, PeerAddress, Resource, Revision,
    RoleSet, ServiceExport, ServiceName, ServicePort, Transport, TrustBundle, TrustDomain,
};
use wire::store::{
    self, AdminChange, AdminStatement, Change, Command, Domain, Head, Leave, Mark, Member,
    MemberKey, Publish, Reanchor, RecordPut, Redeem, Revocation, RevocationTarget, Signed,
    SignedMember, StoreKey, TokenGrant, TokenId, digest_of_records,
};

use crate::fleet::{Applied, FleetState, Refusal};

/// When everything happens.
pub(super) const NOW_MS: u64 = 1_800_000_000_000;
pub(super) const TOKEN_LIFETIME_MS: u64 = 900_000;

/// A cluster, from its own point of view.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) key: FederationKey,
    /// What [`key`] makes the key of.
    pub(super) seed: String,
    pub(super) member: Member,
    pub(super) mark: Mark,
    pub(super) records: BTreeMap<StoreKey, Bytes>,
}

/// The store, and what lies on its disk.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    pub(super) state: FleetState,
    pub(super) disk: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) index: u64,
    pub(super) now_ms: u64,
}

impl World {
    /// A federation of one: `east`, with every role.
    pub(super) fn founded() -> (Self, Cluster) {
        let mut world = Self { now_ms: NOW_MS, ..Self::default() };
        let east = Cluster::root("east");
        world.accept(Change::Found(east.root_link()));
        (world, east)
    }

    /// Admits a cluster with all roles and one step of delegation less.
    pub(super) fn admit(&mut self, by: &Cluster, name: &str) -> Cluster {
        self.admit_with(by, name, RoleSet::all(), by.member.delegation_depth - 1)
    }

    pub(super) fn admit_with(
        &mut self,
        by: &Cluster,
        name: &str,
        roles: RoleSet,
        depth: u32,
    ) -> Cluster {
        let grant = by.grant(name, roles, depth);
        let cluster = Cluster::joining(name, &grant, by);
        self.accept(Change::IssueToken(by.sign(Domain::Token, &grant.encode())));
        self.accept(cluster.redeem(by));
        cluster
    }

    pub(super) fn accept(&mut self, change: Change) -> Applied {
        self.apply(change).unwrap_or_else(|refusal| panic!("refused: {refusal}"))
    }

    pub(super) fn refuse(&mut self, change: Change) -> Refusal {
        match self.apply(change) {
            Ok(applied) => panic!("accepted: {applied:?}"),
            Err(refusal) => refusal,
        }
    }

    pub(super) fn apply(&mut self, change: Change) -> Result<Applied, Refusal> {
        let command = self.command(change).encode();
        self.apply_bytes(&command)
    }

    /// A refused command changes nothing; an accepted one writes exactly what it changes.
    pub(super) fn apply_bytes(&mut self, command: &[u8]) -> Result<Applied, Refusal> {
        let before = self.state.to_kv();
        let revision = Revision { epoch: 1, index: self.index };
        let outcome = self.state.apply(revision, command);
        match &outcome {
            Err(_) => assert!(self.state.to_kv() == before, "a refusal changed something"),
            Ok(applied) => {
                for write in &applied.writes {
                    match &write.value {
                        Some(value) => self.disk.insert(write.key.clone(), value.clone()),
                        None => self.disk.remove(&write.key),
                    };
                }
                let kept = self.state.to_kv().into_iter().eq(self.disk.clone());
                assert!(kept, "the writes are not the change");
            }
        }
        outcome
    }

    /// As [`Self::apply`], without looking at the whole state each time.
    pub(super) fn quick(&mut self, change: Change) -> Result<Applied, Refusal> {
        let command = self.command(change).encode();
        self.state.apply(Revision { epoch: 1, index: self.index }, &command)
    }

    /// The next command.
    pub(super) fn command(&mut self, change: Change) -> Command {
        self.index += 1;
        let request_id = u128::from(self.index).to_be_bytes();
        Command { request_id, proposed_at_unix_ms: self.now_ms, change }
    }

    /// Publishes more of a cluster's objects.
    pub(super) fn publish(&mut self, cluster: &mut Cluster, puts: &[Resource]) -> Applied {
        let change = cluster.publish(puts, &[]);
        self.accept(change)
    }

    pub(super) fn revision(&self) -> Revision {
        self.state.revision()
    }
}

impl Cluster {
    pub(super) fn root(name: &str) -> Self {
        let key = key(name);
        let (federation, cluster) = (key.federation_id(), key.cluster_id());
        let member = Member {
            federation,
            cluster,
            name: ClusterName::parse(name).unwrap(),
            trust_domains: vec![domain(name)],
            keys: vec![MemberKey { spki: *key.public().spki(), closed_at: None }],
            epoch: 1,
            member_generation: 1,
            roles: RoleSet::all(),
            delegation_depth: 3,
            issuer: cluster,
            token_id: None,
        };
        let mark = Mark { epoch: 1, generation: 0 };
        Self { key, seed: name.into(), member, mark, records: BTreeMap::new() }
    }

    pub(super) fn joining(name: &str, grant: &TokenGrant, by: &Self) -> Self {
        let mut cluster = Self::root(name);
        cluster.member = Member {
            federation: by.member.federation,
            roles: grant.roles,
            delegation_depth: grant.delegation_depth,
            issuer: by.id(),
            token_id: Some(grant.token_id),
            ..cluster.member
        };
        cluster
    }

    pub(super) fn id(&self) -> ClusterId {
        self.member.cluster
    }

    pub(super) fn federation(&self) -> FederationId {
        self.member.federation
    }

    pub(super) fn sign(&self, domain: Domain, payload: &[u8]) -> Signed {
        sign(&self.key, domain, payload)
    }

    pub(super) fn root_link(&self) -> SignedMember {
        let member = self.sign(Domain::Member, &self.member.encode());
        SignedMember { member, key_proof: None }
    }

    /// This member as `by` vouches for it, with this cluster's consent.
    pub(super) fn link_by(&self, by: &Self) -> SignedMember {
        let payload = self.member.encode();
        let proof = self.key.sign(Domain::Join.as_str(), &payload);
        SignedMember { member: by.sign(Domain::Member, &payload), key_proof: Some(proof) }
    }

    pub(super) fn grant(&self, name: &str, roles: RoleSet, depth: u32) -> TokenGrant {
        TokenGrant {
            federation: self.federation(),
            token_id: token_id(name),
            name: ClusterName::parse(name).unwrap(),
            roles,
            delegation_depth: depth,
            issued_at_unix_ms: NOW_MS,
            expires_at_unix_ms: NOW_MS + TOKEN_LIFETIME_MS,
            secret_hmac: [7; 32],
            approval_needed: false,
            issuer: self.id(),
        }
    }

    pub(super) fn redeem(&self, by: &Self) -> Change {
        let token_id = self.member.token_id.unwrap();
        Change::Redeem(Redeem { token_id, member: self.link_by(by), first: None })
    }

    /// The step to a set with these objects put and these keys removed, under the next Head.
    pub(super) fn publish(&mut self, puts: &[Resource], removes: &[Resource]) -> Change {
        let puts: Vec<RecordPut> = puts.iter().map(|resource| self.put(resource)).collect();
        let removes = removes.iter().map(|it| StoreKey::of(self.id(), &it.key())).collect();
        self.publish_raw(puts, removes)
    }

    pub(super) fn put(&self, resource: &Resource) -> RecordPut {
        let key = StoreKey::of(self.id(), &resource.key());
        RecordPut { key, record: store::Record::encode([5; 16], resource).into() }
    }

    pub(super) fn publish_raw(&mut self, puts: Vec<RecordPut>, removes: Vec<StoreKey>) -> Change {
        for put in &puts {
            self.records.insert(put.key.clone(), put.record.clone());
        }
        for key in &removes {
            self.records.remove(key);
        }
        self.mark.epoch = self.member.epoch;
        self.mark.generation += 1;
        let head = self.sign(Domain::Head, &self.head().encode());
        Change::Publish(Publish { head, puts, removes })
    }

    /// The Head of what the cluster has.
    pub(super) fn head(&self) -> Head {
        let records = self.records.iter().map(|(key, record)| (key, &record[..]));
        Head {
            federation: self.federation(),
            cluster: self.id(),
            mark: self.mark,
            issued_at_unix_ms: NOW_MS,
            key_id: self.key.key_id(),
            digest: digest_of_records(records),
            records: u32::try_from(self.records.len()).unwrap(),
        }
    }

    /// An update by the member itself.
    pub(super) fn own_update(&self, change: impl FnOnce(&mut Member)) -> Change {
        let after = self.changed(change);
        let member = self.sign(Domain::Member, &after.encode());
        Change::UpdateMember(SignedMember { member, key_proof: None })
    }

    /// An update by another member, without a new key.
    pub(super) fn update_by(&self, by: &Self, change: impl FnOnce(&mut Member)) -> Change {
        let after = self.changed(change);
        let member = by.sign(Domain::Member, &after.encode());
        Change::UpdateMember(SignedMember { member, key_proof: None })
    }

    pub(super) fn changed(&self, change: impl FnOnce(&mut Member)) -> Member {
        let mut after = self.member.clone();
        after.member_generation += 1;
        change(&mut after);
        after
    }

    /// A change of keys: `by` signs (the cluster itself for a rotation, an admit holder for a lost
    /// key), and the new key agrees. Takes effect here.
    pub(super) fn rekey(&mut self, by: Option<&Self>, seed: &str, closed_at: Mark) -> Change {
        let new = key(seed);
        let after = self.changed(|member| {
            member.keys.last_mut().unwrap().closed_at = Some(closed_at);
            member.keys.push(MemberKey { spki: *new.public().spki(), closed_at: None });
        });
        let payload = after.encode();
        let member = sign(by.map_or(&self.key, |by| &by.key), Domain::Member, &payload);
        let key_proof = Some(new.sign(Domain::Join.as_str(), &payload));
        (self.key, self.member) = (new, after);
        Change::UpdateMember(SignedMember { member, key_proof })
    }

    pub(super) fn leave(&self, by: &Self) -> Change {
        let leave = Leave {
            federation: self.federation(),
            cluster: self.id(),
            issuer: by.id(),
            member_generation: self.member.member_generation,
        };
        Change::Leave(by.sign(Domain::Leave, &leave.encode()))
    }

    pub(super) fn revocation(&self, target: RevocationTarget, moved: &[(&Self, &Self)]) -> Signed {
        let reanchor =
            moved.iter().map(|(child, to)| Reanchor { child: child.id(), issuer: to.id() });
        let revocation = Revocation {
            federation: self.federation(),
            target,
            not_before_unix_ms: 0,
            issuer: self.id(),
            reason: "test".into(),
            reanchor: reanchor.collect(),
        };
        self.sign(Domain::Revocation, &revocation.encode())
    }

    pub(super) fn revoke(&self, target: &Self, moved: &[(&Self, &Self)]) -> Change {
        Change::Revoke(self.revocation(RevocationTarget::Cluster(target.id()), moved))
    }

    pub(super) fn admin(&self, change: AdminChange) -> Change {
        let (federation, issuer) = (self.federation(), self.id());
        let statement = AdminStatement { federation, issuer, change };
        Change::Admin(self.sign(Domain::Admin, &statement.encode()))
    }

    /// Its own ClusterPeer.
    pub(super) fn peer(&self) -> ClusterPeer {
        let name = &self.member.name;
        let (transport, host) = (Transport::Quic, format!("{name}.example"));
        let bundle = TrustBundle {
            trust_domain: domain(name.as_str()),
            sequence: 1,
            refresh_hint_seconds: None,
            x509_authorities: vec![vec![1, 2, 3]],
        };
        ClusterPeer {
            name: name.clone(),
            addresses: vec![PeerAddress { transport, host, port: 8443 }],
            trust_bundles: vec![bundle],
            cordoned: false,
            revoked_svids: Vec::new(),
        }
    }

    pub(super) fn peer_resource(&self) -> Resource {
        Resource::ClusterPeer(self.peer())
    }
}

pub(super) fn key(seed: &str) -> FederationKey {
    let mut bytes = [9; 32];
    bytes[..seed.len()].copy_from_slice(seed.as_bytes());
    FederationKey::from_seed(&bytes)
}

pub(super) fn sign(key: &FederationKey, domain: Domain, payload: &[u8]) -> Signed {
    let signature = key.sign(domain.as_str(), payload);
    Signed { payload: Bytes::copy_from_slice(payload), key_id: key.key_id(), signature }
}

pub(super) fn token_id(name: &str) -> TokenId {
    let mut bytes = [3; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    TokenId::from_bytes(bytes)
}

pub(super) fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(&format!("{name}.fed")).unwrap()
}

pub(super) fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

/// An export with one HTTP port.
pub(super) fn export(name: &str, port: u16) -> Resource {
    let ports = vec![ServicePort { name: None, port, protocol: AppProtocol::Http }];
    Resource::ServiceExport(ServiceExport { name: service(name), ports })
}

/// A policy, named after its target, that allows clusters to reach an export.
pub(super) fn allow(target: &str, clusters: &[&str]) -> Resource {
    let ServiceName { namespace, name } = service(target);
    let entry = |cluster: &&str| AllowEntry {
        cluster: Some(ClusterName::parse(cluster).unwrap()),
        ..AllowEntry::default()
    };
    let allow = clusters.iter().map(entry).collect();
    let targets = vec![name.clone()];
    Resource::AccessPolicy(AccessPolicy { namespace, name, targets, allow })
}

pub(super) fn grant_namespace(name: &str, namespaces: &[&str], clusters: &[&str]) -> Resource {
    let exact = |name: &&str| NamespaceMatch::Name(Namespace::parse(name).unwrap());
    Resource::NamespaceGrant(NamespaceGrant {
        name: ObjectName::parse(name).unwrap(),
        namespaces: namespaces.iter().map(exact).collect(),
        clusters: clusters.iter().map(|name| ClusterName::parse(name).unwrap()).collect(),
    })
}
