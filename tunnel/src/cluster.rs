//! TLS 1.3 over TCP between processes of one cluster that run in different pods.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use identity::{
    ClientCertificate, ClusterTrust, HandshakeRefusal, IdentityCell, OwnPeer, VerifiedPeer,
    VerifyError, cluster_client_config, cluster_server_config,
};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::handshake::{peer_chain, require_alpn};
use crate::limits::CLUSTER_HANDSHAKE_TIMEOUT;

/// A port of this cluster's.
#[derive(Debug, Clone)]
pub struct ClusterServer {
    /// Whose SVID is shown, as it is at each handshake.
    pub identity: Arc<IdentityCell>,
    pub trust: Arc<ClusterTrust>,
    pub client: ClientCertificate,
    pub alpn: &'static [u8],
}

/// Whom to connect to, and what to show.
#[derive(Debug, Clone)]
pub struct ClusterClient {
    /// `None` shows no certificate.
    pub identity: Option<Arc<IdentityCell>>,
    pub trust: Arc<ClusterTrust>,
    pub expected: OwnPeer,
    pub alpn: &'static [u8],
}

/// A connection after its handshake.
pub struct ClusterStream<S> {
    stream: TlsStream<S>,
    peer: Option<VerifiedPeer>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum ClusterStreamError {
    #[error("{0}")]
    Refused(#[from] VerifyError),
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] io::Error),
    #[error("the TLS handshake took longer than {CLUSTER_HANDSHAKE_TIMEOUT:?}")]
    Timeout,
}

impl ClusterServer {
    pub async fn accept<S>(&self, stream: S) -> Result<ClusterStream<S>, ClusterStreamError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (identity, trust) = (self.identity.clone(), self.trust.clone());
        let (config, refusal) =
            cluster_server_config(identity, trust, self.client.clone(), self.alpn);
        let handshake = TlsAcceptor::from(Arc::new(config)).accept(stream);
        let stream = timeout(CLUSTER_HANDSHAKE_TIMEOUT, handshake).await;
        let stream = stream.map_err(|_| ClusterStreamError::Timeout)?;
        let stream: TlsStream<S> = stream.map_err(|error| told(error, &refusal))?.into();
        match &self.client {
            ClientCertificate::Unasked => checked(stream, None),
            ClientCertificate::Optional(_) if peer_chain(&stream).is_empty() => {
                checked(stream, None)
            }
            ClientCertificate::Optional(expected) | ClientCertificate::Required(expected) => {
                let peer = self.trust.verify(&peer_chain(&stream), expected, SystemTime::now())?;
                checked(stream, Some(peer))
            }
        }
    }
}

impl ClusterClient {
    pub async fn connect<S>(&self, stream: S) -> Result<ClusterStream<S>, ClusterStreamError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (identity, trust) = (self.identity.clone(), self.trust.clone());
        let (config, refusal) =
            cluster_client_config(identity, trust, self.expected.clone(), self.alpn);
        // Neither sent nor looked at: a peer is known by its SPIFFE ID.
        let name = ServerName::try_from("cluster.invalid").expect("it is a DNS name");
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = timeout(CLUSTER_HANDSHAKE_TIMEOUT, handshake).await;
        let stream = stream.map_err(|_| ClusterStreamError::Timeout)?;
        let stream: TlsStream<S> = stream.map_err(|error| told(error, &refusal))?.into();
        let peer = self.trust.verify(&peer_chain(&stream), &self.expected, SystemTime::now())?;
        checked(stream, Some(peer))
    }
}

fn checked<S>(
    stream: TlsStream<S>,
    peer: Option<VerifiedPeer>,
) -> Result<ClusterStream<S>, ClusterStreamError> {
    require_alpn(&stream)?;
    Ok(ClusterStream { stream, peer })
}

/// TLS shows an alert only; the verifier knows what was wrong.
fn told(error: io::Error, refusal: &HandshakeRefusal) -> ClusterStreamError {
    match refusal.get() {
        Some(refused) => ClusterStreamError::Refused(refused.clone()),
        None => ClusterStreamError::Handshake(error),
    }
}

impl<S> ClusterStream<S> {
    /// Who is at the other end; `None` if it showed no certificate.
    pub fn peer(&self) -> Option<&VerifiedPeer> {
        self.peer.as_ref()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClusterStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClusterStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S> fmt::Debug for ClusterStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterStream").field("peer", &self.peer).finish_non_exhaustive()
    }
}
