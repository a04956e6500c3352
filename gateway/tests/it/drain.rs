//! How a gateway goes.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use model::{AppProtocol, BackendKind, ListenerProtocol, Resource};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{get, h2};
use crate::origin::{Origin, tcp_echo};
use crate::site::{HTTP_PORT, Site, TCP_PORT};
use crate::{eventually, objects};

async fn objects(origin: &Origin) -> Vec<Resource> {
    let mut objects = objects::service("api", AppProtocol::Http, &[origin.address]);
    objects.extend(objects::service("db", AppProtocol::Tcp, &[tcp_echo().await]));
    let http = ("http", HTTP_PORT, ListenerProtocol::Http);
    let tcp = ("tcp", TCP_PORT, ListenerProtocol::Tcp);
    objects.push(objects::gateway(&[http, tcp]));
    objects.push(objects::http_route("api.test", "/", BackendKind::Service, "api"));
    objects.push(objects::tcp_route(BackendKind::Service, "db"));
    objects
}

fn request(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "api.test").body(Full::default()).unwrap()
}

fn h2_request(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://api.test:{HTTP_PORT}{path}")).body(Full::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_progress_ends_by_itself_and_nothing_new_begins() {
    let origin = Origin::start("one").await;
    let site = Site::ready("east", objects(&origin).await).await;
    let stream = TcpStream::connect(site.http()).await.unwrap();
    let (mut h1, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let h1_ended = tokio::spawn(connection);
    let mut h2 = h2::<Full<Bytes>>(site.http()).await;
    let mut tcp = TcpStream::connect(site.tcp()).await.unwrap();
    tcp.write_all(b"hello").await.unwrap();
    tcp.read_exact(&mut [0; 5]).await.unwrap();

    let held = tokio::spawn(h1.send_request(request("/held")));
    let held_h2 = tokio::spawn(h2.send_request(h2_request("/held")));
    eventually("two held requests", async || (origin.requests() == 2).then_some(())).await;
    assert_eq!(site.admin("GET", "/readyz").await, (200, "ok\n".into()));

    let requested = site.admin("POST", "/drain").await;
    assert_eq!(requested.0, 202);
    site.app().drain_requested().await;
    let site = std::sync::Arc::new(site);
    let stopping = tokio::spawn({
        let site = site.clone();
        async move { site.app().drain_and_stop().await }
    });
    let (status, reason) = eventually("unready gateway", async || {
        let page = site.admin("GET", "/readyz").await;
        (page.0 == 503).then_some(page)
    })
    .await;
    assert!(status == 503 && reason.contains("FED2008: the gateway is draining"), "{reason}");
    assert_eq!(get(site.http(), "api.test", "/echo").await.status, 200, "until others notice");
    eventually("closed port", async || TcpStream::connect(site.http()).await.err()).await;
    assert!(!stopping.is_finished());

    origin.release.add_permits(2);
    let held = held.await.unwrap().unwrap();
    assert_eq!(
        (held.status().as_u16(), &held.headers()["connection"]),
        (200, &"close".parse::<http::HeaderValue>().unwrap())
    );
    assert_eq!(held_h2.await.unwrap().unwrap().status(), 200);
    assert!(h2.send_request(h2_request("/echo")).await.is_err(), "GOAWAY was sent");
    drop(held);
    h1_ended.await.unwrap().unwrap();

    tcp.write_all(b"still").await.unwrap();
    tcp.read_exact(&mut [0; 5]).await.unwrap();
    assert!(!stopping.is_finished(), "the TCP connection is still in progress");
    drop(tcp);
    stopping.await.unwrap();
    let records = site.log();
    assert_eq!(records.len(), 4, "{records:#?}");
    assert!(records.iter().all(|record| record["response_flags"] == "-"), "{records:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_off_is_logged_as_such() {
    let origin = Origin::start("one").await;
    let site = Site::ready("east", objects(&origin).await).await;
    let address = site.http();
    let held = tokio::spawn(async move {
        let request = Request::get("/held").header("host", "api.test").body(Bytes::new()).unwrap();
        crate::client::send(address, request).await
    });
    let mut tcp = TcpStream::connect(site.tcp()).await.unwrap();
    tcp.write_all(b"hello").await.unwrap();
    tcp.read_exact(&mut [0; 5]).await.unwrap();
    eventually("held request", async || (origin.requests() == 1).then_some(())).await;
    site.app().stop_now().await;
    assert!(held.await.unwrap().is_err());
    let records = site.records(2).await;
    let codes: Vec<_> = records.iter().map(|record| record["failure"].as_str().unwrap()).collect();
    assert!(codes.iter().all(|text| text.contains("end of the drain")), "{codes:?}");
}

async fn cordon_of(site: &Site) -> serde_json::Value {
    let (status, body) = site.admin("GET", "/cordon").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Unlike a drain it ends nothing, lasts over a restart, and can be taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cordoned_gateway_is_unready_serves_who_comes_still_and_comes_back() {
    let origin = Origin::start("one").await;
    let mut site = Site::ready("east", objects(&origin).await).await;
    let connect = async |site: &Site| {
        let stream = TcpStream::connect(site.http()).await.unwrap();
        let (client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        client
    };
    let mut held = connect(&site).await;
    let held = tokio::spawn(held.send_request(request("/held")));
    eventually("a held request", async || (origin.requests() == 1).then_some(())).await;

    let (status, text) = site.admin("POST", "/cordon").await;
    assert!(status == 200 && text.starts_with("cordoned: "), "{text}");
    assert_eq!(site.admin("POST", "/cordon").await, (200, "it was cordoned already\n".into()));
    let (status, reason) = site.admin("GET", "/readyz").await;
    assert!(status == 503 && reason.starts_with("FED2008: the gateway is cordoned"), "{reason}");
    assert!(gateway::report::of(site.app().state()).draining, "as `fedctl status` shows it");
    let cordon = cordon_of(&site).await;
    assert_eq!((&cordon["cordoned"], &cordon["inProgress"]), (&true.into(), &1.into()));
    // Who has not noticed is served, and told to come by another connection.
    let mut late = connect(&site).await;
    let answer = late.send_request(request("/echo")).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["connection"]),
        (200, &"close".parse().unwrap())
    );
    origin.release.add_permits(1);
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    eventually("nothing in progress", async || {
        (cordon_of(&site).await["inProgress"] == 0).then_some(())
    })
    .await;

    site.app.take().unwrap().stop_now().await;
    site.app = Some(gateway::app::build(site.config.clone()).unwrap());
    assert_eq!(cordon_of(&site).await["cordoned"], true, "after a restart, too");
    eventually("only that makes it unready", async || {
        let (status, reasons) = site.admin("GET", "/readyz").await;
        assert_eq!(status, 503, "{reasons}");
        (reasons.lines().count() == 1 && reasons.contains("cordoned")).then_some(())
    })
    .await;

    let (status, text) = site.admin("POST", "/uncordon").await;
    assert!(status == 200 && text.starts_with("uncordoned: "), "{text}");
    assert_eq!(site.admin("POST", "/uncordon").await, (200, "it was not cordoned\n".into()));
    assert_eq!(site.admin("GET", "/readyz").await, (200, "ok\n".into()));
    let mut client = connect(&site).await;
    let answer = client.send_request(request("/echo")).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().get("connection")), (200, None));
}
