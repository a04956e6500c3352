//! `health.listen` of a whole node, as a kubelet and Prometheus ask it.

use std::net::SocketAddr;

use federation::app;
use federation::config::FederationConfig;
use federation::health::CATALOG;
use federation::limits::HEALTH_CONNECTIONS_MAX;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixture::Site;

/// The status of an answer, and its body.
async fn ask(address: SocketAddr, request: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("{request} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(std::io::ErrorKind::InvalidData)?, body.to_owned()))
}

fn value(page: &str, row: &str) -> f64 {
    let value = page.lines().find_map(|line| line.strip_prefix(row)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {row} in {page}")).parse().unwrap()
}

#[tokio::test]
async fn a_node_tells_that_it_lives_that_it_is_ready_and_what_it_counts() {
    let site = Site::new();
    let yaml = format!("{}health: {{listen: \"127.0.0.1:0\"}}\n", site.yaml());
    let config = FederationConfig::from_yaml(&yaml, &site.path("federation.yaml")).unwrap();
    let node = app::build(config).await.unwrap();
    let health = node.health().unwrap();
    assert_eq!(ask(health, "GET /livez").await.unwrap(), (200, "ok\n".into()));
    assert_eq!(ask(health, "GET /readyz").await.unwrap(), (200, "ok\n".into()));
    for (request, status) in [("POST /readyz", 405), ("GET /drain", 404), ("GET /", 404)] {
        assert_eq!(ask(health, request).await.unwrap().0, status, "{request}");
    }

    let (status, alone) = ask(health, "GET /metrics").await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(value(&alone, "fedgate_store_mode{mode=\"alone\"}"), 1.0);
    assert_eq!(value(&alone, "fedgate_federation_members"), 0.0);
    assert_eq!(value(&alone, "fedgate_gateways_connected"), 0.0);
    assert!(value(&alone, "fedgate_certificate_expiry_timestamp_seconds") > 1e9);
    assert!(alone.contains("# HELP process_cpu_seconds_total"), "{alone}");
    node.membership().init().await.unwrap();
    let (_, founded) = ask(health, "GET /metrics").await.unwrap();
    assert_eq!(value(&founded, "fedgate_store_mode{mode=\"member\"}"), 1.0);
    assert_eq!(value(&founded, "fedgate_store_is_leader"), 1.0);
    assert_eq!(value(&founded, "fedgate_federation_members"), 1.0);
    for entry in CATALOG.iter().filter(|entry| !entry.name.contains("_kubernetes_")) {
        let help = format!("# HELP {} {}\n", entry.name, entry.help);
        let silence = entry.name.ends_with("_silence_seconds"); // a leader hears no other
        assert!(silence || founded.contains(&help), "{help} is not in {founded}");
    }

    let mut silent = Vec::new();
    for _ in 0..=HEALTH_CONNECTIONS_MAX {
        silent.push(TcpStream::connect(health).await.unwrap());
    }
    assert!(ask(health, "GET /livez").await.is_err(), "places are bounded");
    drop(silent);
    while ask(health, "GET /livez").await.is_err() {
        tokio::task::yield_now().await;
    }
    node.stop().await;
    assert!(TcpStream::connect(health).await.is_err(), "the port goes with the node");
}
