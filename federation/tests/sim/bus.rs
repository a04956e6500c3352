//! What the nodes of one simulation share: the way out, the trace, and the first violation.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use federation::store::{CallError, Family, RpcKind, Step};
use tokio::sync::oneshot;

use super::client::Done;
use super::trace::{Trace, digest};

/// Where a record's payload begins (docs/reference/store.md): after kind, version and checksum.
const PAYLOAD_AT: usize = 6;

/// What one node sends another.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    Request {
        kind: RpcKind,
        body: Bytes,
    },
    Answer {
        body: Bytes,
    },
    /// There is nobody at the other end.
    Unreachable,
}

#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) call: u64,
    pub(crate) parcel: Parcel,
}

pub(crate) type Reply = Result<Bytes, CallError>;

#[derive(Debug)]
pub(crate) struct Bus {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    now_ms: u64,
    trace: Trace,
    outbox: Vec<Letter>,
    waiting: BTreeMap<u64, oneshot::Sender<Reply>>,
    calls: u64,
    done: Vec<(u64, Done)>,
    violation: Option<String>,
    book: Book,
}

/// What the nodes' disks say, put together.
#[derive(Debug, Default)]
struct Book {
    /// By index, term and leader.
    entries: BTreeMap<(u64, u64, u64), Known>,
    /// The greatest vote of each node that it was told to be on the device.
    votes: BTreeMap<u64, (u64, u64, bool)>,
}

/// What is known of an entry.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// A hash of its bytes.
    bytes: u64,
    /// Term and leader of the entry before it, if that was seen beside it.
    before: Option<(u64, u64)>,
}

impl Bus {
    pub(crate) fn new(trace: Trace) -> Self {
        let state = State {
            now_ms: 0,
            trace,
            outbox: Vec::new(),
            waiting: BTreeMap::new(),
            calls: 0,
            done: Vec::new(),
            violation: None,
            book: Book::default(),
        };
        Self { state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_now(&self, now_ms: u64) {
        self.lock().now_ms = now_ms;
    }

    pub(crate) fn note(
        &self,
        who: u64,
        what: &'static str,
        detail: impl Hash,
        text: impl FnOnce() -> String,
    ) {
        let mut state = self.lock();
        let now_ms = state.now_ms;
        state.trace.note(now_ms, who, what, detail, text);
    }

    /// Only the first one counts: what follows from it would hide it.
    pub(crate) fn violate(&self, text: impl FnOnce() -> String) {
        let mut state = self.lock();
        if state.violation.is_none() {
            state.violation = Some(format!("at {} ms: {}", state.now_ms, text()));
        }
    }

    pub(crate) fn check(&self, result: Result<(), String>) {
        if let Err(text) = result {
            self.violate(|| text);
        }
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.lock().violation.clone()
    }

    pub(crate) fn with_trace<T>(&self, read: impl FnOnce(&Trace) -> T) -> T {
        read(&self.lock().trace)
    }

    /// A node calls another.
    pub(crate) fn call(
        &self,
        from: u64,
        to: u64,
        kind: RpcKind,
        body: Bytes,
    ) -> oneshot::Receiver<Reply> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        state.calls += 1;
        let call = state.calls;
        state.waiting.insert(call, sender);
        state.outbox.push(Letter { from, to, call, parcel: Parcel::Request { kind, body } });
        receiver
    }

    pub(crate) fn send(&self, letter: Letter) {
        self.lock().outbox.push(letter);
    }

    pub(crate) fn take_outbox(&self) -> Vec<Letter> {
        std::mem::take(&mut self.lock().outbox)
    }

    /// The call's end, if it is still waited for.
    pub(crate) fn take_waiting(&self, call: u64) -> Option<oneshot::Sender<Reply>> {
        self.lock().waiting.remove(&call)
    }

    pub(crate) fn finish(&self, node: u64, done: Done) {
        self.lock().done.push((node, done));
    }

    /// In an order of their own: tokio wakes several who wait for the same change at random.
    pub(crate) fn take_done(&self) -> Vec<(u64, Done)> {
        let mut done = std::mem::take(&mut self.lock().done);
        done.sort_by_key(|(_, done)| done.order());
        done
    }

    /// A node is about to write.
    pub(crate) fn wrote(&self, node: u64, batch: &[Step], sync: bool) {
        let mut state = self.lock();
        let now_ms = state.now_ms;
        let bytes = digest(format!("{batch:?}"));
        state.trace.note(now_ms, node, "writes", (bytes, sync), || {
            format!("{}{}", summary(batch), if sync { ", synced" } else { "" })
        });
    }

    /// A node's write is there. `entry` reads one of its log.
    pub(crate) fn stored(&self, node: u64, batch: &[Step], entry: impl Fn(u64) -> Option<Vec<u8>>) {
        let mut state = self.lock();
        let mut problem = None;
        for step in batch {
            let Step::Put { family, key, value } = step else { continue };
            let found = match family {
                Family::Log => state.book.take_entry(key, value, &entry),
                Family::Meta if key == b"vote" => state.book.take_vote(node, value),
                _ => Ok(()),
            };
            problem = problem.or_else(|| found.err());
        }
        if let Some(text) = problem
            && state.violation.is_none()
        {
            state.violation = Some(format!("at {} ms: node {node}: {text}", state.now_ms));
        }
    }

    /// The node's disk was replaced; its promises went with it.
    pub(crate) fn forget_votes(&self, node: u64) {
        self.lock().book.votes.remove(&node);
    }
}

impl Book {
    /// Log matching: the same index, term and leader mean the same entry, with the same ones before.
    fn take_entry(
        &mut self,
        key: &[u8],
        value: &[u8],
        entry: &impl Fn(u64) -> Option<Vec<u8>>,
    ) -> Result<(), String> {
        let index = u64::from_be_bytes(key.try_into().unwrap());
        let (term, leader) = place(value);
        let before = index.checked_sub(1).and_then(entry).map(|value| place(&value));
        let bytes = digest(value);
        let held = self.entries.entry((index, term, leader)).or_insert(Known { bytes, before });
        if held.bytes != bytes {
            return Err(format!("two different entries {index} of term {term}, leader {leader}"));
        }
        // The entry before may be purged.
        match (held.before, before) {
            (Some(held), Some(before)) if held != before => Err(format!(
                "entry {index} of term {term} follows one of term {} here, of term {} elsewhere",
                before.0, held.0
            )),
            (None, Some(_)) => {
                held.before = before;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What was promised once holds over every crash.
    fn take_vote(&mut self, node: u64, value: &[u8]) -> Result<(), String> {
        let (term, of) = place(value);
        let vote = (term, of, value.last() == Some(&1));
        let held = self.votes.entry(node).or_insert(vote);
        if vote < *held {
            return Err(format!("it voted {vote:?} (term, node, elected) after {held:?}"));
        }
        *held = vote;
        Ok(())
    }
}

/// The two numbers with which the payload of an entry and of a vote begins: term and node.
fn place(value: &[u8]) -> (u64, u64) {
    let number = |at: usize| {
        let bytes = &value[PAYLOAD_AT + at..PAYLOAD_AT + at + 8];
        u64::from_le_bytes(bytes.try_into().unwrap())
    };
    (number(0), number(8))
}

fn summary(batch: &[Step]) -> String {
    let mut parts = Vec::new();
    for step in batch {
        parts.push(match step {
            Step::Put { family: Family::Log, key, value } => {
                let (term, leader) = place(value);
                let index = u64::from_be_bytes(key.as_slice().try_into().unwrap());
                format!("entry {index} ({term}-{leader})")
            }
            Step::Put { family: Family::Meta, key, value } if key == b"vote" => {
                let (term, of) = place(value);
                format!(
                    "vote {term}-{of}{}",
                    if value.last() == Some(&1) { " elected" } else { "" }
                )
            }
            Step::Put { family, key, .. } => format!("{family}/{}", key.escape_ascii()),
            Step::Delete { family, key } => format!("-{family}/{}", key.escape_ascii()),
            Step::DeleteRange { family, from, to } => format!(
                "-{family}/{}..{}",
                from.escape_ascii(),
                to.as_deref().unwrap_or_default().escape_ascii()
            ),
        });
    }
    parts.join(" ")
}
