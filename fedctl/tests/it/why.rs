//! `fedctl why`: its command line, what it refuses, and how it exits.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use wire::resource::proto::{LinkState, Listener, ListenerProtocol, StatusReport};

use crate::fixture::{Node, Said};
use crate::gateway::{Gateway, Pings, link, report, write_peer};

const HOST: &str = "cart.shop.svc.clusterset.local";

/// `cart` is imported from west, and a listener at this port leads to it.
fn write_route(node: &Node, port: u16) {
    let yaml = format!(
        "\
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {{name: cart, namespace: shop}}
spec:
  type: ClusterSetIP
  ports: [{{port: 8000, protocol: TCP, appProtocol: http}}]
status:
  clusters: [{{cluster: west}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec:
  gatewayClassName: fedgate
  listeners: [{{name: http, port: {port}, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: cart, namespace: shop}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [{HOST}]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: /cart}}}}]
    backendRefs: [{{group: multicluster.x-k8s.io, kind: ServiceImport, name: cart, port: 8000}}]
"
    );
    node.write("manifests/route.yaml", &yaml);
    node.until(&["get", "httproutes"], |said| said.out.contains("cart"));
}

/// A gateway's report that has this listener.
fn listening(port: u16) -> StatusReport {
    let listener = Listener {
        name: "Gateway/shop/edge/http".into(),
        address: format!("127.0.0.1:{port}"),
        protocol: ListenerProtocol::Http.into(),
        error: String::new(),
    };
    StatusReport { listeners: vec![listener], ..report("gw-0") }
}

fn verdict(said: &Said) -> String {
    let why: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(why["kind"], "Why", "{said:?}");
    why["verdict"].as_str().unwrap().into()
}

#[test]
fn a_bad_argument_is_named_with_its_value_and_the_forms_that_are_good() {
    let node = Node::start();
    let (source, target) = (
        "hint: write CLUSTER, CLUSTER/NAMESPACE/SERVICEACCOUNT, or spiffe://",
        "hint: write NAMESPACE/SERVICE[.CLUSTER][:PORT], or the host name",
    );
    for (arguments, problem, hint) in [
        (&["East", "shop/api"][..], "error: SRC \"East\" is not valid: ", source),
        (&["", "shop/api"], "error: SRC \"\" is not valid: ", source),
        (&["east/shop", "shop/api"], "it has neither one nor three parts", source),
        (&["east/shop/web/x", "shop/api"], "it has neither one nor three parts", source),
        (&["east/Shop/web", "shop/api"], "error: SRC \"east/Shop/web\" is not valid: ", source),
        (&["http://east.example/x", "shop/api"], "error: SRC \"http://", source),
        (
            &["spiffe://elsewhere.example/ns/a/sa/b", "shop/api"],
            "no cluster that is known has its trust domain; known: east.example",
            source,
        ),
        (&["east", "shop/api:0"], "\"0\" is no port; ports are 1 to 65535", target),
        (&["east", "shop/api:70000"], "\"70000\" is no port", target),
        (&["east", "shop/api:http"], "\"http\" is no port", target),
        (&["east", "shop/api:"], "\"\" is no port", target),
        (&["east", "shop/Api"], "error: DST \"shop/Api\" is not valid: ", target),
        (&["east", "/api"], "error: DST \"/api\" is not valid: ", target),
        (&["east", "shop/"], "error: DST \"shop/\" is not valid: ", target),
        (&["east", "shop/api.West"], "error: DST \"shop/api.West\" is not valid: ", target),
        (&["east", "*.example.com"], "it is a pattern, not a name that a client can call", target),
        (&["east", "a host"], "error: DST \"a host\" is not valid: ", target),
        (
            &["east", "shop/api", "--path", "cart"],
            "error: --path \"cart\" is not valid: a path begins with /",
            "hint: write --path /some/path",
        ),
        (
            &["east", "shop/api", "-o", "junit"],
            "-o junit for `fedctl check`",
            "hint: use table, json or yaml",
        ),
    ] {
        let said = node.fails(2, &[&["why"], arguments].concat());
        assert!(said.contains(problem) && said.contains(hint), "{arguments:?}: {said}");
    }
    // What clap itself refuses.
    for (arguments, problem) in [
        (&[][..], "<SRC>"),
        (&["east"], "<DST>"),
        (&["east", "shop/api", "third"], "unexpected argument 'third'"),
        (&["east", "shop/api", "--alive"], "unexpected argument '--alive'"),
        (&["east", "shop/api", "--path"], "--path <PATH>"),
    ] {
        let said = node.fails(2, &[&["why"], arguments].concat());
        assert!(said.contains(problem), "{arguments:?}: {said}");
    }
}

#[test]
fn every_form_of_the_arguments_is_understood() {
    let node = Node::start();
    write_peer(&node);
    write_route(&node, 8080);
    let host = format!("{HOST}:8080");
    for source in ["east", "east/shop/web", "spiffe://east.example/ns/shop/sa/web"] {
        for target in [
            "shop/cart",
            "shop/cart:8000",
            "shop/cart.west",
            "shop/cart.west:8000",
            HOST,
            &host,
            &format!("{HOST}."),
        ] {
            let arguments = ["why", source, target, "--path", "/cart/1?x=/", "-o", "json"];
            let said = node.fedctl(&arguments);
            assert!([0, 1].contains(&said.code) && said.err.is_empty(), "{arguments:?}: {said:?}");
            let why: serde_json::Value = serde_json::from_str(&said.out).unwrap();
            let asked = (&why["source"], &why["service"], &why["port"]);
            assert_eq!(asked, (&"east".into(), &"shop/cart".into(), &8000.into()), "{said:?}");
        }
    }
    // The path decides which route it is, and a port which listener.
    for arguments in [[HOST, "--path", "/other"], [&format!("{HOST}:81"), "--path", "/cart"]] {
        let said = node.fedctl(&[&["why", "east"], &arguments[..]].concat());
        assert!(
            said.code == 1 && said.out.contains("Verdict: blocked at name, FED7001"),
            "{said:?}"
        );
    }
}

#[test]
fn the_exit_code_says_what_the_verdict_is() {
    let node = Node::start();
    write_peer(&node);
    let (address, _server) = http_server();
    write_route(&node, address);
    let why =
        |more: &[&str]| node.fedctl(&[&["why", "east", HOST, "--path", "/cart"], more].concat());

    let said = why(&[]);
    assert!(said.code == 1 && said.out.contains("blocked at identity, FED1119"), "{said:?}");
    let said = why(&["-o", "json"]);
    assert_eq!((said.code, verdict(&said).as_str()), (1, "Blocked"));
    let said = why(&["-o", "short"]);
    assert!(said.code == 1 && said.out.starts_with("Verdict: blocked at identity"), "{said:?}");

    let mut cut = listening(address);
    cut.links = vec![link(LinkState::Down)];
    let gateway = Gateway::connect(&node, cut, Pings::Unknown);
    let said = why(&["--strict"]);
    assert!(said.code == 1 && said.out.contains("blocked at tunnel, FED2001"), "{said:?}");
    drop(gateway);

    // Nothing is broken, but whether west has endpoints is known there only.
    let _gateway = Gateway::connect(&node, listening(address), Pings::Unknown);
    let said = why(&["-o", "json"]);
    assert_eq!((said.code, verdict(&said).as_str()), (0, "Undecided"), "{said:?}");
    let said = why(&["--strict", "-o", "yaml"]);
    assert!(said.code == 3 && said.out.contains("verdict: Undecided"), "{said:?}");
    let said = why(&["--live", "--strict"]);
    assert!(said.code == 0 && said.out.contains("Probe: answered: 200 OK"), "{said:?}");
    let said = why(&["--live", "-o", "json"]);
    assert_eq!((said.code, verdict(&said).as_str()), (0, "Reaches"), "{said:?}");
}

#[test]
fn a_node_that_does_not_answer_matters_if_it_is_the_only_one() {
    let mut node = Node::start();
    let nobody = format!("unix:{}", node.path("run/nobody.sock").display());
    let said = node.fedctl(&["why", "east", "shop/api", "--also", &nobody]);
    assert!([0, 1].contains(&said.code), "{said:?}");
    assert!(said.out.contains("Silent: ") && said.out.contains("run/nobody.sock"), "{said:?}");
    let said = node.fedctl(&["why", "east", "shop/api", "--also", "no-such-context", "-o", "json"]);
    assert!([0, 1].contains(&said.code) && said.out.contains("\"silent\""), "{said:?}");
    node.stop();
    let said = node.fails(5, &["why", "east", "shop/api"]);
    assert!(said.contains("error: no federation node answers on unix:"), "{said}");
    assert!(said.contains("(FED1004)\nhint: "), "{said}");
    // An argument is judged before anybody is asked.
    node.fails(2, &["why", "East", "shop/api"]);
}

/// It answers everything with 200.
fn http_server() -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let _read = stream.read(&mut head).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    });
    (port, server)
}
