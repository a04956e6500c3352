//! A gateway that is out of service for a while, beside another one of its cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gateway::app::{self, App};
use model::{AppProtocol, BackendKind, GatewayId, ListenerProtocol, PeerAddress, Resource};
use tokio::task::JoinSet;
use tunnel::LinkState;

use crate::client::{get, plain};
use crate::origin::Origin;
use crate::site::{HTTP_PORT, Site};
use crate::{eventually, objects};

/// Clients that call without a pause, so many that each gateway has some at any time.
const CLIENTS: usize = 4;

struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<()>,
}

impl Load {
    fn on(site: &Site) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (stop, answered, address) = (stop.clone(), answered.clone(), site.http());
            clients.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = get(address, "api.test", "/echo").await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { stop, answered, clients }
    }

    async fn goes_on(&self) {
        let so_far = self.answered.load(Ordering::Relaxed);
        let more = || self.answered.load(Ordering::Relaxed) > so_far + 100;
        eventually("more answers", async || more().then_some(())).await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await;
    }
}

/// The states of a site's links to one gateway of a peer.
fn links(site: &Site, gateway: GatewayId) -> Vec<LinkState> {
    let links = site.app().state().tunnel.get().unwrap().links();
    let to_it = links.iter().filter(|link| link.gateway == Some(gateway));
    to_it.map(|link| link.state).collect()
}

fn accepted(app: &App) -> u64 {
    app.state().tunnel.get().unwrap().counters().exchanges_accepted
}

async fn is_shunned(site: &Site, gateway: GatewayId) {
    eventually("links that are the last choice", async || {
        let links = links(site, gateway);
        let has = |state| links.contains(&state);
        (has(LinkState::Draining) && !has(LinkState::Live)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_send_a_cordoned_gateway_nothing_new_until_it_is_back_and_nothing_fails() {
    let origin = Origin::start("west").await;
    let (mut east, mut west) = (Site::new("east"), Site::new("west"));
    let config = west.another("gw-1");
    west.node.put(objects::service("api", AppProtocol::Http, &[origin.address]));
    let export = [objects::export("api"), objects::allow_cluster("api", "east"), east.as_peer()];
    west.node.put(export);
    let Resource::ClusterPeer(mut peer) = west.as_peer() else { panic!("no ClusterPeer") };
    let host = config.tunnel_listen.ip().to_string();
    peer.addresses.push(PeerAddress { host, ..peer.addresses[0].clone() });
    east.node.put([
        Resource::ClusterPeer(peer),
        objects::import("api", AppProtocol::Http, &["west"]),
        objects::gateway(&[("http", HTTP_PORT, ListenerProtocol::Http)]),
        objects::http_route("api.test", "/", BackendKind::ServiceImport, "api"),
    ]);
    east.start().await;
    west.start().await;
    let second = app::build(config.clone()).unwrap();
    second.ready().await;
    let gateway = second.state().tunnel.get().unwrap().gateway();
    let live = || links(&east, gateway).contains(&LinkState::Live);
    eventually("a link to the second gateway", async || live().then_some(())).await;
    let held = || tokio::spawn(get_held(east.http()));
    let mut all_held = vec![];
    eventually("something held by the second gateway", async || {
        all_held.push(held());
        let sent = all_held.len();
        eventually("one more", async || (origin.requests() == sent).then_some(())).await;
        (second.state().in_progress() > 0).then_some(())
    })
    .await;

    let load = Load::on(&east);
    load.goes_on().await;
    assert_eq!(plain(second.admin_addr(), "POST", "/cordon").await.0, 200);
    is_shunned(&east, gateway).await;
    load.goes_on().await; // what was on its way is there
    let before = accepted(&second);
    load.goes_on().await;
    assert_eq!(accepted(&second), before, "something new came");
    assert!(second.state().in_progress() > 0, "what it had goes on");
    origin.release.add_permits(all_held.len());
    for held in all_held {
        assert_eq!(held.await.unwrap(), 200);
    }
    let idle = || second.state().in_progress() == 0;
    eventually("nothing in progress", async || idle().then_some(())).await;

    second.stop_now().await;
    let second = app::build(config).unwrap();
    is_shunned(&east, gateway).await;
    load.goes_on().await;
    let before = accepted(&second);
    load.goes_on().await;
    assert_eq!(accepted(&second), before, "the restart took it back");

    assert_eq!(plain(second.admin_addr(), "POST", "/uncordon").await.0, 200);
    let is_used = || accepted(&second) > before;
    eventually("new exchanges", async || is_used().then_some(())).await;
    load.end().await;
}

async fn get_held(gateway: std::net::SocketAddr) -> u16 {
    get(gateway, "api.test", "/held").await.status
}
