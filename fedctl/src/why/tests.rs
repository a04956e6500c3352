//! The engine over two clusters, east and west, with one thing wrong at a time.

mod world;

use std::time::Duration;

use model::why::{
    Answer, Facts, Feed, Hop, LinkFault, LinkState, MemberState, Probe, Question, Source, Standing,
    SvidFacts, Target, explain,
};
use model::{ClusterName, Diagnostic, Severity, code};

use super::Explained;
use crate::golden;
use world::{EAST_IMPORT, EAST_ROUTE, WEST_EXPORT, WEST_POLICY, WEST_SERVICE, WEST_SLICE, World};

const HOST: &str = "api.shop.svc.clusterset.local";

fn name(text: &str) -> ClusterName {
    ClusterName::parse(text).unwrap()
}

fn question(source: &str, target: &str) -> Question {
    Question {
        source: Source::parse(source).unwrap(),
        target: Target::parse(target).unwrap(),
        path: "/".into(),
    }
}

fn answer(source: &str, target: &str, facts: &Facts) -> Answer {
    explain(&question(source, target), facts).unwrap()
}

fn explained(source: &str, target: &str, facts: &Facts) -> Explained {
    Explained::new(answer(source, target, facts), facts, vec![])
}

/// One cause: what it is called, where it breaks, how it comes about.
type Case = (&'static str, Hop, code::Code, fn(&mut World));

fn judged(cases: &[Case]) -> String {
    let mut text = String::new();
    for (what, hop, code, spoil) in cases {
        let mut world = World::sound();
        spoil(&mut world);
        let explained = explained("east", HOST, &world.facts());
        let broken = explained.answer.broken();
        let broken = broken.unwrap_or_else(|| panic!("{what}: {}", explained.table()));
        assert_eq!(broken.hop, *hop, "{what}: {}", explained.table());
        text += &format!("# {what}\n{}\n\n", explained.short());
        assert!(text.contains(&code.to_string()), "{what} has no {code}: {}", explained.table());
        let stops = explained.answer.steps.last().map(|step| step.hop);
        assert_eq!(stops, Some(*hop), "{what}: nothing is said behind the broken hop");
    }
    text
}

#[test]
fn a_sound_way_is_as_golden() {
    let explained = explained("east", HOST, &World::sound().facts());
    golden::check("why.txt", &explained.table());
    golden::check("why.json", &serde_json::to_string_pretty(&explained.view()).unwrap());
}

#[test]
fn a_broken_way_is_as_golden() {
    let mut world = World::sound();
    world.cut_tunnel(None);
    let explained = explained("east", HOST, &world.facts());
    golden::check("why-broken.txt", &explained.table());
    golden::check("why-broken.json", &serde_json::to_string_pretty(&explained.view()).unwrap());
}

#[test]
fn the_guide_shows_what_is_printed() {
    let mut world = World::sound();
    let guide = include_str!("../../../docs/guide/why.md");
    assert!(guide.contains(explained("east", HOST, &world.facts()).table().trim_end()));
    world.cut_tunnel(None);
    assert!(guide.contains(explained("east", HOST, &world.facts()).table().trim_end()));
}

#[test]
fn names_break_as_golden() {
    let cases: &[Case] = &[
        ("no route", Hop::Name, code::NO_ROUTE, |world| world.east.remove(EAST_ROUTE)),
        ("no Gateway", Hop::Name, code::ROUTE_NOT_ACCEPTED, |world| {
            world.east.remove(world::EAST_GATEWAY);
        }),
        ("neither Gateway nor route", Hop::Name, code::NO_ROUTE, |world| {
            world.east.remove(world::EAST_GATEWAY);
            world.east.remove(EAST_ROUTE);
        }),
        ("a parentRef that names nothing", Hop::Name, code::ROUTE_NOT_ACCEPTED, |world| {
            world.east.replace("parentRefs: [{name: fedgate}]", "parentRefs: [{name: other}]");
        }),
        ("a port that somebody else has", Hop::Name, code::ADDRESS_IN_USE, |world| {
            world.east.gateways[0].listeners[0].error = Some("address in use".into());
        }),
        ("a namespace that permits no route", Hop::Name, code::REF_NOT_PERMITTED, |world| {
            world.east.replace(
                "name: api, namespace: shop}\nspec:\n  parentRefs: [{name: fedgate}]",
                "name: api, namespace: front}\nspec:\n  parentRefs: [{name: fedgate, namespace: shop}]",
            );
            world.east.replace("name: api, port: 80}]", "name: api, namespace: shop, port: 80}]");
            world.east.replace(
                "protocol: HTTP}",
                "protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}",
            );
        }),
        ("a route over HTTP to a port that is TCP", Hop::Name, code::PORT_NOT_FOUND, |world| {
            world.east.replace("appProtocol: http", "appProtocol: tcp");
        }),
    ];
    golden::check("why-name.txt", &judged(cases));
}

#[test]
fn catalogs_break_as_golden() {
    let cases: &[Case] = &[
        ("no export", Hop::Catalog, code::NOT_EXPORTED, |world| {
            world.west.remove(WEST_EXPORT);
        }),
        ("neither export nor Service", Hop::Catalog, code::NOT_EXPORTED, |world| {
            world.west.remove(WEST_EXPORT);
            world.west.remove(WEST_SERVICE);
        }),
        ("an export without its Service", Hop::Catalog, code::SERVICE_NOT_FOUND, |world| {
            world.west.remove(WEST_SERVICE);
        }),
        ("another port", Hop::Catalog, code::PORT_NOT_FOUND, |world| {
            world.west.replace("port: 80,", "port: 81,");
        }),
        ("another port, as the source has it", Hop::Catalog, code::PORT_NOT_FOUND, |world| {
            world.only_east();
            world.east.replace("- {name: main, port: 80,", "- {name: main, port: 81,");
        }),
        ("a revoked cluster", Hop::Catalog, code::MEMBER_REVOKED, |world| {
            world.east.store().members[1].state = MemberState::Revoked;
        }),
        ("a cluster that left", Hop::Catalog, code::NOT_A_MEMBER, |world| {
            world.east.store().members[1].state = MemberState::Left;
        }),
        ("a cluster that never joined", Hop::Catalog, code::NOT_A_MEMBER, |world| {
            world.east.store().members.remove(1);
            world.east.peers.clear();
        }),
        ("a member without an address", Hop::Catalog, code::CLUSTER_NOT_FOUND, |world| {
            world.east.peers.clear();
        }),
        ("no ClusterPeer", Hop::Catalog, code::CLUSTER_NOT_FOUND, |world| {
            world.by_hand();
            world.east.peers = vec![("south", 9)];
        }),
        ("alone", Hop::Catalog, code::FEDERATION_NONE, |world| {
            world.by_hand();
            world.east.peers.clear();
        }),
        ("an owner that is silent for long", Hop::Catalog, code::OWNER_WITHDRAWN, |world| {
            let day = Duration::from_secs(90_000);
            world.east.store().members[1].heard = Some((day, Standing::Withdrawn));
            world.east.remove(EAST_IMPORT);
        }),
        ("an export that another one precedes", Hop::Catalog, code::EXPORT_CONFLICT, |world| {
            world.west.store().offers[0].idle = Some(Diagnostic {
                severity: Severity::Error,
                code: code::EXPORT_CONFLICT,
                object: String::new(),
                field: String::new(),
                message: "does not serve: south exports shop/api since 1.7 and serves it".into(),
                fix: "rename the service".into(),
            });
            world.east.remove(EAST_IMPORT);
        }),
        ("a store without quorum", Hop::Catalog, code::STORE_NO_QUORUM, |world| {
            world.east.store().feed = Feed::Leaderless;
            world.east.remove(EAST_IMPORT);
        }),
        ("a replica that nobody feeds", Hop::Catalog, code::WATCH_SOURCE_LOST, |world| {
            world.east.store().feed = Feed::Cut;
            world.east.remove(EAST_IMPORT);
        }),
        ("a cordoned cluster", Hop::Catalog, code::CLUSTER_CORDONED, |world| {
            world.east.cordoned.insert(name("west"), "a new kernel".into());
        }),
        ("an export that is on its way", Hop::Catalog, code::NOT_YET, |world| {
            world.east.remove(EAST_IMPORT);
        }),
        ("no ServiceImport by hand", Hop::Catalog, code::SERVICE_NOT_FOUND, |world| {
            world.by_hand();
            world.east.remove(EAST_IMPORT);
        }),
        ("only the source is asked", Hop::Catalog, code::NOT_EXPORTED, |world| {
            world.only_east();
            world.east.remove(EAST_IMPORT);
            world.east.store().offers.clear();
        }),
    ];
    golden::check("why-catalog.txt", &judged(cases));
}

#[test]
fn consumers_are_refused_as_golden() {
    let cases: &[Case] = &[
        ("no policy", Hop::Consumers, code::EXPORT_WITHOUT_POLICY, |world| {
            world.west.remove(WEST_POLICY);
        }),
        ("no policy, and so no import", Hop::Consumers, code::EXPORT_WITHOUT_POLICY, |world| {
            world.west.remove(WEST_POLICY);
            world.east.remove(EAST_IMPORT);
        }),
        ("a policy for somebody else", Hop::Consumers, code::ACCESS_DENIED, |world| {
            world.west.replace("cluster: east", "cluster: south");
        }),
        ("a policy for a SPIFFE ID", Hop::Consumers, code::ACCESS_DENIED, |world| {
            let id = "spiffeId: \"spiffe://east.example/ns/shop/sa/web\"";
            world.west.replace("cluster: east", id);
        }),
        ("a policy in the store", Hop::Consumers, code::ACCESS_DENIED, |world| {
            world.only_east();
            world.east.store().offers[0].allow[0].cluster = Some(name("south"));
        }),
    ];
    golden::check("why-consumers.txt", &judged(cases));
}

#[test]
fn identities_lack_as_golden() {
    let cases: &[Case] = &[
        ("no gateway", Hop::Identity, code::GATEWAY_UNCONNECTED, |world| {
            world.east.gateways.clear();
        }),
        ("a gateway that went", Hop::Identity, code::GATEWAY_UNCONNECTED, |world| {
            world.east.gateways[0].connected = false;
        }),
        ("a gateway that is not ready", Hop::Identity, code::GATEWAY_UNCONNECTED, |world| {
            world.east.gateways[0].ready = false;
        }),
        ("a gateway that drains", Hop::Identity, code::DRAINING, |world| {
            world.east.gateways[0].draining = true;
        }),
        ("no SVID", Hop::Identity, code::SVID_MISSING, |world| {
            world.east.gateways[0].svid = SvidFacts::Missing;
        }),
        ("an expired SVID", Hop::Identity, code::SVID_EXPIRED, |world| {
            world.east.gateways[0].svid = SvidFacts::Expired { ago: Duration::from_secs(300) };
        }),
        ("an expired SVID at the destination", Hop::Identity, code::SVID_EXPIRED, |world| {
            world.west.gateways[0].svid = SvidFacts::Expired { ago: Duration::from_secs(300) };
        }),
    ];
    golden::check("why-identity.txt", &judged(cases));
}

#[test]
fn trust_lacks_as_golden() {
    let cases: &[Case] = &[
        ("no bundle at the source", Hop::Trust, code::PEER_IDENTITY_REFUSED, |world| {
            world.cut_tunnel(None);
            world.east.trust.retain(|row| row.cluster != name("west"));
        }),
        ("no bundle at the destination", Hop::Trust, code::PEER_IDENTITY_REFUSED, |world| {
            world.cut_tunnel(None);
            world.west.trust.retain(|row| row.cluster != name("east"));
        }),
        ("a trust domain of two clusters", Hop::Trust, code::TRUST_DOMAIN_CONFLICT, |world| {
            world.cut_tunnel(None);
            world.east.peers.push(("south", 2));
        }),
        ("an expired authority", Hop::Trust, code::AUTHORITY_EXPIRED, |world| {
            world.cut_tunnel(None);
            world.east.trust[1].authorities[0].expired = true;
        }),
        ("another trust domain", Hop::Trust, code::PEER_IDENTITY_REFUSED, |world| {
            world.cut_tunnel(None);
            world.east.peers = vec![("west", 3)];
            world.east.trust[1].trust_domain = model::TrustDomain::parse("south.example").unwrap();
        }),
        ("another CA", Hop::Trust, code::PEER_IDENTITY_REFUSED, |world| {
            world.cut_tunnel(None);
            world.west.trust[1].authorities[0].fingerprint = vec![7; 32];
        }),
        ("a handshake that was refused", Hop::Trust, code::PEER_IDENTITY_REFUSED, |world| {
            world.only_east();
            world.cut_tunnel(Some(LinkFault {
                code: Some(code::PEER_IDENTITY_REFUSED),
                text: "the peer refused our certificate".into(),
                age: Duration::from_secs(3),
            }));
        }),
    ];
    golden::check("why-trust.txt", &judged(cases));
}

#[test]
fn an_old_refusal_is_not_why_a_tunnel_is_down() {
    let fault = |code, seconds| LinkFault {
        code: Some(code),
        text: "it failed".into(),
        age: Duration::from_secs(seconds),
    };
    let mut world = World::sound();
    world.cut_tunnel(Some(fault(code::PEER_IDENTITY_REFUSED, 60)));
    let mut other = world.east.links[0].clone();
    other.fault = Some(fault(code::TUNNEL_SILENT, 2));
    world.east.links.push(other);
    let explained = explained("east", HOST, &world.facts());
    assert_eq!(explained.code(), "FED2001", "{}", explained.table());
}

#[test]
fn a_tunnel_that_stands_proves_trust() {
    let mut world = World::sound();
    world.west.trust[1].authorities[0].fingerprint = vec![7; 32];
    let explained = explained("east", HOST, &world.facts());
    assert!(explained.answer.broken().is_none(), "{}", explained.table());
    let trust = &explained.answer.steps[Hop::Trust as usize];
    assert!(trust.text.starts_with("verified by the tunnel that stands, but"), "{trust:?}");
}

#[test]
fn tunnels_and_endpoints_lack_as_golden() {
    let cases: &[Case] = &[
        ("no link at all", Hop::Tunnel, code::TUNNEL_DOWN, |world| world.east.links.clear()),
        ("a link that went silent", Hop::Tunnel, code::TUNNEL_DOWN, |world| {
            world.cut_tunnel(Some(LinkFault {
                code: Some(code::TUNNEL_SILENT),
                text: "no packet for 600 ms".into(),
                age: Duration::from_millis(700),
            }));
        }),
        ("another version", Hop::Tunnel, code::PEER_VERSION, |world| {
            world.cut_tunnel(Some(LinkFault {
                code: Some(code::PEER_VERSION),
                text: "it speaks 2 to 3, this gateway 1".into(),
                age: Duration::from_secs(1),
            }));
        }),
        ("a peer that drains", Hop::Tunnel, code::DRAINING, |world| {
            world.east.links[0].state = LinkState::Draining;
        }),
        ("a destination without gateway", Hop::Tunnel, code::TUNNEL_DOWN, |world| {
            world.cut_tunnel(None);
            world.west.gateways[0].connected = false;
        }),
        ("no endpoint", Hop::Endpoint, code::NO_ENDPOINT, |world| world.west.remove(WEST_SLICE)),
        ("no ready endpoint", Hop::Endpoint, code::NO_ENDPOINT, |world| {
            world.west.replace("ready: true", "ready: false");
        }),
        ("a slice of another port name", Hop::Endpoint, code::NO_ENDPOINT, |world| {
            world.west.replace("name: main, port: 9}", "name: other, port: 9}");
        }),
    ];
    golden::check("why-path.txt", &judged(cases));
}

#[test]
fn what_nobody_was_asked_about_is_unknown() {
    let mut text = String::new();
    for (what, of) in [
        ("only the source's node", "east"),
        ("only the destination's node", "west"),
        ("only another one's", "south"),
    ] {
        let mut facts = World::sound().facts();
        let mut third = World::sound().third().facts();
        facts.append(&mut third);
        facts.retain(|cluster, _| *cluster == name(of));
        let explained = explained("east", "shop/api.west", &facts);
        assert!(explained.answer.broken().is_none(), "{what}: {}", explained.table());
        text += &format!("# {what}\n{}\n", explained.table());
    }
    golden::check("why-unknown.txt", &text);
}

#[test]
fn the_way_that_gets_furthest_counts() {
    let mut world = World::sound();
    world.east.replace("- {cluster: west}", "- {cluster: south}\n  - {cluster: west}");
    world.east.peers.push(("south", 3));
    let explained = explained("east", HOST, &world.facts());
    assert_eq!(explained.answer.to, Some(name("west")), "{}", explained.table());
    assert_eq!(explained.answer.others.len(), 1);
    assert_eq!(explained.answer.others[0].0, name("south"));
}

#[test]
fn a_workload_travels_as_its_gateway() {
    for source in ["east/shop/web", "spiffe://east.example/ns/shop/sa/web"] {
        let explained = explained(source, HOST, &World::sound().facts());
        let consumers = &explained.answer.steps[Hop::Consumers as usize];
        assert!(consumers.text.contains("spiffe://east.example/ns/shop/sa/web"), "{consumers:?}");
    }
    let unknown = question("spiffe://nobody.example/ns/a/sa/b", HOST);
    let error = explain(&unknown, &World::sound().facts()).unwrap_err();
    assert!(error.problem.ends_with("known: east.example, west.example"), "{error}");
}

#[test]
fn a_probe_fills_what_is_unknown_and_finds_what_no_node_sees() {
    let mut world = World::sound();
    world.only_east();
    let facts = world.facts();
    let probed = |probe: Probe| {
        let mut explained = explained("east", HOST, &facts);
        explained.take_probe(probe);
        explained
    };
    let text = [
        probed(Probe::Answered("200 OK in 4.1 ms".into())),
        probed(Probe::Refused {
            code: code::UPSTREAM_CONNECT,
            text: "503 Service Unavailable: connection refused".into(),
        }),
        probed(Probe::Mute("10.0.0.1:8080 cannot be reached from here".into())),
    ];
    let text: Vec<String> = text.iter().map(Explained::table).collect();
    golden::check("why-live.txt", &text.join("\n"));
}
