//! Applications that know nothing of Fedgate reach imports through a port of the gateway: with the
//! very objects that a federation node in a Kubernetes cluster makes for them.

use std::net::SocketAddr;

use http::{Method, Version};
use testkit::{Client, Origin, Speaks, TcpOrigin, client, wait};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::{LIMIT, World, intent};

/// What the controller of imports was recorded to tell gateways of `shop/api`: HTTP on port 80, HTTP/2
/// on 81, TCP on 5432, on the ports 20000 to 20002 of the pool.
const RECORDED: &str = include_str!("../../../../federation/testdata/mcs/import.out.yaml");

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec:
  ports:
  - {name: http, port: 80, appProtocol: http}
  - {name: grpc, port: 81, appProtocol: kubernetes.io/h2c}
  - {name: db, port: 5432}
";

const IMPORT: &str = "\
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {name: api, namespace: shop}
spec:
  type: ClusterSetIP
  ports:
  - {name: http, port: 80, appProtocol: http}
  - {name: grpc, port: 81, appProtocol: kubernetes.io/h2c}
  - {name: db, port: 5432}
status: {clusters: [{cluster: west}]}
";

/// An endpoint for one port of the service.
fn slice(port: &str, endpoint: SocketAddr) -> String {
    intent::slice("api", endpoint)
        .replace("name: api-1", &format!("name: api-{port}"))
        .replace("name: main", &format!("name: {port}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_clients_reach_an_import_through_ports_of_the_pool() {
    let world = World::start(&["east", "west"]).await;
    let west = world.cluster("west").address;
    let http = Origin::start("http@west", west, Speaks::Http1).await.unwrap();
    let grpc = Origin::start("grpc@west", west, Speaks::H2c).await.unwrap();
    let db = TcpOrigin::start("db@west", west).await.unwrap();
    let slices =
        [slice("http", http.address), slice("grpc", grpc.address), slice("db", db.address)];
    world.write("west", "service", &format!("{SERVICE}---\n{}", slices.join("---\n")));
    world.export("west", "api", "[{cluster: east}]");
    let (_, told) = RECORDED.split_once("# Gateways are told\n").unwrap();
    world.write("east", "import", &format!("{IMPORT}{told}"));

    let east = world.cluster("east").address;
    let pool = |port: u16| SocketAddr::new(east, port);
    // Whatever a client calls the service: the port says which one is meant.
    wait::until_async("an answer over HTTP", LIMIT, async || {
        let answer = client::get(pool(20_000), "imported-api", "/any/path").await.ok()?;
        (answer.text() == "http@west").then_some(())
    })
    .await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = Client::connect(pool(20_001), version).await.unwrap();
        let request =
            client.request(Method::GET, "imported-api.shop:81", "/").body(client::empty());
        let answer = client.send(request.unwrap()).await.unwrap();
        assert_eq!(answer.text(), "grpc@west", "{version:?}");
    }
    let mut stream = BufReader::new(TcpStream::connect(pool(20_002)).await.unwrap());
    stream.write_all(b"who\n").await.unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert_eq!(line.trim_end(), "db@west");
    drop(stream);
    world.stop().await;
}
