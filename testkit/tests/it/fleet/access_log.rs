//! Exactly one record for each request or connection, whatever became of it.

use std::collections::BTreeSet;

use http::{Method, StatusCode, Version};
use serde_json::Value;
use testkit::access_log::records;
use testkit::tcp_origin::Ended;
use testkit::{Client, Origin, Speaks, client, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{LIMIT, World, east_calls_west, host};

/// A request, and what the records must say of it.
struct Sent {
    method: &'static str,
    path: String,
    status: Option<u64>,
    reaches_west: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_has_one_record_at_each_side_with_one_id() {
    let (world, origin) = east_calls_west().await;
    let secret = world.run("west", "secret", Speaks::Http1).await;
    world.export("west", "secret", "[]");
    world.import("east", "secret", "http", &["west"]);
    world.until_status("east", "secret", StatusCode::FORBIDDEN).await;
    let mut sent = Vec::new();
    for number in 0..5 {
        for (service, verb, status, reaches_west) in [
            ("api", "ok", 200, true),
            ("api", "status/418", 418, true),
            ("secret", "denied", 403, true),
            ("nobody", "unknown", 404, false),
            ("api", "reset", 502, true),
        ] {
            let path = format!("/{verb}/n{number}");
            let (address, body) = (world.http("east"), client::full("x"));
            let posted = client::post(address, &host(service), &path, body).await.unwrap();
            assert_eq!(posted.status.as_u16(), status, "{path}");
            sent.push(Sent { method: "POST", path, status: Some(status.into()), reaches_west });
        }
        let path = format!("/half/300000/n{number}");
        leave_in_the_middle(&world, &origin, &path).await;
        sent.push(Sent { method: "GET", path, status: Some(200), reaches_west: true });
        let path = format!("/hold/n{number}");
        leave_before_the_answer(&world, &origin, &path).await;
        sent.push(Sent { method: "GET", path, status: None, reaches_west: true });
    }
    assert_eq!(secret.seen().len(), 0);
    let stopped = world.stop().await;
    let [east, west] = ["east", "west"].map(|cluster| stopped.records(cluster));
    let mut ids = BTreeSet::new();
    for Sent { method, path, status, reaches_west } in &sent {
        let of_path = |record: &&Value| record["path"] == path.as_str();
        let source: Vec<_> = east.iter().filter(of_path).collect();
        let [record] = source[..] else { panic!("{path}: {source:#?}") };
        if status.is_some() {
            assert_eq!(record["status"].as_u64(), *status, "{record}");
        }
        assert_eq!(
            (record["role"].as_str(), record["method"].as_str()),
            (Some("source"), Some(*method))
        );
        let id = record["request_id"].as_str().unwrap();
        assert!(ids.insert(id.to_string()), "{path} shares its id with another one");
        let same = west.iter().filter(|record| record["request_id"] == id).count();
        assert_eq!(same, usize::from(*reaches_west), "{path}: {same} records at west");
        let transport = reaches_west.then_some("quic");
        assert_eq!(record["transport"].as_str(), transport, "{record}");
    }
    assert!(west.iter().all(|record| record["role"] == "destination"));
    assert!(west.iter().all(|record| record["transport"] == "quic"));
}

async fn leave_in_the_middle(world: &World, origin: &Origin, path: &str) {
    let mut client = Client::connect(world.http("east"), Version::HTTP_11).await.unwrap();
    let request = client.request(Method::GET, &host("api"), path).body(client::empty()).unwrap();
    let response = client.open(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    drop((response, client));
    until_over(origin, path).await;
}

async fn leave_before_the_answer(world: &World, origin: &Origin, path: &str) {
    let mut stream = TcpStream::connect(world.http("east")).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", host("api"));
    stream.write_all(request.as_bytes()).await.unwrap();
    wait::until_async("the application to have the request", LIMIT, async || {
        (origin.seen_of(path).len() == 1).then_some(())
    })
    .await;
    drop(stream);
    until_over(origin, path).await;
}

/// The application learns that its client is gone.
async fn until_over(origin: &Origin, path: &str) {
    let what = format!("the application to learn that the client of {path} is gone");
    wait::until_async(&what, LIMIT, async || {
        origin.seen_of(path).first().filter(|seen| seen.done).map(|_| ())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tcp_connection_has_one_record_at_each_side() {
    let world = World::start(&["east", "west"]).await;
    let origin = world.run_tcp("west", "db").await;
    world.export("west", "db", "[{cluster: east}]");
    world.listen("east");
    world.import("east", "db", "tcp", &["west"]);
    let line = || async {
        let mut stream = TcpStream::connect(world.tcp("east")).await.ok()?;
        stream.write_all(b"hello\n").await.ok()?;
        let mut answer = [0; 16];
        let length = stream.read(&mut answer).await.ok()?;
        (&answer[..length] == b"db@west\n").then_some(stream)
    };
    let first = wait::until_async("an answer over TCP", LIMIT, line).await;
    let before = records(&world.cluster("west").access_log()).len();
    assert_eq!(before, 0, "the connection still stands");
    drop(first);
    let mut streams = Vec::new();
    for _ in 0..6 {
        streams.push(line().await.unwrap());
    }
    // Some end well, the others are reset.
    for (index, stream) in streams.into_iter().enumerate() {
        if index % 2 == 0 {
            stream.set_zero_linger().unwrap();
        }
        drop(stream);
    }
    let attempts = origin.connections().len();
    let ended = || {
        let connections = origin.connections();
        let over = connections.iter().all(|c| c.ended != Ended::Not);
        over.then_some(connections)
    };
    let connections = wait::until("all connections to end", LIMIT, ended);
    let reset = connections.iter().filter(|c| c.ended == Ended::Reset).count();
    assert!(reset >= 3, "a reset must arrive as a reset: {connections:?}");
    let stopped = world.stop().await;
    let [east, west] = ["east", "west"].map(|cluster| stopped.records(cluster));
    assert_eq!(west.len(), attempts, "{west:#?}");
    for record in &west {
        assert_eq!(record["transport"], "quic");
        let same = east.iter().filter(|other| other["request_id"] == record["request_id"]);
        assert_eq!(same.count(), 1, "{record}");
    }
}
