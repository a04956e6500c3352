//! Where a federation node dials from: store connections to peers' gateways, and join connections.
//! It has sockets of its own, so that control never shares a connection or a port with traffic. Where UDP does
//! not pass it dials TCP.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use identity::{ExpectedPeer, IdentityCell, JoinCertificate, client_config, join_client_config};
use model::code::{self, Code};
use model::{ClusterName, PeerAddress};
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use wire::tunnel::limits::STORE_STREAMS_MAX;
use wire::tunnel::{ALPN_JOIN, ALPN_STORE, ErrorCode};

use crate::admit::Protocol;
use crate::carrier::Connection;
use crate::config::TunnelLimits;
use crate::dial::resolve;
use crate::limits::{CLOSE_TIMEOUT, FALLBACK_AFTER, HANDSHAKE_TIMEOUT};
use crate::link::{close_code, describe, tls_alert};
use crate::relay::RelayConnection;
use crate::socket::{TunnelSocket, bind_dialler};
use crate::tcp::{self, TcpConnection, TcpDialError};
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
    /// Of connections over TCP.
    tasks: TaskTracker,
}

#[derive(Default)]
struct Sockets {
    /// For IPv4 and for IPv6.
    current: [Option<Endpoint>; 2],
    /// Renewed ones that connections still use.
    former: Vec<Endpoint>,
    /// Connections over TCP, as long as somebody has them.
    over_tcp: Vec<Weak<TcpConnection>>,
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

/// What is dialled, and with what.
struct Wish {
    protocol: Protocol,
    tls: rustls::ClientConfig,
    /// `None`: an inviter, of whom nothing is known.
    expected: Option<ExpectedPeer>,
    carriers: Carriers,
}

#[derive(Clone, Copy)]
enum Carriers {
    /// QUIC, and TCP where UDP does not pass.
    Any,
    Quic,
}

/// Why one address could not be connected to.
struct Failure {
    text: String,
    code: Code,
    /// Whether somebody is there, who refused.
    is_answer: bool,
}

impl Failure {
    fn down(text: String) -> Self {
        Self { text, code: code::TUNNEL_DOWN, is_answer: false }
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
        Self(Arc::new(Shared { identity, source, limits, sockets, tasks: TaskTracker::new() }))
    }

    /// A store connection to a gateway of `cluster`: its federation node is asked for inside. Where QUIC has
    /// no answer for [`FALLBACK_AFTER`], TCP is dialled too, and whichever is through first is taken.
    pub async fn dial_store(
        &self,
        cluster: &ClusterName,
        address: &PeerAddress,
    ) -> Result<RelayConnection, DialError> {
        self.dial_store_by(cluster, address, Carriers::Any).await
    }

    /// The same over QUIC alone: for who has a connection over TCP, and would be rid of it.
    pub async fn dial_store_over_quic(
        &self,
        cluster: &ClusterName,
        address: &PeerAddress,
    ) -> Result<RelayConnection, DialError> {
        self.dial_store_by(cluster, address, Carriers::Quic).await
    }

    async fn dial_store_by(
        &self,
        cluster: &ClusterName,
        address: &PeerAddress,
        carriers: Carriers,
    ) -> Result<RelayConnection, DialError> {
        let expected = ExpectedPeer::Cluster(cluster.clone());
        let tls = client_config(Arc::clone(&self.0.identity), expected.clone(), ALPN_STORE);
        let name = format_address(address);
        let protocol = Protocol::Store;
        let wish = Wish { protocol, tls, expected: Some(expected.clone()), carriers };
        let connection = self.dial(address, wish).await?;
        let identity = self.0.identity.load();
        let now = SystemTime::now();
        RelayConnection::admitted(connection.clone(), &identity, expected, now).map_err(|refusal| {
            let (text, code) = (refusal.to_string(), refusal.code());
            let reason = &text.as_bytes()[..text.floor_char_boundary(512)];
            connection.close(close_code(refusal.error_code()), reason);
            DialError { address: name, text, code }
        })
    }

    /// A join connection, to whoever answers: the inviter is asked for inside. Over TCP as
    /// [`Self::dial_store`] does.
    pub async fn dial_join(
        &self,
        certificate: &JoinCertificate,
        address: &PeerAddress,
    ) -> Result<RelayConnection, DialError> {
        let tls = join_client_config(certificate, None, Arc::default(), ALPN_JOIN);
        let protocol = Protocol::Join;
        let wish = Wish { protocol, tls, expected: None, carriers: Carriers::Any };
        let connection = self.dial(address, wish).await?;
        Ok(RelayConnection::to_inviter(connection, SystemTime::now()))
    }

    async fn dial(&self, address: &PeerAddress, wish: Wish) -> Result<Connection, DialError> {
        let name = format_address(address);
        let failed = |text: String, code| DialError { address: name.clone(), text, code };
        // The inviter opens no streams.
        let streams_max = if wish.protocol == Protocol::Store { STORE_STREAMS_MAX } else { 0 };
        let config = control_client_config(&self.0.limits, wish.tls.clone(), streams_max)
            .map_err(|error| failed(error.to_string(), error.code()))?;
        let remotes = resolve(&address.host, address.port).await;
        let remotes = remotes.map_err(|text| failed(text, code::TUNNEL_DOWN))?;
        let mut failures: Vec<(SocketAddr, Failure)> = Vec::with_capacity(remotes.len());
        for remote in remotes {
            let dialled = match wish.carriers {
                Carriers::Any => self.connect(remote, config.clone(), &wish).await,
                Carriers::Quic => self.connect_quic(remote, config.clone(), &wish).await,
            };
            match dialled {
                Ok(connection) => return Ok(connection),
                Err(failure) => failures.push((remote, failure)),
            }
        }
        // Each address failed in its own way, and each is told; the first one's code stands.
        let code = failures.first().map_or(code::TUNNEL_DOWN, |(_, failure)| failure.code);
        let texts: Vec<_> = failures
            .iter()
            .map(|(remote, failure)| format!("{remote}: {}", failure.text))
            .collect();
        Err(failed(texts.join("; "), code))
    }

    /// Over QUIC, and later over TCP too.
    async fn connect(
        &self,
        remote: SocketAddr,
        config: quinn::ClientConfig,
        wish: &Wish,
    ) -> Result<Connection, Failure> {
        let mut quic = pin!(self.connect_quic(remote, config, wish));
        let mut tcp = pin!(async {
            sleep(FALLBACK_AFTER).await;
            self.connect_tcp(remote, wish).await
        });
        let (mut no_quic, mut no_tcp) = (None, None);
        while no_quic.is_none() || no_tcp.is_none() {
            tokio::select! {
                biased;
                dialled = &mut quic, if no_quic.is_none() => match dialled {
                    Ok(connection) => return Ok(connection),
                    // TCP would lead to the same gateway.
                    Err(failure) if failure.is_answer => return Err(failure),
                    Err(failure) => no_quic = Some(failure),
                },
                dialled = &mut tcp, if no_tcp.is_none() => match dialled {
                    Ok(connection) => {
                        self.renew();
                        return Ok(connection);
                    }
                    Err(failure) => no_tcp = Some(failure),
                },
            }
        }
        let (quic, tcp) = no_quic.zip(no_tcp).expect("both have failed");
        let code = if tcp.is_answer { tcp.code } else { quic.code };
        let text = format!("{}; over TCP: {}", quic.text, tcp.text);
        Err(Failure { text, code, is_answer: tcp.is_answer })
    }

    async fn connect_tcp(&self, remote: SocketAddr, wish: &Wish) -> Result<Connection, Failure> {
        let any = Ipv4Addr::UNSPECIFIED.into();
        let own = self.0.source.unwrap_or(any);
        let Wish { protocol, tls, expected, .. } = wish;
        let tasks = &self.0.tasks;
        let dialling = tcp::dial_relay(own, remote, tls.clone(), *protocol, &self.0.limits, tasks);
        let error = match timeout(HANDSHAKE_TIMEOUT, dialling).await {
            Ok(Ok(connection)) => {
                let connection = Arc::new(connection);
                self.lock().over_tcp.push(Arc::downgrade(&connection));
                return Ok(Connection::Tcp(connection));
            }
            Ok(Err(TcpDialError::Io(error))) => match expected {
                Some(expected) => tcp::told(error, &self.0.identity, expected),
                None => TcpDialError::Io(error),
            },
            Ok(Err(error)) => error,
            Err(_) => return Err(Failure::down(format!("no answer within {HANDSHAKE_TIMEOUT:?}"))),
        };
        Err(match error {
            TcpDialError::Refused(refusal) => Failure {
                text: refusal.to_string(),
                code: code::PEER_IDENTITY_REFUSED,
                is_answer: true,
            },
            error => Failure::down(error.to_string()),
        })
    }

    async fn connect_quic(
        &self,
        remote: SocketAddr,
        config: quinn::ClientConfig,
        wish: &Wish,
    ) -> Result<Connection, Failure> {
        let endpoint = self
            .endpoint(remote)
            .map_err(|error| Failure::down(format!("no UDP socket to dial from: {error}")))?;
        // The name is neither sent nor looked at.
        let connecting = endpoint
            .connect_with(config, remote, "store.invalid")
            .map_err(|error| Failure::down(format!("it cannot be dialled: {error}")))?;
        let error = match timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => return Ok(Connection::Quic(connection)),
            Ok(Err(error)) => error,
            Err(_) => {
                self.renew();
                return Err(Failure::down(format!(
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
        let refusal = wish.expected.as_ref().and_then(|peer| self.0.identity.last_refusal(peer));
        if let (true, Some(refusal)) = (is_alert, refusal) {
            let (text, code) = (refusal.error.to_string(), code::PEER_IDENTITY_REFUSED);
            return Err(Failure { text, code, is_answer: true });
        }
        let end = describe(&error);
        let code = end.code.entry().fed.unwrap_or(code::TUNNEL_DOWN);
        // Whatever else ended it came from the other side.
        let is_answer = !matches!(error, quinn::ConnectionError::TimedOut);
        Err(Failure { text: format!("the handshake failed: {}", end.text), code, is_answer })
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
        let Sockets { current, former, over_tcp } = &mut *sockets;
        former.extend(current.iter_mut().filter_map(Option::take));
        former.retain(|endpoint| endpoint.open_connections() > 0);
        over_tcp.retain(|connection| connection.strong_count() > 0);
    }

    /// Closes every connection, and waits until the peers were told.
    pub async fn close(&self) {
        self.renew();
        let Sockets { former, over_tcp, .. } = std::mem::take(&mut *self.lock());
        let (code, reason) = (close_code(ErrorCode::NoError), b"the federation node stops");
        for connection in over_tcp.iter().filter_map(Weak::upgrade) {
            connection.close(code, reason);
        }
        for endpoint in former {
            endpoint.close(code, reason);
            endpoint.wait_idle().await;
        }
        self.0.tasks.close();
        let _ = timeout(CLOSE_TIMEOUT, self.0.tasks.wait()).await; // they end by themselves
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
