//! The state as keys and values: what a disk and a snapshot hold.
//!
//! ```text
//! a                place: revision, and once founded federation and root
//! m <cluster>      a hash over key and chain, then the MemberChain: a chain that lost its last link
//!                  would still be signed
//! w <cluster>      high-water mark: epoch, generation
//! h <cluster>      the Head, signed
//! r <store key>    revision at which the key first came, then the record's bytes
//! t <token>        use, cluster, revision, then the grant, signed
//! v <number>       a revocation, signed; numbered from 0 in the order of the log
//! s                the standbys, signed
//! q <revision>     id of the request that was applied there
//! ```
//! Numbers are big endian, 8 bytes each. What is signed is checked on loading; the rest (places,
//! marks, uses of tokens, request ids) has no signature and relies on the checksums of the disk's
//! and the snapshot's own format.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use model::{ClusterId, FederationId, Revision};
use wire::store::{
    AdminChange, AdminStatement, Domain, Head, Mark, MemberChain, Revocation, Signed, StoreKey,
    TokenGrant, TokenId, leaf_hash,
};

use super::owner::{self, NamespaceNode, Owner, Step};
use super::proof::{Prover, verify};
use super::record::Record;
use super::requests::Requests;
use super::revoked::{self, RevocationEntry};
use super::state::FleetState;
use super::token::{TokenEntry, TokenUse};
use super::{Fleet, FleetError, Standbys};

impl FleetState {
    /// Everything, in order of keys.
    pub fn to_kv(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let fleet = &self.fleet;
        let mut kv = BTreeMap::new();
        if fleet.revision != Revision::default() {
            kv.insert(place_key(), place(fleet));
        }
        for entry in fleet.entries() {
            let cluster = &entry.member().cluster;
            kv.insert(member_key(cluster), member(entry.chain()));
            kv.extend(entry.high_water().map(|at| (mark_key(cluster), mark(at))));
        }
        for owner in fleet.owners() {
            kv.insert(head_key(&owner.head().cluster), owner.signed_head().encode());
            kv.extend(owner.records().map(|it| (record_key(it.key()), record(it))));
        }
        kv.extend(self.tokens().map(|it| (token_key(&it.grant.token_id), token(it))));
        let revocations = fleet.revocations().enumerate();
        kv.extend(revocations.map(|(n, it)| (revocation_key(n), it.signed.encode())));
        kv.extend(fleet.standbys.iter().map(|it| (standbys_key(), it.signed.encode())));
        kv.extend(self.requests.iter().map(|(at, id)| (request_key(at), id.to_vec())));
        kv.into_iter().collect()
    }

    /// Reads back what [`Self::to_kv`] gave, in any order, and verifies every signature and digest.
    ///
    /// # Errors
    /// Names the key that does not verify; then nothing of the state is to be used.
    pub fn load(kv: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Self, FleetError> {
        let mut stored = Stored::default();
        for (key, value) in kv {
            stored.take(&key, value)?;
        }
        stored.verify()
    }
}

pub(super) fn place_key() -> Vec<u8> {
    b"a".to_vec()
}

pub(super) fn place(fleet: &Fleet) -> Vec<u8> {
    let mut bytes = revision_bytes(fleet.revision).to_vec();
    if let (Some(federation), Some(root)) = (&fleet.federation, &fleet.root) {
        bytes.extend_from_slice(federation.as_bytes());
        bytes.extend_from_slice(root.as_bytes());
    }
    bytes
}

pub(super) fn member_key(cluster: &ClusterId) -> Vec<u8> {
    key(b'm', cluster.as_bytes())
}

pub(super) fn member(chain: &MemberChain) -> Vec<u8> {
    let chain = chain.encode();
    [&leaf_hash(b"m", &chain)[..], &chain].concat()
}

pub(super) fn read_member(key: &[u8], value: &[u8]) -> Result<MemberChain, FleetError> {
    let (hash, chain) = value.split_at_checked(32).ok_or_else(|| damaged(key, "it is cut"))?;
    if leaf_hash(b"m", chain) != *hash {
        return Err(damaged(key, "the chain is not the one that was written"));
    }
    MemberChain::decode(chain).map_err(|error| damaged(key, error))
}

pub(super) fn mark_key(cluster: &ClusterId) -> Vec<u8> {
    key(b'w', cluster.as_bytes())
}

pub(super) fn mark(mark: Mark) -> Vec<u8> {
    numbers(mark.epoch, mark.generation).to_vec()
}

pub(super) fn head_key(cluster: &ClusterId) -> Vec<u8> {
    key(b'h', cluster.as_bytes())
}

pub(super) fn record_key(store_key: &StoreKey) -> Vec<u8> {
    key(b'r', &store_key.encode())
}

pub(super) fn record(record: &Record) -> Vec<u8> {
    [&revision_bytes(record.since())[..], record.bytes()].concat()
}

pub(super) fn token_key(id: &TokenId) -> Vec<u8> {
    key(b't', id.as_bytes())
}

pub(super) fn token(token: &TokenEntry) -> Vec<u8> {
    let nobody = ClusterId::from_bytes([0; 16]);
    let (used, by, at) = match token.used {
        TokenUse::Open => (0, nobody, Revision::default()),
        TokenUse::Used { by, at } => (1, by, at),
        TokenUse::Revoked { at } => (2, nobody, at),
    };
    [&[used][..], by.as_bytes(), &revision_bytes(at), &token.signed.encode()].concat()
}

pub(super) fn revocation_key(number: usize) -> Vec<u8> {
    key(b'v', &(number as u64).to_be_bytes())
}

pub(super) fn standbys_key() -> Vec<u8> {
    b"s".to_vec()
}

pub(super) fn request_key(at: Revision) -> Vec<u8> {
    key(b'q', &revision_bytes(at))
}

fn key(table: u8, rest: &[u8]) -> Vec<u8> {
    [&[table], rest].concat()
}

pub(super) fn revision_bytes(revision: Revision) -> [u8; 16] {
    numbers(revision.epoch, revision.index)
}

fn numbers(first: u64, second: u64) -> [u8; 16] {
    (u128::from(first) << 64 | u128::from(second)).to_be_bytes()
}

/// What was stored, in tables, not verified yet.
#[derive(Debug, Default)]
struct Stored {
    place: Option<Vec<u8>>,
    chains: BTreeMap<ClusterId, MemberChain>,
    marks: BTreeMap<ClusterId, Mark>,
    heads: BTreeMap<ClusterId, Signed>,
    records: BTreeMap<ClusterId, Vec<Record>>,
    tokens: BTreeMap<TokenId, Vec<u8>>,
    revocations: BTreeMap<u64, Signed>,
    standbys: Option<Signed>,
    requests: Requests,
}

impl Stored {
    fn take(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), FleetError> {
        let Some((table, rest)) = key.split_first() else {
            return Err(damaged(key, "an empty key"));
        };
        let wire = |error: wire::WireError| damaged(key, error);
        let cluster = || cluster_of(key, rest);
        match table {
            b'a' if rest.is_empty() => self.place = Some(value),
            b'm' => {
                self.chains.insert(cluster()?, read_member(key, &value)?);
            }
            b'w' => {
                self.marks.insert(cluster()?, mark_of(key, &value)?);
            }
            b'h' => {
                self.heads.insert(cluster()?, Signed::decode(&value).map_err(wire)?);
            }
            b'r' => {
                let name = StoreKey::decode(rest).map_err(wire)?;
                let (since, bytes) = cut_revision(key, Bytes::from(value))?;
                self.records.entry(name.cluster).or_default().push(Record::new(name, bytes, since));
            }
            b't' => {
                self.tokens.insert(TokenId::from_bytes(fixed(key, rest)?), value);
            }
            b'v' => {
                let number = u64::from_be_bytes(fixed(key, rest)?);
                self.revocations.insert(number, Signed::decode(&value).map_err(wire)?);
            }
            b's' if rest.is_empty() => self.standbys = Some(Signed::decode(&value).map_err(wire)?),
            b'q' => {
                let (epoch, index) = two_numbers(key, rest)?;
                self.requests.insert(fixed(key, &value)?, Revision { epoch, index });
            }
            _ => return Err(damaged(key, "no table of this build has such a key")),
        }
        Ok(())
    }

    fn verify(mut self) -> Result<FleetState, FleetError> {
        let mut fleet = self.place()?;
        let mut state = FleetState { requests: Arc::new(self.requests), ..FleetState::default() };
        let Some(federation) = fleet.federation else {
            if self.chains.is_empty() && self.heads.is_empty() && self.records.is_empty() {
                state.fleet = fleet;
                return Ok(state);
            }
            return Err(damaged(b"a", "there are members, but no federation"));
        };
        let mut prover = Prover::anchored(federation);
        let mut members = members(&mut prover, self.chains, self.marks)?;
        if !fleet.root.and_then(|root| members.get(&root)).is_some_and(|it| it.member().is_root()) {
            return Err(damaged(b"a", "the root is no member, or no root"));
        }
        fleet.revocations = Arc::new(revocations(&prover, self.revocations, &mut members)?);
        fleet.members = Arc::new(members);
        let mut owners = BTreeMap::new();
        for (cluster, head) in self.heads {
            let records = self.records.remove(&cluster).unwrap_or_default();
            owners.insert(cluster, Arc::new(owner_of(&fleet, cluster, head, records)?));
        }
        if let Some(record) = self.records.values().flatten().next() {
            return Err(damaged(&record_key(record.key()), "the record is under no Head"));
        }
        fleet.owners = Arc::new(owners);
        state.tokens = Arc::new(tokens(&prover, self.tokens)?);
        fleet.standbys = self.standbys.map(|it| standbys(&prover, it)).transpose()?.map(Arc::new);
        state.fleet = fleet;
        Ok(state)
    }

    fn place(&self) -> Result<Fleet, FleetError> {
        self.place.as_ref().map_or_else(|| Ok(Fleet::default()), |place| read_place(place))
    }
}

pub(super) fn read_place(place: &[u8]) -> Result<Fleet, FleetError> {
    let (revision, rest) = cut_revision(b"a", Bytes::copy_from_slice(place))?;
    let fleet = Fleet { revision, ..Fleet::default() };
    if rest.is_empty() {
        return Ok(fleet);
    }
    let ids: [u8; 32] = fixed(b"a", &rest)?;
    let (federation, root) = ids.split_at(16);
    Ok(Fleet {
        federation: Some(FederationId::from_bytes(fixed(b"a", federation)?)),
        root: Some(ClusterId::from_bytes(fixed(b"a", root)?)),
        ..fleet
    })
}

fn members(
    prover: &mut Prover,
    chains: BTreeMap<ClusterId, MemberChain>,
    mut marks: BTreeMap<ClusterId, Mark>,
) -> Result<revoked::Members, FleetError> {
    let ids: Vec<ClusterId> = chains.keys().copied().collect();
    let chains = chains.into_values().map(|chain| (chain, vec![])).collect();
    let entries = prover.prove(chains).map_err(|refusal| damaged(b"m", refusal))?;
    let mut members = revoked::Members::new();
    for (id, mut entry) in ids.into_iter().zip(entries) {
        if entry.member().cluster != id {
            return Err(damaged(&member_key(&id), "the chain is another cluster's"));
        }
        entry.mark = marks.remove(&id);
        members.insert(id, Arc::new(entry));
    }
    match marks.keys().next() {
        None => Ok(members),
        Some(id) => Err(damaged(&mark_key(id), "no such member")),
    }
}

fn revocations(
    prover: &Prover,
    stored: BTreeMap<u64, Signed>,
    members: &mut revoked::Members,
) -> Result<Vec<Arc<RevocationEntry>>, FleetError> {
    let mut entries = Vec::new();
    for (expected, (number, signed)) in stored.into_iter().enumerate() {
        let key = revocation_key(expected);
        if number != expected as u64 {
            return Err(damaged(&key, "the revocation is missing"));
        }
        let revocation =
            Revocation::decode(&signed.payload).map_err(|error| damaged(&key, error))?;
        prover
            .check_admin_statement(&signed, Domain::Revocation, &revocation.issuer)
            .map_err(|refusal| damaged(&key, refusal))?;
        revoked::revoke(members, &revocation);
        entries.push(Arc::new(RevocationEntry { signed, revocation }));
    }
    Ok(entries)
}

fn owner_of(
    fleet: &Fleet,
    cluster: ClusterId,
    signed: Signed,
    records: Vec<Record>,
) -> Result<Owner, FleetError> {
    let key = head_key(&cluster);
    let head = Head::of(&signed).map_err(|error| damaged(&key, error))?;
    let entry = fleet.entry(&cluster).filter(|entry| entry.is_active());
    let Some(entry) = entry else { return Err(damaged(&key, "no active member")) };
    if head.cluster != cluster || Some(head.federation) != fleet.federation {
        return Err(damaged(&key, "the Head is another cluster's"));
    }
    if entry.high_water() != Some(head.mark) {
        return Err(damaged(&key, "the Head is not at the cluster's high-water mark"));
    }
    let signer = entry.key_at(&head.key_id, head.mark).map_err(|refusal| damaged(&key, refusal))?;
    verify(&signed, Domain::Head, &signer.spki).map_err(|refusal| damaged(&key, refusal))?;
    let nodes: Vec<Arc<NamespaceNode>> =
        owner::after(None, Step { puts: records, removes: vec![] });
    owner::check_digest(&head, &nodes).map_err(|refusal| damaged(&key, refusal))?;
    Ok(Owner::new(signed, head, nodes))
}

fn tokens(
    prover: &Prover,
    stored: BTreeMap<TokenId, Vec<u8>>,
) -> Result<BTreeMap<TokenId, Arc<TokenEntry>>, FleetError> {
    let mut tokens = BTreeMap::new();
    for (id, value) in stored {
        let key = token_key(&id);
        let Some((used, rest)) = value.split_at_checked(1) else {
            return Err(damaged(&key, "it is empty"));
        };
        let Some((by, rest)) = rest.split_at_checked(16) else {
            return Err(damaged(&key, "it is cut"));
        };
        let by = ClusterId::from_bytes(fixed(&key, by)?);
        let (at, signed) = cut_revision(&key, Bytes::copy_from_slice(rest))?;
        let used = match used {
            [0] => TokenUse::Open,
            [1] => TokenUse::Used { by, at },
            [2] => TokenUse::Revoked { at },
            _ => return Err(damaged(&key, "no such use of a token")),
        };
        let signed = Signed::decode(&signed).map_err(|error| damaged(&key, error))?;
        let grant = TokenGrant::decode(&signed.payload).map_err(|error| damaged(&key, error))?;
        if grant.token_id != id {
            return Err(damaged(&key, "the grant is another token's"));
        }
        prover
            .check_statement(&signed, Domain::Token, &grant.issuer)
            .map_err(|refusal| damaged(&key, refusal))?;
        tokens.insert(id, Arc::new(TokenEntry { grant, signed, used }));
    }
    Ok(tokens)
}

fn standbys(prover: &Prover, signed: Signed) -> Result<Standbys, FleetError> {
    let statement =
        AdminStatement::decode(&signed.payload).map_err(|error| damaged(b"s", error))?;
    let AdminChange::Standbys { generation, clusters } = statement.change else {
        return Err(damaged(b"s", "the statement names no standbys"));
    };
    prover
        .check_admin_statement(&signed, Domain::Admin, &statement.issuer)
        .map_err(|refusal| damaged(b"s", refusal))?;
    Ok(Standbys { signed, generation, clusters })
}

pub(super) fn cluster_of(key: &[u8], id: &[u8]) -> Result<ClusterId, FleetError> {
    fixed(key, id).map(ClusterId::from_bytes)
}

pub(super) fn mark_of(key: &[u8], value: &[u8]) -> Result<Mark, FleetError> {
    let (epoch, generation) = two_numbers(key, value)?;
    Ok(Mark { epoch, generation })
}

fn cut_revision(key: &[u8], value: Bytes) -> Result<(Revision, Bytes), FleetError> {
    if value.len() < 16 {
        return Err(damaged(key, "it is cut"));
    }
    let (epoch, index) = two_numbers(key, &value[..16])?;
    Ok((Revision { epoch, index }, value.slice(16..)))
}

fn two_numbers(key: &[u8], value: &[u8]) -> Result<(u64, u64), FleetError> {
    let both = u128::from_be_bytes(fixed(key, value)?);
    let low = both & u128::from(u64::MAX);
    let halves = (u64::try_from(both >> 64), u64::try_from(low));
    match halves {
        (Ok(first), Ok(second)) => Ok((first, second)),
        _ => Err(damaged(key, "it is no number")),
    }
}

fn fixed<const N: usize>(key: &[u8], value: &[u8]) -> Result<[u8; N], FleetError> {
    let found = value.len();
    value.try_into().map_err(|_| damaged(key, format!("{found} bytes, not {N}")))
}

pub(super) fn damaged(key: &[u8], problem: impl std::fmt::Display) -> FleetError {
    let text = format!("stored key {}: {problem}", key.escape_ascii());
    FleetError::damaged(text)
}
