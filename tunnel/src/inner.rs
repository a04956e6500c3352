//! TLS 1.3 between two federation nodes, inside of a stream that gateways relay: what a gateway
//! passes on it can neither read nor speak.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use identity::{
    ExpectedPeer, IdentityCell, Inviter, JoinCertificate, KnownPeer, VerifyError,
    federation_client_config, federation_server_config, join_client_config, join_server_config,
    self_signed_key,
};
use model::ClusterName;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use wire::tunnel::{ALPN_JOIN, ALPN_STORE};

use crate::handshake::{peer_chain, require_alpn};
use crate::limits::INNER_HANDSHAKE_TIMEOUT;

/// RFC 5705 and RFC 9266: both ends of this handshake, and nobody else, can compute it.
const JOIN_EXPORTER_LABEL: &[u8] = b"EXPORTER-fedgate-join-v1";

/// A stream with TLS on it, after the handshake.
pub struct Inner<S> {
    stream: TlsStream<S>,
}

/// Why the handshake inside of a stream failed.
#[derive(Debug, thiserror::Error)]
pub enum InnerError {
    #[error("{0}")]
    Refused(#[from] VerifyError),
    #[error("the inner handshake failed: {0}")]
    Handshake(#[from] io::Error),
    #[error("the inner handshake took longer than {INNER_HANDSHAKE_TIMEOUT:?}")]
    Timeout,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inner<S> {
    /// To the federation node of `cluster`, whoever relays the stream.
    pub async fn open_store(
        stream: S,
        identity: &Arc<IdentityCell>,
        cluster: &ClusterName,
    ) -> Result<(Self, KnownPeer), InnerError> {
        let expected = ExpectedPeer::Cluster(cluster.clone());
        let config = federation_client_config(identity.clone(), cluster.clone(), ALPN_STORE);
        let inner = Self::connect(stream, config).await.map_err(|error| {
            let refusal = identity.last_refusal(&expected);
            told(error, refusal.map(|refusal| refusal.error))
        })?;
        let peer = identity.load().verify_peer(
            &peer_chain(&inner.stream),
            &expected,
            SystemTime::now(),
        )?;
        Ok((inner, peer))
    }

    /// From the federation node of any cluster that we know.
    pub async fn accept_store(
        stream: S,
        identity: &Arc<IdentityCell>,
    ) -> Result<(Self, KnownPeer), InnerError> {
        let config = federation_server_config(identity.clone(), ALPN_STORE);
        let inner = Self::accept(stream, config).await?;
        let expected = ExpectedPeer::AnyKnown;
        let peer = identity.load().verify_peer(
            &peer_chain(&inner.stream),
            &expected,
            SystemTime::now(),
        )?;
        Ok((inner, peer))
    }

    /// To the inviter that a token names.
    pub async fn open_join(
        stream: S,
        certificate: &JoinCertificate,
        inviter: &Inviter,
    ) -> Result<Self, InnerError> {
        let refusals = Arc::new(IdentityCell::default());
        let inviter = Some(inviter.clone());
        let config = join_client_config(certificate, inviter, refusals.clone(), ALPN_JOIN);
        Self::connect(stream, config).await.map_err(|error| {
            let refusal = refusals.last_refusal(&ExpectedPeer::AnyKnown);
            told(error, refusal.map(|refusal| refusal.error))
        })
    }

    /// From a joiner; also the key that it showed, as its SubjectPublicKeyInfo in DER.
    pub async fn accept_join(
        stream: S,
        identity: &Arc<IdentityCell>,
        ca: &CertificateDer<'static>,
    ) -> Result<(Self, Vec<u8>), InnerError> {
        let config = join_server_config(identity.clone(), ca.clone(), ALPN_JOIN);
        let inner = Self::accept(stream, config).await?;
        let key = self_signed_key(&peer_chain(&inner.stream))?;
        Ok((inner, key))
    }

    async fn connect(stream: S, config: rustls::ClientConfig) -> Result<Self, InnerError> {
        // Neither sent nor looked at: a peer is known by its SPIFFE ID.
        let name = ServerName::try_from("store.invalid").expect("it is a DNS name");
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = timeout(INNER_HANDSHAKE_TIMEOUT, handshake).await;
        let stream = stream.map_err(|_| InnerError::Timeout)??;
        Self::checked(stream.into())
    }

    async fn accept(stream: S, config: rustls::ServerConfig) -> Result<Self, InnerError> {
        let handshake = TlsAcceptor::from(Arc::new(config)).accept(stream);
        let stream = timeout(INNER_HANDSHAKE_TIMEOUT, handshake).await;
        let stream = stream.map_err(|_| InnerError::Timeout)??;
        Self::checked(stream.into())
    }

    fn checked(stream: TlsStream<S>) -> Result<Self, InnerError> {
        require_alpn(&stream)?;
        Ok(Self { stream })
    }

    /// What both ends can compute from this handshake; a joiner signs it.
    pub fn exporter(&self) -> io::Result<[u8; 32]> {
        let output = [0; 32];
        let exported = match &self.stream {
            TlsStream::Client(stream) => {
                stream.get_ref().1.export_keying_material(output, JOIN_EXPORTER_LABEL, None)
            }
            TlsStream::Server(stream) => {
                stream.get_ref().1.export_keying_material(output, JOIN_EXPORTER_LABEL, None)
            }
        };
        exported.map_err(io::Error::other)
    }
}

/// TLS shows an alert only; the verifier knows what was wrong.
fn told(error: InnerError, refusal: Option<VerifyError>) -> InnerError {
    match (&error, refusal) {
        (InnerError::Handshake(cause), Some(refusal))
            if cause.kind() == io::ErrorKind::InvalidData =>
        {
            InnerError::Refused(refusal)
        }
        _ => error,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Inner<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Inner<S> {
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

impl<S> fmt::Debug for Inner<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}
