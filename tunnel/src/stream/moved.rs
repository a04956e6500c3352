//! Where a direction that left its stream by MOVED meets the stream that goes on with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::GatewayId;
use tokio::sync::oneshot;
use wire::tunnel::limits::RESUMES_PARKED_MAX;
use wire::tunnel::{ErrorCode, FrameDecoder, MoveToken};

use crate::carrier::RecvStream;
use crate::link::Link;

/// A stream that began with RESUME, and what was read of it beyond that.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) stream: RecvStream,
    pub(crate) decoder: FrameDecoder,
    pub(crate) link: Arc<Link>,
}

/// One table per process: MOVED and RESUME may come to different workers, in either order. The
/// gateway is part of the key, so that no other peer can go on with an exchange, whatever it knows.
#[derive(Debug, Default)]
pub(crate) struct Resumes(Mutex<HashMap<(GatewayId, MoveToken), Meeting>>);

#[derive(Debug)]
enum Meeting {
    /// RESUME came first.
    Parked(Resumed),
    /// MOVED came first.
    Awaited(oneshot::Sender<Resumed>),
}

/// A RESUME that was not taken.
#[derive(Debug)]
pub(crate) struct Unwanted {
    pub(crate) resumed: Resumed,
    reason: Reason,
}

impl Unwanted {
    pub(crate) fn code(&self) -> ErrorCode {
        match self.reason {
            Reason::TooMany => ErrorCode::Overloaded,
            Reason::Repeated => ErrorCode::FrameOutOfOrder,
            Reason::Gone => ErrorCode::Cancelled,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The pair has as many parked as it may.
    TooMany,
    /// The token was used twice.
    Repeated,
    /// The exchange ended meanwhile.
    Gone,
}

impl Resumes {
    /// A RESUME stream arrived. `Ok(true)`: it waits for its MOVED, and should be given up later.
    pub(crate) fn arrive(&self, token: MoveToken, resumed: Resumed) -> Result<bool, Box<Unwanted>> {
        let gateway = resumed.link.peer.gateway;
        let key = (gateway, token);
        let mut meetings = self.lock();
        match meetings.remove(&key) {
            Some(Meeting::Awaited(reader)) => {
                let gone = |resumed| Box::new(Unwanted { resumed, reason: Reason::Gone });
                reader.send(resumed).map(|()| false).map_err(gone)
            }
            Some(parked @ Meeting::Parked(_)) => {
                meetings.insert(key, parked);
                Err(Box::new(Unwanted { resumed, reason: Reason::Repeated }))
            }
            None => {
                let parked = |meeting: &Meeting| matches!(meeting, Meeting::Parked(_));
                let count =
                    meetings.iter().filter(|((g, _), m)| *g == gateway && parked(m)).count();
                if count >= RESUMES_PARKED_MAX {
                    return Err(Box::new(Unwanted { resumed, reason: Reason::TooMany }));
                }
                meetings.insert(key, Meeting::Parked(resumed));
                Ok(true)
            }
        }
    }

    /// Gives up a RESUME whose MOVED did not come; what is returned is to be stopped.
    pub(crate) fn expire(&self, gateway: GatewayId, token: MoveToken) -> Option<Resumed> {
        let mut meetings = self.lock();
        match meetings.remove(&(gateway, token))? {
            Meeting::Parked(resumed) => Some(resumed),
            awaited => {
                meetings.insert((gateway, token), awaited);
                None
            }
        }
    }

    /// A link ended: what was parked from it goes with it.
    pub(crate) fn forget_link(&self, link: &Arc<Link>) {
        let is_of_link = |meeting: &Meeting| match meeting {
            Meeting::Parked(resumed) => Arc::ptr_eq(&resumed.link, link),
            Meeting::Awaited(_) => false,
        };
        let gone: Vec<_> = self.lock().extract_if(|_, meeting| is_of_link(meeting)).collect();
        drop(gone); // outside the lock: a stream that is dropped locks its connection
    }

    /// A MOVED arrived: where its RESUME comes, or has come already.
    pub(crate) fn await_resume(
        self: &Arc<Self>,
        gateway: GatewayId,
        token: MoveToken,
    ) -> AwaitedResume {
        let (sender, receiver) = oneshot::channel();
        let key = (gateway, token);
        let mut meetings = self.lock();
        match meetings.remove(&key) {
            Some(Meeting::Parked(resumed)) => {
                let _ = sender.send(resumed);
            }
            // A second MOVED of one token: the later one waits, the first one fails at once.
            _ => {
                meetings.insert(key, Meeting::Awaited(sender));
            }
        }
        drop(meetings);
        AwaitedResume { receiver, key, resumes: Arc::clone(self) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(GatewayId, MoveToken), Meeting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader's claim on a RESUME stream; dropping it takes it back.
#[derive(Debug)]
pub(crate) struct AwaitedResume {
    pub(crate) receiver: oneshot::Receiver<Resumed>,
    key: (GatewayId, MoveToken),
    resumes: Arc<Resumes>,
}

impl Drop for AwaitedResume {
    fn drop(&mut self) {
        self.receiver.close();
        let mut meetings = self.resumes.lock();
        if let Some(Meeting::Awaited(sender)) = meetings.get(&self.key)
            && sender.is_closed()
        {
            meetings.remove(&self.key);
        }
    }
}
