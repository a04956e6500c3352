//! Whether a place is to be dialled, and whom to reach. Pure.
//!
//! Which gateways answer at an address is known after the first contacts only, and several may: a
//! load balancer in front of them chooses by the source port. The cluster's gateways name each other,
//! so that it is known who is still to be reached.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use model::GatewayId;
use wire::tunnel::ConnectionClass;
use wire::tunnel::limits::DIAL_TAKEOVER_MS;

use crate::limits::ALIAS_DELAY;

const DIAL_TAKEOVER: Duration = Duration::from_millis(DIAL_TAKEOVER_MS as u64);

/// A gateway of the peer cluster that stays, as one place sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) gateway: GatewayId,
    /// The pair has a link in this place's slot and class.
    pub(crate) is_covered: bool,
    /// The peer dials this class itself.
    pub(crate) peer_dials: bool,
    /// The pair has a fast link in this place's slot, whose port leads there.
    pub(crate) has_fast: bool,
    pub(crate) at: Whereabouts,
}

/// Where a gateway answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// At this address, and at so many before it in the peer's list.
    Here { before: u32 },
    /// At others only.
    Elsewhere,
    /// It was named only, or dialled us.
    Unknown,
}

/// What to do about a place now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    Nothing,
    /// Nobody who stays is known at the address: one connection is enough to learn who is there.
    Meet,
    /// These are missing, in ascending order.
    Reach(Vec<GatewayId>),
}

/// One place, with what it remembers from one look to the next.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) own: GatewayId,
    pub(crate) class: ConnectionClass,
    pub(crate) worker: u8,
    /// Since when a gateway has had no link that serves the place.
    bare_since: HashMap<GatewayId, Instant>,
}

impl Choice {
    pub(crate) fn new(own: GatewayId, class: ConnectionClass, worker: u8) -> Self {
        Self { own, class, worker, bare_since: HashMap::new() }
    }

    pub(crate) fn next(&mut self, candidates: &[Candidate], now: Instant) -> Next {
        let missing = candidates.iter().filter(|candidate| self.is_missing(candidate));
        let missing: Vec<_> = missing.collect();
        self.bare_since.retain(|gateway, _| missing.iter().any(|m| m.gateway == *gateway));
        let is_here = |candidate: &Candidate| matches!(candidate.at, Whereabouts::Here { .. });
        if !candidates.iter().any(is_here) {
            return if self.meets() { Next::Meet } else { Next::Nothing };
        }
        let mut due = Vec::new();
        for candidate in missing {
            let since = *self.bare_since.entry(candidate.gateway).or_insert(now);
            if now.saturating_duration_since(since) >= self.delay(candidate) {
                due.push(candidate.gateway);
            }
        }
        due.sort_unstable();
        if due.is_empty() { Next::Nothing } else { Next::Reach(due) }
    }

    /// Whoever is not known yet is met by one worker, on a fast connection.
    fn meets(&self) -> bool {
        self.worker == 0 && self.class == ConnectionClass::Fast
    }

    fn is_missing(&self, candidate: &Candidate) -> bool {
        let is_the_peers = self.own > candidate.gateway && candidate.peer_dials;
        let is_known = self.meets() || candidate.at != Whereabouts::Unknown;
        !candidate.is_covered && !is_the_peers && is_known
    }

    /// The smaller id dials at once, the larger if nothing comes. Of several addresses of one gateway
    /// the first is tried first, and others where it has not been seen are tried last.
    fn delay(&self, candidate: &Candidate) -> Duration {
        let takeover = if self.own > candidate.gateway { DIAL_TAKEOVER } else { Duration::ZERO };
        let alias = match candidate.at {
            Whereabouts::Here { before } => ALIAS_DELAY * before,
            Whereabouts::Unknown => ALIAS_DELAY,
            Whereabouts::Elsewhere => DIAL_TAKEOVER,
        };
        let waits_for_fast = self.class == ConnectionClass::Bulk && !candidate.has_fast;
        takeover + alias + if waits_for_fast { DIAL_TAKEOVER } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> GatewayId {
        GatewayId::from_bytes([byte; 16])
    }

    fn here(byte: u8) -> Candidate {
        Candidate {
            gateway: id(byte),
            is_covered: false,
            peer_dials: false,
            has_fast: true,
            at: Whereabouts::Here { before: 0 },
        }
    }

    fn fast(worker: u8) -> Choice {
        Choice::new(id(5), ConnectionClass::Fast, worker)
    }

    fn reach(bytes: &[u8]) -> Next {
        Next::Reach(bytes.iter().copied().map(id).collect())
    }

    const SOON: Duration = Duration::from_millis(1);

    #[test]
    fn one_connection_meets_who_is_not_known() {
        let now = Instant::now();
        assert_eq!(fast(0).next(&[], now), Next::Meet);
        assert_eq!(fast(1).next(&[], now), Next::Nothing);
        assert_eq!(Choice::new(id(5), ConnectionClass::Bulk, 0).next(&[], now), Next::Nothing);
        let named = Candidate { at: Whereabouts::Unknown, ..here(9) };
        assert_eq!(fast(0).next(&[named], now), Next::Meet, "it may be here");
        let covered = Candidate { is_covered: true, ..here(9) };
        assert_eq!(fast(0).next(&[covered], now), Next::Nothing);
    }

    #[test]
    fn who_is_named_is_looked_for_where_another_one_answers() {
        let start = Instant::now();
        let known = Candidate { is_covered: true, ..here(7) };
        let named = Candidate { at: Whereabouts::Unknown, ..here(9) };
        let mut first = fast(0);
        assert_eq!(first.next(&[known, named], start), Next::Nothing);
        assert_eq!(first.next(&[known, named], start + ALIAS_DELAY), reach(&[9]));
        let later = start + ALIAS_DELAY * 9;
        assert_eq!(fast(1).next(&[known, named], later), Next::Nothing, "worker 0 finds it");
        // Once it is found, every slot goes there.
        let mut second = fast(1);
        assert_eq!(second.next(&[known, here(9)], start), reach(&[9]));
    }

    #[test]
    fn the_larger_id_waits_and_leaves_it_to_who_dials() {
        let start = Instant::now();
        let mut choice = fast(0);
        assert_eq!(choice.next(&[here(3)], start), Next::Nothing);
        assert_eq!(choice.next(&[here(3)], start + DIAL_TAKEOVER - SOON), Next::Nothing);
        assert_eq!(choice.next(&[here(3)], start + DIAL_TAKEOVER), reach(&[3]));
        let dials = Candidate { peer_dials: true, ..here(3) };
        assert_eq!(choice.next(&[dials], start + DIAL_TAKEOVER), Next::Nothing);
        // Whoever was there in between is waited for anew.
        let again = start + DIAL_TAKEOVER + SOON;
        assert_eq!(choice.next(&[here(3)], again), Next::Nothing);
        assert_eq!(choice.next(&[here(3)], again + DIAL_TAKEOVER), reach(&[3]));
        let smaller = Candidate { peer_dials: true, ..here(7) };
        assert_eq!(fast(0).next(&[smaller], start), reach(&[7]), "ours to dial");
    }

    #[test]
    fn a_second_address_waits_and_a_bulk_one_follows_its_fast_one() {
        let start = Instant::now();
        let mut choice = fast(0);
        let alias = Candidate { at: Whereabouts::Here { before: 2 }, ..here(9) };
        assert_eq!(choice.next(&[alias], start), Next::Nothing);
        assert_eq!(choice.next(&[alias], start + ALIAS_DELAY * 2), reach(&[9]));
        let mut choice = fast(1);
        let known = Candidate { is_covered: true, ..here(7) };
        let elsewhere = Candidate { at: Whereabouts::Elsewhere, ..here(9) };
        assert_eq!(choice.next(&[known, elsewhere], start), Next::Nothing);
        assert_eq!(choice.next(&[known, elsewhere], start + DIAL_TAKEOVER), reach(&[9]));
        let mut bulk = Choice::new(id(5), ConnectionClass::Bulk, 1);
        let alone = Candidate { has_fast: false, ..here(9) };
        assert_eq!(bulk.next(&[alone], start), Next::Nothing);
        assert_eq!(bulk.next(&[here(9)], start + SOON), reach(&[9]));
    }
}
