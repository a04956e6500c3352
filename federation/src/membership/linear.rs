//! Reads that miss nothing: before it answers, a node asks the leader up to where others have been
//! told, and waits until it has that much itself.

use std::collections::BTreeSet;

use model::code::{STORE_FAULT, STORE_NO_QUORUM};
use model::{ClusterId, Revision};
use tokio::time::Instant;
use tonic::Status;
use wire::store::proto::store_service_client::StoreServiceClient;
use wire::store::{ReadReply, ReadRequest};

use super::error::MembershipError;
use super::node::Node;
use crate::limits::{PROPOSE_PAUSE_MAX, PROPOSE_PAUSE_MIN, PROPOSE_TARGETS_MAX, PROPOSE_TIMEOUT};

impl Node {
    /// Waits until this node's store has everything that was acknowledged before the call. Only in
    /// the group does a node have a store to speak of.
    pub(crate) async fn catch_up(&self) -> Result<(), MembershipError> {
        self.fleet()?;
        if !self.in_group() {
            return Err(MembershipError::NotAllowed {
                code: STORE_FAULT,
                problem: "this node is a Replica, and does not see what the store's voters see"
                    .into(),
                fix: "ask a voter or standby; `fedctl store peers` names them",
            });
        }
        let deadline = Instant::now() + PROPOSE_TIMEOUT;
        let asked = tokio::time::timeout_at(deadline, self.last_acknowledged()).await;
        let not_now = |problem: &str| MembershipError::NotAllowed {
            code: STORE_NO_QUORUM,
            problem: problem.into(),
            fix: "`fedctl store status` shows who is missing; without `--linearizable` this node \
                  shows what it has",
        };
        let revision =
            asked.map_err(|_| not_now("no leader with a quorum said how far the store is"))?;
        let here = self.applied(revision).await;
        here.then_some(()).ok_or_else(|| not_now("this node is far behind the leader"))
    }

    /// Asks until a leader answers whom a quorum follows.
    async fn last_acknowledged(&self) -> Revision {
        let mut pause = PROPOSE_PAUSE_MIN;
        loop {
            if let Some(revision) = self.ask_everybody().await {
                return revision;
            }
            self.pause(pause).await;
            pause = (pause * 2).min(PROPOSE_PAUSE_MAX);
        }
    }

    /// Everybody once; who says who leads is believed once.
    async fn ask_everybody(&self) -> Option<Revision> {
        let mut asked = BTreeSet::new();
        let mut queue = self.proposal_targets();
        while let Some(target) = queue.pop_front() {
            if !asked.insert(target) || asked.len() > PROPOSE_TARGETS_MAX {
                continue;
            }
            match self.ask_how_far(target).await {
                Ok(ReadReply::Answer { revision, .. }) => {
                    self.remember_leader(Some(target));
                    return Some(revision);
                }
                Ok(ReadReply::NotLeader(hint)) => {
                    hint.into_iter().for_each(|hint| queue.push_front(hint));
                }
                Ok(ReadReply::Refused(_)) | Err(_) => {}
            }
        }
        None
    }

    async fn ask_how_far(&self, target: ClusterId) -> Result<ReadReply, Status> {
        let request = ReadRequest { linearizable: true, key: None };
        if target == self.own.id {
            return Ok(self.read(&target, &request).await);
        }
        let gone = || Status::unavailable("it is no peer any more");
        let mut client = StoreServiceClient::new(self.channel(&target).ok_or_else(gone)?);
        let asked = self.unless_led_anew(client.read(request.encode())).await;
        let reply = asked?.into_inner();
        ReadReply::decode(reply).map_err(|error| Status::internal(error.to_string()))
    }
}
