//! The joiner's side of joining: every address of the token is tried, and each says how it went.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use hyper_util::rt::TokioIo;
use identity::{IdentityCell, Inviter, JoinCertificate};
use model::code::TUNNEL_FALLBACK;
use model::{PeerAddress, Transport};
use tonic::transport::{Channel, Uri};
use tower::service_fn;
use tunnel::{Inner, NodeEndpoint, RelayStream};

use super::peer::endpoint;
use crate::limits::DIAL_ADDRESSES_MAX;

/// Whom to reach, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinTarget {
    pub addresses: Vec<PeerAddress>,
    pub inviter: Inviter,
}

/// How it went, address by address, in their order: over what each was reached, or why it was not.
#[derive(Debug)]
pub struct JoinDial {
    pub attempts: Vec<(PeerAddress, Result<Transport, String>)>,
    /// By the first address of the list that answered as the inviter.
    pub connection: Option<JoinConnection>,
}

/// The inviter, reached.
#[derive(Clone)]
pub struct JoinConnection {
    pub address: PeerAddress,
    /// For one connection: it does not come back when it has broken.
    pub channel: Channel,
    /// What the joiner signs: only the two ends of this handshake can compute it.
    pub exporter: [u8; 32],
}

impl fmt::Debug for JoinConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinConnection").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Tries all addresses at once, from `source` if one is chosen. `certificate` shows the key that
/// joins.
pub async fn join_dial(
    target: &JoinTarget,
    certificate: &JoinCertificate,
    source: Option<IpAddr>,
) -> JoinDial {
    // Nobody's identity: the joiner shows its key alone.
    let dialler = NodeEndpoint::from_source(Arc::new(IdentityCell::default()), source);
    let addresses = target.addresses.iter().take(DIAL_ADDRESSES_MAX);
    let dials = addresses.map(|address| async {
        let inner = reach(&dialler, address, target, certificate).await;
        (address.clone(), inner)
    });
    let mut attempts = Vec::new();
    let mut connection = None;
    for (address, reached) in join_all(dials).await {
        let taken = match reached {
            Ok((over, inner)) if connection.is_none() => {
                take(address.clone(), inner).await.map(|taken| {
                    connection = Some(taken);
                    over
                })
            }
            reached => reached.map(|(over, _)| over),
        };
        attempts.push((address, taken));
    }
    for address in target.addresses.iter().skip(DIAL_ADDRESSES_MAX) {
        let text = format!("not tried: a token's first {DIAL_ADDRESSES_MAX} addresses are");
        attempts.push((address.clone(), Err(text)));
    }
    JoinDial { attempts, connection }
}

async fn reach(
    dialler: &NodeEndpoint,
    address: &PeerAddress,
    target: &JoinTarget,
    certificate: &JoinCertificate,
) -> Result<(Transport, Inner<RelayStream>), String> {
    let dialled = dialler.dial_join(certificate, address).await;
    let connection = dialled.map_err(|error| error.text)?;
    let over = connection.transport();
    if over == Transport::Tcp {
        let (code, remote) = (TUNNEL_FALLBACK, connection.remote());
        tracing::warn!(%code, %remote, "the inviter is reached over TCP, since UDP does not pass");
    }
    let stream = connection.open().await.map_err(|error| error.to_string())?;
    let inner = Inner::open_join(stream, certificate, &target.inviter).await;
    inner.map(|inner| (over, inner)).map_err(|error| {
        let end = connection.is_live();
        if end {
            error.to_string()
        } else {
            format!("the gateway there closed the connection: {error}")
        }
    })
}

async fn take(address: PeerAddress, inner: Inner<RelayStream>) -> Result<JoinConnection, String> {
    let exporter = inner.exporter().map_err(|error| error.to_string())?;
    let once = Arc::new(Mutex::new(Some(inner)));
    let connector = service_fn(move |_: Uri| {
        let inner = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            let broken = || io::Error::other("the join connection has broken: join again");
            inner.map(TokioIo::new).ok_or_else(broken)
        }
    });
    let channel = endpoint().connect_with_connector(connector).await;
    let channel = channel.map_err(|error| error.to_string())?;
    Ok(JoinConnection { address, channel, exporter })
}
