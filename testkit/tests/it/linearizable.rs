//! Three clusters of real processes, whose leader is killed, paused and asked to hand over, while
//! clients write and read through all of them: what they saw could have happened one at a time.

mod clients;
mod history;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use testkit::{Site, SiteSpec, store, wait};
use tokio::task::block_in_place;
use wire::operator::proto::TransferLeadershipRequest;

use clients::Work;
use history::{Answered, Asked, check, overlapping};

const OPERATIONS_MIN: usize = 10_000;
const OVERLAPPING_MIN: f64 = 0.2;
const LEADER_CHANGES_MIN: usize = 5;
const CLIENTS: u64 = 8;
const LIMIT: Duration = Duration::from_secs(30);
const ALL_LIMIT: Duration = Duration::from_secs(300);

/// What is done to the leader, in turn.
const FAULTS: [Fault; 6] =
    [Fault::Kill, Fault::Pause, Fault::Transfer, Fault::Kill, Fault::Pause, Fault::Transfer];

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Its node dies, and is started again once others have a leader.
    Kill,
    /// Its node stands still for longer than its lease, and goes on as if nothing had been.
    Pause,
    /// An operator asks it to hand over.
    Transfer,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_are_linearizable_while_leaders_go() {
    let folder = tempfile::Builder::new().prefix("fg-lin-").tempdir().unwrap();
    let mut sites = start(folder.path());
    store::found_and_join(&sites).await.unwrap();
    let (mut term, _) = store::settled(&sites, 3).await.unwrap();
    let sockets = sites.iter().map(|site| site.spec.folder.join("operator.sock")).collect();
    let work = Work::new(sockets);
    let begun = Instant::now();
    let clients: Vec<_> =
        (0..CLIENTS).map(|seed| tokio::spawn(work.clone().client(seed))).collect();
    let mut changes = 0;
    for (round, fault) in FAULTS.into_iter().enumerate() {
        let due = OPERATIONS_MIN / (FAULTS.len() + 1) * (round + 1);
        let progress = || async { (work.done() >= due).then_some(()) };
        wait::until_async("operations", ALL_LIMIT, progress).await;
        let now = strike(fault, &mut sites).await;
        assert!(now > term, "{fault:?}: a leader of term {now} after one of term {term}");
        (term, changes) = (now, changes + 1);
    }
    let enough = || async { (work.done() >= OPERATIONS_MIN).then_some(()) };
    wait::until_async("operations", ALL_LIMIT, enough).await;
    work.stop();
    for client in clients {
        client.await.unwrap();
    }
    let took = begun.elapsed();
    let history = work.history();
    let answered = history.iter().filter(|operation| operation.ended.is_some()).count();
    let share = overlapping(&history) as f64 / history.len() as f64;
    let checking = Instant::now();
    check(&history).unwrap_or_else(|unexplained| panic!("not linearizable: {unexplained}"));
    println!(
        "{answered} operations answered, {} of unknown outcome, {:.0} % overlapping, {changes} \
         leader changes, in {took:.1?}; checked in {:.1?}",
        history.len() - answered,
        share * 100.0,
        checking.elapsed()
    );
    assert!(answered >= OPERATIONS_MIN && changes >= LEADER_CHANGES_MIN);
    assert!(share >= OVERLAPPING_MIN, "{share}");
    a_local_read_sold_as_linearizable_is_caught(&mut sites, &work).await;
}

/// A node that is started again alone knows only what was.
async fn a_local_read_sold_as_linearizable_is_caught(sites: &mut [Site], work: &Work) {
    let [east, west, south] = sites else { panic!("three sites") };
    south.kill_federation().unwrap();
    let connected = [&*east, &*west];
    let leads = || async {
        let (_, leader) = store::leader(&connected).await?;
        (leader != "south").then_some(())
    };
    wait::until_async("a leader that lives", LIMIT, leads).await;
    let node = store::operator(east).await.unwrap();
    let issued = work.operate(&node, "planted", Asked::Issue, true).await;
    assert!(matches!(issued.ended, Some((_, Answered::Issued(_)))), "{issued:?}");
    east.kill_federation().unwrap();
    west.kill_federation().unwrap();

    block_in_place(|| south.start_federation()).unwrap();
    let node = store::operator(south).await.unwrap();
    let refused = work.operate(&node, "planted", Asked::List, true).await;
    assert!(refused.ended.is_none(), "it cannot know what is true now: {refused:?}");
    let stale = work.operate(&node, "planted", Asked::List, false).await;
    assert!(stale.ended.is_some(), "what it has it may tell: {stale:?}");
    block_in_place(|| east.start_federation()).unwrap();
    let fresh = async || {
        let read = work.operate(&node, "planted", Asked::List, true).await;
        read.ended.is_some().then_some(read)
    };
    let fresh = wait::until_async("a quorum", LIMIT, fresh).await;
    assert_eq!(check(&[issued.clone(), refused.clone(), fresh.clone()]), Ok(()));
    let caught = check(&[issued, refused, stale, fresh]).unwrap_err();
    assert!(caught.starts_with("planted"), "{caught}");
}

/// Makes the leader go; returns the term of the next one, which all nodes follow in the end.
async fn strike(fault: Fault, sites: &mut [Site]) -> u64 {
    let (term, leader) = store::settled(sites, 3).await.unwrap();
    let at = sites.iter().position(|site| site.spec.name == leader).unwrap();
    let node = || sites[at].federation.as_ref().unwrap();
    match fault {
        Fault::Kill => {
            sites[at].kill_federation().unwrap();
            next_leader(sites, at, term).await;
            block_in_place(|| sites[at].start_federation()).unwrap();
        }
        Fault::Pause => {
            node().pause().unwrap();
            next_leader(sites, at, term).await;
            node().resume().unwrap();
        }
        Fault::Transfer => {
            let operator = store::operator(&sites[at]).await.unwrap();
            let transferred = || async {
                let request = TransferLeadershipRequest { to: String::new() };
                operator.transfer_leadership(request).await.ok()
            };
            wait::until_async("the handing over", LIMIT, transferred).await;
            next_leader(sites, at, term).await;
        }
    }
    store::settled(sites, 3).await.unwrap().0
}

/// Waits until the others have another leader, of a later term.
async fn next_leader(sites: &[Site], gone: usize, term: u64) {
    let others: Vec<&Site> =
        sites.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, site)| site).collect();
    let name = sites[gone].spec.name.as_str();
    let next = || async {
        let (now, leader) = store::leader(&others).await?;
        (now > term && leader != name).then_some(())
    };
    wait::until_async("the next leader", LIMIT, next).await;
}

fn start(folder: &Path) -> Vec<Site> {
    let mut sites = Vec::new();
    for (host, name) in (1..).zip(["east", "west", "south"]) {
        let mut site = prepare(name, host, folder);
        store::configure(&site, "{profile: lan}").unwrap();
        site.start_federation().unwrap();
        site.start_gateway().unwrap();
        sites.push(site);
    }
    sites
}

fn prepare(name: &str, host: u8, folder: &Path) -> Site {
    let third = (std::process::id() % 250) as u8 + 1;
    let address: IpAddr = Ipv4Addr::new(127, 73, third, host).into();
    Site::prepare(SiteSpec {
        name: name.into(),
        folder: folder.join(name),
        namespace: None,
        advertise: SocketAddr::new(address, 8443),
        tunnel: SocketAddr::new(address, 8443),
        routes: address,
        admin: SocketAddr::new(address, 9901),
        workers: 1,
    })
    .unwrap()
}
