//! State machines behind the store's seam: the real fleet, and a plain register for comparisons.

use std::collections::BTreeMap;
use std::sync::Arc;

use federation::fleet::FleetState;
use federation::store::{KvWrite, Machine, Outcome, Pair};
use model::Revision;
use prost::Message as _;
use wire::store::{ProposeReply, Refusal};

/// [`FleetState`], as the product has it behind the store.
#[derive(Debug, Clone)]
pub struct Fleet(pub FleetState);

impl Machine for Fleet {
    fn load(pairs: Vec<Pair>) -> Result<Self, String> {
        FleetState::load(pairs).map(Self).map_err(|error| error.to_string())
    }

    fn to_kv(&self) -> Vec<Pair> {
        self.0.to_kv()
    }

    fn apply(&mut self, revision: Revision, command: &[u8]) -> Outcome {
        match self.0.apply(revision, command) {
            Ok(applied) => Outcome {
                reply: ProposeReply::Accepted(applied.revision).encode().encode_to_vec(),
                writes: applied.writes,
            },
            Err(refusal) => {
                let refusal = Refusal { code: Some(refusal.code), text: refusal.text };
                let reply = ProposeReply::Refused(refusal).encode().encode_to_vec();
                Outcome { reply, writes: Vec::new() }
            }
        }
    }
}

/// Bytes of a key in [`Register`]'s commands; the value follows.
pub const REGISTER_KEY_BYTES: usize = 8;
/// A clone is made for each applied batch, and the part that is written to is copied then.
const PARTS: usize = 1024;

/// Keys and values, with nothing to verify: what etcd does, too.
#[derive(Debug, Clone)]
pub struct Register(Arc<Vec<Part>>);

type Part = Arc<BTreeMap<Vec<u8>, Vec<u8>>>;

impl Register {
    fn part(key: &[u8]) -> usize {
        let end = key.get(REGISTER_KEY_BYTES - 2..REGISTER_KEY_BYTES).unwrap_or(&[0, 0]);
        usize::from(u16::from_be_bytes([end[0], end[1]])) % PARTS
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let parts = Arc::make_mut(&mut self.0);
        Arc::make_mut(&mut parts[Self::part(&key)]).insert(key, value);
    }
}

impl Machine for Register {
    fn load(pairs: Vec<Pair>) -> Result<Self, String> {
        let mut register = Self(Arc::new(vec![Arc::default(); PARTS]));
        pairs.into_iter().for_each(|(key, value)| register.put(key, value));
        Ok(register)
    }

    fn to_kv(&self) -> Vec<Pair> {
        let all = self.0.iter().flat_map(|part| part.iter());
        let mut pairs: Vec<Pair> = all.map(|(key, value)| (key.clone(), value.clone())).collect();
        pairs.sort();
        pairs
    }

    fn apply(&mut self, revision: Revision, command: &[u8]) -> Outcome {
        let Some((key, value)) = command.split_at_checked(REGISTER_KEY_BYTES) else {
            let text = format!("{} bytes hold no key of {REGISTER_KEY_BYTES}", command.len());
            let refusal = Refusal { code: None, text };
            let reply = ProposeReply::Refused(refusal).encode().encode_to_vec();
            return Outcome { reply, writes: Vec::new() };
        };
        self.put(key.to_vec(), value.to_vec());
        let writes = vec![KvWrite { key: key.to_vec(), value: Some(value.to_vec()) }];
        Outcome { reply: ProposeReply::Accepted(revision).encode().encode_to_vec(), writes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_register_gives_back_what_it_was_given() {
        let mut register = Register::load(Vec::new()).unwrap();
        let command = |number: u64| [&number.to_be_bytes()[..], b"value"].concat();
        for number in [3, 70_000, 1] {
            let outcome = register.apply(Revision { epoch: 1, index: number }, &command(number));
            assert_eq!(outcome.writes.len(), 1);
        }
        let pairs = register.to_kv();
        assert_eq!(pairs.len(), 3);
        assert_eq!(Register::load(pairs.clone()).unwrap().to_kv(), pairs);
        assert!(register.apply(Revision { epoch: 1, index: 4 }, b"short").writes.is_empty());
    }
}
