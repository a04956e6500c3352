//! Who may call what at the ports: each kind of caller at each of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use federation::app::App;
use hyper_util::rt::TokioIo;
use identity::{
    Ca, ClusterTrust, FederationKey, IdentityCell, Inviter, OwnPeer, Svid, SvidKeyPair,
    join_client_config,
};
use model::spiffe::Part;
use model::{ClusterName, ObjectName, SpiffeId, TrustDomain};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};
use tunnel::ClusterClient;
use wire::operator::proto::GetStatusRequest;
use wire::operator::proto::operator_service_client::OperatorServiceClient;
use wire::relay::{Preamble, RelayProtocol};
use wire::resource::proto::enrolment_service_client::EnrolmentServiceClient;
use wire::resource::proto::resource_service_client::ResourceServiceClient;
use wire::resource::proto::{GatewayMessage, gateway_message};
use wire::resource::{EnrolRequest, Subscribe};

use super::{ApiServer, GATEWAY_TOKEN, OPERATOR_TOKEN, node};
use crate::fixture::{Site, soon};

const GATEWAY: &str = "spiffe://east.example/fedgate/gateway/gw-0";
const HOUR: Duration = Duration::from_secs(3600);

/// What a caller shows.
#[derive(Clone, Default)]
struct Shown {
    svid: Option<Arc<IdentityCell>>,
    self_signed: bool,
    token: Option<&'static str>,
}

trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

/// Anybody, who believes the node whoever it is and goes by no rule.
struct Caller<'a> {
    node: &'a App,
    shown: Shown,
}

impl Caller<'_> {
    async fn dial(
        address: SocketAddr,
        shown: Shown,
        trust: Arc<ClusterTrust>,
        alpn: &'static [u8],
    ) -> std::io::Result<Box<dyn Carrier>> {
        let stream = TcpStream::connect(address).await?;
        if shown.self_signed {
            let key = FederationKey::from_seed(&[3; 32]).self_signed().unwrap();
            let (none, refusals): (Option<Inviter>, _) = (None, Arc::default());
            let config = join_client_config(&key, none, refusals, alpn);
            let name = "any.name".try_into().unwrap();
            return Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?));
        }
        let expected = OwnPeer::Any(Part::Federation);
        let client = ClusterClient { identity: shown.svid, trust, expected, alpn };
        Ok(Box::new(client.connect(stream).await.map_err(std::io::Error::other)?))
    }

    fn trust(&self) -> Arc<ClusterTrust> {
        let trust = ClusterTrust::new(TrustDomain::parse("east.example").unwrap());
        trust.replace(&self.node.bundle()).unwrap();
        Arc::new(trust)
    }

    async fn channel(&self, address: SocketAddr) -> Result<Channel, Status> {
        let (shown, trust) = (self.shown.clone(), self.trust());
        let connector = tower::service_fn(move |_: Uri| {
            let (shown, trust) = (shown.clone(), trust.clone());
            async move { Self::dial(address, shown, trust, b"h2").await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://node.invalid");
        let connected = endpoint.connect_with_connector(connector).await;
        connected.map_err(|error| Status::unknown(error.to_string()))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = self.shown.token {
            let header = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", header);
        }
        request
    }

    async fn enrol(&self) -> Result<(), Status> {
        let channel = self.channel(self.node.listening().gateways.unwrap()).await?;
        let csr_der = SvidKeyPair::generate().unwrap().csr_der(&id(GATEWAY)).unwrap();
        let request = EnrolRequest { gateway: ObjectName::parse("gw-0").unwrap(), csr_der };
        let request = self.request(request.encode());
        EnrolmentServiceClient::new(channel).enrol(request).await.map(|_| ())
    }

    async fn stream(&self) -> Result<(), Status> {
        let channel = self.channel(self.node.listening().gateways.unwrap()).await?;
        let subscribe = Subscribe {
            gateway: ObjectName::parse("gw-0").unwrap(),
            cluster: ClusterName::parse("east").unwrap(),
            resume: None,
            relay_socket: None,
            relay_address: None,
            answers_pings: false,
        };
        let message = Some(gateway_message::Message::Subscribe(subscribe.encode()));
        let messages = futures_util::StreamExt::chain(
            tokio_stream::iter([GatewayMessage { message }]),
            tokio_stream::pending(),
        );
        let opened = ResourceServiceClient::new(channel).stream(self.request(messages)).await?;
        let first = opened.into_inner().message().await?;
        first.map(|_| ()).ok_or_else(|| Status::unknown("it ended"))
    }

    /// Whether the bytes behind a preamble are listened to: nonsense gets a TLS alert.
    async fn relay(&self) -> Result<(), Status> {
        let failed = |error: std::io::Error| Status::unknown(error.to_string());
        let address = self.node.listening().relay.unwrap();
        let dialled = Self::dial(address, self.shown.clone(), self.trust(), wire::relay::ALPN);
        let mut stream = dialled.await.map_err(failed)?;
        let remote = "192.0.2.7:8443".parse().unwrap();
        let preamble = Preamble { protocol: RelayProtocol::Join, peer: None, remote };
        stream.write_all(&preamble.encode()).await.map_err(failed)?;
        stream.write_all(&[b'?'; 512]).await.map_err(failed)?;
        let mut answer = [0; 1];
        match stream.read(&mut answer).await.map_err(failed)? {
            1 => Ok(()),
            _ => Err(Status::unknown("it ended")),
        }
    }

    async fn operators(&self) -> Result<(), Status> {
        let channel = self.channel(self.node.listening().operators.unwrap()).await?;
        let request = self.request(GetStatusRequest {});
        OperatorServiceClient::new(channel).get_status(request).await.map(|_| ())
    }
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn cell(ca: &Ca, name: &str, lifetime: Duration, issued: SystemTime) -> Option<Arc<IdentityCell>> {
    let keys = SvidKeyPair::generate().unwrap();
    let csr = keys.csr_der(&id(name)).unwrap();
    let svid: Svid = keys.into_svid(ca.issue(&csr, &id(name), lifetime, issued).unwrap()).unwrap();
    let cell = Arc::new(IdentityCell::default());
    cell.replace_svid(svid);
    Some(cell)
}

/// `ok`, the code of a refusal, or `tls` when the connection itself was refused.
fn verdict(outcome: &Result<(), Status>) -> String {
    match outcome {
        Ok(()) => "ok".into(),
        Err(status) => match status.metadata().get("x-fed-code") {
            Some(code) => code.to_str().unwrap().into(),
            None => "tls".into(),
        },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_caller_gets_what_its_proof_is_good_for() {
    let (site, api) = (Site::new(), ApiServer::default());
    let node = node(&site, api.start().await).await;
    let now = SystemTime::now();
    let ca = |folder: &str, domain: &str| {
        let domain = TrustDomain::parse(domain).unwrap();
        Ca::load_or_create(&site.path(folder), &domain, now).unwrap()
    };
    let (own, impostor, foreign) = (
        ca("data/ca", "east.example"),
        ca("impostor", "east.example"),
        ca("foreign", "west.example"),
    );
    let svid = |ca: &Ca, name: &str| cell(ca, name, HOUR, now);
    let show = |svid| Shown { svid, ..Shown::default() };
    let token = |token| Shown { token: Some(token), ..Shown::default() };
    let workload = "spiffe://east.example/ns/shop/sa/web";
    let federation = "spiffe://east.example/fedgate/federation/node-0";
    let other = "spiffe://east.example/fedgate/gateway/gw-1";
    let rows: [(&str, Shown, [&str; 4]); 16] = [
        // enrol, stream, relay, operators
        ("nothing", Shown::default(), ["FED3005", "FED3005", "tls", "FED1005"]),
        ("no token at all", token("nonsense"), ["FED3005", "FED3005", "tls", "FED1005"]),
        (
            "another audience",
            token("vault:fedgate-system:fedgate-gateway:gw-0"),
            ["FED3005", "FED3005", "tls", "FED1005"],
        ),
        (
            "another account",
            token("fedgate:shop:web:gw-0"),
            ["FED3005", "FED3005", "tls", "FED1005"],
        ),
        (
            "another pod",
            token("fedgate:fedgate-system:fedgate-gateway:gw-1"),
            ["FED3005", "FED3005", "tls", "FED1005"],
        ),
        (
            "no pod",
            token("fedgate:fedgate-system:fedgate-gateway:"),
            ["FED3005", "FED3005", "tls", "FED1005"],
        ),
        ("the gateway's token", token(GATEWAY_TOKEN), ["ok", "FED3005", "tls", "FED1005"]),
        ("an operator's token", token(OPERATOR_TOKEN), ["FED3005", "FED3005", "tls", "ok"]),
        (
            "an operator of no role",
            token("fedgate-operator:shop:web:"),
            ["FED3005", "FED3005", "tls", "FED1005"],
        ),
        (
            "an expired SVID",
            show(cell(&own, GATEWAY, Duration::from_secs(1), now - Duration::from_secs(30))),
            ["tls", "tls", "tls", "FED1005"],
        ),
        ("a workload", show(svid(&own, workload)), ["tls", "tls", "tls", "FED1005"]),
        (
            "a foreign gateway",
            show(svid(&foreign, "spiffe://west.example/fedgate/gateway/gw-0")),
            ["tls", "tls", "tls", "FED1005"],
        ),
        ("an unknown CA's", show(svid(&impostor, GATEWAY)), ["tls", "tls", "tls", "FED1005"]),
        ("the node's own kind", show(svid(&own, federation)), ["tls", "tls", "tls", "FED1005"]),
        ("another gateway", show(svid(&own, other)), ["FED3005", "FED3005", "ok", "FED1005"]),
        ("the gateway", show(svid(&own, GATEWAY)), ["FED3005", "ok", "ok", "FED1005"]),
    ];
    let self_signed = Shown { self_signed: true, ..Shown::default() };
    let last = ("its own word", self_signed, ["tls", "tls", "tls", "FED1005"]);
    for (who, shown, wanted) in rows.into_iter().chain([last]) {
        let caller = Caller { node: &node, shown };
        let outcomes = [
            soon(who, caller.enrol()).await,
            soon(who, caller.stream()).await,
            soon(who, caller.relay()).await,
            soon(who, caller.operators()).await,
        ];
        assert_eq!(outcomes.each_ref().map(verdict), wanted, "{who}: {outcomes:#?}");
    }
    node.stop().await;
}

/// Enrolment mends what expires, so it must not need what has expired; nor may an API server that is
/// away end a cluster. But whoever has no more than a key cannot renew with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svid_is_renewed_without_a_review_only_while_there_can_be_none() {
    let (site, api) = (Site::new(), ApiServer::default());
    let node = node(&site, api.start().await).await;
    let domain = TrustDomain::parse("east.example").unwrap();
    let now = SystemTime::now();
    let own = Ca::load_or_create(&site.path("data/ca"), &domain, now).unwrap();
    let renewing = |name| Shown {
        svid: cell(&own, name, HOUR, now),
        token: Some(GATEWAY_TOKEN),
        ..Shown::default()
    };
    let stolen = Shown { token: Some("nonsense"), ..renewing(GATEWAY) };
    let new = Shown { svid: None, ..renewing(GATEWAY) };
    let other = renewing("spiffe://east.example/fedgate/gateway/gw-1");
    let enrol = async |shown: &Shown| {
        let caller = Caller { node: &node, shown: shown.clone() };
        verdict(&soon("an answer", caller.enrol()).await)
    };
    assert_eq!(enrol(&stolen).await, "FED3005", "a key alone renews nothing");
    assert_eq!(enrol(&new).await, "ok");
    api.is_down.store(true, Ordering::Relaxed);
    assert_eq!(enrol(&new).await, "FED3008");
    assert_eq!(enrol(&other).await, "FED3005", "another gateway's name");
    assert_eq!(enrol(&renewing(GATEWAY)).await, "ok");
    let operator =
        Caller { node: &node, shown: Shown { token: Some(OPERATOR_TOKEN), ..Shown::default() } };
    assert_eq!(verdict(&operator.operators().await), "FED3008");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_calls_make_one_review_and_are_in_the_record() {
    let (site, api) = (Site::new(), ApiServer::default());
    let node = node(&site, api.start().await).await;
    let viewer = "fedgate-operator:fedgate-system:fedgate-viewer:";
    let caller = Caller { node: &node, shown: Shown { token: Some(viewer), ..Shown::default() } };
    for _ in 0..5 {
        caller.operators().await.unwrap();
    }
    assert_eq!(api.asked.load(Ordering::Relaxed), 1);
    let channel = caller.channel(node.listening().operators.unwrap()).await.unwrap();
    let request = caller.request(wire::operator::proto::DeleteObjectsRequest::default());
    let refused = OperatorServiceClient::new(channel).delete_objects(request).await.unwrap_err();
    let wanted = "FED1005: DeleteObjects needs the role operator, and ServiceAccount \
                  fedgate-system/fedgate-viewer has the role viewer; list it under \
                  `operators.serviceAccounts.operators`";
    assert!(refused.message().starts_with(wanted), "{refused}");
    let mut operator = crate::fixture::operator(&node).await;
    let request = wire::operator::proto::ListAuditRequest { last: 1 };
    let entries = operator.list_audit(request).await.unwrap().into_inner().entries;
    assert_eq!(entries[0].user, "fedgate-system/fedgate-viewer");
    assert_eq!((entries[0].uid, &*entries[0].outcome), (u32::MAX, "denied"));
    node.stop().await;
}
