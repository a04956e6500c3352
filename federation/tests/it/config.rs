//! The configuration file: what it means, and the words for each mistake.

use std::path::Path;

use federation::config::{FederationConfig, StoreProfile};
use model::Transport;

const FULL: &str = "\
apiVersion: fedgate.dev/v1alpha1
kind: FederationConfig
name: one
cluster: east
trustDomain: east.example
dataDir: /data
manifests: manifests
sockets: {resource: /run/r.sock, operator: /run/o.sock}
advertise:
- {transport: quic, host: gw.east.example, port: 8443}
- {transport: quic, host: fd00::1, port: 443}
enrolment: {uids: [0, 1000]}
store: {profile: wan, dialFrom: 192.0.2.10}
";

fn parse(text: &str) -> Result<FederationConfig, String> {
    FederationConfig::from_yaml(text, Path::new("/etc/f.yaml")).map_err(|error| error.to_string())
}

#[test]
fn every_field_is_read() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.name.as_str(), "one");
    assert_eq!(config.cluster.as_str(), "east");
    assert_eq!(config.trust_domain.as_str(), "east.example");
    assert_eq!(config.data_dir, Path::new("/data"));
    assert_eq!(config.manifests, Path::new("/etc/manifests"), "relative to the file's folder");
    assert_eq!(config.resource_socket, Path::new("/run/r.sock"));
    assert_eq!(config.operator_socket, Path::new("/run/o.sock"));
    let addresses = config.advertise.iter().map(|a| (a.transport, a.host.as_str(), a.port));
    let wanted = [(Transport::Quic, "gw.east.example", 8443), (Transport::Quic, "fd00::1", 443)];
    assert!(addresses.eq(wanted));
    assert!(config.enrolment_uids.iter().eq(&[0, 1000]));
    assert_eq!(config.store_profile, StoreProfile::Wan);
    assert_eq!(config.store_dial_from, Some([192, 0, 2, 10].into()));
    assert_eq!(config.relay_socket, Path::new("/run/relay.sock"), "beside the resource socket");
    let moved = FULL.replace("operator: /run/o.sock", "operator: /run/o.sock, relay: r.sock");
    assert_eq!(parse(&moved).unwrap().relay_socket, Path::new("/etc/r.sock"));
}

#[test]
fn what_is_left_out_has_a_default() {
    let short = FULL.lines().filter(|line| {
        let optional = ["name", "sockets", "advertise", "- ", "enrolment", "store"];
        !optional.iter().any(|field| line.starts_with(field))
    });
    let config = parse(&short.collect::<Vec<_>>().join("\n")).unwrap();
    assert_eq!(config.name.as_str(), "node-0");
    assert_eq!(config.resource_socket, Path::new("/data/run/resource.sock"));
    assert_eq!(config.operator_socket, Path::new("/data/run/operator.sock"));
    assert_eq!(config.relay_socket, Path::new("/data/run/relay.sock"));
    assert_eq!(config.store_profile, StoreProfile::Lan);
    assert_eq!(config.store_dial_from, None);
    assert!(config.advertise.is_empty() && config.enrolment_uids.is_empty());
}

#[test]
fn mistakes_are_named_with_line_field_value_and_fix() {
    let long = format!("dataDir: /{}", "d".repeat(100));
    let uids: Vec<String> = (0..65).map(|uid| uid.to_string()).collect();
    let many_uids = format!("enrolment: {{uids: [{}]}}", uids.join(","));
    let cases = [
        (
            "kind: FederationConfig",
            "kind: GatewayConfig",
            "/etc/f.yaml:2: kind = \"GatewayConfig\": write FederationConfig",
        ),
        (
            "apiVersion: fedgate.dev/v1alpha1",
            "apiVersion: fedgate.dev/v1",
            "/etc/f.yaml:1: apiVersion = \"fedgate.dev/v1\": write fedgate.dev/v1alpha1",
        ),
        (
            "cluster: east",
            "cluster: East",
            "/etc/f.yaml:4: cluster = \"East\": cluster name \"East\" is not valid: use only \
             lower-case letters, digits and '-'",
        ),
        (
            "trustDomain: east.example",
            "trustDomain: east/example",
            "/etc/f.yaml:5: trustDomain = \"east/example\": trust domain \"east/example\" is not",
        ),
        ("name: one", "name: One", "/etc/f.yaml:3: name = \"One\": name \"One\" is not valid"),
        (
            "dataDir: /data",
            "dataDir: ''",
            "/etc/f.yaml:6: dataDir = \"\": it is empty; give a path",
        ),
        ("cluster: east\n", "", "missing field `cluster`"),
        (
            "cluster: east",
            "clutser: east",
            "/etc/f.yaml:4: `clutser: east`: unknown field `clutser`",
        ),
        (
            "cluster: east",
            "cluster: east\ncluster: west",
            "/etc/f.yaml:5: `cluster: west`: the field is there twice; remove one",
        ),
        ("dataDir: /data", "dataDir: ~", "`dataDir: ~`: the value is missing; write one"),
        ("enrolment:", "---\nenrolment:", ": a second document begins here; keep one"),
        ("cluster: east", "cluster: [east]", "/etc/f.yaml:4: `cluster: [east]`: "),
        ("192.0.2.10", "gw.east", "store.dialFrom = \"gw.east\": write an IP address of this host"),
        ("192.0.2.10", "0.0.0.0", "store.dialFrom = \"0.0.0.0\": write an IP address of this host"),
        ("port: 443}", "port: 0}", "/etc/f.yaml:11: advertise[1].port = 0: a port is 1 to 65535"),
        (
            "port: 443}",
            "port: 65536}",
            "/etc/f.yaml:11: advertise[1].port = 65536: a port is 1 to 65535",
        ),
        (
            "port: 443}",
            "port: https}",
            "/etc/f.yaml:11: `- {transport: quic, host: fd00::1, port: https}`: ",
        ),
        (
            "host: fd00::1",
            "host: '::'",
            "advertise[1].host = \"::\": others dial it: give an IP address or a DNS name",
        ),
        (
            "{transport: quic, host: fd00::1",
            "{transport: tls, host: fd00::1",
            "/etc/f.yaml:11: advertise[1].transport = \"tls\": the one transport is quic",
        ),
        (
            "resource: /run/r.sock",
            "resources: /run/r.sock",
            "/etc/f.yaml:8: `sockets: {resources: /run/r.sock, operator: /run/o.sock}`: unknown \
             field `resources`",
        ),
        (
            "uids: [0, 1000]",
            "uids: [0, 0]",
            "/etc/f.yaml:12: enrolment.uids[1] = 0: it is listed twice; remove one",
        ),
        (
            "uids: [0, 1000]",
            "uids: [-1]",
            "/etc/f.yaml:12: enrolment.uids[0] = -1: a Unix user's number is 0 to 4294967295",
        ),
        (
            "uids: [0, 1000]",
            "uids: []",
            "/etc/f.yaml:12: enrolment.uids = 0 entries: list 1 to 64 Unix users, or leave the",
        ),
        (
            "profile: wan",
            "profile: man",
            "/etc/f.yaml:13: store.profile = \"man\": write lan (voters a few milliseconds apart)",
        ),
        ("enrolment: {uids: [0, 1000]}", &many_uids, "enrolment.uids = 65 entries: list 1 to 64"),
        (
            "dataDir: /data\nmanifests: manifests\nsockets: {resource: /run/r.sock, operator: \
             /run/o.sock}",
            &format!("{long}\nmanifests: manifests"),
            "Unix allows 107; set sockets.resource to a shorter one",
        ),
        ("kind: FederationConfig", "kind: [", "/etc/f.yaml:"),
    ];
    for (good, bad, wanted) in cases {
        assert!(FULL.contains(good), "{good}");
        let found = parse(&FULL.replacen(good, bad, 1)).unwrap_err();
        assert!(found.contains(wanted), "{found}\n  is without {wanted}");
    }
}

#[test]
fn errors_of_the_parser_point_to_the_list_of_fields() {
    let error = parse(&FULL.replacen("cluster: east", "clutser: east", 1)).unwrap_err();
    assert!(error.ends_with("; docs/reference/config.md lists the fields"), "{error}");
    let error = parse(&" ".repeat(1 << 21)).unwrap_err();
    assert_eq!(error, "/etc/f.yaml: the file has 2097152 bytes; the limit is 1048576");
}

#[test]
fn the_reference_page_has_every_field() {
    let page = include_str!("../../../docs/reference/config.md");
    let section = page.split("## ").find(|part| part.starts_with("fedgate-federation")).unwrap();
    let error = parse("nothing: 1").unwrap_err();
    let fields = error.split("expected one of ").nth(1).unwrap().split(';').next().unwrap();
    let fields: Vec<&str> = fields.split(", ").collect();
    assert!(fields.len() >= 10, "{error}");
    for field in fields.iter().filter(|field| !["apiVersion", "kind"].contains(field)) {
        assert!(section.contains(&format!("| `{field}")), "{field} is not on the page");
    }
}

#[test]
fn operators_are_listed_by_role() {
    let with = |lists: &str| parse(&format!("{FULL}operators: {{{lists}}}\n"));
    let config = with("admins: [1], operators: [2, 3], viewers: [4]").unwrap();
    let lists = [config.operators.admins, config.operators.operators, config.operators.viewers];
    assert!(lists.iter().flatten().eq(&[1, 2, 3, 4]));
    assert_eq!(parse(FULL).unwrap().operators, federation::config::OperatorUids::default());
    for (lists, wanted) in [
        (
            "admins: [1], viewers: [2, 1]",
            "operators.viewers[1] = 1: it is listed twice; remove one",
        ),
        ("operators: []", "operators.operators = 0 entries: list 1 to 64 Unix users, or leave the"),
        ("viewers: [-1]", "operators.viewers[0] = -1: a Unix user's number is 0 to 4294967295"),
        ("root: [0]", "unknown field `root`"),
    ] {
        let error = with(lists).unwrap_err();
        assert!(error.starts_with("/etc/f.yaml:") && error.contains(wanted), "{error}");
    }
}
