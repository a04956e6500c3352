//! The log against the fold that gateways do.

use model::{Namespace, ObjectName, Service, ServiceExport, ServiceName, ServicePort};
use wire::resource::Delta;

use super::*;

/// A gateway's side: what it has, folded from deltas.
#[derive(Default)]
struct Gateway {
    revision: Option<Revision>,
    resources: ResourceSet,
}

impl Gateway {
    /// Catches up; says whether it took a snapshot, or `None` when there was nothing to do.
    fn catch_up(&mut self, revisions: &Revisions) -> Option<bool> {
        let delta = Delta::decode(revisions.delta_from(self.revision)?).unwrap();
        let snapshot = delta.is_snapshot();
        delta.apply(&mut self.revision, &mut self.resources).unwrap();
        Some(snapshot)
    }
}

fn set<const N: usize>(resources: [Resource; N]) -> ResourceSet {
    resources.into_iter().collect()
}

fn export(name: &str) -> Resource {
    let name = ServiceName::parse(&format!("shop/{name}")).unwrap();
    Resource::ServiceExport(ServiceExport { name, ports: vec![] })
}

fn service(name: &str, port: u16) -> Resource {
    let name = ServiceName::parse(&format!("shop/{name}")).unwrap();
    let port = ServicePort { name: None, port, protocol: model::AppProtocol::Http };
    Resource::Service(Service { name, ports: vec![port] })
}

fn slice(name: &str) -> Resource {
    Resource::EndpointSlice(model::EndpointSlice {
        namespace: Namespace::parse("shop").unwrap(),
        name: ObjectName::parse(name).unwrap(),
        service: ObjectName::parse("api").unwrap(),
        ports: vec![],
        endpoints: vec![],
    })
}

#[test]
fn a_gateway_gets_a_snapshot_then_only_differences() {
    let revisions = Revisions::new(3);
    let mut gateway = Gateway::default();
    assert_eq!(*revisions.watch().borrow(), None);
    let first = revisions.publish(&set([export("a"), service("a", 80)]));
    assert_eq!(first.revision, Some(Revision { epoch: 3, index: 1 }));
    assert_eq!(gateway.catch_up(&revisions), Some(true));
    assert_eq!(gateway.catch_up(&revisions), None, "it has everything");

    let second = revisions.publish(&set([service("a", 81), export("b")]));
    assert_eq!(second.revision, Some(Revision { epoch: 3, index: 2 }));
    let delta = Delta::decode(revisions.delta_from(gateway.revision).unwrap()).unwrap();
    assert_eq!(delta.upserts, [service("a", 81), export("b")]);
    assert_eq!(delta.removes, [export("a").key()]);
    assert_eq!(gateway.catch_up(&revisions), Some(false));
    assert_eq!(gateway.resources, revisions.resources().1);
}

#[test]
fn what_came_and_went_meanwhile_costs_a_slow_gateway_nothing() {
    let revisions = Revisions::new(1);
    let mut gateway = Gateway::default();
    revisions.publish(&set([export("a")]));
    gateway.catch_up(&revisions);
    revisions.publish(&set([export("a"), service("x", 1)]));
    revisions.publish(&set([export("a"), service("x", 2)]));
    let delta = Delta::decode(revisions.delta_from(gateway.revision).unwrap()).unwrap();
    assert_eq!(delta.upserts, [service("x", 2)], "the state between is never sent");
    gateway.catch_up(&revisions);
    assert_eq!(gateway.resources, revisions.resources().1);
}

#[test]
fn an_unchanged_catalog_is_no_revision_but_the_first_one_is() {
    let revisions = Revisions::new(1);
    assert_eq!(revisions.publish(&set([])).revision, Some(Revision { epoch: 1, index: 1 }));
    assert_eq!(revisions.publish(&set([])).revision, None);
    let published = revisions.publish(&set([slice("a")]));
    assert!(published.revision.is_some() && !published.intent_changed);
    assert!(revisions.publish(&set([slice("a"), export("a")])).intent_changed);
}

#[test]
fn a_gateway_beyond_the_log_or_of_another_epoch_gets_a_snapshot() {
    let revisions = Revisions::with_limits(5, LogLimits { revisions: 2, keys: 100 });
    for port in 1..=4 {
        revisions.publish(&set([service("a", port)]));
    }
    let at = |epoch, index| Some(Revision { epoch, index });
    for (have, snapshot) in [
        (None, true),
        (at(5, 1), true),
        (at(5, 2), false),
        (at(5, 3), false),
        (at(5, 5), true),
        (at(4, 3), true),
        (at(6, 3), true),
        (at(5, 0), true),
    ] {
        let delta = revisions.delta_from(have).unwrap();
        assert_eq!(delta.snapshot, snapshot, "{have:?}");
    }
    assert_eq!(revisions.delta_from(at(5, 4)), None);
}

#[test]
fn the_log_is_bounded_by_keys_too() {
    let revisions = Revisions::with_limits(1, LogLimits { revisions: 100, keys: 3 });
    revisions.publish(&set([service("a", 1), service("b", 1)]));
    revisions.publish(&set([service("a", 2), service("b", 2)]));
    assert_eq!(revisions.lock().changes.len(), 1);
    assert!(
        revisions.delta_from(Some(Revision { epoch: 1, index: 1 })).is_some_and(|d| !d.snapshot)
    );
}

#[test]
fn an_object_that_no_gateway_would_take_is_left_out_with_a_diagnostic() {
    let revisions = Revisions::new(1);
    let published = revisions.publish(&set([export("a"), service("b", 0)]));
    let [diagnostic] = &published.diagnostics[..] else { panic!("{:?}", published.diagnostics) };
    assert_eq!(
        diagnostic.to_string(),
        "error FED4001 Service/shop/b: Resource.service.ports[0].port = 0: a port is 1 to 65535; \
         make the object smaller, or mend the value that is named"
    );
    assert_eq!(revisions.resources().1.len(), 1);
    // An object that becomes unservable leaves: its old state may allow what the new one forbids.
    revisions.publish(&set([export("a"), service("b", 80)]));
    assert_eq!(revisions.resources().1.len(), 2);
    revisions.publish(&set([export("a"), service("b", 0)]));
    assert_eq!(revisions.resources().1.len(), 1);
}
