//! The membership's answers as messages.

use std::time::SystemTime;

use model::{ClusterId, ClusterName, PeerAddress, Revision};
use wire::operator::proto::{self, Changed};
use wire::replica::KeptFinding;
use wire::resource::proto as resource;

use super::node::{encode_addresses, encode_transport, millis, unix};
use crate::membership::{
    AddressReport, Answered, ExportRow, Founded, IssuedToken, JoinCheck, JoinProgress, Joined,
    MemberRow, PendingJoin, Revoked, SnapshotFacts, StoreView, TokenFacts, TokenRow, TokenState,
};
use crate::replica::{MemberReport, OwnerReport, VerifyReport};

pub(super) fn revision(revision: Revision) -> resource::Revision {
    resource::Revision { epoch: revision.epoch, index: revision.index }
}

pub(super) fn changed(to: Revision) -> Changed {
    Changed { revision: Some(revision(to)) }
}

pub(super) fn founded(founded: &Founded) -> proto::Founded {
    proto::Founded {
        federation: founded.federation.to_string(),
        cluster: founded.cluster.to_string(),
        revision: Some(revision(founded.revision)),
    }
}

pub(super) fn member(row: &MemberRow) -> proto::MemberStatus {
    let state = match (row.revoked, row.active) {
        (true, _) => "revoked",
        (false, true) => "active",
        (false, false) => "left",
    };
    proto::MemberStatus {
        cluster: row.cluster.to_string(),
        name: row.name.to_string(),
        trust_domains: row.trust_domains.iter().map(ToString::to_string).collect(),
        roles: row.roles.to_string(),
        delegation_depth: row.delegation_depth,
        issuer: row.issuer.to_string(),
        state: state.into(),
        own: row.own,
        epoch: row.head.map(|(epoch, _)| epoch),
        generation: row.head.map(|(_, generation)| generation),
        records: count(row.records),
        store_role: row.store_role.as_str().into(),
        age_ms: row.heard.map(|(age, _)| millis(age)),
        standing: row.heard.map_or_else(String::new, |(_, standing)| standing.as_str().into()),
        path: row.path.clone(),
    }
}

pub(super) fn export(row: &ExportRow) -> proto::ExportStatus {
    let text = |value: Option<String>| value.unwrap_or_default();
    let allow = row.allow.iter().map(|entry| resource::AllowEntry {
        cluster: text(entry.cluster.as_ref().map(ToString::to_string)),
        trust_domain: text(entry.trust_domain.as_ref().map(ToString::to_string)),
        spiffe_id: text(entry.spiffe_id.as_ref().map(ToString::to_string)),
    });
    proto::ExportStatus {
        cluster: row.cluster.to_string(),
        ports: row.ports.iter().map(wire::resource::encode_service_port).collect(),
        idle: row.idle.as_ref().map(wire::resource::encode_diagnostic),
        targeted: row.targeted,
        allow: allow.collect(),
    }
}

pub(super) fn issued(token: &IssuedToken) -> proto::IssuedToken {
    proto::IssuedToken {
        text: token.text.expose().into(),
        id: token.id.to_string(),
        name: token.name.to_string(),
        expires_unix_ms: unix_ms(token.expires),
        addresses: token.addresses.iter().map(report).collect(),
    }
}

pub(super) fn token(row: &TokenRow) -> proto::TokenStatus {
    let (state, redeemed_by) = match row.state {
        TokenState::Open => ("open", String::new()),
        TokenState::Expired => ("expired", String::new()),
        TokenState::Revoked => ("revoked", String::new()),
        TokenState::Redeemed(cluster) => ("redeemed", cluster.to_string()),
    };
    proto::TokenStatus {
        id: row.id.to_string(),
        name: row.name.to_string(),
        roles: row.roles.to_string(),
        issuer: row.issuer.to_string(),
        issued_unix_ms: unix_ms(row.issued),
        expires_unix_ms: unix_ms(row.expires),
        approval_needed: row.approval_needed,
        state: state.into(),
        redeemed_by,
    }
}

pub(super) fn verdict(check: &JoinCheck) -> proto::TokenVerdict {
    let (admitted, code, text) = match &check.verdict {
        Ok(()) => (true, 0, String::new()),
        Err((code, text)) => (false, code.number().into(), text.clone()),
    };
    let addresses = check.addresses.iter().map(report).collect();
    proto::TokenVerdict { facts: Some(facts(&check.facts)), addresses, admitted, code, text }
}

fn facts(facts: &TokenFacts) -> proto::TokenFacts {
    proto::TokenFacts {
        id: facts.id.to_string(),
        federation: facts.federation.to_string(),
        name: facts.name.to_string(),
        roles: facts.roles.to_string(),
        inviter: facts.inviter.clone(),
        addresses: encode_addresses(&facts.addresses),
        expires_unix_ms: unix_ms(facts.expires),
    }
}

fn report(report: &AddressReport) -> proto::AddressReport {
    use proto::address_report::Outcome;
    let (over, outcome) = match &report.outcome {
        Ok(Answered { after, over }) => {
            let time = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
            (encode_transport(*over), Outcome::AnsweredUs(time))
        }
        Err(problem) => (resource::Transport::Unspecified, Outcome::Problem(problem.clone())),
    };
    let (address, over) = (address(&report.address), over.into());
    proto::AddressReport { address, outcome: Some(outcome), over }
}

fn address(address: &PeerAddress) -> Option<resource::PeerAddress> {
    encode_addresses(std::slice::from_ref(address)).pop()
}

pub(super) fn progress(step: &JoinProgress) -> proto::JoinEvent {
    use proto::join_event::Event;
    let event = match step {
        JoinProgress::TokenRead(read) => Event::TokenRead(facts(read)),
        JoinProgress::AddressTried(tried) => Event::AddressTried(report(tried)),
        JoinProgress::WaitingForApproval => Event::Waiting(proto::WaitingForApproval {}),
        JoinProgress::Redeemed { revision } => Event::Redeemed(changed(*revision)),
        JoinProgress::Stored { members, revision: at } => Event::Stored(proto::StoredMembers {
            members: count(*members),
            revision: Some(revision(*at)),
        }),
        JoinProgress::Published { revision } => Event::Published(changed(*revision)),
    };
    proto::JoinEvent { event: Some(event) }
}

pub(super) fn joined(joined: &Joined) -> proto::JoinEvent {
    let joined = proto::Joined {
        federation: joined.federation.to_string(),
        cluster: joined.cluster.to_string(),
        inviter: joined.inviter.to_string(),
        members: count(joined.members),
        revision: Some(revision(joined.revision)),
    };
    proto::JoinEvent { event: Some(proto::join_event::Event::Joined(joined)) }
}

pub(super) fn pending(join: &PendingJoin) -> proto::PendingJoin {
    proto::PendingJoin {
        cluster: join.cluster.to_string(),
        name: join.name.to_string(),
        token: join.token.to_string(),
        trust_domains: join.trust_domains.iter().map(ToString::to_string).collect(),
        remote: join.remote.clone(),
        waiting_ms: millis(join.waiting),
    }
}

pub(super) fn revoked(revoked: &Revoked) -> proto::Revoked {
    proto::Revoked {
        revision: revoked.revision.map(revision),
        told: names(&revoked.told),
        untold: names(&revoked.untold),
    }
}

pub(super) fn store(view: &StoreView) -> proto::Store {
    let name =
        |name: &Option<ClusterName>| name.as_ref().map_or_else(String::new, ToString::to_string);
    let federation = view.federation.as_ref();
    proto::Store {
        mode: view.mode.as_str().into(),
        federation: federation.map_or_else(String::new, ToString::to_string),
        role: view.role.as_str().into(),
        leader: name(&view.leader),
        term: view.term,
        last_log: view.last_log,
        applied: Some(revision(view.applied)),
        voters: names(&view.voters),
        standbys: names(&view.standbys),
        quorum_age_ms: view.quorum_age.map(millis),
        source: name(&view.source),
        source_age_ms: view.source_age.map(millis),
        problem: view.problem.clone().unwrap_or_default(),
        leader_age_ms: view.leader_age.map(millis),
    }
}

pub(super) fn snapshot(facts: &SnapshotFacts) -> proto::Snapshot {
    proto::Snapshot {
        revision: Some(revision(facts.revision)),
        bytes: facts.bytes,
        pairs: facts.pairs,
        digest: facts.digest.to_vec(),
    }
}

pub(super) fn store_verdict(report: &VerifyReport) -> proto::StoreVerdict {
    let (records, problem) = match &report.local {
        Ok(records) => (*records as u64, String::new()),
        Err(problem) => (0, problem.clone()),
    };
    let finding = |found: &KeptFinding| proto::NoticedFinding {
        code: found.code.number().into(),
        noticed_unix_ms: found.noticed_at_unix_ms,
        owner: found.owner.map_or_else(String::new, |owner| owner.to_string()),
        text: found.text.clone(),
    };
    proto::StoreVerdict {
        well: report.is_well(),
        revision: Some(revision(report.revision)),
        records,
        problem,
        owners: report.owners.iter().map(owner_verdict).collect(),
        members: report.members.iter().map(verified_member).collect(),
        findings: report.findings.iter().map(finding).collect(),
    }
}

fn owner_verdict(owner: &OwnerReport) -> proto::OwnerVerdict {
    let ids = |ids: &[ClusterId]| ids.iter().map(ToString::to_string).collect();
    proto::OwnerVerdict {
        name: owner.name.to_string(),
        epoch: owner.held.map(|mark| mark.epoch),
        generation: owner.held.map(|mark| mark.generation),
        records: count(owner.records),
        age_ms: owner.age.map(millis),
        standing: owner.standing.as_str().into(),
        agree: ids(&owner.agree),
        behind: ids(&owner.behind),
        ahead: ids(&owner.ahead),
        differ: ids(&owner.differ),
        silent: ids(&owner.silent),
    }
}

fn verified_member(member: &MemberReport) -> proto::VerifiedMember {
    let (answered_us, heads, problem) = match &member.outcome {
        Ok((time, heads)) => (
            Some(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            count(*heads),
            String::new(),
        ),
        Err(problem) => (None, 0, problem.clone()),
    };
    let (name, refused) = (member.name.to_string(), member.refused.clone());
    proto::VerifiedMember { name, answered_us, heads, problem, refused }
}

fn names(names: &[ClusterName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn unix_ms(time: SystemTime) -> u64 {
    millis(unix(time))
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
