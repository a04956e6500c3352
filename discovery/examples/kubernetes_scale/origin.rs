//! Applications that say who they are, and a client that asks.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Answers every request with its name. Ends with its value.
pub(crate) struct Origin {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Origin {
    pub(crate) async fn start(address: IpAddr, name: &'static str) -> Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, name));
            }
        });
        Ok(Self { name, address, task })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(stream: TcpStream, name: &'static str) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let text = format!("HTTP/1.1 200 OK\r\nx-origin: {name}\r\ncontent-length: 0\r\n\r\n");
    loop {
        head(&mut stream).await.ok()?;
        stream.write_all(text.as_bytes()).await.ok()?;
    }
}

/// A connection to the gateway, kept from one request to the next.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    /// The name of the origin that answered.
    pub(crate) async fn ask(
        kept: &mut Option<Self>,
        gateway: SocketAddr,
        host: &str,
    ) -> Result<String> {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => Self(BufReader::new(TcpStream::connect(gateway).await?)),
        };
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        connection.0.write_all(request.as_bytes()).await?;
        let lines = head(&mut connection.0).await?;
        let named = lines.iter().find_map(|line| line.strip_prefix("x-origin: "));
        // Failures have a body, which nobody here reads.
        let name = named.with_context(|| lines.join("; "))?.to_string();
        *kept = Some(connection);
        Ok(name)
    }
}

async fn head(stream: &mut BufReader<TcpStream>) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        let read = stream.read_line(&mut line).await?;
        anyhow::ensure!(read > 0, "the connection ended");
        match line.trim_end() {
            "" => return Ok(lines),
            text => lines.push(text.to_string()),
        }
    }
}
