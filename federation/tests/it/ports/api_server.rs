//! An API server that knows TokenReviews and nothing else. A token says itself whose it is:
//! `audience:namespace:account:pod`, the last one being empty for no pod.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Default)]
pub(crate) struct ApiServer {
    pub(crate) is_down: Arc<AtomicBool>,
    pub(crate) asked: Arc<AtomicUsize>,
}

impl ApiServer {
    /// Serves, and gives a client of it.
    pub(crate) async fn start(&self) -> kube::Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let server = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(server.clone().serve(stream));
            }
        });
        let uri = format!("http://{address}").parse().unwrap();
        kube::Client::try_from(kube::Config::new(uri)).unwrap()
    }

    async fn serve(self, mut stream: TcpStream) {
        while let Some((head, body)) = read_request(&mut stream).await {
            assert!(head.starts_with("POST /apis/authentication.k8s.io/v1/tokenreviews"), "{head}");
            self.asked.fetch_add(1, Ordering::Relaxed);
            let (status, answer) = match self.is_down.load(Ordering::Relaxed) {
                true => ("500 Internal Server Error", String::new()),
                false => ("201 Created", review(&body).to_string()),
            };
            let length = answer.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
                 \r\n{answer}"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length = head.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            let length: usize = length.trim().parse().unwrap();
            if bytes.len() >= end + 4 + length {
                return Some((head, bytes[end + 4..end + 4 + length].to_vec()));
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// As the real one: a token that is for none of the audiences asked for is not authenticated.
fn review(body: &[u8]) -> Value {
    let mut review: Value = serde_json::from_slice(body).unwrap();
    let token = review["spec"]["token"].as_str().unwrap().to_string();
    let audiences = review["spec"]["audiences"].as_array().unwrap().clone();
    let parts: Vec<&str> = token.split(':').collect();
    review["status"] = match parts[..] {
        [audience, namespace, account, pod] if audiences.contains(&json!(audience)) => {
            let mut user =
                json!({ "username": format!("system:serviceaccount:{namespace}:{account}") });
            if !pod.is_empty() {
                user["extra"] = json!({ "authentication.kubernetes.io/pod-name": [pod] });
            }
            json!({ "authenticated": true, "audiences": [audience], "user": user })
        }
        [_, _, _, _] => json!({ "error": "token audiences are invalid for the target audiences" }),
        _ => json!({ "error": "invalid bearer token" }),
    };
    review
}
