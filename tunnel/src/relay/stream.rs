//! One stream of a store or join connection: bytes both ways. QUIC carries them as they are. Over TCP they
//! lie in DATA frames, so that END, RESET and STOP can stand between them (docs/reference/tunnel.md §9).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use wire::tunnel::{ErrorCode, Frame, FrameDecoder, encode_data};

use crate::carrier::{Connection, RecvStream, SendStream};
use crate::limits::RELAY_WRITE_BYTES_MAX;
use crate::link::close_code;
use crate::tcp::{TcpRecv, TcpSend};

/// One stream of a store or join connection.
#[derive(Debug)]
pub struct RelayStream {
    send: SendStream,
    recv: RecvStream,
    /// Of what comes over TCP.
    unpacked: Unpacked,
    _place: Option<OwnedSemaphorePermit>,
    /// It lives as long as one of its streams does.
    _connection: Connection,
}

impl RelayStream {
    pub(super) fn new(
        connection: &Connection,
        (send, recv): (SendStream, RecvStream),
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let (unpacked, connection) = (Unpacked::default(), connection.clone());
        Self { send, recv, unpacked, _place: place, _connection: connection }
    }

    /// Ends both directions with a code.
    pub fn abort(mut self, code: ErrorCode) {
        self.send.reset(close_code(code));
        self.recv.stop(close_code(code));
    }

    /// What QUIC does by itself with the sending direction of a stream that is dropped.
    fn end(&mut self) {
        if let SendStream::Tcp(stream) = &mut self.send {
            stream.end();
        }
    }
}

impl Drop for RelayStream {
    fn drop(&mut self) {
        self.end();
    }
}

impl AsyncRead for RelayStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { recv, unpacked, .. } = &mut *self;
        match recv {
            RecvStream::Quic(stream) => AsyncRead::poll_read(Pin::new(stream), context, buffer),
            RecvStream::Tcp(stream) => unpacked.poll_read(stream, context, buffer),
        }
    }
}

impl AsyncWrite for RelayStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.send {
            SendStream::Quic(stream) => AsyncWrite::poll_write(Pin::new(stream), context, bytes),
            SendStream::Tcp(stream) => poll_write_data(stream, context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.send {
            SendStream::Quic(stream) => AsyncWrite::poll_flush(Pin::new(stream), context),
            SendStream::Tcp(_) => Poll::Ready(Ok(())), // the connection's task sends what it has
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let SendStream::Quic(stream) = &mut self.send {
            return AsyncWrite::poll_shutdown(Pin::new(stream), context);
        }
        self.end();
        Poll::Ready(Ok(()))
    }
}

/// One DATA frame of as many bytes as may be written at once.
fn poll_write_data(
    stream: &mut TcpSend,
    context: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    let taken = bytes.len().min(RELAY_WRITE_BYTES_MAX);
    let mut payload = Bytes::copy_from_slice(&bytes[..taken]);
    let mut header = BytesMut::new();
    let Some(data) = encode_data(&mut payload, &mut header) else { return Poll::Ready(Ok(0)) };
    ready!(stream.poll_write_chunks(context, &mut [header.freeze(), data]))?;
    Poll::Ready(Ok(taken))
}

/// The bytes of DATA frames, until END.
#[derive(Debug, Default)]
struct Unpacked {
    decoder: FrameDecoder,
    rest: Bytes,
    is_over: bool,
}

impl Unpacked {
    fn poll_read(
        &mut self,
        stream: &mut TcpRecv,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() && !self.is_over {
            let malformed = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
            match self.decoder.next().map_err(|error| malformed(error.to_string()))? {
                Some(Frame::Data(bytes)) => self.rest = bytes,
                Some(Frame::End) => self.is_over = true,
                Some(frame) => {
                    let text = format!("{} on a stream of bytes", frame.frame_type());
                    return Poll::Ready(Err(malformed(text)));
                }
                None => {
                    let mut chunk = [Bytes::new()];
                    if ready!(stream.poll_chunks(context, &mut chunk))?.is_none() {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    let [chunk] = chunk;
                    self.decoder.push(chunk);
                }
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}
