//! Requests that go round in circles end, and soon.

use http::StatusCode;
use testkit::Speaks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Stopped, World, host, intent};

/// Records that a gateway may write for one request that goes in a circle: of the eight hops that
/// are allowed each gateway sees half, from both sides, and one of them the refusal.
const RECORDS_MAX: usize = 9;

/// East and west each export a service whose endpoint is the own gateway, which routes it to the
/// other cluster: `there` lives in west, `here` in east, and neither exists.
async fn circle(protocol: &str) -> World {
    let world = World::start(&["east", "west"]).await;
    for (own, service, other, other_service) in
        [("east", "here", "west", "there"), ("west", "there", "east", "here")]
    {
        let (endpoint, route) = match protocol {
            "tcp" => (world.tcp(own), intent::tcp_route(other_service, "ServiceImport")),
            _ => {
                let host = host("circle");
                (world.http(own), intent::http_route(other_service, &host, "ServiceImport"))
            }
        };
        world.write(own, "service", &intent::service(service, protocol));
        world.write(own, "slice", &intent::slice(service, endpoint));
        world.export(own, service, &format!("[{{cluster: {other}}}]"));
        world.listen(own);
        let import = intent::import(other_service, protocol, &[other]);
        world.write(own, "import", &(import + "---\n" + &route));
    }
    world.linked("east", "west").await;
    world.settle("east").await;
    world.settle("west").await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clusters_that_route_to_each_other_refuse_the_circle() {
    let world = circle("http").await;
    let answer = testkit::client::get(world.http("east"), &host("circle"), "/round").await.unwrap();
    // Only the words: the header of the last gateway is an application's for those before it.
    assert_eq!(answer.status, StatusCode::LOOP_DETECTED, "{answer:?}");
    assert!(answer.text().contains("FED5003"), "{answer:?}");
    few_records(&world.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_of_tcp_connections_ends() {
    let world = circle("tcp").await;
    let mut answer = Vec::new();
    // The reset may be here before the connection is.
    if let Ok(mut stream) = TcpStream::connect(world.tcp("east")).await {
        let _reset = stream.write_all(b"round\n").await;
        let _reset = stream.read_to_end(&mut answer).await;
    }
    assert!(answer.is_empty());
    few_records(&world.stop().await);
}

fn few_records(stopped: &Stopped) {
    for cluster in ["east", "west"] {
        let records = stopped.records(cluster).len();
        assert!((1..=RECORDS_MAX).contains(&records), "{cluster} has {records} records");
    }
    let mut records = stopped.records("east").into_iter().chain(stopped.records("west"));
    assert!(records.any(|record| record["fed_code"] == "FED5003"));
}

/// A service that both import from each other and that nobody runs: each destination serves by its
/// own endpoints only, so nothing is passed on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_never_passes_on() {
    let world = World::start(&["east", "west", "south"]).await;
    let origin = world.run("south", "api", Speaks::Http1).await;
    world.export("south", "api", "[{cluster: west}]");
    for (own, exporter) in [("east", "west"), ("west", "south")] {
        world.listen(own);
        world.import(own, "api", "http", &[exporter]);
        world.linked(own, exporter).await;
    }
    world.until_answer("west", "api", "api@south").await;
    world.settle("east").await;
    let answer = world.get("east", "api", "/relayed").await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    // Also not when west exports a Service of that name without endpoints of its own.
    world.write("west", "service-api", &intent::service("api", "http"));
    world.export("west", "api", "[{cluster: east}]");
    world.settle("west").await;
    let answer = world.get("east", "api", "/relayed").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "FED7002"), "{answer:?}");
    assert_eq!(origin.seen_of("/relayed").len(), 0);
    world.stop().await;
}
