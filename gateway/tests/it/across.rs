//! Two clusters and the tunnel between them.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::StreamBody;
use hyper::body::Frame;
use model::{AppProtocol, BackendKind, ListenerProtocol, Resource};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{get, get_broken, h2, h2_send, send};
use crate::origin::{Origin, nobody, silent_after, tcp_echo};
use crate::site::{HTTP_PORT, Site, TCP_PORT};
use crate::{eventually, objects};

/// A consumer in east and an exporter in west, with a live tunnel.
async fn pair(
    protocol: AppProtocol,
    west: impl IntoIterator<Item = Resource>,
    east: impl IntoIterator<Item = Resource>,
) -> (Site, Site) {
    let (mut a, mut b) = (Site::new("east"), Site::new("west"));
    b.node.put(west);
    b.node.put([a.as_peer()]);
    a.node.put(east);
    a.node.put([
        b.as_peer(),
        objects::import("api", protocol, &["west"]),
        objects::gateway(&[
            ("http", HTTP_PORT, ListenerProtocol::Http),
            ("tcp", TCP_PORT, ListenerProtocol::Tcp),
        ]),
    ]);
    a.start().await;
    b.start().await;
    a.sees("west").await;
    (a, b)
}

fn exported(protocol: AppProtocol, endpoints: &[std::net::SocketAddr]) -> Vec<Resource> {
    let mut objects = objects::service("api", protocol, endpoints);
    objects.extend([objects::export("api"), objects::allow_cluster("api", "east")]);
    objects
}

fn http_route() -> Resource {
    objects::http_route("api.test", "/", BackendKind::ServiceImport, "api")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_crosses_with_its_body_and_both_sides_log_it_once() {
    let origin = Origin::start("west").await;
    let exported = exported(AppProtocol::Http, &[origin.address]);
    let (east, west) = pair(AppProtocol::Http, exported, [http_route()]).await;
    let body = Bytes::from(vec![3; 3_000_000]);
    let request = Request::post("/echo").header("host", "api.test").body(body.clone()).unwrap();
    let answer = send(east.http(), request).await.unwrap();
    assert_eq!((answer.status, answer.header("x-origin")), (200, "west"));
    assert!(answer.body == body);
    assert_eq!(answer.header("x-saw-host"), "api.test");
    assert_eq!(answer.header("x-saw-x-forwarded-for"), "127.0.0.1");
    for path in ["/echo", "/status/204"] {
        assert!(get(east.http(), "api.test", path).await.body.is_empty());
    }
    let sources = east.records(3).await;
    let destinations = west.records(3).await;
    for (source, destination) in sources.iter().zip(&destinations) {
        assert_eq!(source["role"], "source");
        assert_eq!(destination["role"], "destination");
        assert_eq!(source["request_id"], destination["request_id"]);
        assert_eq!(source["status"], destination["status"]);
        assert_eq!(
            (&source["response_flags"], &destination["response_flags"]),
            (&"-".into(), &"-".into())
        );
        assert_eq!(source["destination_cluster"], "west");
        assert_eq!(
            (&source["transport"], &destination["transport"]),
            (&"quic".into(), &"quic".into())
        );
        assert_eq!(destination["source_cluster"], "east");
        assert_eq!(destination["source_spiffe_id"], "spiffe://east.test/fedgate/gateway/gw-0");
        assert_eq!(destination["upstream"], origin.address.to_string());
    }
    assert_eq!(sources[0]["bytes_received"], 3_000_000);
    assert_eq!(destinations[0]["bytes_received"], 3_000_000);
    assert_eq!(destinations[0]["bytes_sent"], 3_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_and_trailers_cross() {
    let origin = Origin::start("west").await;
    let exported = exported(AppProtocol::H2c, &[origin.address]);
    let (east, _west) = pair(AppProtocol::H2c, exported, [http_route()]).await;
    let mut sender = h2(east.http()).await;
    let sum = (http::HeaderName::from_static("x-sum"), HeaderValue::from_static("42"));
    let frames: Vec<Result<_, hyper::Error>> = vec![
        Ok(Frame::data(Bytes::from_static(b"ping"))),
        Ok(Frame::trailers(HeaderMap::from_iter([sum]))),
    ];
    let request = Request::post(format!("http://api.test:{HTTP_PORT}/trailers"))
        .header("te", "trailers")
        .body(StreamBody::new(tokio_stream::iter(frames)));
    let answer = h2_send(&mut sender, request.unwrap()).await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "ping"));
    let trailers = answer.trailers.unwrap();
    assert_eq!(
        (&trailers["grpc-status"], &trailers["x-sum"]),
        (&HeaderValue::from(7), &HeaderValue::from(42))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_crosses_with_half_close_and_reset() {
    let exported = exported(AppProtocol::Tcp, &[tcp_echo().await]);
    let route = objects::tcp_route(BackendKind::ServiceImport, "api");
    let (east, west) = pair(AppProtocol::Tcp, exported, [route]).await;
    let mut stream = TcpStream::connect(east.tcp()).await.unwrap();
    let sent = vec![9; 1_500_000];
    let (mut read, mut write) = stream.split();
    let mut received = Vec::new();
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(writing, read.read_to_end(&mut received));
    read.unwrap();
    assert!(received.len() == sent.len() + 3 && received.ends_with(b"bye"));
    assert_eq!(east.records(1).await[0]["bytes_sent"], 1_500_003);
    assert_eq!(west.records(1).await[0]["bytes_sent"], 1_500_003);

    let mut stream = TcpStream::connect(east.tcp()).await.unwrap();
    stream.write_all(b"RESET").await.unwrap();
    let error = stream.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(east.records(2).await[1]["fed_code"], "FED7004");
    assert_eq!(west.records(2).await[1]["fed_code"], "FED7004");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_own_cluster_serves_first_and_the_peer_when_it_cannot() {
    let (near, far) = (Origin::start("east").await, Origin::start("west").await);
    let mut own = objects::service("api", AppProtocol::Http, &[near.address]);
    own.extend([objects::export("api"), http_route()]);
    let exported = exported(AppProtocol::Http, &[far.address]);
    let (east, _west) = pair(AppProtocol::Http, exported, own).await;
    let origin = async || get(east.http(), "api.test", "/").await.header("x-origin").to_owned();
    assert_eq!(origin().await, "east");
    let address = near.stop().await;
    for _ in 0..5 {
        assert_eq!(origin().await, "west", "the endpoint refuses connections");
    }
    let unready = objects::slice("api", 0, address, false);
    east.change(|node| node.put([unready])).await;
    assert_eq!(origin().await, "west");
    let records = east.records(7).await;
    assert!(records.iter().all(|record| record["status"] == 200), "{records:#?}");
    let attempts = records[1]["attempts"].as_u64().unwrap();
    assert!(attempts >= 2, "the first failure cost a retry: {:#}", records[1]);
    assert_eq!(records[6]["attempts"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_tries_another_endpoint_before_it_gives_up() {
    let alive = Origin::start("west").await;
    let dead = nobody().await;
    let endpoints = [dead, alive.address];
    let (east, west) =
        pair(AppProtocol::Http, exported(AppProtocol::Http, &endpoints), [http_route()]).await;
    for _ in 0..10 {
        let request = Request::post("/echo").header("host", "api.test").body("x".into()).unwrap();
        assert_eq!(send(east.http(), request).await.unwrap().status, 200);
    }
    assert!(east.records(10).await.iter().all(|record| record["attempts"] == 1));
    west.change(|node| node.put([objects::slice("api", 1, nobody_again(dead), true)])).await;
    let answer = get(east.http(), "api.test", "/").await;
    assert_eq!((answer.status, answer.header("x-fed-code")), (503, "FED7003"));
}

/// The dead endpoint once more, under another address of loopback.
fn nobody_again(dead: std::net::SocketAddr) -> std::net::SocketAddr {
    (std::net::Ipv4Addr::new(127, 0, 0, 2), dead.port()).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_is_deny_and_a_policy_changes_it_at_once() {
    let origin = Origin::start("west").await;
    let mut exported = objects::service("api", AppProtocol::Http, &[origin.address]);
    exported.push(objects::export("api"));
    let (east, west) = pair(AppProtocol::Http, exported, [http_route()]).await;
    let answer = get(east.http(), "api.test", "/").await;
    assert_eq!((answer.status, answer.header("x-fed-code")), (403, "FED5001"));
    let denied = &west.records(1).await[0];
    assert_eq!(denied["fed_code"], "FED5001");
    assert!(denied["failure"].as_str().unwrap().contains("no AccessPolicy targets shop/api"));
    west.change(|node| node.put([objects::allow_cluster("api", "south")])).await;
    assert_eq!(get(east.http(), "api.test", "/").await.status, 403);
    west.change(|node| node.put([objects::allow_cluster("api", "east")])).await;
    assert_eq!(get(east.http(), "api.test", "/").await.status, 200);
    assert_eq!(origin.requests(), 1);
    let key = objects::export("api").key();
    west.change(|node| node.remove(&key)).await;
    let answer = get(east.http(), "api.test", "/").await;
    assert_eq!((answer.status, answer.header("x-fed-code")), (503, "FED4005"));
    let (_, metrics) = west.admin("GET", "/metrics").await;
    assert!(metrics.contains("fed_policy_denied_total 2"), "{metrics}");
    assert!(metrics.contains("fed_tunnel_up{fed_peer_cluster=\"east\"} 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_peer_is_told_from_a_missing_endpoint_and_returns() {
    let origin = Origin::start("west").await;
    let exported = exported(AppProtocol::Http, &[origin.address]);
    let (east, mut west) = pair(AppProtocol::Http, exported, [http_route()]).await;
    assert_eq!(get(east.http(), "api.test", "/").await.status, 200);
    west.app.take().unwrap().stop_now().await;
    // What is on the tunnel when it breaks fails with FED2002; what comes later says so at once.
    eventually("failure", async || {
        let answer = get(east.http(), "api.test", "/").await;
        (answer.header("x-fed-code") == "FED2001").then_some(())
    })
    .await;
    west.start().await;
    eventually("answer", async || {
        (get(east.http(), "api.test", "/").await.status == 200).then_some(())
    })
    .await;
    let report = eventually("report with links", async || {
        east.node.seen().report.filter(|report| !report.links.is_empty())
    })
    .await;
    assert_eq!(report.links[0].cluster, objects::cluster("west"));
    assert_eq!(report.services[0].clusters[0].cluster, objects::cluster("west"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_ends_the_exchange_at_the_destination() {
    let origin = Origin::start("west").await;
    let exported = exported(AppProtocol::Http, &[origin.address]);
    let (east, west) = pair(AppProtocol::Http, exported, [http_route()]).await;
    let mut stream = TcpStream::connect(east.http()).await.unwrap();
    stream.write_all(b"GET /held HTTP/1.1\r\nHost: api.test\r\n\r\n").await.unwrap();
    eventually("request", async || (origin.requests() == 1).then_some(())).await;
    drop(stream);
    assert_eq!(east.records(1).await[0]["response_flags"], "DC");
    assert_eq!(west.records(1).await[0]["response_flags"], "DC");
    eventually("idle gateways", async || {
        let idle = |site: &Site| site.app().state().drain.in_progress() == 0;
        (idle(&east) && idle(&west)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_response_is_broken_for_the_client_too() {
    let origin = Origin::start("west").await;
    let exported = exported(AppProtocol::Http, &[origin.address]);
    let (east, west) = pair(AppProtocol::Http, exported, [http_route()]).await;
    let answer = get_broken(east.http(), &origin).await;
    assert!(answer.contains("content-length: 8") && answer.ends_with("half"), "{answer}");
    assert_eq!(east.records(1).await[0]["fed_code"], "FED7004");
    assert_eq!(west.records(1).await[0]["fed_code"], "FED7004");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_log_what_came_of_a_body_whose_application_broke_off() {
    // More than any head has, so that some of the body was read.
    let endpoint = silent_after(50_000).await;
    let exported = exported(AppProtocol::Http, &[endpoint]);
    let (east, west) = pair(AppProtocol::Http, exported, [http_route()]).await;
    let body = Bytes::from(vec![3; 60_000]);
    let request = Request::post("/").header("host", "api.test").body(body).unwrap();
    let answer = send(east.http(), request).await.unwrap();
    assert_eq!((answer.status, answer.header("x-fed-code")), (502, "FED7004"));
    for site in [&east, &west] {
        let record = &site.records(1).await[0];
        let received = record["bytes_received"].as_u64().unwrap();
        assert!((45_000..=60_000).contains(&received), "{record:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_the_tunnel_cannot_carry_is_too_large() {
    let origin = Origin::start("west").await;
    let exported = exported(AppProtocol::Http, &[origin.address]);
    let (east, _west) = pair(AppProtocol::Http, exported, [http_route()]).await;
    // hyper takes up to 64 KiB, and what the gateway adds does not fit any more.
    let request = Request::get("/").header("host", "api.test");
    let request = request.header("x-long", "a".repeat(65_400)).body(Bytes::new()).unwrap();
    let answer = send(east.http(), request).await.unwrap();
    assert_eq!((answer.status, answer.header("x-fed-code")), (431, "FED7009"));
    let record = &east.records(1).await[0];
    assert!(record["failure"].as_str().unwrap().contains("HEAD is "), "{record:#}");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_peer_takes_over_without_a_failed_request() {
    let (near, far) = (Origin::start("west").await, Origin::start("south").await);
    let exported_west = exported(AppProtocol::Http, &[near.address]);
    let (east, west) = pair(AppProtocol::Http, exported_west, [http_route()]).await;
    let south = Site::ready("south", exported(AppProtocol::Http, &[far.address])).await;
    south.change(|node| node.put([east.as_peer()])).await;
    let import = objects::import("api", AppProtocol::Http, &["west", "south"]);
    east.change(|node| node.put([south.as_peer(), import])).await;
    east.sees("south").await;
    let origin = async || {
        let answer = get(east.http(), "api.test", "/echo").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("x-origin").to_owned()
    };
    let first = origin().await;
    let (mut west, mut south) = (west, south);
    let stopped = if first == "west" { &mut west } else { &mut south };
    let app = stopped.app.take().unwrap();
    let stopping = tokio::spawn(async move { app.stop_now().await });
    eventually("takeover", async || (origin().await != first).then_some(())).await;
    stopping.await.unwrap();
    for _ in 0..20 {
        assert_ne!(origin().await, first);
    }
}
