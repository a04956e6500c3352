//! Forwarding to an endpoint of our own cluster.

use std::sync::Arc;

use model::AppProtocol;

use super::exchange::{ResponseSource, Served};
use super::filters;
use super::outgoing::Outgoing;
use super::upgrade::Switch;
use crate::balance::EndpointLease;
use crate::error::{Kind, ProxyError};
use crate::upstream::SendError;
use crate::worker::WorkerState;

/// Idle connections that closed under the request before another is not tried any more.
const STALE_CONNECTIONS_MAX: usize = 3;

pub(super) async fn forward(
    worker: &Arc<WorkerState>,
    outgoing: &mut Outgoing,
    lease: EndpointLease,
    protocol: AppProtocol,
) -> Result<Served, ProxyError> {
    if outgoing.upgrade.is_some() && protocol != AppProtocol::Http {
        let detail = "an upgrade needs an endpoint that speaks HTTP/1.1";
        return Err(ProxyError::unsent(Kind::MethodNotServed, detail));
    }
    let began = worker.gateway.now();
    let (response, returning) = {
        let outgoing: &Outgoing = outgoing;
        outgoing.in_time(send(worker, outgoing, &lease, protocol)).await?
    };
    let now = worker.gateway.now();
    lease.measure(now.saturating_sub(began), now);
    let (status, mut headers) = (response.status(), response.headers().clone());
    if status == http::StatusCode::SWITCHING_PROTOCOLS {
        let switch = Switch::to_endpoint(outgoing, response, &mut headers)?;
        let source = ResponseSource::Switching(Box::new(switch));
        return Ok(Served { status, headers, source, lease: Some(lease), returning: None });
    }
    filters::apply_to_response(&mut headers);
    let source = ResponseSource::Endpoint(response.into_body());
    Ok(Served { status, headers, source, lease: Some(lease), returning })
}

type Answer = (http::Response<hyper::body::Incoming>, Option<crate::upstream::Returning>);

async fn send(
    worker: &WorkerState,
    outgoing: &Outgoing,
    lease: &EndpointLease,
    protocol: AppProtocol,
) -> Result<Answer, ProxyError> {
    let mut stale = 0;
    if let Err(error) = worker.gateway.check_not_admin(lease.address()) {
        lease.connect_failed(worker.gateway.now());
        return Err(error);
    }
    loop {
        let connection = worker.pool.checkout(lease.address(), protocol).await;
        let connection = connection.map_err(|error| {
            lease.connect_failed(worker.gateway.now());
            ProxyError::unsent(Kind::ConnectFailed, error.to_string())
        })?;
        let mut request = outgoing.to_request();
        connection.address_request(&mut request, &outgoing.authority, &outgoing.path);
        match connection.send(request).await {
            Ok(answer) => return Ok(answer),
            Err(SendError { unsent: Some(_), .. }) if stale < STALE_CONNECTIONS_MAX => stale += 1,
            Err(SendError { unsent, source }) => {
                let detail = format!("no response from {}: {source}", lease.address());
                return Err(match unsent {
                    Some(_) => ProxyError::unsent(Kind::UpstreamReset, detail),
                    None => ProxyError::maybe_sent(Kind::UpstreamReset, detail),
                });
            }
        }
    }
}
