//! Long bodies: whole, in order, beside small requests, and cut off by clients that leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, StatusCode, Version};
use testkit::pattern::{self, Check};
use testkit::tcp_origin::Ended;
use testkit::{Client, client, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use wire::resource::proto::{Link, LinkClass, LinkState};

use super::{LIMIT, WORKERS, World, east_calls_west, host};

/// Long enough that small requests come and go beside it also on a fast machine.
const LONG: u64 = 60 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_bodies_arrive_whole_in_both_directions_beside_small_requests() {
    let (world, _origin) = east_calls_west().await;
    until_bulk_is_live(&world).await;
    let address = world.http("east");
    let stop = Arc::new(AtomicBool::new(false));
    let until = stop.clone();
    let small = tokio::spawn(async move {
        let mut answers = 0_usize;
        while !until.load(Ordering::Relaxed) {
            let answer = client::get(address, &host("api"), "/small").await.unwrap();
            assert_eq!(answer.status, StatusCode::OK);
            answers += 1;
        }
        answers
    });
    let down = tokio::spawn(async move {
        let mut client = Client::connect(address, Version::HTTP_11).await.unwrap();
        let path = format!("/bytes/{LONG}");
        let request = client.request(Method::GET, &host("api"), &path).body(client::empty());
        let response = client.open(request.unwrap()).await.unwrap();
        assert_eq!(response.headers()["content-length"], LONG.to_string().as_str());
        client::check(response).await.unwrap()
    });
    let up = client::post(address, &host("api"), "/sink", client::pattern(LONG)).await.unwrap();
    assert_eq!(up.text(), format!("{LONG} intact"));
    let down = down.await.unwrap();
    assert!(down.is_intact(LONG), "{down:?}");
    stop.store(true, Ordering::Relaxed);
    let small = small.await.unwrap();
    assert!(small > 10, "only {small} small requests were served meanwhile");
    moved_to_bulk(&world).await;

    // Without a length in advance they move too, in the middle.
    let chunked = unsized_body(LONG / 4);
    let up = client::post(address, &host("api"), "/sink", chunked).await.unwrap();
    assert_eq!(up.text(), format!("{} intact", LONG / 4));
    world.stop().await;
}

/// The pattern without a Content-Length.
fn unsized_body(bytes: u64) -> client::Body {
    let (frames, body) = client::streamed();
    tokio::spawn(async move {
        let mut offset = 0;
        while offset < bytes {
            let data = pattern::piece(offset, bytes - offset);
            offset += data.len() as u64;
            if frames.send(data).await.is_err() {
                return;
            }
        }
    });
    body
}

/// Nothing moves to bulk before there is a connection for it; each worker has one.
async fn until_bulk_is_live(world: &World) {
    wait::until_async("the bulk connections", LIMIT, async || {
        let links = world.links("east", "west").await;
        let live =
            |link: &&Link| link.class() == LinkClass::Bulk && link.state() == LinkState::Live;
        let live = links.iter().filter_map(|link| link.link.as_ref()).filter(live).count();
        (live >= WORKERS).then_some(())
    })
    .await;
}

/// Most of both bodies went over the bulk connections.
async fn moved_to_bulk(world: &World) {
    let what = "the bulk connections to have carried the long bodies";
    wait::until_async(what, LIMIT, async || {
        let links = world.links("east", "west").await;
        let bulk = links.iter().filter_map(|link| link.link.as_ref());
        let bulk = bulk.filter(|link| link.class() == LinkClass::Bulk);
        let (mut sent, mut received) = (0, 0);
        for link in bulk {
            sent += link.bytes_sent;
            received += link.bytes_received;
        }
        (sent > LONG * 3 / 4 && received > LONG * 3 / 4).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_in_the_middle_ends_everything_behind_it() {
    let (world, origin) = east_calls_west().await;
    // A download, small enough to stay on the fast connection and large enough to move.
    for bytes in [300_000, LONG] {
        let path = format!("/half/{bytes}");
        let mut client = Client::connect(world.http("east"), Version::HTTP_11).await.unwrap();
        let request = client.request(Method::GET, &host("api"), &path).body(client::empty());
        let response = client.open(request.unwrap()).await.unwrap();
        drop((response, client));
        let what = format!("the application to learn that the client of {path} is gone");
        wait::until(&what, LIMIT, || {
            origin.seen_of(&path).first().filter(|seen| seen.done).map(|_| ())
        });
    }
    // An upload that stops in the middle: the application must not take it for a whole one.
    let (frames, body) = client::streamed();
    let mut stream = Client::connect(world.http("east"), Version::HTTP_2).await.unwrap();
    let request = stream.request(Method::POST, &host("api"), "/sink/broken").body(body).unwrap();
    let call = tokio::spawn(async move { stream.send(request).await });
    frames.send(pattern::piece(0, 30_000)).await.unwrap();
    let what = "the application to have the first bytes";
    wait::until(what, LIMIT, || {
        origin.seen_of("/sink/broken").first().filter(|seen| seen.body.bytes > 0).map(|_| ())
    });
    call.abort();
    let _gone = call.await;
    let what = "the application to learn that the upload broke off";
    wait::until(what, LIMIT, || {
        origin.seen_of("/sink/broken").first().filter(|seen| seen.done).map(|_| ())
    });
    assert!(!origin.seen_of("/sink/broken")[0].complete, "half an upload was passed off as whole");

    let stopped = world.stop().await;
    for cluster in ["east", "west"] {
        for path in ["/half/300000", &format!("/half/{LONG}"), "/sink/broken"] {
            let records = stopped.records_of(cluster, path);
            assert_eq!(records.len(), 1, "{path} in {cluster}: {records:#?}");
            assert_ne!(records[0]["response_flags"], "-", "{}", records[0]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_directions_end_each_for_itself() {
    let world = World::start(&["east", "west"]).await;
    let origin = world.run_tcp("west", "db").await;
    world.export("west", "db", "[{cluster: east}]");
    world.listen("east");
    world.import("east", "db", "tcp", &["west"]);
    let address = world.tcp("east");
    wait::until_async("an answer over TCP", LIMIT, async || {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(b"hello\n").await.ok()?;
        let mut answer = [0; 16];
        (stream.read(&mut answer).await.ok()? > 0).then_some(())
    })
    .await;

    // The client ends first, and the answer comes through the half that is left.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"count\n").await.unwrap();
    let (mut read, write) = stream.into_split();
    send(write, LONG).await;
    let mut answer = String::new();
    read.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, format!("{LONG} intact\n"));

    // The application ends first, and still reads what the client goes on sending.
    let before = origin.connections().len();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("send {LONG}\n").as_bytes()).await.unwrap();
    let (mut read, write) = stream.into_split();
    let (mut check, mut buffer) = (Check::default(), vec![0; 64 * 1024]);
    loop {
        match read.read(&mut buffer).await.unwrap() {
            0 => break,
            length => check.take(&buffer[..length]),
        }
    }
    assert!(check.is_intact(LONG), "{check:?}");
    send(write, 1_000_000).await;
    wait::until("the application to have it all", LIMIT, || {
        let connections = origin.connections();
        let last = &connections[before];
        (last.ended == Ended::Finished && last.received.is_intact(1_000_000)).then_some(())
    });
    world.stop().await;
}

/// Sends the pattern and ends the direction.
async fn send(mut write: OwnedWriteHalf, bytes: u64) {
    let mut offset = 0;
    while offset < bytes {
        let data = pattern::piece(offset, bytes - offset);
        offset += data.len() as u64;
        write.write_all(&data).await.unwrap();
    }
    write.shutdown().await.unwrap();
}

/// Clients that do not read hold what they asked for, and nobody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_delay_nobody() {
    let (world, _origin) = east_calls_west().await;
    let mut stalled = Vec::new();
    for _ in 0..40 {
        let mut client = Client::connect(world.http("east"), Version::HTTP_11).await.unwrap();
        let path = format!("/bytes/{LONG}");
        let request = client.request(Method::GET, &host("api"), &path).body(client::empty());
        stalled.push((client.open(request.unwrap()).await.unwrap(), client));
    }
    for _ in 0..50 {
        let answer = world.get("east", "api", "/small").await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
    }
    // One of them begins to read, and gets all of it.
    let (response, _client) = stalled.pop().unwrap();
    let check = client::check(response).await.unwrap();
    assert!(check.is_intact(LONG), "{check:?}");
    drop(stalled);
    assert_eq!(world.get("east", "api", "/after").await.unwrap().status, StatusCode::OK);
    world.stop().await;
}
