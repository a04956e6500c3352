//! A map of registers as the store's machine: small enough that every order and every loss shows.
//!
//! Appending is not idempotent; retries are told apart by client and sequence number.

use std::collections::BTreeMap;
use std::sync::Arc;

use federation::store::{KvWrite, Machine, Outcome, Pair};
use model::Revision;

use super::dice::Dice;
use super::plant::{self, Plant};
use super::subject::{Clients, Subject};
use super::trace::digest;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegisterCommand {
    pub(crate) client: u8,
    /// Grows with each new request of a client; a retry has the same one.
    pub(crate) sequence: u64,
    /// Different in each retry, so that each can be told apart in the log.
    pub(crate) attempt: u8,
    pub(crate) key: u8,
    /// Appends the value to the register, instead of putting it in the place of all.
    pub(crate) append: bool,
    pub(crate) value: u64,
}

impl RegisterCommand {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.client, self.attempt, self.key, u8::from(self.append)];
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend(self.value.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let ([client, attempt, key, append], rest) = bytes.split_first_chunk()?;
        let (sequence, value) = rest.split_first_chunk()?;
        Some(Self {
            client: *client,
            sequence: u64::from_le_bytes(*sequence),
            attempt: *attempt,
            key: *key,
            append: *append == 1,
            value: u64::from_le_bytes(value.try_into().ok()?),
        })
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Register {
    /// `r<key>` has the values, `s<client>` the last request and its revision.
    pairs: Arc<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Only planted bugs use it.
    last_key: Option<Vec<u8>>,
    held: Option<(Revision, Vec<u8>)>,
}

impl Register {
    /// The values of each register.
    pub(crate) fn values(&self) -> impl Iterator<Item = (u8, Vec<u64>)> {
        let of = |(key, value): (&Vec<u8>, &Vec<u8>)| match key.as_slice() {
            [b'r', key] => Some((*key, numbers(value))),
            _ => None,
        };
        self.pairs.iter().filter_map(of)
    }

    fn act(&mut self, revision: Revision, command: &RegisterCommand) -> Outcome {
        let session = vec![b's', command.client];
        let last = self.pairs.get(&session).map(|value| numbers(value));
        if let Some([sequence, index]) = last.as_deref()
            && command.sequence <= *sequence
            && !plant::is_everywhere(Plant::RetryAppliedAgain)
        {
            // A retry gets the first answer; what is older still has nobody waiting for it.
            let reply = if command.sequence == *sequence { *index } else { 0 };
            return Outcome { reply: reply.to_le_bytes().to_vec(), writes: Vec::new() };
        }
        let key = vec![b'r', command.key];
        let mut value = match self.pairs.get(&key) {
            Some(value) if command.append => value.clone(),
            _ => Vec::new(),
        };
        value.extend(command.value.to_le_bytes());
        let mark = [command.sequence.to_le_bytes(), revision.index.to_le_bytes()].concat();
        let reply = revision.index.to_le_bytes().to_vec();
        if plant::is(Plant::ApplySkipped) && plant::node() == 2 && command.value.is_multiple_of(7) {
            return Outcome { reply, writes: Vec::new() };
        }
        let pairs = Arc::make_mut(&mut self.pairs);
        pairs.insert(key.clone(), value.clone());
        pairs.insert(session.clone(), mark.clone());
        self.last_key = Some(key.clone());
        let writes = [(key, value), (session, mark)];
        let writes = writes.map(|(key, value)| KvWrite { key, value: Some(value) });
        Outcome { reply, writes: writes.into() }
    }

    fn do_one(&mut self, revision: Revision, command: &[u8]) -> Outcome {
        match RegisterCommand::decode(command) {
            Some(command) => self.act(revision, &command),
            None => Outcome::default(),
        }
    }
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|of| u64::from_le_bytes(of.try_into().unwrap())).collect()
}

impl Machine for Register {
    fn load(pairs: Vec<Pair>) -> Result<Self, String> {
        Ok(Self { pairs: Arc::new(pairs.into_iter().collect()), ..Self::default() })
    }

    fn to_kv(&self) -> Vec<Pair> {
        let mut pairs: Vec<Pair> =
            self.pairs.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        if plant::is(Plant::SnapshotMissesLast) {
            pairs.retain(|(key, _)| Some(key) != self.last_key.as_ref());
        }
        pairs
    }

    fn apply(&mut self, revision: Revision, command: &[u8]) -> Outcome {
        if plant::is(Plant::ReorderedApply) && plant::node() == 2 {
            if let Some((held_at, held)) = self.held.take() {
                let mut outcome = self.do_one(revision, command);
                outcome.writes.extend(self.do_one(held_at, &held).writes);
                return outcome;
            }
            if revision.index.is_multiple_of(5) {
                self.held = Some((revision, command.to_vec()));
                let reply = revision.index.to_le_bytes().to_vec();
                return Outcome { reply, writes: Vec::new() };
            }
        }
        self.do_one(revision, command)
    }
}

impl Subject for Register {
    type Clients = RegisterClients;

    fn print(&self) -> u64 {
        digest(&self.pairs)
    }
}

/// Every request writes another value.
#[derive(Debug, Default)]
pub(crate) struct RegisterClients {
    values: u64,
}

impl Clients<Register> for RegisterClients {
    fn new(_: u64) -> Self {
        Self::default()
    }

    fn first(&mut self) -> Vec<u8> {
        let command =
            RegisterCommand { client: 0, sequence: 1, attempt: 0, key: 0, append: false, value: 0 };
        command.encode()
    }

    fn request(&mut self, client: u8, _: &Register, dice: &mut Dice) -> Vec<u8> {
        self.values += 1;
        let command = RegisterCommand {
            client,
            sequence: self.values,
            attempt: 0,
            key: dice.below(4) as u8,
            append: dice.chance(900),
            value: self.values,
        };
        command.encode()
    }

    fn retry(&mut self, request: &[u8]) -> Vec<u8> {
        let mut command = RegisterCommand::decode(request).unwrap();
        command.attempt += 1;
        command.encode()
    }

    /// No value is there twice.
    fn judge(&self, machine: &Register) -> Result<(), String> {
        for (key, values) in machine.values() {
            let mut seen = std::collections::BTreeSet::new();
            if let Some(twice) = values.iter().find(|value| !seen.insert(**value)) {
                return Err(format!("register {key} has {twice} twice"));
            }
        }
        Ok(())
    }
}
