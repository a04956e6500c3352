//! A node in a temporary folder, and a client that speaks as a gateway does.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use federation::app::{self, App};
use federation::config::FederationConfig;
use hyper_util::rt::TokioIo;
use model::{ClusterName, ObjectName, ResourceSet, Revision};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};
use wire::operator::proto::operator_service_client::OperatorServiceClient;
use wire::resource::limits::FEDERATION_MESSAGE_BYTES_MAX;
use wire::resource::proto::enrolment_service_client::EnrolmentServiceClient;
use wire::resource::proto::resource_service_client::ResourceServiceClient;
use wire::resource::proto::{
    FederationMessage, GatewayMessage, federation_message, gateway_message,
};
use wire::resource::{Ack, Delta, StatusReport, Subscribe};

/// No condition of these tests takes longer, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(30);

const WINDOW_BYTES: u32 = 65_535;

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.unwrap_or_else(|_| panic!("{what} did not come within {PATIENCE:?}"))
}

pub(crate) const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec:
  ports:
  - {port: 80}
";

pub(crate) const EXPORT: &str = "\
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: api, namespace: shop}
";

/// Folders of one node; they outlive the node itself.
pub(crate) struct Site {
    folder: TempDir,
    /// Appended to the configuration.
    pub(crate) more: String,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("manifests")).unwrap();
        Self { folder, more: String::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a manifest as a whole, as an editor does.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let staged = self.path("manifests").join(format!(".{name}.new"));
        fs::write(&staged, text).unwrap();
        fs::rename(staged, self.path("manifests").join(name)).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path("manifests").join(name)).unwrap();
    }

    pub(crate) fn yaml(&self) -> String {
        format!(
            "\
apiVersion: fedgate.dev/v1alpha1
kind: FederationConfig
cluster: east
trustDomain: east.example
dataDir: data
manifests: manifests
sockets: {{resource: run/resource.sock, operator: run/operator.sock}}
{}",
            self.more
        )
    }

    pub(crate) async fn try_start(&self) -> anyhow::Result<App> {
        let config = FederationConfig::from_yaml(&self.yaml(), &self.path("federation.yaml"))?;
        app::build(config).await
    }

    pub(crate) async fn start(&self) -> App {
        self.try_start().await.unwrap()
    }

    /// The whole error of a start that must fail.
    pub(crate) async fn start_error(&self) -> String {
        format!("{:#}", self.try_start().await.unwrap_err())
    }
}

pub(crate) async fn channel(socket: &Path) -> Channel {
    let socket = socket.to_path_buf();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // Small windows, so that a client that does not read soon has the node wait.
    let endpoint = Endpoint::from_static("http://node.invalid")
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    soon("a connection", endpoint.connect_with_connector(connector)).await.unwrap()
}

pub(crate) async fn enrolment(node: &App) -> EnrolmentServiceClient<Channel> {
    EnrolmentServiceClient::new(channel(node.resource_socket()).await)
}

pub(crate) async fn operator(node: &App) -> OperatorServiceClient<Channel> {
    OperatorServiceClient::new(channel(node.operator_socket()).await)
}

/// A gateway's side of the resource stream.
pub(crate) struct Gateway {
    pub(crate) revision: Option<Revision>,
    pub(crate) resources: ResourceSet,
    outgoing: mpsc::Sender<GatewayMessage>,
    incoming: Streaming<FederationMessage>,
}

impl Gateway {
    pub(crate) async fn subscribe(node: &App, name: &str, resume: Option<Revision>) -> Self {
        Self::subscribe_as(node, "east", name, resume).await
    }

    /// As [`Self::subscribe`], with nothing to resume from, in another cluster than east.
    pub(crate) async fn subscribe_in(node: &App, cluster: &str, name: &str) -> Self {
        Self::subscribe_as(node, cluster, name, None).await
    }

    async fn subscribe_as(node: &App, cluster: &str, name: &str, resume: Option<Revision>) -> Self {
        let subscribe = Subscribe {
            gateway: ObjectName::parse(name).unwrap(),
            cluster: ClusterName::parse(cluster).unwrap(),
            resume,
            relay_socket: None,
            relay_address: None,
            answers_pings: true,
        };
        Self::open(node, gateway_message::Message::Subscribe(subscribe.encode())).await
    }

    /// A stream that begins with any message at all.
    pub(crate) async fn open(node: &App, first: gateway_message::Message) -> Self {
        let client = ResourceServiceClient::new(channel(node.resource_socket()).await);
        let mut client = client.max_decoding_message_size(FEDERATION_MESSAGE_BYTES_MAX);
        let (outgoing, receiver) = mpsc::channel(8);
        outgoing.send(GatewayMessage { message: Some(first) }).await.unwrap();
        let opened = soon("a stream", client.stream(ReceiverStream::new(receiver))).await;
        let incoming = opened.unwrap().into_inner();
        Self { revision: None, resources: ResourceSet::default(), outgoing, incoming }
    }

    pub(crate) async fn send(&self, message: gateway_message::Message) {
        self.outgoing.send(GatewayMessage { message: Some(message) }).await.unwrap();
    }

    pub(crate) async fn report(&self, report: &StatusReport) {
        self.send(gateway_message::Message::Report(report.encode())).await;
    }

    pub(crate) async fn acknowledge(&self, ack: &Ack) {
        self.send(gateway_message::Message::Ack(ack.encode())).await;
    }

    /// The next delta, folded into what is here.
    pub(crate) async fn next(&mut self) -> Delta {
        let delta = loop {
            let message = soon("a delta", self.incoming.message()).await.unwrap().unwrap();
            match message.message {
                Some(federation_message::Message::Delta(delta)) => break delta,
                Some(federation_message::Message::News(_)) => {}
                Some(federation_message::Message::Ping(_)) => panic!("nobody asked for a ping"),
                None => panic!("an empty message"),
            }
        };
        let delta = Delta::decode(delta).unwrap();
        delta.clone().apply(&mut self.revision, &mut self.resources).unwrap();
        delta
    }

    /// Folds deltas until the condition holds; counts them.
    pub(crate) async fn until(&mut self, condition: impl Fn(&ResourceSet) -> bool) -> usize {
        let mut deltas = 0;
        while !condition(&self.resources) {
            self.next().await;
            deltas += 1;
        }
        deltas
    }

    /// How the node ends the stream; deltas before that are passed over.
    pub(crate) async fn end(mut self) -> Status {
        loop {
            match soon("the end of the stream", self.incoming.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok("ended"),
                Err(status) => return status,
            }
        }
    }
}

/// Asks again until the answer is as wanted.
pub(crate) async fn until<T, F: Future<Output = T>>(
    what: &str,
    mut ask: impl FnMut() -> F,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let asking = async {
        loop {
            let answer = ask().await;
            if wanted(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, asking).await
}
