//! The way of a proposal to the leader: this node's own store if it is in the group, else a member
//! that may lead. A retry has the same request id, so that it takes effect once however often it is
//! heard.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use model::code::{Code, NOT_A_MEMBER, STORE_NO_QUORUM};
use model::{ClusterId, Revision};
use tokio::time::Instant;
use tonic::Status;
use wire::store::limits::COMMAND_BYTES_MAX;
use wire::store::proto::ProposeRequest;
use wire::store::proto::store_service_client::StoreServiceClient;
use wire::store::{Change, Command, ProposeReply, Refusal};

use super::error::MembershipError;
use super::node::{Node, unix_ms};
use crate::limits::{
    PROPOSE_CALL_TIMEOUT, PROPOSE_PAUSE_MAX, PROPOSE_PAUSE_MIN, PROPOSE_TARGETS_MAX,
    PROPOSE_TIMEOUT,
};
use crate::refusal::CODE_HEADER;
use crate::store::ProposeError;

/// What asking everybody once came to.
enum Round {
    Decided(Result<Revision, Refusal>),
    /// Nobody who was asked leads; why, of the last one.
    Open(String),
    /// A member says that this cluster is none.
    Excluded,
}

impl Node {
    /// Makes a change, wherever the leader is. An error of [`MembershipError::Refused`] means that
    /// nothing changed; one of [`MembershipError::NoQuorum`], that it is not known.
    pub(crate) async fn propose(&self, change: Change) -> Result<Revision, MembershipError> {
        let command = Command {
            request_id: self.random(),
            proposed_at_unix_ms: unix_ms(SystemTime::now()),
            change,
        };
        self.propose_bytes(command.encode().into()).await
    }

    /// As [`Self::propose`], for a command that may have been sent before.
    pub(crate) async fn propose_bytes(&self, command: Bytes) -> Result<Revision, MembershipError> {
        if command.len() > COMMAND_BYTES_MAX {
            let code = model::code::QUOTA_EXCEEDED;
            let text = format!("the change has {} bytes; {COMMAND_BYTES_MAX} fit", command.len());
            return Err(MembershipError::Refused { code, text });
        }
        let deadline = Instant::now() + PROPOSE_TIMEOUT;
        let mut pause = PROPOSE_PAUSE_MIN;
        let mut detail = "no member could be asked in time".to_string();
        loop {
            match tokio::time::timeout_at(deadline, self.round(&command)).await {
                Ok(Round::Decided(Ok(revision))) => return Ok(revision),
                Ok(Round::Decided(Err(refusal))) => return Err(refused(refusal)),
                Ok(Round::Open(why)) => detail = why,
                Ok(Round::Excluded) => return Err(MembershipError::Excluded),
                Err(_) => return Err(MembershipError::NoQuorum { detail }),
            }
            if Instant::now() + pause >= deadline {
                return Err(MembershipError::NoQuorum { detail });
            }
            self.pause(pause).await;
            pause = (pause * 2).min(PROPOSE_PAUSE_MAX);
        }
    }

    /// Until it is worth asking again: when somebody else leads, at once.
    pub(crate) async fn pause(&self, pause: Duration) {
        let mut leadership = self.store().leadership();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Ok(()) = leadership.changed() => {}
        }
    }

    /// Asks until one decides; who says who leads is believed once.
    async fn round(&self, command: &Bytes) -> Round {
        let mut asked = BTreeSet::new();
        let mut why = "no other member is known".to_string();
        let mut queue = self.proposal_targets();
        let (mut excluded, mut heard) = (false, false);
        while let Some(target) = queue.pop_front() {
            if !asked.insert(target) || asked.len() > PROPOSE_TARGETS_MAX {
                continue;
            }
            match self.ask(target, command).await {
                Ok(ProposeReply::Accepted(revision)) => {
                    self.remember_leader(Some(target));
                    return Round::Decided(Ok(revision));
                }
                Ok(ProposeReply::Refused(refusal)) => return Round::Decided(Err(refusal)),
                Ok(ProposeReply::NotLeader(hint)) => {
                    heard |= target != self.own.id;
                    why = format!("{} does not lead", self.name_of(&target));
                    hint.into_iter().for_each(|hint| queue.push_front(hint));
                }
                Ok(ProposeReply::Unknown(refusal)) => why = refusal.text,
                Err(status) if is_exclusion(&status) => excluded = true,
                Err(status) => why = format!("{}: {}", self.name_of(&target), status.message()),
            }
        }
        self.remember_leader(None);
        // One that is behind may not know a member that has just joined.
        if excluded && !heard { Round::Excluded } else { Round::Open(why) }
    }

    /// This node if it is in the group, the last leader, the voters, then members by seniority.
    pub(crate) fn proposal_targets(&self) -> VecDeque<ClusterId> {
        let status = self.store().status();
        let mut targets = VecDeque::new();
        if status.voters.contains(&self.own.node) || status.standbys.contains(&self.own.node) {
            targets.push_back(self.own.id);
        }
        targets.extend(self.last_leader());
        targets.extend(status.voters.iter().filter_map(|node| self.cluster_of(*node)));
        targets.extend(self.feed.standpoint().voters);
        targets.extend(self.elders());
        targets.retain(|target| *target != self.own.id || status.voters.contains(&self.own.node));
        targets
    }

    async fn ask(&self, target: ClusterId, command: &Bytes) -> Result<ProposeReply, Status> {
        if target == self.own.id {
            return Ok(self.propose_here(command).await);
        }
        let gone = || Status::unavailable("it is no peer any more");
        let channel = self.channel(&target).ok_or_else(gone)?;
        let mut client = StoreServiceClient::new(channel);
        let request = ProposeRequest { command: command.clone() };
        let reply = self.unless_led_anew(client.propose(request)).await?;
        let malformed = |error: wire::WireError| Status::internal(error.to_string());
        ProposeReply::decode(reply.into_inner()).map_err(malformed)
    }

    /// A leader that has died answers nobody, so nobody waits for its answer once there is another.
    pub(crate) async fn unless_led_anew<T>(
        &self,
        asking: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let mut leadership = self.store().leadership();
        leadership.mark_unchanged();
        tokio::select! {
            asked = tokio::time::timeout(PROPOSE_CALL_TIMEOUT, asking) => {
                asked.map_err(|_| no_answer(PROPOSE_CALL_TIMEOUT))?
            }
            Ok(()) = leadership.changed() => Err(Status::unavailable("another one leads now")),
        }
    }

    /// Proposes to this node's own store, and nowhere else.
    pub(crate) async fn propose_here(&self, command: &Bytes) -> ProposeReply {
        let unknown =
            |text: String| ProposeReply::Unknown(Refusal { code: Some(STORE_NO_QUORUM), text });
        match self.store().propose(command.to_vec()).await {
            Ok(proposed) => match super::machine::decode_reply(&proposed.reply) {
                Ok(reply) => reply,
                Err(problem) => unknown(problem),
            },
            Err(ProposeError::NotLeader { leader }) => {
                ProposeReply::NotLeader(leader.and_then(|node| self.cluster_of(node)))
            }
            Err(error @ ProposeError::TooLarge { .. }) => ProposeReply::Refused(Refusal {
                code: Some(model::code::QUOTA_EXCEEDED),
                text: error.to_string(),
            }),
            Err(error) => unknown(error.to_string()),
        }
    }
}

fn no_answer(timeout: Duration) -> Status {
    Status::deadline_exceeded(format!("no answer within {} s", timeout.as_secs()))
}

/// A member refuses whom its state does not have.
fn is_exclusion(status: &Status) -> bool {
    let code = status.metadata().get(CODE_HEADER).and_then(|code| code.to_str().ok());
    code.and_then(Code::parse) == Some(NOT_A_MEMBER)
}

fn refused(refusal: Refusal) -> MembershipError {
    let code: Code = refusal.code.unwrap_or(model::code::COMMAND_INVALID);
    MembershipError::Refused { code, text: refusal.text }
}
