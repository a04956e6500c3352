//! TCP through one gateway to its own cluster's endpoints.

use model::{AppProtocol, BackendKind, ListenerProtocol, Resource};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::origin::{nobody, tcp_echo};
use crate::site::{Site, TCP_PORT};
use crate::{eventually, objects};

fn routed(endpoints: &[std::net::SocketAddr]) -> Vec<Resource> {
    let mut objects = objects::service("db", AppProtocol::Tcp, endpoints);
    objects.push(objects::gateway(&[("tcp", TCP_PORT, ListenerProtocol::Tcp)]));
    objects.push(objects::tcp_route(BackendKind::Service, "db"));
    objects
}

#[tokio::test]
async fn each_direction_ends_by_itself_and_makes_one_record() {
    let site = Site::ready("east", routed(&[tcp_echo().await])).await;
    let mut stream = TcpStream::connect(site.tcp()).await.unwrap();
    let sent = vec![5; 400_000];
    let (mut read, mut write) = stream.split();
    let mut received = Vec::new();
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(writing, read.read_to_end(&mut received));
    read.unwrap();
    assert_eq!(received.len(), sent.len() + 3);
    assert!(received.ends_with(b"bye"), "the answer to the half-close arrives");
    let record = &site.records(1).await[0];
    assert_eq!(record["protocol"], "tcp");
    assert_eq!(record["bytes_received"], 400_000);
    assert_eq!(record["bytes_sent"], 400_003);
    assert_eq!(record["response_flags"], "-");
    assert!(record.get("status").is_none());
}

#[tokio::test]
async fn resets_pass_in_both_directions() {
    let site = Site::ready("east", routed(&[tcp_echo().await])).await;
    let mut stream = TcpStream::connect(site.tcp()).await.unwrap();
    stream.write_all(b"RESET").await.unwrap();
    let error = stream.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(site.records(1).await[0]["fed_code"], "FED7004");

    let mut stream = TcpStream::connect(site.tcp()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut [0; 5]).await.unwrap();
    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
    assert_eq!(site.records(2).await[1]["response_flags"], "DC");
}

#[tokio::test]
async fn a_connection_that_nobody_takes_is_reset_and_logged() {
    let dead = nobody().await;
    let site = Site::ready("east", routed(&[dead])).await;
    let refused = async |count: usize, code: &str| {
        // The reset may come before the client has noticed that it is connected.
        let read = match TcpStream::connect(site.tcp()).await {
            Ok(mut stream) => stream.read(&mut [0; 1]).await,
            Err(error) => Err(error),
        };
        assert!(read.is_err(), "a clean end would look like an empty answer: {read:?}");
        let records = site.records(count).await;
        assert_eq!(records[count - 1]["fed_code"], code, "{records:#?}");
    };
    refused(1, "FED7003").await;
    site.change(|node| node.put([objects::slice("db", 0, dead, false)])).await;
    refused(2, "FED7002").await;
    let route = objects::tcp_route(BackendKind::Service, "db").key();
    site.change(|node| node.remove(&route)).await;
    refused(3, "FED7001").await;
    site.change(|node| node.put([objects::tcp_route(BackendKind::Service, "gone")])).await;
    refused(4, "FED7012").await;
    eventually("idle gateway", async || {
        (site.app().state().drain.in_progress() == 0).then_some(())
    })
    .await;
}
