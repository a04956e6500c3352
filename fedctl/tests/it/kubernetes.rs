//! `fedctl` and a Kubernetes cluster: which requests it makes, and what it says of the answers.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{Ca, ClientCertificate, ClusterTrust, Identity, IdentityCell, SvidKeyPair};
use model::spiffe::Part;
use model::{ObjectName, SpiffeId, TrustDomain};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tunnel::ClusterServer;

use crate::api_server::ApiServer;
use crate::fixture::Node;

const SYSTEM: &str = "/api/v1/namespaces/fedgate-system";

struct Said {
    code: i32,
    out: String,
    err: String,
}

fn command(server: &ApiServer) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedctl"));
    command
        .env("KUBECONFIG", server.kubeconfig())
        .env("FEDCTL_CONTEXTS", server.kubeconfig().with_file_name("none.yaml"))
        .env_remove("FEDCTL_CONTEXT")
        // It is on this machine, so the proxy is passed by.
        .env("HTTPS_PROXY", "http://proxy.invalid:3128");
    command
}

fn fedctl(server: &ApiServer, arguments: &[&str]) -> Said {
    said(command(server).args(arguments).output().unwrap())
}

fn said(output: Output) -> Said {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn list(kind: &str, items: Value) -> Value {
    json!({"kind": kind, "apiVersion": "v1", "metadata": {}, "items": items})
}

fn pod(ready: &str) -> Value {
    json!({"metadata": {"name": "fedgate-federation-0", "namespace": "fedgate-system",
            "labels": {"app.kubernetes.io/name": "fedgate", "app.kubernetes.io/component": "federation"}},
        "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": ready, "message": "readiness probe failed"}]}})
}

/// A cluster with everything but a node: its pod, tokens for the role viewer only, its bundle.
fn installed(server: &ApiServer, ca: &Ca) {
    server.answer(&format!("GET {SYSTEM}/pods"), 200, list("PodList", json!([pod("True")])));
    for role in ["admin", "operator"] {
        server.forbid(&format!("POST {SYSTEM}/serviceaccounts/fedgate-{role}/token"));
    }
    let token = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {}, "spec": {"audiences": ["fedgate-operator"]},
        "status": {"token": "secret-token", "expirationTimestamp": "2030-01-01T00:00:00Z"}});
    server.answer(&format!("POST {SYSTEM}/serviceaccounts/fedgate-viewer/token"), 201, token);
    let bundle = wire::bundle::format_bundle(&ca.bundle()).unwrap();
    let map = json!({"metadata": {"name": "fedgate-trust"}, "data": {"bundle.json": bundle}});
    server.answer(&format!("GET {SYSTEM}/configmaps/fedgate-trust"), 200, map);
}

fn ca(folder: &Path) -> Ca {
    let domain = TrustDomain::parse("east.example").unwrap();
    Ca::load_or_create(&folder.join("ca"), &domain, SystemTime::now()).unwrap()
}

/// The operators' port of a pod: TLS with an SVID of this CA, and behind it a node's socket.
fn port(
    ca: &Ca,
    part: Part,
    socket: PathBuf,
) -> impl Fn(tokio::io::DuplexStream) + Send + Sync + use<> {
    let domain = ca.trust_domain().clone();
    let id = SpiffeId::of_part(&domain, part, &ObjectName::parse("node-0").unwrap());
    let key = SvidKeyPair::generate().unwrap();
    let request = key.csr_der(&id).unwrap();
    let chain = ca.issue(&request, &id, Duration::from_secs(3600), SystemTime::now()).unwrap();
    let svid = Some(Arc::new(key.into_svid(chain).unwrap()));
    let identity = Arc::new(IdentityCell::new(Identity { svid, ..Identity::default() }));
    let trust = Arc::new(ClusterTrust::new(domain));
    let client = ClientCertificate::Unasked;
    let server = ClusterServer { identity, trust, client, alpn: b"h2" };
    move |stream| {
        let (server, socket) = (server.clone(), socket.clone());
        tokio::spawn(async move {
            let Ok(mut stream) = server.accept(stream).await else { return };
            let mut node = UnixStream::connect(socket).await.unwrap();
            let _ended = tokio::io::copy_bidirectional(&mut stream, &mut node).await;
        });
    }
}

#[test]
fn a_node_is_asked_through_the_api_server_alone() {
    let node = Node::start();
    let server = ApiServer::start();
    let ca = ca(&node.path(""));
    installed(&server, &ca);
    server.forward_to(port(&ca, Part::Federation, node.path("run/o.sock")));
    // No context of fedctl's, so kubectl's cluster is meant.
    let told = fedctl(&server, &["status", "-v"]);
    assert_eq!(told.code, 0, "{}", told.err);
    assert!(told.out.starts_with("Cluster east  east.example"), "{}", told.out);
    assert!(told.err.contains("the kubeconfig's kind-east is used"), "{}", told.err);
    let asked = "asking fedgate-system/fedgate-federation-0 of cluster kind-east as fedgate-viewer";
    assert!(told.err.contains(asked), "{}", told.err);
    assert!(!told.err.contains("secret-token") && !told.out.contains("secret-token"));
    assert_eq!(
        server.asked(),
        [
            format!("GET {SYSTEM}/pods"),
            format!("POST {SYSTEM}/serviceaccounts/fedgate-admin/token"),
            format!("POST {SYSTEM}/serviceaccounts/fedgate-operator/token"),
            format!("POST {SYSTEM}/serviceaccounts/fedgate-viewer/token"),
            format!("GET {SYSTEM}/configmaps/fedgate-trust"),
            format!("GET {SYSTEM}/pods/fedgate-federation-0/portforward"),
        ]
    );
    // Files are read here and sent; those that the node reads are the node's.
    let manifest = "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\n\
                    metadata: {name: api, namespace: shop}\n";
    node.write("export.yaml", manifest);
    let file = node.path("export.yaml");
    let told =
        fedctl(&server, &["apply", "-f", file.to_str().unwrap(), "--kube-context", "kind-east"]);
    assert_eq!(
        (told.code, told.out.as_str()),
        (0, "ServiceExport/shop/api created\n"),
        "{}",
        told.err
    );
    let told = fedctl(&server, &["store", "snapshot", "save", "backup.fed"]);
    assert_eq!(told.code, 2);
    assert!(
        told.err.contains("backup.fed: the file is in fedgate-system/fedgate-federation-0"),
        "{}",
        told.err
    );

    // The same program as a plugin of kubectl.
    let plugin = node.path("kubectl-fed");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_fedctl"), &plugin).unwrap();
    let mut command = Command::new(plugin);
    command.env("KUBECONFIG", server.kubeconfig()).env("FEDCTL_CONTEXT", "not-for-plugins");
    let told = said(command.args(["unexport", "api", "--context", "kind-east"]).output().unwrap());
    assert_eq!(
        (told.code, told.out.as_str()),
        (0, "ServiceExport/shop/api deleted\n"),
        "{}",
        told.err
    );
}

#[test]
fn what_is_in_the_way_is_told_with_its_fix() {
    let folder = tempfile::tempdir().unwrap();
    let ca = ca(folder.path());
    let server = ApiServer::start();
    let fails = |code: i32, arguments: &[&str], wanted: &[&str]| {
        let told = fedctl(&server, arguments);
        assert_eq!(told.code, code, "{arguments:?}: {}", told.err);
        for words in wanted {
            assert!(told.err.contains(words), "{arguments:?}: {words:?} in {}", told.err);
        }
    };
    fails(
        2,
        &["--kube-context", "kind-west", "status"],
        &["there is no context \"kind-west\" (FED1101)", "kind-east"],
    );
    server.answer(&format!("GET {SYSTEM}/pods"), 200, list("PodList", json!([])));
    server.forbid("GET /api/v1/pods");
    fails(
        1,
        &["status"],
        &["you may not list pods (FED1103)", "name its namespace with --fedgate-namespace"],
    );
    server.answer("GET /api/v1/pods", 200, list("PodList", json!([])));
    fails(5, &["status"], &["no federation pod in fedgate-system (FED1104)", "`fedctl install`"]);
    installed(&server, &ca);
    server.answer(&format!("GET {SYSTEM}/pods"), 200, list("PodList", json!([pod("False")])));
    fails(5, &["status"], &["is not ready: readiness probe failed (FED1105)"]);
    installed(&server, &ca);
    fails(
        1,
        &["--role", "admin", "status"],
        &[
            "you may not create serviceaccounts/token fedgate-admin in namespace fedgate-system (FED1103)",
            "hint: a Role in fedgate-system with the rule {apiGroups: [\"\"], resources: [serviceaccounts/token]",
            "resourceNames: [fedgate-admin], verbs: [create]}",
        ],
    );
    fails(
        5,
        &["status"],
        &[
            "fedgate-federation-0 of cluster kind-east does not answer: error forwarding",
            "port 7445 to pod: connection refused (FED1004)",
        ],
    );
    server.forbid(&format!("GET {SYSTEM}/pods/fedgate-federation-0/portforward"));
    fails(1, &["status"], &["you may not get pods/portforward", "verbs: [get, create]"]);
    server.forbid(&format!("GET {SYSTEM}/configmaps/fedgate-trust"));
    fails(1, &["status"], &["you may not get configmaps fedgate-trust"]);
    server.answer(&format!("GET {SYSTEM}/configmaps/fedgate-trust"), 200, json!({"metadata": {}}));
    fails(5, &["status"], &["has no bundle.json (FED1106)"]);
    server.forbid(&format!("POST {SYSTEM}/serviceaccounts/fedgate-viewer/token"));
    fails(
        1,
        &["status"],
        &["you may not operate Fedgate in fedgate-system, not even look at it", "fedgate-viewer"],
    );
    server.forbid(&format!("GET {SYSTEM}/pods"));
    fails(1, &["status"], &["you may not list pods in namespace fedgate-system (FED1103)"]);
    fails(2, &["status", "-o", "junit"], &["-o junit for `fedctl check`"]);
}

#[test]
fn who_is_no_federation_node_of_the_cluster_gets_no_token() {
    let node = Node::start();
    let server = ApiServer::start();
    let own = ca(&node.path("own"));
    installed(&server, &own);
    let other = ca(&node.path("other"));
    for (who, ca, part) in
        [("another CA's", &other, Part::Federation), ("a gateway", &own, Part::Gateway)]
    {
        server.forward_to(port(ca, part, node.path("run/o.sock")));
        let told = fedctl(&server, &["status"]);
        assert_eq!(told.code, 5, "{who}: {}", told.err);
        let words = "shows a certificate that is not of a federation node of east.example";
        assert!(told.err.contains(words) && told.err.contains("(FED3003)"), "{who}: {}", told.err);
    }
}

#[test]
fn a_check_says_all_of_it_and_exits_by_it() {
    let server = ApiServer::start();
    server.answer(&format!("GET {SYSTEM}/pods"), 200, list("PodList", json!([])));
    server.answer("GET /api/v1/pods", 200, list("PodList", json!([])));
    server.answer(&format!("GET {SYSTEM}/services"), 200, list("ServiceList", json!([])));
    let told = fedctl(&server, &["check"]);
    assert_eq!(told.code, 1, "{}", told.err);
    for row in [
        " ✗ there is no federation pod  FED1104",
        " ✗ nobody holds the writer's Lease  FED1114",
        " - certificates",
    ] {
        assert!(told.out.contains(row), "{row}: {}", told.out);
    }
    let told = fedctl(&server, &["check", "-o", "json", "--only", "pods"]);
    let json: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!((&json["kind"], &json["success"]), (&json!("CheckReport"), &json!(false)));
    assert_eq!(json["categories"][0]["checks"][0]["code"], "FED1104");
    let told = fedctl(&server, &["check", "-o", "junit"]);
    assert!(told.out.contains("<failure type=\"FED1104\""), "{}", told.out);
}

#[test]
fn before_an_installation_the_cluster_is_looked_at() {
    let server = ApiServer::start();
    let version = json!({"major": "1", "minor": "36", "gitVersion": "v1.36.3", "gitCommit": "",
        "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
    server.answer("GET /version", 200, version);
    server.answer("GET /apis", 200, json!({"kind": "APIGroupList", "groups": []}));
    server.forbid("GET /api/v1/nodes");
    let review = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "metadata": {}, "spec": {}, "status": {"allowed": false}});
    server.answer("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 201, review);
    let told = fedctl(&server, &["check", "--pre"]);
    assert_eq!(told.code, 1, "{}", told.err);
    for row in [
        "✓ Kubernetes v1.36.3 answers",
        "behind of this machine's  FED1112",
        "- nodes",
        "✗ you may not create what the chart has in its namespace  FED1103",
        "! the CRDs of Gateway API are missing  FED1108",
    ] {
        assert!(told.out.contains(row), "{row}: {}", told.out);
    }
    let wanted = ["--cluster", "west", "--values", "mine.yaml", "--set", "a.b=c"];
    let told = fedctl(&server, &[&["install", "--print-values"], &wanted[..]].concat());
    assert_eq!(told.code, 0, "{}", told.err);
    assert!(
        told.out.contains("name: west\n") && told.out.contains("type: NodePort\n"),
        "{}",
        told.out
    );
    let besides = "# Not in these values, and to be given to helm after them: --values mine.yaml --set a.b=c\n";
    assert!(told.out.ends_with(besides), "{}", told.out);
    assert!(
        told.err.contains("warning: cluster kind-east: you may not list nodes"),
        "{}",
        told.err
    );
    let told = fedctl(&server, &["install", "--chart", "/nonexistent/fedgate"]);
    assert_eq!(told.code, 2);
    assert!(told.err.contains("/nonexistent/fedgate is no Helm chart"), "{}", told.err);
}

/// The commands of the guide that need neither helm nor a second cluster.
#[test]
fn the_guides_commands_work() {
    const GUIDE: &str = include_str!("../../../docs/guide/fedctl-on-kubernetes.md");
    let node = Node::start();
    let server = ApiServer::start();
    let ca = ca(&node.path(""));
    installed(&server, &ca);
    server.forward_to(port(&ca, Part::Federation, node.path("run/o.sock")));
    server.answer("GET /version", 200, json!({"major": "1", "minor": "36", "gitVersion": "v1.36.3",
        "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}));
    server.answer("GET /apis", 200, json!({"kind": "APIGroupList", "groups": []}));
    let review = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "metadata": {}, "spec": {}, "status": {"allowed": true}});
    server.answer("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 201, review);
    let mut run = Vec::new();
    for line in GUIDE.lines().filter_map(|line| line.strip_prefix("fedctl ")) {
        let words: Vec<&str> = line.split(['<', '>']).next().unwrap().split_whitespace().collect();
        let needs_helm = words.contains(&"install") && !words.contains(&"--print-values");
        if needs_helm || words.contains(&"kind-west") {
            continue;
        }
        let told = fedctl(&server, &words);
        // The node's one address answers nobody, so a token is refused, and checks find that.
        let wanted = match words.iter().any(|word| ["check", "token"].contains(word)) {
            true => 1,
            false => 0,
        };
        assert_eq!(told.code, wanted, "{line}: {} {}", told.out, told.err);
        run.push(line);
    }
    assert_eq!(run.len(), 6, "{run:#?}");
}
