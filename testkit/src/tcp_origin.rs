//! An application that speaks bytes: it does what a connection's first line asks for, and remembers
//! every connection.
//!
//! | first line | what follows |
//! |---|---|
//! | `count` | reads the pattern to the end, answers `N intact`, closes |
//! | `send N` | sends N bytes of the pattern and ends its direction, then reads to the end |
//! | others | answers the label for this and each further line |

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::pattern::{self, Check};

const BUFFER_BYTES: usize = 64 * 1024;

/// How a connection ended for the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Not,
    /// The other side ended its direction.
    Finished,
    Reset,
}

/// A connection as the application saw it.
#[derive(Debug, Clone)]
pub struct Connection {
    pub received: Check,
    pub ended: Ended,
}

/// The running application. It stops when dropped.
#[derive(Debug)]
pub struct TcpOrigin {
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<Connection>>>,
    _tasks: JoinSet<()>,
}

impl TcpOrigin {
    /// Starts on a free port.
    pub async fn start(label: &str, address: IpAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((address, 0)).await;
        let listener = listener.with_context(|| format!("bind a port on {address}"))?;
        let address = listener.local_addr()?;
        let connections = Arc::<Mutex<Vec<Connection>>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, label.to_string(), connections.clone()));
        Ok(Self { address, connections, _tasks: tasks })
    }

    /// Every connection so far.
    pub fn connections(&self) -> Vec<Connection> {
        lock(&self.connections).clone()
    }
}

type Connections = Arc<Mutex<Vec<Connection>>>;

fn lock(connections: &Connections) -> std::sync::MutexGuard<'_, Vec<Connection>> {
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, label: String, connections: Connections) {
    let mut tasks = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (label, connections) = (label.clone(), connections.clone());
        let index = {
            let mut connections = lock(&connections);
            connections.push(Connection { received: Check::default(), ended: Ended::Not });
            connections.len() - 1
        };
        tasks.spawn(async move {
            let outcome = converse(stream, &label, &connections, index).await;
            let ended = if outcome.is_ok() { Ended::Finished } else { Ended::Reset };
            lock(&connections)[index].ended = ended;
        });
        while tasks.try_join_next().is_some() {}
    }
}

async fn converse(
    stream: TcpStream,
    label: &str,
    connections: &Connections,
    index: usize,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(BUFFER_BYTES, stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        let mut words = line.split_ascii_whitespace();
        let (verb, number) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match verb {
            "count" => {
                let received = receive(&mut stream, connections, index).await?;
                let answer = match received.wrong_at {
                    None => format!("{} intact\n", received.bytes),
                    Some(at) => format!("{} wrong at {at}\n", received.bytes),
                };
                stream.write_all(answer.as_bytes()).await?;
                return stream.shutdown().await;
            }
            "send" => {
                send(&mut stream, number.parse().unwrap_or(0)).await?;
                stream.shutdown().await?;
                receive(&mut stream, connections, index).await?;
                return Ok(());
            }
            _ => stream.write_all(format!("{label}\n").as_bytes()).await?,
        }
        line.clear();
    }
    Ok(())
}

async fn receive(
    stream: &mut BufReader<TcpStream>,
    connections: &Connections,
    index: usize,
) -> std::io::Result<Check> {
    let mut check = Check::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(check),
            length => check.take(&buffer[..length]),
        }
        lock(connections)[index].received = check.clone();
    }
}

async fn send(stream: &mut BufReader<TcpStream>, bytes: u64) -> std::io::Result<()> {
    let mut offset = 0;
    while offset < bytes {
        let data = pattern::piece(offset, bytes - offset);
        offset += data.len() as u64;
        stream.write_all(&data).await?;
    }
    Ok(())
}
