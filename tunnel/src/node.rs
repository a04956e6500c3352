//! Where a federation node dials from: store connections to peers' gateways, and join connections.
//! It has sockets of its own, so that control never shares a connection or a port with traffic.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use identity::{ExpectedPeer, IdentityCell, JoinCertificate, client_config, join_client_config};
use model::code::{self, Code};
use model::{ClusterName, PeerAddress};
use quinn::{Connection, Endpoint, EndpointConfig, TokioRuntime};
use tokio::time::timeout;
use wire::tunnel::limits::STORE_STREAMS_MAX;
use wire::tunnel::{ALPN_JOIN, ALPN_STORE, ErrorCode};

use crate::config::TunnelLimits;
use crate::dial::resolve;
use crate::limits::HANDSHAKE_TIMEOUT;
use crate::link::{close_code, describe, tls_alert};
use crate::relay::RelayConnection;
use crate::socket::{TunnelSocket, bind_dialler};
use crate::transport::control_client_config;
use crate::tunnel::format_address;

/// Dials with a federation node's identity. All clones share their sockets.
#[derive(Clone)]
pub struct NodeEndpoint(Arc<Shared>);

struct Shared {
    identity: Arc<IdentityCell>,
    source: Option<IpAddr>,
    limits: TunnelLimits,
    sockets: Mutex<Sockets>,
}

#[derive(Default)]
struct Sockets {
    /// For IPv4 and for IPv6.
    current: [Option<Endpoint>; 2],
    /// Renewed ones that connections still use.
    former: Vec<Endpoint>,
}

/// Why an address could not be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address}: {text}")]
pub struct DialError {
    /// As configured.
    pub address: String,
    pub text: String,
    code: Code,
}

impl DialError {
    /// The code that a person is shown.
    pub fn code(&self) -> Code {
        self.code
    }
}

impl NodeEndpoint {
    /// Sockets are bound when they are needed, each on whichever address the system chooses.
    pub fn new(identity: Arc<IdentityCell>) -> Self {
        Self::from_source(identity, None)
    }

    /// The same from one address of this host, as far as its family goes.
    pub fn from_source(identity: Arc<IdentityCell>, source: Option<IpAddr>) -> Self {
        let (limits, sockets) = (TunnelLimits::default(), Mutex::default());
        Self(Arc::new(Shared { identity, source, limits, sockets }))
    }

    /// A store connection to a gateway of `cluster`: its federation node is asked for inside.
    pub async fn dial_store(
        &self,
        cluster: &ClusterName,
        address: &PeerAddress,
    ) -> Result<RelayConnection, DialError> {
        let expected = ExpectedPeer::Cluster(cluster.clone());
        let tls = client_config(Arc::clone(&self.0.identity), expected.clone(), ALPN_STORE);
        let name = format_address(address);
        let connection = self.dial(address, tls, Some(&expected), STORE_STREAMS_MAX).await?;
        let identity = self.0.identity.load();
        let now = SystemTime::now();
        RelayConnection::admitted(connection.clone(), &identity, expected, now).map_err(|refusal| {
            let (text, code) = (refusal.to_string(), refusal.code());
            let reason = &text.as_bytes()[..text.floor_char_boundary(512)];
            connection.close(close_code(refusal.error_code()), reason);
            DialError { address: name, text, code }
        })
    }

    /// A join connection, to whoever answers: the inviter is asked for inside.
    pub async fn dial_join(
        &self,
        certificate: &JoinCertificate,
        address: &PeerAddress,
    ) -> Result<RelayConnection, DialError> {
        let tls = join_client_config(certificate, None, Arc::default(), ALPN_JOIN);
        let connection = self.dial(address, tls, None, 0).await?;
        Ok(RelayConnection::to_inviter(connection, SystemTime::now()))
    }

    async fn dial(
        &self,
        address: &PeerAddress,
        tls: rustls::ClientConfig,
        expected: Option<&ExpectedPeer>,
        streams_max: u32,
    ) -> Result<Connection, DialError> {
        let name = format_address(address);
        let failed = |text: String, code| DialError { address: name.clone(), text, code };
        let config = control_client_config(&self.0.limits, tls, streams_max)
            .map_err(|error| failed(error.to_string(), error.code()))?;
        let remotes = resolve(&address.host, address.port).await;
        let remotes = remotes.map_err(|text| failed(text, code::TUNNEL_DOWN))?;
        let mut failures: Vec<(SocketAddr, String, Code)> = Vec::with_capacity(remotes.len());
        for remote in remotes {
            match self.connect(remote, config.clone(), expected).await {
                Ok(connection) => return Ok(connection),
                Err((text, code)) => failures.push((remote, text, code)),
            }
        }
        // Each address failed in its own way, and each is told; the first one's code stands.
        let code = failures.first().map_or(code::TUNNEL_DOWN, |(_, _, code)| *code);
        let texts: Vec<_> =
            failures.iter().map(|(remote, text, _)| format!("{remote}: {text}")).collect();
        Err(failed(texts.join("; "), code))
    }

    async fn connect(
        &self,
        remote: SocketAddr,
        config: quinn::ClientConfig,
        expected: Option<&ExpectedPeer>,
    ) -> Result<Connection, (String, Code)> {
        let down = |text: String| (text, code::TUNNEL_DOWN);
        let endpoint = self
            .endpoint(remote)
            .map_err(|error| down(format!("no UDP socket to dial from: {error}")))?;
        // The name is neither sent nor looked at.
        let connecting = endpoint
            .connect_with(config, remote, "store.invalid")
            .map_err(|error| down(format!("it cannot be dialled: {error}")))?;
        let error = match timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
            Err(_) => {
                self.renew();
                return Err(down(format!(
                    "no answer within {HANDSHAKE_TIMEOUT:?}: see whether its UDP port is reachable"
                )));
            }
        };
        self.renew();
        let is_alert = matches!(
            &error,
            quinn::ConnectionError::TransportError(error) if tls_alert(error.code).is_some()
        );
        // TLS shows an alert only; the verifier knows what was wrong.
        let refusal = expected.and_then(|expected| self.0.identity.last_refusal(expected));
        if let (true, Some(refusal)) = (is_alert, refusal) {
            return Err((refusal.error.to_string(), code::PEER_IDENTITY_REFUSED));
        }
        let end = describe(&error);
        let code = end.code.entry().fed.unwrap_or(code::TUNNEL_DOWN);
        Err((format!("the handshake failed: {}", end.text), code))
    }

    fn endpoint(&self, remote: SocketAddr) -> std::io::Result<Endpoint> {
        let mut sockets = self.lock();
        let endpoint = &mut sockets.current[usize::from(remote.is_ipv6())];
        if let Some(endpoint) = endpoint {
            return Ok(endpoint.clone());
        }
        let own = self.0.source.filter(|own| own.is_ipv4() == remote.is_ipv4());
        let own = own.unwrap_or_else(|| match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        });
        let socket = bind_dialler(SocketAddr::new(own, 0), remote, self.0.limits.udp_buffer_bytes)?;
        let fresh = Endpoint::new_with_abstract_socket(
            EndpointConfig::default(),
            None,
            Arc::new(TunnelSocket::of_dialler(socket)?),
            Arc::new(TokioRuntime),
        )?;
        Ok(endpoint.insert(fresh).clone())
    }

    /// The next dial comes from another source port: a path that is stuck, at a NAT or in a network
    /// that spreads flows by port, is left that way. Connections that live keep the old one.
    pub fn renew(&self) {
        let mut sockets = self.lock();
        let Sockets { current, former } = &mut *sockets;
        former.extend(current.iter_mut().filter_map(Option::take));
        former.retain(|endpoint| endpoint.open_connections() > 0);
    }

    /// Closes every connection, and waits until the peers were told.
    pub async fn close(&self) {
        self.renew();
        let former = std::mem::take(&mut self.lock().former);
        for endpoint in former {
            endpoint.close(close_code(ErrorCode::NoError), b"the federation node stops");
            endpoint.wait_idle().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sockets> {
        self.0.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for NodeEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeEndpoint").finish_non_exhaustive()
    }
}
