//! Replacing links before the SVIDs of their handshakes end.
//!
//! A connection proves identity once, at its handshake, so it does not outlive its SVIDs by much: it is ended
//! hard then, with all that runs on it. Long before, whoever dialled it dials another one for the same place,
//! with the SVIDs of that day. Both sides put new exchanges on the younger one. The older one goes when its last
//! exchange has ended, and at the latest as if nobody had replaced it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use model::{ClusterPeer, Transport};
use tokio::time::timeout;
use wire::tunnel::ErrorCode;

use crate::limits::{
    REPLACE_AFTER_PERCENT, REPLACE_JITTER_PERCENT, REPLACE_PAUSE_MAX, REPLACE_PROOF_TIMEOUT,
};
use crate::link::Link;
use crate::tunnel::{Place, Shared, format_address};

use super::connect::{Connector, Outcome};
use super::ports::Taken;

/// When a link is to be replaced that was established now and whose first SVID ends at `ends_at`, but not
/// before the age of `least`. `random` is uniform in 0..1.
pub(crate) fn replace_at(
    now: SystemTime,
    ends_at: SystemTime,
    least: Duration,
    random: f64,
) -> SystemTime {
    let left = ends_at.duration_since(now).unwrap_or_default();
    let jitter = f64::from(REPLACE_JITTER_PERCENT) * random.clamp(0.0, 1.0);
    now + left.mul_f64((f64::from(REPLACE_AFTER_PERCENT) + jitter) / 100.0).max(least)
}

/// The pauses of one place after replacements that came to nothing.
#[derive(Debug)]
pub(super) struct Pauses {
    least: Duration,
    failures: u32,
    until: Option<Instant>,
}

impl Pauses {
    pub(super) fn new(least: Duration) -> Self {
        Self { least, failures: 0, until: None }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// `random` is uniform in 0..1. No pause is shorter than the least: the link that is there lives.
    pub(super) fn failed(&mut self, now: Instant, random: f64) {
        let doubled = self.least.saturating_mul(1 << self.failures.min(16));
        let pause = doubled.min(REPLACE_PAUSE_MAX.max(self.least));
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + pause.mul_f64(1.0 + random.clamp(0.0, 1.0)));
    }

    pub(super) fn succeeded(&mut self) {
        (self.failures, self.until) = (0, None);
    }
}

/// The link of a place that is to be replaced now; of several the one whose time came first. None before
/// this side has an SVID that ends later than the link's do: another link would be no better.
pub(super) fn due(
    shared: &Shared,
    place: &Place,
    transport: Transport,
    now: SystemTime,
) -> Option<Arc<Link>> {
    let own_end = shared.identity.load().svid.as_ref()?.not_after();
    let links = shared.registry.peek();
    let of_place = links.of_cluster(&place.cluster).iter().filter(|link| {
        let parts = (link.dialled, link.class, link.slot, link.transport());
        parts == (true, place.class, place.worker, transport)
    });
    let due = of_place.filter(|link| {
        let stays =
            link.is_live() && !link.is_retiring() && !link.is_unproven() && !link.peer_draining();
        stays && link.replace_at <= now && link.ends_at < own_end
    });
    let peers = shared.peers.borrow().clone();
    let peer = peers.iter().find(|peer| peer.name == place.cluster)?;
    let due = due.filter(|link| is_looked_after(link, place, peer));
    due.min_by_key(|link| link.replace_at).cloned()
}

/// A link is replaced at the address that it was dialled at; if that is none of the peer's any more, at any.
fn is_looked_after(link: &Link, place: &Place, peer: &ClusterPeer) -> bool {
    let Some(address) = &link.address else { return false };
    *address == format_address(&place.address)
        || !peer.addresses.iter().any(|other| *address == format_address(other))
}

impl Connector {
    /// Dials a link in the place of `older`; `None`: that one stays for now.
    pub(super) async fn replace(&self, older: &Arc<Link>) -> Option<(Arc<Link>, Taken)> {
        let shared = &self.context.shared;
        match self.dial(&[older.peer.gateway], Some(older)).await {
            // If the older one has ended meanwhile, it is a link like any other.
            Outcome::Linked(link, taken) => {
                let is_used = !link.replaces || take_over(shared, older, &link).await;
                is_used.then_some((link, taken))
            }
            Outcome::Other => {
                tracing::debug!(
                    cluster = %older.peer.cluster, gateway = %older.peer.gateway,
                    "no better link was found in a link's place"
                );
                None
            }
            Outcome::Failed(error) => {
                tracing::warn!(
                    cluster = %older.peer.cluster, gateway = %older.peer.gateway, code = %error.code,
                    error = %error.text, "a link could not be replaced; it serves on until its SVIDs end"
                );
                shared.note_place_error(&self.place, error);
                None
            }
        }
    }
}

/// Takes `younger` into use in the place of `older`, once the peer has shown that it uses it. `false`: it
/// did not, and the older one stays.
pub(super) async fn take_over(shared: &Shared, older: &Link, younger: &Arc<Link>) -> bool {
    if !timeout(REPLACE_PROOF_TIMEOUT, younger.proven()).await.unwrap_or(false) {
        let text = "the peer did not show in time that it uses the connection";
        shared.end_link(younger, ErrorCode::NoError, text);
        return false;
    }
    older.retire_for_younger(true);
    older.wake.notify_one();
    shared.counts.of(younger.worker).links_replaced();
    shared.changed();
    shared.way_found();
    tracing::info!(
        cluster = %younger.peer.cluster, gateway = %younger.peer.gateway, worker = younger.worker,
        class = younger.class.as_str(), transport = younger.transport().as_str(),
        in_flight = older.in_flight(), "link replaced"
    );
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_link_is_replaced_half_way_to_the_first_end_and_some_later_than_others() {
        let (now, least) = (SystemTime::now(), Duration::from_secs(60));
        let after = |left: Duration, random| {
            replace_at(now, now + left, least, random).duration_since(now).unwrap()
        };
        assert_eq!(after(DAY, 0.0), DAY / 2);
        assert_eq!(after(DAY, 1.0).as_secs(), 86_400 * 6 / 10);
        assert_eq!(after(DAY, 7.0), after(DAY, 1.0), "bounded");
        assert_eq!(after(Duration::from_secs(10), 1.0), least, "not ever so often");
        let ended = replace_at(now, now - DAY, least, 0.5);
        assert_eq!(ended.duration_since(now).unwrap(), least);
    }

    #[test]
    fn pauses_double_are_bounded_and_never_short() {
        let (mut pauses, now) = (Pauses::new(Duration::from_secs(60)), Instant::now());
        assert!(pauses.is_over(now));
        let mut pause = |random| {
            pauses.failed(now, random);
            assert!(!pauses.is_over(now));
            (pauses.until.unwrap() - now).as_secs()
        };
        let shortest: Vec<_> = (0..6).map(|_| pause(0.0)).collect();
        assert_eq!(shortest, [60, 120, 240, 480, 600, 600]);
        assert_eq!(pause(1.0), 1200);
        pauses.succeeded();
        assert!(pauses.is_over(now));
        pauses.failed(now, 0.0);
        assert!(!pauses.is_over(now + Duration::from_secs(59)));
        assert!(pauses.is_over(now + Duration::from_secs(60)));
        // Where the least is long already, it is not cut.
        let mut pauses = Pauses::new(REPLACE_PAUSE_MAX * 2);
        pauses.failed(now, 0.0);
        assert!(!pauses.is_over(now + REPLACE_PAUSE_MAX));
    }
}
