//! Signatures, and the chains of them that prove who is a member.

use std::collections::BTreeMap;

use identity::FederationPublicKey;
use model::code::{MEMBER_CHANGE_REFUSED, NOT_A_MEMBER, OTHER_FEDERATION, SIGNATURE_REFUSED};
use model::{FederationId, KeyId, Role};
use wire::store::{Domain, Leave, Member, MemberChain, Signature, Signed, SignedMember, SpkiBytes};

use super::member::{self, MemberEntry, Signer};
use super::{Fleet, Refusal};

/// Refuses an envelope whose signature is not that of `key` over its payload in `domain`.
pub fn verify(signed: &Signed, domain: Domain, key: &SpkiBytes) -> Result<(), Refusal> {
    verify_bytes(domain, &signed.payload, &signed.signature, key)
}

fn verify_bytes(
    domain: Domain,
    payload: &[u8],
    signature: &Signature,
    key: &SpkiBytes,
) -> Result<(), Refusal> {
    let refused = |problem: String| Refusal::new(SIGNATURE_REFUSED, problem);
    let key = FederationPublicKey::from_spki(key).map_err(|error| refused(error.to_string()))?;
    key.verify(domain.as_str(), payload, signature).map_err(|error| refused(error.to_string()))
}

/// Refuses a new key that has not agreed to be this Member's.
pub(super) fn verify_key_proof(link: &SignedMember, member: &Member) -> Result<(), Refusal> {
    let Some(proof) = &link.key_proof else {
        let text = "SignedMember.key_proof = (absent): the new key signs the Member too";
        return Err(Refusal::new(SIGNATURE_REFUSED, text));
    };
    verify_bytes(Domain::Join, &link.member.payload, proof, &member.open_key().spki)
}

/// Verifies whole chains, without a history: each signer is looked for among all that there is to
/// know of everybody, in the state in which its key was open.
///
/// A chain proves who was admitted by whom. That a key was closed, or its owner gone, *before* it
/// signed is for `apply` to refuse, which knows the order of things; revocations count here too.
#[derive(Debug)]
pub(super) struct Prover {
    federation: FederationId,
    /// Every proved link by the key that was open in it.
    by_key: BTreeMap<KeyId, Vec<Member>>,
}

/// A chain on its way.
struct Pending {
    chain: MemberChain,
    links: Vec<Member>,
}

impl Prover {
    /// Knows what is proved already.
    pub(super) fn of(federation: FederationId, fleet: &Fleet) -> Self {
        let mut prover = Self::anchored(federation);
        for member in fleet.entries().flat_map(MemberEntry::links) {
            prover.proved(member);
        }
        prover
    }

    /// For a reader that knows which federation it wants.
    pub(super) fn anchored(federation: FederationId) -> Self {
        Self { federation, by_key: BTreeMap::new() }
    }

    fn proved(&mut self, member: &Member) {
        self.by_key.entry(member.open_key().id()).or_default().push(member.clone());
    }

    /// Proves chains, which may come in any order. `known` is how many links of each are proved
    /// already.
    pub(super) fn prove(
        &mut self,
        chains: Vec<(MemberChain, Vec<Member>)>,
    ) -> Result<Vec<MemberEntry>, Refusal> {
        let mut pending: Vec<_> =
            chains.into_iter().map(|(chain, links)| Pending { chain, links }).collect();
        // Each round proves at least one link, so it ends after as many rounds as there are links;
        // in truth after as many as the deepest delegation has steps.
        loop {
            let (mut progress, mut missing) = (false, None);
            for chain in &mut pending {
                while let Some(link) = chain.chain.links.get(chain.links.len()) {
                    match self.next_link(&chain.links, link)? {
                        Ok(member) => {
                            self.proved(&member);
                            chain.links.push(member);
                            progress = true;
                        }
                        Err(refusal) => {
                            missing = Some(refusal);
                            break;
                        }
                    }
                }
            }
            match missing {
                None => break,
                Some(refusal) if !progress => return Err(refusal),
                Some(_) => {}
            }
        }
        pending.into_iter().map(|chain| self.entry(chain)).collect()
    }

    /// The next Member of a chain. The inner error says that nobody who could have signed it is
    /// proved yet.
    fn next_link(
        &self,
        before: &[Member],
        link: &SignedMember,
    ) -> Result<Result<Member, Refusal>, Refusal> {
        let member = Member::decode(&link.member.payload).map_err(malformed)?;
        if self.federation != member.federation {
            let text =
                format!("Member.federation = {}: it is another federation", member.federation);
            return Err(Refusal::new(OTHER_FEDERATION, text));
        }
        let outcome = match before.last() {
            None => self.admission(link, &member)?,
            Some(before) => self.update(link, before, &member)?,
        };
        Ok(outcome.map(|()| member))
    }

    fn admission(
        &self,
        link: &SignedMember,
        member: &Member,
    ) -> Result<Result<(), Refusal>, Refusal> {
        if member.is_root() {
            member::check_root(member)?;
            verify(&link.member, Domain::Member, &member.open_key().spki)?;
            return Ok(Ok(()));
        }
        let admits = |issuer: &&Member| member::check_admission(member, issuer);
        let by = match self.signer(&link.member.key_id, admits) {
            Ok(by) => by,
            Err(refusal) => return Ok(Err(refusal)),
        };
        verify(&link.member, Domain::Member, &by.open_key().spki)?;
        verify_key_proof(link, member)?;
        Ok(Ok(()))
    }

    fn update(
        &self,
        link: &SignedMember,
        before: &Member,
        after: &Member,
    ) -> Result<Result<(), Refusal>, Refusal> {
        if link.member.key_id == before.open_key().id() {
            check_own_link(link, before, after)?;
            return Ok(Ok(()));
        }
        let may = |by: &&Member| member::check_update(before, after, Signer::Other(by));
        match self.signer(&link.member.key_id, may) {
            Ok(by) => check_link_by(link, before, after, by).map(Ok),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Somebody whose key this was when it could do what `may` asks.
    fn signer(
        &self,
        key: &KeyId,
        may: impl Fn(&&Member) -> Result<(), Refusal>,
    ) -> Result<&Member, Refusal> {
        let text = format!("key_id = {key}: it is no member's key");
        let mut refusal = Refusal::new(NOT_A_MEMBER, text);
        for candidate in self.by_key.get(key).into_iter().flatten() {
            match may(&candidate) {
                Ok(()) => return Ok(candidate),
                Err(reason) => refusal = reason,
            }
        }
        Err(refusal)
    }

    fn entry(&self, proved: Pending) -> Result<MemberEntry, Refusal> {
        let Pending { chain, links } = proved;
        if let Some(leave) = &chain.leave {
            let member = links.last().expect("a chain has links, and all of them are proved");
            self.check_leave(leave, member)?;
        }
        Ok(MemberEntry::new(chain, links))
    }

    fn check_leave(&self, signed: &Signed, member: &Member) -> Result<(), Refusal> {
        let leave = Leave::decode(&signed.payload).map_err(malformed)?;
        check_leave(&leave, member)?;
        if leave.issuer == member.cluster {
            let key = member.open_key();
            if key.id() != signed.key_id {
                let text = format!("key_id = {}: it is not the member's key", signed.key_id);
                return Err(Refusal::new(SIGNATURE_REFUSED, text));
            }
            return verify(signed, Domain::Leave, &key.spki);
        }
        let may = |by: &&Member| check_admin(by, &leave.issuer);
        let by = self.signer(&signed.key_id, may)?;
        verify(signed, Domain::Leave, &by.open_key().spki)
    }

    /// Refuses a statement that no admin's key of `issuer` has signed.
    pub(super) fn check_admin_statement(
        &self,
        signed: &Signed,
        domain: Domain,
        issuer: &model::ClusterId,
    ) -> Result<(), Refusal> {
        let by = self.signer(&signed.key_id, |by| check_admin(by, issuer))?;
        verify(signed, domain, &by.open_key().spki)
    }

    /// Refuses a statement that no key of `issuer` has signed.
    pub(super) fn check_statement(
        &self,
        signed: &Signed,
        domain: Domain,
        issuer: &model::ClusterId,
    ) -> Result<(), Refusal> {
        let by = self.signer(&signed.key_id, |by| check_issuer(by, issuer))?;
        verify(signed, domain, &by.open_key().spki)
    }
}

/// An update by the member itself: its old key signs, and a new one agrees.
pub(super) fn check_own_link(
    link: &SignedMember,
    before: &Member,
    after: &Member,
) -> Result<(), Refusal> {
    member::check_update(before, after, Signer::Own)?;
    verify(&link.member, Domain::Member, &before.open_key().spki)?;
    if before.open_key().spki == after.open_key().spki {
        return Ok(());
    }
    verify_key_proof(link, after)
}

/// An update by another member; `by` is allowed to make it.
pub(super) fn check_link_by(
    link: &SignedMember,
    before: &Member,
    after: &Member,
    by: &Member,
) -> Result<(), Refusal> {
    member::check_update(before, after, Signer::Other(by))?;
    verify(&link.member, Domain::Member, &by.open_key().spki)?;
    if before.open_key().spki == after.open_key().spki {
        return Ok(());
    }
    verify_key_proof(link, after)
}

/// Refuses a Leave of another member, or of another state of it.
pub(super) fn check_leave(leave: &Leave, member: &Member) -> Result<(), Refusal> {
    if leave.federation != member.federation {
        let text = format!("Leave.federation = {}: it is another federation", leave.federation);
        return Err(Refusal::new(OTHER_FEDERATION, text));
    }
    if leave.cluster != member.cluster || leave.member_generation != member.member_generation {
        let text = format!(
            "Leave.member_generation = {}: the Member of {} in force is {}",
            leave.member_generation, member.name, member.member_generation
        );
        return Err(Refusal::new(MEMBER_CHANGE_REFUSED, text));
    }
    Ok(())
}

fn check_admin(by: &Member, issuer: &model::ClusterId) -> Result<(), Refusal> {
    check_issuer(by, issuer)?;
    if !by.roles.contains(Role::Admin) {
        let text = format!("{} has the roles {} and lacks admin", by.name, by.roles);
        return Err(Refusal::new(model::code::ROLE_MISSING, text));
    }
    Ok(())
}

fn check_issuer(by: &Member, issuer: &model::ClusterId) -> Result<(), Refusal> {
    if by.cluster != *issuer {
        let text = format!("issuer = {issuer}: the key that signed is one of {}", by.name);
        return Err(Refusal::new(SIGNATURE_REFUSED, text));
    }
    Ok(())
}

pub(super) fn malformed(error: wire::WireError) -> Refusal {
    Refusal::new(model::code::COMMAND_INVALID, error)
}
