//! The task of a connection: it moves HTTP/2's frames, measures the path, and gives an idle peer up.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::FuturesUnordered;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Ping, PingPong, Reason};
use http::{Request, Response, StatusCode};
use quinn::ConnectionError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use super::stream::{Source, Stream};
use super::terms::Terms;
use super::{BEGIN, Core, Halves, OFFER, Offers, request};
use crate::limits::{TCP_CLOSE_TIMEOUT, TCP_OFFERS_IDLE, TCP_PING_INTERVAL};

/// Where streams of the peer go, and how many of them may be open.
pub(super) struct Inbox {
    pub(super) terms: Terms,
    pub(super) accepted: mpsc::Sender<Halves>,
    pub(super) places: Arc<Semaphore>,
    /// Streams to be held until they are over.
    pub(super) lingering: mpsc::Receiver<Arc<Stream>>,
}

/// Runs the dialler's side until the connection's end.
pub(super) async fn run_dialler<S>(
    core: Arc<Core>,
    mut connection: h2::client::Connection<S, Bytes>,
    requests: SendRequest<Bytes>,
    authority: String,
    mut inbox: Inbox,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let _ends = Ends(Arc::clone(&core));
    let pings = connection.ping_pong();
    {
        let Inbox { terms, accepted, places, lingering } = &mut inbox;
        let slots =
            (0..terms.offers).map(|_| offer(&core, &requests, &authority, accepted, places));
        tokio::select! {
            ended = &mut connection => end(&core, ended),
            ended = try_join_all(slots), if terms.offers > 0 => end(&core, ended.map(|_| ())),
            () = watch(&core, pings, terms.silence_max) => {}
            () = hold(lingering) => {}
            () = core.ended.cancelled() => {}
        }
    }
    drop(requests);
    // What is left to be said is said; the peer hangs up when it has heard why.
    let _ = timeout(TCP_CLOSE_TIMEOUT, connection).await;
}

/// Keeps one stream open on which the listener may begin, again and again.
async fn offer(
    core: &Arc<Core>,
    requests: &SendRequest<Bytes>,
    authority: &str,
    accepted: &mpsc::Sender<Halves>,
    places: &Arc<Semaphore>,
) -> Result<(), h2::Error> {
    loop {
        let place = Arc::clone(places).acquire_owned().await;
        let mut requests = requests.clone().ready().await?;
        let (response, send) = requests.send_request(request(authority, OFFER), false)?;
        match response.await {
            Ok(answer) if answer.status() == StatusCode::OK => {
                let source = Source::Open(answer.into_body());
                let halves = Stream::open(core, send, source, place.ok());
                if accepted.send(halves).await.is_err() {
                    return Ok(()); // nobody takes them any more
                }
            }
            Ok(_) => return Ok(()),
            Err(error) if error.is_reset() => sleep(TCP_PING_INTERVAL).await,
            Err(error) => return Err(error),
        }
    }
}

/// Runs the listener's side until the connection's end.
pub(super) async fn run_listener<S>(
    core: Arc<Core>,
    mut connection: h2::server::Connection<S, Bytes>,
    offers: Arc<Offers>,
    mut inbox: Inbox,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let _ends = Ends(Arc::clone(&core));
    let pings = connection.ping_pong();
    {
        let Inbox { terms, accepted, places, lingering } = &mut inbox;
        let requests = async {
            while let Some(next) = connection.accept().await {
                let (request, respond) = next?;
                take(&core, request, respond, &offers, accepted, places);
            }
            Ok(())
        };
        tokio::select! {
            ended = requests => end(&core, ended),
            () = watch(&core, pings, terms.silence_max) => {}
            () = hold(lingering) => {}
            () = core.ended.cancelled() => {}
        }
    }
    let _ = timeout(TCP_CLOSE_TIMEOUT, poll_fn(|context| connection.poll_closed(context))).await;
}

/// A stream of the dialler's: begun by it, or left to us.
fn take(
    core: &Arc<Core>,
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    offers: &Offers,
    accepted: &mpsc::Sender<Halves>,
    places: &Arc<Semaphore>,
) {
    let path = request.uri().path().to_owned();
    let body = request.into_body();
    let place = Arc::clone(places).try_acquire_owned();
    match (path.as_str(), place) {
        (OFFER, _) if offers.lock().len() < TCP_OFFERS_IDLE * 2 => {
            offers.lock().push_back((body, respond));
            offers.arrived.notify_one();
        }
        (BEGIN, Ok(place)) => {
            let Ok(send) = respond.send_response(Response::new(()), false) else { return };
            let halves = Stream::open(core, send, Source::Open(body), Some(place));
            if let Err(refused) = accepted.try_send(halves) {
                drop(refused); // which lets the stream go
            }
        }
        _ => respond.send_reset(Reason::REFUSED_STREAM),
    }
}

fn end(core: &Core, ended: Result<(), h2::Error>) {
    match ended {
        Ok(()) => core.lost(ConnectionError::Reset),
        Err(error) => {
            core.end_by(&error);
        }
    }
}

/// Measures round trips; returns when the peer has been silent for too long.
async fn watch(core: &Core, pings: Option<PingPong>, silence_max: Duration) {
    tokio::select! {
        () = measure(core, pings) => {}
        () = give_up_silent(core, silence_max) => {}
    }
}

async fn measure(core: &Core, pings: Option<PingPong>) {
    if let Some(mut pings) = pings {
        loop {
            let sent = Instant::now();
            match pings.ping(Ping::opaque()).await {
                Ok(_) => core.rtt.observe(sent.elapsed()),
                Err(_) => break, // the connection's end is told elsewhere
            }
            sleep(TCP_PING_INTERVAL).await;
        }
    }
    pending::<()>().await;
}

async fn give_up_silent(core: &Core, silence_max: Duration) {
    let (mut received, mut heard_at) = (0, Instant::now());
    while heard_at.elapsed() < silence_max {
        sleep(TCP_PING_INTERVAL).await;
        let now = core.received.load(Ordering::Relaxed);
        if now != received {
            (received, heard_at) = (now, Instant::now());
        }
    }
    core.lost(ConnectionError::TimedOut);
}

/// Holds streams that nobody uses any more until the peer has ended them, too.
async fn hold(lingering: &mut mpsc::Receiver<Arc<Stream>>) {
    let mut held = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(stream) = lingering.recv() => held.push(stream.done()),
            Some(()) = held.next() => {}
            else => pending::<()>().await,
        }
    }
}

/// However the task ends, nobody waits for the connection any more.
struct Ends(Arc<Core>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.lost(ConnectionError::Reset);
    }
}
