//! A federation node's operator API, as commands use it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use wire::operator::proto::operator_service_client::OperatorServiceClient;
use wire::operator::proto::{
    Clusters, Diagnostics, GetPeerRequest, GetStatusRequest, Links, ListClustersRequest,
    ListDiagnosticsRequest, ListLinksRequest, ListServicesRequest, Peer, Services, Status,
};

use crate::error::{CommandError, Exit};

const TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to one node.
#[derive(Debug, Clone)]
pub struct Operator {
    client: OperatorServiceClient<Channel>,
}

impl Operator {
    /// Connects to the node behind a Unix socket.
    pub async fn connect(socket: &Path) -> Result<Self, CommandError> {
        let path: PathBuf = socket.into();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The authority is never resolved: the connector knows the socket.
        let endpoint =
            Endpoint::from_static("http://node.invalid").timeout(TIMEOUT).connect_timeout(TIMEOUT);
        let connected = endpoint.connect_with_connector(connector).await;
        let channel = connected.map_err(|error| unreachable_node(socket, &error))?;
        let client = OperatorServiceClient::new(channel)
            .max_decoding_message_size(wire::operator::ANSWER_BYTES_MAX);
        Ok(Self { client })
    }

    pub async fn status(&self) -> Result<Status, CommandError> {
        let answer = self.client.clone().get_status(GetStatusRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(refused)
    }

    pub async fn clusters(&self) -> Result<Clusters, CommandError> {
        let answer = self.client.clone().list_clusters(ListClustersRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(refused)
    }

    pub async fn links(&self) -> Result<Links, CommandError> {
        let answer = self.client.clone().list_links(ListLinksRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(refused)
    }

    pub async fn services(&self) -> Result<Services, CommandError> {
        let answer = self.client.clone().list_services(ListServicesRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(refused)
    }

    pub async fn diagnostics(&self) -> Result<Diagnostics, CommandError> {
        let answer = self.client.clone().list_diagnostics(ListDiagnosticsRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(refused)
    }

    pub async fn peer(&self) -> Result<Peer, CommandError> {
        let answer = self.client.clone().get_peer(GetPeerRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(refused)
    }
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

fn refused(status: tonic::Status) -> CommandError {
    let exit = match status.code() {
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Unauthenticated => {
            Exit::Unreachable
        }
        _ => Exit::Failed,
    };
    CommandError::new(exit, format!("the node answered {:?}: {}", status.code(), status.message()))
}
