//! An outside client: HTTP/1.1 over plain sockets, with nothing of Fedgate's in it. It calls a gateway or
//! a load balancer all the time, and counts what it got, each kind of failure for itself.
//!
//! It never tries a request again, also none that met a connection that was just being closed.

mod answer;
mod ledger;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wan::netns::Netns;

use crate::wait;
use answer::Connection;
pub use ledger::{Failure, Ledger, Miss};

/// Nobody waits longer for the next answers of a client that is at work.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);

/// What is called, and how.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub host: String,
    pub path: String,
    /// The whole body that a right answer has; any will do if it is `None`.
    pub body: Option<String>,
    /// From the first packet of the connection, or of the request on one that stands, to the end.
    pub limit: Duration,
    /// Requests on one connection; the last one says `Connection: close`.
    pub per_connection: usize,
    /// Between an answer and the next request.
    pub pause: Duration,
}

impl Target {
    /// One request on each connection, 10 s for each, and a short pause after it.
    pub fn new(address: SocketAddr, host: impl Into<String>) -> Self {
        Self {
            address,
            host: host.into(),
            path: "/".into(),
            body: None,
            limit: Duration::from_secs(10),
            per_connection: 1,
            pause: Duration::from_millis(2),
        }
    }

    /// One request on a connection of its own, now: the whole body, or what became of it.
    pub fn get(&self) -> Result<String, Miss> {
        let once = Self { per_connection: 1, ..self.clone() };
        Connection::default().ask(&once)
    }
}

/// Clients at work. They stop when this is dropped.
#[derive(Debug)]
pub struct Outside {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    ledger: Mutex<Ledger>,
}

impl Outside {
    /// So many clients, each with one request under way at a time.
    ///
    /// # Panics
    /// When the system has no more threads.
    pub fn start(target: &Target, clients: usize) -> Self {
        Self::spawn(target, clients, None)
    }

    /// The same from inside of a network namespace.
    ///
    /// # Panics
    /// When the system has no more threads.
    pub fn start_in(netns: &Arc<Netns>, target: &Target, clients: usize) -> Self {
        Self::spawn(target, clients, Some(netns))
    }

    fn spawn(target: &Target, clients: usize, netns: Option<&Arc<Netns>>) -> Self {
        let shared = Arc::new(Shared::default());
        let start = |_| {
            let (shared, target, netns) = (shared.clone(), target.clone(), netns.cloned());
            let work = move || match netns {
                None => shared.run(&target),
                Some(netns) => netns.enter(|| shared.run(&target)).expect("a namespace of ours"),
            };
            let name = "outside-client".to_owned();
            std::thread::Builder::new().name(name).spawn(work).expect("a thread")
        };
        let threads = (0..clients).map(start).collect();
        Self { shared, threads }
    }

    /// Everything so far.
    pub fn ledger(&self) -> Ledger {
        self.shared.lock().clone()
    }

    /// Waits for so many more answers, good or bad.
    ///
    /// # Panics
    /// When they do not come in a minute.
    pub fn more(&self, requests: u64) {
        let wanted = self.shared.lock().requests + requests;
        let enough = || (self.shared.lock().requests >= wanted).then_some(());
        wait::until(&format!("{requests} more answers"), PROGRESS_LIMIT, enough);
    }

    /// Waits for so many good answers one after the other; returns how long that took.
    ///
    /// # Panics
    /// When they do not come in time.
    pub fn until_good(&self, requests: u64, limit: Duration) -> Duration {
        let begun = Instant::now();
        let what = format!("{requests} good answers in a row");
        let mut from = self.ledger();
        wait::until(&what, limit, || {
            let now = self.shared.lock();
            if now.failed() != from.failed() {
                from = now.clone();
            }
            (now.good >= from.good + requests).then(|| begun.elapsed())
        })
    }

    /// Stops them, once each has had its answer.
    pub fn end(mut self) -> Ledger {
        self.stop();
        self.ledger()
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // What it panicked with has been printed.
            let _ended = thread.join();
        }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, target: &Target) {
        let mut connection = Connection::default();
        while !self.stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let outcome = connection.ask(target);
            self.lock().note(begun, outcome);
            std::thread::park_timeout(target.pause);
        }
    }
}
