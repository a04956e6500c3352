//! The fleet's state as the store's state machine.

use model::Revision;
use prost::Message as _;
use wire::store::proto;
use wire::store::{ProposeReply, Refusal};

use crate::fleet::FleetState;
use crate::store::{KvWrite, Machine, Outcome, Pair};

/// [`FleetState`] behind the store's seam. The reply of a command is an encoded `ProposeReply`.
#[derive(Debug, Clone)]
pub(crate) struct FleetMachine(pub(crate) FleetState);

impl Machine for FleetMachine {
    fn load(pairs: Vec<Pair>) -> Result<Self, String> {
        FleetState::load(pairs).map(Self).map_err(|error| error.to_string())
    }

    fn to_kv(&self) -> Vec<Pair> {
        self.0.to_kv()
    }

    fn apply(&mut self, revision: Revision, command: &[u8]) -> Outcome {
        match self.0.apply(revision, command) {
            Ok(applied) => Outcome {
                reply: encode(&ProposeReply::Accepted(applied.revision)),
                writes: applied
                    .writes
                    .into_iter()
                    .map(|write| KvWrite { key: write.key, value: write.value })
                    .collect(),
            },
            Err(refusal) => {
                let refusal = Refusal { code: Some(refusal.code), text: refusal.text };
                Outcome { reply: encode(&ProposeReply::Refused(refusal)), writes: Vec::new() }
            }
        }
    }

    fn follows(&self, before: &Self) -> Result<(), String> {
        self.0.rolls_back(&before.0).map_or(Ok(()), Err)
    }
}

fn encode(reply: &ProposeReply) -> Vec<u8> {
    reply.encode().encode_to_vec()
}

/// What [`FleetMachine::apply`] replied.
pub(crate) fn decode_reply(bytes: &[u8]) -> Result<ProposeReply, String> {
    let reply = proto::ProposeReply::decode(bytes).map_err(|error| error.to_string())?;
    ProposeReply::decode(reply).map_err(|error| error.to_string())
}
