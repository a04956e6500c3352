//! The gateway's admin port: ready or not and why, metrics that parse, and no secrets.

use std::time::Duration;

use http::{Method, StatusCode, Version};
use testkit::prometheus::Page;
use testkit::{Answer, Client, client, wait};

use super::{LIMIT, World, east_calls_west, host};

/// What an admin port answers.
pub(crate) async fn get(world: &World, cluster: &str, path: &str) -> Answer {
    client::get(world.cluster(cluster).admin_address(), "localhost", path).await.unwrap()
}

async fn page(world: &World, cluster: &str) -> Page {
    let answer = get(world, cluster, "/metrics").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"), "{answer:?}");
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    Page::parse(&text).unwrap_or_else(|error| panic!("{error:#}\n{text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_ready_when_it_has_an_svid_and_says_what_is_missing() {
    let mut world = World::start(&["east"]).await;
    let east = world.fleet.cluster_mut("east");
    east.stop_gateway().await;
    east.stop_federation().await;
    std::fs::remove_dir_all(east.folder.join("gateway")).unwrap();
    east.start_gateway().await.unwrap();
    let unready = get(&world, "east", "/readyz").await;
    assert_eq!(unready.status, StatusCode::SERVICE_UNAVAILABLE, "{unready:?}");
    let told = unready.text();
    assert!(told.contains("FED1004") || told.contains("FED3001"), "{told}");
    assert!(told.contains("resource.sock"), "it names what it waits for: {told}");
    assert_eq!(get(&world, "east", "/livez").await.status, StatusCode::OK);
    world.fleet.cluster_mut("east").start_federation().await.unwrap();
    wait::until_async("east to be ready", LIMIT, async || {
        (get(&world, "east", "/readyz").await.status == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(get(&world, "east", "/nothing-here").await.status, StatusCode::NOT_FOUND);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_parse_and_count_what_happened() {
    let (world, _origin) = east_calls_west().await;
    let before = page(&world, "east").await;
    for path in ["/one", "/two", "/three"] {
        world.get("east", "api", path).await.unwrap();
    }
    let odd = "no\"such\\host.example";
    let _refused = client::raw(
        world.http("east"),
        format!("GET / HTTP/1.1\r\nHost: {odd}\r\nConnection: close\r\n\r\n"),
    )
    .await;
    world.get("east", "unknown", "/").await.unwrap();
    let count = "http_server_request_duration_seconds_count";
    let served = [("role", "source"), ("http_response_status_code", "200")];
    wait::until_async("three more requests to be counted", LIMIT, async || {
        let more = page(&world, "east").await.sum(count, &served) - before.sum(count, &served);
        assert!(more <= 3.0, "{more} requests were counted, 3 were sent");
        (more == 3.0).then_some(())
    })
    .await;
    let east = page(&world, "east").await;
    assert_eq!(east.sum("fed_tunnel_up", &[("fed_peer_cluster", "west")]), 1.0);
    assert!(east.sum("fed_tunnel_rtt_seconds", &[("fed_peer_cluster", "west")]) > 0.0);
    assert!(east.sum("fed_tunnel_bytes_total", &[("fed_peer_cluster", "west")]) > 0.0);
    assert!(east.sum(count, &[("http_response_status_code", "404")]) >= 1.0);
    assert!(east.sum("fed_listener_up", &[("port", "8080")]) == 1.0);
    assert!(east.sum("fed_certificate_expiry_timestamp_seconds", &[]) > 1e9);
    assert_eq!(east.sum("fed_resource_stream_up", &[]), 1.0);
    assert_eq!(east.sum("http_server_active_requests", &[]), 0.0, "nothing leaks");
    let west = page(&world, "west").await;
    let served = [("role", "destination"), ("http_response_status_code", "200")];
    assert!(west.sum(count, &served) >= 3.0);
    world.stop().await;
}

/// Whatever clients do, what was begun ends: nothing stays in progress when nobody is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_in_progress_when_clients_leave() {
    const STREAMS: usize = 200;
    let (world, origin) = east_calls_west().await;
    for round in 0..3 {
        let mut http2 = Client::connect(world.http("east"), Version::HTTP_2).await.unwrap();
        let before = origin.seen_of("/hold").len();
        for number in 0..STREAMS {
            let path = format!("/hold/{round}-{number}");
            let request = http2.request(Method::GET, &host("api"), &path).body(client::empty());
            // Some are given up at once, some when the application has them.
            let call = http2.open(request.unwrap());
            let patience = if number % 2 == 0 { Duration::ZERO } else { Duration::from_millis(1) };
            let _given_up = tokio::time::timeout(patience, call).await;
        }
        let last = format!("/hold/{round}-last");
        let request = http2.request(Method::GET, &host("api"), &last).body(client::empty());
        let mut call = Box::pin(http2.open(request.unwrap()));
        wait::until_async("the last of the requests to arrive", LIMIT, async || {
            let _waiting = tokio::time::timeout(Duration::ZERO, &mut call).await;
            (!origin.seen_of(&last).is_empty()).then_some(())
        })
        .await;
        drop(call);
        assert!(origin.seen_of("/hold").len() > before);
        // And one connection breaks off in the middle of everything.
        let mut stream = tokio::net::TcpStream::connect(world.http("east")).await.unwrap();
        let post =
            format!("POST /sink HTTP/1.1\r\nHost: {}\r\nContent-Length: 9\r\n\r\nabc", host("api"));
        tokio::io::AsyncWriteExt::write_all(&mut stream, post.as_bytes()).await.unwrap();
    }
    wait::until("the application to be rid of all of them", LIMIT, || {
        origin.seen().iter().all(|seen| seen.done).then_some(())
    });
    for cluster in ["east", "west"] {
        for gauge in ["http_server_active_requests", "fed_connections_open"] {
            let what = format!("{gauge} of {cluster} to be 0");
            wait::until_async(&what, LIMIT, async || {
                (page(&world, cluster).await.sum(gauge, &[]) == 0.0).then_some(())
            })
            .await;
        }
    }
    assert_eq!(world.get("east", "api", "/").await.unwrap().text(), "api@west");
    world.stop().await;
}

/// Names that clients choose must not become label values without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_cannot_make_metrics_grow() {
    let (world, _origin) = east_calls_west().await;
    let mut client = Client::connect(world.http("east"), Version::HTTP_11).await.unwrap();
    let samples = || async { page(&world, "east").await.samples.len() };
    let settled = wait::until_async("the page to have its usual series", LIMIT, async || {
        world.get("east", "nobody", "/").await.unwrap();
        let first = samples().await;
        world.get("east", "nobody", "/").await.unwrap();
        (samples().await == first).then_some(first)
    })
    .await;
    for number in 0..200 {
        let (host, path) = (host(&format!("made-up-{number}")), format!("/made/up/{number}"));
        let request = client.request(Method::GET, &host, &path).body(client::empty()).unwrap();
        client.send(request).await.unwrap();
    }
    let method = Method::from_bytes(b"INVENTED").unwrap();
    let request = client.request(method, &host("nobody"), "/").body(client::empty()).unwrap();
    client.send(request).await.unwrap();
    let after = samples().await;
    assert!(after < settled + 100, "{settled} samples became {after}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_config_dump_tells_the_configuration_and_no_key() {
    let (world, _origin) = east_calls_west().await;
    let dump = get(&world, "east", "/config_dump").await;
    assert_eq!(dump.status, StatusCode::OK);
    let text = dump.text();
    let _json: serde_json::Value = serde_json::from_str(&text).unwrap();
    for part in ["west", "shop/api", "8080", "spiffe://east.demo.example/fedgate/gateway/gw-0"] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    assert!(!text.contains("PRIVATE"), "{text}");
    let mut secrets = 0;
    for file in super::restart::files_below(&world.cluster("east").folder) {
        let bytes = std::fs::read(&file).unwrap();
        let pem = String::from_utf8_lossy(&bytes).into_owned();
        let Some((_, key)) = pem.split_once("PRIVATE KEY-----\n") else { continue };
        let key = key.split("-----END").next().unwrap();
        for line in key.lines() {
            assert!(!text.contains(line), "{} is in the dump", file.display());
        }
        secrets += 1;
    }
    assert!(secrets >= 3, "only {secrets} keys were found to look for");
    world.stop().await;
}
