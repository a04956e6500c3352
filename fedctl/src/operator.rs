//! A federation node's operator API, as commands use it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use model::code::Code;
use tokio::net::UnixStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status, Streaming};
use wire::operator::proto;
use wire::operator::proto::federation_service_client::FederationServiceClient;
use wire::operator::proto::operator_service_client::OperatorServiceClient;
use wire::resource::PingRequest;

use crate::error::{CommandError, Exit};
use crate::kubernetes::{Door, Token};

/// A question whose answer lies ready.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A change that other clusters' nodes agree to, or that reads or writes a file.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to one node.
#[derive(Debug, Clone)]
pub struct Operator {
    client: OperatorServiceClient<InterceptedService<Channel, Bearer>>,
    federation: FederationServiceClient<InterceptedService<Channel, Bearer>>,
    /// Where the node's files are, if that is not this machine.
    elsewhere: Option<String>,
}

/// Who calls: on a Unix socket the kernel says so, elsewhere a token does.
#[derive(Debug, Clone)]
struct Bearer(Option<AsciiMetadataValue>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Operator {
    /// Connects to the node behind a Unix socket.
    pub async fn connect(socket: &Path) -> Result<Self, CommandError> {
        let path: PathBuf = socket.into();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = endpoint().connect_timeout(TIMEOUT);
        let connected = endpoint.connect_with_connector(connector).await;
        let channel = connected.map_err(|error| unreachable_node(socket, &error))?;
        Ok(Self::over(channel, Bearer(None), None))
    }

    /// Connects to a node in a Kubernetes cluster. The first connection is made here, so that what is
    /// wrong with it can be told; when it ends, the next call makes another one.
    pub async fn through(door: Door, token: &Token) -> Result<Self, CommandError> {
        let authorization = token.authorization().ok_or_else(|| {
            CommandError::failed("the API server's token has characters that no token has")
        })?;
        let elsewhere = door.shown();
        let first = Arc::new(Mutex::new(Some(door.open().await?)));
        let connector = tower::service_fn(move |_: Uri| {
            let (door, first) = (door.clone(), first.clone());
            async move {
                let opened = first.lock().unwrap_or_else(PoisonError::into_inner).take();
                match opened {
                    Some(stream) => Ok(TokioIo::new(stream)),
                    None => door.open().await.map(TokioIo::new),
                }
            }
        });
        let connected = endpoint().connect_with_connector(connector).await;
        let channel = connected.map_err(|error| {
            let message = format!("{elsewhere} does not answer: {}", innermost(&error));
            CommandError::new(Exit::Unreachable, message).code(model::code::FEDERATION_UNREACHABLE)
        })?;
        Ok(Self::over(channel, Bearer(Some(authorization)), Some(elsewhere)))
    }

    fn over(channel: Channel, bearer: Bearer, elsewhere: Option<String>) -> Self {
        let client = OperatorServiceClient::with_interceptor(channel.clone(), bearer.clone())
            .max_decoding_message_size(wire::operator::ANSWER_BYTES_MAX);
        let federation = FederationServiceClient::with_interceptor(channel, bearer)
            .max_decoding_message_size(wire::operator::ANSWER_BYTES_MAX);
        Self { client, federation, elsewhere }
    }

    /// Whose files the node reads and writes, if they are not this machine's.
    pub fn elsewhere(&self) -> Option<&str> {
        self.elsewhere.as_deref()
    }

    /// Joins; the steps come as they are made, each within `wait` of the call.
    pub async fn join(
        &self,
        token: String,
        wait: Duration,
    ) -> Result<Streaming<proto::JoinEvent>, CommandError> {
        let request = within(proto::TokenText { text: token }, wait);
        let answer = self.federation.clone().join(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| refused(&status))
    }

    /// Pings, which takes as long as the probes do, and a gateway may be late.
    pub async fn ping_cluster(
        &self,
        request: proto::PingClusterRequest,
    ) -> Result<proto::Pings, CommandError> {
        let request_time = PingRequest::longest(request.probes) + TIMEOUT;
        let answer = self.client.clone().ping_cluster(within(request, request_time)).await;
        answer.map(tonic::Response::into_inner).map_err(|status| match status.code() {
            tonic::Code::Unimplemented => {
                let message =
                    "the federation node does not support ping: it is older than this fedctl";
                CommandError::failed(message).code(model::code::VERSIONS_DIFFER).hint("upgrade it")
            }
            _ => refused(&status),
        })
    }

    /// Leaves, which takes at least as long as draining does.
    pub async fn leave(&self, request: proto::LeaveRequest) -> Result<proto::Left, CommandError> {
        let drain = Duration::from_millis(request.drain_ms.unwrap_or_default());
        let request = within(request, CHANGE_TIMEOUT.saturating_add(drain));
        let answer = self.federation.clone().leave(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| refused(&status))
    }
}

/// One method for each procedure: its name, client, timeout, request and answer.
macro_rules! procedures {
    ($($name:ident $client:ident.$procedure:ident $timeout:ident ($request:ident) -> $answer:ident;)*) => {
        impl Operator {
            $(pub async fn $name(
                &self,
                request: proto::$request,
            ) -> Result<proto::$answer, CommandError> {
                let answer = self.$client.clone().$procedure(within(request, $timeout)).await;
                answer.map(tonic::Response::into_inner).map_err(|status| refused(&status))
            })*
        }
    };
}

procedures! {
    get_status client.get_status TIMEOUT (GetStatusRequest) -> Status;
    list_clusters client.list_clusters TIMEOUT (ListClustersRequest) -> Clusters;
    list_links client.list_links TIMEOUT (ListLinksRequest) -> Links;
    list_services client.list_services TIMEOUT (ListServicesRequest) -> Services;
    list_diagnostics client.list_diagnostics TIMEOUT (ListDiagnosticsRequest) -> Diagnostics;
    get_peer client.get_peer TIMEOUT (GetPeerRequest) -> Peer;
    list_certificates client.list_certificates TIMEOUT (ListCertificatesRequest) -> Certificates;
    list_trust client.list_trust TIMEOUT (ListTrustRequest) -> Trust;
    list_objects client.list_objects TIMEOUT (ListObjectsRequest) -> Objects;
    compare_objects client.compare_objects TIMEOUT (ApplyObjectsRequest) -> ObjectChanges;
    apply_objects client.apply_objects CHANGE_TIMEOUT (ApplyObjectsRequest) -> ObjectChanges;
    delete_objects client.delete_objects CHANGE_TIMEOUT (DeleteObjectsRequest) -> ObjectChanges;
    set_cordon client.set_cordon CHANGE_TIMEOUT (SetCordonRequest) -> CordonSet;
    list_audit client.list_audit CHANGE_TIMEOUT (ListAuditRequest) -> AuditEntries;
    verify_audit client.verify_audit CHANGE_TIMEOUT (VerifyAuditRequest) -> AuditVerdict;
    found federation.found CHANGE_TIMEOUT (FoundRequest) -> Founded;
    list_members federation.list_members TIMEOUT (ListMembersRequest) -> Members;
    list_exports federation.list_exports TIMEOUT (ListExportsRequest) -> Exports;
    issue_token federation.issue_token CHANGE_TIMEOUT (IssueTokenRequest) -> IssuedToken;
    list_tokens federation.list_tokens TIMEOUT (ListTokensRequest) -> Tokens;
    revoke_token federation.revoke_token CHANGE_TIMEOUT (RevokeTokenRequest) -> Changed;
    try_token federation.try_token CHANGE_TIMEOUT (TokenText) -> TokenVerdict;
    list_pending_joins federation.list_pending_joins TIMEOUT (ListPendingJoinsRequest) -> PendingJoins;
    decide_join federation.decide_join CHANGE_TIMEOUT (DecideJoinRequest) -> Decided;
    remove_member federation.remove_member CHANGE_TIMEOUT (RemoveMemberRequest) -> Changed;
    revoke federation.revoke CHANGE_TIMEOUT (RevokeRequest) -> Revoked;
    revoke_svid federation.revoke_svid CHANGE_TIMEOUT (RevokeSvidRequest) -> RevokedSvidStatus;
    rotate_trust federation.rotate_trust CHANGE_TIMEOUT (RotateTrustRequest) -> Roots;
    renew_svids federation.rotate_certificates CHANGE_TIMEOUT (RotateCertificatesRequest) -> RotatedCertificates;
    get_store federation.get_store TIMEOUT (GetStoreRequest) -> Store;
    verify_store federation.verify_store CHANGE_TIMEOUT (VerifyStoreRequest) -> StoreVerdict;
    transfer_leadership federation.transfer_leadership CHANGE_TIMEOUT (TransferLeadershipRequest) -> Transferred;
    set_standbys federation.set_standbys CHANGE_TIMEOUT (SetStandbysRequest) -> Changed;
    save_snapshot federation.save_snapshot CHANGE_TIMEOUT (SnapshotPath) -> Snapshot;
    check_snapshot federation.check_snapshot CHANGE_TIMEOUT (SnapshotPath) -> Snapshot;
    restore_snapshot federation.restore_snapshot CHANGE_TIMEOUT (SnapshotPath) -> Changed;
    recover_store federation.recover_store CHANGE_TIMEOUT (RecoverStoreRequest) -> Changed;
}

/// The questions that need no words.
impl Operator {
    pub async fn status(&self) -> Result<proto::Status, CommandError> {
        self.get_status(proto::GetStatusRequest {}).await
    }

    pub async fn clusters(&self) -> Result<proto::Clusters, CommandError> {
        self.list_clusters(proto::ListClustersRequest {}).await
    }

    pub async fn links(&self) -> Result<proto::Links, CommandError> {
        self.list_links(proto::ListLinksRequest {}).await
    }

    pub async fn services(&self) -> Result<proto::Services, CommandError> {
        self.list_services(proto::ListServicesRequest {}).await
    }

    pub async fn diagnostics(&self) -> Result<proto::Diagnostics, CommandError> {
        self.list_diagnostics(proto::ListDiagnosticsRequest {}).await
    }

    /// How the node is in its federation; also one that is in none.
    pub async fn store(&self) -> Result<proto::Store, CommandError> {
        match self.get_store(proto::GetStoreRequest {}).await {
            Err(error) if error.code == Some(model::code::FEDERATION_NONE) => {
                Ok(proto::Store { mode: "alone".into(), ..proto::Store::default() })
            }
            answer => answer,
        }
    }

    pub async fn peer(&self) -> Result<proto::Peer, CommandError> {
        self.get_peer(proto::GetPeerRequest {}).await
    }
}

fn endpoint() -> Endpoint {
    // The authority is never resolved: the connector knows the way.
    Endpoint::from_static("http://node.invalid")
}

fn within<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

fn unreachable_node(socket: &Path, error: &tonic::transport::Error) -> CommandError {
    let cause = innermost(error);
    let message = format!("no federation node answers on unix:{}: {cause}", socket.display());
    CommandError::new(Exit::Unreachable, message)
        .code(model::code::FEDERATION_UNREACHABLE)
        .hint("is fedgate-federation running, and is this its operator socket?")
}

fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

/// What a refusal says: the node's own words, with their code and, behind the last semicolon, the fix.
pub(crate) fn refused(status: &Status) -> CommandError {
    let exit = match status.code() {
        // tonic gives a call that took too long this code.
        tonic::Code::Cancelled | tonic::Code::DeadlineExceeded => Exit::TimedOut,
        tonic::Code::Unavailable | tonic::Code::Unauthenticated => Exit::Unreachable,
        tonic::Code::InvalidArgument => Exit::Usage,
        _ => Exit::Failed,
    };
    let message = status.message();
    let code = message.split(": ").next().filter(|first| first.starts_with("FED"));
    let Some(code) = code.and_then(Code::parse) else {
        return CommandError::new(
            exit,
            format!("the node answered {:?}: {message}", status.code()),
        );
    };
    let text = message.split_once(": ").map_or(message, |(_, text)| text);
    match fix_of(text) {
        Some((text, fix)) => CommandError::new(exit, text).code(code).hint(fix),
        None => CommandError::new(exit, text).code(code),
    }
}

/// The fix stands behind the last semicolon; behind a list, it is the last line.
fn fix_of(text: &str) -> Option<(&str, &str)> {
    let Some((rest, last)) = text.rsplit_once('\n') else { return text.rsplit_once("; ") };
    let of_list = [" ", "error ", "warning ", "and "];
    (!of_list.iter().any(|start| last.starts_with(start))).then_some((rest, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_nodes_words() {
        for (status, exit, wanted) in [
            (
                Status::failed_precondition("FED1005: no; do this"),
                Exit::Failed,
                "error: no (FED1005)\nhint: do this",
            ),
            (
                Status::invalid_argument("FED4012: nothing was applied\nerror a; b"),
                Exit::Usage,
                "error: nothing was applied (FED4012)\nerror a; b\nhint: Mend what the messages \
                 name; `fedctl diff -f FILE` tries without changing anything.",
            ),
            (
                Status::failed_precondition("FED6305: nobody:\n  a: no; b\ndo this"),
                Exit::Failed,
                "error: nobody: (FED6305)\n  a: no; b\nhint: do this",
            ),
            (
                Status::internal("a: b; c"),
                Exit::Failed,
                "error: the node answered Internal: a: b; c",
            ),
            (
                Status::unavailable("gone"),
                Exit::Unreachable,
                "error: the node answered Unavailable: gone",
            ),
            (
                Status::deadline_exceeded("late"),
                Exit::TimedOut,
                "error: the node answered DeadlineExceeded: late",
            ),
        ] {
            let error = refused(&status);
            assert_eq!((error.exit, error.to_string().as_str()), (exit, wanted));
        }
    }
}
