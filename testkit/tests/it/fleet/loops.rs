//! Requests that go round in circles end, and soon.

use http::StatusCode;
use testkit::Speaks;

use super::{World, intent};

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
