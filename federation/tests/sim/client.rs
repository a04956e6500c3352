//! Clients: each has one request at a time, asks a node, asks again or another one, gives up.

use federation::store::{MembersError, ProposeError, Proposed, ReadmitError, TransferError};
use model::Revision;

/// How often a request is sent.
pub(crate) const ATTEMPTS: u8 = 6;
/// How long a client waits for one answer.
pub(crate) const PATIENCE_MS: u64 = 1500;

/// What a node answered to somebody outside.
#[derive(Debug)]
pub(crate) enum Done {
    Founded(Result<Proposed, ProposeError>),
    Wrote { client: u8, attempt: u64, command: Vec<u8>, result: Result<Proposed, ProposeError> },
    Read { client: u8, attempt: u64, result: Result<Sight, ProposeError> },
    Members(Result<(), MembersError>),
    Transfer(Result<(), TransferError>),
    Readmit(Result<(), ReadmitError>),
}

impl Done {
    pub(crate) fn order(&self) -> (u8, u64) {
        match self {
            Self::Wrote { client, attempt, .. } | Self::Read { client, attempt, .. } => {
                (*client, *attempt)
            }
            Self::Founded(_) | Self::Members(_) | Self::Transfer(_) | Self::Readmit(_) => (0, 0),
        }
    }
}

/// A state that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sight {
    pub(crate) revision: Revision,
    pub(crate) print: u64,
}

/// What a client is doing.
#[derive(Clone, Debug)]
pub(crate) enum Doing {
    Nothing,
    Write { command: Vec<u8>, tries: u8, floor: u64 },
    Read { tries: u8, floor: u64 },
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) id: u8,
    pub(crate) doing: Doing,
    /// When it does something next, or gives up waiting.
    pub(crate) at_ms: u64,
    /// The attempt that it waits for. Answers to older ones come too late.
    pub(crate) attempt: u64,
    pub(crate) waiting: bool,
    /// Whom to ask, if a node said so.
    pub(crate) hint: Option<u64>,
}

impl Client {
    pub(crate) fn new(id: u8, at_ms: u64) -> Self {
        Self { id, doing: Doing::Nothing, at_ms, attempt: 0, waiting: false, hint: None }
    }
}

/// How much there was to do, so that a simulation in which nothing happened is noticed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) writes: u64,
    pub(crate) reads: u64,
    pub(crate) unknown: u64,
    pub(crate) crashes: u64,
    pub(crate) dooms: u64,
    pub(crate) leaders: u64,
    pub(crate) members: u64,
    pub(crate) transfers: u64,
    pub(crate) installs: u64,
    pub(crate) reseeds: u64,
    pub(crate) pauses: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.unknown += other.unknown;
        self.crashes += other.crashes;
        self.dooms += other.dooms;
        self.leaders += other.leaders;
        self.members += other.members;
        self.transfers += other.transfers;
        self.installs += other.installs;
        self.reseeds += other.reseeds;
        self.pauses += other.pauses;
    }

    /// Whether everything happened at least once.
    pub(crate) fn is_full(&self) -> bool {
        let all = [
            self.writes,
            self.reads,
            self.unknown,
            self.crashes,
            self.dooms,
            self.leaders,
            self.members,
            self.transfers,
            self.installs,
            self.reseeds,
            self.pauses,
        ];
        all.into_iter().all(|count| count > 0)
    }
}
