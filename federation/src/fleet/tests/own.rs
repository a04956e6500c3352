//! A cluster's own objects on their way into the store.

use model::code::{OBJECT_INVALID, QUOTA_EXCEEDED, SERVICE_NOT_FOUND};
use model::{AppProtocol, Resource, ResourceSet, Service, ServiceExport, ServicePort};
use wire::store::{Change, Domain, Publish};

use super::fixture::{Cluster, World, allow, export, service};
use crate::fleet::{OwnStep, own_records};

fn local_service(name: &str, port: u16) -> Resource {
    let ports = vec![ServicePort { name: None, port, protocol: AppProtocol::Http }];
    Resource::Service(Service { name: service(name), ports })
}

fn bare_export(name: &str) -> Resource {
    Resource::ServiceExport(ServiceExport { name: service(name), ports: vec![] })
}

/// Publishes steps as a cluster does.
fn publish(world: &mut World, cluster: &mut Cluster, steps: Vec<OwnStep>) {
    for OwnStep { puts, removes, digest, records } in steps {
        cluster.mark.generation += 1;
        let head = wire::store::Head { digest, records, ..cluster.head() };
        let head = cluster.sign(Domain::Head, &head.encode());
        world.accept(Change::Publish(Publish { head, puts, removes }));
    }
}

fn salts() -> impl FnMut() -> [u8; 16] {
    let mut next = 0_u128;
    move || {
        next += 1;
        next.to_be_bytes()
    }
}

#[test]
fn exports_leave_with_the_ports_of_their_services() {
    let (mut world, mut east) = World::founded();
    let catalog: ResourceSet = [
        local_service("shop/api", 80),
        bare_export("shop/api"),
        bare_export("shop/lost"),
        allow("shop/api", &["west"]),
    ]
    .into_iter()
    .collect();
    let (steps, diagnostics) = own_records(&east.id(), &east.peer(), &catalog, None, &mut salts());
    assert_eq!(steps.len(), 1);
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(diagnostics[0].code, SERVICE_NOT_FOUND);
    assert!(diagnostics[0].message.contains("shop/lost"), "{}", diagnostics[0]);
    publish(&mut world, &mut east, steps);
    let fleet = world.state.fleet();
    let resources: Vec<_> = fleet.records(&east.id()).filter_map(|it| it.resource()).collect();
    assert_eq!(
        resources,
        [&east.peer_resource(), &export("shop/api", 80), &allow("shop/api", &["west"])]
    );
}

#[test]
fn what_did_not_change_keeps_its_bytes_and_nothing_is_no_step() {
    let (mut world, mut east) = World::founded();
    let mut catalog: ResourceSet = [
        local_service("shop/a", 80),
        bare_export("shop/a"),
        local_service("shop/b", 80),
        bare_export("shop/b"),
    ]
    .into_iter()
    .collect();
    let mut salts = salts();
    let (steps, _) = own_records(&east.id(), &east.peer(), &catalog, None, &mut salts);
    publish(&mut world, &mut east, steps);
    let owner = world.state.fleet().owner(&east.id());
    assert!(own_records(&east.id(), &east.peer(), &catalog, owner, &mut salts).0.is_empty());

    catalog.upsert(local_service("shop/b", 81));
    catalog.remove(&bare_export("shop/a").key());
    let (steps, _) = own_records(&east.id(), &east.peer(), &catalog, owner, &mut salts);
    let [step] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(step.puts.len(), 1);
    assert_eq!(step.puts[0].key.name.as_str(), "b");
    assert_eq!(step.removes.len(), 1);
    assert_eq!(step.records, 2);
    publish(&mut world, &mut east, steps);
}

#[test]
fn much_goes_in_several_commands() {
    let (mut world, mut east) = World::founded();
    let mut catalog = ResourceSet::default();
    for n in 0..3000 {
        let name = format!("shop/{}.{n}", "x".repeat(60));
        catalog.upsert(local_service(&name, 80));
        catalog.upsert(bare_export(&name));
    }
    let (steps, diagnostics) = own_records(&east.id(), &east.peer(), &catalog, None, &mut salts());
    assert!(diagnostics.is_empty() && steps.len() > 2, "{} steps", steps.len());
    publish(&mut world, &mut east, steps);
    assert_eq!(world.state.fleet().records(&east.id()).count(), 3001);
    let owner = world.state.fleet().owner(&east.id());
    let none = ResourceSet::default();
    let (steps, _) = own_records(&east.id(), &east.peer(), &none, owner, &mut salts());
    publish(&mut world, &mut east, steps);
    assert_eq!(world.state.fleet().records(&east.id()).count(), 1);
}

#[test]
fn what_is_too_much_or_unfit_is_left_out_alone() {
    let east = Cluster::root("east");
    let mut catalog = ResourceSet::default();
    for n in 0..wire::store::limits::RECORDS_PER_CLUSTER_MAX {
        let name = format!("shop/x{n}");
        catalog.upsert(local_service(&name, 80));
        catalog.upsert(bare_export(&name));
    }
    let (steps, diagnostics) = own_records(&east.id(), &east.peer(), &catalog, None, &mut salts());
    assert_eq!(diagnostics.len(), 1, "the ClusterPeer took one place");
    assert_eq!(diagnostics[0].code, QUOTA_EXCEEDED);
    let last = steps.last().unwrap();
    assert_eq!(last.records as usize, wire::store::limits::RECORDS_PER_CLUSTER_MAX);

    let Resource::AccessPolicy(mut policy) = allow("shop/api", &[]) else { unreachable!() };
    policy.allow = vec![model::AllowEntry::default()];
    let unfit: ResourceSet = [Resource::AccessPolicy(policy)].into_iter().collect();
    let (steps, diagnostics) = own_records(&east.id(), &east.peer(), &unfit, None, &mut salts());
    assert_eq!(diagnostics[0].code, OBJECT_INVALID);
    assert!(diagnostics[0].message.contains("set at least one of"), "{}", diagnostics[0]);
    assert_eq!(steps[0].records, 1);
}

/// However the newcomers are named: what serves stays, and they are named one by one.
#[test]
fn of_what_is_too_much_the_newest_is_left_out() {
    let (mut world, mut east) = World::founded();
    let mut catalog: ResourceSet =
        [local_service("shop/api", 80), bare_export("shop/api")].into_iter().collect();
    let mut salts = salts();
    let (steps, _) = own_records(&east.id(), &east.peer(), &catalog, None, &mut salts);
    publish(&mut world, &mut east, steps);
    let flood = |catalog: &mut ResourceSet, namespaces: std::ops::Range<usize>, prefix: &str| {
        for n in namespaces {
            let name = format!("{prefix}{n:04}/x");
            catalog.upsert(local_service(&name, 80));
            catalog.upsert(bare_export(&name));
        }
    };
    // The ClusterPeer and `shop` have two places.
    let places = crate::fleet::limits::NAMESPACES_PER_CLUSTER_MAX - 2;
    flood(&mut catalog, 0..places + 2, "b");
    let owner = world.state.fleet().owner(&east.id());
    let (steps, left_out) = own_records(&east.id(), &east.peer(), &catalog, owner, &mut salts);
    let named = |n: usize| format!("ServiceExport/b{n:04}/x");
    let objects: Vec<String> = left_out.iter().map(|told| told.object.clone()).collect();
    assert_eq!(objects, [named(places), named(places + 1)]);
    assert!(left_out.iter().all(|told| told.code == QUOTA_EXCEEDED));
    publish(&mut world, &mut east, steps);

    flood(&mut catalog, 0..1, "a");
    let owner = world.state.fleet().owner(&east.id());
    let (steps, left_out) = own_records(&east.id(), &east.peer(), &catalog, owner, &mut salts);
    assert!(steps.is_empty(), "nothing that stands gives way: {steps:?}");
    assert_eq!(left_out[0].object, "ServiceExport/a0000/x");
    assert_eq!(left_out.len(), 3);
}
