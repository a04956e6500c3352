//! The Debian package, and `docs/guide/three-machines.md` run as it stands on three machines that are
//! namespaces. The daemons are started as their installed units say.

mod machine;
mod package;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wan::netns::Netns;
use wan::{Impairment, PortConfig, TunConfig, TunRouter};

use machine::Machine;

const GUIDE: &str = include_str!("../../../docs/guide/three-machines.md");
const MACHINES: [(&str, &str); 3] =
    [("east", "192.0.2.1/24"), ("west", "198.51.100.1/24"), ("south", "203.0.113.1/24")];
/// Of one block.
const LIMIT: Duration = Duration::from_secs(120);
const DELAY: Duration = Duration::from_millis(5);

#[test]
fn every_command_of_the_guide_works() {
    if let Some(reason) = machine::unavailable() {
        println!("skipped: three_machines::every_command_of_the_guide_works: {reason}");
        return;
    }
    let [package, later] = package::packages();
    let folder = tempfile::Builder::new().prefix("fg-three-").tempdir().unwrap();
    let world = World::build(folder.path());
    for machine in world.machines.values() {
        machine.receive(package);
    }
    let mut told = String::new();
    for block in blocks(GUIDE) {
        for name in block.names("machine") {
            let machine = &world.machines[name];
            if let Some(file) = block.name("file") {
                machine.write(file, &block.text);
                continue;
            }
            for file in block.names("carry") {
                machine.receive(&world.machines["east"].home(file));
            }
            if block.name("upgrade").is_some() {
                std::fs::remove_file(machine.home(package.file_name().unwrap().to_str().unwrap()))
                    .unwrap();
                machine.receive(later);
            }
            told += &machine.run(&block.text, LIMIT);
        }
    }
    for sign in ["founded.", "Joined", "hello from west", "quic fast", "configuration read again"] {
        assert!(told.contains(sign), "{sign} is missing:\n{told}");
    }
    world.managers_were_told();
}

struct World {
    machines: BTreeMap<&'static str, Machine>,
    _router: TunRouter,
    _netns: Vec<Arc<Netns>>,
}

impl World {
    fn build(folder: &Path) -> Self {
        let netns = MACHINES.map(|(name, _)| Arc::new(Netns::create(name).unwrap()));
        let ports = std::iter::zip(MACHINES, &netns)
            .map(|((name, address), netns)| PortConfig::new(name, netns.name()).address(address));
        let ports = ports.collect();
        let config = TunConfig { ports, impairment: Impairment::delayed(DELAY), seed: 7 };
        let router = TunRouter::start(config).unwrap();
        let start =
            |((name, _), netns): (_, &Arc<Netns>)| (name, Machine::start(name, netns, folder));
        let machines = std::iter::zip(MACHINES, &netns).map(start).collect();
        Self { machines, _router: router, _netns: netns.into() }
    }

    /// By the daemons, over the socket that they were given.
    fn managers_were_told(&self) {
        let west = &self.machines["west"];
        for (unit, status) in [
            ("fedgate-federation", "STATUS=west keeps the federation's store with others"),
            ("fedgate-gateway", "STATUS=ready"),
        ] {
            let told = west.notified(unit);
            for line in [status, "WATCHDOG=1", "STOPPING=1", "EXIT=0"] {
                assert!(
                    told.lines().any(|told| told == line),
                    "{unit}: {line} is missing:\n{told}"
                );
            }
            // Before and after the upgrade.
            assert_eq!(told.lines().filter(|line| *line == "READY=1").count(), 2, "{told}");
            // To the journal: a priority, no time.
            let log = west.log(unit);
            assert!(log.lines().any(|line| line.starts_with("<6> INFO ")), "{log}");
        }
        let south = &self.machines["south"];
        let left = ["/var/lib/fedgate", "/usr/bin/fedctl"].map(|path| south.path(path).exists());
        assert_eq!(left, [false, false], "the purge left something");
        assert!(south.path("/etc/fedgate/federation.yaml").exists());
    }
}

/// A fenced block that says where it belongs: `sh machine=east`, `yaml machine=west file=/etc/...`.
struct Block {
    words: BTreeMap<String, String>,
    text: String,
}

impl Block {
    fn name(&self, word: &str) -> Option<&str> {
        self.words.get(word).map(String::as_str)
    }

    fn names(&self, word: &str) -> impl Iterator<Item = &str> {
        self.name(word).into_iter().flat_map(|names| names.split(','))
    }
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let inside = lines.by_ref().take_while(|line| *line != "```");
        let text: String = inside.map(|line| format!("{line}\n")).collect();
        let words = info.split(' ').filter_map(|word| word.split_once('='));
        let words: BTreeMap<String, String> =
            words.map(|(name, value)| (name.into(), value.into())).collect();
        // The package is made already.
        assert!(!words.is_empty() || text == "make deb\n", "no machine runs this:\n{text}");
        blocks.push(Block { words, text });
    }
    blocks
}
