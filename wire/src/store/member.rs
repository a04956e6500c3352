//! Members: who belongs to the federation, under which name and with which keys.

use std::collections::BTreeSet;

use model::{ClusterId, ClusterName, FederationId, KeyId, RoleSet, TrustDomain};
use prost::Message as _;

use super::convert::{
    self, cluster, copied, federation, fixed, message, optional_fixed, positive, required,
};
use super::head::Mark;
use super::limits;
use super::proto;
use super::signed::{Signature, Signed};
use super::token::TokenId;
use crate::error::{At, WireError};
use crate::resource::convert::{list, parse};

/// SubjectPublicKeyInfo of an Ed25519 key, DER (RFC 8410): 12 fixed bytes and the key.
pub type SpkiBytes = [u8; 44];

/// What every [`SpkiBytes`] begins with.
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The payload of [`super::Domain::Member`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub federation: FederationId,
    pub cluster: ClusterId,
    pub name: ClusterName,
    pub trust_domains: Vec<TrustDomain>,
    /// Oldest first, never empty. The last one is open, all others are closed; the cluster id is
    /// the hash of the first.
    pub keys: Vec<MemberKey>,
    pub epoch: u64,
    pub member_generation: u64,
    pub roles: RoleSet,
    pub delegation_depth: u32,
    pub issuer: ClusterId,
    /// `None` for the root.
    pub token_id: Option<TokenId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberKey {
    pub spki: SpkiBytes,
    /// It signs no Head above this.
    pub closed_at: Option<Mark>,
}

impl MemberKey {
    pub fn id(&self) -> KeyId {
        KeyId::of_key(&self.spki)
    }
}

impl Member {
    /// The key that signs today.
    pub fn open_key(&self) -> &MemberKey {
        self.keys.last().expect("decode refuses a Member without keys")
    }

    pub fn key(&self, id: &KeyId) -> Option<&MemberKey> {
        self.keys.iter().find(|key| key.id() == *id)
    }

    pub fn is_root(&self) -> bool {
        self.issuer == self.cluster
    }

    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let at = At::message("Member");
        let sent: proto::Member = message(&at, payload, limits::PAYLOAD_BYTES_MAX)?;
        let token = at.field("token_id");
        let generation = at.field("member_generation");
        let member = Self {
            federation: federation(at.field("federation"), &sent.federation)?,
            cluster: cluster(at.field("cluster"), &sent.cluster)?,
            name: parse(at.field("name"), &sent.name, ClusterName::parse)?,
            trust_domains: trust_domains(&at, sent.trust_domains)?,
            keys: list(&at, "keys", sent.keys, limits::KEYS_PER_MEMBER_MAX, member_key)?,
            epoch: positive(at.field("epoch"), sent.epoch)?,
            member_generation: positive(generation, sent.member_generation)?,
            roles: convert::roles(&at, &sent.roles)?,
            delegation_depth: depth(at.field("delegation_depth"), sent.delegation_depth)?,
            issuer: cluster(at.field("issuer"), &sent.issuer)?,
            token_id: optional_fixed(token, &sent.token_id)?.map(TokenId::from_bytes),
        };
        member.check_keys(&at)?;
        member.check_root(&at)?;
        Ok(member)
    }

    fn check_keys(&self, at: &At<'_>) -> Result<(), WireError> {
        let Some((open, closed)) = self.keys.split_last() else {
            return Err(at.field("keys").missing("a Member has at least one key"));
        };
        let last = at.entry("keys", closed.len());
        if let Some(mark) = open.closed_at {
            let problem = "the last key is the one in use; leave it open";
            return Err(last.field("closed_at").refuse(format_args!("{mark}"), problem));
        }
        for (index, pair) in self.keys.windows(2).enumerate() {
            let at = at.entry("keys", index);
            let Some(mark) = pair[0].closed_at else {
                let fix = "every key but the last is closed at a mark";
                return Err(at.field("closed_at").missing(fix));
            };
            if pair[1].closed_at.is_some_and(|next| next < mark) {
                let problem = "keys are closed in the order of the list";
                return Err(at.field("closed_at").refuse(format_args!("{mark}"), problem));
            }
        }
        let ids: BTreeSet<KeyId> = self.keys.iter().map(MemberKey::id).collect();
        if ids.len() != self.keys.len() {
            return Err(at.field("keys").refuse(format_args!("twice the same"), "list a key once"));
        }
        let hash = ClusterId::of_key(&self.keys[0].spki);
        if hash != self.cluster {
            let problem = format!("the hash of its first key is {hash}; a cluster id is that hash");
            return Err(at.field("cluster").refuse(self.cluster, problem));
        }
        Ok(())
    }

    fn check_root(&self, at: &At<'_>) -> Result<(), WireError> {
        if self.is_root() == self.token_id.is_some() {
            let fix = "the root has no token and is its own issuer; others have redeemed one";
            let shown = self.token_id.map_or_else(|| "(absent)".to_string(), |id| id.to_string());
            return Err(at.field("token_id").refuse(format_args!("{shown}"), fix));
        }
        let federation = FederationId::of_key(&self.keys[0].spki);
        if self.is_root() && federation != self.federation {
            let problem = format!("the hash of the root's first key is {federation}");
            return Err(at.field("federation").refuse(self.federation, problem));
        }
        Ok(())
    }

    pub fn encode(&self) -> Vec<u8> {
        let key = |key: &MemberKey| proto::MemberKey {
            spki: copied(&key.spki),
            closed_at: key.closed_at.map(Mark::to_proto),
        };
        let member = proto::Member {
            federation: copied(self.federation.as_bytes()),
            cluster: copied(self.cluster.as_bytes()),
            name: self.name.to_string(),
            trust_domains: self.trust_domains.iter().map(ToString::to_string).collect(),
            keys: self.keys.iter().map(key).collect(),
            epoch: self.epoch,
            member_generation: self.member_generation,
            roles: convert::encode_roles(self.roles),
            delegation_depth: self.delegation_depth,
            issuer: copied(self.issuer.as_bytes()),
            token_id: self.token_id.map_or_else(Default::default, |id| copied(id.as_bytes())),
        };
        member.encode_to_vec()
    }
}

pub(super) fn depth(at: At<'_>, depth: u32) -> Result<u32, WireError> {
    let max = limits::DELEGATION_DEPTH_MAX;
    if depth > max {
        return Err(at.refuse(depth, format!("at most {max} steps of admission may follow")));
    }
    Ok(depth)
}

fn trust_domains(at: &At<'_>, listed: Vec<String>) -> Result<Vec<TrustDomain>, WireError> {
    let max = limits::TRUST_DOMAINS_PER_MEMBER_MAX;
    let domain = |at: At<'_>, text: String| parse(at, &text, TrustDomain::parse);
    let domains = list(at, "trust_domains", listed, max, domain)?;
    let at = at.field("trust_domains");
    if domains.is_empty() {
        return Err(at.missing("a cluster owns at least one trust domain"));
    }
    let mut seen = BTreeSet::new();
    match domains.iter().find(|domain| !seen.insert(*domain)) {
        Some(twice) => Err(at.refuse(twice, "list a trust domain once")),
        None => Ok(domains),
    }
}

fn member_key(at: At<'_>, key: proto::MemberKey) -> Result<MemberKey, WireError> {
    let closed_at = key.closed_at.map(|mark| Mark::from_proto(at.field("closed_at"), mark));
    Ok(MemberKey { spki: spki(at.field("spki"), &key.spki)?, closed_at: closed_at.transpose()? })
}

fn spki(at: At<'_>, bytes: &[u8]) -> Result<SpkiBytes, WireError> {
    let spki: SpkiBytes = fixed(at, bytes)?;
    if !spki.starts_with(&SPKI_PREFIX) {
        let problem = "it is not the SubjectPublicKeyInfo of an Ed25519 key (RFC 8410)";
        return Err(at.refuse(format_args!("{}", bytes[..12].escape_ascii()), problem));
    }
    Ok(spki)
}

/// A Member, who vouches for it, and its own key's consent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedMember {
    pub member: Signed,
    /// By the Member's open key over the same payload, domain [`super::Domain::Join`]. `None` where
    /// that key signed `member` itself, or consented in an earlier link.
    pub key_proof: Option<Signature>,
}

impl SignedMember {
    pub(super) fn required(
        at: At<'_>,
        sent: Option<proto::SignedMember>,
    ) -> Result<Self, WireError> {
        let sent = required(at, sent, "send the signed Member")?;
        Ok(Self {
            member: Signed::required(at.field("member"), sent.member)?,
            key_proof: optional_fixed(at.field("key_proof"), &sent.key_proof)?,
        })
    }

    pub(super) fn to_proto(&self) -> proto::SignedMember {
        proto::SignedMember {
            member: Some(self.member.to_proto()),
            key_proof: self.key_proof.map_or_else(Default::default, |proof| copied(&proof)),
        }
    }
}

/// All that there is to know of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberChain {
    /// Its admission first, then the updates; never empty.
    pub links: Vec<SignedMember>,
    pub leave: Option<Signed>,
}

impl MemberChain {
    /// The link in force.
    pub fn last(&self) -> &SignedMember {
        self.links.last().expect("decode refuses a chain without links")
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let at = At::message("MemberChain");
        Self::from_proto(at, message(&at, bytes, limits::MESSAGE_BYTES_MAX)?)
    }

    pub fn encode(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    pub(super) fn from_proto(at: At<'_>, sent: proto::MemberChain) -> Result<Self, WireError> {
        let link = |at: At<'_>, link| SignedMember::required(at, Some(link));
        let links = list(&at, "links", sent.links, limits::CHAIN_LINKS_MAX, link)?;
        if links.is_empty() {
            return Err(at.field("links").missing("a chain begins with the admission"));
        }
        let leave = sent.leave.map(|leave| Signed::from_proto(at.field("leave"), leave));
        Ok(Self { links, leave: leave.transpose()? })
    }

    pub(super) fn to_proto(&self) -> proto::MemberChain {
        proto::MemberChain {
            links: self.links.iter().map(SignedMember::to_proto).collect(),
            leave: self.leave.as_ref().map(Signed::to_proto),
        }
    }
}
