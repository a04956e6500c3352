//! A gateway's admin port: one small page for each question.

use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Status and text, of which no more than `bytes_max` is kept. What goes wrong is told in words.
pub(crate) async fn ask(
    address: &str,
    method: Method,
    path: &str,
    patience: Duration,
    bytes_max: usize,
) -> Result<(u16, String), String> {
    match timeout(patience, exchange(address, method, path, bytes_max)).await {
        Ok(answer) => answer.map_err(|problem| problem.to_string()),
        Err(_) => Err("no answer".into()),
    }
}

async fn exchange(
    address: &str,
    method: Method,
    path: &str,
    bytes_max: usize,
) -> Result<(u16, String), Problem> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Its end shows as an error of the request.
        let _closed = connection.await;
    });
    let request = Request::builder().method(method).uri(path).header(HOST, address);
    let mut response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let mut text = Vec::new();
    while let Some(frame) = response.frame().await.filter(|_| text.len() < bytes_max) {
        if let Ok(data) = frame?.into_data() {
            text.extend_from_slice(&data[..data.len().min(bytes_max - text.len())]);
        }
    }
    Ok((response.status().as_u16(), String::from_utf8_lossy(&text).into_owned()))
}
