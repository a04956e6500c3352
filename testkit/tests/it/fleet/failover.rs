//! Where requests go when a place cannot serve them, and that nothing happens twice on the way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gateway::limits::TUNNEL_WAIT_MAX;
use http::{Method, StatusCode, Version};
use testkit::{Answer, Client, Origin, Speaks, client, wait};
use tokio::task::JoinSet;

use super::{LIMIT, World, host, intent, two_exporters};

/// Sends GETs one after the other until one is answered with `wanted`; none may fail.
async fn moves_without_a_failure(world: &World, wanted: &str) {
    let what = format!("answers to come from {wanted}");
    wait::until_async(&what, LIMIT, async || {
        let answer = world.get("east", "api", "/moving").await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        (answer.text() == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_move_to_where_endpoints_are_and_back_without_a_failure() {
    let (world, mut west, _south) = two_exporters().await;
    world.write("west", "slice-api", &intent::slice_of("api", &[]));
    moves_without_a_failure(&world, "api@south").await;
    world.write("west", "slice-api", &intent::slice("api", west.address));
    moves_without_a_failure(&world, "api@west").await;
    let not_ready = intent::slice("api", west.address).replace("ready: true", "ready: false");
    world.write("west", "slice-api", &not_ready);
    moves_without_a_failure(&world, "api@south").await;
    world.write("west", "slice-api", &intent::slice("api", west.address));
    moves_without_a_failure(&world, "api@west").await;

    // The process dies, and nobody has told the slice.
    west.stop().await;
    for _ in 0..20 {
        let answer = world.get("east", "api", "/gone").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "api@south"));
    }
    // A request with a body may go elsewhere too, since no byte of it was sent.
    let posted = client::post(world.http("east"), &host("api"), "/gone", client::full("x")).await;
    assert_eq!(posted.unwrap().text(), "api@south");
    west.resume().await.unwrap();
    moves_without_a_failure(&world, "api@west").await;

    // Of two endpoints one is dead: the destination picks again, and nobody notices.
    let dead = SocketAddr::new(west.address.ip(), 1);
    let endpoints = format!(
        "{}---\n{}",
        intent::slice("api", west.address),
        intent::slice("api", dead).replace("name: api-1", "name: api-2")
    );
    world.write("west", "slice-api", &endpoints);
    world.settle("west").await;
    for _ in 0..20 {
        let answer = world.get("east", "api", "/half-dead").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "api@west"));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_endpoints_come_first() {
    let world = World::start(&["east", "west"]).await;
    let mut origins = Vec::new();
    for (own, other) in [("east", "west"), ("west", "east")] {
        origins.push(world.run(own, "api", Speaks::Http1).await);
        world.export(own, "api", &format!("[{{cluster: {other}}}]"));
        world.listen(own);
        world.import(own, "api", "http", &["east", "west"]);
    }
    world.linked("east", "west").await;
    for own in ["east", "west"] {
        world.settle(own).await;
        world.until_answer(own, "api", &format!("api@{own}")).await;
    }
    for _ in 0..30 {
        assert_eq!(world.get("east", "api", "/").await.unwrap().text(), "api@east");
    }
    world.write("east", "slice-api", &intent::slice_of("api", &[]));
    moves_without_a_failure(&world, "api@west").await;
    world.write("east", "slice-api", &intent::slice("api", origins[0].address));
    moves_without_a_failure(&world, "api@east").await;
    // The own process dies while its slice says ready: the other cluster is better than an error.
    origins[0].stop().await;
    for _ in 0..20 {
        let answer = world.get("east", "api", "/gone").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "api@west"));
    }
    world.stop().await;
}

/// Requests that wait for west's application, each under its own path.
fn hold(world: &World, method: &Method, count: usize) -> JoinSet<(String, anyhow::Result<Answer>)> {
    let mut calls = JoinSet::new();
    for number in 0..count {
        let (address, method) = (world.http("east"), method.clone());
        let path = format!("/hold/{}-{number}", method.as_str().to_lowercase());
        calls.spawn(async move {
            let body = match method {
                Method::POST => client::full(format!("order {number}")),
                _ => client::empty(),
            };
            let answer = async {
                let mut client = Client::connect(address, Version::HTTP_11).await?;
                let request = client.request(method, &host("api"), &path).body(body)?;
                client.send(request).await
            };
            let answer = answer.await;
            (path, answer)
        });
    }
    calls
}

async fn until_seen(origin: &Origin, prefix: &str, count: usize) {
    let what = format!("{count} requests of {prefix}");
    wait::until_async(&what, LIMIT, async || (origin.seen_of(prefix).len() >= count).then_some(()))
        .await;
}

fn executions(origins: &[&Origin], prefix: &str) -> BTreeMap<String, usize> {
    let mut sum = BTreeMap::new();
    for (path, times) in origins.iter().flat_map(|origin| origin.executions()) {
        if path.starts_with(prefix) {
            *sum.entry(path).or_default() += times;
        }
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_in_the_middle_executes_no_post_twice_and_loses_no_get() {
    const CALLS: usize = 12;
    let (world, west, south) = two_exporters().await;
    south.release();
    let mut posts = hold(&world, &Method::POST, CALLS);
    let mut gets = hold(&world, &Method::GET, CALLS);
    until_seen(&west, "/hold", 2 * CALLS).await;
    world.fleet.relay().cut("west").unwrap();
    while let Some(call) = posts.join_next().await {
        let (path, answer) = call.unwrap();
        let answer = answer.unwrap();
        // West has it, and nobody knows what became of it: that is what the client is told.
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{path}: {answer:?}");
        assert!(!answer.code().is_empty(), "{path}: {answer:?}");
    }
    while let Some(call) = gets.join_next().await {
        let (path, answer) = call.unwrap();
        let answer = answer.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "api@south"), "{path}");
    }
    for (path, times) in executions(&[&west, &south], "/hold/post") {
        assert_eq!(times, 1, "{path} was executed {times} times");
    }
    // Each worker has links of its own, and notices by itself that they are silent.
    world
        .until_peer("all of west's links to be given up", "east", "west", |p| p.links_live == 0)
        .await;
    // Under the cut: every new request is served, and posts still once each.
    for number in 0..CALLS {
        let path = format!("/under-the-cut/{number}");
        let body = client::full("order");
        let answer = client::post(world.http("east"), &host("api"), &path, body).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "api@south"));
    }
    let counted = executions(&[&west, &south], "/under-the-cut");
    assert!(counted.len() == CALLS && counted.values().all(|times| *times == 1), "{counted:?}");
    west.release();
    world.fleet.relay().heal("west").unwrap();
    moves_without_a_failure(&world, "api@west").await;
    world.stop().await;
}

/// West alone exports. What its tunnels took with them is asked again when they are back, and what
/// comes meanwhile waits for them; but not for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_comes_back_soon_loses_no_get() {
    const CALLS: usize = 8;
    /// A busy machine may need longer for a dial than anybody waits; not each time.
    const CUTS: usize = 5;
    let world = World::start_apart(&["east", "west"], &[("east", "west", 1)]).await;
    let west = world.run("west", "api", Speaks::Http1).await;
    world.export("west", "api", "[{cluster: east}]");
    world.linked("east", "west").await;
    world.settle("west").await;
    world.listen("east");
    world.import("east", "api", "http", &["west"]);
    world.until_answer("east", "api", "api@west").await;
    let cut = async || {
        world.fleet.relay().cut("west").unwrap();
        world
            .until_peer("west's links to be given up", "east", "west", |p| p.links_live == 0)
            .await;
    };
    let mut served = 0;
    for round in 0..CUTS {
        let before = hold(&world, &Method::GET, CALLS);
        until_seen(&west, "/hold", (round + 1) * CALLS).await;
        cut().await;
        let meanwhile = world.get("east", "api", "/meanwhile");
        let healed = async { world.fleet.relay().heal("west").unwrap() };
        west.release();
        let (meanwhile, ()) = tokio::join!(meanwhile, healed);
        let answers = before.join_all().await;
        let good = answers.iter().filter(|(_, answer)| answer.as_ref().unwrap().status == 200);
        served = good.count() + usize::from(meanwhile.unwrap().status == 200);
        if served == CALLS + 1 {
            break;
        }
        west.hold();
        world.until_answer("east", "api", "api@west").await;
    }
    assert_eq!(served, CALLS + 1, "in none of {CUTS} cuts were all served");

    cut().await;
    let asked = Instant::now();
    let answer = world.get("east", "api", "/never").await.unwrap();
    let waited = asked.elapsed();
    // The second, if it was on its way when its tunnel was given up.
    let told = (answer.status.as_u16(), answer.code());
    assert!([(503, "FED2001"), (502, "FED2002")].contains(&told), "{answer:?}");
    assert!(waited >= TUNNEL_WAIT_MAX, "it waited {waited:?} only");
    world.stop().await;
}

/// Many posts, one after the other on several connections, while the path to west comes and goes:
/// long enough to be given up, and too short to be noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_under_a_flapping_path_are_executed_at_most_once() {
    const CLIENTS: usize = 4;
    let (world, west, south) = two_exporters().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(post_until(stop.clone(), world.http("east"), client));
    }
    for (cut_ms, healed_ms) in [(900, 400), (150, 150), (150, 150), (900, 400), (300, 100)] {
        for (cut, length_ms) in [(true, cut_ms), (false, healed_ms)] {
            let relay = world.fleet.relay();
            if cut { relay.cut("west") } else { relay.heal("west") }.unwrap();
            // The length of the fault is what is tested here; nothing is awaited by it.
            tokio::time::sleep(Duration::from_millis(length_ms)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let answered: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    let executed = executions(&[&west, &south], "/order");
    let doubled: Vec<_> = executed.iter().filter(|(_, times)| **times != 1).collect();
    assert!(doubled.is_empty(), "of {} these were executed again: {doubled:?}", executed.len());
    for (path, status) in &answered {
        let served = executed.contains_key(path);
        assert!([200, 502, 503].contains(&status.as_u16()), "{path}: {status}");
        assert!(*status != StatusCode::OK || served, "{path} was answered but not executed");
        // 503 says that nothing was dispatched; a client may repeat it.
        assert!(*status != StatusCode::SERVICE_UNAVAILABLE || !served, "{path}: 503 but executed");
    }
    let good = answered.iter().filter(|(_, status)| *status == StatusCode::OK).count();
    assert!(good > 50, "only {good} of {} were served", answered.len());
    world.stop().await;
}

async fn post_until(
    stop: Arc<AtomicBool>,
    address: SocketAddr,
    client: usize,
) -> Vec<(String, StatusCode)> {
    let mut answered = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let path = format!("/order/{client}-{}", answered.len());
        let answer = client::post(address, &host("api"), &path, client::pattern(2_000)).await;
        answered.push((path, answer.unwrap().status));
    }
    answered
}

/// The application takes the request and breaks off: a GET may be tried elsewhere, a POST not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_breaks_off_gets_no_post_again() {
    let (world, west, south) = two_exporters().await;
    let posted =
        client::post(world.http("east"), &host("api"), "/reset?post", client::full("x")).await;
    let posted = posted.unwrap();
    assert_eq!((posted.status.as_u16(), posted.code()), (502, "FED7004"), "{posted:?}");
    assert_eq!(executions(&[&west, &south], "/reset?post")["/reset?post"], 1);
    // Both applications break off: the GET is tried, but within bounds.
    let got = world.get("east", "api", "/reset?get").await.unwrap();
    assert_eq!((got.status.as_u16(), got.code()), (502, "FED7004"), "{got:?}");
    let times = executions(&[&west, &south], "/reset?get")["/reset?get"];
    assert!((1..=3).contains(&times), "{times} times");
    // A response that breaks off is broken for the client too, never shorter and well.
    let half = world.get("east", "api", "/reset-half/200000").await;
    assert!(half.is_err(), "half a body was passed off as whole: {half:?}");
    world.stop().await;
}
