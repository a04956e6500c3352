//! The federation node's Unix socket, as a client.

use std::path::{Path, PathBuf};

use anyhow::Context;
use hyper_util::rt::TokioIo;
use model::code::FEDERATION_UNREACHABLE;
use tokio::net::UnixStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::config::FederationLink;

/// A gRPC channel to the node.
pub(crate) async fn connect(node: &FederationLink) -> anyhow::Result<Channel> {
    match node {
        FederationLink::Sockets { resource, .. } => connect_socket(resource).await,
        FederationLink::Tcp(link) => anyhow::bail!("{} is not dialled by TCP yet", link.address),
    }
}

async fn connect_socket(socket: &Path) -> anyhow::Result<Channel> {
    let path: PathBuf = socket.into();
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The URI is never resolved; gRPC wants an authority, and the socket has none.
    Endpoint::from_static("http://federation.invalid")
        .connect_with_connector(connector)
        .await
        .map_err(|error| anyhow::anyhow!("{}", root_cause(&error)))
        .with_context(|| {
            format!("{FEDERATION_UNREACHABLE}: failed to connect to {}", socket.display())
        })
}

/// What a node said, without gRPC's wording around it.
pub(crate) fn explain(status: Status) -> anyhow::Error {
    anyhow::anyhow!("the federation node answered: {} ({:?})", status.message(), status.code())
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
