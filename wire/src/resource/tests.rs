//! Every kind there and back, what newer nodes may send, and what is refused with which words.

use model::catalog::AllowedNamespaces;
use model::code::TUNNEL_DOWN;
use model::{
    AccessPolicy, AllowEntry, AppProtocol, BackendKind, BackendTarget, ClusterName, ClusterPeer,
    Diagnostic, EndpointSlice, GatewaySpec, Hostname, HttpPathPrefix, HttpRoute, HttpRule,
    ListenerProtocol, ListenerSpec, Namespace, NamespaceGrant, NamespaceMatch, NamespacePrefix,
    ObjectName, ParentTarget, PeerAddress, ReferenceGrant, ReferenceSource, ReferenceTarget,
    Resource, ResourceKind, ResourceSet, Revision, RevokedSvid, RouteKind, Service, ServiceExport,
    ServiceImport, ServiceName, ServicePort, Severity, SliceEndpoint, SlicePort, SpiffeId,
    TcpRoute, Transport, TrustBundle, TrustDomain,
};
use proptest::prelude::*;
use prost::Message as _;

use super::proto::resource::Spec;
use super::*;

fn namespace() -> Namespace {
    Namespace::parse("shop").unwrap()
}

fn object(name: &str) -> ObjectName {
    ObjectName::parse(name).unwrap()
}

fn service_name() -> ServiceName {
    ServiceName::parse("shop/api").unwrap()
}

fn cluster(name: &str) -> ClusterName {
    ClusterName::parse(name).unwrap()
}

fn backend(kind: BackendKind) -> BackendTarget {
    BackendTarget { kind, service: service_name(), port: 80 }
}

fn parent() -> ParentTarget {
    let section_name = Some(object("web"));
    ParentTarget { namespace: namespace(), name: object("edge"), section_name, port: Some(8080) }
}

fn bundle() -> TrustBundle {
    TrustBundle {
        trust_domain: TrustDomain::parse("west.example").unwrap(),
        sequence: 3,
        refresh_hint_seconds: Some(300),
        x509_authorities: vec![vec![0x30, 0], vec![0x30, 1, 0]],
    }
}

/// One object of each kind with every field set.
fn samples() -> Vec<Resource> {
    let ports = vec![
        ServicePort { name: Some("http".into()), port: 80, protocol: AppProtocol::Http },
        ServicePort { name: Some("grpc".into()), port: 81, protocol: AppProtocol::H2c },
        ServicePort { name: None, port: 65535, protocol: AppProtocol::Tcp },
    ];
    let mut samples = routing_samples().to_vec();
    samples.extend([
        Resource::ClusterPeer(ClusterPeer {
            name: cluster("west"),
            addresses: vec![
                PeerAddress { transport: Transport::Quic, host: "gw.west".into(), port: 8443 },
                PeerAddress { transport: Transport::Quic, host: "fd00::1".into(), port: 1 },
            ],
            trust_bundles: vec![bundle()],
            cordoned: true,
            revoked_svids: vec![RevokedSvid {
                id: SpiffeId::parse("spiffe://west.example/fedgate/gateway/gw-0").unwrap(),
                not_before_unix_s: 1_800_000_000,
            }],
        }),
        Resource::Service(Service { name: service_name(), ports: ports.clone() }),
        Resource::EndpointSlice(EndpointSlice {
            namespace: namespace(),
            name: object("api-1"),
            service: object("api"),
            ports: vec![SlicePort { name: Some("http".into()), port: 8000 }],
            endpoints: vec![SliceEndpoint {
                addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::2".parse().unwrap()],
                ready: true,
                terminating: true,
            }],
        }),
        Resource::ServiceExport(ServiceExport { name: service_name(), ports: ports.clone() }),
        Resource::ServiceImport(ServiceImport {
            name: service_name(),
            ports,
            clusters: vec![cluster("west"), cluster("south")],
        }),
        Resource::AccessPolicy(AccessPolicy {
            namespace: namespace(),
            name: object("api"),
            targets: vec![object("api")],
            allow: vec![
                AllowEntry { cluster: Some(cluster("west")), ..AllowEntry::default() },
                AllowEntry {
                    cluster: Some(cluster("west")),
                    trust_domain: Some(TrustDomain::parse("west.example").unwrap()),
                    spiffe_id: Some(SpiffeId::parse("spiffe://west.example/ns/a/sa/b").unwrap()),
                },
            ],
        }),
        Resource::NamespaceGrant(NamespaceGrant {
            name: object("shops"),
            namespaces: vec![
                NamespaceMatch::Name(namespace()),
                NamespaceMatch::Prefix(NamespacePrefix::parse("shop-").unwrap()),
            ],
            clusters: vec![cluster("west"), cluster("south")],
        }),
        Resource::ReferenceGrant(ReferenceGrant {
            namespace: namespace(),
            name: object("api"),
            from: vec![
                ReferenceSource { kind: RouteKind::Http, namespace: namespace() },
                ReferenceSource { kind: RouteKind::Tcp, namespace: namespace() },
            ],
            to: vec![
                ReferenceTarget { kind: BackendKind::Service, name: Some(object("api")) },
                ReferenceTarget { kind: BackendKind::ServiceImport, name: None },
            ],
        }),
    ]);
    samples
}

fn routing_samples() -> [Resource; 3] {
    [
        Resource::Gateway(GatewaySpec {
            namespace: namespace(),
            name: object("edge"),
            listeners: vec![
                ListenerSpec {
                    name: object("web"),
                    hostname: Some(Hostname::parse("*.shop.example").unwrap()),
                    port: 8080,
                    protocol: ListenerProtocol::Http,
                    allowed_namespaces: AllowedNamespaces::All,
                },
                ListenerSpec {
                    name: object("db"),
                    hostname: None,
                    port: 6379,
                    protocol: ListenerProtocol::Tcp,
                    allowed_namespaces: AllowedNamespaces::Same,
                },
            ],
        }),
        Resource::HttpRoute(HttpRoute {
            namespace: namespace(),
            name: object("web"),
            parents: vec![parent()],
            hostnames: vec![Hostname::parse("web.shop.example").unwrap()],
            rules: vec![HttpRule {
                prefixes: vec![HttpPathPrefix("/api/v1".into())],
                backend: backend(BackendKind::ServiceImport),
            }],
        }),
        Resource::TcpRoute(TcpRoute {
            namespace: namespace(),
            name: object("db"),
            parents: vec![ParentTarget { section_name: None, port: None, ..parent() }],
            backend: backend(BackendKind::Service),
        }),
    ]
}

pub(super) fn link() -> Link {
    Link {
        cluster: cluster("west"),
        gateway_id: Some(model::GatewayId::from_bytes([7; 16])),
        address: "gw.west:8443".into(),
        transport: Transport::Quic,
        class: LinkClass::Bulk,
        worker: 1,
        state: LinkState::Live,
        rtt_us: Some(40_000),
        packets_sent: 1,
        packets_lost: 2,
        bytes_sent: 3,
        bytes_received: 4,
        since_age_ms: 6,
        last_error: Some(LinkError {
            code: Some(TUNNEL_DOWN),
            text: "timed out".into(),
            age_ms: 9,
        }),
        retiring: true,
    }
}

fn report() -> StatusReport {
    StatusReport {
        gateway: object("gw-0"),
        spiffe_id: Some(SpiffeId::parse("spiffe://east.example/fedgate/gateway/gw-0").unwrap()),
        svid_not_after_unix_s: Some(1_800_000_000),
        tunnel_address: Some("127.1.0.1:8443".parse().unwrap()),
        admin_address: Some("[::1]:9901".parse().unwrap()),
        revision: Some(Revision { epoch: 1, index: 2 }),
        ready: true,
        draining: true,
        uptime_ms: 5,
        version: "0.1.0".into(),
        links: vec![link()],
        listeners: vec![Listener {
            name: "Gateway/shop/edge/web".into(),
            address: "0.0.0.0:8080".parse().unwrap(),
            protocol: ListenerProtocol::Http,
            error: Some("the address is in use".into()),
        }],
        services: vec![ServiceHealth {
            service: service_name(),
            port: 80,
            protocol: AppProtocol::Http,
            clusters: vec![ClusterHealth {
                cluster: cluster("east"),
                usable: true,
                endpoints: Some((1, 2)),
                rtt_us: Some(1),
            }],
        }],
        counters: vec![Counter { name: "fedgate_requests_total".into(), value: 3 }],
        store_connections: vec![cluster("west")],
        exchanges: vec![ClusterExchanges { cluster: cluster("west"), sent: 3, received: 4 }],
    }
}

fn diagnostic() -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        code: TUNNEL_DOWN,
        object: "Service/shop/api".into(),
        field: "spec.ports".into(),
        message: "x".into(),
        fix: "y".into(),
    }
}

fn snapshot(upserts: Vec<Resource>) -> Delta {
    let to = Revision { epoch: 1, index: 1 };
    Delta { from: None, to, upserts, removes: vec![], skipped: 0 }
}

#[test]
fn every_kind_survives_the_wire() {
    let mut kinds: Vec<ResourceKind> = Vec::new();
    for resource in samples() {
        let bytes = encode_resource(&resource).encode_to_vec();
        let decoded = decode_resource(proto::Resource::decode(&bytes[..]).unwrap()).unwrap();
        kinds.push(resource.key().kind);
        assert_eq!(decoded, Some(resource));
    }
    kinds.sort();
    assert_eq!(kinds, ResourceKind::ALL);
}

#[test]
fn every_message_survives_the_wire() {
    let delta = snapshot(samples());
    assert_eq!(Delta::decode(delta.encode()).unwrap(), delta);
    let removes = vec![samples()[0].key()];
    let from = Some(Revision { epoch: 1, index: 1 });
    let to = Revision { epoch: 1, index: 4 };
    let delta = Delta { from, to, upserts: vec![], removes, skipped: 0 };
    assert_eq!(Delta::decode(delta.encode()).unwrap(), delta);
    assert_eq!(StatusReport::decode(report().encode()).unwrap(), report());
    let ack = Ack { revision: to, diagnostics: vec![diagnostic()] };
    assert_eq!(Ack::decode(ack.encode()).unwrap(), ack);
    let subscribe = Subscribe {
        gateway: object("gw"),
        cluster: cluster("east"),
        resume: from,
        relay_socket: Some("/run/fedgate/relay.sock".into()),
        relay_address: Some("[fd00::7]:7446".parse().unwrap()),
        answers_pings: true,
    };
    assert_eq!(Subscribe::decode(subscribe.encode()).unwrap(), subscribe);
    for address in ["gw:7446", "0.0.0.0:7446", "10.0.0.7:0"] {
        let message = proto::Subscribe { relay_address: address.into(), ..subscribe.encode() };
        let error = Subscribe::decode(message).unwrap_err().to_string();
        assert!(error.starts_with("Subscribe.relay_address = "), "{error}");
    }
    let request = EnrolRequest { gateway: object("gw"), csr_der: vec![1] };
    assert_eq!(EnrolRequest::decode(request.encode()).unwrap(), request);
    let cluster_id = model::ClusterId::from_bytes([5; 16]);
    let response = EnrolResponse { chain_der: vec![vec![1]], bundle: bundle(), cluster_id };
    assert_eq!(EnrolResponse::decode(response.encode()).unwrap(), response);
}

/// If this fails, the format has changed: give new fields new numbers instead.
#[test]
fn the_bytes_of_a_delta_stay_the_same() {
    let name = service_name();
    let port = ServicePort { name: None, port: 80, protocol: AppProtocol::H2c };
    let service = Resource::Service(Service { name, ports: vec![port] });
    let key = Resource::ServiceExport(ServiceExport { name: service_name(), ports: vec![] }).key();
    let (from, to) = (Revision { epoch: 2, index: 5 }, Revision { epoch: 2, index: 6 });
    let delta =
        Delta { from: Some(from), to, upserts: vec![service], removes: vec![key], skipped: 0 };
    let hex: String =
        delta.encode().encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    let golden = [
        "0a0408021005",                   // from: epoch 2, index 5
        "120408021006",                   // to: epoch 2, index 6
        "2219",                           // an upsert of 25 bytes
        "0a0d0802120473686f701a03617069", // key: kind 2, shop, api
        "1001",                           // schema 1
        "62060a0410501802",               // service: a port, 80, H2C
        "2a0d0804120473686f701a03617069", // a removed key: kind 4, shop, api
    ];
    assert_eq!(hex, golden.concat());
}

#[test]
fn what_a_newer_node_sends_is_skipped_and_counted() {
    let export = encode_resource(&Resource::ServiceExport(ServiceExport {
        name: service_name(),
        ports: vec![],
    }));
    let mut newer_kind = export.clone();
    newer_kind.key.as_mut().unwrap().kind = 4711;
    newer_kind.spec = None;
    assert_eq!(decode_resource(newer_kind.clone()).unwrap(), None);
    let policy = encode_resource(&samples()[8]);
    let newer_schema = proto::Resource { schema: SCHEMA_VERSION + 1, spec: None, ..policy.clone() };
    assert_eq!(decode_resource(newer_schema.clone()).unwrap(), None);

    let mut message = snapshot(vec![]).encode();
    message.upserts = vec![export, newer_kind.clone(), newer_schema.clone()];
    let delta = Delta::decode(message).unwrap();
    assert_eq!((delta.upserts.len(), delta.removes.len(), delta.skipped), (1, 0, 2));

    // An object that was readable before must not stay in service as it was then.
    let mut resources: ResourceSet = samples().into_iter().collect();
    let mut revision = Some(Revision { epoch: 1, index: 1 });
    let key = decode_key(policy.key.unwrap()).unwrap().unwrap();
    assert!(resources.get(&key).is_some());
    let message = proto::Delta {
        from: Some(proto::Revision { epoch: 1, index: 1 }),
        to: Some(proto::Revision { epoch: 1, index: 2 }),
        upserts: vec![newer_schema],
        removes: vec![newer_kind.key.unwrap()],
        ..proto::Delta::default()
    };
    let delta = Delta::decode(message).unwrap();
    assert_eq!(delta.skipped, 2);
    delta.apply(&mut revision, &mut resources).unwrap();
    assert!(resources.get(&key).is_none());
    assert_eq!(revision, Some(Revision { epoch: 1, index: 2 }));
}

#[test]
fn a_row_with_a_word_of_a_newer_gateway_is_left_out_alone() {
    let later: [fn(&mut proto::StatusReport); 5] = [
        |report| report.links[0].transport = 4711,
        |report| report.links[0].class = 4711,
        |report| report.links[0].state = 4711,
        |report| report.listeners[0].protocol = 4711,
        |report| report.services[0].protocol = 4711,
    ];
    for change in later {
        let (mut message, twice) = (report().encode(), report().encode());
        change(&mut message);
        message.links.extend(twice.links);
        message.listeners.extend(twice.listeners);
        message.services.extend(twice.services);
        let read = StatusReport::decode(message).unwrap();
        let rows = [read.links.len(), read.listeners.len(), read.services.len()];
        assert_eq!(rows.iter().sum::<usize>(), 5, "{rows:?}");
        assert_eq!(read.counters, report().counters);
        let known = report();
        assert!(read.links.iter().all(|link| *link == known.links[0]));
        assert!(read.services.iter().all(|service| *service == known.services[0]));
    }
}

#[test]
fn a_delta_that_does_not_fit_changes_nothing() {
    let mut resources = ResourceSet::default();
    let mut revision = None;
    let mut delta = snapshot(samples());
    delta.from = Some(Revision { epoch: 1, index: 0 });
    let error = delta.clone().apply(&mut revision, &mut resources).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the delta leads from revision 1.0 to 1.1, but there is nothing here yet; subscribe again"
    );
    assert!(resources.is_empty() && revision.is_none());
    revision = Some(Revision { epoch: 1, index: 7 });
    let error = delta.apply(&mut revision, &mut resources).unwrap_err();
    assert!(error.to_string().contains("but 1.7 is here; subscribe again"), "{error}");
    // A snapshot replaces what is there, whatever that was.
    snapshot(samples()).apply(&mut revision, &mut resources).unwrap();
    snapshot(vec![]).apply(&mut revision, &mut resources).unwrap();
    assert!(resources.is_empty());
}

/// Changes one thing in an encoded object and gives the error's text.
fn refused(index: usize, change: impl FnOnce(&mut proto::Resource)) -> String {
    let mut object = encode_resource(&samples()[index]);
    change(&mut object);
    decode_resource(object).unwrap_err().to_string()
}

macro_rules! spec {
    ($object:ident, $kind:ident) => {
        match $object.spec.as_mut().unwrap() {
            Spec::$kind(spec) => spec,
            other => panic!("{other:?}"),
        }
    };
}

#[test]
fn refused_objects_name_field_value_and_rule() {
    let cases = [
        (refused(0, |o| o.key = None), "Resource.key = (absent): an object has a key"),
        (
            refused(0, |o| o.key.as_mut().unwrap().kind = 0),
            "Resource.key.kind = 0: kinds are numbers from 1 to 65535",
        ),
        (
            refused(0, |o| o.key.as_mut().unwrap().namespace.clear()),
            "Resource.key.namespace = (absent): a Gateway has a namespace",
        ),
        (
            refused(3, |o| o.key.as_mut().unwrap().namespace = "a".into()),
            "Resource.key.namespace = \"a\": a ClusterPeer has no namespace",
        ),
        (
            refused(0, |o| o.key.as_mut().unwrap().name = "A".into()),
            "Resource.key.name = \"A\": name \"A\" is not valid: use only lower-case letters, \
             digits and '-'",
        ),
        (refused(0, |o| o.schema = 0), "Resource.schema = 0: schema versions begin with 1"),
        (
            refused(0, |o| o.spec = None),
            "Resource.spec = (absent): send the object of the key's kind",
        ),
        (
            refused(0, |o| o.key.as_mut().unwrap().kind = 4),
            "Resource.spec = \"ServiceExport\": the spec is of another kind than the key says",
        ),
        (
            refused(0, |o| spec!(o, Gateway).listeners[1].port = 65536),
            "Resource.gateway.listeners[1].port = 65536: a port is 1 to 65535",
        ),
        (
            refused(0, |o| spec!(o, Gateway).listeners[0].protocol = 9),
            "Resource.gateway.listeners[0].protocol = 9: use HTTP (1) or TCP (2)",
        ),
        (
            refused(0, |o| spec!(o, Gateway).listeners[0].allowed_namespaces = 0),
            "Resource.gateway.listeners[0].allowed_namespaces = 0: use SAME (1) or ALL (2)",
        ),
        (
            refused(1, |o| spec!(o, HttpRoute).rules[0].prefixes[0] = "api".into()),
            "Resource.http_route.rules[0].prefixes[0] = \"api\": a path prefix begins with '/'",
        ),
        (
            refused(1, |o| spec!(o, HttpRoute).rules[0].prefixes[0] = "/a?b".into()),
            "a path prefix has no spaces, control characters, '?' or '#'",
        ),
        (
            refused(1, |o| spec!(o, HttpRoute).rules[0].backend = None),
            "Resource.http_route.rules[0].backend = (absent): a route names one backend",
        ),
        (
            refused(2, |o| spec!(o, TcpRoute).backend.as_mut().unwrap().kind = 0),
            "Resource.tcp_route.backend.kind = 0: use SERVICE (1) or SERVICE_IMPORT (2)",
        ),
        (
            refused(2, |o| spec!(o, TcpRoute).parents[0].port = Some(0)),
            "Resource.tcp_route.parents[0].port = 0: a port is 1 to 65535",
        ),
    ];
    check(&cases);
}

#[test]
fn refused_catalog_objects_name_field_value_and_rule() {
    let cases = [
        (
            refused(3, |o| spec!(o, ClusterPeer).addresses[0].transport = 3),
            "Resource.cluster_peer.addresses[0].transport = 3: transports are QUIC (1) and TCP (2)",
        ),
        (
            refused(3, |o| spec!(o, ClusterPeer).addresses[0].host = "*.a".into()),
            "Resource.cluster_peer.addresses[0].host = \"*.a\": a wildcard cannot be dialled",
        ),
        (
            refused(3, |o| o.key.as_mut().unwrap().name = "a.b".into()),
            "Resource.key.name = \"a.b\": cluster name \"a.b\" is not valid",
        ),
        (
            refused(3, |o| spec!(o, ClusterPeer).trust_bundles[0].trust_domain = "A".into()),
            "Resource.cluster_peer.trust_bundles[0].trust_domain = \"A\": trust domain \"A\" is",
        ),
        (
            refused(3, |o| spec!(o, ClusterPeer).trust_bundles[0].x509_authorities[1].clear()),
            "trust_bundles[0].x509_authorities[1] = []: a DER certificate cannot be empty",
        ),
        (
            refused(4, |o| spec!(o, Service).ports[0].name = "a.b".into()),
            "Resource.service.ports[0].name = \"a.b\": a port's name is an RFC 1123 label",
        ),
        (
            refused(4, |o| spec!(o, Service).ports[0].protocol = 0),
            "Resource.service.ports[0].protocol = 0: use HTTP (1), H2C (2) or TCP (3)",
        ),
        (
            refused(5, |o| spec!(o, EndpointSlice).endpoints[0].addresses[0].push(1)),
            "endpoint_slice.endpoints[0].addresses[0] = [10, 0, 0, 1, 1]: an IP address is 4 or 16",
        ),
        (
            refused(7, |o| spec!(o, ServiceImport).clusters[1] = "-".into()),
            "Resource.service_import.clusters[1] = \"-\": cluster name \"-\" is not valid",
        ),
        (
            refused(8, |o| spec!(o, AccessPolicy).allow.push(proto::AllowEntry::default())),
            "Resource.access_policy.allow[2] = (absent): set at least one of cluster, trust_domain \
             and spiffe_id",
        ),
        (
            refused(8, |o| spec!(o, AccessPolicy).allow[0].spiffe_id = "spiffe://".into()),
            "Resource.access_policy.allow[0].spiffe_id = \"spiffe://\": SPIFFE ID",
        ),
        (
            refused(8, |o| spec!(o, AccessPolicy).targets = vec!["a".into(); 4097]),
            "Resource.access_policy.targets = 4097 entries: at most 4096 entries are allowed",
        ),
        (
            refused(6, |o| spec!(o, ServiceExport).ports[2].port = 0),
            "Resource.service_export.ports[2].port = 0: a port is 1 to 65535",
        ),
        (
            refused(9, |o| o.key.as_mut().unwrap().namespace = "a".into()),
            "Resource.key.namespace = \"a\": a NamespaceGrant has no namespace",
        ),
        (
            refused(9, |o| spec!(o, NamespaceGrant).namespaces[1].r#match = None),
            "Resource.namespace_grant.namespaces[1] = (absent): set name or prefix",
        ),
        (
            refused(9, |o| {
                let prefix = proto::namespace_match::Match::Prefix(String::new());
                spec!(o, NamespaceGrant).namespaces[1].r#match = Some(prefix);
            }),
            "namespaces[1].prefix = \"\": namespace prefix \"\" is not valid: it is empty",
        ),
        (
            refused(9, |o| spec!(o, NamespaceGrant).clusters[0] = "W".into()),
            "Resource.namespace_grant.clusters[0] = \"W\": cluster name \"W\" is not valid",
        ),
        (
            refused(10, |o| spec!(o, ReferenceGrant).from[0].kind = 3),
            "Resource.reference_grant.from[0].kind = 3: use HTTP (1) or TCP (2)",
        ),
        (
            refused(10, |o| spec!(o, ReferenceGrant).to[1].kind = 0),
            "Resource.reference_grant.to[1].kind = 0: use SERVICE (1) or SERVICE_IMPORT (2)",
        ),
        (
            refused(10, |o| spec!(o, ReferenceGrant).to[0].name = "A".into()),
            "Resource.reference_grant.to[0].name = \"A\": name \"A\" is not valid",
        ),
        (
            refused(4, |o| spec!(o, Service).ports[0].name = "a".repeat(1 << 20)),
            "bytes: at most 1048576 bytes are allowed",
        ),
    ];
    check(&cases);
}

#[test]
fn refused_messages_name_field_value_and_rule() {
    let delta = |change: fn(&mut proto::Delta)| {
        let mut message = snapshot(samples()).encode();
        change(&mut message);
        Delta::decode(message).unwrap_err().to_string()
    };
    let status = |change: fn(&mut proto::StatusReport)| {
        let mut message = report().encode();
        change(&mut message);
        StatusReport::decode(message).unwrap_err().to_string()
    };
    let revision = |epoch, index| Some(proto::Revision { epoch, index });
    let ack = proto::Ack { revision: None, diagnostics: vec![] };
    let mut severe = encode_diagnostic(&diagnostic());
    severe.severity = 0;
    let ack_severe = proto::Ack { revision: revision(1, 1), diagnostics: vec![severe] };
    let subscribe = proto::Subscribe {
        gateway: "gw".into(),
        cluster: "east".into(),
        resume: revision(0, 3),
        ..proto::Subscribe::default()
    };
    let enrol = |csr_der| proto::EnrolRequest { gateway: "gw".into(), csr_der };
    let cases = [
        (delta(|d| d.to = None), "Delta.to = (absent): a revision is needed here"),
        (delta(|d| d.snapshot = false), "Delta.from = (absent): a delta says which revision"),
        (
            delta(|d| d.from = Some(proto::Revision { epoch: 1, index: 1 })),
            "a snapshot begins at no revision; leave it out",
        ),
        (
            delta(|d| {
                d.snapshot = false;
                d.from = Some(proto::Revision { epoch: 1, index: 1 });
            }),
            "it must be an earlier revision of the epoch of `to`, 1.1",
        ),
        (
            delta(|d| d.upserts.push(d.upserts[0].clone())),
            "Delta.upserts[11].key = Gateway/shop/edge: the delta names this object twice",
        ),
        (
            delta(|d| d.removes.push(d.upserts[0].key.clone().unwrap())),
            "Delta.upserts[0].key = Gateway/shop/edge: the delta names this object twice",
        ),
        (status(|r| r.gateway.clear()), "StatusReport.gateway = \"\": name \"\" is not valid"),
        (
            status(|r| r.tunnel_address = "localhost:1".into()),
            "StatusReport.tunnel_address = \"localhost:1\": write it as address:port",
        ),
        (
            status(|r| r.links[0].gateway_id.truncate(3)),
            "StatusReport.links[0].gateway_id = [7, 7, 7]: a gateway id is 16 bytes",
        ),
        (
            status(|r| r.links[0].state = 0),
            "StatusReport.links[0].state = 0: use DIALLING (1), LIVE (2), DRAINING (3) or DOWN (4)",
        ),
        (
            status(|r| r.links[0].last_error.as_mut().unwrap().code = 9),
            "StatusReport.links[0].last_error.code = 9: FED codes are 1000 to 8999",
        ),
        (
            status(|r| r.services[0].clusters[0].endpoints_ready = Some(3)),
            "clusters[0].endpoints_ready = 3: more endpoints are ready than there are",
        ),
        (
            status(|r| r.services[0].clusters[0].endpoints_total = None),
            "endpoints_ready and endpoints_total come together",
        ),
        (
            status(|r| r.counters[0].name = "A b".into()),
            "StatusReport.counters[0].name = \"A b\": use a metric's name: a-z, 0-9 and '_'",
        ),
        (Ack::decode(ack).unwrap_err().to_string(), "Ack.revision = (absent)"),
        (
            Ack::decode(ack_severe).unwrap_err().to_string(),
            "Ack.diagnostics[0].severity = 0: use WARNING (1) or ERROR (2)",
        ),
        (
            Subscribe::decode(subscribe).unwrap_err().to_string(),
            "Subscribe.resume.epoch = 0: epochs begin with 1",
        ),
        (
            EnrolRequest::decode(enrol(vec![])).unwrap_err().to_string(),
            "EnrolRequest.csr_der = (absent): send a PKCS#10 certificate signing request, DER",
        ),
        (
            EnrolRequest::decode(enrol(vec![0; 8193])).unwrap_err().to_string(),
            "EnrolRequest.csr_der = 8193 bytes: at most 8192 bytes are allowed",
        ),
        (
            EnrolResponse::decode(proto::EnrolResponse::default()).unwrap_err().to_string(),
            "EnrolResponse.chain_der = (absent): a chain begins with the leaf certificate",
        ),
    ];
    check(&cases);
}

fn check(cases: &[(String, &str)]) {
    for (found, wanted) in cases {
        assert!(found.contains(wanted), "{found}\n  is without {wanted}");
    }
}

#[test]
fn codes_of_a_later_registry_are_left_out() {
    let mut later = encode_diagnostic(&diagnostic());
    later.code = 8999;
    let ack = proto::Ack {
        revision: Some(proto::Revision { epoch: 1, index: 1 }),
        diagnostics: vec![later, encode_diagnostic(&diagnostic())],
    };
    assert_eq!(Ack::decode(ack).unwrap().diagnostics, [diagnostic()]);
    let mut message = report().encode();
    message.links[0].last_error.as_mut().unwrap().code = 8999;
    let decoded = StatusReport::decode(message).unwrap();
    assert_eq!(decoded.links[0].last_error.as_ref().unwrap().code, None);
}

#[test]
fn long_texts_are_cut_between_characters() {
    let long = Diagnostic { message: "é".repeat(limits::TEXT_BYTES_MAX), ..diagnostic() };
    let sent = encode_diagnostic(&long);
    assert_eq!(sent.message.len(), limits::TEXT_BYTES_MAX);
    assert!(decode_diagnostic(sent).unwrap().is_some());
}

/// Bytes that are often a message: a good one, damaged in places.
fn damaged(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let places = prop::collection::vec((0..good.len(), any::<u8>()), 0..8);
    (places, 0..=good.len()).prop_map(move |(places, end)| {
        let mut bytes = good.clone();
        for (place, byte) in places {
            bytes[place] = byte;
        }
        bytes.truncate(end.max(1));
        bytes
    })
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = proto::Delta::decode(&bytes[..]).map(Delta::decode);
        let _ = proto::StatusReport::decode(&bytes[..]).map(StatusReport::decode);
        let _ = proto::Subscribe::decode(&bytes[..]).map(Subscribe::decode);
        let _ = proto::PingAnswer::decode(&bytes[..]).map(PingAnswer::decode);
        let _ = proto::Ack::decode(&bytes[..]).map(Ack::decode);
        let _ = proto::EnrolRequest::decode(&bytes[..]).map(EnrolRequest::decode);
        let _ = proto::EnrolResponse::decode(&bytes[..]).map(EnrolResponse::decode);
    }

    #[test]
    fn damaged_deltas_never_panic(bytes in damaged(snapshot(samples()).encode().encode_to_vec())) {
        if let Ok(Ok(delta)) = proto::Delta::decode(&bytes[..]).map(Delta::decode) {
            let again = Delta::decode(delta.encode()).unwrap();
            prop_assert_eq!(again.upserts, delta.upserts);
        }
    }

    #[test]
    fn damaged_reports_never_panic(bytes in damaged(report().encode().encode_to_vec())) {
        if let Ok(Ok(decoded)) = proto::StatusReport::decode(&bytes[..]).map(StatusReport::decode) {
            prop_assert_eq!(StatusReport::decode(decoded.encode()).unwrap(), decoded);
        }
    }
}
