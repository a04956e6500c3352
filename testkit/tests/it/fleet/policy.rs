//! Who may reach what: nobody, until a policy at the destination says so.

use http::{Method, StatusCode, Version};
use testkit::{Client, Origin, Speaks, TcpOrigin, client, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{LIMIT, TCP, World, host, intent};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reaches_an_export_until_a_policy_allows_it() {
    let world = World::start(&["east", "west", "south"]).await;
    let origin = world.run("west", "api", Speaks::Http1).await;
    world.write("west", "export-api", &intent::export("api"));
    world.listen("east");
    world.import("east", "api", "http", &["west"]);
    world.linked("east", "west").await;

    let denied = world.until_status("east", "api", StatusCode::FORBIDDEN).await;
    assert!(["FED5001", "FED5002"].contains(&denied.code()), "{denied:?}");
    assert!(denied.text().contains(denied.code()), "{denied:?}");

    let gateway = "spiffe://east.demo.example/fedgate/gateway/gw-0";
    // The caller has no SVID, so no rule by SPIFFE ID is about it; not even its gateway's.
    for allow in [
        "[]",
        "[{cluster: south}]",
        "[{trustDomain: south.demo.example}]",
        "[{cluster: east, trustDomain: south.demo.example}]",
        &format!("[{{spiffeId: {gateway}}}]"),
        &format!("[{{cluster: east, spiffeId: {gateway}}}]"),
        "[{spiffeId: spiffe://east.demo.example/ns/shop/sa/web}]",
    ] {
        set_policy(&world, allow).await;
        let answer = world.get("east", "api", "/").await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (403, "FED5001"),
            "{allow}: {answer:?}"
        );
    }
    assert_eq!(origin.seen().len(), 0, "no denied request reaches the application");

    for allow in ["[{cluster: east}]", "[{trustDomain: east.demo.example}, {cluster: south}]"] {
        set_policy(&world, allow).await;
        assert_eq!(world.get("east", "api", "/").await.unwrap().text(), "api@west", "{allow}");
        taken_back_under_a_connection(&world, &origin).await;
    }
    world.stop().await;
}

async fn set_policy(world: &World, allow: &str) {
    world.write("west", "policy-api", &intent::policy("api", allow));
    world.settle("west").await;
}

/// What a policy no longer allows ends at once, also on a connection that stands.
async fn taken_back_under_a_connection(world: &World, origin: &Origin) {
    let mut standing = Client::connect(world.http("east"), Version::HTTP_11).await.unwrap();
    let request = |path: &str, standing: &Client| {
        standing.request(Method::GET, &host("api"), path).body(client::empty()).unwrap()
    };
    let allowed = request("/before", &standing);
    assert_eq!(standing.send(allowed).await.unwrap().status, StatusCode::OK);
    world.cluster("west").remove_manifest("policy-api").unwrap();
    world.settle("west").await;
    let denied = request("/after", &standing);
    let denied = standing.send(denied).await.unwrap();
    assert_eq!(denied.status, StatusCode::FORBIDDEN);
    assert_eq!(origin.seen_of("/after").len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_tcp_connection_ends_without_reaching_the_application() {
    let world = World::start(&["east", "west"]).await;
    let origin = world.run_tcp("west", "db").await;
    world.write(
        "west",
        "export-db",
        &(intent::export("db") + "---\n" + &intent::policy("db", "[]")),
    );
    world.listen("east");
    world.import("east", "db", "tcp", &["west"]);
    world.linked("east", "west").await;
    world.settle("west").await;
    world.settle("east").await;
    let line = || async {
        // The reset may be here before the connection is.
        let Ok(mut stream) = TcpStream::connect(world.tcp("east")).await else {
            return String::new();
        };
        let _reset = stream.write_all(b"hello\n").await;
        let mut answer = [0; 64];
        let length = stream.read(&mut answer).await.unwrap_or(0);
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    assert_eq!(line().await, "");
    denied_is_logged(&world).await;
    assert_eq!(origin.connections().len(), 0);
    world.write(
        "west",
        "export-db",
        &(intent::export("db") + "---\n" + &intent::policy("db", "[{cluster: east}]")),
    );
    let what = format!("an answer on port {TCP}");
    wait::until_async(&what, LIMIT, async || (line().await == "db@west\n").then_some(())).await;
    other_ports_stay_closed(&world, &origin).await;
    world.stop().await;
}

async fn denied_is_logged(world: &World) {
    let log = world.cluster("west").access_log();
    wait::until("west's record of the denied connection", LIMIT, || {
        let records = testkit::access_log::records(&log);
        let denied = records.iter().any(|record| record["fed_code"] == "FED5001");
        denied.then_some(())
    });
}

/// An export is of the Service's ports, not of everything at its endpoints.
async fn other_ports_stay_closed(world: &World, origin: &TcpOrigin) {
    let before = origin.connections().len();
    let import = intent::import("db", "tcp", &["west"]).replace("port: 9000", "port: 9001");
    let route = intent::tcp_route("db", "ServiceImport").replace("port: 9000", "port: 9001");
    world.write("east", "import-db", &(import + "---\n" + &route));
    world.settle("east").await;
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(world.tcp("east")).await {
        let _reset = stream.write_all(b"hello\n").await;
        let _reset = stream.read_to_end(&mut answer).await;
    }
    assert!(answer.is_empty(), "{:?}", String::from_utf8_lossy(&answer));
    assert_eq!(origin.connections().len(), before);
}
