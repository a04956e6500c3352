//! A gateway that is told to go finishes what it has, and takes nothing new.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, StatusCode, Version};
use testkit::{Client, Origin, Speaks, client, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{LIMIT, World, east_calls_west, host, intent, two_exporters};

const HELD: usize = 10;

/// Requests that wait for the application, over both versions of HTTP, and half of a download.
async fn hold(world: &World, origin: &Origin) -> JoinSet<()> {
    let mut held = JoinSet::new();
    for number in 0..HELD {
        let address = world.http("east");
        let version = if number % 2 == 0 { Version::HTTP_11 } else { Version::HTTP_2 };
        let mut client = Client::connect(address, version).await.unwrap();
        let body = client::full("x");
        let request = client.request(Method::POST, &host("api"), "/hold").body(body).unwrap();
        held.spawn(async move {
            let answer = client.send(request).await.unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "api@west"));
        });
    }
    let mut client = Client::connect(world.http("east"), Version::HTTP_11).await.unwrap();
    let request = client.request(Method::GET, &host("api"), "/half/3000000").body(client::empty());
    let half = client.open(request.unwrap()).await.unwrap();
    held.spawn(async move {
        let check = client::check(half).await.unwrap();
        assert!(check.is_intact(3_000_000), "{check:?}");
    });
    wait::until("all requests to be in flight", LIMIT, || {
        (origin.seen_of("/hold").len() == HELD).then_some(())
    });
    held
}

async fn all_well(mut held: JoinSet<()>) {
    while let Some(ended) = held.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_source_gateway_finishes_what_is_in_flight_and_refuses_the_rest() {
    let (mut world, origin) = east_calls_west().await;
    let held = hold(&world, &origin).await;
    let (address, admin) = (world.http("east"), world.cluster("east").admin_address());
    let closed = async {
        wait::until_async("new connections to be refused", LIMIT, async || {
            TcpStream::connect(address).await.is_err().then_some(())
        })
        .await;
        let ready = client::get(admin, "localhost", "/readyz").await.unwrap();
        assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{ready:?}");
        origin.release();
    };
    tokio::join!(world.fleet.cluster_mut("east").stop_gateway(), closed);
    all_well(held).await;
    let admin = TcpStream::connect(admin).await;
    assert!(admin.is_err(), "the admin port is still open after the gateway is gone");
    world.stop().await;
}

/// The same for an application of the own cluster, where no tunnel keeps count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_finishes_what_own_endpoints_serve() {
    let mut world = World::start(&["east"]).await;
    let origin = world.run("east", "api", Speaks::Http1).await;
    let tcp = world.run_tcp("east", "db").await;
    world.listen("east");
    let routes = intent::http_route("api", &host("api"), "Service")
        + "---\n"
        + &intent::tcp_route("db", "Service");
    world.write("east", "routes", &routes);
    world.until_answer("east", "api", "api@east").await;
    let mut held = JoinSet::new();
    for _ in 0..HELD {
        let address = world.http("east");
        held.spawn(async move {
            let answer = client::get(address, &host("api"), "/hold").await.unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "api@east"));
        });
    }
    let mut stream = TcpStream::connect(world.tcp("east")).await.unwrap();
    stream.write_all(b"hello\n").await.unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await.unwrap();
    wait::until("all requests to be in flight", LIMIT, || {
        (origin.seen_of("/hold").len() == HELD).then_some(())
    });
    let address = world.http("east");
    let finish = async {
        wait::until_async("new connections to be refused", LIMIT, async || {
            TcpStream::connect(address).await.is_err().then_some(())
        })
        .await;
        origin.release();
        all_well(held).await;
        stream.write_all(b"still there\n").await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        drop(stream);
    };
    tokio::join!(world.fleet.cluster_mut("east").stop_gateway(), finish);
    assert_eq!(tcp.connections().len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_destination_gateway_finishes_what_is_in_flight() {
    let (mut world, origin) = east_calls_west().await;
    let held = hold(&world, &origin).await;
    let stop = world.fleet.cluster_mut("west").stop_gateway();
    let finish = async {
        origin.release();
        all_well(held).await;
    };
    tokio::join!(stop, finish);
    let answer = world.get("east", "api", "/after").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "FED2001"), "{answer:?}");
    world.fleet.cluster_mut("west").start_gateway().await.unwrap();
    world.until_answer("east", "api", "api@west").await;
    world.stop().await;
}

/// A rolling restart of the destination while requests come without a pause: none fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_one_of_two_destinations_fails_no_request() {
    let (mut world, origin, _south) = two_exporters().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for (client, method) in [Method::GET, Method::POST].into_iter().cycle().take(4).enumerate() {
        let (until, address) = (stop.clone(), world.http("east"));
        load.spawn(async move {
            let mut answers = 0_usize;
            while !until.load(Ordering::Relaxed) {
                let mut connection = Client::connect(address, Version::HTTP_11).await.unwrap();
                let path = format!("/load/{client}-{answers}");
                let body = if method == Method::POST { client::full("x") } else { client::empty() };
                let request = connection.request(method.clone(), &host("api"), &path).body(body);
                let answer = connection.send(request.unwrap()).await.unwrap();
                assert_eq!(answer.status, StatusCode::OK, "{method} {path}: {answer:?}");
                answers += 1;
            }
            answers
        });
    }
    let west = world.fleet.cluster_mut("west");
    west.stop_gateway().await;
    assert_eq!(world.get("east", "api", "/").await.unwrap().text(), "api@south");
    world.fleet.cluster_mut("west").start_gateway().await.unwrap();
    world.until_answer("east", "api", "api@west").await;
    stop.store(true, Ordering::Relaxed);
    let answers: usize = load.join_all().await.into_iter().sum();
    assert!(answers > 50, "{answers}");
    for path in origin.executions().into_iter().filter(|(path, _)| path.starts_with("/load")) {
        assert_eq!(path.1, 1, "{path:?}");
    }
    world.stop().await;
}

/// TCP connections live until their ends end them; the drain waits for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_a_tcp_connection_finish_what_it_says() {
    let mut world = World::start(&["east", "west"]).await;
    let _origin = world.run_tcp("west", "db").await;
    world.export("west", "db", "[{cluster: east}]");
    world.listen("east");
    world.import("east", "db", "tcp", &["west"]);
    let address = world.tcp("east");
    let mut stream = wait::until_async("an answer over TCP", LIMIT, async || {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(b"hello\n").await.ok()?;
        let mut answer = [0; 16];
        (stream.read(&mut answer).await.ok()? > 0).then_some(stream)
    })
    .await;
    let talk = async {
        wait::until_async("new connections to be refused", LIMIT, async || {
            TcpStream::connect(address).await.is_err().then_some(())
        })
        .await;
        stream.write_all(b"still there\n").await.unwrap();
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"db@west");
        drop(stream);
    };
    tokio::join!(world.fleet.cluster_mut("east").stop_gateway(), talk);
    world.stop().await;
}
