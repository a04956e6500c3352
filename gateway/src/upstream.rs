//! Connections to applications' endpoints: one pool per worker, HTTP/1.1 connections one request at
//! a time, one shared HTTP/2 connection per endpoint.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use model::AppProtocol;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::body::UpstreamBody;
use crate::limits::{
    CONNECT_TIMEOUT, H2_CONNECTION_WINDOW_BYTES, H2_FRAME_BYTES_MAX, H2_PING_INTERVAL,
    H2_PING_TIMEOUT, H2_SEND_BUFFER_BYTES_MAX, H2_STREAM_WINDOW_BYTES, HEAD_BYTES_MAX,
    RESPONSE_HEADERS_MAX, UPSTREAM_ENDPOINTS_MAX, UPSTREAM_IDLE_CONNECTIONS_MAX,
    UPSTREAM_IDLE_TIMEOUT,
};

type Http1 = http1::SendRequest<UpstreamBody>;
type Http2 = http2::SendRequest<UpstreamBody>;

/// Why no connection to an endpoint stands. Nothing was dispatched.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("failed to connect to {address}: {source}")]
    Io { address: SocketAddr, source: std::io::Error },
    #[error("failed to connect to {address}: no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout { address: SocketAddr },
    #[error("{address} does not speak HTTP: {source}")]
    Handshake { address: SocketAddr, source: hyper::Error },
}

/// Why a request got no response.
#[derive(Debug)]
pub struct SendError {
    /// The request, if no byte of it left: then it may be sent again whatever it is.
    pub unsent: Option<Request<UpstreamBody>>,
    pub source: hyper::Error,
}

/// A worker's connections.
#[derive(Debug, Default)]
pub struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
    shared: Mutex<HashMap<SocketAddr, Arc<tokio::sync::Mutex<Option<Http2>>>>>,
}

#[derive(Debug)]
struct Idle {
    sender: Http1,
    since: Instant,
}

impl Idle {
    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && self.since.elapsed() <= UPSTREAM_IDLE_TIMEOUT
    }
}

/// A connection that takes a request now.
#[derive(Debug)]
pub enum Connection {
    Http1 { sender: Http1, address: SocketAddr },
    Http2(Http2),
}

/// Puts an HTTP/1.1 connection back once its response was read to the end; dropped before, the
/// connection closes.
#[derive(Debug)]
pub struct Returning {
    sender: Http1,
    address: SocketAddr,
}

impl Pool {
    /// A connection to `address` that speaks `protocol` (an HTTP one).
    pub async fn checkout(
        &self,
        address: SocketAddr,
        protocol: AppProtocol,
    ) -> Result<Connection, ConnectError> {
        if protocol == AppProtocol::H2c {
            return self.shared(address).await.map(Connection::Http2);
        }
        if let Some(sender) = self.take_idle(address) {
            return Ok(Connection::Http1 { sender, address });
        }
        let sender = connect_http1(address).await?;
        Ok(Connection::Http1 { sender, address })
    }

    /// The newest connection that takes a request at this moment. One that is still busy with the
    /// rest of a request body stays; one that its server closed goes.
    fn take_idle(&self, address: SocketAddr) -> Option<Http1> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(&address)?;
        connections.retain(Idle::is_usable);
        let place = connections.iter().rposition(|one| one.sender.is_ready())?;
        Some(connections.remove(place).sender)
    }

    pub fn put_back(&self, returning: Returning) {
        if returning.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !idle.contains_key(&returning.address) && idle.len() >= UPSTREAM_ENDPOINTS_MAX {
            idle.retain(|_, connections| !connections.is_empty());
            if idle.len() >= UPSTREAM_ENDPOINTS_MAX {
                return;
            }
        }
        let connections = idle.entry(returning.address).or_default();
        if connections.len() < UPSTREAM_IDLE_CONNECTIONS_MAX {
            connections.push(Idle { sender: returning.sender, since: Instant::now() });
        }
    }

    /// Closes what was idle for too long; called now and then by the worker.
    pub fn sweep(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, connections| {
            connections.retain(Idle::is_usable);
            !connections.is_empty()
        });
        drop(idle);
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|_, slot| {
            // A slot that is locked or held elsewhere is in use.
            let closed = |slot: &tokio::sync::Mutex<Option<Http2>>| {
                slot.try_lock().is_ok_and(|slot| slot.as_ref().is_none_or(Http2::is_closed))
            };
            Arc::strong_count(slot) > 1 || !closed(slot)
        });
    }

    /// Who comes while the connection is being made waits for it instead of making another.
    async fn shared(&self, address: SocketAddr) -> Result<Http2, ConnectError> {
        let slot = {
            let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.entry(address).or_default().clone()
        };
        let mut slot = slot.lock().await;
        if let Some(sender) = slot.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let sender = connect_http2(address).await?;
        *slot = Some(sender.clone());
        Ok(sender)
    }
}

impl Connection {
    /// Sends a request, and gives what must be kept until the response was read.
    pub async fn send(
        self,
        request: Request<UpstreamBody>,
    ) -> Result<(Response<Incoming>, Option<Returning>), SendError> {
        let failed = |mut error: TrySendError<Request<UpstreamBody>>| {
            let unsent = error.take_message();
            SendError { unsent, source: error.into_error() }
        };
        match self {
            Self::Http1 { mut sender, address } => {
                let response = sender.try_send_request(request).await.map_err(failed)?;
                Ok((response, Some(Returning { sender, address })))
            }
            Self::Http2(mut sender) => {
                let response = sender.try_send_request(request).await.map_err(failed)?;
                Ok((response, None))
            }
        }
    }

    pub fn is_http1(&self) -> bool {
        matches!(self, Self::Http1 { .. })
    }

    /// Puts target and version as this connection's protocol wants them: HTTP/1.1 has the path and
    /// a Host field, HTTP/2 has everything in pseudo-fields.
    pub fn address_request<B>(
        &self,
        request: &mut Request<B>,
        authority: &Authority,
        path: &PathAndQuery,
    ) {
        match self {
            Self::Http1 { .. } => {
                *request.uri_mut() = Uri::from(path.clone());
                *request.version_mut() = Version::HTTP_11;
                let host = http::HeaderValue::from_maybe_shared(Bytes::copy_from_slice(
                    authority.as_str().as_bytes(),
                ));
                let host = host.expect("an authority has no bytes that a field value cannot have");
                request.headers_mut().insert(http::header::HOST, host);
            }
            Self::Http2(_) => {
                let mut parts = http::uri::Parts::default();
                parts.scheme = Some(Scheme::HTTP);
                parts.authority = Some(authority.clone());
                parts.path_and_query = Some(path.clone());
                *request.uri_mut() =
                    Uri::from_parts(parts).expect("scheme, authority and path make a URI");
                *request.version_mut() = Version::HTTP_2;
                request.headers_mut().remove(http::header::HOST);
            }
        }
    }
}

/// A TCP connection to an endpoint, without Nagle's delay.
pub async fn connect_tcp(address: SocketAddr) -> Result<TcpStream, ConnectError> {
    match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            stream.set_nodelay(true).map_err(|source| ConnectError::Io { address, source })?;
            Ok(stream)
        }
        Ok(Err(source)) => Err(ConnectError::Io { address, source }),
        Err(_) => Err(ConnectError::Timeout { address }),
    }
}

async fn connect_http1(address: SocketAddr) -> Result<Http1, ConnectError> {
    let stream = connect_tcp(address).await?;
    let (sender, connection) = http1::Builder::new()
        .max_headers(RESPONSE_HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| ConnectError::Handshake { address, source })?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%address, %error, "a connection to an endpoint ended");
        }
    });
    Ok(sender)
}

async fn connect_http2(address: SocketAddr) -> Result<Http2, ConnectError> {
    let stream = connect_tcp(address).await?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(H2_FRAME_BYTES_MAX)
        .max_send_buf_size(H2_SEND_BUFFER_BYTES_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| ConnectError::Handshake { address, source })?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%address, %error, "a connection to an endpoint ended");
        }
    });
    Ok(sender)
}
