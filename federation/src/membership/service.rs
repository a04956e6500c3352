//! What other members' nodes ask of this one: Raft's calls, proposals, reads, the watch, Heads.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::ClusterId;
use model::code::{NOT_A_MEMBER, STORE_FAULT, STORE_NO_QUORUM};
use tonic::{Request, Response, Status};
use wire::store::proto::raft_service_server::RaftService;
use wire::store::proto::store_service_server::StoreService;
use wire::store::proto::{
    HeadsReply, HeadsRequest, ProposeReply as ProposeReplyMessage, ProposeRequest, RaftReply,
    RaftRequest, ReadReply as ReadReplyMessage, ReadRequest as ReadRequestMessage,
    RevocationsReply, RevocationsRequest, WatchRequest,
};
use wire::store::{
    Change, Command, Heads, Leave, ProposeReply, RaftCall, ReadReply, ReadRequest, RecordEntry,
    Refusal, WireError,
};

use super::current::Current;
use super::node::{Node, node_id};
use crate::fleet::View;
use crate::refusal::refuse;
use crate::replica::WatchStream;
use crate::store::{ProposeError, Role};
use crate::transport::{FederationPeer, PeerInfo};

/// The services behind `fedgate-store/1`.
#[derive(Debug, Clone)]
pub(crate) struct StoreServer(pub(crate) Current);

#[tonic::async_trait]
impl RaftService for StoreServer {
    async fn call(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        let (node, caller) = self.member(&request)?;
        let (call, body) = RaftCall::decode(request.into_inner()).map_err(malformed)?;
        if !node.may_be_in_group(&caller) && !node.may_ask(call) {
            let text = format!("{} is not in the store's group", node.name_of(&caller));
            return Err(refuse(tonic::Code::PermissionDenied, NOT_A_MEMBER, text));
        }
        let body = node.store().handle(node_id(&caller), body).await;
        Ok(Response::new(RaftReply { body }))
    }
}

#[tonic::async_trait]
impl StoreService for StoreServer {
    type WatchStream = WatchStream;

    async fn propose(
        &self,
        request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeReplyMessage>, Status> {
        let (node, caller) = self.member(&request)?;
        let command = request.into_inner().command;
        // What it says is for the log to judge; a Leave needs the group's care beforehand.
        let decoded = Command::decode(&command).map_err(malformed)?;
        if let Change::Leave(signed) = &decoded.change {
            let leave = Leave::decode(&signed.payload).map_err(malformed)?;
            if let Err(refusal) = node.prepare_leave(&caller, leave.cluster).await {
                return Ok(Response::new(ProposeReply::Unknown(refusal).encode()));
            }
        }
        Ok(Response::new(node.propose_here(&command).await.encode()))
    }

    async fn read(
        &self,
        request: Request<ReadRequestMessage>,
    ) -> Result<Response<ReadReplyMessage>, Status> {
        let (node, caller) = self.member(&request)?;
        let request = ReadRequest::decode(request.into_inner()).map_err(malformed)?;
        Ok(Response::new(node.read(&caller, &request).await.encode()))
    }

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (node, caller) = self.member(&request)?;
        node.watch.watch(caller, request.into_inner()).map(Response::new)
    }

    async fn heads(&self, request: Request<HeadsRequest>) -> Result<Response<HeadsReply>, Status> {
        let (node, caller) = self.member(&request)?;
        let (mut reply, told) = node.watch.heads(caller, request.into_inner())?;
        node.take_revocations(&told);
        reply.revocations = node.revocations().iter().map(wire::store::Signed::to_proto).collect();
        Ok(Response::new(reply))
    }

    async fn revocations(
        &self,
        request: Request<RevocationsRequest>,
    ) -> Result<Response<RevocationsReply>, Status> {
        let (node, _) = self.member(&request)?;
        let sent =
            HeadsRequest { heads: Vec::new(), revocations: request.into_inner().revocations };
        let told = Heads::decode_request(sent).map_err(malformed)?;
        node.take_revocations(&told.revocations);
        Ok(Response::new(RevocationsReply {}))
    }
}

impl StoreServer {
    /// The node and the member that calls; the transport has proved who that is.
    fn member<T>(&self, request: &Request<T>) -> Result<(Arc<Node>, ClusterId), Status> {
        let node = self.0.node();
        let Some(PeerInfo::Federation(FederationPeer { id, .. })) =
            request.extensions().get::<PeerInfo>()
        else {
            return Err(Status::permission_denied("only a member's federation node may ask this"));
        };
        if node.state().is_none_or(|(_, fleet)| fleet.member(id).is_none()) {
            let text = format!("cluster {id} is no active member of this federation");
            return Err(refuse(tonic::Code::PermissionDenied, NOT_A_MEMBER, text));
        }
        Ok((node, *id))
    }
}

impl Node {
    /// Whether Raft calls of this member are listened to: it is in the group as this node knows it,
    /// or as those say who feed this node. A node that knows of no group yet listens to nobody: the
    /// leader calls again, and it takes a moment only until a watch has said who votes.
    fn may_be_in_group(&self, caller: &ClusterId) -> bool {
        let status = self.store().status();
        let group = status.voters.iter().chain(&status.standbys);
        is_in_group(caller, group, &self.feed.standpoint().voters)
    }

    /// Who lost its log asks the leader whether it was let go. A leader that is in its place gives
    /// nobody a vote, so that nothing else can come of such a call.
    fn may_ask(&self, call: RaftCall) -> bool {
        call == RaftCall::Vote && self.store().status().role == Role::Leader
    }

    /// Before a Leave is proposed on the leader: who leaves gives its vote up first.
    pub(crate) async fn prepare_leave(
        &self,
        caller: &ClusterId,
        leaving: ClusterId,
    ) -> Result<(), Refusal> {
        let is_admin = || {
            let fleet = self.state().map(|(_, fleet)| fleet);
            let roles = fleet.as_ref().and_then(|fleet| fleet.member(caller)).map(|m| m.roles);
            roles.is_some_and(|roles| roles.contains(model::Role::Admin))
        };
        if *caller != leaving && !is_admin() {
            // The log refuses it.
            return Ok(());
        }
        let excluded = self.exclude(leaving).await;
        excluded.map_err(|error| Refusal { code: Some(error.code()), text: error.to_string() })
    }

    pub(crate) async fn read(&self, caller: &ClusterId, request: &ReadRequest) -> ReadReply {
        if self.has_lost_its_log() {
            let text = "this node's log was lost; it waits to be let go, and taken in again".into();
            return ReadReply::Refused(Refusal { code: Some(STORE_FAULT), text });
        }
        // What it has is of a store that ended; who leads the next one must not wait for it.
        if self.store().status().fenced_by.is_some() {
            let text = "the store was recovered without this node; it is fenced off".into();
            return ReadReply::Refused(Refusal { code: Some(STORE_FAULT), text });
        }
        if request.linearizable {
            match self.store().linearizable().await {
                // The feed follows the store; what it does not have yet must not be read as new.
                Ok(revision) if !self.applied(revision_of_log(self, revision)).await => {
                    let text = "this node has not taken in its own log yet; ask again".into();
                    return ReadReply::Refused(Refusal { code: Some(STORE_NO_QUORUM), text });
                }
                Ok(_) => {}
                Err(ProposeError::NotLeader { leader }) => {
                    return ReadReply::NotLeader(leader.and_then(|node| self.cluster_of(node)));
                }
                Err(error) => {
                    let code = Some(STORE_NO_QUORUM);
                    return ReadReply::Refused(Refusal { code, text: error.to_string() });
                }
            }
        }
        let Some((revision, fleet)) = self.state() else { return ReadReply::NotLeader(None) };
        let record = request.key.as_ref().and_then(|key| {
            let view = View::of(&fleet, &crate::fleet::serving(&fleet), caller);
            let record = view.fleet().record(key)?.clone();
            Some(RecordEntry {
                key: key.clone(),
                record: record.bytes().clone(),
                since: record.since(),
            })
        });
        ReadReply::Answer { revision, record }
    }
}

/// The first call that a blank node listens to decides of which store it is.
fn is_in_group<'a>(
    caller: &ClusterId,
    mut group: impl Iterator<Item = &'a u64>,
    told: &BTreeSet<ClusterId>,
) -> bool {
    let number = node_id(caller);
    told.contains(caller) || group.any(|node| *node == number)
}

/// The log has entries that are no commands; the state counts accepted commands only.
fn revision_of_log(node: &Node, log: model::Revision) -> model::Revision {
    node.store().state().0.revision().min(log)
}

fn malformed(error: WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_are_listened_to_who_are_known_to_be_in_the_group() {
        let [leader, other] = [1, 2].map(|byte| ClusterId::from_bytes([byte; 16]));
        let (nobody, told) = (BTreeSet::new(), BTreeSet::from([leader]));
        let group = [node_id(&leader)];
        for caller in [&leader, &other] {
            assert!(!is_in_group(caller, [].iter(), &nobody), "a blank node was told nothing yet");
            assert_eq!(is_in_group(caller, [].iter(), &told), *caller == leader);
            assert_eq!(is_in_group(caller, group.iter(), &nobody), *caller == leader);
        }
    }
}
