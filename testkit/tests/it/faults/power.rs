//! All voters lose power at once: what was not synced never reached the disk.

use std::time::Duration;

use testkit::disk::{self, Disk};
use testkit::outside::Outside;
use testkit::sites::{Distance, LIMIT};
use testkit::writes::Writes;
use testkit::{Sites, wait};

const ROUNDS: usize = 3;
const WRITES: u64 = 40;

#[test]
fn all_voters_lose_power_at_once_and_nothing_acknowledged_is_lost() {
    if let Some(reason) = disk::unavailable(&["unshare", "nsenter", "mkfs.xfs", "xfs_io"]) {
        println!(
            "skipped: faults::power::all_voters_lose_power_at_once_and_nothing_acknowledged_is_lost: \
             {reason}"
        );
        return;
    }
    let mut sites = Sites::prepare(&["east", "west", "south"], Distance::NONE).unwrap();
    let place = sites.folder().join("disk");
    let disk = Disk::durable(&place).unwrap();
    for site in sites.iter_mut() {
        site.node_under = disk.under();
        site.move_federation_data(&place.join(&site.spec.name)).unwrap();
    }
    sites.run().unwrap();
    sites.federate().unwrap();
    sites.serve(1, "api").unwrap();
    sites.export(1, "api", &["east"]).unwrap();
    sites.route(0, &["api"]).unwrap();
    sites.until_answer(0, "api", 1);
    let outside = Outside::start(&sites.target(0, "api"), 1);
    for round in 0..ROUNDS {
        let writes = Writes::start(&sites);
        wait::until("writes", LIMIT, || (writes.acknowledged().writes >= WRITES).then_some(()));
        let unsynced = place.join("unsynced").display().to_string();
        let out = format!("of={unsynced}");
        disk.run("dd", &["if=/dev/zero", &out, "bs=64k", "count=1"]).unwrap();
        disk.run("test", &["-s", &unsynced]).unwrap();
        disk.power_off().unwrap();
        for site in sites.iter_mut() {
            site.kill_federation().unwrap();
        }
        let acknowledged = writes.end(&sites);
        disk.power_on().unwrap();
        disk.run("test", &["-s", &unsynced]).expect_err("this disk loses nothing");
        for site in sites.iter_mut() {
            site.start_federation().unwrap();
        }
        sites.settled().unwrap();
        for place in 0..3 {
            let missing = acknowledged.missing(&sites, place).unwrap();
            assert_eq!(missing, Vec::<String>::new(), "round {round}, place {place}");
        }
        println!(
            "round {round}: {} acknowledged writes, all there; {} of unknown outcome",
            acknowledged.writes, acknowledged.unknown
        );
    }
    outside.more(20);
    let seen = outside.end();
    println!("meanwhile: {seen}");
    seen.assert_clean();
    assert!(seen.longest < Duration::from_secs(3), "{seen}");
}
