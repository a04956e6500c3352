//! A federation node of a few lines: a CA, enrolment, and a resource stream that sends everything
//! at each change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use identity::Ca;
use model::spiffe::Part;
use model::{
    ClusterId, Resource, ResourceKey, ResourceSet, Revision, SpiffeId, TrustBundle, TrustDomain,
};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use wire::resource::proto::enrolment_service_server::{EnrolmentService, EnrolmentServiceServer};
use wire::resource::proto::federation_message::Message as FromNode;
use wire::resource::proto::gateway_message::Message as ToNode;
use wire::resource::proto::resource_service_server::{ResourceService, ResourceServiceServer};
use wire::resource::{
    Ack, Delta, EnrolRequest, EnrolResponse, HeardFromPeer, StatusReport, StoreNews, Subscribe,
    proto,
};

const SVID_LIFETIME: Duration = Duration::from_secs(3_600);

/// The node of one cluster; it can be stopped and started again.
pub(crate) struct Node {
    socket: PathBuf,
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
}

struct Running {
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

struct Shared {
    ca: Ca,
    /// Everything, and the index of its revision.
    resources: watch::Sender<(u64, ResourceSet)>,
    news: watch::Sender<Option<StoreNews>>,
    seen: Mutex<Seen>,
}

/// What the gateway said.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) subscribes: Vec<Subscribe>,
    pub(crate) acks: Vec<Ack>,
    pub(crate) report: Option<StatusReport>,
    pub(crate) heard: Vec<HeardFromPeer>,
    pub(crate) enrolments: usize,
}

impl Node {
    pub(crate) fn new(folder: &Path, trust_domain: &str) -> Self {
        let domain = TrustDomain::parse(trust_domain).unwrap();
        let ca = Ca::load_or_create(&folder.join("ca"), &domain, SystemTime::now()).unwrap();
        let resources = watch::Sender::new((1, ResourceSet::default()));
        let news = watch::Sender::new(None);
        let shared = Arc::new(Shared { ca, resources, news, seen: Mutex::default() });
        Self { socket: folder.join("resource.sock"), shared, running: Mutex::default() }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        self.shared.ca.bundle()
    }

    pub(crate) fn ca(&self) -> &Ca {
        &self.shared.ca
    }

    pub(crate) fn seen(&self) -> Seen {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn put(&self, objects: impl IntoIterator<Item = Resource>) {
        self.shared.resources.send_modify(|(index, resources)| {
            *index += 1;
            objects.into_iter().for_each(|object| resources.upsert(object));
        });
    }

    pub(crate) fn tell(&self, news: StoreNews) {
        self.shared.news.send_replace(Some(news));
    }

    pub(crate) fn remove(&self, key: &ResourceKey) {
        self.shared.resources.send_modify(|(index, resources)| {
            *index += 1;
            assert!(resources.remove(key), "there is no {key}");
        });
    }

    pub(crate) fn start(&self) {
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).unwrap();
        let service = Service(self.shared.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(async move {
            let served = Server::builder()
                .add_service(EnrolmentServiceServer::new(service.clone()))
                .add_service(ResourceServiceServer::new(service))
                .serve_with_incoming(UnixListenerStream::new(listener));
            tokio::select! {
                served = served => served.unwrap(),
                _ = stopped => {}
            }
        });
        *self.running.lock().unwrap() = Some(Running { stop, ended });
    }

    /// As `kill -9` would: connections break, the socket's file stays.
    pub(crate) async fn kill(&self) {
        let running = self.running.lock().unwrap().take().unwrap();
        let _ = running.stop.send(());
        running.ended.await.unwrap();
    }
}

#[derive(Clone)]
struct Service(Arc<Shared>);

#[tonic::async_trait]
impl EnrolmentService for Service {
    async fn enrol(
        &self,
        request: Request<proto::EnrolRequest>,
    ) -> Result<Response<proto::EnrolResponse>, Status> {
        let request = EnrolRequest::decode(request.into_inner()).unwrap();
        let ca = &self.0.ca;
        let id = SpiffeId::of_part(ca.trust_domain(), Part::Gateway, &request.gateway);
        let chain = ca.issue(&request.csr_der, &id, SVID_LIFETIME, SystemTime::now()).unwrap();
        self.0.seen.lock().unwrap().enrolments += 1;
        let chain_der = chain.iter().map(|certificate| certificate.to_vec()).collect();
        Ok(Response::new(
            EnrolResponse { chain_der, cluster_id: cluster_id(&ca.bundle()), bundle: ca.bundle() }
                .encode(),
        ))
    }
}

#[tonic::async_trait]
impl ResourceService for Service {
    type StreamStream = ReceiverStream<Result<proto::FederationMessage, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<proto::GatewayMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let mut from_gateway = request.into_inner();
        let Some(ToNode::Subscribe(subscribe)) = from_gateway.message().await?.unwrap().message
        else {
            return Err(Status::invalid_argument("subscribe first"));
        };
        let subscribe = Subscribe::decode(subscribe).unwrap();
        self.0.seen.lock().unwrap().subscribes.push(subscribe);
        let (send, deltas) = mpsc::channel(4);
        let shared = self.0.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = from_gateway.message().await {
                let mut seen = shared.seen.lock().unwrap();
                match message.message.unwrap() {
                    ToNode::Ack(ack) => seen.acks.push(Ack::decode(ack).unwrap()),
                    ToNode::Report(report) => {
                        seen.report = Some(StatusReport::decode(report).unwrap());
                    }
                    ToNode::Heard(heard) => {
                        seen.heard.push(HeardFromPeer::decode(heard).unwrap());
                    }
                    ToNode::Subscribe(_) => panic!("a second Subscribe"),
                    ToNode::Pinged(_) => panic!("an answer that nobody asked for"),
                }
            }
        });
        let (mut changes, mut news) = (self.0.resources.subscribe(), self.0.news.subscribe());
        let to_gateway = send.clone();
        tokio::spawn(async move {
            loop {
                let told = news.borrow_and_update().clone();
                if let Some(told) = told {
                    let message = Some(FromNode::News(told.encode()));
                    let message = proto::FederationMessage { message };
                    if to_gateway.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
                if news.changed().await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            loop {
                let delta = snapshot(&changes.borrow_and_update());
                let message = proto::FederationMessage { message: Some(FromNode::Delta(delta)) };
                if send.send(Ok(message)).await.is_err() || changes.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(deltas)))
    }
}

fn snapshot((index, resources): &(u64, ResourceSet)) -> proto::Delta {
    let to = Revision { epoch: 1, index: *index };
    let upserts = resources.values().cloned().collect();
    Delta { from: None, to, upserts, removes: vec![], skipped: 0 }.encode()
}

/// This node has no federation key: its CA's certificate tells it from others.
pub(crate) fn cluster_id(bundle: &TrustBundle) -> ClusterId {
    ClusterId::of_key(&bundle.x509_authorities[0])
}
