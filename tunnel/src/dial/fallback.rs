//! The way over TCP to an address, for as long as QUIC does not get through. QUIC is dialled meanwhile as
//! ever; once it has stood for a moment, the connection over TCP goes, when its exchanges have ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::ExpectedPeer;
use model::{ClusterName, PeerAddress, Transport};
use tokio::time::{sleep, timeout};
use wire::tunnel::ConnectionClass;

use super::connect::{DialFailure, resolve};
use super::replace::{self, Pauses, take_over};
use crate::backoff::Backoff;
use crate::carrier::Connection;
use crate::control;
use crate::hello::{Dialled, Purpose, greet};
use crate::limits::{
    DIAL_BACKOFF_MAX, DIAL_CHECK_INTERVAL, FALLBACK_AFTER, FALLBACK_RETIRES_AFTER,
    HANDSHAKE_TIMEOUT,
};
use crate::link::Link;
use crate::tcp;
use crate::tunnel::{Place, format_address};
use crate::worker::WorkerContext;

pub(super) struct Fallback {
    context: Arc<WorkerContext>,
    cluster: ClusterName,
    address: PeerAddress,
    judge: Judge,
    backoff: Backoff,
    paused_until: Instant,
    replace_pauses: Pauses,
}

impl Fallback {
    pub(super) fn new(
        context: Arc<WorkerContext>,
        cluster: ClusterName,
        address: PeerAddress,
    ) -> Self {
        let (judge, paused_until) = (Judge::default(), Instant::now());
        let backoff = Backoff::up_to(DIAL_BACKOFF_MAX);
        let replace_pauses = Pauses::new(context.shared.config.limits.replace_interval_min);
        Self { context, cluster, address, judge, backoff, paused_until, replace_pauses }
    }

    pub(super) async fn run(mut self) {
        let mut changes = self.context.shared.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let now = Instant::now();
            match self.next(now) {
                Next::Dial if now >= self.paused_until => self.dial_all().await,
                Next::Retire => self.retire(),
                Next::Nothing => self.replace_due(now).await,
                Next::Dial => {}
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep(DIAL_CHECK_INTERVAL) => {}
            }
        }
    }

    fn next(&mut self, now: Instant) -> Next {
        let shared = &self.context.shared;
        if shared.is_draining() {
            return Next::Nothing;
        }
        let links = shared.registry.load();
        let sound_since = links.sound_since(&self.cluster);
        self.judge.next(sound_since, links.fallbacks(&self.cluster).next().is_some(), now)
    }

    /// The listener only prefers QUIC: who dialled it ends it.
    fn retire(&self) {
        for link in self.context.shared.registry.load().fallbacks(&self.cluster) {
            if link.dialled {
                link.retire(true);
                link.wake.notify_one();
            }
        }
    }

    async fn dial_all(&mut self) {
        match self.dial(None).await {
            Ok(_) => self.backoff.succeeded(),
            Err(error) => {
                let address = format_address(&self.address);
                tracing::debug!(cluster = %self.cluster, %address, %error, "dial over TCP failed");
                self.paused_until = Instant::now() + self.backoff.failed(rand::random());
            }
        }
    }

    /// Where QUIC does not come back for so long that the SVIDs of this link come to an end.
    async fn replace_due(&mut self, now: Instant) {
        let shared = &self.context.shared;
        if !self.replace_pauses.is_over(now) || shared.is_draining() {
            return;
        }
        let (cluster, address) = (self.cluster.clone(), self.address.clone());
        let (class, worker) = (ConnectionClass::Fast, self.context.index);
        let place = Place { cluster, address, class, worker };
        let wall = shared.now().1;
        let Some(older) = replace::due(shared, &place, Transport::Tcp, wall) else { return };
        let is_replaced = match self.dial(Some(&older)).await {
            Ok(younger) => !younger.replaces || take_over(shared, &older, &younger).await,
            Err(error) => {
                tracing::debug!(cluster = %self.cluster, %error, "a link over TCP was not replaced");
                false
            }
        };
        if is_replaced {
            self.replace_pauses.succeeded();
        } else {
            self.replace_pauses.failed(Instant::now(), rand::random());
        }
    }

    /// Tries each address of the host.
    async fn dial(&self, older: Option<&Arc<Link>>) -> Result<Arc<Link>, DialFailure> {
        let remotes = resolve(&self.address.host, self.address.port).await;
        let mut failure = DialFailure::NotNeeded;
        for remote in remotes.map_err(DialFailure::Address)? {
            let shared = &self.context.shared;
            let svid = shared.identity.load().svid.clone().ok_or(DialFailure::NoSvid)?;
            let expected = ExpectedPeer::Cluster(self.cluster.clone());
            let limits = &shared.config.limits;
            let dialling = tcp::dial(
                shared.local_addr,
                remote,
                &shared.identity,
                expected,
                limits,
                &shared.tasks,
            );
            let connection = match timeout(HANDSHAKE_TIMEOUT, dialling).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(error)) => {
                    failure = error.into();
                    continue;
                }
                Err(_) => {
                    failure = DialFailure::NoTcpAnswer;
                    continue;
                }
            };
            let dialled = Dialled {
                cluster: self.cluster.clone(),
                address: format_address(&self.address),
                svid_not_after: svid.not_after(),
                replaces: older.cloned(),
            };
            match self.greet(Connection::Tcp(Arc::new(connection)), dialled).await {
                Ok(link) => return Ok(link),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn greet(
        &self,
        connection: Connection,
        dialled: Dialled,
    ) -> Result<Arc<Link>, DialFailure> {
        let (worker, class) = (self.context.index, ConnectionClass::Fast);
        let purpose = Purpose { worker, class, dialled: Some(dialled), spreads: false };
        let greeted = greet(&self.context.shared, connection, purpose).await?;
        control::start(&self.context, greeted).ok_or(DialFailure::NotNeeded)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Nothing,
    Dial,
    /// QUIC is back, to stay.
    Retire,
}

/// When TCP is needed, and when not any more. Pure.
#[derive(Debug, Default)]
struct Judge {
    /// Since when the cluster has had no sound QUIC connection.
    bare_since: Option<Instant>,
}

impl Judge {
    fn next(&mut self, sound_since: Option<Instant>, has_fallback: bool, now: Instant) -> Next {
        let lasts = |since: Instant, long: Duration| now.saturating_duration_since(since) >= long;
        match sound_since {
            Some(since) => {
                self.bare_since = None;
                let stands = has_fallback && lasts(since, FALLBACK_RETIRES_AFTER);
                if stands { Next::Retire } else { Next::Nothing }
            }
            None => {
                let bare_since = *self.bare_since.get_or_insert(now);
                let is_due = !has_fallback && lasts(bare_since, FALLBACK_AFTER);
                if is_due { Next::Dial } else { Next::Nothing }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_is_dialled_when_quic_is_missed_and_goes_when_it_has_stood() {
        let (mut judge, start) = (Judge::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(judge.next(None, false, at(0)), Next::Nothing, "QUIC has its chance");
        assert_eq!(judge.next(None, false, at(999)), Next::Nothing);
        assert_eq!(judge.next(None, false, at(1000)), Next::Dial);
        assert_eq!(judge.next(None, true, at(1100)), Next::Nothing, "it is there");
        assert_eq!(judge.next(Some(at(5000)), true, at(5100)), Next::Nothing, "does QUIC stay?");
        assert_eq!(judge.next(None, true, at(5200)), Next::Nothing, "it did not");
        assert_eq!(judge.next(Some(at(6000)), true, at(9000)), Next::Retire);
        assert_eq!(judge.next(Some(at(6000)), false, at(9100)), Next::Nothing);
        assert_eq!(judge.next(None, false, at(9200)), Next::Nothing, "counted anew");
        assert_eq!(judge.next(None, false, at(10_200)), Next::Dial);
    }
}
