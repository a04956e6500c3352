//! Which export serves, and what a cluster's gateways are told.

use model::code::{
    EXPORT_CONFLICT, EXPORT_NOT_GRANTED, EXPORT_PORTS_DIFFER, GRANT_WITHOUT_ROLE,
    LOCAL_OBJECT_WINS, ROLE_MISSING, TRUST_DOMAIN_TAKEN,
};
use model::{ClusterPeer, Resource, ResourceSet, Role, RoleSet, ServiceImport};

use super::fixture::{Cluster, World, allow, domain, export, grant_namespace, service};
use crate::fleet::{merge, resources_for, serving};

fn exporters(world: &World, name: &str) -> Vec<String> {
    let serving = serving(world.state.fleet());
    serving.exporters(&service(name)).iter().map(|it| it.name.to_string()).collect()
}

fn findings(world: &World) -> Vec<(model::code::Code, String)> {
    let serving = serving(world.state.fleet());
    let finding = |it: &crate::fleet::Finding| (it.diagnostic.code, it.diagnostic.message.clone());
    serving.findings().iter().map(finding).collect()
}

fn two() -> (World, Cluster, Cluster) {
    let (mut world, east) = World::founded();
    let west = world.admit(&east, "west");
    (world, east, west)
}

#[test]
fn without_a_grant_the_first_exporter_serves() {
    let (mut world, mut east, mut west) = two();
    world.publish(&mut west, &[export("shop/api", 80)]);
    world.publish(&mut east, &[export("shop/api", 80), export("shop/web", 80)]);
    assert_eq!(exporters(&world, "shop/api"), ["west"]);
    assert_eq!(exporters(&world, "shop/web"), ["east"], "names are apart from each other");
    let found = findings(&world);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, EXPORT_CONFLICT);
    assert!(found[0].1.contains("west exports shop/api since 1."), "{}", found[0].1);
    let (_, told) = resources_for(world.state.fleet(), &east.id());
    assert_eq!(told.len(), 1, "the loser is told");
    assert!(resources_for(world.state.fleet(), &west.id()).1.is_empty());

    let gone = west.publish(&[], &[export("shop/api", 80)]);
    world.accept(gone);
    assert_eq!(exporters(&world, "shop/api"), ["east"]);
    world.publish(&mut west, &[export("shop/api", 80)]);
    assert_eq!(exporters(&world, "shop/api"), ["east"], "who comes back is the younger one");
}

#[test]
fn a_grant_lets_several_serve_and_keeps_others_out() {
    let (mut world, mut east, mut west) = two();
    let mut south = world.admit(&east, "south");
    for cluster in [&mut west, &mut east, &mut south] {
        world.publish(cluster, &[export("shop/api", 80)]);
    }
    world.publish(&mut east, &[grant_namespace("shop", &["shop"], &["east", "south"])]);
    assert_eq!(exporters(&world, "shop/api"), ["east", "south"]);
    assert_eq!(findings(&world)[0].0, EXPORT_NOT_GRANTED);
    world.publish(&mut south, &[grant_namespace("more", &["shop"], &["west"])]);
    assert_eq!(exporters(&world, "shop/api"), ["west", "east", "south"], "grants add up");
    assert!(exporters(&world, "other/api").is_empty());
}

#[test]
fn a_grant_counts_by_its_owners_role_and_so_does_an_export() {
    let (mut world, mut east) = World::founded();
    let mut plain = world.admit_with(&east, "plain", RoleSet::NONE.with(Role::Export), 0);
    let mut mute = world.admit_with(&east, "mute", RoleSet::NONE, 0);
    world.publish(
        &mut plain,
        &[export("shop/api", 80), grant_namespace("mine", &["shop"], &["plain"])],
    );
    world.publish(&mut mute, &[export("shop/mute", 80)]);
    world.publish(&mut east, &[export("shop/web", 80)]);
    assert_eq!(exporters(&world, "shop/web"), ["east"], "the grant of a plain member is none");
    assert!(exporters(&world, "shop/mute").is_empty());
    let codes: Vec<_> = findings(&world).into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, [GRANT_WITHOUT_ROLE, ROLE_MISSING]);
}

fn imports(resources: &[Resource]) -> Vec<&ServiceImport> {
    let import = |resource: &'_ Resource| matches!(resource, Resource::ServiceImport(_));
    let imports = resources.iter().filter(|resource| import(resource));
    imports
        .map(|resource| match resource {
            Resource::ServiceImport(import) => import,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn imports_follow_from_what_one_may_see() {
    let (mut world, mut east, mut west) = two();
    world.publish(&mut east, &[export("shop/api", 80), allow("shop/api", &["west"])]);
    world.publish(&mut west, &[export("shop/web", 80)]);
    let (told, _) = resources_for(world.state.fleet(), &west.id());
    let told = imports(&told);
    assert_eq!(told.len(), 2, "what it may reach, and its own");
    assert_eq!(told[0].name, service("shop/api"));
    assert_eq!(told[0].clusters, [east.member.name.clone()]);
    let (told, _) = resources_for(world.state.fleet(), &east.id());
    assert_eq!(imports(&told).len(), 1, "the export of west allows nobody");
}

#[test]
fn exports_of_one_name_are_merged_and_the_oldest_ports_count() {
    let (mut world, mut east, mut west) = two();
    let all = ["east", "west", "south"];
    let south = world.admit(&east, "south");
    world.publish(
        &mut east,
        &[
            export("shop/api", 80),
            allow("shop/api", &all),
            grant_namespace("shop", &["shop"], &all),
        ],
    );
    let Resource::ServiceExport(mut other) = export("shop/api", 80) else { unreachable!() };
    other.ports[0].protocol = model::AppProtocol::Tcp;
    other.ports.push(model::ServicePort {
        name: Some("admin".into()),
        port: 81,
        protocol: model::AppProtocol::Http,
    });
    world.publish(&mut west, &[Resource::ServiceExport(other), allow("shop/api", &all)]);
    let (told, diagnostics) = resources_for(world.state.fleet(), &south.id());
    let [import] = imports(&told)[..] else { panic!("{told:?}") };
    let names: Vec<&str> = import.clusters.iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["east", "west"]);
    let ports: Vec<_> = import.ports.iter().map(|it| (it.port, it.protocol.as_str())).collect();
    assert_eq!(ports, [(80, "http"), (81, "http")]);
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(diagnostics[0].code, EXPORT_PORTS_DIFFER);
    assert!(diagnostics[0].message.contains("west has port 80 (tcp)"), "{}", diagnostics[0]);
}

#[test]
fn a_member_speaks_for_its_own_name_and_domains_only() {
    let (mut world, east, mut west) = two();
    let mut peer = west.peer();
    peer.trust_bundles
        .push(model::TrustBundle { trust_domain: domain("east"), ..peer.trust_bundles[0].clone() });
    world.publish(&mut west, &[Resource::ClusterPeer(peer)]);
    let (told, diagnostics) = resources_for(world.state.fleet(), &east.id());
    assert_eq!(told, [west.peer_resource()], "without the domain of another");
    assert_eq!(diagnostics[0].code, TRUST_DOMAIN_TAKEN);
    assert!(resources_for(world.state.fleet(), &west.id()).0.is_empty(), "nobody is its own peer");
}

#[test]
fn what_cannot_be_read_is_reported_and_serves_nothing() {
    let (mut world, east, mut west) = two();
    let mut put = west.put(&export("shop/api", 80));
    put.record = bytes::Bytes::from_static(b"\xff\xff not a record");
    let change = west.publish_raw(vec![put], vec![]);
    world.accept(change);
    assert!(exporters(&world, "shop/api").is_empty());
    assert_eq!(findings(&world)[0].0, model::code::OBJECT_INVALID);
    assert!(resources_for(world.state.fleet(), &east.id()).0.is_empty());
}

#[test]
fn a_local_object_wins() {
    let fleet = vec![
        Resource::ClusterPeer(ClusterPeer { addresses: vec![], ..Cluster::root("a").peer() }),
        Cluster::root("b").peer_resource(),
        Cluster::root("c").peer_resource(),
    ];
    let local: ResourceSet =
        [Cluster::root("a").peer_resource(), Cluster::root("b").peer_resource()]
            .into_iter()
            .collect();
    let (merged, diagnostics) = merge(&local, fleet);
    assert_eq!(merged.len(), 3);
    let a = Cluster::root("a").peer_resource();
    assert_eq!(**merged.get(&a.key()).unwrap(), a);
    assert_eq!(diagnostics.len(), 1, "of two that are the same nothing is said");
    assert_eq!(diagnostics[0].code, LOCAL_OBJECT_WINS);
}
