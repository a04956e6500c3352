//! The store's way to the other nodes: Raft's calls as gRPC over the transport.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use wire::store::proto::raft_service_client::RaftServiceClient;
use wire::store::proto::{RaftCall, RaftRequest};

use super::Transport;
use crate::store::{CallError, Peers, RpcKind};

/// Raft's calls to peers, by the ids of their nodes.
#[derive(Debug, Clone)]
pub struct RaftPeers(Transport);

impl RaftPeers {
    pub fn new(transport: Transport) -> Self {
        Self(transport)
    }

    /// A snapshot has a stream of its own, so that heartbeats do not queue behind it.
    fn channel(&self, target: u64, kind: RpcKind) -> Result<Channel, CallError> {
        let unknown = || CallError::Unreachable(format!("no member has the node id {target:016x}"));
        let cluster = self.0.cluster_of_node(target).ok_or_else(unknown)?;
        let channel = match kind {
            RpcKind::Append | RpcKind::Vote => self.0.channel(&cluster),
            RpcKind::Snapshot => self.0.bulk_channel(&cluster),
        };
        channel.map_err(|error| CallError::Unreachable(error.to_string()))
    }
}

impl Peers for RaftPeers {
    fn call(
        &self,
        target: u64,
        kind: RpcKind,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let channel = self.channel(target, kind);
        async move {
            let mut client = RaftServiceClient::new(channel?);
            let call = match kind {
                RpcKind::Append => RaftCall::Append,
                RpcKind::Vote => RaftCall::Vote,
                RpcKind::Snapshot => RaftCall::Snapshot,
            };
            let mut request = Request::new(RaftRequest { call: call.into(), body });
            request.set_timeout(timeout);
            match tokio::time::timeout(timeout, client.call(request)).await {
                Ok(Ok(reply)) => Ok(reply.into_inner().body),
                Ok(Err(status)) => Err(call_error(&status, timeout)),
                Err(_) => Err(CallError::Timeout(timeout)),
            }
        }
        .boxed()
    }
}

fn call_error(status: &Status, timeout: Duration) -> CallError {
    match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => CallError::Timeout(timeout),
        Code::Unavailable | Code::Unknown => CallError::Unreachable(explain(status)),
        _ => CallError::Refused(status.message().into()),
    }
}

/// The innermost cause: what tonic says around it is the same each time.
fn explain(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
