//! A voter's store is damaged while its node is down: a torn end, a flipped bit, another node's store.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testkit::outside::Outside;
use testkit::sites::{Distance, LIMIT};
use testkit::writes::Writes;
use testkit::{Process, Sites, wait};

const WEST: usize = 1;
const SOUTH: usize = 2;

#[test]
fn a_torn_end_is_forgiven_and_a_damaged_or_foreign_store_never_votes() {
    let mut sites = Sites::start(&["east", "west", "south"], Distance::NONE).unwrap();
    sites.serve(WEST, "api").unwrap();
    sites.export(WEST, "api", &["east"]).unwrap();
    sites.route(0, &["api"]).unwrap();
    sites.until_answer(0, "api", WEST);
    let outside = Outside::start(&sites.target(0, "api"), 1);
    let writes = Writes::start(&sites);
    wait::until("writes", LIMIT, || (writes.acknowledged().writes >= 40).then_some(()));
    let acknowledged = writes.end(&sites);

    let store = sites[WEST].spec.folder.join("federation/store");
    // A write that nobody was told of ends in the middle.
    down(&mut sites);
    let log = newest_log(&store);
    let mut torn = fs::read(&log).unwrap();
    torn.extend_from_within(..7);
    fs::write(&log, torn).unwrap();
    up(&mut sites);

    // Cut short in the middle of what was acknowledged.
    down(&mut sites);
    let log = newest_log(&store);
    let length = fs::metadata(&log).unwrap().len();
    fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(length / 2).unwrap();
    up(&mut sites);

    assert!(!store.with_file_name("store.damaged-1").exists(), "a torn end is no damage");

    another_nodes_store_is_refused(&mut sites, &store);
    for place in 0..3 {
        assert_eq!(acknowledged.missing(&sites, place).unwrap(), Vec::<String>::new());
    }
    a_flipped_bit_ends_its_vote(&mut sites, &store);
    for place in [0, SOUTH] {
        assert_eq!(acknowledged.missing(&sites, place).unwrap(), Vec::<String>::new());
    }
    outside.more(20);
    let seen = outside.end();
    println!("meanwhile: {seen}");
    seen.assert_clean();
}

/// In the middle of what was acknowledged: the store is kept beside, and the node that begins an empty
/// one takes part in nothing.
fn a_flipped_bit_ends_its_vote(sites: &mut Sites, store: &Path) {
    down(sites);
    flip(&newest_log(store));
    sites[WEST].start_federation().unwrap();
    let told = sites[WEST].log("federation");
    assert!(told.contains("the store is damaged"), "{told}");
    assert!(store.with_file_name("store.damaged-1").join("CURRENT").exists());
    sites.led_by_one_of(&[0, SOUTH]);
    let write = ["token", "issue", "spare", "--roles", "none", "--force"];
    wait::until_ok("a write without west", LIMIT, || sites[0].fedctl(&write));
    let votes =
        sites.store(WEST).is_some_and(|store| store.mode == "member" && store.problem.is_empty());
    assert!(!votes, "it votes with an empty log: {:?}", sites.store(WEST));
}

fn down(sites: &mut Sites) {
    sites[WEST].kill_federation().unwrap();
}

/// It votes again, by itself.
fn up(sites: &mut Sites) {
    let begun = std::time::Instant::now();
    sites[WEST].start_federation().unwrap();
    sites.settled().unwrap();
    println!("west voted again {:?} after its start", begun.elapsed());
}

fn newest_log(store: &Path) -> PathBuf {
    let files = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|ending| ending == "log"));
    let has = |path: &PathBuf| fs::metadata(path).unwrap().len() > 0;
    logs.filter(has).max().expect("RocksDB has a log")
}

/// A bit in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

fn another_nodes_store_is_refused(sites: &mut Sites, store: &Path) {
    down(sites);
    sites[SOUTH].kill_federation().unwrap();
    let own = store.with_file_name("own");
    fs::rename(store, &own).unwrap();
    let foreign = sites[SOUTH].spec.folder.join("federation/store");
    copy(&foreign, store);
    sites[SOUTH].start_federation().unwrap();
    sites[WEST].spawn_federation().unwrap();
    wait::until("west's node to refuse", Duration::from_secs(20), || {
        let running = sites[WEST].federation.as_mut().is_some_and(Process::is_running);
        (!running).then_some(())
    });
    let told = sites[WEST].log("federation");
    assert!(told.contains("FED6311") && told.contains("belongs to node"), "{told}");
    fs::remove_dir_all(store).unwrap();
    fs::rename(&own, store).unwrap();
    up(sites);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}
