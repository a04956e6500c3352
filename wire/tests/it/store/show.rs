//! What a vector means, as lines of text.

use wire::store::{
    AdminChange, AdminStatement, Change, CheckReply, Command, Entry, FleetUpdate, Head, JoinToken,
    Leave, Member, MemberChain, NamespaceUpdate, OwnerUpdate, ProposeReply, Publish, ReadReply,
    RecordEntry, RedeemEvent, RedeemRequest, Refusal, Revocation, RevocationTarget, Signed,
    SignedMember, StoreKey, TokenGrant, WatchEvent,
};

use crate::vectors::hex;

pub(crate) fn key(key: &StoreKey) -> Vec<String> {
    let kind = key.resource_key().map_or("newer than this build", |key| key.kind.as_str());
    vec![
        format!("cluster = {}", key.cluster),
        format!("kind = {} ({kind})", key.kind),
        format!("namespace = {:?}", key.namespace_str()),
        format!("name = {:?}", key.name.as_str()),
        format!("storable = {}", key.is_storable()),
    ]
}

pub(crate) fn head(head: &Head) -> Vec<String> {
    vec![
        format!("federation = {}", head.federation),
        format!("cluster = {}", head.cluster),
        format!("epoch and generation = {}", head.mark),
        format!("issued_at_unix_ms = {}", head.issued_at_unix_ms),
        format!("key_id = {}", head.key_id),
        format!("digest = {}", hex(&head.digest)),
        format!("records = {}", head.records),
    ]
}

pub(crate) fn member(member: &Member) -> Vec<String> {
    let mut lines = vec![
        format!("federation = {}", member.federation),
        format!("cluster = {}", member.cluster),
        format!("name = {}", member.name),
    ];
    lines.extend(member.trust_domains.iter().map(|domain| format!("trust domain = {domain}")));
    for key in &member.keys {
        let state =
            key.closed_at.map_or_else(|| "open".to_string(), |mark| format!("closed at {mark}"));
        lines.push(format!("key = {} ({state})", key.id()));
    }
    lines.extend([
        format!("epoch = {}", member.epoch),
        format!("member_generation = {}", member.member_generation),
        format!("roles = {}", member.roles),
        format!("delegation_depth = {}", member.delegation_depth),
        format!("issuer = {}", member.issuer),
        format!(
            "token = {}",
            member.token_id.map_or_else(|| "none".to_string(), |id| id.to_string())
        ),
    ]);
    lines
}

pub(crate) fn signed(signed: &Signed) -> String {
    let signature = hex(&signed.signature[..4]);
    format!("{} bytes by key {}, signature {signature}..", signed.payload.len(), signed.key_id)
}

pub(crate) fn signed_member(link: &SignedMember) -> String {
    let proof = link.key_proof.map_or_else(|| "none".to_string(), |proof| hex(&proof[..4]) + "..");
    format!("{}, key proof {proof}", signed(&link.member))
}

pub(crate) fn chain(chain: &MemberChain) -> Vec<String> {
    let links = chain.links.iter().map(|link| format!("link = {}", signed_member(link)));
    let leave = chain.leave.iter().map(|leave| format!("leave = {}", signed(leave)));
    links.chain(leave).collect()
}

pub(crate) fn grant(grant: &TokenGrant) -> Vec<String> {
    vec![
        format!("federation = {}", grant.federation),
        format!("token = {}", grant.token_id),
        format!("name = {}", grant.name),
        format!("roles = {}", grant.roles),
        format!("delegation_depth = {}", grant.delegation_depth),
        format!("issued_at_unix_ms = {}", grant.issued_at_unix_ms),
        format!("expires_at_unix_ms = {}", grant.expires_at_unix_ms),
        format!("secret_hmac = {}", hex(&grant.secret_hmac)),
        format!("approval_needed = {}", grant.approval_needed),
        format!("issuer = {}", grant.issuer),
    ]
}

pub(crate) fn revocation(revocation: &Revocation) -> Vec<String> {
    let target = match &revocation.target {
        RevocationTarget::Cluster(id) => format!("cluster {id}"),
        RevocationTarget::TrustDomain(domain) => format!("trust domain {domain}"),
    };
    let mut lines = vec![
        format!("federation = {}", revocation.federation),
        format!("target = {target}"),
        format!("not_before_unix_ms = {}", revocation.not_before_unix_ms),
        format!("issuer = {}", revocation.issuer),
        format!("reason = {:?}", revocation.reason),
    ];
    let reanchor = revocation.reanchor.iter();
    lines.extend(reanchor.map(|x| format!("reanchor = {} under {}", x.child, x.issuer)));
    lines
}

pub(crate) fn leave(leave: &Leave) -> Vec<String> {
    vec![
        format!("federation = {}", leave.federation),
        format!("cluster = {}", leave.cluster),
        format!("issuer = {}", leave.issuer),
        format!("member_generation = {}", leave.member_generation),
    ]
}

pub(crate) fn admin(statement: &AdminStatement) -> Vec<String> {
    let mut lines = vec![
        format!("federation = {}", statement.federation),
        format!("issuer = {}", statement.issuer),
    ];
    match &statement.change {
        AdminChange::RevokeToken(id) => lines.push(format!("revoke token {id}")),
        AdminChange::Standbys { generation, clusters } => {
            lines.push(format!("standbys, generation {generation}"));
            lines.extend(clusters.iter().map(|id| format!("  {id}")));
        }
    }
    lines
}

pub(crate) fn publish(publish: &Publish) -> Vec<String> {
    let mut lines = vec![format!("  head = {}", signed(&publish.head))];
    lines.extend(publish.puts.iter().map(|put| {
        let bytes = put.record.len();
        format!("  put {}: {bytes} bytes", put.key)
    }));
    lines.extend(publish.removes.iter().map(|key| format!("  remove {key}")));
    lines
}

pub(crate) fn command(command: &Command) -> Vec<String> {
    let mut lines = vec![
        format!("request_id = {}", hex(&command.request_id)),
        format!("proposed_at_unix_ms = {}", command.proposed_at_unix_ms),
        format!("change = {}", command.change.as_str()),
    ];
    match &command.change {
        Change::Found(x) | Change::UpdateMember(x) => {
            lines.push(format!("  member = {}", signed_member(x)));
        }
        Change::Publish(x) => lines.extend(publish(x)),
        Change::Redeem(x) => {
            lines.push(format!("  token = {}", x.token_id));
            lines.push(format!("  member = {}", signed_member(&x.member)));
            lines.extend(x.first.iter().flat_map(publish));
        }
        Change::IssueToken(x) | Change::Leave(x) | Change::Revoke(x) | Change::Admin(x) => {
            lines.push(format!("  signed = {}", signed(x)));
        }
    }
    lines
}

fn record_entry(entry: &RecordEntry) -> String {
    format!("{}: {} bytes since {}", entry.key, entry.record.len(), entry.since)
}

pub(crate) fn owner(update: &OwnerUpdate) -> Vec<String> {
    let mut lines =
        vec![format!("owner = {}", update.cluster), format!("  head = {}", signed(&update.head))];
    for namespace in &update.namespaces {
        match namespace {
            NamespaceUpdate::Node(hash) => lines.push(format!("  node {}", hex(hash))),
            NamespaceUpdate::Records { namespace, entries } => {
                let name = namespace.as_ref().map_or("", |name| name.as_str());
                lines.push(format!("  namespace {name:?}"));
                lines.extend(entries.iter().map(|entry| match entry {
                    Entry::Leaf(hash) => format!("    leaf {}", hex(hash)),
                    Entry::Record(entry) => format!("    {}", record_entry(entry)),
                }));
            }
        }
    }
    match update.more {
        true => lines.push("  more follows".into()),
        false => lines.push(format!("  digest = {}", hex(&update.digest()))),
    }
    lines
}

fn fleet(update: &FleetUpdate) -> Vec<String> {
    let members = update.members.iter().flat_map(|member| {
        ["member:".to_string()]
            .into_iter()
            .chain(chain(member).into_iter().map(|x| "  ".to_string() + &x))
    });
    let revocations = update.revocations.iter().map(|x| format!("revocation = {}", signed(x)));
    let owners = update.owners.iter().flat_map(owner);
    members.chain(revocations).chain(owners).collect()
}

pub(crate) fn event(event: &WatchEvent) -> Vec<String> {
    let at = format!("revision = {}", event.revision());
    match event {
        WatchEvent::SnapshotBegin { federation, .. } => {
            vec![at, format!("snapshot of federation {federation} begins")]
        }
        WatchEvent::SnapshotPart { update, .. } => {
            [vec![at, "part of the snapshot".into()], fleet(update)].concat()
        }
        WatchEvent::SnapshotEnd { parts, .. } => {
            vec![at, format!("snapshot of {parts} parts ends")]
        }
        WatchEvent::Delta { from, update, .. } => {
            [vec![at, format!("delta from {from}")], fleet(update)].concat()
        }
        WatchEvent::Alive { alive, .. } => {
            let mut lines = vec![at, format!("alive, quorum {}", alive.quorum)];
            lines.push(format!("relayed = {}", alive.relayed));
            lines.extend(alive.voters.iter().map(|id| format!("voter = {id}")));
            lines
        }
    }
}

fn refusal(refusal: &Refusal) -> String {
    let code = refusal.code.map_or_else(|| "unknown code".to_string(), |code| code.to_string());
    format!("{code}: {}", refusal.text)
}

pub(crate) fn propose(reply: &ProposeReply) -> Vec<String> {
    vec![match reply {
        ProposeReply::Accepted(revision) => format!("accepted at {revision}"),
        ProposeReply::Refused(x) => format!("refused, {}", refusal(x)),
        ProposeReply::NotLeader(Some(id)) => format!("not the leader, maybe {id} is"),
        ProposeReply::NotLeader(None) => "not the leader, nobody is known".into(),
        ProposeReply::Unknown(x) => format!("outcome unknown, {}", refusal(x)),
    }]
}

pub(crate) fn read(reply: &ReadReply) -> Vec<String> {
    match reply {
        ReadReply::Answer { revision, record } => {
            let mut lines = vec![format!("revision = {revision}")];
            lines.push(record.as_ref().map_or_else(|| "no record".to_string(), record_entry));
            lines
        }
        ReadReply::Refused(x) => vec![format!("refused, {}", refusal(x))],
        ReadReply::NotLeader(id) => vec![format!("not the leader, maybe {id:?} is")],
    }
}

pub(crate) fn check(reply: &CheckReply) -> Vec<String> {
    vec![
        format!("federation = {}", reply.federation),
        format!("cluster = {} ({})", reply.cluster, reply.name),
        format!("now_unix_ms = {}", reply.now_unix_ms),
        format!("token is {}", reply.token.as_str()),
        format!("members = {}", reply.members),
        format!("version = {:?}", reply.version),
    ]
}

/// Everything but the secret.
pub(crate) fn redeem(request: &RedeemRequest) -> Vec<String> {
    let mut lines = vec![
        format!("token = {}", request.token_id),
        format!("member = {} bytes", request.member.len()),
        format!("key_proof = {}..", hex(&request.key_proof[..4])),
        format!("possession = {}..", hex(&request.possession[..4])),
    ];
    lines.extend(publish(&request.first));
    lines
}

pub(crate) fn redeem_event(event: &RedeemEvent) -> Vec<String> {
    match event {
        RedeemEvent::Progress { stage, text } => {
            vec![format!("{}: {text}", stage.map_or("a newer stage", |stage| stage.as_str()))]
        }
        RedeemEvent::Joined(joined) => {
            let mut lines = vec![format!("joined at {}", joined.revision), "member:".into()];
            lines.extend(chain(&joined.member).into_iter().map(|line| "  ".to_string() + &line));
            lines.push("root:".into());
            lines.extend(chain(&joined.root).into_iter().map(|line| "  ".to_string() + &line));
            lines
        }
        RedeemEvent::Refused(x) => vec![format!("refused, {}", refusal(x))],
        RedeemEvent::Snapshot(inner) => self::event(inner),
    }
}

/// Everything but the secret.
pub(crate) fn token(token: &JoinToken) -> Vec<String> {
    let mut lines = vec![
        format!("token = {}", token.token_id),
        format!("federation = {}", token.federation),
        format!("issuer = {} ({})", token.issuer, token.issuer_name),
        format!("ca_pin = {}", hex(&token.ca_pin)),
        format!("spiffe_id = {}", token.spiffe_id),
    ];
    lines.extend(token.addresses.iter().map(|address| {
        format!("address = {} {}:{}", address.transport.as_str(), address.host, address.port)
    }));
    lines.extend([
        format!("name = {}", token.name),
        format!("roles = {}", token.roles),
        format!("delegation_depth = {}", token.delegation_depth),
        format!("expires_at_unix_ms = {}", token.expires_at_unix_ms),
        format!("approval_needed = {}", token.approval_needed),
    ]);
    lines
}
