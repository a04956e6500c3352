//! A TCP connection from a peer, into an endpoint of this cluster.

use tokio::net::TcpStream;
use tunnel::{Exchange as Stream, IncomingExchange};
use wire::tunnel::ErrorCode;

use super::{Endpoints, refuse_in_place, stream_failure};
use crate::access_log::{LogEntry, Role};
use crate::balance::EndpointLease;
use crate::error::{Kind, ProxyError};
use crate::splice::{self, Counts};
use crate::tcp::reset;
use crate::upstream::connect_tcp;
use crate::worker::WorkerState;

/// Connects first and opens then: a refusal after `Opened` could not be tried elsewhere.
pub(super) async fn serve(worker: &WorkerState, incoming: IncomingExchange, entry: &mut LogEntry) {
    let (mut endpoint, _lease) = match connect(worker, &incoming, entry).await {
        Ok(connected) => connected,
        Err(error) => return refuse_in_place(incoming, entry, &error).await,
    };
    let Stream { send, recv } = match incoming.accept().await {
        Ok(stream) => stream,
        Err(error) => {
            reset(&endpoint);
            return entry.fail(&stream_failure(&error));
        }
    };
    let counts = Counts::default();
    let code = ErrorCode::UpstreamReset;
    let outcome = {
        let (read, write) = endpoint.split();
        splice::to_endpoint(read, write, send, recv, &counts, code).await
    };
    let record = entry.record();
    (record.received_bytes, record.sent_bytes) = (counts.forward(), counts.backward());
    match outcome {
        Ok(()) => entry.succeed(),
        Err(error) => {
            reset(&endpoint);
            entry.fail(&error.to_proxy_error(Role::Destination));
        }
    }
}

async fn connect(
    worker: &WorkerState,
    incoming: &IncomingExchange,
    entry: &mut LogEntry,
) -> Result<(TcpStream, EndpointLease), ProxyError> {
    let gateway = &worker.gateway;
    let mut endpoints = Endpoints::new(gateway, &incoming.open);
    loop {
        let lease = endpoints.pick()?;
        entry.record().upstream = Some(lease.address());
        gateway.check_endpoint(lease.address())?;
        let began = gateway.now();
        match connect_tcp(lease.address()).await {
            Ok(stream) => {
                let now = gateway.now();
                lease.measure(now.saturating_sub(began), now);
                return Ok((stream, lease));
            }
            Err(error) => {
                let error = ProxyError::unsent(Kind::ConnectFailed, error.to_string());
                endpoints.failed(&lease, error)?;
            }
        }
    }
}
