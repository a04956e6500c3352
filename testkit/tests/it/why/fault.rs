//! What can be wrong, and how it comes about from outside: by manifests, by stopped processes, by
//! dropped packets.

use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use identity::Ca;
use model::code::{self, Code};
use model::why::{Hop, Step};
use model::{TrustBundle, TrustDomain};
use testkit::wait;
use wire::operator::proto::{GatewayStatus, ListExportsRequest, SetCordonRequest};

use super::world::{
    EXPORT, GATEWAY, HTTP, LIMIT, REFERENCE_GRANT, World, policy, route, service, slice,
};

/// Longer than a CA lives.
const ELEVEN_YEARS: Duration = Duration::from_secs(11 * 366 * 24 * 3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    RouteDeleted,
    ReferenceGrantDeleted,
    ParentMisspelt,
    PortTaken,
    ExportDeleted,
    ServiceDeleted,
    PortChanged,
    NamespaceGrantedToOthers,
    ExportedBySomebodyElseFirst,
    Cordoned,
    PolicyDeleted,
    PolicyForSomebodyElse,
    PolicyForSpiffeId,
    SourceGatewayStopped,
    BundleForeign,
    BundleDeleted,
    AuthorityExpired,
    SiteCut,
    OneWayCut,
    DestinationGatewayStopped,
    EndpointNotReady,
    EndpointsDeleted,
    ApplicationDead,
    TargetPortWrong,
}

impl Fault {
    pub(super) const ALL: [Self; 24] = [
        Self::RouteDeleted,
        Self::ReferenceGrantDeleted,
        Self::ParentMisspelt,
        Self::PortTaken,
        Self::ExportDeleted,
        Self::ServiceDeleted,
        Self::PortChanged,
        Self::NamespaceGrantedToOthers,
        Self::ExportedBySomebodyElseFirst,
        Self::Cordoned,
        Self::PolicyDeleted,
        Self::PolicyForSomebodyElse,
        Self::PolicyForSpiffeId,
        Self::SourceGatewayStopped,
        Self::BundleForeign,
        Self::BundleDeleted,
        Self::AuthorityExpired,
        Self::SiteCut,
        Self::OneWayCut,
        Self::DestinationGatewayStopped,
        Self::EndpointNotReady,
        Self::EndpointsDeleted,
        Self::ApplicationDead,
        Self::TargetPortWrong,
    ];

    fn expected(self) -> (Hop, Code) {
        match self {
            Self::RouteDeleted => (Hop::Name, code::NO_ROUTE),
            Self::ReferenceGrantDeleted => (Hop::Name, code::REF_NOT_PERMITTED),
            Self::ParentMisspelt => (Hop::Name, code::ROUTE_NOT_ACCEPTED),
            Self::PortTaken => (Hop::Name, code::ADDRESS_IN_USE),
            Self::ExportDeleted => (Hop::Catalog, code::NOT_EXPORTED),
            Self::ServiceDeleted => (Hop::Catalog, code::SERVICE_NOT_FOUND),
            Self::PortChanged => (Hop::Catalog, code::PORT_NOT_FOUND),
            Self::NamespaceGrantedToOthers => (Hop::Catalog, code::EXPORT_NOT_GRANTED),
            Self::ExportedBySomebodyElseFirst => (Hop::Catalog, code::EXPORT_CONFLICT),
            Self::Cordoned => (Hop::Catalog, code::CLUSTER_CORDONED),
            Self::PolicyDeleted => (Hop::Consumers, code::EXPORT_WITHOUT_POLICY),
            Self::PolicyForSomebodyElse | Self::PolicyForSpiffeId => {
                (Hop::Consumers, code::ACCESS_DENIED)
            }
            Self::SourceGatewayStopped => (Hop::Identity, code::GATEWAY_UNCONNECTED),
            Self::BundleForeign | Self::BundleDeleted => (Hop::Trust, code::PEER_IDENTITY_REFUSED),
            Self::AuthorityExpired => (Hop::Trust, code::AUTHORITY_EXPIRED),
            Self::SiteCut | Self::OneWayCut | Self::DestinationGatewayStopped => {
                (Hop::Tunnel, code::TUNNEL_DOWN)
            }
            Self::EndpointNotReady | Self::EndpointsDeleted => (Hop::Endpoint, code::NO_ENDPOINT),
            Self::ApplicationDead | Self::TargetPortWrong => {
                (Hop::Endpoint, code::UPSTREAM_CONNECT)
            }
        }
    }

    pub(super) fn hop(self) -> Hop {
        self.expected().0
    }

    pub(super) fn code(self) -> Code {
        self.expected().1
    }

    /// Other clusters' records bring it about, so that they have to arrive.
    pub(super) fn needs_store(self) -> bool {
        matches!(self, Self::NamespaceGrantedToOthers | Self::ExportedBySomebodyElseFirst)
    }

    /// What one node alone may say of it. Who does not see the destination's objects sees that there
    /// is no import; who sees only that handshakes fail cannot always say whose bundle is wrong.
    pub(super) fn may_show_as(self, broken: &Step) -> bool {
        match self.hop() {
            hop if hop == broken.hop => true,
            Hop::Catalog | Hop::Consumers => broken.hop == Hop::Catalog,
            Hop::Identity | Hop::Trust => broken.hop == Hop::Tunnel,
            _ => false,
        }
    }

    pub(super) async fn inject(self, world: &mut World) {
        match self {
            Self::RouteDeleted => world.remove("east", "route"),
            Self::ReferenceGrantDeleted => world.remove("east", "reference-grant"),
            Self::ParentMisspelt => world.write("east", "route", &route("fedgat")),
            Self::PortTaken => take_port(world).await,
            Self::ExportDeleted => world.remove("west", "export"),
            Self::ServiceDeleted => world.remove("west", "service"),
            Self::PortChanged => world.write("west", "service", &service(81)),
            Self::NamespaceGrantedToOthers => world.write("east", "grant", GRANT),
            Self::ExportedBySomebodyElseFirst => export_elsewhere_first(world).await,
            Self::Cordoned => cordon(world, true).await,
            Self::PolicyDeleted => world.remove("west", "policy"),
            Self::PolicyForSomebodyElse => {
                world.write("west", "policy", &policy("cluster: south"));
            }
            Self::PolicyForSpiffeId => {
                let id = "spiffeId: \"spiffe://east.demo.example/ns/shop/sa/web\"";
                world.write("west", "policy", &policy(id));
            }
            Self::SourceGatewayStopped => stop_gateway(world, "east").await,
            Self::BundleForeign => {
                let foreign = bundle(world, "foreign", "east.demo.example", SystemTime::now());
                exchange_bundle(world, "west", "east", &foreign).await;
            }
            Self::BundleDeleted => {
                let other = bundle(world, "other", "other.demo.example", SystemTime::now());
                world.write("east", "peer-west", &world.peer("east", "west", &other));
            }
            Self::AuthorityExpired => {
                let then = SystemTime::now() - ELEVEN_YEARS;
                let expired = bundle(world, "expired", "west.demo.example", then);
                exchange_bundle(world, "east", "west", &expired).await;
            }
            Self::SiteCut => world.fleet.relay().cut("west").unwrap(),
            Self::OneWayCut => world.fleet.relay().cut_path("east", "west").unwrap(),
            Self::DestinationGatewayStopped => stop_gateway(world, "west").await,
            Self::EndpointNotReady => {
                world.write("west", "slice", &slice(world.origin.address, false));
            }
            Self::EndpointsDeleted => world.remove("west", "slice"),
            Self::ApplicationDead => world.origin.stop().await,
            Self::TargetPortWrong => {
                let nobody = std::net::SocketAddr::new(world.origin.address.ip(), 1);
                world.write("west", "slice", &slice(nobody, true));
            }
        }
    }

    pub(super) async fn heal(self, world: &mut World) {
        match self {
            Self::RouteDeleted | Self::ParentMisspelt => {
                world.write("east", "route", &route("fedgate"));
            }
            Self::ReferenceGrantDeleted => world.write("east", "reference-grant", REFERENCE_GRANT),
            Self::PortTaken => world.port_taken = None,
            Self::ExportDeleted => world.write("west", "export", EXPORT),
            Self::ServiceDeleted | Self::PortChanged => {
                world.write("west", "service", &service(80));
            }
            Self::NamespaceGrantedToOthers => world.remove("east", "grant"),
            Self::ExportedBySomebodyElseFirst => world.remove("south", "export"),
            Self::Cordoned => cordon(world, false).await,
            Self::PolicyDeleted | Self::PolicyForSomebodyElse | Self::PolicyForSpiffeId => {
                world.write("west", "policy", &policy("cluster: east"));
            }
            Self::SourceGatewayStopped => start_gateway(world, "east").await,
            Self::BundleForeign => restore_bundle(world, "west", "east").await,
            Self::BundleDeleted => world.remove("east", "peer-west"),
            Self::AuthorityExpired => restore_bundle(world, "east", "west").await,
            Self::SiteCut => world.fleet.relay().heal("west").unwrap(),
            Self::OneWayCut => world.fleet.relay().heal_path("east", "west").unwrap(),
            Self::DestinationGatewayStopped => start_gateway(world, "west").await,
            Self::EndpointNotReady | Self::EndpointsDeleted | Self::TargetPortWrong => {
                world.write("west", "slice", &slice(world.origin.address, true));
            }
            Self::ApplicationDead => world.origin.resume().await.unwrap(),
        }
    }
}

const GRANT: &str = "\
apiVersion: fedgate.dev/v1alpha1
kind: NamespaceGrant
metadata: {name: shop}
spec:
  namespaces:
  - {name: shop}
  clusters: [south]
";

async fn cordon(world: &World, cordoned: bool) {
    let request =
        SetCordonRequest { cluster: "west".into(), cordoned, reason: "a new kernel".into() };
    world.operator("east").await.set_cordon(request).await.unwrap();
}

/// Somebody else gets the port in the moment in which the gateway does not have it.
async fn take_port(world: &mut World) {
    world.remove("east", "gateway");
    let address = (world.fleet.cluster("east").address, HTTP);
    let taken = wait::until_async("the gateway to let its port go", LIMIT, async || {
        TcpListener::bind(address).ok()
    });
    world.port_taken = Some(taken.await);
    world.write("east", "gateway", GATEWAY);
}

async fn export_elsewhere_first(world: &mut World) {
    world.remove("west", "export");
    world.write("south", "export", &format!("{}---\n{EXPORT}", service(80)));
    let south = world.operator("south").await;
    wait::until_async("south to be the first who exports it", LIMIT, async || {
        let (namespace, name) = ("shop".into(), "api".into());
        let exports =
            south.list_exports(ListExportsRequest { namespace, name }).await.ok()?.exports;
        exports.iter().any(|it| it.cluster == "south" && it.idle.is_none()).then_some(())
    })
    .await;
    world.write("west", "export", EXPORT);
}

async fn stop_gateway(world: &mut World, cluster: &str) {
    world.fleet.cluster_mut(cluster).stop_gateway().await;
}

async fn start_gateway(world: &mut World, cluster: &str) {
    world.fleet.cluster_mut(cluster).start_gateway().await.unwrap();
    let operator = world.operator(cluster).await;
    // Until then it is itself what is broken, and `why` says so.
    wait::until_async("the new gateway to be ready", LIMIT, async || {
        let gateways = operator.status().await.ok()?.gateways;
        let ready =
            |it: &GatewayStatus| it.connected && it.report.as_ref().is_some_and(|r| r.ready);
        gateways.iter().any(ready).then_some(())
    })
    .await;
}

/// A bundle of a CA that was made at some time, and is nobody's.
fn bundle(world: &World, folder: &str, domain: &str, then: SystemTime) -> TrustBundle {
    let domain = TrustDomain::parse(domain).unwrap();
    Ca::load_or_create(&world.folder().join(folder), &domain, then).unwrap().bundle()
}

/// A gateway takes no other bundle of the same number: it has to be a new one.
async fn exchange_bundle(world: &mut World, at: &str, of: &str, bundle: &TrustBundle) {
    stop_gateway(world, at).await;
    world.forget(at);
    let before = world.trust(at, of).await;
    world.write(at, &format!("peer-{of}"), &world.peer(at, of, bundle));
    world.until_trust_changes(at, of, &before).await;
    start_gateway(world, at).await;
}

async fn restore_bundle(world: &mut World, at: &str, of: &str) {
    stop_gateway(world, at).await;
    world.forget(at);
    let before = world.trust(at, of).await;
    world.remove(at, &format!("peer-{of}"));
    world.until_trust_changes(at, of, &before).await;
    start_gateway(world, at).await;
}
