//! The disk of one voter's node is full, slow, or fails.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use testkit::disk::{self, Disk, Syncs};
use testkit::outside::Outside;
use testkit::sites::{Distance, LIMIT};
use testkit::writes::Writes;
use testkit::{Sites, wait};

const SMALL_BYTES: u64 = 64 * 1024 * 1024;
/// Less than an eighth of it, and more than the node needs.
const SHORT_BYTES: u64 = 6 * 1024 * 1024;
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

/// As a follower's and as the leader's.
fn syncs_are_slow(sites: &Sites, writes: &Writes) {
    for leads in [false, true] {
        if leads {
            sites.lead(WEST);
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

/// It is told before. Then the node stops writing and says why, and serves its gateway on; the others
/// write on. A start in vain says what is missing. With room it takes part again.
fn the_disk_is_full(sites: &mut Sites, disk: &Disk, writes: &Writes) {
    sites.lead(WEST);
    disk.fill_to(SHORT_BYTES).unwrap();
    wait::until_ok("words about the room", LIMIT, || {
        let told = sites[WEST].fedctl(&["diagnostics"])?;
        anyhow::ensure!(told.contains("FED6313"), "{told}");
        Ok(())
    });
    assert_eq!(sites.store(WEST).unwrap().problem, "");
    disk.free().unwrap();

    disk.fill().unwrap();
    until_writes(writes, 20);
    until_problem(sites, "No space left");
    serves_on(sites);
    disk.free().unwrap();
    let told = ended(sites);
    assert!(told.contains("FED6311") && told.contains("the disk takes writes"), "{told}");

    disk.fill().unwrap();
    sites[WEST].spawn_federation().unwrap();
    let told = ended(sites);
    assert!(told.contains("FED6311") && told.contains("bytes free, and the node needs"), "{told}");
    disk.free().unwrap();
    back(sites, writes);
}

/// A sync that failed once is never taken for one that succeeded.
fn syncs_fail(sites: &mut Sites, writes: &Writes) {
    sites.lead(WEST);
    let log = sites.folder().join("strace.log");
    let failing = Syncs::fail(sites[WEST].federation.as_ref().unwrap(), &log).unwrap();
    until_writes(writes, 20);
    until_problem(sites, "");
    serves_on(sites);
    failing.end().unwrap();
    let told = ended(sites);
    assert!(told.contains("FED6311") && told.contains("the disk takes writes"), "{told}");
    back(sites, writes);
}

/// A change in west's own manifests reaches its gateway, with whatever store.
fn serves_on(sites: &mut Sites) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("late-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let before = revision(sites);
    sites.serve(WEST, &name).unwrap();
    wait::until("a revision after the fault", LIMIT, || (revision(sites) > before).then_some(()));
}

/// The newest that west's gateway has.
fn revision(sites: &Sites) -> u64 {
    let told = sites[WEST].json(&["status"]).unwrap();
    let gateway = &told["gateways"][0];
    gateway["revision"].as_str().and_then(|it| it.rsplit('.').next()?.parse().ok()).unwrap_or(0)
}

/// West's node has ended by itself, as a failure; returns what it has said.
fn ended(sites: &mut Sites) -> String {
    let begun = Instant::now();
    let status = sites[WEST].until_federation_ended().unwrap();
    println!("west ended after {:?}: {status}", begun.elapsed());
    assert_eq!(status.code(), Some(1));
    let told = sites[WEST].log("federation");
    let last = told.lines().rev().find(|line| line.starts_with("error: "));
    last.unwrap_or_default().to_owned()
}

fn until_problem(sites: &mut Sites, words: &str) {
    let begun = Instant::now();
    let problem = wait::until("west's own words about it", LIMIT, || {
        let problem = sites.store(WEST)?.problem;
        (!problem.is_empty() && problem.contains(words)).then_some(problem)
    });
    println!("west said after {:?}: {problem}", begun.elapsed());
}

/// Its service manager starts it again.
fn back(sites: &mut Sites, writes: &Writes) {
    sites[WEST].start_federation().unwrap();
    let begun = Instant::now();
    sites.settled().unwrap();
    println!("west took part again {:?} after its start", begun.elapsed());
    until_writes(writes, 20);
}
