//! The configuration file: what it means, and the words for each mistake.

use std::path::Path;
use std::time::Duration;

use federation::config::{
    FederationConfig, GatewayServiceType, PortPool, ServedProfile, SourceProfile, StoreProfile,
};
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
svidLifetimeSeconds: 20
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
    let manifests = config.manifests.as_deref();
    assert_eq!(manifests, Some(Path::new("/etc/manifests")), "relative to the file's folder");
    assert_eq!(config.resource_socket, Path::new("/run/r.sock"));
    assert_eq!(config.operator_socket, Path::new("/run/o.sock"));
    let addresses = config.advertise.iter().map(|a| (a.transport, a.host.as_str(), a.port));
    let wanted = [(Transport::Quic, "gw.east.example", 8443), (Transport::Quic, "fd00::1", 443)];
    assert!(addresses.eq(wanted));
    assert!(config.enrolment.uids.iter().eq(&[0, 1000]));
    assert_eq!(config.store_profile, StoreProfile::Wan);
    assert_eq!(config.store_dial_from, Some([192, 0, 2, 10].into()));
    assert_eq!(config.svid_lifetime, Duration::from_secs(20));
    assert_eq!(config.relay_socket, Path::new("/run/relay.sock"), "beside the resource socket");
    let moved = FULL.replace("operator: /run/o.sock", "operator: /run/o.sock, relay: r.sock");
    assert_eq!(parse(&moved).unwrap().relay_socket, Path::new("/etc/r.sock"));
}

#[test]
fn what_is_left_out_has_a_default() {
    let short = FULL.lines().filter(|line| {
        let optional = ["name", "sockets", "advertise", "- ", "enrolment", "store", "svid"];
        !optional.iter().any(|field| line.starts_with(field))
    });
    let config = parse(&short.collect::<Vec<_>>().join("\n")).unwrap();
    assert_eq!(config.name.as_str(), "node-0");
    assert_eq!(config.resource_socket, Path::new("/data/run/resource.sock"));
    assert_eq!(config.operator_socket, Path::new("/data/run/operator.sock"));
    assert_eq!(config.relay_socket, Path::new("/data/run/relay.sock"));
    assert_eq!(config.store_profile, StoreProfile::Lan);
    assert_eq!(config.store_dial_from, None);
    assert_eq!(config.svid_lifetime, Duration::from_secs(86_400));
    assert!(config.advertise.is_empty() && config.enrolment.uids.is_empty());
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
        (
            "Seconds: 20",
            "Seconds: 9",
            "/etc/f.yaml:14: svidLifetimeSeconds = 9: write 10 to 86400 seconds",
        ),
        ("Seconds: 20", "Seconds: 86401", "svidLifetimeSeconds = 86401: write 10 to 86400 seconds"),
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

const IN_CLUSTER: &str = "\
apiVersion: fedgate.dev/v1alpha1
kind: FederationConfig
cluster: east
trustDomain: east.example
dataDir: /data
kubernetes:
  namespace: fedgate-system
  gatewayService: gw
  gatewaySelector: {app: gw, example.org/tier: edge}
  gatewayServiceType: NodePort
  importPorts: {first: 30000, count: 10}
  ownedBy: fedgate-federation
  joinTokenFile: join/token
health: {listen: 0.0.0.0:7447}
listen: {gateways: 0.0.0.0:7443, relay: \"[::]:7444\", operators: 0.0.0.0:7445}
enrolment: {serviceAccounts: [fedgate-system/fedgate-gateway]}
operators:
  viewers: [7]
  serviceAccounts: {admins: [a/b], operators: [a/c, d/b], viewers: [a/d]}
";

#[test]
fn a_node_in_a_cluster_is_told_of_it() {
    let config = parse(IN_CLUSTER).unwrap();
    assert_eq!(config.manifests, None);
    let kubernetes = config.kubernetes.unwrap();
    assert_eq!(kubernetes.namespace.as_str(), "fedgate-system");
    assert_eq!(kubernetes.gateway_service.as_str(), "gw");
    let labels = [("app", "gw"), ("example.org/tier", "edge")];
    let found = kubernetes.gateway_selector.iter().map(|(key, value)| (&**key, &**value));
    assert!(found.eq(labels));
    assert_eq!(kubernetes.gateway_service_type, GatewayServiceType::NodePort);
    assert_eq!(kubernetes.import_ports, PortPool { first: 30000, count: 10 });
    assert!(kubernetes.import_ports.ports().eq(30000..30010));
    assert_eq!(kubernetes.owned_by.unwrap().as_str(), "fedgate-federation");
    assert_eq!(kubernetes.join_token_file.as_deref(), Some(Path::new("/etc/join/token")));
    assert_eq!(config.listen.gateways, Some("0.0.0.0:7443".parse().unwrap()));
    assert_eq!(config.listen.relay, Some("[::]:7444".parse().unwrap()));
    assert_eq!(config.listen.operators, Some("0.0.0.0:7445".parse().unwrap()));
    assert_eq!(config.health_listen, Some("0.0.0.0:7447".parse().unwrap()));
    let shown = |accounts: &std::collections::BTreeSet<federation::config::ServiceAccount>| {
        accounts.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(shown(&config.enrolment.accounts), ["fedgate-system/fedgate-gateway"]);
    assert_eq!(shown(&config.operator_accounts.admins), ["a/b"]);
    assert_eq!(shown(&config.operator_accounts.operators), ["a/c", "d/b"]);
    assert_eq!(shown(&config.operator_accounts.viewers), ["a/d"]);
    assert!(config.operators.viewers.iter().eq(&[7]));
}

#[test]
fn what_a_cluster_leaves_out_has_a_default() {
    let start = IN_CLUSTER.find("  gatewayService").unwrap();
    let config = parse(&IN_CLUSTER[..start]).unwrap();
    let kubernetes = config.kubernetes.unwrap();
    assert_eq!(kubernetes.gateway_service.as_str(), "fedgate-gateway");
    assert_eq!(kubernetes.gateway_selector["app.kubernetes.io/component"], "gateway");
    assert_eq!(kubernetes.gateway_service_type, GatewayServiceType::LoadBalancer);
    assert_eq!(kubernetes.import_ports, PortPool { first: 20000, count: 1000 });
    assert_eq!(kubernetes.owned_by, None);
    assert_eq!(kubernetes.join_token_file, None);
    assert_eq!(config.listen, federation::config::Listen::default());
    assert_eq!(config.health_listen, None);
    assert!(config.enrolment.accounts.is_empty() && config.operator_accounts.is_empty());
}

#[test]
fn mistakes_about_a_cluster_are_named() {
    let whole = "kubernetes:\n  namespace: fedgate-system";
    for (good, bad, wanted) in [
        (
            "namespace: fedgate-system",
            "namespace: A",
            "/etc/f.yaml:7: kubernetes.namespace = \"A\"",
        ),
        ("ownedBy: fedgate-federation", "ownedBy: a/b", "kubernetes.ownedBy = \"a/b\""),
        ("0.0.0.0:7447", "7447", "health.listen = \"7447\": write an IP address and a port"),
        ("gatewayService: gw", "gatewayService: G", "kubernetes.gatewayService = \"G\""),
        ("NodePort", "nodeport", "= \"nodeport\": write LoadBalancer, NodePort or ClusterIP"),
        (
            "first: 30000",
            "first: 80",
            "importPorts.first = 80: a port of the pool is 1024 to 65535",
        ),
        (
            "first: 30000",
            "first: 65530",
            "importPorts.count = 10: from port 65530 on, the pool has",
        ),
        ("count: 10", "count: 1025", "= 1025: from port 30000 on, the pool has 1 to 1024 ports"),
        ("{app: gw, example.org/tier: edge}", "{}", "give 1 to 16 labels of the gateway pods"),
        ("app: gw", "app: '-'", "a label is [DNS name/]NAME: VALUE"),
        ("app: gw", "a/b/c: x", "a label is [DNS name/]NAME: VALUE"),
        ("0.0.0.0:7443", "7443", "listen.gateways = \"7443\": write an IP address and a port"),
        ("gateways: 0.0.0.0:7443, ", "", "enrolment.serviceAccounts: ServiceAccounts call by TCP"),
        (", operators: 0.0.0.0:7445", "", "operators.serviceAccounts: ServiceAccounts call by TCP"),
        (
            "enrolment: {serviceAccounts: [fedgate-system/fedgate-gateway]}",
            "",
            "listen.gateways: nobody",
        ),
        (
            "[fedgate-system/fedgate-gateway]",
            "[x]",
            "enrolment.serviceAccounts[0] = \"x\": write namespace/name",
        ),
        (
            "[fedgate-system/fedgate-gateway]",
            "[]",
            "enrolment.serviceAccounts = 0 entries: list 1 to 64",
        ),
        (
            "viewers: [a/d]",
            "viewers: [a/c]",
            "operators.serviceAccounts.viewers[0] = \"a/c\": it is listed twice",
        ),
        (whole, "store: {}\nx-kubernetes:\n  namespace: a", "unknown field"),
    ] {
        assert!(IN_CLUSTER.contains(good), "{good}");
        let found = parse(&IN_CLUSTER.replacen(good, bad, 1)).unwrap_err();
        assert!(found.contains(wanted), "{found}\n  is without {wanted}");
    }
    let neither = FULL.replacen("manifests: manifests\n", "", 1);
    let error = parse(&neither).unwrap_err();
    assert!(error.contains("manifests: it is missing; give the folder"), "{error}");
}

const SPIFFE_SOURCE: &str = "\
bundleSources:
- trustDomain: west.example
  url: https://bundles.west.example:8444/one
  profile: https_spiffe
  endpointSpiffeId: spiffe://west.example/fedgate/federation/node-0
  bundleFile: west.json
";

#[test]
fn bundle_endpoints_are_read() {
    let config = parse(FULL).unwrap();
    assert!(config.bundle_endpoint.is_none() && config.bundle_sources.is_empty());
    let web = "bundleEndpoint: {listen: '[::]:8444', profile: https_web, certificateFile: a, \
               keyFile: /b}\n";
    let other = "- {trustDomain: north.example, url: 'https://[2001:db8::1]/', profile: https_web}";
    let config = parse(&format!("{FULL}{web}{SPIFFE_SOURCE}{other}\n")).unwrap();
    let served = config.bundle_endpoint.unwrap();
    assert_eq!(served.listen, "[::]:8444".parse().unwrap());
    let (certificate, key) = ("/etc/a".into(), "/b".into());
    assert_eq!(served.profile, ServedProfile::Web { certificate, key });
    let [spiffe, web] = &config.bundle_sources[..] else { panic!("{:?}", config.bundle_sources) };
    assert_eq!(spiffe.url.path(), "/one");
    let SourceProfile::Spiffe { endpoint, bundle_file } = &spiffe.profile else { panic!() };
    assert_eq!(endpoint.as_str(), "spiffe://west.example/fedgate/federation/node-0");
    assert_eq!(bundle_file.as_deref(), Some(Path::new("/etc/west.json")));
    assert_eq!(web.profile, SourceProfile::Web { ca_file: None });
    // Known by the bundle of a domain that has a source of its own (SPIFFE Federation 5.2.2.2).
    let elsewhere = "- {trustDomain: south.example, url: 'https://west.example', profile: \
                     https_spiffe, endpointSpiffeId: 'spiffe://west.example/bundles'}";
    assert_eq!(
        parse(&format!("{FULL}{SPIFFE_SOURCE}{elsewhere}\n")).unwrap().bundle_sources.len(),
        2
    );
}

#[test]
fn mistakes_about_bundle_endpoints_are_named() {
    let endpoint = "bundleEndpoint: {listen: '0.0.0.0:8444', profile: https_spiffe}\n";
    let full = format!("{FULL}{SPIFFE_SOURCE}{endpoint}");
    parse(&full).unwrap();
    let listen = "listen: '0.0.0.0:8444', profile: https_spiffe";
    let id = "  endpointSpiffeId: spiffe://west.example/fedgate/federation/node-0\n";
    let again = format!("{}{endpoint}", SPIFFE_SOURCE.replace("bundleSources:\n", ""));
    for (from, to, wanted) in [
        (
            listen,
            "listen: here, profile: https_spiffe",
            "bundleEndpoint.listen = \"here\": write an IP",
        ),
        (listen, "listen: '0.0.0.0:1', profile: web", "profile = \"web\": write https_web (a cert"),
        (
            listen,
            "listen: '0.0.0.0:1', profile: https_web, keyFile: k",
            "bundleEndpoint.profile = \"https_web\": bundleEndpoint.certificateFile belongs to it",
        ),
        (
            listen,
            "listen: '0.0.0.0:1', profile: https_spiffe, keyFile: k",
            "bundleEndpoint.keyFile = \"k\": https_spiffe shows the node's SVID; remove it",
        ),
        ("https://", "http://", "/etc/f.yaml:17: bundleSources[0].url = \"http://bund"),
        ("https://", "https://me:word@", "without user and password"),
        ("https://bundles.west.example:8444", "", "write a URL such as https://"),
        ("trustDomain: west", "trustDomain: east", "it is this cluster's own, or listed twice"),
        (endpoint, &again, "bundleSources[1].trustDomain = \"west.example\": it is this cluster's"),
        (id, "", "bundleSources[0].profile = \"https_spiffe\": bundleSources[0].endpointSpiffeId"),
        ("spiffe://", "spiffe:/", "bundleSources[0].endpointSpiffeId = \"spiffe:/west"),
        ("  bundleFile: west.json\n", "", "bundleSources[0].bundleFile: it is missing: the first"),
        ("bundleFile:", "caFile:", "bundleSources[0].caFile = \"west.json\": https_spiffe knows"),
        (
            "profile: https_spiffe\n",
            "profile: https_web\n",
            "https_web knows the endpoint by its host",
        ),
        ("://west.example/fed", "://north.example/fed", "bundleFile: the endpoint is of another"),
        ("  bundleFile: west.json", "  expected: x", "unknown field `expected`"),
    ] {
        let text = full.replace(from, to);
        assert_ne!(text, full, "{from}");
        let error = parse(&text).unwrap_err();
        assert!(error.contains(wanted), "{to}\n  gives {error}\n  not   {wanted}");
    }
    let moved = full.replace("://west.example/fed", "://north.example/fed");
    let error = parse(&moved.replace("  bundleFile: west.json\n", "")).unwrap_err();
    assert!(error.contains("endpointSpiffeId: its trust domain has no bundle here"), "{error}");
    let entry =
        |n| format!("- {{trustDomain: t{n}.example, url: 'https://a', profile: https_web}}\n");
    let many: String = (0..65).map(entry).collect();
    let error = parse(&format!("{FULL}bundleSources:\n{many}")).unwrap_err();
    assert!(error.contains("bundleSources = 65 entries: at most 64 are allowed"), "{error}");
}
