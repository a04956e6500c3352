//! Peers that are not who they should be.

use std::path::Path;
use std::time::SystemTime;

use http::StatusCode;
use identity::Ca;
use model::{TrustBundle, TrustDomain};
use testkit::{Origin, wait};

use super::{LIMIT, World, east_calls_west};

/// Somebody else's bundle under the name of a trust domain.
fn forged_bundle(folder: &Path, domain: &str) -> TrustBundle {
    let domain = TrustDomain::parse(domain).unwrap();
    Ca::load_or_create(folder, &domain, SystemTime::now()).unwrap().bundle()
}

/// A ClusterPeer with these bundles and the address that the fleet gave it.
pub(super) fn peer(world: &World, cluster: &str, name: &str, bundles: &[TrustBundle]) -> String {
    let address = world.fleet.relay().addr(cluster, name).unwrap();
    let mut text = format!(
        "\
apiVersion: fedgate.dev/v1alpha1
kind: ClusterPeer
metadata: {{name: {name}}}
spec:
  addresses: [{{transport: quic, host: {}, port: {}}}]
  trustDomains:
",
        address.ip(),
        address.port()
    );
    for bundle in bundles {
        let jwks = wire::bundle::format_bundle(bundle).unwrap();
        let jwks = serde_json::to_string(&jwks).unwrap(); // a JSON string is a YAML string
        text += &format!("  - {{name: {}, bundle: {jwks}}}\n", bundle.trust_domain);
    }
    text
}

pub(super) fn bundle(world: &World, cluster: &str) -> TrustBundle {
    world.cluster(cluster).federation().unwrap().bundle().clone()
}

/// Stops a gateway and takes away what it remembers of bundles: as if it were new.
async fn forget(world: &mut World, cluster: &str) {
    let cluster = world.fleet.cluster_mut(cluster);
    cluster.stop_gateway().await;
    std::fs::remove_file(cluster.folder.join("gateway/snapshot.bin")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_another_ca_never_gets_a_tunnel() {
    let mut world = World::start(&["east", "south", "west"]).await;
    let origin = world.run("west", "api", testkit::Speaks::Http1).await;
    world.export("west", "api", "[{cluster: east}]");
    world.listen("east");
    world.import("east", "api", "http", &["west"]);
    world.until_answer("east", "api", "api@west").await;
    let before = origin.seen().len();

    forget(&mut world, "east").await;
    let forged = forged_bundle(&world.folder().join("forged"), "west.demo.example");
    world.write("east", "peer-west", &peer(&world, "east", "west", &[forged]));
    world.settle_node("east").await;
    world.fleet.cluster_mut("east").start_gateway().await.unwrap();
    let refused = world
        .until_peer("east to name the refusal of west", "east", "west", |peer| {
            peer.last_error.as_ref().is_some_and(|error| error.code == 3003)
        })
        .await;
    let reason = refused.last_error.unwrap().text;
    assert!(reason.contains("west.demo.example"), "it names the trust domain: {reason}");
    assert_eq!(refused.links_live, 0);
    // South is as before: one peer's trouble is not another's.
    world.linked("east", "south").await;
    let answer = world.get("east", "api", "/").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "FED2001"), "{answer:?}");
    never_came_through(&world, &origin, before).await;

    // The right bundle again, from a node that numbers it higher: the tunnel comes up by itself.
    forget(&mut world, "east").await;
    let right = bundle(&world, "west");
    world.write("east", "peer-west", &peer(&world, "east", "west", &[right]));
    world.settle_node("east").await;
    world.fleet.cluster_mut("east").start_gateway().await.unwrap();
    world.until_answer("east", "api", "api@west").await;
    world.stop().await;
}

/// West dials too; whoever dials, there was no live link and no request.
async fn never_came_through(world: &World, origin: &Origin, before: usize) {
    let links = world.links("east", "west").await;
    assert!(links.iter().all(|link| link.link.as_ref().unwrap().bytes_received == 0), "{links:#?}");
    wait::until_async("west to see no link either", LIMIT, async || {
        let clusters = world.operator("west").await.clusters().await.ok()?.clusters;
        let east = clusters.into_iter().find(|cluster| cluster.name == "east")?;
        (east.links_live == 0).then_some(())
    })
    .await;
    assert_eq!(origin.seen().len(), before);
}

/// A bundle that is exchanged under a running gateway without a higher sequence is refused, and the
/// one in force goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_exchanged_in_place_is_refused() {
    let (world, _origin) = east_calls_west().await;
    let mut forged = forged_bundle(&world.folder().join("forged"), "west.demo.example");
    forged.sequence = bundle(&world, "west").sequence;
    world.write("east", "peer-west", &peer(&world, "east", "west", &[forged]));
    wait::until_async("the finding FED3006", LIMIT, async || {
        let found = world.diagnostics("east").await;
        found.iter().any(|line| line.starts_with("FED3006")).then_some(())
    })
    .await;
    assert_eq!(world.get("east", "api", "/").await.unwrap().status, StatusCode::OK);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trust_domain_has_one_owner() {
    let mut world = World::start(&["east", "south", "west"]).await;
    let _origin = world.run("west", "api", testkit::Speaks::Http1).await;
    world.export("west", "api", "[{cluster: east}]");
    world.listen("east");
    world.import("east", "api", "http", &["west"]);
    world.until_answer("east", "api", "api@west").await;

    // West claims south's trust domain besides its own. Nothing tells who is right, so neither has
    // it, and west keeps its own.
    let south = bundle(&world, "south");
    let both = [bundle(&world, "west"), south.clone()];
    world.write("east", "peer-west", &peer(&world, "east", "west", &both));
    conflict(&world, "south.demo.example").await;
    let unlinked = "the tunnel from south to east to end";
    world.until_peer(unlinked, "south", "east", |peer| peer.links_live == 0).await;
    assert_eq!(world.get("east", "api", "/").await.unwrap().status, StatusCode::OK);

    // West says it is of south's trust domain only: it has none left, and no tunnel, nor has south.
    world.write("east", "peer-west", &peer(&world, "east", "west", &[south]));
    world.until_status("east", "api", StatusCode::SERVICE_UNAVAILABLE).await;

    // Somebody claims east's own trust domain. Nobody else is ever taken for east.
    forget(&mut world, "east").await;
    let own = forged_bundle(&world.folder().join("forged"), "east.demo.example");
    let claims = [bundle(&world, "west"), own];
    world.write("east", "peer-west", &peer(&world, "east", "west", &claims));
    world.settle_node("east").await;
    world.fleet.cluster_mut("east").start_gateway().await.unwrap();
    conflict(&world, "east.demo.example").await;
    world.linked("east", "south").await;
    world.stop().await;
}

async fn conflict(world: &World, domain: &str) {
    let what = format!("the finding FED4008 about {domain}");
    wait::until_async(&what, LIMIT, async || {
        let found = world.diagnostics("east").await;
        let named = |line: &String| line.starts_with("FED4008") && line.contains(domain);
        found.iter().any(named).then_some(())
    })
    .await;
}
