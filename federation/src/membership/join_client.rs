//! The joiner's side of joining. Every step may be interrupted, and the whole be done again with the
//! same token: the inviter knows the joiner by its key.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use identity::Inviter;
use model::ResourceSet;
use model::code::{FEDERATION_JOINED, NAME_TAKEN, TOKEN_REFUSED};
use tokio::sync::mpsc;
use tonic::Streaming;
use wire::store::join_proto::join_service_client::JoinServiceClient;
use wire::store::join_proto::{self as proto};
use wire::store::limits::MESSAGE_BYTES_MAX;
use wire::store::{
    CheckReply, Domain, JoinToken, Member, MemberChain, MemberKey, RedeemEvent, RedeemRequest,
    Stage, TokenState as WireState, WatchEvent,
};

use super::error::MembershipError;
use super::node::{Node, from_unix_ms, unix_ms};
use super::types::{AddressReport, JoinCheck, JoinProgress, Joined, TokenFacts, TokenText};
use crate::fleet::{Fleet, own_records};
use crate::limits::{JOIN_CHECK_TIMEOUT, JOIN_EVENT_TIMEOUT, JOIN_SNAPSHOT_EVENTS_MAX};
use crate::transport::{JoinConnection, JoinTarget, join_dial};

/// What the inviter answered.
struct Answer {
    joined: wire::store::Joined,
    snapshot: Vec<WatchEvent>,
}

impl Node {
    pub(crate) async fn join(
        self: &Arc<Self>,
        text: &TokenText,
        progress: mpsc::Sender<JoinProgress>,
    ) -> Result<Joined, MembershipError> {
        let Ok(_one) = self.changing.try_lock() else { return Err(MembershipError::Busy) };
        let token = parse(text)?;
        if let Some(member) = self.joined_by(&token)? {
            return self.finish(&token, &member, &progress).await;
        }
        self.check_name(&token)?;
        say(&progress, JoinProgress::TokenRead(facts(&token)));
        let connection = self.reach(&token, &progress).await?;
        let member = self.candidate(&token);
        let request = self.redeem_request(&token, &member, &connection)?;
        let answer = ask(connection, request, &progress).await?;
        let revision = answer.joined.revision;
        say(&progress, JoinProgress::Redeemed { revision });
        self.store_answer(&token, &member, answer).await?;
        self.finish(&token, &member, &progress).await
    }

    /// What the inviter would say, and which addresses lead to it. Changes nothing.
    pub(crate) async fn check_token(&self, text: &TokenText) -> Result<JoinCheck, MembershipError> {
        let token = parse(text)?;
        let (addresses, connection) = self.dial(&token).await?;
        let verdict = match connection {
            None => Err((model::code::JOIN_UNREACHABLE, "no address answered".to_string())),
            Some(connection) => self.ask_verdict(&token, connection).await,
        };
        let own = self.joined_by(&token).and_then(|_| self.check_name(&token));
        let verdict = own.map_err(|error| (error.code(), error.to_string())).and(verdict);
        Ok(JoinCheck { facts: facts(&token), addresses, verdict })
    }

    /// Who is in a federation already may only end the very join that brought it there, and was
    /// interrupted after everything had been stored.
    fn joined_by(&self, token: &JoinToken) -> Result<Option<Member>, MembershipError> {
        let Some(federation) = self.federation()? else { return Ok(None) };
        let member = self.own_member()?;
        if federation == token.federation && member.token_id == Some(token.token_id) {
            return Ok(Some(member));
        }
        if token.issuer == self.own.id {
            return Err(MembershipError::NotAllowed {
                code: FEDERATION_JOINED,
                problem: format!("this cluster issued the token itself, for {}", token.name),
                fix: "run `fedctl join` at the cluster that it is for",
            });
        }
        Err(MembershipError::AlreadyMember { federation })
    }

    /// The name in the token is the one thing that the joiner cannot choose.
    fn check_name(&self, token: &JoinToken) -> Result<(), MembershipError> {
        if token.name == self.own.name {
            return Ok(());
        }
        Err(MembershipError::NotAllowed {
            code: NAME_TAKEN,
            problem: format!(
                "the token is for a cluster named {}, and this one is {}",
                token.name, self.own.name
            ),
            fix: "ask the inviter for a token with this cluster's name",
        })
    }

    async fn dial(
        &self,
        token: &JoinToken,
    ) -> Result<(Vec<AddressReport>, Option<JoinConnection>), MembershipError> {
        let certificate = self.own.key.self_signed().map_err(|error| MembershipError::Store {
            code: model::code::STORE_FAULT,
            problem: error.to_string(),
        })?;
        let inviter = Inviter { ca_pin: token.ca_pin, id: token.spiffe_id.clone() };
        let target = JoinTarget { addresses: token.addresses.clone(), inviter };
        let start = Instant::now();
        let dialled = join_dial(&target, &certificate, self.transport.dial_from()).await;
        Ok((AddressReport::all(dialled.attempts, start.elapsed()), dialled.connection))
    }

    async fn reach(
        &self,
        token: &JoinToken,
        progress: &mpsc::Sender<JoinProgress>,
    ) -> Result<JoinConnection, MembershipError> {
        let (reports, connection) = self.dial(token).await?;
        for report in &reports {
            say(progress, JoinProgress::AddressTried(report.clone()));
        }
        connection.ok_or(MembershipError::NoAddressAnswered {
            whose: "inviter",
            reports,
            fix: "open the inviter's UDP port, or let it advertise another address and issue a \
                  new token",
        })
    }

    async fn ask_verdict(
        &self,
        token: &JoinToken,
        connection: JoinConnection,
    ) -> Result<(), (model::code::Code, String)> {
        let mut client = JoinServiceClient::new(connection.channel);
        let request = proto::CheckRequest { token_id: token.token_id.as_bytes().to_vec().into() };
        let unreachable = |text: String| (model::code::JOIN_UNREACHABLE, text);
        let asked = tokio::time::timeout(JOIN_CHECK_TIMEOUT, client.check(request)).await;
        let reply = asked.map_err(|_| unreachable("the inviter did not answer".into()))?;
        let reply = reply.map_err(|status| unreachable(status.message().into()))?;
        let reply = CheckReply::decode(reply.into_inner());
        let reply = reply.map_err(|error| unreachable(error.to_string()))?;
        if reply.federation != token.federation {
            let text = format!("the inviter is in federation {}", reply.federation);
            return Err((model::code::JOIN_UNTRUSTED, text));
        }
        match reply.token {
            WireState::Open => Ok(()),
            other => Err((TOKEN_REFUSED, format!("the token is {}", other.as_str()))),
        }
    }

    /// The Member that this cluster asks to become.
    fn candidate(&self, token: &JoinToken) -> Member {
        Member {
            federation: token.federation,
            cluster: self.own.id,
            name: self.own.name.clone(),
            trust_domains: vec![self.own.trust_domain.clone()],
            keys: vec![MemberKey { spki: *self.own.key.public().spki(), closed_at: None }],
            epoch: self.signed_mark().epoch.max(1),
            member_generation: 1,
            roles: token.roles,
            delegation_depth: token.delegation_depth,
            issuer: token.issuer,
            token_id: Some(token.token_id),
        }
    }

    fn redeem_request(
        &self,
        token: &JoinToken,
        member: &Member,
        connection: &JoinConnection,
    ) -> Result<RedeemRequest, MembershipError> {
        // Its exports follow when it is in.
        let nothing = ResourceSet::default();
        let mut salt = || self.random();
        let peer = self.own_peer();
        let (steps, _) = own_records(&self.own.id, &peer, &nothing, None, &mut salt);
        let step = steps.into_iter().next().expect("a cluster's own ClusterPeer is published");
        let first = self.sign_step(&Fleet::default(), member, step)?;
        let payload = member.encode();
        let sign = |domain: Domain, payload: &[u8]| self.own.key.sign(domain.as_str(), payload);
        Ok(RedeemRequest {
            token_id: token.token_id,
            secret: token.secret.clone(),
            key_proof: sign(Domain::Join, &payload),
            possession: sign(Domain::Possession, &connection.exporter),
            member: payload.into(),
            first,
        })
    }

    /// Verifies everything from the token's federation id up, and puts it on disk.
    async fn store_answer(
        &self,
        token: &JoinToken,
        member: &Member,
        answer: Answer,
    ) -> Result<(), MembershipError> {
        let untrusted = |problem: String| MembershipError::JoinUntrusted { problem };
        let links = [&answer.joined.root, &answer.joined.member];
        check_answer(token, member, links).map_err(untrusted)?;
        self.replica.begin(token.federation);
        // Whether the inviter has everything that this cluster may see, the watch will tell.
        let seeded = self.replica.seed(token.issuer, answer.snapshot, false).await;
        let seeded = seeded.map_err(|error| error.to_string()).and_then(|()| {
            let known = self.replica.state().member(&self.own.id).is_some();
            known.then_some(()).ok_or_else(|| "this cluster is not among the members".to_string())
        });
        if let Err(problem) = seeded {
            self.replica
                .forget()
                .map_err(|error| MembershipError::Disk { problem: error.to_string() })?;
            return Err(untrusted(problem));
        }
        Ok(())
    }

    /// Everything is on disk: from here on a restart goes on by itself.
    async fn finish(
        self: &Arc<Self>,
        token: &JoinToken,
        member: &Member,
        progress: &mpsc::Sender<JoinProgress>,
    ) -> Result<Joined, MembershipError> {
        let (revision, fleet) = self.state().ok_or(MembershipError::Alone)?;
        let members = fleet.members().count();
        say(progress, JoinProgress::Stored { members, revision });
        self.publish_again.notify_one();
        tracing::info!(
            target: "fedgate::audit",
            federation = %member.federation,
            inviter = %token.issuer_name,
            "this cluster has joined"
        );
        Ok(Joined {
            federation: member.federation,
            cluster: self.own.id,
            inviter: token.issuer_name.clone(),
            members,
            revision,
        })
    }
}

/// Redeems, and reads the answer to its end.
async fn ask(
    connection: JoinConnection,
    request: RedeemRequest,
    progress: &mpsc::Sender<JoinProgress>,
) -> Result<Answer, MembershipError> {
    let interrupted = |problem: String| MembershipError::JoinInterrupted { problem };
    let client = JoinServiceClient::new(connection.channel);
    let mut client = client.max_decoding_message_size(MESSAGE_BYTES_MAX);
    let asked = tokio::time::timeout(JOIN_EVENT_TIMEOUT, client.redeem(request.encode())).await;
    let asked = asked.map_err(|_| interrupted("the inviter did not answer".into()))?;
    let mut events = asked.map_err(|status| interrupted(status.message().into()))?.into_inner();
    let mut joined = None;
    let mut snapshot = Vec::new();
    let mut waits_for_person = false;
    loop {
        match next(&mut events, waits_for_person).await.map_err(interrupted)? {
            Some(RedeemEvent::Progress { stage, .. }) => {
                waits_for_person = stage == Some(Stage::WaitingForApproval);
                if waits_for_person {
                    say(progress, JoinProgress::WaitingForApproval);
                }
            }
            Some(RedeemEvent::Refused(refusal)) => {
                let code = refusal.code.unwrap_or(TOKEN_REFUSED);
                return Err(MembershipError::JoinRefused { code, text: refusal.text });
            }
            Some(RedeemEvent::Joined(answer)) => joined = Some(answer),
            Some(RedeemEvent::Snapshot(event)) => {
                if snapshot.len() >= JOIN_SNAPSHOT_EVENTS_MAX {
                    return Err(interrupted("its snapshot has too many parts".into()));
                }
                snapshot.push(event);
            }
            None => break,
        }
    }
    let joined = joined.ok_or_else(|| interrupted("it ended without an answer".into()))?;
    if !matches!(snapshot.last(), Some(WatchEvent::SnapshotEnd { .. })) {
        return Err(interrupted("its snapshot is not whole".into()));
    }
    Ok(Answer { joined, snapshot })
}

/// A person takes the time that a person takes; a machine does not.
async fn next(
    events: &mut Streaming<proto::RedeemEvent>,
    waits_for_person: bool,
) -> Result<Option<RedeemEvent>, String> {
    let message = if waits_for_person {
        events.message().await
    } else {
        let next = tokio::time::timeout(JOIN_EVENT_TIMEOUT, events.message()).await;
        next.map_err(|_| "the inviter went silent".to_string())?
    };
    let event = message.map_err(|status| status.message().to_string())?;
    event.map(|event| RedeemEvent::decode(event).map_err(|error| error.to_string())).transpose()
}

/// Whether the answer is about this federation and this Member. Signatures are for the view to judge.
fn check_answer(
    token: &JoinToken,
    member: &Member,
    [root, own]: [&MemberChain; 2],
) -> Result<(), String> {
    let first = |chain: &MemberChain| {
        let link = chain.links.first().ok_or("a chain is empty")?;
        Member::decode(&link.member.payload).map_err(|error| error.to_string())
    };
    let root = first(root)?;
    if !root.is_root() || root.federation != token.federation {
        return Err(format!("its root is of federation {}", root.federation));
    }
    let admitted = first(own)?;
    let same = Member { epoch: admitted.epoch, ..member.clone() } == admitted;
    same.then_some(()).ok_or_else(|| "it admitted another Member than this cluster's".into())
}

pub(crate) fn parse(text: &TokenText) -> Result<JoinToken, MembershipError> {
    let malformed = |error: wire::store::TokenTextError| MembershipError::TokenMalformed {
        problem: error.to_string(),
    };
    let token = JoinToken::parse(text.expose()).map_err(malformed)?;
    let now = unix_ms(SystemTime::now());
    if token.expires_at_unix_ms <= now {
        let ago_s = (now - token.expires_at_unix_ms) / 1000;
        return Err(MembershipError::TokenExpired { ago_s });
    }
    Ok(token)
}

pub(crate) fn facts(token: &JoinToken) -> TokenFacts {
    TokenFacts {
        id: token.token_id,
        federation: token.federation,
        name: token.name.clone(),
        roles: token.roles,
        inviter: token.spiffe_id.to_string(),
        addresses: token.addresses.clone(),
        expires: from_unix_ms(token.expires_at_unix_ms),
    }
}

/// Nobody needs to listen.
fn say(progress: &mpsc::Sender<JoinProgress>, what: JoinProgress) {
    let _ = progress.try_send(what);
}
