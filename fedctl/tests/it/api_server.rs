//! An API server as far as `fedctl` asks one: answers that a test lays ready, what was asked, and a
//! port-forward that leads wherever the test wants.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

/// What the kubelet calls the protocol: each port has a channel for bytes and one for an error.
const PROTOCOL: &str = "v4.channel.k8s.io";
const HEAD_BYTES_MAX: usize = 16 * 1024;

type Answers = BTreeMap<String, (u16, Value)>;
/// Takes the pod's end of a port-forward.
type Pod = Arc<dyn Fn(DuplexStream) + Send + Sync>;

#[derive(Clone, Default)]
struct State {
    answers: Arc<Mutex<Answers>>,
    asked: Arc<Mutex<Vec<String>>>,
    pod: Arc<Mutex<Option<Pod>>>,
}

/// Runs as long as it lives.
pub(crate) struct ApiServer {
    state: State,
    folder: TempDir,
    _runtime: Runtime,
}

impl ApiServer {
    pub(crate) fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let state = State::default();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = state.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "kind-east",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "kind-east", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
        });
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        Self { state, folder, _runtime: runtime }
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// From now on `GET /path` (without a query) is answered so.
    pub(crate) fn answer(&self, request: &str, status: u16, body: Value) {
        self.state.answers.lock().unwrap().insert(request.into(), (status, body));
    }

    pub(crate) fn forbid(&self, request: &str) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "message": "forbidden", "reason": "Forbidden", "code": 403});
        self.answer(request, 403, status);
    }

    pub(crate) fn forward_to(&self, pod: impl Fn(DuplexStream) + Send + Sync + 'static) {
        *self.state.pod.lock().unwrap() = Some(Arc::new(pod));
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.asked.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, state: State) {
    let mut head = Vec::new();
    // The head stays in the socket: a WebSocket handshake reads it again.
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut peeked = vec![0; HEAD_BYTES_MAX];
        let Ok(count) = stream.peek(&mut peeked).await else { return };
        if count == 0 {
            return;
        }
        head = peeked[..count].to_vec();
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut words = text.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let request = format!("{method} {}", target.split('?').next().unwrap());
    state.asked.lock().unwrap().push(request.clone());
    let known = state.answers.lock().unwrap().get(&request).cloned();
    if known.is_none() && request.ends_with("/portforward") {
        return forward(stream, &state).await;
    }
    let end = head.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let length = text.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned)
    });
    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    let mut whole = vec![0; end + length];
    stream.read_exact(&mut whole).await.unwrap();
    let missing = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": "not found", "reason": "NotFound", "code": 404});
    let (status, body) = known.unwrap_or((404, missing));
    let body = body.to_string();
    let date = "Sat, 21 Nov 2020 12:00:00 GMT";
    let answer = format!(
        "HTTP/1.1 {status} Told\r\ncontent-type: application/json\r\ndate: {date}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let _gone = stream.write_all(answer.as_bytes()).await;
}

async fn forward(stream: TcpStream, state: &State) {
    #[expect(clippy::result_large_err, reason = "the shape is the library's")]
    let name = |_: &Request, mut response: Response| {
        response.headers_mut().insert("Sec-WebSocket-Protocol", PROTOCOL.parse().unwrap());
        Ok(response)
    };
    let socket = tokio_tungstenite::accept_hdr_async(stream, name).await.unwrap();
    let (mut sink, mut source) = socket.split();
    let port = 7445_u16.to_le_bytes();
    for channel in [0, 1] {
        let begun = vec![channel, port[0], port[1]];
        sink.send(Message::binary(begun)).await.unwrap();
    }
    let pod = state.pod.lock().unwrap().clone();
    let Some(pod) = pod else {
        let why = [&[1], &b"error forwarding port 7445 to pod: connection refused"[..]].concat();
        sink.send(Message::binary(why)).await.unwrap();
        // Whoever ends the connection, it is not the one who still has something to say.
        while let Some(Ok(_)) = source.next().await {}
        return;
    };
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    pod(theirs);
    let (mut from_pod, mut to_pod) = tokio::io::split(ours);
    tokio::spawn(async move {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from_pod.read(&mut bytes).await {
            let framed = [&[0], &bytes[..count]].concat();
            if sink.send(Message::binary(framed)).await.is_err() {
                break;
            }
        }
    });
    while let Some(Ok(message)) = source.next().await {
        if let Message::Binary(bytes) = message
            && bytes.first() == Some(&0)
            && to_pod.write_all(&bytes[1..]).await.is_err()
        {
            break;
        }
    }
}
