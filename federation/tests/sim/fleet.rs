//! The real fleet as the store's machine: clusters found, join, publish under signed Heads, change
//! their keys, and lie.

use std::collections::BTreeMap;

use bytes::Bytes;
use federation::fleet::{FleetState, Owner, Refusal};
use federation::store::{Machine, Outcome, Pair};
use identity::FederationKey;
use model::code::{GENERATION_STALE, SIGNATURE_REFUSED};
use model::{
    AppProtocol, ClusterId, ClusterName, ClusterPeer, PeerAddress, Resource, Revision, RoleSet,
    ServiceExport, ServiceName, ServicePort, Transport, TrustBundle, TrustDomain,
};
use wire::store::{
    Change, Command, Domain, Hash, Head, Mark, Member, MemberKey, Publish, Record, RecordPut,
    Redeem, Signed, SignedMember, StoreKey, TokenGrant, TokenId, digest_of_records,
};

use super::dice::Dice;
use super::plant::{self, Plant};
use super::reader::Reader;
use super::subject::{Clients, Subject};
use super::trace::digest;

const NOW_MS: u64 = 1_800_000_000_000;
const DAY_MS: u64 = 86_400_000;
/// Cluster 1 is the root. There is one for each client.
const NAMES: [&str; 5] = ["nobody", "east", "west", "south", "north"];

/// [`FleetState`] behind the store's seam, and the bugs that are planted in it.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    state: FleetState,
    /// It was read from a disk or a snapshot.
    loaded: bool,
}

impl Machine for Fleet {
    fn load(pairs: Vec<Pair>) -> Result<Self, String> {
        let loaded = !pairs.is_empty();
        let state = FleetState::load(pairs).map_err(|error| error.to_string())?;
        Ok(Self { state, loaded })
    }

    fn to_kv(&self) -> Vec<Pair> {
        self.state.to_kv()
    }

    fn apply(&mut self, revision: Revision, command: &[u8]) -> Outcome {
        let again = Command::decode(command)
            .is_ok_and(|command| self.state.applied(&command.request_id).is_some());
        let done = match self.state.apply(revision, command) {
            Ok(_) if again && plant::is(Plant::ForgottenRequests) => {
                let mut command = Command::decode(command).unwrap();
                command.request_id[0] ^= 1;
                self.state.apply(revision, &command.encode())
            }
            Err(refusal) => self.misbehave(revision, command, refusal),
            done => done,
        };
        match done {
            Ok(applied) => Outcome {
                reply: format!("accepted at {}", applied.revision.index).into_bytes(),
                writes: applied.writes,
            },
            Err(refusal) => Outcome { reply: refusal.to_string().into(), writes: Vec::new() },
        }
    }
}

impl Fleet {
    /// What a planted bug makes of a refusal.
    fn misbehave(
        &mut self,
        revision: Revision,
        command: &[u8],
        refusal: Refusal,
    ) -> Result<federation::fleet::Applied, Refusal> {
        let Ok(mut command) = Command::decode(command) else { return Err(refusal) };
        let Change::Publish(publish) = &mut command.change else { return Err(refusal) };
        let Ok(head) = Head::of(&publish.head) else { return Err(refusal) };
        if refusal.code == SIGNATURE_REFUSED && plant::is_everywhere(Plant::SkippedVerification) {
            // As if nobody had looked: the owner's own key makes the signature right.
            let Some(member) = self.state.fleet().member(&head.cluster) else {
                return Err(refusal);
            };
            let key = key_of(member);
            publish.head = sign(&key, Domain::Head, &publish.head.payload);
            return self.state.apply(revision, &command.encode());
        }
        if refusal.code == GENERATION_STALE && self.loaded && plant::is(Plant::ForgottenHighWater) {
            let id = head.cluster.as_bytes();
            let of_owner = |key: &[u8]| {
                matches!(key.first(), Some(b'w' | b'h' | b'r'))
                    && key.windows(id.len()).any(|part| part == id)
            };
            let mut pairs = self.state.to_kv();
            pairs.retain(|(key, _)| !of_owner(key));
            let Ok(mut forgetful) = FleetState::load(pairs) else { return Err(refusal) };
            let applied = forgetful.apply(revision, &command.encode())?;
            self.state = forgetful;
            return Ok(applied);
        }
        Err(refusal)
    }

    fn owner(&self, cluster: &ClusterId) -> Option<&Owner> {
        self.state.fleet().owner(cluster)
    }
}

impl Subject for Fleet {
    type Clients = FleetClients;

    fn print(&self) -> u64 {
        digest(self.state.to_kv())
    }
}

/// The clusters. They know what the model knows, as somebody who reads before writing does.
#[derive(Debug)]
pub(crate) struct FleetClients {
    requests: u64,
    dice: Dice,
    /// What each owner has ever signed: the contents of each of its Heads.
    signed: BTreeMap<(ClusterId, Mark), Hash>,
    /// What each owner published first: it needs nothing that was before.
    first: BTreeMap<ClusterId, Publish>,
    readers: Vec<Reader>,
}

impl Clients<Fleet> for FleetClients {
    fn new(seed: u64) -> Self {
        let dice = Dice::new(seed, "fleet");
        let federation = key(1, 0).federation_id();
        let readers = (2..=3).map(|client| Reader::new(id(client), federation)).collect();
        Self { requests: 0, dice, signed: BTreeMap::new(), first: BTreeMap::new(), readers }
    }

    fn first(&mut self) -> Vec<u8> {
        let root = member(1);
        let member = sign(&key(1, 0), Domain::Member, &root.encode());
        self.command(NOW_MS, Change::Found(SignedMember { member, key_proof: None }))
    }

    fn request(&mut self, client: u8, model: &Fleet, dice: &mut Dice) -> Vec<u8> {
        let client = usize::from(client);
        // Wall clocks jump.
        let now_ms = match dice.below(20) {
            0 => NOW_MS - DAY_MS,
            1 => NOW_MS + DAY_MS,
            _ => NOW_MS + self.requests,
        };
        let Some(own) = model.state.fleet().member(&id(client)) else {
            let change = self.admission(client, model);
            return self.command(now_ms, change);
        };
        let change = match dice.below(10) {
            0 => self.forge(client, model),
            1 => self.replay(client, model, dice),
            2 => self.alter(own, model),
            3 => rekey(own, client, model),
            _ => self.publish(own, model),
        };
        self.command(now_ms, change)
    }

    fn retry(&mut self, request: &[u8]) -> Vec<u8> {
        let mut command = Command::decode(request).unwrap();
        command.proposed_at_unix_ms += 1;
        command.encode()
    }

    fn watch(&mut self, node: u64, machine: &Fleet) -> Result<(), String> {
        for reader in &mut self.readers {
            reader.follow(node, machine.state.fleet(), self.dice.chance(50))?;
        }
        Ok(())
    }

    /// The owner rule: whatever an owner has in the store, it has signed, whole and under that mark.
    fn judge(&self, machine: &Fleet) -> Result<(), String> {
        for owner in machine.state.fleet().owners() {
            let head = owner.head();
            let name = head.cluster;
            let Some(signed) = self.signed.get(&(name, head.mark)) else {
                return Err(format!("{name} never signed a Head {:?}", head.mark));
            };
            let records = owner.records().map(|record| (record.key(), &record.bytes()[..]));
            if digest_of_records(records) != *signed || head.digest != *signed {
                return Err(format!("the records of {name} are not those that it signed"));
            }
            if machine.state.fleet().high_water(&name).is_none_or(|mark| mark < head.mark) {
                return Err(format!("the high-water mark of {name} is below its Head"));
            }
        }
        Ok(())
    }
}

impl FleetClients {
    fn command(&mut self, proposed_at_unix_ms: u64, change: Change) -> Vec<u8> {
        self.requests += 1;
        let request_id = u128::from(self.requests).to_be_bytes();
        Command { request_id, proposed_at_unix_ms, change }.encode()
    }

    /// The root issues a token, and the cluster redeems it.
    fn admission(&mut self, client: usize, model: &Fleet) -> Change {
        let grant = grant(client);
        let Some(root) = model.state.fleet().member(&id(1)) else {
            let root = sign(&key(1, 0), Domain::Member, &member(1).encode());
            return Change::Found(SignedMember { member: root, key_proof: None });
        };
        let by = key_of(root);
        if model.state.token(&grant.token_id).is_none() {
            return Change::IssueToken(sign(&by, Domain::Token, &grant.encode()));
        }
        let payload = member(client).encode();
        let key_proof = Some(key(client, 0).sign(Domain::Join.as_str(), &payload));
        let member = SignedMember { member: sign(&by, Domain::Member, &payload), key_proof };
        Change::Redeem(Redeem { token_id: grant.token_id, member, first: None })
    }

    /// An owner's next step.
    fn publish(&mut self, own: &Member, model: &Fleet) -> Change {
        let mut records = records_of(own.cluster, model);
        let mut puts = Vec::new();
        if records.is_empty() {
            puts.push(self.put(own.cluster, &peer(own)));
        }
        let service = format!("shop/s{}", self.dice.below(4));
        let export = export(&service, self.dice.between(1, 60_000) as u16);
        let export = self.put(own.cluster, &export);
        let remove = records.contains_key(&export.key) && self.dice.chance(300);
        let removes = if remove { vec![export.key.clone()] } else { Vec::new() };
        puts.extend((!remove).then_some(export));
        records.extend(puts.iter().map(|put| (put.key.clone(), put.record.clone())));
        removes.iter().for_each(|key| drop(records.remove(key)));
        let head = self.head(own, model, &records);
        self.signed.insert((own.cluster, head.mark), head.digest);
        let head = sign(&key_of(own), Domain::Head, &head.encode());
        let publish = Publish { head, puts, removes };
        if model.owner(&own.cluster).is_none() {
            self.first.entry(own.cluster).or_insert_with(|| publish.clone());
        }
        Change::Publish(publish)
    }

    fn head(&self, own: &Member, model: &Fleet, records: &BTreeMap<StoreKey, Bytes>) -> Head {
        // Above what the store has, and above what was ever signed: it may be on its way.
        let signed = self.signed.keys().filter(|(cluster, _)| *cluster == own.cluster);
        let last = signed.map(|(_, mark)| mark.generation).max();
        let held = model.state.fleet().high_water(&own.cluster).map(|mark| mark.generation);
        let generation = last.max(held).unwrap_or(0) + 1;
        Head {
            federation: own.federation,
            cluster: own.cluster,
            mark: Mark { epoch: own.epoch, generation },
            issued_at_unix_ms: NOW_MS,
            key_id: key_of(own).key_id(),
            digest: digest_of_records(records.iter().map(|(key, record)| (key, &record[..]))),
            records: u32::try_from(records.len()).unwrap(),
        }
    }

    fn put(&mut self, cluster: ClusterId, resource: &Resource) -> RecordPut {
        let key = StoreKey::of(cluster, &resource.key());
        RecordPut { key, record: Record::encode(self.dice.bytes(), resource).into() }
    }

    /// A Head of another cluster, right in all but the key that signed it.
    fn forge(&mut self, client: usize, model: &Fleet) -> Change {
        let others = model.state.fleet().members().filter(|member| member.cluster != id(client));
        let others: Vec<&Member> = others.collect();
        let Some(victim) = self.dice.pick(&others) else {
            return self.publish(&member(client), model);
        };
        let stolen = self.put(victim.cluster, &export("shop/stolen", 666));
        let mut puts = vec![stolen];
        let mut records = records_of(victim.cluster, model);
        if records.is_empty() {
            puts.push(self.put(victim.cluster, &peer(victim)));
        }
        records.extend(puts.iter().map(|put| (put.key.clone(), put.record.clone())));
        let head = self.head(victim, model, &records).encode();
        let liar = key(client, 0);
        let mut signed = sign(&liar, Domain::Head, &head);
        // In the owner's name.
        signed.key_id = key_of(victim).key_id();
        Change::Publish(Publish { head: signed, puts, removes: Vec::new() })
    }

    /// What an owner published first, which was right then.
    fn replay(&mut self, client: usize, model: &Fleet, dice: &mut Dice) -> Change {
        let first: Vec<&Publish> = self.first.values().collect();
        match dice.pick(&first) {
            Some(publish) => Change::Publish(publish.clone()),
            None => self.admission(client, model),
        }
    }

    /// An owner's Head, with other records than it is over.
    fn alter(&mut self, own: &Member, model: &Fleet) -> Change {
        let Change::Publish(mut publish) = self.publish(own, model) else {
            return self.publish(own, model);
        };
        let other = self.put(own.cluster, &export("shop/altered", 667));
        publish.puts.push(other);
        Change::Publish(publish)
    }
}

/// The member's own change of keys.
fn rekey(own: &Member, client: usize, model: &Fleet) -> Change {
    let new = key(client, own.keys.len());
    let mut after = own.clone();
    after.member_generation += 1;
    let mark = model.state.fleet().high_water(&own.cluster);
    let closed_at = mark.unwrap_or(Mark { epoch: own.epoch, generation: 0 });
    after.keys.last_mut().unwrap().closed_at = Some(closed_at);
    after.keys.push(MemberKey { spki: *new.public().spki(), closed_at: None });
    let payload = after.encode();
    let key_proof = Some(new.sign(Domain::Join.as_str(), &payload));
    let member = sign(&key_of(own), Domain::Member, &payload);
    Change::UpdateMember(SignedMember { member, key_proof })
}

fn records_of(cluster: ClusterId, model: &Fleet) -> BTreeMap<StoreKey, Bytes> {
    let records = model.owner(&cluster).into_iter().flat_map(Owner::records);
    records.map(|record| (record.key().clone(), record.bytes().clone())).collect()
}

/// A cluster's keys, in the order in which they follow each other.
fn key(client: usize, turn: usize) -> FederationKey {
    let mut seed = [7; 32];
    seed[0] = u8::try_from(client).unwrap();
    seed[1] = u8::try_from(turn % 256).unwrap();
    FederationKey::from_seed(&seed)
}

/// The key that is open in a member's record.
fn key_of(member: &Member) -> FederationKey {
    let client = (1..NAMES.len()).find(|client| NAMES[*client] == member.name.as_str());
    key(client.unwrap(), member.keys.len() - 1)
}

fn id(client: usize) -> ClusterId {
    key(client, 0).cluster_id()
}

fn sign(key: &FederationKey, domain: Domain, payload: &[u8]) -> Signed {
    let signature = key.sign(domain.as_str(), payload);
    Signed { payload: Bytes::copy_from_slice(payload), key_id: key.key_id(), signature }
}

fn member(client: usize) -> Member {
    let root = key(1, 0);
    Member {
        federation: root.federation_id(),
        cluster: id(client),
        name: ClusterName::parse(NAMES[client]).unwrap(),
        trust_domains: vec![domain(NAMES[client])],
        keys: vec![MemberKey { spki: *key(client, 0).public().spki(), closed_at: None }],
        epoch: 1,
        member_generation: 1,
        roles: RoleSet::all(),
        delegation_depth: if client == 1 { 3 } else { 2 },
        issuer: root.cluster_id(),
        token_id: (client != 1).then(|| grant(client).token_id),
    }
}

fn grant(client: usize) -> TokenGrant {
    let root = key(1, 0);
    TokenGrant {
        federation: root.federation_id(),
        token_id: TokenId::from_bytes([u8::try_from(client).unwrap(); 16]),
        name: ClusterName::parse(NAMES[client]).unwrap(),
        roles: RoleSet::all(),
        delegation_depth: 2,
        issued_at_unix_ms: NOW_MS,
        expires_at_unix_ms: NOW_MS + DAY_MS / 2,
        secret_hmac: [7; 32],
        approval_needed: false,
        issuer: root.cluster_id(),
    }
}

fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(&format!("{name}.fed")).unwrap()
}

fn peer(member: &Member) -> Resource {
    let (transport, host) = (Transport::Quic, format!("{}.example", member.name));
    Resource::ClusterPeer(ClusterPeer {
        name: member.name.clone(),
        addresses: vec![PeerAddress { transport, host, port: 8443 }],
        trust_bundles: vec![TrustBundle {
            trust_domain: domain(member.name.as_str()),
            sequence: 1,
            refresh_hint_seconds: None,
            x509_authorities: vec![vec![1, 2, 3]],
        }],
        cordoned: false,
        revoked_svids: Vec::new(),
    })
}

fn export(name: &str, port: u16) -> Resource {
    let ports = vec![ServicePort { name: None, port, protocol: AppProtocol::Http }];
    Resource::ServiceExport(ServiceExport { name: ServiceName::parse(name).unwrap(), ports })
}
