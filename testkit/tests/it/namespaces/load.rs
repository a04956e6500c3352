//! An application that calls a service all the time, one request after the other, and counts.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use testkit::wait;
use wan::netns::Netns;

const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A client in a site. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Load {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

/// What a client has seen, when no request of its failed.
#[derive(Debug)]
pub(crate) struct Served {
    requests: usize,
    longest: Duration,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests, none failed, the longest took {:?}", self.requests, self.longest)
    }
}

/// What it has seen.
#[derive(Debug, Default)]
struct Seen {
    done: AtomicBool,
    requests: AtomicUsize,
    failures: Mutex<Vec<String>>,
    longest: Mutex<Duration>,
}

impl Load {
    /// Calls `host` at `gateway` from inside of the namespace.
    pub(crate) fn start(netns: &Arc<Netns>, gateway: SocketAddr, host: String) -> Self {
        let seen = Arc::new(Seen::default());
        let (netns, shared) = (Arc::clone(netns), Arc::clone(&seen));
        let work = move || netns.enter(|| shared.run(gateway, &host)).unwrap();
        Self { seen, thread: Some(std::thread::spawn(work)) }
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::Relaxed)
    }

    /// Stops it, once it has had some more answers.
    ///
    /// # Panics
    /// When a request failed.
    pub(crate) fn end(mut self) -> Served {
        let more = self.requests() + 5;
        wait::until("more requests", ANSWER_LIMIT, || (self.requests() >= more).then_some(()));
        self.stop();
        let failures = self.seen.failures.lock().unwrap();
        let (requests, first) = (self.requests(), failures.first());
        assert!(first.is_none(), "{} of {requests} failed: {first:?}", failures.len());
        Served { requests, longest: *self.seen.longest.lock().unwrap() }
    }

    fn stop(&mut self) {
        self.seen.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it panicked with has been printed.
            let _ended = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Seen {
    fn run(&self, gateway: SocketAddr, host: &str) {
        while !self.done.load(Ordering::Relaxed) {
            let begun = Instant::now();
            if let Err(problem) = get(gateway, host) {
                self.failures.lock().unwrap().push(problem);
            }
            let mut longest = self.longest.lock().unwrap();
            *longest = begun.elapsed().max(*longest);
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One GET on a connection of its own, from the caller's namespace: the body, or what went wrong.
pub(crate) fn get(gateway: SocketAddr, host: &str) -> Result<String, String> {
    let talk = || {
        let mut stream = TcpStream::connect_timeout(&gateway, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer: std::io::Result<String> = talk();
    let answer = answer.map_err(|error| error.to_string())?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.trim().to_string()),
        _ => Err(answer),
    }
}
