//! The port where a node in another pod asks for streams: TLS, and nobody but a federation node of
//! the own cluster.

use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;

use anyhow::Context;
use identity::{ClientCertificate, OwnPeer};
use model::code::{ADDRESS_IN_USE, PEER_IDENTITY_REFUSED};
use model::spiffe::Part;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tunnel::{ClusterServer, ClusterStreamError};
use wire::relay::ALPN;

use super::from_node;
use crate::config::GatewayConfig;
use crate::federation::own_trust;
use crate::limits::{ACCEPT_ERROR_PAUSE, RELAY_HANDSHAKES_MAX};
use crate::state::{GatewayState, Places};

/// Binds `listen.relay`, if there is one. Also what the node is told.
pub(super) fn bind(config: &GatewayConfig) -> anyhow::Result<Option<(StdTcpListener, SocketAddr)>> {
    let Some(address) = config.relay_listen else { return Ok(None) };
    let context = || format!("{ADDRESS_IN_USE}: failed to bind listen.relay = {address}");
    let listener = StdTcpListener::bind(address).with_context(context)?;
    listener.set_nonblocking(true).with_context(context)?;
    let mut told = listener.local_addr().with_context(context)?;
    if let Some(own) = config.pod_ip.filter(|_| told.ip().is_unspecified()) {
        told.set_ip(own);
    }
    Ok(Some((listener, told)))
}

/// Takes connections until the gateway stops.
pub(super) async fn serve(state: Arc<GatewayState>, listener: StdTcpListener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the relay port cannot be used"),
    };
    let handshakes = Places::new(RELAY_HANDSHAKES_MAX);
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let Some(place) = handshakes.take() else { continue };
                let state = state.clone();
                tokio::spawn(async move {
                    let node = shake(&state, stream, remote).await;
                    drop(place);
                    // The node sees a connection that ends, and tries another way.
                    if let (Some(node), Some(_place)) = (node, state.relayed.take()) {
                        from_node(&state, node).await;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting at the relay port failed");
                sleep(ACCEPT_ERROR_PAUSE).await;
            }
        }
    }
}

async fn shake(
    state: &GatewayState,
    stream: TcpStream,
    remote: SocketAddr,
) -> Option<tunnel::ClusterStream<TcpStream>> {
    let trust = own_trust(state)
        .inspect_err(|error| tracing::debug!(%error, "nobody can be judged at the relay port"))
        .ok()?;
    let _ = stream.set_nodelay(true); // then it is a little slower
    let server = ClusterServer {
        identity: state.identity.clone(),
        trust,
        client: ClientCertificate::Required(OwnPeer::Any(Part::Federation)),
        alpn: ALPN,
    };
    match server.accept(stream).await {
        Ok(stream) => Some(stream),
        Err(ClusterStreamError::Refused(error)) => {
            tracing::warn!(
                code = %PEER_IDENTITY_REFUSED, %remote, %error, "a caller at the relay port is refused"
            );
            None
        }
        Err(error) => {
            tracing::debug!(%remote, %error, "no handshake at the relay port");
            None
        }
    }
}
