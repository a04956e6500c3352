//! The door to one federation node: a port-forward through the API server, and TLS inside of it. The
//! API server carries the bytes and reads none of them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use identity::{ClusterTrust, OwnPeer};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use model::code;
use model::spiffe::Part;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tunnel::{ClusterClient, ClusterStream, ClusterStreamError};

use super::{Access, Cluster, Found, OPERATOR_PORT, Trust};
use crate::error::{CommandError, Exit};

const ALPN: &[u8] = b"h2";
/// Why a port-forward ended comes right behind its end.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// What carries the bytes, whatever it is.
pub trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Carrier for S {}

/// Opens streams to the operators' port of one node.
#[derive(Debug, Clone)]
pub struct Door {
    cluster: Cluster,
    node: Found,
    /// Expects any federation node of the cluster's own trust domain, and shows no certificate: a
    /// person shows a token instead, inside of TLS.
    client: ClusterClient,
}

impl Door {
    pub fn new(cluster: Cluster, node: Found, trust: Trust) -> Result<Self, CommandError> {
        let own = ClusterTrust::new(trust.domain().clone());
        own.replace(&trust.bundle).map_err(|error| {
            let message = format!("cluster {}: ConfigMap fedgate-trust: {error}", cluster.name);
            CommandError::new(Exit::Unreachable, message).code(code::TRUST_UNPUBLISHED)
        })?;
        let expected = OwnPeer::Any(Part::Federation);
        let client = ClusterClient { identity: None, trust: Arc::new(own), expected, alpn: ALPN };
        Ok(Self { cluster, node, client })
    }

    /// As messages call the other end.
    pub fn shown(&self) -> String {
        let Found { namespace, pod } = &self.node;
        format!("{namespace}/{pod} of cluster {}", self.cluster.name)
    }

    /// A fresh connection, after its handshake.
    pub async fn open(&self) -> Result<ClusterStream<Box<dyn Carrier>>, CommandError> {
        let Found { namespace, pod } = &self.node;
        let access = Access {
            verb: "get",
            group: "",
            resource: "pods/portforward",
            namespace: Some(namespace),
            name: Some(pod),
        };
        let pods = Api::<Pod>::namespaced(self.cluster.client.clone(), namespace);
        let mut forward = self.cluster.ask(access, pods.portforward(pod, &[OPERATOR_PORT])).await?;
        let reason = forward.take_error(OPERATOR_PORT);
        let Some(stream) = forward.take_stream(OPERATOR_PORT) else {
            return Err(self.closed("the port-forward has no stream"));
        };
        // The pod refused the connection, or it went: Kubernetes says which beside the stream.
        let mut reason = pin!(async { reason?.await });
        let mut handshake = pin!(self.handshake(Box::new(stream)));
        tokio::select! {
            biased;
            told = &mut reason => match told {
                Some(told) => Err(self.closed(told.trim())),
                None => handshake.await,
            },
            done = &mut handshake => match done {
                Err(error) if error.code == Some(code::FEDERATION_UNREACHABLE) => {
                    let told = timeout(REASON_TIMEOUT, reason).await.ok().flatten();
                    Err(told.map_or(error, |told| self.closed(told.trim())))
                }
                done => done,
            },
        }
    }

    /// TLS with a federation node of the cluster's own trust domain, and nobody else.
    pub async fn handshake(
        &self,
        stream: Box<dyn Carrier>,
    ) -> Result<ClusterStream<Box<dyn Carrier>>, CommandError> {
        let refused = match self.client.connect(stream).await {
            Ok(stream) => return Ok(stream),
            Err(ClusterStreamError::Refused(refused)) => refused,
            Err(error) => return Err(self.closed(&error.to_string())),
        };
        let (shown, domain) = (self.shown(), self.client.trust.domain());
        let message = format!(
            "{shown} shows a certificate that is not of a federation node of {domain}: {refused}"
        );
        Err(CommandError::new(Exit::Unreachable, message).code(code::PEER_IDENTITY_REFUSED).hint(
            "ConfigMap fedgate-trust and the node's data folder are of two installations, or another pod answers there",
        ))
    }

    fn closed(&self, why: &str) -> CommandError {
        let message = format!("the federation node {} does not answer: {why}", self.shown());
        CommandError::new(Exit::Unreachable, message).code(code::FEDERATION_UNREACHABLE).hint(
            format!(
                "does it listen for operators (listen.operators, port {OPERATOR_PORT})? `kubectl -n {} logs {}` says",
                self.node.namespace, self.node.pod
            ),
        )
    }
}
