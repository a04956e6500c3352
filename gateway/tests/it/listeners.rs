//! Ports come and go while the gateway runs.

use std::net::SocketAddr;

use model::{AppProtocol, BackendKind, ListenerProtocol};
use tokio::net::{TcpListener, TcpStream};

use crate::client::get;
use crate::origin::{Origin, tcp_echo};
use crate::site::{HTTP_PORT, Site, TCP_PORT};
use crate::{eventually, objects};

const HTTP: (&str, u16, ListenerProtocol) = ("http", HTTP_PORT, ListenerProtocol::Http);
const TCP: (&str, u16, ListenerProtocol) = ("tcp", TCP_PORT, ListenerProtocol::Tcp);

#[tokio::test]
async fn listeners_open_and_close_live_and_leave_the_others_alone() {
    let origin = Origin::start("one").await;
    let mut objects = objects::service("api", AppProtocol::Http, &[origin.address]);
    objects.extend(objects::service("db", AppProtocol::Tcp, &[tcp_echo().await]));
    objects.push(objects::gateway(&[HTTP]));
    objects.push(objects::http_route("api.test", "/", BackendKind::Service, "api"));
    let site = Site::ready("east", objects).await;
    assert_eq!(get(site.http(), "api.test", "/").await.status, 200);
    assert!(TcpStream::connect(site.tcp()).await.is_err());

    site.change(|node| {
        node.put([objects::gateway(&[HTTP, TCP]), objects::tcp_route(BackendKind::Service, "db")]);
    })
    .await;
    TcpStream::connect(site.tcp()).await.unwrap();

    site.change(|node| node.put([objects::gateway(&[TCP])])).await;
    eventually("closed port", async || TcpStream::connect(site.http()).await.err()).await;
    TcpStream::connect(site.tcp()).await.unwrap();

    site.change(|node| node.put([objects::gateway(&[HTTP, TCP])])).await;
    eventually("open port", async || TcpStream::connect(site.http()).await.ok()).await;
    assert_eq!(get(site.http(), "api.test", "/").await.status, 200);
}

#[tokio::test]
async fn a_port_in_use_is_reported_retried_and_harms_no_other() {
    let origin = Origin::start("one").await;
    let mut objects = objects::service("api", AppProtocol::Http, &[origin.address]);
    objects.push(objects::gateway(&[HTTP, TCP]));
    objects.push(objects::http_route("api.test", "/", BackendKind::Service, "api"));
    objects.extend(objects::service("db", AppProtocol::Tcp, &[tcp_echo().await]));
    objects.push(objects::tcp_route(BackendKind::Service, "db"));
    let mut site = Site::new("east");
    let taken: SocketAddr = (site.address, TCP_PORT).into();
    let squatter = TcpListener::bind(taken).await.unwrap();
    site.node.put(objects);
    site.start().await;
    assert_eq!(get(site.http(), "api.test", "/").await.status, 200);
    let listener = |port| {
        let report = site.node.seen().report?;
        report.listeners.into_iter().find(|listener| listener.address.port() == port)
    };
    let error = eventually("report", async || listener(TCP_PORT)?.error).await;
    assert!(error.contains("FED1002") && error.contains("ss -lntp"), "{error}");
    assert_eq!(listener(HTTP_PORT).unwrap().error, None);
    let (_, metrics) = site.admin("GET", "/metrics").await;
    assert!(metrics.contains("fed_listener_up{port=\"9000\"} 0"), "{metrics}");

    drop(squatter);
    eventually("bound port", async || listener(TCP_PORT)?.error.is_none().then_some(())).await;
    TcpStream::connect(taken).await.unwrap();
}

#[tokio::test]
async fn routes_change_under_an_open_connection() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let mut objects = objects::service("api", AppProtocol::Http, &[one.address]);
    objects.extend(objects::service("v2", AppProtocol::Http, &[two.address]));
    objects.push(objects::gateway(&[HTTP]));
    objects.push(objects::http_route("api.test", "/", BackendKind::Service, "api"));
    let site = Site::ready("east", objects).await;
    assert_eq!(get(site.http(), "api.test", "/v2/x").await.header("x-origin"), "one");
    let narrower = objects::http_route("api.test", "/v2", BackendKind::Service, "v2");
    site.change(|node| node.put([narrower])).await;
    assert_eq!(get(site.http(), "api.test", "/v2/x").await.header("x-origin"), "two");
    assert_eq!(get(site.http(), "api.test", "/v22").await.header("x-origin"), "one");
    let diagnostics = site.node.seen().acks.last().unwrap().diagnostics.clone();
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    let dangling = objects::http_route("x.test", "/", BackendKind::Service, "missing");
    site.change(|node| node.put([dangling])).await;
    let diagnostics = site.node.seen().acks.last().unwrap().diagnostics.clone();
    assert_eq!(diagnostics[0].code.to_string(), "FED4005");
}
