//! The seams of the store: the state machine, byte storage and the way to other nodes. Each has two
//! implementations: production's and the simulation's.
//!
//! Time and randomness are seams too. The store reads only tokio's clock, which a test can pause and
//! turn, and draws only from the seed in its configuration.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use model::Revision;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// One change of the machine's keys; without a value the key goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvWrite {
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// What came of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// For the proposer; a refusal is a reply too.
    pub reply: Vec<u8>,
    /// What changed; the store writes it in one batch with the log's position.
    pub writes: Vec<KvWrite>,
}

/// The replicated state. It is pure: the same commands in the same order give the same state and the
/// same writes on every node. A clone is cheap, because each applied batch and snapshot takes one.
pub trait Machine: Clone + Send + Sync + 'static {
    /// Builds the state from all its pairs, in order of their keys; from none, the empty state.
    /// The text of an error says what is wrong with them.
    fn load(pairs: Vec<Pair>) -> Result<Self, String>;
    /// All pairs, in order of their keys. `load` of them gives the same state.
    fn to_kv(&self) -> Vec<Pair>;
    /// Never fails: a command that cannot be done changes nothing and says so in its reply.
    fn apply(&mut self, revision: Revision, command: &[u8]) -> Outcome;
    /// Whether this state can have come of `before` by commands. A leader's snapshot takes the place
    /// of what is here only then; the text of an error says what it has lost. A machine in which
    /// nothing is for ever follows any other.
    fn follows(&self, before: &Self) -> Result<(), String> {
        let _ = before;
        Ok(())
    }
}

/// Where on the disk a key lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// The entries of the Raft log.
    Log,
    /// The vote, the epoch, positions.
    Meta,
    /// The state machine's pairs.
    Machine,
    /// What a Replica keeps. The store itself never touches it.
    Replica,
}

impl Family {
    /// All of them, in the order in which they are declared.
    pub const ALL: [Self; 4] = [Self::Log, Self::Meta, Self::Machine, Self::Replica];

    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Meta => "meta",
            Self::Machine => "machine",
            Self::Replica => "replica",
        }
    }
}

/// One step of a batch. Steps act in their order: a range deleted first may be filled again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Put {
        family: Family,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        family: Family,
        key: Vec<u8>,
    },
    /// From `from` on, up to but without `to`; to the family's end if that is `None`.
    DeleteRange {
        family: Family,
        from: Vec<u8>,
        to: Option<Vec<u8>>,
    },
}

/// Why the disk did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// The device or the file system refused. What was to be written may or may not be there.
    #[error("the disk refused to {verb}: {problem}")]
    Io { verb: &'static str, problem: String },
    /// What was read is not what was written.
    #[error("the store's files are damaged: {0}; re-seed this node from its peers")]
    Damaged(String),
    /// A copied folder would be a second node with the first one's votes; nothing is wrong with it.
    #[error(
        "the store's folder belongs to node {owner:016x}, this is node {node:016x}: give the node \
         its own data folder and federation key"
    )]
    Foreign { owner: u64, node: u64 },
}

/// Bytes on a disk, in families of sorted keys.
///
/// A batch is written as a whole or not at all, and batches survive a crash in their order: if one
/// is there, all before it are. With `sync`, it has reached the device when `write` returns; without,
/// a power failure may take it back, together with all that came after.
pub trait Disk: Send + Sync + 'static {
    fn write(&self, batch: Vec<Step>, sync: bool) -> Result<(), DiskError>;
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError>;
    /// The pairs from `from` on, without `to`, in order. The last one is that by which their values
    /// have reached `most_bytes`, so that there is at least one if there are any.
    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        most_bytes: usize,
    ) -> Result<Vec<Pair>, DiskError>;
    /// The pair with the greatest key.
    fn last(&self, family: Family) -> Result<Option<Pair>, DiskError>;
    /// Whether calls may wait for a device, so that they belong on a thread of their own.
    fn blocks(&self) -> bool {
        true
    }
    /// Why a write was refused, if one was: nothing that is asked of it from then on can be relied on.
    fn fault(&self) -> Option<String> {
        None
    }
    /// How long, on tokio's clock, is waited before and after a call: so that a disk which does not
    /// block can still be slow.
    fn latency(&self) -> Duration {
        Duration::ZERO
    }
    /// Lets go of what is locked on the device, whoever still holds this: each later call is refused.
    fn close(&self) {}
}

/// What a call carries, for the transport's priorities: a snapshot yields to the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RpcKind {
    Append,
    Vote,
    Snapshot,
}

/// Why a call brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("no connection: {0}")]
    Unreachable(String),
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("the other side refused: {0}")]
    Refused(String),
}

/// The way to the other nodes. The answer is what [`Store::handle`](super::Store::handle) gave there.
///
/// A call may be delivered twice or late, and its future may be dropped at any time.
pub trait Peers: Send + Sync + 'static {
    fn call(
        &self,
        target: u64,
        kind: RpcKind,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>>;
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
