//! What carries a tunnel's streams. Whoever opens, reads and writes them sees these types only, so that
//! it does not matter to an exchange what its link runs over. Errors are quinn's: they say all that
//! there is to be said of a stream's or a connection's end.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, pending};
use model::Transport;
use quinn::crypto::rustls::HandshakeData;
use quinn::{ConnectionError, ConnectionStats, ReadError, StoppedError, VarInt, WriteError};
use rustls_pki_types::CertificateDer;

use crate::congestion::Steady;
use crate::limits::PATH_MTU_BYTES_MAX;
use crate::status::PathMtu;
use crate::tcp::{TcpConnection, TcpRecv, TcpSend};

/// A connection whose handshake is done. All clones are the same one.
#[derive(Debug, Clone)]
pub(crate) enum Connection {
    Quic(quinn::Connection),
    /// Where UDP does not pass.
    Tcp(Arc<TcpConnection>),
}

/// A connection's signs of life.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vitals {
    pub(crate) rtt: Duration,
    pub(crate) rtt_var: Duration,
    /// Grows with everything that was received and is authentic.
    pub(crate) heard: u64,
}

/// What a connection has sent and received since its beginning.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) sent_packets: u64,
    pub(crate) lost_packets: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

impl Connection {
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::Quic(_) => Transport::Quic,
            Self::Tcp(_) => Transport::Tcp,
        }
    }

    pub(crate) async fn open_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        match self {
            Self::Quic(connection) => connection.open_bi().await.map(quic_streams),
            Self::Tcp(connection) => connection.open().await.map(tcp_streams),
        }
    }

    pub(crate) async fn accept_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        match self {
            Self::Quic(connection) => connection.accept_bi().await.map(quic_streams),
            Self::Tcp(connection) => connection.accept().await.map(tcp_streams),
        }
    }

    /// Never on TCP: there is one connection, so nothing moves.
    pub(crate) async fn open_uni(&self) -> Result<SendStream, ConnectionError> {
        match self {
            Self::Quic(connection) => connection.open_uni().await.map(SendStream::Quic),
            Self::Tcp(_) => pending().await,
        }
    }

    /// Never on TCP.
    pub(crate) async fn accept_uni(&self) -> Result<RecvStream, ConnectionError> {
        match self {
            Self::Quic(connection) => connection.accept_uni().await.map(RecvStream::Quic),
            Self::Tcp(_) => pending().await,
        }
    }

    pub(crate) fn close(&self, code: VarInt, reason: &[u8]) {
        match self {
            Self::Quic(connection) => connection.close(code, reason),
            Self::Tcp(connection) => connection.close(code, reason),
        }
    }

    pub(crate) async fn closed(&self) -> ConnectionError {
        match self {
            Self::Quic(connection) => connection.closed().await,
            Self::Tcp(connection) => connection.closed().await,
        }
    }

    pub(crate) fn close_reason(&self) -> Option<ConnectionError> {
        match self {
            Self::Quic(connection) => connection.close_reason(),
            Self::Tcp(connection) => connection.close_reason(),
        }
    }

    pub(crate) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(connection) => connection.remote_address(),
            Self::Tcp(connection) => connection.remote_address(),
        }
    }

    pub(crate) fn rtt(&self) -> Duration {
        match self {
            Self::Quic(connection) => connection.rtt(),
            Self::Tcp(connection) => connection.rtt().0,
        }
    }

    pub(crate) fn vitals(&self) -> Vitals {
        match self {
            Self::Quic(connection) => {
                let stats = connection.stats();
                let rtt_var = Steady::rtt_var(connection.congestion_state());
                Vitals { rtt: stats.path.rtt, rtt_var, heard: frames_heard(&stats) }
            }
            Self::Tcp(connection) => {
                let (rtt, rtt_var) = connection.rtt();
                let (_, heard) = connection.bytes();
                Vitals { rtt, rtt_var, heard }
            }
        }
    }

    pub(crate) fn traffic(&self) -> Traffic {
        match self {
            Self::Quic(connection) => {
                let stats = connection.stats();
                Traffic {
                    sent_packets: stats.path.sent_packets,
                    lost_packets: stats.path.lost_packets,
                    bytes_sent: stats.udp_tx.bytes,
                    bytes_received: stats.udp_rx.bytes,
                }
            }
            Self::Tcp(connection) => {
                let (bytes_sent, bytes_received) = connection.bytes();
                Traffic { bytes_sent, bytes_received, ..Traffic::default() }
            }
        }
    }

    /// `None` over TCP: the kernel knows it, and says nothing.
    pub(crate) fn path_mtu(&self) -> Option<PathMtu> {
        match self {
            Self::Quic(connection) => {
                let path = connection.stats().path;
                Some(PathMtu {
                    current_bytes: path.current_mtu,
                    max_bytes: PATH_MTU_BYTES_MAX,
                    probes_sent: path.sent_plpmtud_probes,
                    probes_lost: path.lost_plpmtud_probes,
                    black_holes: path.black_holes_detected,
                })
            }
            Self::Tcp(_) => None,
        }
    }

    /// The peer's certificates, leaf first.
    pub(crate) fn peer_chain(&self) -> Vec<CertificateDer<'static>> {
        match self {
            Self::Quic(connection) => peer_chain(connection),
            Self::Tcp(connection) => connection.peer_chain().to_vec(),
        }
    }

    pub(crate) fn peer_alpn(&self) -> Vec<u8> {
        match self {
            Self::Quic(connection) => peer_alpn(connection),
            Self::Tcp(connection) => connection.peer_alpn().to_vec(),
        }
    }
}

fn quic_streams((send, recv): (quinn::SendStream, quinn::RecvStream)) -> (SendStream, RecvStream) {
    (SendStream::Quic(send), RecvStream::Quic(recv))
}

fn tcp_streams((send, recv): (TcpSend, TcpRecv)) -> (SendStream, RecvStream) {
    (SendStream::Tcp(send), RecvStream::Tcp(recv))
}

pub(crate) fn peer_chain(connection: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    let identity = connection.peer_identity();
    let chain = identity.and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    chain.map_or_else(Vec::new, |chain| *chain)
}

pub(crate) fn peer_alpn(connection: &quinn::Connection) -> Vec<u8> {
    let data = connection.handshake_data();
    let data = data.and_then(|data| data.downcast::<HandshakeData>().ok());
    data.and_then(|data| data.protocol).unwrap_or_default()
}

/// The sending direction of a stream.
#[derive(Debug)]
pub(crate) enum SendStream {
    Quic(quinn::SendStream),
    Tcp(TcpSend),
}

impl SendStream {
    /// Some of the bytes, as many as there is room for.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<usize, WriteError> {
        match self {
            Self::Quic(stream) => stream.write(bytes).await,
            Self::Tcp(stream) => stream.write(bytes).await,
        }
    }

    /// All of one piece.
    pub(crate) async fn write_chunk(&mut self, chunk: Bytes) -> Result<(), WriteError> {
        match self {
            Self::Quic(stream) => stream.write_chunk(chunk).await,
            Self::Tcp(stream) => stream.write_chunks(&mut [chunk]).await,
        }
    }

    /// A frame's header and its payload.
    pub(crate) async fn write_all_chunks(
        &mut self,
        chunks: &mut [Bytes],
    ) -> Result<(), WriteError> {
        match self {
            Self::Quic(stream) => stream.write_all_chunks(chunks).await,
            Self::Tcp(stream) => stream.write_chunks(chunks).await,
        }
    }

    pub(crate) fn set_priority(&self, priority: i32) {
        match self {
            Self::Quic(stream) => {
                let _ = stream.set_priority(priority); // a stream that is over has none
            }
            Self::Tcp(_) => {} // HTTP/2 sends in turn
        }
    }

    /// Nothing follows. A stream that the peer has stopped meanwhile is as ended as it can be.
    pub(crate) fn finish(&mut self) {
        match self {
            Self::Quic(stream) => {
                let _ = stream.finish();
            }
            Self::Tcp(stream) => stream.finish(),
        }
    }

    /// Gives the direction up, unless it is over.
    pub(crate) fn reset(&mut self, code: VarInt) {
        match self {
            Self::Quic(stream) => {
                let _ = stream.reset(code);
            }
            Self::Tcp(stream) => stream.reset(code),
        }
    }

    /// Resolves when the peer wants no more of it; with `None` when it has all of it.
    pub(crate) fn stopped(
        &self,
    ) -> impl Future<Output = Result<Option<VarInt>, StoppedError>> + Send + 'static {
        match self {
            Self::Quic(stream) => Either::Left(stream.stopped()),
            Self::Tcp(stream) => Either::Right(stream.stopped()),
        }
    }
}

/// The receiving direction of a stream.
#[derive(Debug)]
pub(crate) enum RecvStream {
    Quic(quinn::RecvStream),
    Tcp(TcpRecv),
}

impl RecvStream {
    /// The next piece, on QUIC of at most so many bytes; `None` at the stream's end.
    pub(crate) async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        match self {
            Self::Quic(stream) => {
                let chunk = stream.read_chunk(max, true).await?;
                Ok(chunk.map(|chunk| chunk.bytes))
            }
            Self::Tcp(stream) => stream.read_chunk().await,
        }
    }

    /// As many pieces as there are and fit; how many; `None` at the stream's end.
    pub(crate) fn poll_chunks(
        &mut self,
        context: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<Option<usize>, ReadError>> {
        match self {
            Self::Quic(stream) => pin!(stream.read_chunks(chunks)).poll(context),
            Self::Tcp(stream) => stream.poll_chunks(context, chunks),
        }
    }

    /// Tells the peer that nothing more is read.
    pub(crate) fn stop(&mut self, code: VarInt) {
        match self {
            Self::Quic(stream) => {
                let _ = stream.stop(code);
            }
            Self::Tcp(stream) => stream.stop(code),
        }
    }
}

/// Frames of packets that were decrypted: the one count that a stranger cannot make grow.
fn frames_heard(stats: &ConnectionStats) -> u64 {
    let frames = &stats.frame_rx;
    [
        frames.acks,
        frames.ack_frequency,
        frames.crypto,
        frames.connection_close,
        frames.data_blocked,
        frames.datagram,
        u64::from(frames.handshake_done),
        frames.immediate_ack,
        frames.max_data,
        frames.max_stream_data,
        frames.max_streams_bidi,
        frames.max_streams_uni,
        frames.new_connection_id,
        frames.new_token,
        frames.path_challenge,
        frames.path_response,
        frames.ping,
        frames.reset_stream,
        frames.retire_connection_id,
        frames.stream_data_blocked,
        frames.streams_blocked_bidi,
        frames.streams_blocked_uni,
        frames.stop_sending,
        frames.stream,
    ]
    .iter()
    .sum()
}
