//! What the file means, and the words for each mistake.

use super::*;

const GOOD: &str = "\
apiVersion: fedgate.dev/v1alpha1
kind: GatewayConfig
name: gw-0
cluster: east
trustDomain: east.example
dataDir: data
federation: {socket: /run/fedgate/resource.sock}
";

fn parse(text: &str) -> Result<GatewayConfig, String> {
    GatewayConfig::from_yaml(text, Path::new("/etc/fedgate/gateway.yaml"))
        .map_err(|error| error.to_string())
}

#[test]
fn defaults_fill_what_the_file_leaves_out() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.tunnel_listen.to_string(), "[::]:8443");
    assert_eq!(config.routes_listen.to_string(), "0.0.0.0");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9901");
    assert_eq!(config.health_listen, None);
    assert_eq!(config.access_log, Path::new(STDOUT));
    assert_eq!(config.data_dir, Path::new("/etc/fedgate/data"), "relative to the file");
    let FederationLink::Sockets { resource, relay } = &config.federation else {
        panic!("{:?}", config.federation)
    };
    assert_eq!(resource, Path::new("/run/fedgate/resource.sock"));
    assert_eq!(relay, Path::new("/run/fedgate/relay.sock"), "beside the other");
    assert_eq!((config.relay_listen, config.pod_ip), (None, None));
    assert_eq!(config.drain_accept, DRAIN_ACCEPT_GRACE);
    assert!((1..=WORKERS_MAX).contains(&config.workers));
    assert_eq!(config.spiffe_id().as_str(), "spiffe://east.example/fedgate/gateway/gw-0");
}

#[test]
fn every_field_is_read() {
    let text = format!(
        "{}listen: {{tunnel: \"127.0.0.1:1\", routes: \"::1\"}}\nworkers: 3\n\
         admin: {{listen: \"127.0.0.1:0\"}}\nhealth: {{listen: \"0.0.0.0:9902\"}}\naccessLog: {{path: /tmp/x}}\n\
         drain: {{acceptSeconds: 5}}\n",
        GOOD.replace("resource.sock}", "resource.sock, relay: /run/node/r.sock}")
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.tunnel_listen.to_string(), "127.0.0.1:1");
    assert_eq!(config.routes_listen.to_string(), "::1");
    let relay = Path::new("/run/node/r.sock");
    assert!(matches!(config.federation, FederationLink::Sockets { relay: r, .. } if r == relay));
    assert_eq!(config.health_listen, Some("0.0.0.0:9902".parse().unwrap()));
    assert_eq!(config.workers, 3);
    assert_eq!(config.drain_accept.as_secs(), 5);
    assert_eq!(config.access_log, Path::new("/tmp/x"));
}

#[test]
fn each_mistake_is_named_with_place_value_and_fix() {
    let swap = |from: &str, to: &str| GOOD.replace(from, to);
    for (text, parts) in [
        (swap("v1alpha1", "v9"), vec![":1: apiVersion = \"fedgate.dev/v9\"", "write fedgate"]),
        (swap("GatewayConfig", "X"), vec![":2: kind = \"X\"", "write GatewayConfig"]),
        (swap("gw-0", "GW_0"), vec![":3: name = \"GW_0\"", "lower-case"]),
        (swap("east\n", "ea.st\n"), vec![":4: cluster = \"ea.st\"", "lower-case"]),
        (swap("east.example", "spiffe://x"), vec![":5: trustDomain = \"spiffe://x\"", "a-z"]),
        (swap("dataDir: data", "dataDir: \"\""), vec![":6: dataDir = \"\"", "give a path"]),
        (swap("socket:", "sock:"), vec![":7", "sock", "docs/reference/config.md"]),
        (format!("{GOOD}extra: 1\n"), vec![":8", "extra"]),
        (
            format!("{GOOD}name: gw-1\n"),
            vec![":8: `name: gw-1`: the field is there twice; remove one; docs"],
        ),
        (
            swap("cluster: east", "cluster: ~"),
            vec![
                "/etc/fedgate/gateway.yaml:4: `cluster: ~`: the value is missing; write one; docs",
            ],
        ),
        (format!("{GOOD}---\n{GOOD}"), vec![": a second document begins here; keep one"]),
        (format!("{GOOD}workers: 0\n"), vec![":8: workers = 0", "use 1 to 32"]),
        (format!("{GOOD}workers: 33\n"), vec![":8: workers = 33", "use 1 to 32"]),
        (format!("{GOOD}workers: two\n"), vec![":8", "workers: two"]),
        (
            format!("{GOOD}drain: {{acceptSeconds: 30}}\n"),
            vec![":8: drain.acceptSeconds = 30.0: use 0 or more and less than 30"],
        ),
        (format!("{GOOD}drain: {{acceptSeconds: -1}}\n"), vec!["drain.acceptSeconds = -1.0"]),
        (format!("{GOOD}drain: {{seconds: 1}}\n"), vec![":8", "seconds"]),
        (format!("{GOOD}listen: {{tunnel: \"8443\"}}\n"), vec![":8: listen.tunnel", "port"]),
        (format!("{GOOD}listen: {{routes: \"a:1\"}}\n"), vec![":8: listen.routes", "IP address"]),
        (format!("{GOOD}admin: {{listen: x}}\n"), vec![":8: admin.listen = \"x\"", "127.0.0.1"]),
        (format!("{GOOD}health: {{listen: \"9902\"}}\n"), vec![":8: health.listen", "port"]),
        (format!("{GOOD}health: {{}}\nhealth: {{}}\n"), vec![":9", "twice"]),
        (swap("name: gw-0\n", ""), vec!["name: it is missing; give it here"]),
        ("a: [".into(), vec!["gateway.yaml"]),
        (String::new(), vec!["gateway.yaml"]),
        ("#".repeat(CONFIG_BYTES_MAX as usize + 1), vec!["the limit is 262144"]),
    ] {
        let error = parse(&text).expect_err(&text);
        for part in parts {
            assert!(error.contains(part), "{error:?} has not {part:?}");
        }
    }
}

const TCP: &str = "\
apiVersion: fedgate.dev/v1alpha1
kind: GatewayConfig
cluster: east
trustDomain: east.example
dataDir: data
listen: {relay: \"0.0.0.0:7446\"}
federation:
  address: fedgate-federation.fedgate-system.svc:7443
  relayAddress: \"[fd00::1]:7444\"
  bundle: /etc/fedgate/trust/bundle.json
  token: /var/run/secrets/fedgate/token
";

fn parse_with(
    text: &str,
    name: Option<&str>,
    pod_ip: Option<&str>,
) -> Result<GatewayConfig, String> {
    let overrides = Overrides { name: name.map(Into::into), pod_ip: pod_ip.map(Into::into) };
    GatewayConfig::from_yaml_with(text, Path::new("/etc/fedgate/gateway.yaml"), &overrides)
        .map_err(|error| error.to_string())
}

#[test]
fn a_node_in_another_pod_is_named_by_addresses() {
    let config = parse_with(TCP, Some("gw-7d9f-x2x"), Some("10.0.0.7")).unwrap();
    assert_eq!(config.name.as_str(), "gw-7d9f-x2x");
    assert_eq!(config.relay_listen, Some("0.0.0.0:7446".parse().unwrap()));
    assert_eq!(config.pod_ip, Some("10.0.0.7".parse().unwrap()));
    let FederationLink::Tcp(link) = config.federation else { panic!("{:?}", config.federation) };
    assert_eq!(link.address.to_string(), "fedgate-federation.fedgate-system.svc:7443");
    assert_eq!((link.relay.host.as_str(), link.relay.port), ("fd00::1", 7444));
    assert_eq!(link.relay.to_string(), "[fd00::1]:7444");
    assert_eq!(link.bundle, Path::new("/etc/fedgate/trust/bundle.json"));
    assert_eq!(link.token, Path::new("/var/run/secrets/fedgate/token"));
    let named = parse_with(GOOD, Some("other"), None).unwrap();
    assert_eq!(named.name.as_str(), "other", "in place of the file's");
}

#[test]
fn half_of_two_ways_to_the_node_is_refused() {
    let swap = |from: &str, to: &str| TCP.replace(from, to);
    for (text, wanted) in [
        (
            swap("  bundle: /etc/fedgate/trust/bundle.json\n", ""),
            "federation.bundle: it is missing",
        ),
        (swap("  token: /var/run/secrets/fedgate/token\n", ""), "federation.token: it is missing"),
        (
            swap("  relayAddress: \"[fd00::1]:7444\"\n", ""),
            "federation.relayAddress: it is missing",
        ),
        (swap("  address:", "  socket: r.sock\n  address:"), "federation.address: either"),
        (swap("fedgate-system.svc:7443", "fedgate-system.svc"), "host:port"),
        (swap("[fd00::1]:7444", "fd00::1:7444"), "federation.relayAddress = \"fd00::1:7444\""),
        (swap("svc:7443", "svc:0"), "federation.address"),
        (format!("{GOOD}listen: {{relay: \"0.0.0.0:1\"}}\n"), ":8: listen.relay"),
        (GOOD.replace("{socket: /run/fedgate/resource.sock}", "{}"), "federation.socket: it is"),
        (GOOD.replace("socket:", "token: x, socket:"), "federation.token: it is for"),
    ] {
        let error = parse_with(&text, Some("gw-0"), Some("10.0.0.7")).expect_err(&text);
        assert!(error.contains(wanted), "{error:?} has not {wanted:?}");
    }
    for (name, pod_ip, wanted) in [
        (Some("gw"), None, ":6: listen.relay = \"0.0.0.0:7446\": the node could not dial that"),
        (None, Some("10.0.0.7"), "name: it is missing; give it here, by --name or by FEDGATE_NAME"),
        (Some("GW"), None, "--name or FEDGATE_NAME = \"GW\""),
        (Some("gw"), Some("0.0.0.0"), "FEDGATE_POD_IP = \"0.0.0.0\""),
    ] {
        let error = parse_with(TCP, name, pod_ip).unwrap_err();
        assert!(error.contains(wanted), "{error:?} has not {wanted:?}");
    }
}
