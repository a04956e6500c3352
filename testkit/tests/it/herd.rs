//! Row 38 of the failure catalogue: many gateways come back to their node at once, after it was killed
//! and after the network broke all their streams. `GATEWAYS=500` makes the herd that large, `SERVICES=50`
//! what each is told that small.

mod gateways;
mod node;
mod relay;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use model::Revision;
use testkit::wait;

use gateways::Herd;
use node::Node;
use relay::Relay;

const GATEWAYS: usize = 100;
/// A thousand objects.
const SERVICES: usize = 250;
/// What the catalogue promises.
const SYNC_LIMIT: Duration = Duration::from_secs(30);
const BUSY_LIMIT: f64 = 0.8;
/// Of all gateways, how many may come within the same tenth of a second. A busy machine wakes them late
/// and together; without jitter it is all of them.
const CROWD_LIMIT: f64 = 0.6;
const TENTH: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_come_back_spread_out_and_soon() {
    let count = size("GATEWAYS", GATEWAYS);
    let folder = tempfile::Builder::new().prefix("fg-herd-").tempdir().unwrap();
    let mut node = Node::prepare(folder.path(), size("SERVICES", SERVICES));
    tokio::task::block_in_place(|| node.start());
    node.found_federation();
    let ca = node.ca();
    let bundle = wire::bundle::format_bundle(&ca.bundle()).unwrap();
    std::fs::write(folder.path().join("bundle.json"), bundle).unwrap();
    let relay = Relay::start(node.port).await;
    let herd = Herd::start(count, folder.path(), &ca, &relay);
    tokio::task::block_in_place(|| {
        let met = Meeting::begin("they come for the first time", &node, &relay).end(&herd, count);
        println!("{met}");

        let (in_vain, returned) = restart(&mut node, &relay, &herd, count);
        println!("{in_vain} attempts in vain; {returned}");
        returned.check(count);

        relay.take_attempts();
        let meeting = Meeting::begin("the network breaks every stream", &node, &relay);
        relay.cut();
        wait::until("broken streams", SYNC_LIMIT, || (herd.subscribed() == 0).then_some(()));
        let returned = meeting.end(&herd, count);
        println!("{returned}");
        returned.check(count);
    });
}

fn size(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |size| size.parse().unwrap())
}

/// The node is killed, and is away until every gateway has asked for it several times, in vain.
fn restart(node: &mut Node, relay: &Relay, herd: &Herd, count: usize) -> (usize, Met) {
    let old = node.serves().unwrap().0;
    relay.take_attempts();
    node.kill();
    wait::until("attempts in vain", SYNC_LIMIT, || {
        (relay.attempts() >= 4 * count && herd.subscribed() == 0).then_some(())
    });
    let in_vain = relay.attempts();
    node.start();
    let meeting = Meeting::begin("the node was killed and is back", node, relay);
    let met = meeting.end(herd, count);
    assert!(met.revision.epoch > old.epoch, "{old} is not from before {}", met.revision);
    (in_vain, met)
}

/// From now on until the whole herd has what the node serves.
struct Meeting<'a> {
    what: &'static str,
    node: &'a Node,
    relay: &'a Relay,
    begun: Instant,
    cpu_seconds: f64,
}

impl<'a> Meeting<'a> {
    fn begin(what: &'static str, node: &'a Node, relay: &'a Relay) -> Self {
        Self { what, node, relay, begun: Instant::now(), cpu_seconds: node.cpu_seconds() }
    }

    fn end(self, herd: &Herd, count: usize) -> Met {
        let revision = wait::until_ok("the whole herd", 2 * SYNC_LIMIT, || {
            let (revision, objects) = self.node.serves().ok_or("the node serves too little")?;
            let current = herd.having(revision, objects);
            let told = || format!("{current} of {count} after {} attempts", self.relay.attempts());
            (current == count).then_some(revision).ok_or_else(told)
        });
        let took = self.begun.elapsed();
        let cpu_seconds = self.node.cpu_seconds() - self.cpu_seconds;
        let mut crowds = BTreeMap::new();
        let attempts = self.relay.take_attempts();
        let late: Vec<_> = attempts.into_iter().filter(|at| *at >= self.begun).collect();
        for at in &late {
            let tenth = (*at - self.begun).as_millis() / TENTH.as_millis();
            *crowds.entry(tenth).or_insert(0) += 1;
        }
        let peak_mib = self.node.peak_mib();
        let attempts = late.len();
        Met { what: self.what, revision, took, cpu_seconds, peak_mib, attempts, crowds }
    }
}

/// What became of it.
struct Met {
    what: &'static str,
    revision: Revision,
    took: Duration,
    cpu_seconds: f64,
    peak_mib: u64,
    attempts: usize,
    /// Attempts in each tenth of a second.
    crowds: BTreeMap<u128, usize>,
}

impl Met {
    /// The share of one core that the node took.
    fn busy(&self) -> f64 {
        self.cpu_seconds / self.took.as_secs_f64()
    }

    fn check(&self, count: usize) {
        assert!(self.took <= SYNC_LIMIT, "too late: {self}");
        let cores = std::thread::available_parallelism().unwrap().get() as f64;
        assert!(self.busy() / cores < BUSY_LIMIT, "too busy: {self}");
        let most = self.crowds.values().max().copied().unwrap_or_default();
        assert!(most as f64 <= CROWD_LIMIT * count as f64, "too many at once: {self}");
    }
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, took, cpu_seconds, peak_mib, attempts, .. } = self;
        let (took, busy) = (took.as_secs_f64(), 100.0 * self.busy());
        write!(
            f,
            "{what}: all current after {took:.2} s, {cpu_seconds:.2} s of CPU ({busy:.0} % of one \
             core), peak {peak_mib} MiB, {attempts} attempts, per 100 ms:"
        )?;
        let last = self.crowds.keys().max().copied().unwrap_or_default();
        (0..=last).try_for_each(|tenth| {
            write!(f, " {}", self.crowds.get(&tenth).copied().unwrap_or_default())
        })
    }
}
