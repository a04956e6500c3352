//! A node in a cluster whose API server is away at first, and is a small one then.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use wire::operator::proto::operator_service_client::OperatorServiceClient;
use wire::operator::proto::{GetStatusRequest, ListDiagnosticsRequest};

use crate::fixture::{SERVICE, Site, channel, until};

const BINARY: &str = env!("CARGO_BIN_EXE_fedgate-federation");
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/fedgate-system/leases/fedgate-writer";
const TRUST: &str = "/api/v1/namespaces/fedgate-system/configmaps/fedgate-trust";

/// Objects by path; every list is empty.
#[derive(Clone, Default)]
struct ApiServer(Arc<Mutex<BTreeMap<String, Value>>>);

impl ApiServer {
    fn start(self, listener: TcpListener) {
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = self.clone();
                tokio::spawn(async move { server.serve(stream).await });
            }
        });
    }

    async fn serve(self, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        stream.read_line(&mut line).await.ok()?;
        let mut words = line.split(' ');
        let (method, target) = (words.next()?.to_string(), words.next()?.to_string());
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).await.ok()?;
            let Some((name, value)) = header.trim().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        if target.contains("watch=") {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            std::future::pending::<()>().await; // until the runtime ends
        }
        let path = target.split('?').next()?;
        let (status, answer) = self.answer(&method, path, &body);
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n",
            answer.len()
        );
        stream.write_all((head + &answer).as_bytes()).await.ok()
    }

    fn answer(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let mut objects = self.0.lock().unwrap();
        let mut object: Value = serde_json::from_slice(body).unwrap_or_default();
        let is_core = path.starts_with("/api/v1/");
        match method {
            "GET" if path == "/readyz" || path == "/version" => (200, json!("ok")),
            "GET" if path == LEASE || path == TRUST => match objects.get(path) {
                Some(object) => (200, object.clone()),
                None => (404, refusal(404, "NotFound")),
            },
            "GET" if is_core || path.starts_with("/apis/discovery.k8s.io/") => {
                let metadata = json!({ "resourceVersion": "1" });
                (
                    200,
                    json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": [] }),
                )
            }
            "GET" => (404, refusal(404, "NotFound")),
            _ => {
                let path = if method == "POST" { LEASE } else { path };
                object["metadata"]["resourceVersion"] = json!(objects.len().to_string());
                object["metadata"]["uid"] = json!("u");
                objects.insert(path.to_string(), object.clone());
                (200, object)
            }
        }
    }

    fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().get(path).cloned()
    }
}

fn refusal(code: u16, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code,
    })
}

/// Ends with the test, however that ends.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(site: &Site, server: &str) -> Node {
    let kubeconfig = site.path("kubeconfig");
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: x, users: [], \
         contexts: [{{name: x, context: {{cluster: x, user: ''}}}}], \
         clusters: [{{name: x, cluster: {{server: 'http://{server}'}}}}]}}"
    );
    fs::write(&kubeconfig, text).unwrap();
    let file = site.path("federation.yaml");
    fs::write(&file, site.yaml()).unwrap();
    let command = Command::new(BINARY)
        .args(["--config", file.to_str().unwrap()])
        .env("KUBECONFIG", kubeconfig)
        .stderr(Stdio::null())
        .spawn();
    Node(command.unwrap())
}

#[tokio::test]
async fn a_node_starts_without_its_api_server_takes_nothing_back_and_goes_on_with_it() {
    let mut site = Site::new();
    site.more = "kubernetes: {namespace: fedgate-system}\n".into();
    site.write("service.yaml", SERVICE);
    // Bound, and answered by nobody.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    let mut node = start(&site, &address.to_string());
    let socket = site.path("run/operator.sock");
    let connect = || std::future::ready(std::os::unix::net::UnixStream::connect(&socket).is_ok());
    until("the operator socket", connect, |up| *up).await;
    let client = OperatorServiceClient::new(channel(&socket).await);
    let codes = || async {
        let found = client.clone().list_diagnostics(ListDiagnosticsRequest {}).await.unwrap();
        let found = found.into_inner().diagnostics.into_iter();
        let ours = found.filter(|finding| finding.source == "kubernetes");
        ours.map(|finding| finding.diagnostic.unwrap().code).collect::<Vec<_>>()
    };
    until("it says that the API server is away", codes, |codes| codes.contains(&1102)).await;
    let revision = || async {
        let status = client.clone().get_status(GetStatusRequest {}).await.unwrap();
        status.into_inner().revision.unwrap().index
    };
    assert_eq!(revision().await, 0, "gateways would lose what they have");

    closed.set_nonblocking(true).unwrap();
    let server = ApiServer::default();
    server.clone().start(TcpListener::from_std(closed).unwrap());
    until("a revision", revision, |index| *index > 0).await;
    let trust = || std::future::ready(server.get(TRUST));
    until("the trust bundle", trust, |object| {
        let text = object.as_ref().and_then(|object| object["data"]["bundle.json"].as_str());
        text.is_some_and(|text| text.contains("x5c"))
    })
    .await;
    let holder = |lease: &Option<Value>| {
        let spec = lease.as_ref().map(|lease| lease["spec"]["holderIdentity"].clone());
        spec.and_then(|holder| holder.as_str().map(str::to_string)).unwrap_or_default()
    };
    assert!(holder(&server.get(LEASE)).starts_with("node-0-"), "{:?}", server.get(LEASE));
    until("nothing is wrong any more", codes, |codes| !codes.contains(&1102)).await;

    // One that is killed and comes back takes the Lease for its own; a stranger would wait for its end.
    node.0.kill().unwrap();
    node.0.wait().unwrap();
    let held = server.get(LEASE).unwrap()["spec"].take();
    let mut node = start(&site, &address.to_string());
    let spec = || std::future::ready(server.get(LEASE).unwrap()["spec"].take());
    until("it is renewed", spec, |spec| spec["renewTime"] != held["renewTime"]).await;
    for field in ["holderIdentity", "acquireTime", "leaseTransitions"] {
        assert_eq!(spec().await[field], held[field], "{field}");
    }

    let id = node.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let lease = || std::future::ready(server.get(LEASE));
    until("the Lease is given back", lease, |lease| holder(lease).is_empty()).await;
    let ended = || std::future::ready(node.0.try_wait().unwrap().is_some());
    until("its end", ended, |ended| *ended).await;
}
