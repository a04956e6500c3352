//! Exchanges: one bidirectional stream each, whose directions may move to a bulk connection.

mod moved;
mod recv;
mod send;

use std::sync::{Arc, OnceLock};

use http::Method;
use model::Transport;
use quinn::VarInt;
use wire::tunnel::{StreamKind, StreamReset};

use crate::link::{Link, PeerIdentity};
use crate::tunnel::Shared;

pub(crate) use moved::{Resumed, Resumes};
pub(crate) use recv::FrameReader;
pub use recv::{Part, RecvHalf};
pub use send::SendHalf;

/// A request, TCP connection or the like, from either end of it. The halves may be used by
/// different tasks; what is dropped unfinished is reset as `cancelled`.
#[derive(Debug)]
pub struct Exchange {
    pub send: SendHalf,
    pub recv: RecvHalf,
}

impl Exchange {
    /// The gateway at the other end.
    pub fn peer(&self) -> &Arc<PeerIdentity> {
        &self.send.life().link.peer
    }

    /// What carries it; a direction that moves goes on over the same.
    pub fn transport(&self) -> Transport {
        self.send.life().link.transport()
    }

    /// The dialler's or acceptor's worker, of ours, that drives the stream.
    pub fn worker(&self) -> u8 {
        self.send.life().link.worker
    }
}

/// What both halves share; while it lives the exchange counts as open.
pub(crate) struct Life {
    /// The link that the exchange began on.
    pub(crate) link: Arc<Link>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) kind: StreamKind,
    /// The request's method, once it is known: it decides which responses have bodies.
    pub(crate) method: OnceLock<Method>,
}

impl Life {
    pub(crate) fn begin(link: &Arc<Link>, shared: &Arc<Shared>, kind: StreamKind) -> Arc<Self> {
        shared.counts.of(link.worker).exchanges_begun();
        if link.begin_exchange() {
            // A talk begins, on every link of the pair.
            shared.registry.peek().pair_of(link).for_each(|other| other.wake.notify_one());
        }
        let (link, shared) = (Arc::clone(link), Arc::clone(shared));
        Arc::new(Self { link, shared, kind, method: OnceLock::new() })
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.link.end_exchange();
        self.shared.end_exchange(self.link.worker);
    }
}

impl std::fmt::Debug for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Life").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The QUIC application error code of a reset.
pub(crate) fn stream_code(reset: StreamReset) -> VarInt {
    VarInt::from_u64(reset.pack()).expect("a packed reset fits a varint")
}
