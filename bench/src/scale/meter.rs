//! A TCP relay that counts the bytes of both ways.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const BUFFER_BYTES: usize = 64 * 1024;

/// Ends with its connections when dropped.
#[derive(Debug)]
pub struct Meter {
    address: SocketAddr,
    from_target: Arc<AtomicU64>,
    to_target: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Meter {
    /// Connections to [`Self::address`] are connections to `target`.
    pub async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (from_target, to_target) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let counters = (from_target.clone(), to_target.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (down, up) = counters.clone();
                connections.spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    let _ = client.set_nodelay(true);
                    let _ = server.set_nodelay(true);
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::join!(
                        copy(from_server, to_client, &down),
                        copy(from_client, to_server, &up)
                    );
                });
            }
        });
        Ok(Self { address, from_target, to_target, task })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that the target has sent so far.
    pub fn sent(&self) -> u64 {
        self.from_target.load(Ordering::Relaxed)
    }

    /// Bytes that were sent to the target so far.
    pub fn received(&self) -> u64 {
        self.to_target.load(Ordering::Relaxed)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    count: &AtomicU64,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        count.fetch_add(read as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_byte_is_counted() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let meter = Meter::start(listener.local_addr().unwrap()).await.unwrap();
        let mut client = TcpStream::connect(meter.address()).await.unwrap();
        client.write_all(&[1; 100]).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.read_exact(&mut [0; 100]).await.unwrap();
        server.write_all(&[2; 300_000]).await.unwrap();
        client.read_exact(&mut vec![0; 300_000]).await.unwrap();
        assert_eq!((meter.received(), meter.sent()), (100, 300_000));
    }
}
