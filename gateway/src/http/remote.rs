//! Forwarding to a peer cluster: one tunnel stream per attempt.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use model::ClusterName;
use tokio::sync::oneshot;
use tunnel::{Exchange as Stream, Part, RecvHalf, SendHalf, StreamError, StreamErrorKind};
use wire::tunnel::limits::{BULK_LENGTH_BYTES_MIN, DATA_BYTES_MAX};
use wire::tunnel::{
    Dispatched, EncodeError, ErrorCode, Head, Open, ResponseHead, encode_request_head,
};

use super::exchange::{ResponseSource, Served, content_length};
use super::filters;
use super::outgoing::Outgoing;
use super::upgrade::Switch;
use crate::access_log::{Record, Role};
use crate::body::{AttemptBody, BodyError, TunnelBody};
use crate::error::{Kind, ProxyError};
use crate::limits::UNOPENED_BYTES_MAX;
use crate::worker::WorkerState;

pub(super) async fn forward(
    worker: &Arc<WorkerState>,
    outgoing: &mut Outgoing,
    cluster: &ClusterName,
    open: &Open,
    record: &mut Record,
) -> Result<Served, ProxyError> {
    let (head, mut recv, send) = {
        let outgoing: &Outgoing = outgoing;
        outgoing.in_time(exchange_heads(worker, outgoing, cluster, open, record)).await?
    };
    let ResponseHead { status, mut headers } = head;
    if let (Some(send), true) = (send, status.is_success()) {
        let switch = Switch::to_tunnel(outgoing, send, recv, &mut headers)?;
        let (status, source) =
            (StatusCode::SWITCHING_PROTOCOLS, ResponseSource::Switching(Box::new(switch)));
        return Ok(Served { status, headers, source, lease: None, returning: None });
    }
    filters::apply_to_response(&mut headers);
    let bodiless = outgoing.method == Method::HEAD
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let promised = if bodiless { Some(0) } else { content_length(&headers) };
    let body = match promised {
        // hyper does not read what it need not write, so the stream's end is read here.
        Some(0) => {
            let end = outgoing
                .in_time(async { recv.next().await.map_err(|error| stream_failure(&error)) });
            let end = end.await?;
            TunnelBody::after(end, recv)
        }
        promised => TunnelBody::new(recv, promised),
    };
    let source = ResponseSource::Tunnel(body);
    Ok(Served { status, headers, source, lease: None, returning: None })
}

/// Opens the stream, sends the request, and waits for the response's head. The sending half comes
/// back for an upgrade; else the request's body is on its way by itself.
async fn exchange_heads(
    worker: &WorkerState,
    outgoing: &Outgoing,
    cluster: &ClusterName,
    open: &Open,
    record: &mut Record,
) -> Result<(ResponseHead, RecvHalf, Option<SendHalf>), ProxyError> {
    let tunnel = worker.tunnel()?;
    let bulk = outgoing.body.declared_bytes().is_some_and(|bytes| bytes >= BULK_LENGTH_BYTES_MIN);
    let stream = match bulk {
        true => tunnel.open_bulk(cluster, open).await,
        false => tunnel.open(cluster, open).await,
    };
    let stream = stream.map_err(|error| open_failure(&error))?;
    record.transport = Some(stream.transport());
    let Stream { mut send, mut recv } = stream;
    // If the peer refuses while we write, its answer says more than the failed write.
    let written = send.request_head(&outgoing.to_head()).await;
    let mut upgrade = None;
    let (opened, body_may_flow) = oneshot::channel();
    if written.is_ok() {
        match outgoing.body.attempt() {
            _ if outgoing.upgrade.is_some() => upgrade = Some(send),
            Some(body) => {
                send.expect_bytes(outgoing.body.declared_bytes());
                tokio::spawn(send_body(send, body, body_may_flow));
            }
            None => {
                let _ = send.end().await; // see above
            }
        }
    }
    if let Err(error) = &written
        && error.kind == StreamErrorKind::Local
    {
        return Err(head_failure(error, outgoing));
    }
    match recv.opened().await {
        Ok(Ok(())) => {}
        Ok(Err(refused)) => return Err(ProxyError::refused(&refused)),
        Err(error) => return Err(stream_failure(&error)),
    }
    written.map_err(|error| head_failure(&error, outgoing))?;
    let _ = opened.send(()); // nobody waits when there is no body
    while let Part::Head(head) = recv.next().await.map_err(|error| stream_failure(&error))? {
        match *head {
            Head::Response(head) if head.is_interim() => {} // our client got its own
            Head::Response(head) => return Ok((head, recv, upgrade)),
            Head::Request(_) => break,
        }
    }
    let detail = "the peer answered with something else than a response's head";
    Err(ProxyError::maybe_sent(Kind::PeerProtocol, detail))
}

/// Until the peer has said that it serves the request, no more is sent than can be sent again.
async fn send_body(mut send: SendHalf, mut body: AttemptBody, opened: oneshot::Receiver<()>) {
    let (mut opened, mut sent_bytes) = (Some(opened), 0);
    loop {
        if sent_bytes >= UNOPENED_BYTES_MAX
            && let Some(opened) = opened.take()
            && opened.await.is_err()
        {
            return send.reset(ErrorCode::Cancelled, Dispatched::No);
        }
        let written = match body.frame().await {
            None => {
                let _ = send.end().await; // a peer that is gone shows on the response's side
                return;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    sent_bytes += data.len();
                    send_data(&mut send, data).await
                }
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => send.trailers(&trailers).await,
                    Err(_) => Ok(()),
                },
            },
            Some(Err(BodyError::Superseded)) => {
                return send.reset(ErrorCode::Cancelled, Dispatched::No);
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "a request's body ended early");
                return send.reset(ErrorCode::Cancelled, Dispatched::Maybe);
            }
        };
        if written.is_err() {
            return; // the peer wants no more of it, and the response's side says why
        }
    }
}

/// Sends data in pieces that fit a frame.
pub(crate) async fn send_data(send: &mut SendHalf, mut data: Bytes) -> Result<(), StreamError> {
    while data.len() > DATA_BYTES_MAX {
        send.data(data.split_to(DATA_BYTES_MAX)).await?;
    }
    if data.is_empty() { Ok(()) } else { send.data(data).await }
}

pub(crate) fn open_failure(error: &tunnel::OpenError) -> ProxyError {
    let kind = match Kind::of_code(error.code()) {
        Kind::TunnelLost => Kind::TunnelDown, // nothing was on it yet
        kind => kind,
    };
    ProxyError::unsent(kind, error.to_string())
}

/// A head that tunnel v1 cannot carry is the client's to mend (tunnel.md §5.1).
fn head_failure(error: &StreamError, outgoing: &Outgoing) -> ProxyError {
    if error.kind != StreamErrorKind::Local {
        return stream_failure(error);
    }
    let kind = match encode_request_head(&outgoing.to_head(), &mut BytesMut::new()) {
        Err(EncodeError::TooLarge { .. } | EncodeError::TooManyFields { .. }) => Kind::HeadTooLarge,
        _ => Kind::BadRequest,
    };
    ProxyError::unsent(kind, error.to_string())
}

pub(crate) fn stream_failure(error: &StreamError) -> ProxyError {
    ProxyError::of_stream(error, Role::Source)
}
