//! An application in a site that calls a service all the time, of which no request may fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use testkit::outside::{Ledger, Outside, Target};
use wan::netns::Netns;

/// A client in a site. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Load(Outside);

impl Load {
    /// Calls `host` at `gateway` from inside of the namespace.
    pub(crate) fn start(netns: &Arc<Netns>, gateway: SocketAddr, host: String) -> Self {
        let mut target = Target::new(gateway, host);
        target.pause = Duration::ZERO;
        Self(Outside::start_in(netns, &target, 1))
    }

    pub(crate) fn requests(&self) -> u64 {
        self.0.ledger().requests
    }

    /// Waits for so many good answers one after the other.
    pub(crate) fn until_good(&self, requests: u64, limit: Duration) -> Duration {
        self.0.until_good(requests, limit)
    }

    /// Stops it, and tells what it saw, failures too.
    pub(crate) fn stop(self) -> Ledger {
        self.0.end()
    }

    /// Stops it, once it has had some more answers.
    ///
    /// # Panics
    /// When a request failed.
    pub(crate) fn end(self) -> Ledger {
        self.0.more(5);
        let seen = self.0.end();
        seen.assert_clean();
        seen
    }
}

/// One GET on a connection of its own, from the caller's namespace: the body, or what went wrong.
pub(crate) fn get(gateway: SocketAddr, host: &str) -> Result<String, String> {
    Target::new(gateway, host).get().map_err(|miss| miss.to_string())
}
