//! A stream between two federation nodes, with whoever is at its other end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use model::{ClusterId, ClusterName, SpiffeId};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tunnel::Inner;
use wire::relay::{HEADER_BYTES, body_length};

/// Who is at the other end. A service finds it in its request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerInfo {
    Federation(FederationPeer),
    Joiner(JoinerPeer),
}

/// A member's federation node, by its SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FederationPeer {
    pub cluster: ClusterName,
    pub id: ClusterId,
    pub spiffe_id: SpiffeId,
}

/// Somebody who wants to join, of whom a key is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinerPeer {
    /// Of the key that the handshake proved: SubjectPublicKeyInfo, DER.
    pub public_key_der: Vec<u8>,
    /// What only the two ends of this handshake can compute.
    pub exporter: [u8; 32],
    /// As the gateway saw it.
    pub remote: SocketAddr,
}

/// Bytes either way, whatever carries them.
pub(super) trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

pub(super) type BoxedCarrier = Box<dyn Carrier>;

/// An open stream. It breaks when its peer is cut off.
pub struct PeerStream {
    inner: Inner<BoxedCarrier>,
    info: PeerInfo,
    cut_off: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl PeerStream {
    pub(super) fn new(
        inner: Inner<BoxedCarrier>,
        info: PeerInfo,
        cut_off: CancellationToken,
    ) -> Self {
        Self { inner, info, cut_off: Box::pin(cut_off.cancelled_owned()) }
    }

    pub fn peer(&self) -> &PeerInfo {
        &self.info
    }

    fn poll_cut_off(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut_off.as_mut().poll(context) {
            Poll::Ready(()) => {
                let text = "the peer is not spoken with any more";
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, text))
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl Connected for PeerStream {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cut_off(context)?;
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut_off(context)?;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl fmt::Debug for PeerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerStream").field("info", &self.info).finish_non_exhaustive()
    }
}

/// One message that stands before a stream's bytes; nothing behind it is read.
pub(super) async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let length = body_length(header).map_err(io::Error::other)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(body)
}
