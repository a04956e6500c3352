//! The way from the herd to its node: it counts when somebody comes, gives each connection an address
//! of its own, as pods have, and can cut all of them at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone)]
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    attempts: Arc<Mutex<Vec<Instant>>>,
    cuts: watch::Sender<u64>,
}

impl Relay {
    pub(super) async fn start(node: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let relay = Self {
            address: listener.local_addr().unwrap(),
            attempts: Arc::default(),
            cuts: watch::Sender::new(0),
        };
        tokio::spawn(relay.clone().run(listener, node));
        relay
    }

    /// When somebody came, since this was asked last.
    pub(super) fn take_attempts(&self) -> Vec<Instant> {
        std::mem::take(&mut *self.lock())
    }

    pub(super) fn attempts(&self) -> usize {
        self.lock().len()
    }

    /// Breaks every connection that is open.
    pub(super) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    async fn run(self, listener: TcpListener, node: SocketAddr) {
        let count = AtomicU32::new(0);
        loop {
            let (gateway, _) = listener.accept().await.unwrap();
            self.lock().push(Instant::now());
            // 127.3.0.0/16, and within it a new address for each.
            let number = count.fetch_add(1, Ordering::Relaxed) & 0xffff;
            let from = Ipv4Addr::from(0x7f03_0000 | number);
            let mut cuts = self.cuts.subscribe();
            tokio::spawn(async move {
                tokio::select! {
                    _ = carry(gateway, from, node) => {}
                    _ = cuts.changed() => {}
                }
            });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Instant>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn carry(mut gateway: TcpStream, from: Ipv4Addr, node: SocketAddr) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let mut node = socket.connect(node).await?;
    node.set_nodelay(true)?;
    gateway.set_nodelay(true)?;
    copy_bidirectional(&mut gateway, &mut node).await.map(drop)
}
