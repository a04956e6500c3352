//! The data path needs no federation node, also not across a restart.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use gateway::app;
use model::{AppProtocol, BackendKind, ListenerProtocol, Resource};

use crate::client::get;
use crate::origin::Origin;
use crate::site::{HTTP_PORT, Site};
use crate::{eventually, objects};

fn routed(origin: &Origin) -> Vec<Resource> {
    let mut objects = objects::service("api", AppProtocol::Http, &[origin.address]);
    objects.push(objects::gateway(&[("http", HTTP_PORT, ListenerProtocol::Http)]));
    objects.push(objects::http_route("api.test", "/", BackendKind::Service, "api"));
    objects
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_starts_and_serves_without_its_node() {
    let origin = Origin::start("one").await;
    let mut site = Site::ready("east", routed(&origin)).await;
    assert_eq!(site.node.seen().subscribes[0].resume, None);
    let file = site.config.data_dir.join("snapshot.bin");
    eventually("snapshot on disk", async || file.exists().then_some(())).await;
    site.node.kill().await;
    assert_eq!(get(site.http(), "api.test", "/").await.status, 200, "the node is gone");
    site.app.take().unwrap().stop_now().await;

    site.start().await;
    assert_eq!(get(site.http(), "api.test", "/").await.status, 200, "after a restart, too");
    let (_, metrics) = site.admin("GET", "/metrics").await;
    assert!(metrics.contains("fed_resource_stream_up 0"), "{metrics}");

    site.node.start();
    eventually("new subscription", async || site.node.seen().subscribes.get(1).cloned()).await;
    let resumed = site.node.seen().subscribes[1].resume;
    assert_eq!(resumed, site.app().state().revision());
    assert_eq!(site.node.seen().enrolments, 1, "the SVID came from disk");
    site.change(|node| node.put(objects::service("new", AppProtocol::Http, &[]))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_svid_or_resources_it_waits_and_says_why() {
    let origin = Origin::start("one").await;
    let mut site = Site::new("east");
    site.node.kill().await;
    site.node.put(routed(&origin));
    site.app = Some(app::build(site.config.clone()).unwrap());
    let reason = eventually("reason", async || {
        let (status, text) = site.admin("GET", "/readyz").await;
        assert_eq!(status, 503, "{text}");
        text.contains("FED3001: FED1004").then_some(text)
    })
    .await;
    assert!(reason.contains("FED1004: no resources yet"), "{reason}");
    assert_eq!(site.app().tunnel_addr(), None);
    assert_eq!(site.admin("GET", "/livez").await.0, 200);
    site.node.start();
    tokio::time::timeout(crate::PATIENCE, site.app().ready()).await.unwrap();
    assert_eq!(site.app().tunnel_addr(), Some(site.tunnel()));
    assert_eq!(get(site.http(), "api.test", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_files_are_refused_by_name() {
    let origin = Origin::start("one").await;
    let mut site = Site::ready("east", routed(&origin)).await;
    let snapshot = site.config.data_dir.join("snapshot.bin");
    eventually("snapshot on disk", async || snapshot.exists().then_some(())).await;
    site.app.take().unwrap().stop_now().await;

    fs::write(&snapshot, b"fedgsnap and then nonsense").unwrap();
    site.start().await; // from the node, as if there were none
    assert_eq!(get(site.http(), "api.test", "/").await.status, 200);
    site.app.take().unwrap().stop_now().await;

    let svid = site.config.data_dir.join("svid/svid.pem");
    fs::set_permissions(&svid, fs::Permissions::from_mode(0o644)).unwrap();
    let error = format!("{:#}", app::build(site.config.clone()).unwrap_err());
    assert!(error.contains("FED3004") && error.contains("chmod 600"), "{error}");
    fs::set_permissions(&svid, fs::Permissions::from_mode(0o600)).unwrap();

    site.start().await;
    let error = format!("{:#}", app::build(site.config.clone()).unwrap_err());
    assert!(error.contains("FED1003") && error.contains("in use by another"), "{error}");
    site.app.take().unwrap().stop_now().await;

    let squatter = std::net::UdpSocket::bind(site.tunnel()).unwrap();
    let error = format!("{:#}", app::build(site.config.clone()).unwrap_err());
    assert!(error.contains("FED1002") && error.contains(&site.tunnel().to_string()), "{error}");
    drop(squatter);
    site.start().await;
}
