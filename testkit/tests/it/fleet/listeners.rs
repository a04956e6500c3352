//! Ports come and go while the gateway runs; one that cannot be had harms no other.

use http::{Method, StatusCode, Version};
use testkit::{Client, Speaks, client, wait};
use tokio::net::{TcpListener, TcpStream};
use wire::resource::proto::Listener;

use super::{HTTP, LIMIT, TCP, World, host, intent};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_come_and_go_while_the_gateway_runs() {
    let world = World::start(&["east"]).await;
    let origin = world.run("east", "api", Speaks::Http1).await;
    let address = world.cluster("east").address;
    let refused = |port: u16| async move { TcpStream::connect((address, port)).await.is_err() };
    assert!(refused(HTTP).await);
    world.write("east", "route", &intent::http_route("api", &host("api"), "Service"));
    world.listen("east");
    world.until_answer("east", "api", "api@east").await;

    // A second port, with a route of its own; the first goes on.
    world.write("east", "gateway", &intent::gateway(&[HTTP, 8081], &[TCP]));
    let second = intent::http_route_at("api", 8081, "second.example", "Service");
    world.write("east", "second", &second);
    wait::until_async("the second port to serve", LIMIT, async || {
        let answer = client::get((address, 8081).into(), "second.example", "/").await.ok()?;
        (answer.status == StatusCode::OK).then_some(())
    })
    .await;
    let wrong = client::get((address, 8081).into(), &host("api"), "/").await.unwrap();
    assert_eq!(
        (wrong.status.as_u16(), wrong.code()),
        (404, "FED7001"),
        "routes stay at their port"
    );

    // The first port goes while a response is under way: that one is finished.
    let mut client = Client::connect(world.http("east"), Version::HTTP_11).await.unwrap();
    let request = client.request(Method::GET, &host("api"), "/half/100000").body(client::empty());
    let half = client.open(request.unwrap()).await.unwrap();
    world.write("east", "gateway", &intent::gateway(&[8081], &[]));
    wait::until_async("the first port to be closed", LIMIT, async || {
        (refused(HTTP).await && refused(TCP).await).then_some(())
    })
    .await;
    origin.release();
    assert!(client::check(half).await.unwrap().is_intact(100_000));
    let answer = client::get((address, 8081).into(), "second.example", "/").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);

    // And comes again, now for TCP.
    world.write("east", "gateway", &intent::gateway(&[8081], &[HTTP]));
    wait::until_async("the first port to be open again", LIMIT, async || {
        (!refused(HTTP).await).then_some(())
    })
    .await;
    world.stop().await;
}

async fn listener(world: &World, port: u16) -> Option<Listener> {
    let gateways = world.operator("east").await.status().await.unwrap().gateways;
    let listeners = gateways.into_iter().filter_map(|gateway| gateway.report);
    let mut listeners = listeners.flat_map(|report| report.listeners);
    listeners.find(|listener| listener.address.ends_with(&format!(":{port}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_reported_and_harms_no_other() {
    const TAKEN: u16 = 8082;
    let world = World::start(&["east"]).await;
    let _origin = world.run("east", "api", Speaks::Http1).await;
    let squatter = TcpListener::bind((world.cluster("east").address, TAKEN)).await.unwrap();
    world.write("east", "gateway", &intent::gateway(&[TAKEN, HTTP], &[TCP]));
    let route = intent::http_route("api", &host("api"), "Service")
        + "---\n"
        + &intent::http_route_at("api", TAKEN, &host("api"), "Service");
    world.write("east", "route", &route);
    world.until_answer("east", "api", "api@east").await;
    let found = wait::until_async("the report of the port that is taken", LIMIT, async || {
        listener(&world, TAKEN).await.filter(|listener| !listener.error.is_empty())
    })
    .await;
    assert!(found.error.contains("FED1002"), "{found:?}");
    let good = listener(&world, HTTP).await.unwrap();
    assert_eq!(good.error, "", "{good:?}");
    let ready = super::admin::get(&world, "east", "/readyz").await;
    assert_eq!(ready.status, StatusCode::OK, "others serve: {ready:?}");
    // Whoever had it lets go, and nobody needs to tell the gateway.
    drop(squatter);
    let address = (world.cluster("east").address, TAKEN);
    wait::until_async("the port to serve at last", LIMIT, async || {
        let answer = client::get(address.into(), &host("api"), "/").await.ok()?;
        (answer.text() == "api@east").then_some(())
    })
    .await;
    wait::until_async("the report to be withdrawn", LIMIT, async || {
        listener(&world, TAKEN).await.filter(|listener| listener.error.is_empty())
    })
    .await;
    world.stop().await;
}
