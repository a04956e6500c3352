//! One dial: names, the handshake, HELLO.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use identity::ExpectedPeer;
use model::code::{self, Code};
use model::{GatewayId, Transport};
use tokio::time::timeout;
use wire::tunnel::{ConnectionClass, Hello};

use crate::carrier::Connection;
use crate::error::BindError;
use crate::hello::{Dialled, HelloError, Purpose, greet};
use crate::limits::{HANDSHAKE_TIMEOUT, LOOKUP_TIMEOUT, RESOLVED_ADDRESSES_MAX, SPREAD_TRIES};
use crate::link::{Link, LinkEnd, describe, tls_alert};
use crate::tcp::TcpDialError;
use crate::transport::client_config;
use crate::tunnel::{Place, Shared, format_address};
use crate::worker::WorkerContext;
use crate::{control, status::LinkError};

use super::ports::{Ports, Taken};

/// What one dial of a place came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    Linked(Arc<Link>, Taken),
    /// It reached a gateway that needs no connection here, or that goes.
    Other,
    Failed(LinkError),
}

/// What the dials of one place share.
pub(crate) struct Connector {
    pub(crate) context: Arc<WorkerContext>,
    pub(crate) ports: Arc<Ports>,
    pub(crate) place: Place,
}

impl Connector {
    /// Dials each address of the place's host, until one leads where it should: to a gateway that is wanted
    /// and has no link here, or for a link to the same one that is to replace `older`.
    pub(crate) async fn dial(&self, wanted: &[GatewayId], older: Option<&Arc<Link>>) -> Outcome {
        let shared = &self.context.shared;
        let address = format_address(&self.place.address);
        let failed = |code, text| Outcome::Failed(LinkError { code, text, at: shared.now().1 });
        let remotes = match resolve(&self.place.address.host, self.place.address.port).await {
            Ok(remotes) => remotes,
            Err(text) => return failed(code::TUNNEL_DOWN, text),
        };
        let (mut failures, mut is_other) = (Vec::with_capacity(remotes.len()), false);
        for remote in remotes {
            match self.dial_one(remote, &address, wanted, older).await {
                Ok((link, taken)) => return Outcome::Linked(link, taken),
                Err(DialFailure::Hello(HelloError::NotWanted(_) | HelloError::NotLater(_))) => {
                    is_other = true;
                }
                Err(failure) => failures.push((remote, failure)),
            }
        }
        if is_other {
            return Outcome::Other;
        }
        // Each address failed in its own way, and each is told; the first one's code stands.
        let code = failures.first().map_or(code::TUNNEL_DOWN, |(_, failure)| failure.code());
        let texts: Vec<_> =
            failures.iter().map(|(remote, failure)| format!("{remote}: {failure}")).collect();
        failed(code, format!("{address}: {}", texts.join("; ")))
    }

    async fn dial_one(
        &self,
        remote: SocketAddr,
        address: &str,
        wanted: &[GatewayId],
        older: Option<&Arc<Link>>,
    ) -> Result<(Arc<Link>, Taken), DialFailure> {
        let mut tries = 0;
        loop {
            let taken = self.ports.take(remote, wanted, Instant::now())?;
            // From the older one's port the same worker over there is reached.
            let spreads = older.is_none() && tries < SPREAD_TRIES;
            let result = self.dial_from(&taken, address, spreads, older).await;
            match result {
                Ok(link) => {
                    self.ports.leads(&taken, link.peer.gateway);
                    return Ok((link, taken));
                }
                Err(DialFailure::Hello(HelloError::Crowded(_))) => tries += 1,
                Err(DialFailure::Hello(HelloError::NotLater(gateway))) => {
                    self.ports.leads(&taken, gateway);
                    return Err(HelloError::NotLater(gateway).into());
                }
                Err(failure) => {
                    self.ports.spent(&taken, Instant::now());
                    return Err(failure);
                }
            }
            self.ports.spent(&taken, Instant::now());
        }
    }

    async fn dial_from(
        &self,
        taken: &Taken,
        address: &str,
        spreads: bool,
        older: Option<&Arc<Link>>,
    ) -> Result<Arc<Link>, DialFailure> {
        let shared = &self.context.shared;
        let Place { cluster, class, worker, .. } = &self.place;
        let svid = shared.identity.load().svid.clone().ok_or(DialFailure::NoSvid)?;
        let connection = self.connect(taken).await?;
        let dialled = Dialled {
            cluster: cluster.clone(),
            address: address.to_owned(),
            svid_not_after: svid.not_after(),
            replaces: older.cloned(),
        };
        let purpose = Purpose { worker: *worker, class: *class, dialled: Some(dialled), spreads };
        let greeted = greet(shared, connection, purpose).await;
        if let Err(HelloError::NotWanted(gateway)) = &greeted {
            shared.learn_address(cluster, &self.place.address, *gateway);
        }
        let greeted = greeted?;
        let gateway = greeted.parts.peer.gateway;
        let link = control::start(&self.context, greeted);
        // Other workers begin to dial when they learn it: they should find this link then.
        shared.learn_address(cluster, &self.place.address, gateway);
        link.ok_or(DialFailure::NotNeeded)
    }

    async fn connect(&self, taken: &Taken) -> Result<Connection, DialFailure> {
        let shared = &self.context.shared;
        let expected = ExpectedPeer::Cluster(self.place.cluster.clone());
        let identity = Arc::clone(&shared.identity);
        let config = client_config(
            &shared.config.limits,
            Arc::clone(&identity),
            expected.clone(),
            self.place.class,
        )?;
        // The name is neither sent nor looked at: a peer is known by its SPIFFE ID.
        let connecting = taken
            .endpoint
            .connect_with(config, taken.remote, self.place.cluster.as_str())
            .map_err(|error| DialFailure::Address(error.to_string()))?;
        match timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(Connection::Quic(connection)),
            Ok(Err(error)) => {
                // TLS shows an alert only; the verifier knows what was wrong.
                let refusal =
                    identity.last_refusal(&expected).map(|refusal| refusal.error.to_string());
                Err(DialFailure::handshake(&error, refusal))
            }
            Err(_) => Err(DialFailure::NoAnswer),
        }
    }
}

/// Whether a dialler, with the listener's HELLO in hand, wants the connection.
///
/// The kernel over there chooses the worker by our source port. A few ports are tried, so that not
/// all connections of a pair meet on one worker; bulk ones come from their fast one's port.
pub(crate) fn check_wanted(
    shared: &Shared,
    purpose: &Purpose,
    dialled: &Dialled,
    transport: Transport,
    hello: &Hello,
) -> Result<(), HelloError> {
    let links = shared.registry.load();
    let Purpose { class, worker, spreads, .. } = *purpose;
    let (cluster, gateway) = (&dialled.cluster, hello.gateway);
    let goes = links.draining(cluster).contains(&(gateway, hello.incarnation));
    let is_needed = match transport {
        Transport::Quic => {
            // The next process of a gateway is wanted though its last one's connections seem to live.
            let has_it = links.covers_process(cluster, hello, worker);
            let peer_dials =
                shared.gateway > gateway && links.has_accepted(cluster, gateway, class);
            !has_it && !peer_dials
        }
        Transport::Tcp => {
            let is_there = |link: &Arc<Link>| link.peer.gateway == gateway;
            links.sound_since(cluster).is_none() && !links.fallbacks(cluster).any(is_there)
        }
    };
    let is_needed = is_needed || dialled.replaced().is_some();
    if goes || !is_needed {
        return Err(HelloError::NotWanted(gateway));
    }
    let spreads = spreads && class == ConnectionClass::Fast;
    if spreads && links.reached(cluster, gateway, class).contains(&hello.worker) {
        return Err(HelloError::Crowded(hello.worker));
    }
    Ok(())
}

/// Why one address could not be connected to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialFailure {
    #[error("no answer within {HANDSHAKE_TIMEOUT:?}: see whether its UDP port is reachable")]
    NoAnswer,
    #[error("no answer over TCP within {HANDSHAKE_TIMEOUT:?}")]
    NoTcpAnswer,
    #[error("{0}")]
    Tcp(#[from] TcpDialError),
    #[error("{0}")]
    Refused(String),
    #[error("the handshake failed: {}", .0.text)]
    Handshake(LinkEnd),
    #[error("it cannot be dialled: {0}")]
    Address(String),
    #[error("no UDP socket to dial from: {0}")]
    Socket(#[from] std::io::Error),
    #[error("every UDP socket to dial from is in use for it already")]
    NoPort,
    #[error("{0}")]
    Config(#[from] BindError),
    #[error("{0}")]
    Hello(#[from] HelloError),
    #[error("this gateway has no SVID")]
    NoSvid,
    #[error("the connection was not needed any more")]
    NotNeeded,
}

impl DialFailure {
    fn handshake(error: &quinn::ConnectionError, refusal: Option<String>) -> Self {
        let alert = match error {
            quinn::ConnectionError::TransportError(error) => tls_alert(error.code),
            _ => None,
        };
        match (alert, refusal) {
            (Some(_), Some(text)) => Self::Refused(text),
            _ => Self::Handshake(describe(error)),
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Refused(_) | Self::Tcp(TcpDialError::Refused(_)) => code::PEER_IDENTITY_REFUSED,
            Self::Hello(error) => error.code(),
            Self::Handshake(end) => end.code.entry().fed.unwrap_or(code::TUNNEL_DOWN),
            Self::NoSvid => code::SVID_MISSING,
            _ => code::TUNNEL_DOWN,
        }
    }
}

/// The addresses of a host, asked anew for each dial.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port))).await;
    let addresses: Vec<_> = match found {
        Ok(Ok(addresses)) => addresses.take(RESOLVED_ADDRESSES_MAX).collect(),
        Ok(Err(error)) => return Err(format!("host {host:?} could not be looked up: {error}")),
        Err(_) => {
            return Err(format!("host {host:?} could not be looked up within {LOOKUP_TIMEOUT:?}"));
        }
    };
    if addresses.is_empty() {
        return Err(format!("host {host:?} has no address"));
    }
    Ok(addresses)
}
