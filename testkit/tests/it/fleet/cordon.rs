//! Cordons: no new exchanges go to a cluster, those in progress end in peace, restarts change nothing.

use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::AtomicU32;

use fedctl::commands::Outcome;
use fedctl::error::{CommandError, Exit};
use http::StatusCode;
use testkit::{Fleet, FleetSpec, Introduction, Speaks, client, wait};
use tokio::task::JoinHandle;
use wire::operator::proto::join_event::Event;
use wire::operator::proto::{FoundRequest, IssueTokenRequest};

use super::{LIMIT, WORKERS, World, host, intent, two_exporters};

/// `fedctl` as a user runs it, against a cluster's node.
pub(super) fn fedctl(
    world: &World,
    cluster: &str,
    words: &str,
) -> JoinHandle<Result<Outcome, CommandError>> {
    let server = format!("unix:{}", world.cluster(cluster).operator_socket().display());
    let line = format!("fedctl --server {server} {words}");
    let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    let cli = fedctl::cli::parse_from(words).unwrap();
    tokio::task::spawn_blocking(move || fedctl::commands::run(cli))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_what_is_in_flight_and_nothing_new_goes_there() {
    let (mut world, west, _south) = two_exporters().await;
    let held = tokio::spawn({
        let address = world.http("east");
        async move { client::get(address, &host("api"), "/hold").await }
    });
    world.until_peer("east to say that one is in flight", "east", "west", |p| p.sent == 1).await;
    world.until_peer("west to say so too", "west", "east", |p| p.received == 1).await;

    let drain = fedctl(&world, "east", "drain west --reason disks --wait 60s");
    let in_force = |peer: &wire::operator::proto::ClusterStatus| {
        peer.cordon.as_ref().is_some_and(|cordon| cordon.in_force && cordon.reason == "disks")
    };
    world.until_peer("the cordon to be in force", "east", "west", in_force).await;
    world.settle("east").await;
    let before = west.seen().len();
    for _ in 0..50 {
        let answer = world.get("east", "api", "/new").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "api@south"));
    }
    assert_eq!(west.seen().len(), before, "nothing new came to west");
    assert!(!drain.is_finished(), "one is in flight");
    let found = world.diagnostics("east").await;
    assert!(found.iter().any(|line| line.starts_with("FED7013 ClusterPeer/west")), "{found:?}");
    west.release();
    assert_eq!(held.await.unwrap().unwrap().status, StatusCode::OK, "it was not cut");
    assert_eq!(drain.await.unwrap().unwrap(), Outcome::Done);

    // Neither a new gateway nor a new node sends anything there.
    let east = world.fleet.cluster_mut("east");
    east.stop_federation().await;
    east.stop_gateway().await;
    east.start_gateway().await.unwrap();
    world.until_answer("east", "api", "api@south").await;
    world.fleet.cluster_mut("east").start_federation().await.unwrap();
    world.until_peer("the cordon to be in force again", "east", "west", in_force).await;
    world.settle("east").await;
    world.linked("east", "west").await;
    let before = west.seen().len();
    for _ in 0..20 {
        assert_eq!(world.get("east", "api", "/later").await.unwrap().text(), "api@south");
    }
    assert_eq!(west.seen().len(), before, "nothing came to west after the restart");

    fedctl(&world, "east", "uncordon west").await.unwrap().unwrap();
    world.until_answer("east", "api", "api@west").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_takes_too_long_says_what_is_left_and_stays_cordoned() {
    let (world, west, _south) = two_exporters().await;
    let held = tokio::spawn({
        let address = world.http("east");
        async move { client::get(address, &host("api"), "/hold").await }
    });
    world.until_peer("one to be in flight", "east", "west", |peer| peer.sent == 1).await;
    let error = fedctl(&world, "east", "drain west --wait 1s").await.unwrap().unwrap_err();
    assert_eq!(error.exit, Exit::TimedOut);
    assert!(error.to_string().contains("west is not drained after 1 s: "), "{error}");
    world.until_peer("it to stay cordoned", "east", "west", |peer| peer.cordon.is_some()).await;
    let error = fedctl(&world, "east", "cordon nowhere").await.unwrap().unwrap_err();
    assert!(error.to_string().contains("nowhere is no peer of this cluster (FED4007)"), "{error}");
    let error = fedctl(&world, "east", "cordon east").await.unwrap().unwrap_err();
    assert!(error.to_string().contains("in no federation that could tell"), "{error}");
    west.release();
    held.await.unwrap().unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_of_the_network_tells_who_answers() {
    let mut world = World::start(&["east", "west"]).await;
    world.linked("east", "west").await;
    // Named, since between the clusters of a fleet is a relay that lets nobody else through.
    let words = format!("netcheck {}", world.cluster("west").tunnel_address());
    assert_eq!(fedctl(&world, "east", &words).await.unwrap().unwrap(), Outcome::Done);
    world.fleet.cluster_mut("west").stop_gateway().await;
    assert_eq!(fedctl(&world, "east", &words).await.unwrap().unwrap(), Outcome::Unwell);
    world.stop().await;
}

/// East has founded a federation, and west has joined it.
async fn federated(folder: tempfile::TempDir) -> World {
    let spec = FleetSpec {
        folder: Path::to_path_buf(folder.path()),
        clusters: vec!["east".into(), "west".into()],
        delays: vec![],
        introduction: Introduction::None,
        workers: WORKERS,
    };
    let fleet = Fleet::start(spec).await.unwrap();
    let world = World { fleet, folder, settled: AtomicU32::new(0) };
    let east = world.operator("east").await;
    east.found(FoundRequest {}).await.unwrap();
    let request = IssueTokenRequest {
        name: "west".into(),
        roles: "admit,export".into(),
        ..IssueTokenRequest::default()
    };
    let what = "a token, once the gateway answers";
    let token = wait::until_async(what, LIMIT, async || {
        Some(east.issue_token(request.clone()).await.ok()?.text)
    });
    let token = token.await;
    let mut events = world.operator("west").await.join(token, LIMIT).await.unwrap();
    let mut joined = false;
    while let Some(event) = events.message().await.unwrap() {
        joined |= matches!(event.event, Some(Event::Joined(_)));
    }
    assert!(joined);
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_cordons_itself_is_sent_nothing_by_the_others() {
    let folder = tempfile::Builder::new().prefix("fg-").tempdir().unwrap();
    let world = federated(folder).await;
    let west = world.run("west", "api", Speaks::Http1).await;
    world.export("west", "api", "[{cluster: east}]");
    world.listen("east");
    world.write("east", "route", &intent::http_route("api", &host("api"), "ServiceImport"));
    world.until_answer("east", "api", "api@west").await;

    assert_eq!(
        fedctl(&world, "west", "drain west --wait 60s").await.unwrap().unwrap(),
        Outcome::Done
    );
    let told = |peer: &wire::operator::proto::ClusterStatus| {
        peer.cordon.as_ref().is_some_and(|cordon| cordon.by_itself && cordon.in_force)
    };
    world.until_peer("east to know", "east", "west", told).await;
    world.settle("east").await;
    let before = west.seen().len();
    let answer = world.get("east", "api", "/").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "FED7002"), "{answer:?}");
    assert_eq!(west.seen().len(), before, "nothing came to west");
    fedctl(&world, "west", "uncordon west").await.unwrap().unwrap();
    world.until_answer("east", "api", "api@west").await;
    world.stop().await;
}
