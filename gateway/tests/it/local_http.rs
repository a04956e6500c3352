//! HTTP through one gateway to its own cluster's endpoints.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::StreamBody;
use hyper::body::Frame;
use model::{AppProtocol, BackendKind, ListenerProtocol, Resource};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{get, get_broken, h2, h2_send, raw, send};
use crate::origin::{Origin, nobody, silent};
use crate::site::{HTTP_PORT, Site};
use crate::{eventually, objects};

pub(crate) fn routed(protocol: AppProtocol, endpoints: &[std::net::SocketAddr]) -> Vec<Resource> {
    let mut objects = objects::service("api", protocol, endpoints);
    objects.push(objects::gateway(&[("http", HTTP_PORT, ListenerProtocol::Http)]));
    objects.push(objects::http_route("api.test", "/", BackendKind::Service, "api"));
    objects
}

#[tokio::test]
async fn a_request_reaches_the_endpoint_and_is_logged_once() {
    let origin = Origin::start("one").await;
    let site = Site::ready("east", routed(AppProtocol::Http, &[origin.address])).await;
    let body = Bytes::from(vec![7; 300_000]);
    let request = Request::post("/echo?secret=1")
        .header("host", "API.test:8080")
        .header("x-fed-claim", "spiffe://east.test/admin")
        .header("x-forwarded-for", "203.0.113.9")
        .body(body.clone());
    let answer = send(site.http(), request.unwrap()).await.unwrap();
    assert_eq!((answer.status, &answer.body), (200, &body));
    assert_eq!(answer.header("x-origin"), "one");
    assert_eq!(answer.header("x-saw-host"), "API.test:8080");
    assert_eq!(answer.header("x-saw-x-forwarded-for"), "203.0.113.9, 127.0.0.1");
    assert_eq!(answer.header("x-saw-x-fed-claim"), "", "claims from outside are stripped");
    assert_eq!(answer.header("x-fed-code"), "", "applications give no codes");

    let records = site.records(1).await;
    let record = &records[0];
    assert_eq!(record["status"], 200);
    assert_eq!(record["path"], "/echo", "a query may hold secrets");
    assert_eq!(record["bytes_received"], 300_000);
    assert_eq!(record["bytes_sent"], 300_000);
    assert_eq!(record["response_flags"], "-");
    assert_eq!(record["route"], "HTTPRoute/shop/api-api.test");
    assert_eq!(record["upstream"], origin.address.to_string());
    assert_eq!(record["destination_cluster"], "east");
    assert_eq!(record["attempts"], 1);
    assert_eq!(record["source_unattested"], true);
    assert_eq!(record["request_id"], answer.header("x-saw-x-request-id"));
    let trace = record["trace_id"].as_str().unwrap();
    assert!(answer.header("x-saw-traceparent").contains(trace));
}

#[tokio::test]
async fn http2_and_trailers_pass_both_ways() {
    let origin = Origin::start("grpc").await;
    let site = Site::ready("east", routed(AppProtocol::H2c, &[origin.address])).await;
    let mut sender = h2(site.http()).await;
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("x-sum"),
        HeaderValue::from_static("42"),
    )]);
    let frames: Vec<Result<_, hyper::Error>> =
        vec![Ok(Frame::data(Bytes::from_static(b"ping"))), Ok(Frame::trailers(trailers))];
    let request = Request::post(format!("http://api.test:{HTTP_PORT}/trailers"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(StreamBody::new(tokio_stream::iter(frames)));
    let answer = h2_send(&mut sender, request.unwrap()).await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "ping"));
    let trailers = answer.trailers.unwrap();
    assert_eq!(
        (&trailers["grpc-status"], &trailers["x-sum"]),
        (&"7".parse::<HeaderValue>().unwrap(), &"42".parse().unwrap())
    );
    assert_eq!(site.records(1).await[0]["protocol"], "http/2");
}

#[tokio::test]
async fn grpc_clients_are_told_of_failures_in_grpc() {
    let site = Site::ready("east", routed(AppProtocol::H2c, &[nobody().await])).await;
    let mut sender = h2(site.http()).await;
    let request = Request::post(format!("http://api.test:{HTTP_PORT}/call"))
        .header("content-type", "application/grpc")
        .body(http_body_util::Empty::<Bytes>::new());
    let answer = h2_send(&mut sender, request.unwrap()).await.unwrap();
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "14"));
    assert_eq!(answer.header("x-fed-code"), "FED7003");
    let record = &site.records(1).await[0];
    assert_eq!((&record["fed_code"], &record["response_flags"]), (&"FED7003".into(), &"UF".into()));
}

#[tokio::test]
async fn what_cannot_be_served_is_answered_and_logged_with_its_reason() {
    let origin = Origin::start("one").await;
    let site = Site::ready("east", routed(AppProtocol::Http, &[origin.address])).await;
    let many: String = (0..95).map(|index| format!("x-{index}: 1\r\n")).collect();
    let long = "a".repeat(70_000);
    // The last column: whether the request got as far as to be one, and so into the log.
    let table = [
        ("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n", 404, "FED7001", true),
        ("GET / HTTP/1.1\r\n\r\n", 400, "FED7009", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "FED7009", true),
        ("GET / HTTP/1.1\r\nHost: u@api.test\r\n\r\n", 400, "FED7009", true),
        ("GET / HTTP/1.1\r\nHost: api..test\r\n\r\n", 400, "FED7009", true),
        ("GET /a/%2e%2e/b HTTP/1.1\r\nHost: api.test\r\n\r\n", 400, "FED7009", true),
        ("GET /a/../b HTTP/1.1\r\nHost: api.test\r\n\r\n", 400, "FED7009", true),
        ("CONNECT api.test:80 HTTP/1.1\r\nHost: api.test:80\r\n\r\n", 501, "FED7009", true),
        (
            "GET / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            400,
            "",
            false,
        ),
        ("GET / HTTP/1.1\r\nHost: api.test\r\nContent-Length: x\r\n\r\n", 400, "", false),
        ("GET / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: gzip\r\n\r\n", 400, "", false),
        ("GET / HTTP/1.1\r\nbad header\r\n\r\n", 400, "", false),
        (&format!("GET / HTTP/1.1\r\nHost: api.test\r\n{many}\r\n"), 431, "", false),
        (&format!("GET /{long} HTTP/1.1\r\nHost: api.test\r\n\r\n"), 431, "", false),
    ];
    let mut logged = 0;
    for (text, status, code, is_logged) in table {
        // `Connection: close` on the good ones, so that the answer ends.
        let text = text.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
        let answer = raw(site.http(), &text).await;
        let shown = text.chars().take(120).collect::<String>();
        let line = answer.lines().next().unwrap_or_default();
        let family = status / 100;
        let fits = line.contains(&format!(" {status} "))
            || (!is_logged && line.contains(&format!(" {family}")));
        assert!(fits, "{shown:?} got {answer:?}");
        assert_eq!(answer.contains("x-fed-code"), !code.is_empty(), "{shown:?} got {answer:?}");
        assert!(answer.contains(code), "{shown:?} got {answer:?}");
        logged += usize::from(is_logged);
    }
    assert_eq!(origin.requests(), 0);
    let records = site.records(logged).await;
    assert!(records.iter().all(|record| record["fed_code"].is_string()), "{records:#?}");
}

/// Without the entry's place in the table the shorter prefix would take its requests.
#[tokio::test]
async fn a_route_without_its_backend_keeps_its_requests() {
    let origin = Origin::start("one").await;
    let mut objects = routed(AppProtocol::Http, &[origin.address]);
    objects.push(objects::http_route("api.test", "/gone", BackendKind::Service, "gone"));
    let site = Site::ready("east", objects).await;
    let status = async |path: &str| {
        let answer = get(site.http(), "api.test", path).await;
        (answer.status, answer.header("x-fed-code").to_owned())
    };
    assert_eq!(status("/").await, (200, String::new()));
    assert_eq!(status("/gone/with").await, (500, "FED7012".into()));
    assert_eq!(origin.requests(), 1);
    let record = &site.records(2).await[1];
    assert_eq!(record["route"], "HTTPRoute/shop/gone-api.test");
    assert_eq!(record["response_flags"], "NC");
}

#[tokio::test]
async fn a_length_and_a_transfer_coding_never_disagree_behind_the_gateway() {
    let origin = Origin::start("one").await;
    let site = Site::ready("east", routed(AppProtocol::Http, &[origin.address])).await;
    // RFC 9112 §6.3: the coding wins and the length goes, or the request is refused.
    let text = "POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 30\r\n\
                Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n";
    let answer = raw(site.http(), text).await;
    assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(origin.requests() <= 1);
    assert!(site.log().iter().all(|record| record["path"] != "/smuggled"));
}

#[tokio::test]
async fn clients_that_leave_are_logged_exactly_once() {
    let origin = Origin::start("one").await;
    let site = Site::ready("east", routed(AppProtocol::Http, &[origin.address])).await;
    // During the wait for the response, and during the request's body.
    for text in [
        "GET /held HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: api.test\r\nContent-Length: 100000\r\n\r\nsome",
    ] {
        let before = (origin.requests(), site.log().len());
        let mut stream = TcpStream::connect(site.http()).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        eventually("request", async || (origin.requests() > before.0).then_some(())).await;
        drop(stream);
        let records = site.records(before.1 + 1).await;
        assert_eq!(records[before.1]["response_flags"], "DC", "{records:#?}");
    }
    assert_eq!(get(site.http(), "api.test", "/echo").await.status, 200);
    assert_eq!(site.records(3).await[2]["response_flags"], "-");
}

#[tokio::test]
async fn a_response_that_breaks_off_is_no_complete_response() {
    let origin = Origin::start("one").await;
    let site = Site::ready("east", routed(AppProtocol::Http, &[origin.address])).await;
    let answer = get_broken(site.http(), &origin).await;
    assert!(answer.contains("content-length: 8") && answer.ends_with("half"), "{answer}");
    let record = &site.records(1).await[0];
    assert_eq!((&record["fed_code"], &record["bytes_sent"]), (&"FED7004".into(), &4.into()));
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_replaced_by_another() {
    let (dead, alive) = (nobody().await, Origin::start("alive").await);
    let site = Site::ready("east", routed(AppProtocol::Http, &[dead, alive.address])).await;
    for _ in 0..20 {
        let request = Request::post("/echo").header("host", "api.test").body("x".into()).unwrap();
        assert_eq!(send(site.http(), request).await.unwrap().header("x-origin"), "alive");
    }
    let records = site.records(20).await;
    assert!(records.iter().all(|record| record["status"] == 200));
    let attempts: u64 = records.iter().map(|record| record["attempts"].as_u64().unwrap()).sum();
    assert!(attempts <= 22, "a refused connection is remembered: {attempts} attempts for 20");
}

#[tokio::test]
async fn methods_and_statuses_without_a_body_end_cleanly() {
    let origin = Origin::start("one").await;
    let site = Site::ready("east", routed(AppProtocol::Http, &[origin.address])).await;
    for (method, path) in [("HEAD", "/echo"), ("GET", "/status/204"), ("GET", "/echo")] {
        let request = Request::builder().method(method).uri(path).header("host", "api.test");
        let answer = send(site.http(), request.body(Bytes::new()).unwrap()).await.unwrap();
        assert!(answer.body.is_empty(), "{method} {path}");
    }
    let records = site.records(3).await;
    assert!(records.iter().all(|record| record["response_flags"] == "-"), "{records:#?}");
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_continue() {
    let origin = Origin::start("one").await;
    let site = Site::ready("east", routed(AppProtocol::Http, &[origin.address])).await;
    let mut stream = TcpStream::connect(site.http()).await.unwrap();
    let head = "POST /echo HTTP/1.1\r\nHost: api.test\r\nContent-Length: 4\r\n\
                Expect: 100-continue\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = vec![0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100 Continue"), "{}", String::from_utf8_lossy(&interim));
    stream.write_all(b"body").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("body"), "{answer}");
}

#[tokio::test]
async fn connections_to_endpoints_are_used_again() {
    let origin = Origin::start("one").await;
    let site = Site::ready("east", routed(AppProtocol::Http, &[origin.address])).await;
    let answers = async {
        for _ in 0..50 {
            assert_eq!(get(site.http(), "api.test", "/echo").await.status, 200);
        }
    };
    answers.await;
    let (status, metrics) = site.admin("GET", "/metrics").await;
    assert_eq!(status, 200);
    let line = "http_server_request_duration_seconds_count{";
    let count: f64 = metrics
        .lines()
        .filter(|text| text.starts_with(line) && text.contains("http_response_status_code=\"200\""))
        .map(|text| text.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(count, 50.0, "{metrics}");
    assert!(metrics.contains("http_server_active_requests 0"), "{metrics}");
    let (status, dump) = site.admin("GET", "/config_dump").await;
    let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
    assert_eq!((status, &dump["listeners"][0]["routes"][0]["host"]), (200, &"api.test".into()));
}

#[tokio::test]
async fn only_what_may_happen_twice_is_tried_again() {
    let ((a, taken_a), (b, taken_b)) = (silent().await, silent().await);
    let site = Site::ready("east", routed(AppProtocol::Http, &[a, b])).await;
    let taken = || taken_a.load(Ordering::Relaxed) + taken_b.load(Ordering::Relaxed);
    for (method, expected) in [("POST", 1), ("PATCH", 1), ("GET", 2), ("PUT", 2)] {
        let before = taken();
        let request = Request::builder().method(method).uri("/").header("host", "api.test");
        let answer = send(site.http(), request.body("body".into()).unwrap()).await.unwrap();
        assert_eq!((answer.status, answer.header("x-fed-code")), (502, "FED7004"), "{method}");
        assert_eq!(taken() - before, expected, "{method}: each endpoint at most once");
    }
    let attempts: Vec<_> = site.records(4).await.iter().map(|r| r["attempts"].clone()).collect();
    assert_eq!(attempts, [1, 1, 2, 2]);
    let (_, metrics) = site.admin("GET", "/metrics").await;
    assert!(metrics.contains("fed_retries_total{outcome=\"made\"} 4"), "{metrics}");
}
