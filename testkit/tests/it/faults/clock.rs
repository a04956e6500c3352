//! The clock of one voter's node jumps, by libfaketime (Debian's package): what the process believes about
//! the time of day. Its monotonic clock goes on as ever, as it does when a real clock is set.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use testkit::outside::Outside;
use testkit::sites::{Distance, LIMIT};
use testkit::writes::Writes;
use testkit::{Sites, wait};
use wire::operator::proto::ListAuditRequest;

const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
const WEST: usize = 1;
const MINUTES: i64 = 5 * 60;
const DAY: i64 = 24 * 3600;
/// Writes that each time of day has to pass.
const WRITES: u64 = 30;

#[test]
fn a_clock_that_jumps_deposes_nobody_and_loses_nothing() {
    let Some(library) = library() else {
        println!(
            "skipped: faults::clock::a_clock_that_jumps_deposes_nobody_and_loses_nothing: needs \
             {LIBRARY} (Debian's package libfaketime)"
        );
        return;
    };
    let mut sites = Sites::prepare(&["east", "west", "south"], Distance::NONE).unwrap();
    let time = sites.folder().join("time");
    fs::write(&time, "+0").unwrap();
    sites[WEST].node_under = vec![
        "env".into(),
        format!("LD_PRELOAD={library}"),
        format!("FAKETIME_TIMESTAMP_FILE={}", time.display()),
        "FAKETIME_CACHE_DURATION=1".into(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
        "DONT_FAKE_MONOTONIC=1".into(),
    ];
    sites.run().unwrap();
    sites.federate().unwrap();
    sites.serve(WEST, "api").unwrap();
    sites.export(WEST, "api", &["east"]).unwrap();
    sites.route(0, &["api"]).unwrap();
    sites.until_answer(0, "api", WEST);
    let outside = Outside::start(&sites.target(0, "api"), 1);
    let writes = Writes::start(&sites);
    let (term, leader) = sites.settled().unwrap();
    for offset in [MINUTES, -MINUTES, DAY, -DAY] {
        let fresh = sites.folder().join("time.new");
        fs::write(&fresh, format!("{offset:+}")).unwrap();
        fs::rename(&fresh, &time).unwrap();
        until_it_believes(&sites, offset);
        let before = writes.acknowledged().writes;
        wait::until("writes", LIMIT, || {
            (writes.acknowledged().writes >= before + WRITES).then_some(())
        });
        assert_eq!(sites.settled().unwrap(), (term, leader), "{offset} s");
        outside.more(20);
    }
    fs::write(&time, "+0").unwrap();
    until_it_believes(&sites, 0);
    sites.settled().unwrap();
    let acknowledged = writes.end(&sites);
    for place in 0..3 {
        assert_eq!(acknowledged.missing(&sites, place).unwrap(), Vec::<String>::new());
    }
    outside.more(20);
    let seen = outside.end();
    println!("{} writes acknowledged; meanwhile: {seen}", acknowledged.writes);
    seen.assert_clean();
    assert!(seen.longest < Duration::from_secs(3), "{seen}");
}

fn library() -> Option<String> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    let paths = folders.map(|folder| folder.path().join(LIBRARY));
    paths.into_iter().find(|path| path.exists()).map(|path| path.display().to_string())
}

/// West's node dates what it puts on its audit record by its own clock; a writer there writes all the
/// time.
fn until_it_believes(sites: &Sites, offset: i64) {
    let node = sites.operator(WEST).unwrap();
    wait::until_ok("the node's clock", LIMIT, || {
        let asked = sites.runtime.block_on(node.list_audit(ListAuditRequest { last: 1 }));
        let entries = asked.map_err(anyhow::Error::msg)?.entries;
        let told = entries.last().map_or(0, |entry| entry.time_unix_ms / 1000);
        let off = i64::try_from(told)? - unix_s()?;
        anyhow::ensure!((off - offset).abs() < 60, "it is {off} s off");
        Ok(())
    });
}

fn unix_s() -> anyhow::Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(i64::try_from(now.as_secs())?)
}
