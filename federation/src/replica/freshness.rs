//! How old each owner's word is, as this node has heard it: pure, the clock is a parameter.
//!
//! An owner signs its Head anew every 30 s. A copy counts only if it was *issued* later than every
//! one before it, so that a relay that repeats an old one keeps nobody fresh; its age counts from its
//! receipt here, on this node's monotonic clock, so that nobody's wall clock matters (DESIGN §6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use model::ClusterId;
use wire::store::Mark;

use super::limits::{
    OWNERS_MAX, QUORUM_WORD_LIFETIME, STALE_AFTER_DEFAULT, WITHDRAWN_AFTER_DEFAULT,
};

/// The two ages that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreshnessConfig {
    /// From this age on an owner's word is marked as stale; it stays in service.
    pub stale_after: Duration,
    /// From this age on, without a live tunnel, the owner's exports leave what gateways get.
    pub withdrawn_after: Duration,
}

impl Default for FreshnessConfig {
    fn default() -> Self {
        Self { stale_after: STALE_AFTER_DEFAULT, withdrawn_after: WITHDRAWN_AFTER_DEFAULT }
    }
}

/// What the age of an owner's word means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Fresh,
    /// Shown, and still in service.
    Stale,
    /// Its exports are out of service until it is heard of again.
    Withdrawn,
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// Which of two Heads of one owner is the later: by its mark, then by its time of issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Issue {
    pub mark: Mark,
    pub issued_at_unix_ms: u64,
}

/// What survives a restart: age is kept, since a monotonic clock is not. Time that the process was
/// not running is not counted, as nothing could be heard then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeptAge {
    pub(super) issue: Issue,
    pub(super) age: Duration,
    /// The part that counts towards withdrawal.
    pub(super) expiry_age: Duration,
}

/// One owner's line for operators and for those who withdraw exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerAge {
    pub owner: ClusterId,
    pub issue: Issue,
    /// Since the last fresh Head came.
    pub age: Duration,
    pub standing: Standing,
    pub live_tunnel: bool,
}

/// The ages of all owners.
#[derive(Debug)]
pub(super) struct Freshness {
    config: FreshnessConfig,
    own: ClusterId,
    owners: BTreeMap<ClusterId, Heard>,
    live: BTreeSet<ClusterId>,
    expiry: ExpiryClock,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    issue: Issue,
    /// When it came, less the age it had at the last restart.
    at: Instant,
    age_before: Duration,
    /// The expiry clock's reading at which withdrawal begins to count, less what counted before.
    expiry_at: Duration,
    expiry_before: Duration,
}

impl Freshness {
    pub(super) fn new(own: ClusterId, config: FreshnessConfig, now: Instant) -> Self {
        let expiry = ExpiryClock { total: Duration::ZERO, last: now, quorum_until: None };
        Self { config, own, owners: BTreeMap::new(), live: BTreeSet::new(), expiry }
    }

    /// An owner as it was known before a restart.
    pub(super) fn restore(&mut self, owner: ClusterId, kept: KeptAge, now: Instant) {
        self.expiry.advance(now);
        let heard = Heard {
            issue: kept.issue,
            at: now,
            age_before: kept.age,
            expiry_at: self.expiry.total,
            expiry_before: kept.expiry_age,
        };
        self.insert(owner, heard);
    }

    /// Takes note of a verified Head, from whatever path. `false`: an older or equal one was known,
    /// so that this one says nothing new.
    pub(super) fn hear(&mut self, owner: ClusterId, issue: Issue, now: Instant) -> bool {
        self.expiry.advance(now);
        if self.owners.get(&owner).is_some_and(|heard| heard.issue >= issue) {
            return false;
        }
        let heard = Heard {
            issue,
            at: now,
            age_before: Duration::ZERO,
            expiry_at: self.expiry.total,
            expiry_before: Duration::ZERO,
        };
        self.insert(owner, heard)
    }

    /// Forgets owners that are members no more.
    pub(super) fn retain(&mut self, members: impl Fn(&ClusterId) -> bool) {
        self.owners.retain(|owner, _| members(owner));
    }

    /// Clusters to which this cluster's gateways have a live tunnel at the moment.
    pub(super) fn set_live_tunnels(&mut self, live: BTreeSet<ClusterId>, now: Instant) {
        self.advance(now);
        self.live = live;
        self.advance(now);
    }

    /// Somebody who knows said that the store has a quorum. The word holds for a while only; without
    /// it expiry stands still, since then nobody's silence can be told from the store's own.
    pub(super) fn quorum_heard(&mut self, now: Instant) {
        self.expiry.advance(now);
        self.expiry.quorum_until = Some(now + QUORUM_WORD_LIFETIME);
    }

    /// All owners that have ever been heard of, in order of id.
    pub(super) fn owners(&mut self, now: Instant) -> Vec<OwnerAge> {
        self.advance(now);
        let age = |(owner, heard): (&ClusterId, &Heard)| OwnerAge {
            owner: *owner,
            issue: heard.issue,
            age: heard.age(now),
            standing: self.judge(owner, heard, now),
            live_tunnel: self.live.contains(owner),
        };
        self.owners.iter().map(age).collect()
    }

    /// Owners whose exports are not to be served.
    pub(super) fn withdrawn(&mut self, now: Instant) -> BTreeSet<ClusterId> {
        let owners = self.owners(now).into_iter();
        let gone = owners.filter(|owner| owner.standing == Standing::Withdrawn);
        gone.map(|owner| owner.owner).collect()
    }

    /// What is to be on disk, for [`Self::restore`].
    pub(super) fn keep(&mut self, now: Instant) -> Vec<(ClusterId, KeptAge)> {
        self.advance(now);
        let kept = |(owner, heard): (&ClusterId, &Heard)| {
            let expiry_age = heard.expiry_age(self.expiry.total);
            (*owner, KeptAge { issue: heard.issue, age: heard.age(now), expiry_age })
        };
        self.owners.iter().map(kept).collect()
    }

    fn judge(&self, owner: &ClusterId, heard: &Heard, now: Instant) -> Standing {
        let expired = heard.expiry_age(self.expiry.total) >= self.config.withdrawn_after;
        if *owner == self.own {
            Standing::Fresh
        } else if expired && !self.live.contains(owner) {
            Standing::Withdrawn
        } else if heard.age(now) >= self.config.stale_after {
            Standing::Stale
        } else {
            Standing::Fresh
        }
    }

    /// Brings the expiry clock up to now, and starts it anew for owners with a live tunnel: a tunnel
    /// that blinks after a day of silence is no reason to withdraw at once.
    fn advance(&mut self, now: Instant) {
        self.expiry.advance(now);
        for owner in &self.live {
            if let Some(heard) = self.owners.get_mut(owner) {
                heard.expiry_at = self.expiry.total;
                heard.expiry_before = Duration::ZERO;
            }
        }
    }

    fn insert(&mut self, owner: ClusterId, heard: Heard) -> bool {
        // The table follows the member list, which `apply` bounds; this is the belt to its braces.
        let room = self.owners.len() < OWNERS_MAX || self.owners.contains_key(&owner);
        if room {
            self.owners.insert(owner, heard);
        }
        room
    }
}

impl Heard {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at) + self.age_before
    }

    fn expiry_age(&self, total: Duration) -> Duration {
        total.saturating_sub(self.expiry_at) + self.expiry_before
    }
}

/// Counts the time for which the store was known to have a quorum.
#[derive(Debug)]
struct ExpiryClock {
    total: Duration,
    last: Instant,
    quorum_until: Option<Instant>,
}

impl ExpiryClock {
    fn advance(&mut self, now: Instant) {
        if let Some(until) = self.quorum_until {
            self.total += until.min(now).saturating_duration_since(self.last);
        }
        self.last = self.last.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: ClusterId = ClusterId::from_bytes([1; 16]);
    const SOUTH: ClusterId = ClusterId::from_bytes([2; 16]);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn issue(generation: u64, issued_at_unix_ms: u64) -> Issue {
        Issue { mark: Mark { epoch: 1, generation }, issued_at_unix_ms }
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn standing(freshness: &mut Freshness, owner: ClusterId, now: Instant) -> Standing {
        let owners = freshness.owners(now);
        let found = owners.iter().find(|known| known.owner == owner);
        found.map_or(Standing::Stale, |known| known.standing)
    }

    /// A clock that a test moves, and an observer that hears of the quorum all the time.
    struct World {
        freshness: Freshness,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            let now = Instant::now();
            let mut freshness = Freshness::new(OWN, FreshnessConfig::default(), now);
            freshness.hear(SOUTH, issue(1, 1_000), now);
            Self { freshness, now }
        }

        fn pass(&mut self, time: Duration, quorum: bool) -> Standing {
            let end = self.now + time;
            while self.now < end {
                if quorum {
                    self.freshness.quorum_heard(self.now);
                }
                self.now = end.min(self.now + secs(10));
            }
            standing(&mut self.freshness, SOUTH, self.now)
        }
    }

    #[test]
    fn an_owner_goes_from_fresh_to_stale_to_withdrawn_and_back() {
        let mut world = World::new();
        assert_eq!(world.pass(secs(89), true), Standing::Fresh);
        assert_eq!(world.pass(secs(1), true), Standing::Stale);
        assert_eq!(world.pass(DAY - secs(91), true), Standing::Stale);
        assert_eq!(world.pass(secs(1), true), Standing::Withdrawn);
        assert_eq!(world.freshness.withdrawn(world.now), BTreeSet::from([SOUTH]));
        assert!(world.freshness.hear(SOUTH, issue(1, 31_000), world.now));
        assert_eq!(world.pass(secs(1), true), Standing::Fresh);
        assert!(world.freshness.withdrawn(world.now).is_empty());
    }

    #[test]
    fn a_repeated_head_keeps_nobody_fresh() {
        let mut world = World::new();
        for _ in 0..4 {
            world.pass(secs(30), true);
            assert!(!world.freshness.hear(SOUTH, issue(1, 1_000), world.now));
            assert!(!world.freshness.hear(SOUTH, issue(0, 900_000), world.now));
        }
        assert_eq!(world.pass(secs(1), true), Standing::Stale);
        let line = world.freshness.owners(world.now)[0];
        assert_eq!((line.age, line.issue), (secs(121), issue(1, 1_000)));
    }

    #[test]
    fn a_newer_generation_counts_even_if_the_owners_clock_went_back() {
        let mut world = World::new();
        assert_eq!(world.pass(secs(100), true), Standing::Stale);
        assert!(world.freshness.hear(SOUTH, issue(2, 5), world.now));
        assert_eq!(world.pass(secs(1), true), Standing::Fresh);
    }

    #[test]
    fn a_live_tunnel_keeps_an_owner_in_service_and_a_blink_does_not_end_it() {
        let mut world = World::new();
        world.freshness.set_live_tunnels(BTreeSet::from([SOUTH]), world.now);
        assert_eq!(world.pass(DAY * 3, true), Standing::Stale);
        assert!(world.freshness.owners(world.now)[0].live_tunnel);
        world.freshness.set_live_tunnels(BTreeSet::new(), world.now);
        assert_eq!(world.pass(DAY - secs(1), true), Standing::Stale);
        assert_eq!(world.pass(secs(1), true), Standing::Withdrawn);
        // A tunnel that comes up again brings it back.
        world.freshness.set_live_tunnels(BTreeSet::from([SOUTH]), world.now);
        assert_eq!(world.pass(secs(1), true), Standing::Stale);
    }

    #[test]
    fn expiry_stands_still_while_no_quorum_is_known() {
        let mut world = World::new();
        assert_eq!(world.pass(DAY * 10, false), Standing::Stale);
        // A word of a quorum holds for a while, then expiry stands still again.
        world.freshness.quorum_heard(world.now);
        world.pass(DAY * 10, false);
        let kept = world.freshness.keep(world.now)[0].1;
        assert_eq!(kept.expiry_age, QUORUM_WORD_LIFETIME);
        assert_eq!(kept.age, DAY * 20);
        assert_eq!(world.pass(DAY - QUORUM_WORD_LIFETIME, true), Standing::Withdrawn);
    }

    #[test]
    fn ages_go_on_after_a_restart_and_old_heads_stay_old() {
        let mut world = World::new();
        world.pass(secs(80), true);
        let kept = world.freshness.keep(world.now);
        let now = Instant::now();
        let mut again = Freshness::new(OWN, FreshnessConfig::default(), now);
        for (owner, age) in kept {
            again.restore(owner, age, now);
        }
        assert_eq!(standing(&mut again, SOUTH, now + secs(9)), Standing::Fresh);
        assert!(!again.hear(SOUTH, issue(1, 1_000), now + secs(9)));
        assert_eq!(standing(&mut again, SOUTH, now + secs(10)), Standing::Stale);
    }

    #[test]
    fn oneself_is_always_fresh_and_a_stranger_never() {
        let (mut world, stranger) = (World::new(), ClusterId::from_bytes([9; 16]));
        world.freshness.hear(OWN, issue(1, 1), world.now);
        world.pass(DAY * 2, true);
        assert_eq!(standing(&mut world.freshness, OWN, world.now), Standing::Fresh);
        assert_eq!(standing(&mut world.freshness, stranger, world.now), Standing::Stale);
        world.freshness.retain(|owner| *owner == OWN);
        assert_eq!(world.freshness.owners(world.now).len(), 1);
    }
}
