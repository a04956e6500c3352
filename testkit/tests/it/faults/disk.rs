//! The disk of one voter's node is full, slow, or fails.

use std::time::{Duration, Instant};

use testkit::disk::{self, Disk, Syncs};
use testkit::outside::Outside;
use testkit::sites::{Distance, LIMIT};
use testkit::writes::Writes;
use testkit::{Sites, wait};

const SMALL_BYTES: u64 = 64 * 1024 * 1024;
const SLOW: Duration = Duration::from_millis(600);
const EAST: usize = 0;
const WEST: usize = 1;

#[test]
fn a_disk_is_full_slow_or_broken_and_only_its_own_node_stops_writing() {
    if let Some(reason) = disk::unavailable(&["unshare", "nsenter", "strace"]) {
        println!(
            "skipped: faults::disk::a_disk_is_full_slow_or_broken_and_only_its_own_node_stops_writing: \
             {reason}"
        );
        return;
    }
    let mut sites = Sites::prepare(&["east", "west", "south"], Distance::NONE).unwrap();
    let place = sites.folder().join("disk");
    let disk = Disk::small(&place, SMALL_BYTES).unwrap();
    sites[WEST].node_under = disk.under();
    sites[WEST].move_federation_data(&place.join("west")).unwrap();
    sites.run().unwrap();
    sites.federate().unwrap();
    sites.serve(WEST, "api").unwrap();
    sites.export(WEST, "api", &["east"]).unwrap();
    sites.route(EAST, &["api"]).unwrap();
    sites.until_answer(EAST, "api", WEST);
    let outside = Outside::start(&sites.target(EAST, "api"), 1);
    let writes = Writes::start(&sites);
    until_writes(&writes, 20);

    syncs_are_slow(&sites, &writes);
    the_disk_is_full(&mut sites, &disk, &writes);
    syncs_fail(&mut sites, &writes);

    let acknowledged = writes.end(&sites);
    for place in 0..3 {
        assert_eq!(acknowledged.missing(&sites, place).unwrap(), Vec::<String>::new());
    }
    outside.more(20);
    let seen = outside.end();
    println!("{} writes acknowledged; meanwhile: {seen}", acknowledged.writes);
    seen.assert_clean();
}

fn until_writes(writes: &Writes, more: u64) -> Duration {
    let (begun, before) = (Instant::now(), writes.acknowledged().writes);
    wait::until("acknowledged writes", LIMIT, || {
        (writes.acknowledged().writes >= before + more).then(|| begun.elapsed())
    })
}

/// Makes west lead, for it to be the one with the bad disk.
fn lead(sites: &Sites) {
    wait::until_ok("west to lead", LIMIT, || {
        let (_, leader) = sites.settled()?;
        if leader != WEST {
            sites[leader].fedctl(&["store", "transfer", "--to", "west"])?;
            anyhow::bail!("{leader} led");
        }
        Ok(())
    });
}

/// As a follower's and as the leader's.
fn syncs_are_slow(sites: &Sites, writes: &Writes) {
    for leads in [false, true] {
        if leads {
            lead(sites);
        }
        let log = sites.folder().join("strace.log");
        let slow = Syncs::slow(sites[WEST].federation.as_ref().unwrap(), SLOW, &log).unwrap();
        let took = until_writes(writes, 20);
        slow.end().unwrap();
        let (term, leader) = sites.settled().unwrap();
        println!(
            "syncs of west take {SLOW:?} more (leader: {leads}): 20 writes in {took:?}, then term \
             {term} of {leader}"
        );
    }
}

/// The node stops writing and says why; the others go on. With room and a restart it takes part again.
fn the_disk_is_full(sites: &mut Sites, disk: &Disk, writes: &Writes) {
    lead(sites);
    disk.fill().unwrap();
    until_writes(writes, 20);
    until_problem(sites, "No space left");
    disk.free().unwrap();
    back(sites, writes);
}

/// A sync that failed once is never taken for one that succeeded.
fn syncs_fail(sites: &mut Sites, writes: &Writes) {
    lead(sites);
    let log = sites.folder().join("strace.log");
    let failing = Syncs::fail(sites[WEST].federation.as_ref().unwrap(), &log).unwrap();
    until_writes(writes, 20);
    until_problem(sites, "");
    failing.end().unwrap();
    back(sites, writes);
}

fn until_problem(sites: &mut Sites, words: &str) {
    let begun = Instant::now();
    let problem = wait::until("west's own words about it", LIMIT, || {
        let problem = sites.store(WEST)?.problem;
        (!problem.is_empty() && problem.contains(words)).then_some(problem)
    });
    println!("west said after {:?}: {problem}", begun.elapsed());
}

/// After a restart of the node, as its service manager would do it or a person.
fn back(sites: &mut Sites, writes: &Writes) {
    sites[WEST].kill_federation().unwrap();
    sites[WEST].start_federation().unwrap();
    let begun = Instant::now();
    sites.settled().unwrap();
    println!("west took part again {:?} after its start", begun.elapsed());
    until_writes(writes, 20);
}
