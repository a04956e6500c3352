//! Processes come and go; what is on disk is enough to serve.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use testkit::{Speaks, client, wait};

use super::{LIMIT, admin, east_calls_west, host, intent};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_restart_and_serve_without_any_federation_node() {
    let (mut world, origin) = east_calls_west().await;
    for cluster in ["east", "west"] {
        world.fleet.cluster_mut(cluster).stop_federation().await;
    }
    assert_eq!(world.get("east", "api", "/").await.unwrap().text(), "api@west");
    for cluster in ["west", "east"] {
        let cluster = world.fleet.cluster_mut(cluster);
        cluster.stop_gateway().await;
        cluster.start_gateway().await.unwrap();
        world.until_answer("east", "api", "api@west").await;
    }
    for cluster in ["east", "west"] {
        keys_are_private(&world.cluster(cluster).folder);
    }

    // While west's node is down its folder changes: the policy goes, another service comes.
    world.cluster("west").remove_manifest("export-api").unwrap();
    let late = world.run("west", "late", Speaks::Http1).await;
    world.export("west", "late", "[{cluster: east}]");
    assert_eq!(
        world.get("east", "api", "/").await.unwrap().text(),
        "api@west",
        "nobody has read it"
    );
    world.fleet.cluster_mut("west").start_federation().await.unwrap();
    let refused = world.until_status("east", "api", StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(refused.code(), "FED4005", "west exports it no longer: {refused:?}");
    world.fleet.cluster_mut("east").start_federation().await.unwrap();
    world.import("east", "late", "http", &["west"]);
    world.until_answer("east", "late", "late@west").await;
    assert!(!late.seen().is_empty() && !origin.seen().is_empty());
    world.stop().await;
}

/// Keys are readable by nobody else, wherever in the data folders they are.
fn keys_are_private(folder: &Path) {
    let mut keys = 0;
    for file in files_below(folder) {
        let bytes = std::fs::read(&file).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let is_public = file.extension().is_some_and(|extension| extension == "pub");
        let is_named_key = file.to_string_lossy().contains("key") && !is_public;
        if text.contains("PRIVATE KEY") || is_named_key {
            let mode = file.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", file.display());
            keys += 1;
        }
    }
    assert!(keys >= 3, "CA, node and gateway have a key each; {keys} were found");
}

pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files.extend(files_below(&entry.path()));
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_federation_node_restarts_under_load_and_nobody_notices() {
    let (mut world, _origin) = east_calls_west().await;
    let stop = Arc::new(AtomicBool::new(false));
    let (until, address) = (stop.clone(), world.http("east"));
    let load = tokio::spawn(async move {
        let mut answers = 0;
        while !until.load(Ordering::Relaxed) {
            let answer = client::get(address, &host("api"), "/load").await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            answers += 1;
        }
        answers
    });
    for cluster in ["east", "west", "west", "east"] {
        let cluster = world.fleet.cluster_mut(cluster);
        cluster.stop_federation().await;
        cluster.start_federation().await.unwrap();
    }
    // The stream resumes: what is written now arrives.
    for cluster in ["east", "west"] {
        world.settle(cluster).await;
    }
    let more = world.run("west", "more", Speaks::Http1).await;
    world.export("west", "more", "[{cluster: east}]");
    world.import("east", "more", "http", &["west"]);
    world.until_answer("east", "more", "more@west").await;
    stop.store(true, Ordering::Relaxed);
    assert!(load.await.unwrap() > 20);
    assert!(!more.seen().is_empty());
    world.stop().await;
}

/// A snapshot that a disk has damaged is not served from: the gateway says that it has none, and
/// goes on when the node comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_not_served_from() {
    let (mut world, _origin) = east_calls_west().await;
    let snapshot = world.cluster("east").folder.join("gateway/snapshot.bin");
    wait::until("a snapshot on disk", LIMIT, || snapshot.exists().then_some(()));
    for damage in [cut_short, flip_a_bit, empty] {
        let east = world.fleet.cluster_mut("east");
        east.stop_federation().await;
        east.stop_gateway().await;
        let bytes = std::fs::read(&snapshot).unwrap();
        std::fs::write(&snapshot, damage(&bytes)).unwrap();
        east.start_gateway().await.unwrap();
        let ready = admin::get(&world, "east", "/readyz").await;
        assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{ready:?}");
        assert!(ready.text().contains("FED1004"), "{ready:?}");
        let closed = world.get("east", "api", "/").await;
        assert!(closed.is_err(), "it serves from a damaged file: {closed:?}");
        world.fleet.cluster_mut("east").start_federation().await.unwrap();
        world.until_answer("east", "api", "api@west").await;
        let good = || (std::fs::read(&snapshot).ok()?.len() >= bytes.len()).then_some(());
        wait::until("a new snapshot on disk", LIMIT, good);
    }
    world.stop().await;
}

fn cut_short(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len() / 2].into()
}

fn flip_a_bit(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes
}

fn empty(_: &[u8]) -> Vec<u8> {
    Vec::new()
}

/// A manifest that is broken while others are good harms nobody but itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_manifests_harm_only_themselves() {
    let (world, origin) = east_calls_west().await;
    world.write("west", "broken", "apiVersion: v1\nkind: Service\nmetadata: {name: [\n");
    world.write("west", "foreign", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n");
    let misspelt = intent::policy("api", "[{clusters: east}]").replace("api-callers", "other");
    world.write("west", "misspelt", &misspelt);
    world.settle("west").await;
    let found = world.diagnostics("west").await;
    for code in ["FED4010", "FED4003"] {
        assert!(found.iter().any(|line| line.starts_with(code)), "{code} is missing: {found:#?}");
    }
    assert!(
        found.iter().any(|line| line.contains("other") && line.contains("clusters")),
        "{found:#?}"
    );
    assert_eq!(world.get("east", "api", "/").await.unwrap().text(), "api@west");
    // A file that was good and breaks: what was last read of it stays in service.
    let good =
        std::fs::read_to_string(world.cluster("west").manifests_folder().join("slice-api.yaml"));
    world.write("west", "slice-api", &good.unwrap().replace("endpoints:", "endpoints: ]"));
    world.settle("west").await;
    assert_eq!(world.get("east", "api", "/still").await.unwrap().text(), "api@west");
    assert_eq!(origin.seen_of("/still").len(), 1);
    world.stop().await;
}
