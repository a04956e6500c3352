//! The two halves of a stream, as whoever uses it has them.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::{ReadError, StoppedError, VarInt, WriteError};

use super::stream::Stream;

/// The sending half.
#[derive(Debug)]
pub(crate) struct TcpSend(pub(super) Arc<Stream>);

impl TcpSend {
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<usize, WriteError> {
        self.0.write(&mut [Bytes::copy_from_slice(bytes)]).await?;
        Ok(bytes.len())
    }

    pub(crate) async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), WriteError> {
        self.0.write(chunks).await
    }

    /// All of the chunks, or none yet.
    pub(crate) fn poll_write_chunks(
        &mut self,
        context: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<(), WriteError>> {
        self.0.poll_write(context, chunks)
    }

    /// Writes END, and no more.
    pub(crate) fn end(&mut self) {
        self.0.end();
    }

    pub(crate) fn finish(&mut self) {
        self.0.finish();
    }

    pub(crate) fn reset(&mut self, code: VarInt) {
        self.0.reset(code.into_inner());
    }

    /// That all of it was received is not known here, and so never said.
    pub(crate) fn stopped(
        &self,
    ) -> impl Future<Output = Result<Option<VarInt>, StoppedError>> + Send + 'static {
        Arc::clone(&self.0).stopped()
    }
}

impl Drop for TcpSend {
    fn drop(&mut self) {
        self.0.finish();
        self.0.leave_half();
    }
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct TcpRecv(pub(super) Arc<Stream>);

impl TcpRecv {
    pub(crate) async fn read_chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        let mut chunk = [Bytes::new()];
        let count = poll_fn(|context| self.0.poll_read(context, &mut chunk)).await?;
        let [chunk] = chunk;
        Ok(count.map(|_| chunk))
    }

    pub(crate) fn poll_chunks(
        &mut self,
        context: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<Option<usize>, ReadError>> {
        self.0.poll_read(context, chunks)
    }

    pub(crate) fn stop(&mut self, code: VarInt) {
        self.0.stop(code.into_inner());
    }
}

impl Drop for TcpRecv {
    fn drop(&mut self) {
        self.0.stop(0);
        self.0.leave_half();
    }
}
