//! What no honest client sends: requests that could mean two things must mean nothing, and one
//! client's bytes never become another one's request.

use http::{Method, StatusCode, Version};
use testkit::{Client, Speaks, client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{east_calls_west, host, intent};

/// A request of one line and these fields; the connection ends after it.
fn request(line: &str, fields: &[&str]) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("{line}\r\n{fields}Connection: close\r\n\r\n")
}

fn status(told: &str) -> &str {
    told.split(' ').nth(1).unwrap_or("closed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_could_mean_two_things_mean_nothing() {
    let (world, origin) = east_calls_west().await;
    let address = world.http("east");
    let api = host("api");
    let host_field = format!("Host: {api}");
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {api}\r\n\r\n");
    let chunked = format!("0\r\n\r\n{smuggled}");
    let long = smuggled.len();
    for (what, text) in [
        (
            "two lengths",
            format!(
                "POST /a HTTP/1.1\r\n{host_field}\r\nContent-Length: 0\r\nContent-Length: {long}\r\n\r\n{smuggled}"
            ),
        ),
        (
            "a list of lengths",
            format!(
                "POST /a HTTP/1.1\r\n{host_field}\r\nContent-Length: 0, {long}\r\n\r\n{smuggled}"
            ),
        ),
        (
            "a signed length",
            format!("POST /a HTTP/1.1\r\n{host_field}\r\nContent-Length: +0\r\n\r\n{smuggled}"),
        ),
        (
            "an unknown coding",
            format!(
                "POST /a HTTP/1.1\r\n{host_field}\r\nTransfer-Encoding: xchunked\r\n\r\n{chunked}"
            ),
        ),
        (
            "chunked first",
            format!(
                "POST /a HTTP/1.1\r\n{host_field}\r\nTransfer-Encoding: chunked, identity\r\n\r\n{chunked}"
            ),
        ),
        (
            "a space before the colon",
            format!(
                "POST /a HTTP/1.1\r\n{host_field}\r\nTransfer-Encoding : chunked\r\n\r\n{chunked}"
            ),
        ),
        (
            "a folded line",
            format!(
                "POST /a HTTP/1.1\r\n{host_field}\r\nX-A: b\r\n Content-Length: 3\r\n\r\n{smuggled}"
            ),
        ),
        (
            "a chunk size that is none",
            format!(
                "POST /a HTTP/1.1\r\n{host_field}\r\nTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{smuggled}"
            ),
        ),
        (
            "chunked in HTTP/1.0",
            format!(
                "POST /a HTTP/1.0\r\n{host_field}\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"
            ),
        ),
        (
            "a bare CR",
            format!("GET /a HTTP/1.1\r\n{host_field}\r\nX-A: b\rX-B: c\r\n\r\n{smuggled}"),
        ),
        ("a zero byte", format!("GET /a HTTP/1.1\r\n{host_field}\r\nX-A: b\0c\r\n\r\n{smuggled}")),
    ] {
        let told = client::raw(address, text).await.unwrap();
        assert!(["400", "501", "closed"].contains(&status(&told)), "{what}: {told}");
        let seen = origin.seen_of("/smuggled").len();
        assert_eq!(seen, 0, "{what}: bytes of a body became a request: {told}");
    }
    // Both framings: chunked counts (RFC 9112 §6.1), and nothing of it is taken for a request more
    // than once; the length does not go on to the application.
    let both = format!(
        "POST /both HTTP/1.1\r\n{host_field}\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n{chunked}",
        chunked.len()
    );
    let told = client::raw(address, both).await.unwrap();
    assert!(["200", "400"].contains(&status(&told)), "{told}");
    assert_eq!(origin.seen_of("/smuggled").len(), 0, "{told}");
    assert!(origin.seen_of("/both").iter().all(|seen| seen.body.bytes == 0));
    // Where the body turns out wrong in the middle, the application has the head, and never the end.
    assert!(origin.seen_of("/a").iter().all(|seen| !seen.complete), "{:?}", origin.seen());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_and_paths_are_taken_in_one_form_or_refused() {
    let (world, origin) = east_calls_west().await;
    let address = world.http("east");
    let api = host("api");
    let upper = api.to_uppercase();
    for (line, hosts, wanted) in [
        ("GET /x HTTP/1.1", vec![format!("Host: {upper}")], "200"),
        ("GET /x HTTP/1.1", vec![format!("Host: {api}.")], "200"),
        ("GET /x HTTP/1.1", vec![format!("Host: {api}:8080")], "200"),
        ("GET /x HTTP/1.1", vec![format!("Host: {api}:99999999")], "400"),
        ("GET /x HTTP/1.1", vec![format!("Host: user@{api}")], "400"),
        ("GET /x HTTP/1.1", vec![format!("Host: {api}"), format!("Host: {api}")], "400"),
        ("GET /x HTTP/1.1", vec![], "400"),
        ("GET /x HTTP/1.1", vec!["Host: ".into()], "400"),
        ("GET /x HTTP/1.1", vec!["Host: a b".into()], "400"),
        ("GET /x HTTP/1.0", vec![], "404"),
        ("GET /x HTTP/1.1", vec!["Host: other.example".into()], "404"),
        // The absolute form replaces Host (RFC 9112 §3.2.2).
        (&format!("GET http://{api}/x HTTP/1.1"), vec!["Host: other.example".into()], "200"),
        ("GET http://other.example/x HTTP/1.1", vec![format!("Host: {api}")], "404"),
        ("GET /x/../secret HTTP/1.1", vec![format!("Host: {api}")], "400"),
        ("GET /x/%2e%2E/secret HTTP/1.1", vec![format!("Host: {api}")], "400"),
        ("GET /x%2f..%2fsecret HTTP/1.1", vec![format!("Host: {api}")], "400"),
        ("GET /x%00 HTTP/1.1", vec![format!("Host: {api}")], "400"),
        ("GET x HTTP/1.1", vec![format!("Host: {api}")], "400"),
        (&format!("CONNECT {api}:80 HTTP/1.1"), vec![format!("Host: {api}:80")], "501"),
        ("OPTIONS * HTTP/1.1", vec![format!("Host: {api}")], "404"),
    ] {
        let hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
        let told = client::raw(address, request(line, &hosts)).await.unwrap();
        assert_eq!(status(&told), wanted, "{line} {hosts:?}: {told}");
    }
    let seen = origin.seen();
    assert!(seen.iter().all(|seen| !seen.uri.path().contains("secret")), "{seen:?}");
    // The application sees the host that was meant.
    let absolute = origin.seen_of("/x").pop().unwrap();
    assert_eq!(absolute.headers["host"], api.as_str());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_asked_for_and_answers_without_bodies_have_none() {
    let (world, origin) = east_calls_west().await;
    let head = format!(
        "POST /sink HTTP/1.1\r\nHost: {}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\
         Connection: close\r\n\r\n",
        host("api")
    );
    let mut stream = TcpStream::connect(world.http("east")).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&testkit::pattern::piece(0, 5)).await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 200") && rest.ends_with("5 intact\n"), "{rest}");

    // An answer that comes before the body is read is the answer.
    let body = client::pattern(3_000_000);
    if let Ok(answer) = client::post(world.http("east"), &host("api"), "/early", body).await {
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (StatusCode::PAYLOAD_TOO_LARGE, "too large")
        );
    }
    let mut http2 = Client::connect(world.http("east"), Version::HTTP_2).await.unwrap();
    let request =
        http2.request(Method::POST, &host("api"), "/early").body(client::pattern(3_000_000));
    let answer = http2.send(request.unwrap()).await.unwrap();
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);

    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = Client::connect(world.http("east"), version).await.unwrap();
        for (method, path, status, length) in [
            (Method::HEAD, "/bytes/12345", 200, "12345"),
            (Method::GET, "/status/204", 204, ""),
            (Method::GET, "/status/304", 304, ""),
            (Method::GET, "/bytes/0", 200, "0"),
            (Method::GET, "/last", 200, "9"),
        ] {
            let request = client.request(method, &host("api"), path).body(client::empty()).unwrap();
            let answer = client.send(request).await.unwrap();
            assert_eq!(answer.status.as_u16(), status, "{version:?} {path}");
            assert_eq!(answer.header("content-length"), length, "{version:?} {path}");
            assert_eq!(answer.body.is_empty(), path != "/last", "{version:?} {path}");
        }
    }
    assert_eq!(origin.seen_of("/last").len(), 2);
    world.stop().await;
}

/// After an upgrade both gateways only carry bytes, and each direction ends for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_pass_and_carry_bytes_both_ways() {
    let (world, origin) = east_calls_west().await;
    let head = format!(
        "GET /upgrade HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
        host("api")
    );
    let mut stream = TcpStream::connect(world.http("east")).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap().to_lowercase();
    assert!(answer.starts_with("http/1.1 101") && answer.contains("upgrade: echo"), "{answer}");
    for round in 0..5_u8 {
        let sent = testkit::pattern::piece(u64::from(round) * 1000, 20_000);
        stream.write_all(&sent).await.unwrap();
        let mut echoed = vec![0; sent.len()];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(echoed, sent);
    }
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    assert_eq!(origin.seen_of("/upgrade").len(), 1);

    // A POST with a body does not get past with an upgrade, and nobody upgrades who does not ask.
    let h2c = world.run("west", "grpc", Speaks::H2c).await;
    world.export("west", "grpc", "[{cluster: east}]");
    world.write(
        "east",
        "import-grpc",
        &(intent::import("grpc", "kubernetes.io/h2c", &["west"])
            + "---\n"
            + &intent::http_route("grpc", &host("grpc"), "ServiceImport")),
    );
    world.until_answer("east", "grpc", "grpc@west").await;
    let head = head
        .replace(&host("api"), &host("grpc"))
        .replace("Connection: Upgrade", "Connection: Upgrade, close");
    let told = client::raw(world.http("east"), head).await.unwrap();
    assert_eq!(status(&told), "501", "an h2c application cannot be upgraded: {told}");
    assert_eq!(h2c.seen_of("/upgrade").len(), 0);
    world.stop().await;
}

/// Two requests at once on one connection are two requests, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let (world, origin) = east_calls_west().await;
    let one = |path: &str, more: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 3\r\n{more}\r\nabc",
            host("api")
        )
    };
    let text = one("/fields/1", "") + &one("/status/418", "") + &one("/x", "Connection: close\r\n");
    let told = client::raw(world.http("east"), text).await.unwrap();
    let statuses: Vec<_> =
        told.match_indices("HTTP/1.1 ").map(|(at, _)| &told[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "418", "200"], "{told}");
    let paths: Vec<_> = origin.seen().iter().map(|seen| seen.uri.path().to_string()).collect();
    assert!(paths.ends_with(&["/fields/1".into(), "/status/418".into(), "/x".into()]), "{paths:?}");
    assert!(origin.seen_of("/x").iter().all(|seen| seen.body.bytes == 3));
    world.stop().await;
}
