//! Which port of the gateways stands for which port of an import. Pure: what was given out is
//! written on the derived Services, and read from there again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use model::ServiceName;

use crate::config::PortPool;

/// The ports of gateways that are kept for imports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pool {
    pub(crate) first: u16,
    pub(crate) count: u16,
}

impl Pool {
    pub(crate) fn contains(self, port: u16) -> bool {
        port >= self.first && u32::from(port) < u32::from(self.first) + u32::from(self.count)
    }

    fn ports(self) -> impl Iterator<Item = u16> {
        (u32::from(self.first)..u32::from(self.first) + u32::from(self.count))
            .filter_map(|port| u16::try_from(port).ok())
    }
}

impl From<PortPool> for Pool {
    fn from(pool: PortPool) -> Self {
        Self { first: pool.first, count: pool.count }
    }
}

impl std::fmt::Display for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let last = (u32::from(self.first) + u32::from(self.count)).saturating_sub(1);
        write!(f, "{}-{last}", self.first)
    }
}

/// Pool ports by port of the import.
pub(super) type PoolPorts = BTreeMap<u16, u16>;

/// The outcome of [`allocate`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Allocation {
    pub(super) ports: BTreeMap<ServiceName, PoolPorts>,
    /// Imports with a port that found no place.
    pub(super) short: BTreeSet<ServiceName>,
}

/// Gives each port of each import a port of the pool.
///
/// What is `recorded` stays as long as it lies in the pool and nobody before in the order of names
/// has it. New ports come from above the highest one in use, then from the beginning: a port that
/// was freed is the last one to be used again, and not while it is `resting`.
pub(super) fn allocate(
    pool: Pool,
    recorded: &BTreeMap<ServiceName, PoolPorts>,
    wanted: &BTreeMap<ServiceName, BTreeSet<u16>>,
    resting: &BTreeSet<u16>,
) -> Allocation {
    let mut allocation = Allocation::default();
    let mut taken = BTreeSet::new();
    for (service, ports) in recorded {
        for (port, pool_port) in ports {
            let is_new = pool.contains(*pool_port) && taken.insert(*pool_port);
            if is_new && wanted.get(service).is_some_and(|wanted| wanted.contains(port)) {
                let kept = allocation.ports.entry(service.clone()).or_default();
                kept.insert(*port, *pool_port);
            }
        }
    }
    let highest = taken.last().copied().unwrap_or_default();
    let (below, above): (Vec<u16>, Vec<u16>) = pool
        .ports()
        .filter(|port| !taken.contains(port) && !resting.contains(port))
        .partition(|port| *port <= highest);
    let mut free = above.into_iter().chain(below);
    for (service, ports) in wanted {
        let given = allocation.ports.entry(service.clone()).or_default();
        for port in ports {
            if given.contains_key(port) {
                continue;
            }
            match free.next() {
                Some(pool_port) => {
                    given.insert(*port, pool_port);
                }
                None => {
                    allocation.short.insert(service.clone());
                }
            }
        }
    }
    allocation
}

/// Ports that were freed a moment ago. Connections to them, and tables of kube-proxy, may still be
/// about what they stood for.
#[derive(Debug, Default)]
pub(super) struct Resting {
    used: BTreeSet<u16>,
    freed: BTreeMap<u16, Timestamp>,
}

impl Resting {
    /// Takes note of what is in use now, and says what is to be left alone.
    pub(super) fn note(
        &mut self,
        used: BTreeSet<u16>,
        now: Timestamp,
        rest: Duration,
    ) -> BTreeSet<u16> {
        self.freed.retain(|port, since| !used.contains(port) && left(*since, now, rest).is_some());
        self.freed.extend(self.used.difference(&used).map(|port| (*port, now)));
        self.used = used;
        self.freed.keys().copied().collect()
    }

    /// When the first of them is free again.
    pub(super) fn ends_in(&self, now: Timestamp, rest: Duration) -> Option<Duration> {
        self.freed.values().filter_map(|since| left(*since, now, rest)).min()
    }
}

/// What is left of a rest. A wall clock that was set back ends it.
pub(super) fn left(since: Timestamp, now: Timestamp, rest: Duration) -> Option<Duration> {
    let passed = now.duration_since(since);
    let left = SignedDuration::try_from(rest).ok()?.checked_sub(passed)?;
    let left = Duration::try_from(left).ok()?;
    (!left.is_zero() && left <= rest).then_some(left)
}

/// `80=20000,443=20001`.
pub(super) fn to_text(ports: &PoolPorts) -> String {
    let pairs: Vec<String> =
        ports.iter().map(|(port, pool_port)| format!("{port}={pool_port}")).collect();
    pairs.join(",")
}

/// What cannot be read is not there: it is given out anew.
pub(super) fn from_text(text: &str) -> PoolPorts {
    let pair = |pair: &str| {
        let (port, pool_port) = pair.split_once('=')?;
        Some((port.parse().ok()?, pool_port.parse().ok()?))
    };
    text.split(',').filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: Pool = Pool { first: 20_000, count: 4 };

    fn name(text: &str) -> ServiceName {
        ServiceName::parse(&format!("shop/{text}")).unwrap()
    }

    fn wanted(rows: &[(&str, &[u16])]) -> BTreeMap<ServiceName, BTreeSet<u16>> {
        rows.iter()
            .map(|(service, ports)| (name(service), ports.iter().copied().collect()))
            .collect()
    }

    fn recorded(rows: &[(&str, &str)]) -> BTreeMap<ServiceName, PoolPorts> {
        rows.iter().map(|(service, text)| (name(service), from_text(text))).collect()
    }

    fn show(allocation: &Allocation) -> String {
        let rows = allocation.ports.iter().map(|(service, ports)| {
            let short = if allocation.short.contains(service) { "!" } else { "" };
            format!("{}{short}:{}", service.name, to_text(ports))
        });
        rows.collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check(
        before: &[(&str, &str)],
        services: &[(&str, &[u16])],
        resting: &[u16],
        expected: &str,
    ) {
        let resting = resting.iter().copied().collect();
        let found = allocate(POOL, &recorded(before), &wanted(services), &resting);
        assert_eq!(show(&found), expected);
    }

    #[test]
    fn every_port_of_an_import_gets_one_of_its_own() {
        check(&[], &[("a", &[80, 443]), ("b", &[80])], &[], "a:80=20000,443=20001 b:80=20002");
    }

    #[test]
    fn what_was_given_out_stays() {
        let before = &[("a", "80=20003"), ("b", "80=20001")];
        check(before, &[("a", &[80]), ("b", &[80])], &[], "a:80=20003 b:80=20001");
        check(before, &[("b", &[80])], &[], "b:80=20001");
        // The highest port is in use, so the search begins anew.
        check(before, &[("a", &[80, 81]), ("b", &[80])], &[], "a:80=20003,81=20000 b:80=20001");
    }

    #[test]
    fn a_freed_port_is_the_last_to_be_used_again() {
        let before = &[("b", "80=20001")];
        check(before, &[("b", &[80]), ("c", &[80])], &[20_000], "b:80=20001 c:80=20002");
        check(before, &[("b", &[80]), ("c", &[1, 2])], &[20_000], "b:80=20001 c:1=20002,2=20003");
        check(
            before,
            &[("b", &[80]), ("c", &[1, 2, 3])],
            &[],
            "b:80=20001 c:1=20002,2=20003,3=20000",
        );
    }

    #[test]
    fn an_import_that_is_still_there_keeps_its_ports_though_nobody_wants_it() {
        check(&[("gone", "80=20002")], &[("a", &[1, 2])], &[], "a:1=20003,2=20000");
    }

    #[test]
    fn what_is_written_is_not_believed_blindly() {
        let outside = &[("a", "80=443"), ("b", "80=20001"), ("c", "80=20001,x=1,7,=")];
        let services: &[(&str, &[u16])] = &[("a", &[80]), ("b", &[80]), ("c", &[80])];
        check(outside, services, &[], "a:80=20002 b:80=20001 c:80=20003");
    }

    #[test]
    fn an_exhausted_pool_says_who_is_short() {
        let services: &[(&str, &[u16])] = &[("a", &[1, 2, 3]), ("b", &[1, 2])];
        check(&[], services, &[], "a:1=20000,2=20001,3=20002 b!:1=20003");
        check(&[], services, &[20_001], "a:1=20000,2=20002,3=20003 b!:");
    }

    #[test]
    fn freed_ports_rest() {
        let (rest, start) = (Duration::from_secs(60), Timestamp::UNIX_EPOCH);
        let mut resting = Resting::default();
        let used = |ports: &[u16]| ports.iter().copied().collect::<BTreeSet<u16>>();
        assert_eq!(resting.note(used(&[1, 2]), start, rest), used(&[]));
        assert_eq!(resting.note(used(&[2]), start, rest), used(&[1]));
        let later = start + Duration::from_secs(59);
        assert_eq!(resting.ends_in(later, rest), Some(Duration::from_secs(1)));
        assert_eq!(resting.note(used(&[2]), later, rest), used(&[1]));
        assert_eq!(resting.note(used(&[2]), start + rest, rest), used(&[]));
        assert_eq!(resting.note(used(&[1]), start + rest, rest), used(&[2]));
        assert_eq!(resting.note(used(&[1, 2]), start + rest, rest), used(&[]), "in use again");
        assert_eq!(resting.note(used(&[1]), start + rest, rest), used(&[2]));
        assert_eq!(resting.note(used(&[1]), start, rest), used(&[]), "the clock was set back");
    }

    #[test]
    fn a_pool_may_end_where_ports_end() {
        let pool = Pool { first: 65_535, count: 1 };
        assert!(pool.contains(65_535) && !pool.contains(65_534));
        assert_eq!(pool.ports().collect::<Vec<_>>(), [65_535]);
        assert_eq!(pool.to_string(), "65535-65535");
    }
}
