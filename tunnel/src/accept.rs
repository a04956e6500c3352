//! What peers begin: connections, exchanges on them, and the streams that directions move to.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::{Connecting, ConnectionError, Endpoint, Incoming, TransportErrorCode};
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::timeout;
use wire::tunnel::limits::{OPEN_TIMEOUT_MS, RESUME_TIMEOUT_MS};
use wire::tunnel::{
    ConnectionClass, Dispatched, ErrorCode, Frame, FrameDecoder, FrameOrder, MoveToken, Open,
    Refused, StreamKind, StreamReset,
};

use crate::admit::Protocol;
use crate::carrier::{Connection, RecvStream, SendStream, peer_alpn};
use crate::control;
use crate::error::{StreamError, StreamErrorKind};
use crate::hello::{Purpose, greet};
use crate::limits::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, HANDSHAKES_PER_SOURCE_MAX};
use crate::link::{Link, close_code};
use crate::relay;
use crate::stream::{FrameReader, Resumed, stream_code};
use crate::transport::{FirstId, ServerConfigs, purpose_of_first_id};
use crate::tunnel::Shared;
use crate::worker::{IncomingExchange, WorkerContext, refuse_stream};

const OPEN_TIMEOUT: Duration = Duration::from_millis(OPEN_TIMEOUT_MS as u64);
const RESUME_TIMEOUT: Duration = Duration::from_millis(RESUME_TIMEOUT_MS as u64);
/// Handshakes under way from which on a peer must first show that its address is its own.
const RETRY_FROM: usize = HANDSHAKES_MAX / 4;

/// Accepts a worker's connections until the tunnel is closed.
pub(crate) async fn serve(endpoint: Endpoint, servers: ServerConfigs, context: Arc<WorkerContext>) {
    let under_way = Arc::new(UnderWay::default());
    let closing = context.shared.closing.clone();
    loop {
        let incoming = tokio::select! {
            () = closing.cancelled() => break,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let place = under_way.enter(incoming.remote_address().ip());
        let Some(connecting) = begin(incoming, &servers, &place, &context.shared, context.index)
        else {
            continue;
        };
        let context = Arc::clone(&context);
        tokio::spawn(async move {
            welcome(connecting.0, connecting.1, context).await;
            drop(place);
        });
    }
    endpoint.close(close_code(ErrorCode::NoError), b"the gateway stops");
    // The endpoint's own task sends what is left and ends with its last connection.
    endpoint.wait_idle().await;
}

fn begin(
    incoming: Incoming,
    servers: &ServerConfigs,
    place: &HandshakePlace,
    shared: &Shared,
    worker: u8,
) -> Option<(Connecting, FirstId)> {
    if place.all > HANDSHAKES_MAX || place.of_source > HANDSHAKES_PER_SOURCE_MAX {
        shared.counts.of(worker).handshakes_refused();
        incoming.refuse();
        return None;
    }
    if place.all > RETRY_FROM && !incoming.remote_address_validated() {
        let _ = incoming.retry();
        return None;
    }
    let first_id = incoming.orig_dst_cid();
    let purpose = purpose_of_first_id(&first_id);
    match incoming.accept_with(servers.choose(&first_id)) {
        Ok(connecting) => Some((connecting, purpose)),
        Err(error) => {
            tracing::debug!(%error, "a handshake could not begin");
            None
        }
    }
}

/// Handshakes under way at one worker, by the network that they come from.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    by_source: Mutex<HashMap<IpAddr, usize>>,
}

/// Counts a handshake for as long as it lasts.
pub(crate) struct HandshakePlace {
    under_way: Arc<UnderWay>,
    source: IpAddr,
    /// As of entering, this one included.
    pub(crate) all: usize,
    pub(crate) of_source: usize,
}

impl UnderWay {
    pub(crate) fn enter(self: &Arc<Self>, remote: IpAddr) -> HandshakePlace {
        let source = source_network(remote);
        let mut by_source = self.by_source.lock().unwrap_or_else(PoisonError::into_inner);
        let of_source = by_source.entry(source).or_default();
        *of_source += 1;
        let of_source = *of_source;
        let all = by_source.values().sum();
        HandshakePlace { under_way: Arc::clone(self), source, all, of_source }
    }
}

impl Drop for HandshakePlace {
    fn drop(&mut self) {
        let under_way = &self.under_way.by_source;
        let mut by_source = under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                by_source.remove(&self.source);
            }
        }
    }
}

/// One host may have a whole IPv6 /64.
pub(crate) fn source_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address => address,
    }
}

/// Whether a dialler changed its mind in the middle of the handshake: an application's close is said so
/// while there are no keys for more (RFC 9000 §10.2.3).
fn has_hung_up(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::ApplicationClosed(_) => true,
        ConnectionError::ConnectionClosed(close) => {
            close.error_code == TransportErrorCode::APPLICATION_ERROR
        }
        _ => false,
    }
}

async fn welcome(connecting: Connecting, purpose: FirstId, context: Arc<WorkerContext>) {
    let remote = connecting.remote_address();
    let connection = match timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            if !has_hung_up(&error) {
                context.shared.counts.of(context.index).peers_refused();
            }
            // Anyone can cause it, as often as they like: it is counted, and told on request.
            tracing::debug!(%remote, %error, "a peer's handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!(%remote, "a peer's handshake took too long");
            return;
        }
    };
    let protocol = Protocol::of_alpn(&peer_alpn(&connection)).unwrap_or(Protocol::Tunnel);
    match (protocol, purpose) {
        (Protocol::Tunnel, FirstId::Tunnel(class)) => {
            meet(&context, Connection::Quic(connection), class).await;
        }
        (Protocol::Store | Protocol::Join, FirstId::Control) => {
            relay::meet(&context, Connection::Quic(connection));
        }
        (protocol, _) => {
            // Its windows were granted for something else.
            context.shared.counts.of(context.index).peers_refused();
            let text = format!("the first connection id does not fit {protocol}");
            connection.close(close_code(ErrorCode::MalformedFrame), text.as_bytes());
        }
    }
}

/// Takes a gateway's connection, or closes it with the reason.
pub(crate) async fn meet(
    context: &Arc<WorkerContext>,
    connection: Connection,
    class: ConnectionClass,
) {
    let remote = connection.remote_address();
    let purpose = Purpose { worker: context.index, class, dialled: None, spreads: false };
    match greet(&context.shared, connection, purpose).await {
        Ok(greeted) => {
            control::start(context, greeted);
        }
        Err(error) if error.is_harmless() => {
            tracing::debug!(%remote, %error, "a peer wants another worker");
        }
        Err(error) => {
            context.shared.counts.of(context.index).peers_refused();
            tracing::warn!(%remote, code = %error.code(), %error, "a peer was refused");
        }
    }
}

/// Takes the exchanges that the peer opens on a link. As many may wait for their OPEN as the link
/// has streams.
pub(crate) async fn accept_exchanges(context: Arc<WorkerContext>, link: Arc<Link>) {
    let mut opening = FuturesUnordered::new();
    loop {
        tokio::select! {
            streams = link.connection.accept_bi() => {
                let Ok((send, recv)) = streams else { break };
                opening.push(take_exchange(&context, &link, send, recv));
            }
            Some(()) = opening.next() => {}
        }
    }
}

async fn take_exchange(
    context: &Arc<WorkerContext>,
    link: &Arc<Link>,
    mut send: SendStream,
    recv: RecvStream,
) {
    let mut reader = FrameReader::new(link, recv, FrameOrder::initiator());
    let open = match timeout(OPEN_TIMEOUT, reader.next(None)).await {
        Ok(Ok(Frame::Open(open))) => *open,
        Ok(Ok(_)) => unreachable!("the order lets only OPEN be first"),
        Ok(Err(error)) => return answer_bad_open(&mut send, &reader, &error).await,
        Err(_) => {
            let text = "OPEN did not come in time";
            let error = StreamError::timeout(ErrorCode::Cancelled, text);
            return answer_bad_open(&mut send, &reader, &error).await;
        }
    };
    if let Err(refused) = judge_open(&context.shared, link, &open) {
        refuse_stream(&mut send, &refused).await;
        reader.stop(StreamReset::new(refused.code, refused.dispatched));
        return;
    }
    let exchange = IncomingExchange::new(link, &context.shared, open, send, reader);
    match context.incoming.try_send(exchange) {
        Ok(()) => {}
        Err(TrySendError::Full(exchange)) => {
            context.shared.counts.of(context.index).exchanges_shed();
            let text = "too many exchanges wait here: incoming_exchanges_max is reached";
            exchange.refuse(Refused::new(ErrorCode::Overloaded, Dispatched::No, text)).await;
        }
        Err(TrySendError::Closed(exchange)) => {
            let text = "the gateway takes nothing any more";
            exchange.refuse(Refused::new(ErrorCode::Draining, Dispatched::No, text)).await;
        }
    }
}

/// What the tunnel itself refuses; services and policies are the gateway's.
fn judge_open(shared: &Shared, link: &Link, open: &Open) -> Result<(), Refused> {
    let refuse = |code, text: &str| Err(Refused::new(code, Dispatched::No, text));
    let identity = shared.identity.load();
    let owner = identity.owners.owner(open.source.trust_domain());
    if owner != Some(&link.peer.cluster) {
        let text = format!(
            "OPEN.source = {}: its trust domain does not belong to cluster {:?}: assert identities \
             of your own trust domains only",
            open.source, link.peer.cluster
        );
        return refuse(ErrorCode::BadIdentity, &text);
    }
    if open.unattested && open.source != link.peer.spiffe_id {
        let text = format!(
            "OPEN.source = {}: an unattested caller travels as its gateway, {}: send that",
            open.source, link.peer.spiffe_id
        );
        return refuse(ErrorCode::BadIdentity, &text);
    }
    if open.kind == StreamKind::Udp {
        return refuse(
            ErrorCode::UnsupportedKind,
            "OPEN.kind = udp: flows are not served: use tcp",
        );
    }
    if shared.has_ended_accepting() {
        return refuse(ErrorCode::Draining, "the gateway is draining: use another one");
    }
    Ok(())
}

async fn answer_bad_open(send: &mut SendStream, reader: &FrameReader, error: &StreamError) {
    match error.kind {
        StreamErrorKind::Malformed | StreamErrorKind::Timeout | StreamErrorKind::Truncated => {
            let refused = Refused::new(error.code, Dispatched::No, error.text());
            refuse_stream(send, &refused).await;
            reader.stop(StreamReset::new(error.code, Dispatched::No));
        }
        // The peer gave it up, or the connection ended: there is nobody to be told.
        _ => {
            let reset = StreamReset::new(ErrorCode::Cancelled, Dispatched::No);
            send.reset(stream_code(reset));
        }
    }
}

/// Takes the streams that directions of exchanges move to.
pub(crate) async fn accept_resumes(shared: Arc<Shared>, link: Arc<Link>) {
    let mut arriving = FuturesUnordered::new();
    loop {
        tokio::select! {
            stream = link.connection.accept_uni() => {
                let Ok(stream) = stream else { break };
                arriving.push(take_resume(&shared, &link, stream));
            }
            Some(()) = arriving.next() => {}
        }
    }
    shared.resumes.forget_link(&link);
}

async fn take_resume(shared: &Arc<Shared>, link: &Arc<Link>, mut stream: RecvStream) {
    let stop = |stream: &mut RecvStream, code| {
        stream.stop(stream_code(StreamReset::new(code, Dispatched::Maybe)));
    };
    let (token, decoder) = match timeout(OPEN_TIMEOUT, read_resume(&mut stream)).await {
        Ok(Ok(resume)) => resume,
        Ok(Err(code)) => return stop(&mut stream, code),
        Err(_) => return stop(&mut stream, ErrorCode::ResumeTimeout),
    };
    let gateway = link.peer.gateway;
    let resumed = Resumed { stream, decoder, link: Arc::clone(link) };
    match shared.resumes.arrive(token, resumed) {
        Ok(false) => {}
        Ok(true) => {
            tokio::time::sleep(RESUME_TIMEOUT).await;
            if let Some(mut unclaimed) = shared.resumes.expire(gateway, token) {
                stop(&mut unclaimed.stream, ErrorCode::ResumeTimeout);
            }
        }
        Err(unwanted) => {
            let code = unwanted.code();
            let mut resumed = unwanted.resumed;
            stop(&mut resumed.stream, code);
        }
    }
}

async fn read_resume(stream: &mut RecvStream) -> Result<(MoveToken, FrameDecoder), ErrorCode> {
    let mut decoder = FrameDecoder::new();
    loop {
        match decoder.next() {
            Ok(Some(Frame::Resume(token))) => return Ok((token, decoder)),
            Ok(Some(_)) => return Err(ErrorCode::FrameOutOfOrder),
            Ok(None) => {}
            Err(error) => return Err(error.code()),
        }
        match stream.read_chunk(RESUME_CHUNK_BYTES).await {
            Ok(Some(chunk)) => decoder.push(chunk),
            Ok(None) => return Err(ErrorCode::Truncated),
            Err(_) => return Err(ErrorCode::Cancelled),
        }
    }
}

/// RESUME is 18 bytes; what lies behind it in the same chunk is kept for the reader.
const RESUME_CHUNK_BYTES: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_counted_by_source_network_and_forgotten() {
        let under_way = Arc::new(UnderWay::default());
        let enter = |text: &str| under_way.enter(text.parse().unwrap());
        let first = enter("2001:db8:1:2::1");
        let second = enter("2001:db8:1:2:ffff::9");
        assert_eq!((second.all, second.of_source), (2, 2));
        let mapped = enter("::ffff:192.0.2.7");
        let plain = enter("192.0.2.7");
        assert_eq!((plain.all, plain.of_source), (4, 2), "{:?}", mapped.source);
        drop((first, second, mapped));
        assert_eq!(enter("2001:db8:1:2::1").of_source, 1);
        drop(plain);
        assert!(under_way.by_source.lock().unwrap().is_empty());
    }
}
