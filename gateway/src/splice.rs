//! Joining two byte streams, with half-close in both directions and bounded buffers: whoever is
//! slow makes the other side wait.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tunnel::{Part, RecvHalf, SendHalf, StreamError};
use wire::tunnel::{Dispatched, ErrorCode};

use crate::access_log::Role;
use crate::error::{Kind, ProxyError};
use crate::limits::{SPLICE_BUFFER_BYTES_MAX, SPLICE_BUFFER_BYTES_MIN};

/// Bytes so far, from the side that opened the connection and to it.
#[derive(Debug, Default)]
pub struct Counts {
    forward: AtomicU64,
    backward: AtomicU64,
}

impl Counts {
    pub fn forward(&self) -> u64 {
        self.forward.load(Ordering::Relaxed)
    }

    pub fn backward(&self) -> u64 {
        self.backward.load(Ordering::Relaxed)
    }
}

/// Which side broke off.
#[derive(Debug, thiserror::Error)]
pub enum SpliceError {
    #[error("the client broke the connection off: {0}")]
    Downstream(String),
    #[error("the application broke the connection off: {0}")]
    Upstream(String),
    #[error("{0}")]
    Tunnel(StreamError),
    #[error("the peer sent HTTP frames on a stream of raw bytes")]
    NotRaw,
}

impl SpliceError {
    /// `role`: which end of the tunnel stream this gateway is.
    pub fn to_proxy_error(&self, role: Role) -> ProxyError {
        let kind = match self {
            Self::Downstream(_) => Kind::ClientGone,
            Self::Upstream(_) => Kind::UpstreamReset,
            Self::Tunnel(error) => ProxyError::of_stream(error, role).kind,
            Self::NotRaw => Kind::PeerProtocol,
        };
        let detail = self.to_string();
        ProxyError { kind, dispatched: Dispatched::Yes, detail: detail.into() }
    }
}

/// A client and an endpoint of this cluster.
pub async fn streams(
    client: impl AsyncRead + AsyncWrite,
    endpoint: impl AsyncRead + AsyncWrite,
    counts: &Counts,
) -> Result<(), SpliceError> {
    let (client_read, client_write) = tokio::io::split(client);
    let (endpoint_read, endpoint_write) = tokio::io::split(endpoint);
    halves((client_read, client_write), (endpoint_read, endpoint_write), counts).await
}

/// The same over halves that exist already.
pub async fn halves(
    client: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    endpoint: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    counts: &Counts,
) -> Result<(), SpliceError> {
    let (downstream, upstream) = (SpliceError::Downstream, SpliceError::Upstream);
    let forward = copy(client.0, downstream, endpoint.1, upstream, &counts.forward);
    let backward = copy(endpoint.0, upstream, client.1, downstream, &counts.backward);
    tokio::try_join!(forward, backward).map(|_| ())
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    read_failed: fn(String) -> SpliceError,
    mut to: impl AsyncWrite + Unpin,
    write_failed: fn(String) -> SpliceError,
    count: &AtomicU64,
) -> Result<(), SpliceError> {
    let mut buffer = Buffer::default();
    loop {
        let data = buffer.read(&mut from).await.map_err(|error| read_failed(error.to_string()))?;
        if data.is_empty() {
            break;
        }
        to.write_all(&data).await.map_err(|error| write_failed(error.to_string()))?;
        count.fetch_add(data.len() as u64, Ordering::Relaxed);
    }
    // The other side may be gone already, having said all it had to say.
    let _ = to.shutdown().await;
    Ok(())
}

/// A client of this gateway and a tunnel stream to a peer.
pub async fn from_client(
    read: impl AsyncRead + Unpin,
    write: impl AsyncWrite + Unpin,
    mut send: SendHalf,
    mut recv: RecvHalf,
    counts: &Counts,
) -> Result<(), SpliceError> {
    let failed = SpliceError::Downstream;
    let forward = into_tunnel(read, failed, &mut send, &counts.forward);
    let backward = out_of_tunnel(&mut recv, write, failed, &counts.backward);
    let outcome = tokio::try_join!(forward, backward).map(|_| ());
    tell_peer(&outcome, send, recv, ErrorCode::Cancelled);
    outcome
}

/// A tunnel stream from a peer and an endpoint of this cluster; `code` tells the peer that the
/// endpoint broke off.
pub async fn to_endpoint(
    read: impl AsyncRead + Unpin,
    write: impl AsyncWrite + Unpin,
    mut send: SendHalf,
    mut recv: RecvHalf,
    counts: &Counts,
    code: ErrorCode,
) -> Result<(), SpliceError> {
    let failed = SpliceError::Upstream;
    let forward = out_of_tunnel(&mut recv, write, failed, &counts.forward);
    let backward = into_tunnel(read, failed, &mut send, &counts.backward);
    let outcome = tokio::try_join!(forward, backward).map(|_| ());
    tell_peer(&outcome, send, recv, code);
    outcome
}

/// Gives both directions up with the same code: the peer may hear of either one first.
fn tell_peer(outcome: &Result<(), SpliceError>, send: SendHalf, recv: RecvHalf, code: ErrorCode) {
    if matches!(outcome, Err(SpliceError::Downstream(_) | SpliceError::Upstream(_))) {
        send.reset(code, Dispatched::Yes);
        recv.stop(code, Dispatched::Yes);
    }
}

async fn into_tunnel(
    mut from: impl AsyncRead + Unpin,
    read_failed: fn(String) -> SpliceError,
    send: &mut SendHalf,
    count: &AtomicU64,
) -> Result<(), SpliceError> {
    let mut buffer = Buffer::default();
    let stopped = send.stopped();
    tokio::pin!(stopped);
    loop {
        let data = tokio::select! {
            data = buffer.read(&mut from) => data,
            // Without this a side that only writes would never hear that nobody reads.
            error = &mut stopped => return Err(SpliceError::Tunnel(error)),
        };
        let data = data.map_err(|error| read_failed(error.to_string()))?;
        if data.is_empty() {
            break;
        }
        let bytes = data.len() as u64;
        send.data(data.freeze()).await.map_err(SpliceError::Tunnel)?;
        count.fetch_add(bytes, Ordering::Relaxed);
    }
    send.end().await.map_err(SpliceError::Tunnel)
}

async fn out_of_tunnel(
    recv: &mut RecvHalf,
    mut to: impl AsyncWrite + Unpin,
    write_failed: fn(String) -> SpliceError,
    count: &AtomicU64,
) -> Result<(), SpliceError> {
    loop {
        match recv.next().await.map_err(SpliceError::Tunnel)? {
            Part::Data(data) => {
                to.write_all(&data).await.map_err(|error| write_failed(error.to_string()))?;
                count.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            Part::End => break,
            Part::Head(_) | Part::Trailers(_) => return Err(SpliceError::NotRaw),
        }
    }
    let _ = to.shutdown().await; // as in `copy`
    Ok(())
}

/// Reads in pieces that grow while the reader is behind: many idle connections cost little, few
/// busy ones get long pieces.
struct Buffer {
    bytes: BytesMut,
    piece_bytes: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self { bytes: BytesMut::new(), piece_bytes: SPLICE_BUFFER_BYTES_MIN }
    }
}

impl Buffer {
    /// Empty at the end of the stream. Cancel-safe: what was read stays in the buffer.
    async fn read(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<BytesMut> {
        self.bytes.reserve(self.piece_bytes);
        let mut limited = (&mut *from).take(self.piece_bytes as u64);
        let count = limited.read_buf(&mut self.bytes).await?;
        if count == self.piece_bytes {
            self.piece_bytes = (self.piece_bytes * 2).min(SPLICE_BUFFER_BYTES_MAX);
        }
        Ok(self.bytes.split())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (mut client, near) = duplex(64);
        let (far, mut endpoint) = duplex(64);
        let counts = std::sync::Arc::new(Counts::default());
        let splice = tokio::spawn({
            let counts = counts.clone();
            async move { streams(near, far, &counts).await }
        });
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        endpoint.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question", "the endpoint sees the end while it may still answer");
        endpoint.write_all(b"a longer answer").await.unwrap();
        drop(endpoint);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "a longer answer");
        splice.await.unwrap().unwrap();
        assert_eq!((counts.forward(), counts.backward()), (8, 15));
    }

    #[tokio::test]
    async fn pieces_grow_with_the_stream() {
        let (mut writer, mut reader) = duplex(1 << 20);
        writer.write_all(&vec![7; 300_000]).await.unwrap();
        drop(writer);
        let (mut buffer, mut sizes) = (Buffer::default(), Vec::new());
        loop {
            let data = buffer.read(&mut reader).await.unwrap();
            if data.is_empty() {
                break;
            }
            sizes.push(data.len());
        }
        assert_eq!(sizes[0], SPLICE_BUFFER_BYTES_MIN);
        assert_eq!(sizes.iter().sum::<usize>(), 300_000);
        assert!(sizes.contains(&SPLICE_BUFFER_BYTES_MAX), "{sizes:?}");
    }
}
