//! The inviter's side of joining: whoever knows the secret of a token that this node issued becomes
//! a member, once.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use identity::FederationPublicKey;
use model::code::{
    Code, FEDERATION_NONE, JOIN_DENIED, JOIN_RATE_LIMITED, SIGNATURE_REFUSED, STORE_NO_QUORUM,
    TOKEN_EXPIRED, TOKEN_MISMATCH, TOKEN_REVOKED, TOKEN_UNKNOWN, TOKEN_USED,
};
use model::{ClusterId, Revision};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};
use wire::store::join_proto::join_service_server::JoinService;
use wire::store::join_proto::{self as proto};
use wire::store::{
    Change, CheckReply, Domain, Joined, Member, Redeem, RedeemEvent, RedeemRequest, Refusal,
    SignedMember, Stage, TokenGrant, TokenId, TokenState,
};

use super::current::Current;
use super::error::MembershipError;
use super::node::{Node, unix_ms};
use super::pending;
use crate::fleet::{TokenUse, View};
use crate::limits::{APPLIED_TIMEOUT, JOIN_ANSWER_TIMEOUT};
use crate::refusal::refuse;
use crate::transport::{JoinerPeer, PeerInfo};

const AUDIT: &str = "fedgate::audit";

/// The service behind `fedgate-join/1`.
#[derive(Debug, Clone)]
pub(crate) struct JoinServer {
    pub(crate) current: Current,
    pub(crate) tasks: TaskTracker,
}

/// One call, and the node that answers it to its end.
struct Session {
    node: Arc<Node>,
}

type Events = mpsc::Sender<Result<proto::RedeemEvent, Status>>;

#[tonic::async_trait]
impl JoinService for JoinServer {
    type RedeemStream = ReceiverStream<Result<proto::RedeemEvent, Status>>;

    async fn check(
        &self,
        request: Request<proto::CheckRequest>,
    ) -> Result<Response<proto::CheckReply>, Status> {
        let joiner = joiner(&request)?;
        let session = Session { node: self.current.node() };
        session.admit_attempt(&joiner)?;
        let malformed = |error: wire::WireError| Status::invalid_argument(error.to_string());
        let id = CheckReply::decode_request(request.get_ref()).map_err(malformed)?;
        let node = &session.node;
        let Some((_, fleet)) = node.state() else { return Err(alone()) };
        let token = session.token_state(&id);
        if token == TokenState::Unknown {
            node.attempts.failed(address(&joiner), Instant::now());
        }
        let reply = CheckReply {
            federation: fleet.federation().ok_or_else(alone)?,
            cluster: node.own.id,
            name: node.own.name.clone(),
            now_unix_ms: unix_ms(SystemTime::now()),
            token,
            members: u32::try_from(fleet.members().count()).unwrap_or(u32::MAX),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        Ok(Response::new(reply.encode()))
    }

    async fn redeem(
        &self,
        request: Request<proto::RedeemRequest>,
    ) -> Result<Response<Self::RedeemStream>, Status> {
        let joiner = joiner(&request)?;
        let session = Session { node: self.current.node() };
        session.admit_attempt(&joiner)?;
        let malformed = |error: wire::WireError| Status::invalid_argument(error.to_string());
        let request = RedeemRequest::decode(request.into_inner()).map_err(malformed)?;
        let (events, receiver) = mpsc::channel(2);
        self.tasks.spawn(async move {
            // Who hangs up gives its place on the waiting list up, and may come again.
            let ended = tokio::select! {
                ended = session.serve(&joiner, request, &events) => ended,
                () = events.closed() => return,
            };
            if let Err(refusal) = ended {
                let remote = joiner.remote;
                tracing::warn!(target: AUDIT, %remote, code = ?refusal.code, text = refusal.text,
                    "a join was refused");
                let _ = send(&events, &RedeemEvent::Refused(refusal)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Session {
    fn admit_attempt(&self, joiner: &JoinerPeer) -> Result<(), Status> {
        let wait = self.node.attempts.wait(address(joiner), Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let text = format!("too many attempts failed; try again in {} s", wait.as_secs().max(1));
        Err(refuse(tonic::Code::ResourceExhausted, JOIN_RATE_LIMITED, text))
    }

    async fn serve(
        &self,
        joiner: &JoinerPeer,
        request: RedeemRequest,
        events: &Events,
    ) -> Result<(), Refusal> {
        let (grant, member) = self.judge(joiner, &request).inspect_err(|_| {
            self.node.attempts.failed(address(joiner), Instant::now());
        })?;
        let revision = match self.admitted_before(&member) {
            Some(revision) => revision,
            None => {
                if grant.approval_needed {
                    self.wait_for_person(joiner, &grant, &member, events).await?;
                }
                self.redeem_now(request, &member, events).await?
            }
        };
        self.answer(&member.cluster, revision, events).await
    }

    /// Everything that can be said without the log: the log decides who was first.
    fn judge(
        &self,
        joiner: &JoinerPeer,
        request: &RedeemRequest,
    ) -> Result<(TokenGrant, Member), Refusal> {
        let grant = self.grant(&request.token_id).ok_or_else(|| {
            let name = &self.node.own.name;
            no(TOKEN_UNKNOWN, format!("{name} issued no such token, or has forgotten it"))
        })?;
        if !grant.fits(&request.secret) {
            return Err(no(TOKEN_MISMATCH, "the token's secret is another one: it was altered"));
        }
        let key = FederationPublicKey::from_spki(&joiner.public_key_der);
        let key = key.map_err(|error| no(SIGNATURE_REFUSED, error.to_string()))?;
        let proof = key.verify(Domain::Possession.as_str(), &joiner.exporter, &request.possession);
        proof.map_err(|error| no(SIGNATURE_REFUSED, format!("possession: {error}")))?;
        let member = Member::decode(&request.member);
        let member = member.map_err(|error| no(TOKEN_MISMATCH, error.to_string()))?;
        check_member(&grant, &member, key.spki())?;
        match self.token_state(&grant.token_id) {
            TokenState::Revoked => return Err(no(TOKEN_REVOKED, "the token was revoked")),
            // Nobody is asked to approve what the log would refuse.
            TokenState::Used if self.admitted_before(&member).is_none() => {
                return Err(no(TOKEN_USED, "another cluster has redeemed the token"));
            }
            _ => {}
        }
        let now = unix_ms(SystemTime::now());
        if grant.expires_at_unix_ms <= now && self.admitted_before(&member).is_none() {
            let ago = (now - grant.expires_at_unix_ms) / 1000;
            return Err(no(TOKEN_EXPIRED, format!("the token has expired {ago} s ago")));
        }
        Ok((grant, member))
    }

    /// The same joiner redeemed the same token before, and did not hear of it.
    fn admitted_before(&self, member: &Member) -> Option<Revision> {
        let (revision, fleet) = self.node.state()?;
        let known = fleet.member(&member.cluster)?;
        let same = known.token_id == member.token_id
            && known.keys.first().map(|key| key.spki) == member.keys.first().map(|key| key.spki);
        same.then_some(revision)
    }

    async fn wait_for_person(
        &self,
        joiner: &JoinerPeer,
        grant: &TokenGrant,
        member: &Member,
        events: &Events,
    ) -> Result<(), Refusal> {
        let request = pending::Request {
            cluster: member.cluster,
            name: member.name.clone(),
            token: grant.token_id,
            trust_domains: member.trust_domains.clone(),
            remote: joiner.remote.to_string(),
        };
        let Some(mut place) = self.node.pending.enter(request, Instant::now()) else {
            return Err(no(JOIN_RATE_LIMITED, "too many clusters wait for approval already"));
        };
        tracing::info!(target: AUDIT, cluster = %member.name, "a join waits for approval");
        let text = format!("a person at {} has to approve", self.node.own.name);
        let stage = Some(Stage::WaitingForApproval);
        send(events, &RedeemEvent::Progress { stage, text }).await?;
        let left = grant.expires_at_unix_ms.saturating_sub(unix_ms(SystemTime::now()));
        let decided = tokio::time::timeout(Duration::from_millis(left), place.decision()).await;
        match decided {
            Ok(Some(true)) => Ok(()),
            Ok(Some(false)) => Err(no(JOIN_DENIED, "a person denied it")),
            Ok(None) => Err(no(JOIN_DENIED, "a newer attempt of this cluster waits instead")),
            Err(_) => Err(no(TOKEN_EXPIRED, "the token expired before a person approved")),
        }
    }

    /// The one compare-and-swap in the log.
    async fn redeem_now(
        &self,
        request: RedeemRequest,
        member: &Member,
        events: &Events,
    ) -> Result<Revision, Refusal> {
        let text = "writing the log".to_string();
        send(events, &RedeemEvent::Progress { stage: Some(Stage::Redeeming), text }).await?;
        let signed = self.node.sign(Domain::Member, request.member.to_vec());
        let redeem = Redeem {
            token_id: request.token_id,
            member: SignedMember { member: signed, key_proof: Some(request.key_proof) },
            first: Some(request.first),
        };
        let redeemed = self.node.propose(Change::Redeem(redeem)).await.map_err(as_refusal);
        match redeemed {
            Ok(revision) => {
                tracing::info!(
                    target: AUDIT,
                    cluster = %member.name,
                    id = %member.cluster,
                    token = %request.token_id,
                    %revision,
                    "a cluster has joined"
                );
                Ok(revision)
            }
            // Two attempts of one joiner at the same time: the other one was first.
            Err(refusal) => self.admitted_before(member).ok_or(refusal),
        }
    }

    /// The chains and a snapshot, as the new member may see it.
    async fn answer(
        &self,
        joiner: &ClusterId,
        revision: Revision,
        events: &Events,
    ) -> Result<(), Refusal> {
        let late = || {
            let seconds = APPLIED_TIMEOUT.as_secs();
            let text = format!("the change has not come back within {seconds} s; join again");
            no(STORE_NO_QUORUM, text)
        };
        let mut revisions = self.node.feed.revision();
        let reached = revisions.wait_for(|now| now.is_some_and(|now| now >= revision));
        tokio::time::timeout(APPLIED_TIMEOUT, reached)
            .await
            .map_err(|_| late())?
            .map_err(|_| late())?;
        let state = self.node.feed.current().ok_or_else(late)?;
        let chain = |cluster: &ClusterId| {
            state.fleet.entry(cluster).map(|entry| entry.chain().clone()).ok_or_else(late)
        };
        let root = *state.fleet.root().ok_or_else(late)?;
        let joined = Joined { revision, member: chain(joiner)?, root: chain(&root)? };
        let serving = crate::fleet::serving(&state.fleet);
        let snapshot = View::of(&state.fleet, &serving, joiner).snapshot();
        send(events, &RedeemEvent::Joined(joined)).await?;
        for event in snapshot {
            send(events, &RedeemEvent::Snapshot(event)).await?;
        }
        Ok(())
    }

    /// A token that this node issued, by its own files or by the store.
    fn grant(&self, id: &TokenId) -> Option<TokenGrant> {
        let own = &self.node.own.id;
        let kept = || self.node.grants.get(id);
        let stored = || {
            let state = self.node.store().state();
            state.0.token(id).map(|token| token.grant.clone())
        };
        stored().or_else(kept).filter(|grant| grant.issuer == *own)
    }

    fn token_state(&self, id: &TokenId) -> TokenState {
        let Some(grant) = self.grant(id) else { return TokenState::Unknown };
        let state = self.node.store().state();
        let used_by = |fleet: &crate::fleet::Fleet| {
            fleet.entries().any(|entry| entry.member().token_id == Some(*id))
        };
        match state.0.token(id).map(|token| token.used) {
            Some(TokenUse::Used { .. }) => TokenState::Used,
            Some(TokenUse::Revoked { .. }) => TokenState::Revoked,
            _ if self.node.state().is_some_and(|(_, fleet)| used_by(&fleet)) => TokenState::Used,
            _ if grant.expires_at_unix_ms <= unix_ms(SystemTime::now()) => TokenState::Expired,
            _ => TokenState::Open,
        }
    }
}

/// The joiner gets what the token says, and nothing else.
fn check_member(grant: &TokenGrant, member: &Member, key: &[u8; 44]) -> Result<(), Refusal> {
    let field = |field: &str, same: bool| {
        let text = || format!("Member.{field} is not what the token says, or the joiner showed");
        if same { Ok(()) } else { Err(no(TOKEN_MISMATCH, text())) }
    };
    field("federation", member.federation == grant.federation)?;
    field("name", member.name == grant.name)?;
    field("roles", member.roles == grant.roles)?;
    field("delegation_depth", member.delegation_depth == grant.delegation_depth)?;
    field("issuer", member.issuer == grant.issuer)?;
    field("token_id", member.token_id == Some(grant.token_id))?;
    field("keys", member.keys.len() == 1 && member.keys[0].spki == *key)
}

fn joiner<T>(request: &Request<T>) -> Result<JoinerPeer, Status> {
    match request.extensions().get::<PeerInfo>() {
        Some(PeerInfo::Joiner(joiner)) => Ok(joiner.clone()),
        _ => Err(Status::permission_denied("only a joiner may ask this")),
    }
}

fn address(joiner: &JoinerPeer) -> Option<IpAddr> {
    Some(joiner.remote.ip())
}

fn alone() -> Status {
    refuse(tonic::Code::FailedPrecondition, FEDERATION_NONE, "the inviter is in no federation")
}

fn no(code: Code, text: impl Into<String>) -> Refusal {
    Refusal { code: Some(code), text: text.into() }
}

fn as_refusal(error: MembershipError) -> Refusal {
    Refusal { code: Some(error.code()), text: error.to_string() }
}

/// A joiner that reads nothing is not waited for.
async fn send(events: &Events, event: &RedeemEvent) -> Result<(), Refusal> {
    let sent = tokio::time::timeout(JOIN_ANSWER_TIMEOUT, events.send(Ok(event.encode()))).await;
    match sent {
        Ok(Ok(())) => Ok(()),
        _ => Err(no(JOIN_DENIED, "the joiner has gone")),
    }
}
