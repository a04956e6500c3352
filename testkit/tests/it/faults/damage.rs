//! A voter's store is damaged while its node is down: a torn end, a flipped bit, another node's store.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use testkit::outside::Outside;
use testkit::sites::{Distance, LIMIT};
use testkit::writes::Writes;
use testkit::{Process, Sites, wait};

const EAST: usize = 0;
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
    let log = newest(&store, "log");
    let mut torn = fs::read(&log).unwrap();
    torn.extend_from_within(..7);
    fs::write(&log, torn).unwrap();
    up(&mut sites);

    // Cut short in the middle of what was acknowledged.
    down(&mut sites);
    cut(&newest(&store, "log"));
    up(&mut sites);

    assert!(!store.with_file_name("store.damaged-1").exists(), "a torn end is no damage");

    another_nodes_store_is_refused(&mut sites, &store);
    for place in 0..3 {
        assert_eq!(acknowledged.missing(&sites, place).unwrap(), Vec::<String>::new());
    }
    let halved = |store: &Path| cut(&newest(store, "sst"));
    damage_ends_a_vote_until_the_node_is_taken_in_again(&mut sites, WEST, "half a table", halved);
    let flipped = |store: &Path| flip(&newest(store, "log"));
    damage_ends_a_vote_until_the_node_is_taken_in_again(&mut sites, WEST, "a bit", flipped);
    // Who founded the federation was fed by nobody before.
    damage_ends_a_vote_until_the_node_is_taken_in_again(&mut sites, EAST, "its bit", flipped);
    let gone = |store: &Path| fs::remove_dir_all(store).unwrap();
    damage_ends_a_vote_until_the_node_is_taken_in_again(&mut sites, SOUTH, "the folder", gone);
    for place in 0..3 {
        assert_eq!(acknowledged.missing(&sites, place).unwrap(), Vec::<String>::new());
    }
    outside.more(20);
    let seen = outside.end();
    println!("meanwhile: {seen}");
    seen.assert_clean();
}

/// The node takes part in nothing with an empty log. It finds the others by what it has kept beside the
/// store, is let go by them and taken in again, with everything that was acknowledged.
fn damage_ends_a_vote_until_the_node_is_taken_in_again(
    sites: &mut Sites,
    place: usize,
    what: &str,
    harm: impl FnOnce(&Path),
) {
    let store = sites[place].spec.folder.join("federation/store");
    let before = damaged_stores(&store);
    sites[place].kill_federation().unwrap();
    harm(&store);
    let begun = Instant::now();
    sites[place].start_federation().unwrap();
    let told = sites[place].log("federation");
    let kept = damaged_stores(&store) - before;
    match store_is_gone(&told) {
        true => assert_eq!(kept, 0),
        false => assert!(told.contains("the store is damaged") && kept == 1, "{told}"),
    }
    let others: Vec<usize> = (0..=SOUTH).filter(|other| *other != place).collect();
    sites.led_by_one_of(&others);
    let write = ["token", "issue", "spare", "--roles", "none", "--force"];
    wait::until_ok("a write by the others", LIMIT, || sites[others[0]].fedctl(&write));
    wait::until_ok("the node to vote again", LIMIT, || {
        sites[place].fedctl(&["store", "status"])?;
        let store = sites.store(place).context("no word")?;
        anyhow::ensure!(store.mode == "member" && store.problem.is_empty(), "{store:?}");
        Ok(())
    });
    let back = begun.elapsed();
    sites.lead(place);
    println!(
        "{what}: {place} voted again {back:?} after its start, and led {:?} after it",
        begun.elapsed()
    );
}

fn damaged_stores(store: &Path) -> usize {
    (1..10)
        .filter(|number| store.with_file_name(format!("store.damaged-{number}")).exists())
        .count()
}

fn store_is_gone(told: &str) -> bool {
    told.lines()
        .rev()
        .find(|line| line.contains("re-seeding"))
        .is_some_and(|it| it.contains("gone"))
}

fn down(sites: &mut Sites) {
    sites[WEST].kill_federation().unwrap();
}

/// It votes again, by itself.
fn up(sites: &mut Sites) {
    let begun = Instant::now();
    sites[WEST].start_federation().unwrap();
    sites.settled().unwrap();
    println!("west voted again {:?} after its start", begun.elapsed());
}

fn newest(store: &Path, ending: &str) -> PathBuf {
    let files = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let named = files.filter(|path| path.extension().is_some_and(|it| it == ending));
    let has = |path: &PathBuf| fs::metadata(path).unwrap().len() > 0;
    named.filter(has).max().expect("RocksDB has one")
}

fn cut(path: &Path) {
    let length = fs::metadata(path).unwrap().len();
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length / 2).unwrap();
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
