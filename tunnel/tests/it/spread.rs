//! Several gateways of a cluster behind one address, as behind a Kubernetes Service: each flow goes to
//! one of them, by its source port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{ClusterName, GatewayId};
use tunnel::{LinkState, LinkStatus, Part};
use wan::FlowSpread;
use wire::tunnel::StreamKind;

use crate::site::{Cluster, LONG, Options, Site, ask, wait_for};

/// Gateways of west behind one address, and gateways of east that know only that.
struct Fleet {
    clusters: [Arc<Cluster>; 2],
    west: Vec<Site>,
    east: Vec<Site>,
    spread: FlowSpread,
    workers: usize,
}

impl Fleet {
    fn start(gateways: usize, workers: usize) -> Self {
        let clusters = ["east", "west"].map(Cluster::new);
        let spread = FlowSpread::start(Vec::new(), 5).unwrap();
        let mut fleet = Self { clusters, west: vec![], east: vec![], spread, workers };
        for number in 0..gateways {
            fleet.add_west(number);
        }
        let west = fleet.clusters[1].peer(&[fleet.spread.addr()]);
        for number in 0..gateways {
            let site = fleet.site(0, number);
            site.tunnel.set_peers(vec![Arc::clone(&west)]);
            fleet.east.push(site);
        }
        fleet
    }

    fn site(&self, cluster: usize, number: usize) -> Site {
        let [east, west] = &self.clusters;
        let options = Options { workers: self.workers, ..Options::default() };
        Site::start_named(&format!("gw-{number}"), &self.clusters[cluster], &[east, west], options)
    }

    /// A further gateway of west: behind the address, and able to dial nobody.
    fn add_west(&mut self, number: usize) {
        let site = self.site(1, number);
        site.tunnel.set_peers(vec![self.clusters[0].peer(&[])]);
        self.west.push(site);
        self.lead_to_all();
    }

    fn lead_to_all(&self) {
        self.spread.set_targets(self.west.iter().map(Site::addr).collect());
    }

    /// Takes a gateway of west out of the balancer, as a cluster does with a pod that ends.
    fn withdraw(&self, gone: GatewayId) {
        let left = self.west.iter().filter(|site| site.tunnel.gateway() != gone);
        self.spread.set_targets(left.map(Site::addr).collect());
    }

    /// What west's node does: the gateways that serve are told to each of them.
    fn tell_siblings(&self, but: Option<GatewayId>) {
        let serving = self.west.iter().map(|site| site.tunnel.gateway());
        let serving: std::collections::BTreeSet<_> =
            serving.filter(|gateway| Some(*gateway) != but).collect();
        self.west.iter().for_each(|site| site.tunnel.set_siblings(serving.clone()));
    }

    async fn is_whole(&self) {
        let links = self.workers * 2 * self.west.len();
        wait_for("a link of each class and worker to each gateway", || {
            self.east.iter().all(|site| live(site).len() == links)
        })
        .await;
    }
}

/// The gateways that live links lead to, one for each.
fn live(site: &Site) -> Vec<GatewayId> {
    let rows = site.tunnel.links();
    rows.iter().filter(|row| row.state == LinkState::Live).filter_map(|row| row.gateway).collect()
}

fn reached(site: &Site) -> Vec<GatewayId> {
    let mut gateways = live(site);
    gateways.sort_unstable();
    gateways.dedup();
    gateways
}

const FAILURES_MAX: usize = 100;

/// Asks without a pause from the first worker of a site, until it is told to end.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Load {
    /// `tries`: what the gateway above does, once more after a failure or a refusal.
    fn on(site: &Site, cluster: &ClusterName, tries: u32) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (worker, open) = (site.workers[0].clone(), site.open_for("echo", StreamKind::Tcp));
        let (stopped, count, cluster) = (Arc::clone(&stop), Arc::clone(&asked), cluster.clone());
        let task = tokio::spawn(async move {
            let mut failures = Vec::new();
            // Where nobody is left it fails without a pause, and would go on after a failed test.
            while !stopped.load(Ordering::Relaxed) && failures.len() < FAILURES_MAX {
                let mut result = Ok(());
                for _ in 0..tries {
                    result = crate::site::ask_worker(&worker, &cluster, &open).await.map(|_| ());
                    if result.is_ok() {
                        break;
                    }
                }
                count.fetch_add(1, Ordering::Relaxed);
                failures.extend(result.err());
            }
            failures
        });
        Self { stop, asked, task }
    }

    async fn goes_on(&self) {
        let so_far = self.asked.load(Ordering::Relaxed);
        wait_for("more answers", || self.asked.load(Ordering::Relaxed) > so_far + 100).await;
    }

    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn go_on(loads: &[Load]) {
    for load in loads {
        load.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_drains_is_replaced_before_it_is_gone() {
    let fleet = Fleet::start(2, 1);
    let east = &fleet.east[0];
    let other = &fleet.west[0]; // for its cluster's name
    east.reaches(other).await;
    let first = reached(east)[0];
    let goes = fleet.west.iter().find(|site| site.tunnel.gateway() == first).unwrap();
    // It stays behind the address: a balancer needs a moment to notice.
    goes.tunnel.start_drain(Duration::from_secs(10));
    let start = Instant::now();
    while !reached(east).iter().any(|gateway| *gateway != first) {
        ask(east, other).await.expect("a gateway that drains serves while there is no other");
        assert!(start.elapsed() < LONG, "no other gateway was reached");
    }
    goes.tunnel.end_accepting();
    fleet.withdraw(first);
    for _ in 0..50 {
        ask(east, other).await.expect("the other one serves");
    }
    goes.tunnel.close();
    for _ in 0..50 {
        ask(east, other).await.expect("the other one serves");
    }
    wait_for("the drained one to be forgotten", || {
        east.tunnel.links().iter().all(|row| row.gateway != Some(first))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_gateway_behind_one_address_is_reached_once_it_is_named() {
    let fleet = Fleet::start(2, 1);
    for east in &fleet.east {
        east.is_settled_with(&fleet.west[0], 1).await;
        assert_eq!(reached(east).len(), 1, "nobody has named another one");
    }
    fleet.tell_siblings(None);
    fleet.is_whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_worker_finds_each_gateway_and_a_new_one_too() {
    let mut fleet = Fleet::start(2, 2);
    fleet.tell_siblings(None);
    fleet.is_whole().await;
    fleet.add_west(2);
    fleet.tell_siblings(None);
    fleet.is_whole().await;
    // Dials that reached another gateway are no errors, and leave nothing behind.
    for east in &fleet.east {
        let is_live = |row: LinkStatus| (row.state, row.last_error) == (LinkState::Live, None);
        wait_for("all to be well", || east.tunnel.links().into_iter().all(is_live)).await;
    }
    for west in &fleet.west {
        assert_eq!(west.tunnel.counters().peers_refused, 0, "a change of mind is no refusal");
        assert_eq!(reached(west).len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_are_replaced_one_by_one_under_load() {
    let mut fleet = Fleet::start(2, 1);
    fleet.tell_siblings(None);
    fleet.is_whole().await;
    let load = Load::on(&fleet.east[0], &fleet.clusters[1].name, 1);
    load.goes_on().await;
    for number in 2..4 {
        fleet.add_west(number);
        fleet.tell_siblings(None);
        let goes = fleet.west.remove(0);
        let gone = goes.tunnel.gateway();
        goes.tunnel.start_drain(Duration::from_secs(10));
        fleet.lead_to_all();
        fleet.tell_siblings(Some(gone));
        wait_for("its links to be the last choice", || {
            fleet.east.iter().all(|site| !reached(site).contains(&gone))
        })
        .await;
        goes.tunnel.end_accepting();
        goes.tunnel.drained().await;
        goes.tunnel.close();
        load.goes_on().await;
        drop(goes);
        fleet.is_whole().await;
        load.goes_on().await;
    }
    assert_eq!(load.end().await, Vec::<String>::new());
}

/// Nothing of it is closed meanwhile, so there is nothing that could fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cordoned_gateway_gets_nothing_new_and_is_used_again_at_once_afterwards() {
    let fleet = Fleet::start(2, 1);
    fleet.tell_siblings(None);
    fleet.is_whole().await;
    // So many that each gateway has some at any time.
    let load = || Load::on(&fleet.east[0], &fleet.clusters[1].name, 1);
    let loads = [load(), load(), load()];
    let mut old = fleet.east[0].open(&fleet.west[0], "echo", StreamKind::Tcp).await;
    let out = old.peer().gateway;
    let cordoned = fleet.west.iter().find(|site| site.tunnel.gateway() == out).unwrap();
    let accepted = || cordoned.tunnel.counters().exchanges_accepted;
    for _ in 0..3 {
        cordoned.tunnel.set_cordoned(true);
        fleet.tell_siblings(Some(out));
        wait_for("its links to be the last choice", || {
            fleet.east.iter().all(|site| !reached(site).contains(&out))
        })
        .await;
        old.send.data(Bytes::from_static(b"still here")).await.unwrap();
        let Part::Data(data) = old.recv.next().await.unwrap() else { panic!() };
        assert_eq!(data, "still here");
        // What was on its way to it has arrived: each of them asks one thing after the other.
        go_on(&loads).await;
        let before = accepted();
        go_on(&loads).await;
        assert_eq!(accepted(), before, "something new came");

        cordoned.tunnel.set_cordoned(false);
        fleet.tell_siblings(None);
        fleet.is_whole().await;
        wait_for("new exchanges", || accepted() > before).await;
    }
    for load in loads {
        assert_eq!(load.end().await, Vec::<String>::new());
    }
    old.send.end().await.unwrap();
    assert!(matches!(old.recv.next().await.unwrap(), Part::End));
}

/// The only gateway of its cluster serves on; and a new connection to it learns at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cordoned_gateway_serves_while_there_is_no_other_and_tells_new_peers() {
    let mut fleet = Fleet::start(1, 1);
    let cordoned = fleet.west[0].tunnel.gateway();
    fleet.west[0].tunnel.set_cordoned(true);
    fleet.east[0].reaches(&fleet.west[0]).await;
    wait_for("the last choice", || reached(&fleet.east[0]).is_empty()).await;
    ask(&fleet.east[0], &fleet.west[0]).await.expect("the only one serves");
    fleet.add_west(1);
    wait_for("the other one", || {
        let others = reached(&fleet.east[0]);
        !others.is_empty() && !others.contains(&cordoned)
    })
    .await;
    fleet.west[0].tunnel.set_cordoned(false);
    fleet.tell_siblings(None);
    fleet.is_whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_is_survived_by_those_beside_it() {
    let mut fleet = Fleet::start(2, 1);
    fleet.tell_siblings(None);
    fleet.is_whole().await;
    let load = Load::on(&fleet.east[0], &fleet.clusters[1].name, 2);
    load.goes_on().await;
    let killed = fleet.west.remove(0);
    let gone = killed.tunnel.gateway();
    fleet.withdraw(gone);
    tokio::task::spawn_blocking(move || killed.kill()).await.unwrap();
    fleet.tell_siblings(Some(gone));
    wait_for("its links to be dead", || !reached(&fleet.east[0]).contains(&gone)).await;
    load.goes_on().await;
    fleet.is_whole().await;
    // What was under way to it failed once, and was answered by the other.
    assert_eq!(load.end().await, Vec::<String>::new());
    wait_for("it to be forgotten", || {
        fleet
            .east
            .iter()
            .all(|site| site.tunnel.links().iter().all(|row| row.gateway != Some(gone)))
    })
    .await;
}
