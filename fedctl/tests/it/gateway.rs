//! A gateway as its node sees it: it says of itself and answers what it is told to.

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::transport::{Endpoint, Uri};
use wire::resource::proto::federation_message::Message as FromNode;
use wire::resource::proto::gateway_message::Message as ToNode;
use wire::resource::proto::resource_service_client::ResourceServiceClient;
use wire::resource::proto::{
    FederationMessage, GatewayMessage, Link, LinkClass, LinkState, PingAnswer, PingedLink,
    StatusReport, Subscribe, Transport,
};

use crate::fixture::Node;

/// What it does with pings.
#[derive(Debug, Clone)]
pub(crate) enum Pings {
    /// It is of a version that does not know of them.
    Unknown,
    Unanswered,
    Answered(Vec<PingedLink>),
}

/// It is connected until it is dropped.
pub(crate) struct Gateway {
    task: tokio::task::JoinHandle<()>,
}

impl Gateway {
    /// Returns when the node has its report.
    pub(crate) fn connect(node: &Node, report: StatusReport, pings: Pings) -> Self {
        let socket = node.path("run/r.sock");
        let name = report.gateway.clone();
        let task = node.runtime().spawn(async move {
            let connector = tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            });
            let endpoint = Endpoint::from_static("http://node.invalid");
            let channel = endpoint.connect_with_connector(connector).await.unwrap();
            let (outgoing, queue) = mpsc::channel(8);
            let subscribe = Subscribe {
                gateway: report.gateway.clone(),
                cluster: "east".into(),
                answers_pings: !matches!(pings, Pings::Unknown),
                ..Subscribe::default()
            };
            for message in [ToNode::Subscribe(subscribe), ToNode::Report(report)] {
                outgoing.send(GatewayMessage { message: Some(message) }).await.unwrap();
            }
            let messages = futures_util::stream::unfold(queue, |mut queue| async {
                queue.recv().await.map(|message| (message, queue))
            });
            let answer = ResourceServiceClient::new(channel).stream(messages).await.unwrap();
            serve(answer.into_inner(), outgoing, pings).await;
        });
        node.until(&["status", "-o", "json"], |said| {
            let status: serde_json::Value = serde_json::from_str(&said.out).unwrap();
            let gateways = status["gateways"].as_array().unwrap();
            let has_report = |row: &serde_json::Value| {
                row["name"] == *name && row["connected"] == true && row["reported"].is_object()
            };
            gateways.iter().any(has_report)
        });
        Self { task }
    }
}

async fn serve(
    mut incoming: Streaming<FederationMessage>,
    outgoing: mpsc::Sender<GatewayMessage>,
    pings: Pings,
) {
    while let Ok(Some(message)) = incoming.message().await {
        let Some(FromNode::Ping(request)) = message.message else { continue };
        match &pings {
            Pings::Unknown => panic!("a ping ends the stream of a gateway that does not know it"),
            Pings::Unanswered => {}
            Pings::Answered(links) => {
                let links = links.clone();
                let answer = PingAnswer { id: request.id, links, ..PingAnswer::default() };
                let message = Some(ToNode::Pinged(answer));
                outgoing.send(GatewayMessage { message }).await.unwrap();
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One that serves, with one live link to west.
pub(crate) fn report(name: &str) -> StatusReport {
    StatusReport {
        gateway: name.into(),
        spiffe_id: format!("spiffe://east.example/fedgate/gateway/{name}"),
        svid_not_after_unix_s: 4_000_000_000,
        tunnel_address: "127.0.0.1:8443".into(),
        ready: true,
        version: "0.0.9".into(),
        links: vec![link(LinkState::Live)],
        ..StatusReport::default()
    }
}

pub(crate) fn link(state: LinkState) -> Link {
    Link {
        cluster: "west".into(),
        gateway_id: vec![7; 16],
        address: "gw.west.invalid:8443".into(),
        transport: Transport::Quic.into(),
        class: LinkClass::Fast.into(),
        state: state.into(),
        rtt_us: (state == LinkState::Live).then_some(18_000),
        ..Link::default()
    }
}

/// A peer `west` with the bundle of a real CA.
pub(crate) fn write_peer(node: &Node) {
    let domain = model::TrustDomain::parse("west.example").unwrap();
    let folder = node.path("west-ca");
    std::fs::create_dir(&folder).unwrap();
    let ca = identity::Ca::load_or_create(&folder, &domain, std::time::SystemTime::now()).unwrap();
    let bundle = wire::bundle::format_bundle(&ca.bundle()).unwrap();
    let bundle = serde_json::to_string(&bundle).unwrap(); // a JSON string is a YAML string
    let yaml = format!(
        "\
apiVersion: fedgate.dev/v1alpha1
kind: ClusterPeer
metadata: {{name: west}}
spec:
  addresses: [{{transport: quic, host: gw.west.invalid, port: 8443}}]
  trustDomains: [{{name: west.example, bundle: {bundle}}}]
"
    );
    node.write("manifests/peer.yaml", &yaml);
    node.until(&["clusters"], |said| said.out.contains("west"));
}
