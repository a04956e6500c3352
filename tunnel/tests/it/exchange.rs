//! Exchanges as a gateway uses them.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tunnel::{Part, StreamErrorKind};
use wire::tunnel::{Dispatched, ErrorCode, Head, RequestHead, StreamKind};

use crate::site::{Checksum, Options, Site, ask, pair, pattern, read_pattern, relayed, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_side_opens_tcp_exchanges() {
    let (east, west) = pair(Options::default).await;
    for (from, to) in [(&east, &west), (&west, &east)] {
        let mut exchange = from.open(to, "echo", StreamKind::Tcp).await;
        assert_eq!(exchange.recv.opened().await.unwrap(), Ok(()));
        assert_eq!(exchange.peer().cluster, to.cluster.name);
        for round in 0..3_u8 {
            exchange.send.data(Bytes::from(vec![round; 100])).await.unwrap();
            let mut got = Vec::new();
            while got.len() < 100 {
                let Part::Data(data) = exchange.recv.next().await.unwrap() else { panic!() };
                got.extend_from_slice(&data);
            }
            assert_eq!(got, [round; 100]);
        }
        // A half-close: the other direction ends by itself.
        exchange.send.end().await.unwrap();
        assert!(matches!(exchange.recv.next().await.unwrap(), Part::End));
        assert!(matches!(exchange.recv.next().await.unwrap(), Part::End), "and again");
        let error = exchange.send.data(Bytes::from_static(b"late")).await.unwrap_err();
        assert_eq!(error.kind, StreamErrorKind::Local);
    }
    wait_for("no exchange open", || east.tunnel.in_flight() + west.tunnel.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_with_trailers_and_a_response_to_head_without_a_body() {
    let (east, west) = pair(Options::default).await;
    let mut exchange = east.open(&west, "echo", StreamKind::Http).await;
    let mut headers = HeaderMap::new();
    headers.insert("x-question", HeaderValue::from_static("why"));
    let request = RequestHead {
        method: Method::POST,
        uri: "http://api.test/ask?x=1".parse().unwrap(),
        protocol: None,
        headers,
    };
    exchange.send.request_head(&request).await.unwrap();
    exchange.send.data(Bytes::from_static(b"body")).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    exchange.send.trailers(&trailers).await.unwrap();
    exchange.send.end().await.unwrap();

    let Part::Head(head) = exchange.recv.next().await.unwrap() else { panic!("no head") };
    let Head::Response(response) = *head else { panic!("not a response") };
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(response.headers["x-question"], "why");
    let Part::Data(body) = exchange.recv.next().await.unwrap() else { panic!("no body") };
    assert_eq!(body, "body");
    let Part::Trailers(back) = exchange.recv.next().await.unwrap() else { panic!("no trailers") };
    assert_eq!(*back, trailers);
    assert!(matches!(exchange.recv.next().await.unwrap(), Part::End));

    // The length that a response to HEAD states is not one of a body that follows.
    let mut exchange = east.open(&west, "echo", StreamKind::Http).await;
    let mut headers = HeaderMap::new();
    headers.insert("content-length", HeaderValue::from_static("0"));
    let request = RequestHead { method: Method::HEAD, headers, ..request };
    exchange.send.request_head(&request).await.unwrap();
    exchange.send.end().await.unwrap();
    assert!(matches!(exchange.recv.next().await.unwrap(), Part::Head(_)));
    assert!(matches!(exchange.recv.next().await.unwrap(), Part::End));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_and_resets_say_whether_anything_was_dispatched() {
    let (east, west) = pair(Options::default).await;
    let mut exchange = east.open(&west, "refuse", StreamKind::Tcp).await;
    let refused = exchange.recv.opened().await.unwrap().unwrap_err();
    assert_eq!((refused.code, refused.dispatched), (ErrorCode::NoReadyEndpoint, Dispatched::No));
    assert_eq!(refused.message, "nobody is ready");
    let stopped = exchange.send.stopped().await;
    assert_eq!(stopped.code, ErrorCode::NoReadyEndpoint);
    drop(exchange);

    let mut exchange = east.open(&west, "reset", StreamKind::Tcp).await;
    exchange.send.data(Bytes::from_static(b"x")).await.unwrap();
    let error = loop {
        if let Err(error) = exchange.recv.next().await {
            break error;
        }
    };
    assert_eq!(error.kind, StreamErrorKind::Reset);
    assert_eq!((error.code, error.dispatched), (ErrorCode::UpstreamReset, Dispatched::Yes));
    assert_eq!(error.to_string(), "the peer ended the stream: upstream_reset (dispatched: yes)");
    drop(exchange);

    // Dropped unfinished: the peer's reader is told, and so is its writer.
    let exchange = east.open(&west, "hold", StreamKind::Tcp).await;
    wait_for("the exchange", || west.tunnel.in_flight() == 1).await;
    drop(exchange);
    wait_for("its end here", || east.tunnel.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_open_claims_is_checked_against_the_certificate() {
    let (east, west) = pair(Options::default).await;
    let refused = async |change: fn(&mut wire::tunnel::Open, &Site)| {
        let mut open = east.open_for("echo", StreamKind::Tcp);
        change(&mut open, &west);
        let opened = east.workers[0].open(&west.cluster.name, &open).await;
        opened.unwrap().recv.opened().await.unwrap().unwrap_err()
    };
    let other = refused(|open, west| open.source = west.cluster.gateway_id("gw-0")).await;
    assert_eq!((other.code, other.dispatched), (ErrorCode::BadIdentity, Dispatched::No));
    let text = "OPEN.source = spiffe://west.fed/fedgate/gateway/gw-0: its trust domain does not \
                belong to cluster \"east\": assert identities of your own trust domains only";
    assert_eq!(other.message, text);
    let masked =
        refused(|open, _| open.source = "spiffe://east.fed/ns/a/sa/b".parse().unwrap()).await;
    assert_eq!(masked.code, ErrorCode::BadIdentity);
    assert!(masked.message.contains("an unattested caller travels as its gateway"), "{masked:?}");
    let flow = refused(|open, _| open.kind = StreamKind::Udp).await;
    assert_eq!(flow.code, ErrorCode::UnsupportedKind);
    // The guard is not simply always shut.
    let mut open = east.open_for("echo", StreamKind::Tcp);
    open.source = "spiffe://east.fed/ns/a/sa/b".parse().unwrap();
    open.unattested = false;
    let mut exchange = east.workers[0].open(&west.cluster.name, &open).await.unwrap();
    assert_eq!(exchange.recv.opened().await.unwrap(), Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_drains_serves_for_a_moment_and_lets_old_exchanges_end() {
    let (east, west) = pair(Options::default).await;
    let mut old = east.open(&west, "echo", StreamKind::Tcp).await;
    assert_eq!(old.recv.opened().await.unwrap(), Ok(()));
    west.tunnel.start_drain(std::time::Duration::from_secs(10));
    let told = || east.tunnel.path(&west.cluster.name).is_some_and(|path| path.draining);
    wait_for("DRAIN", told).await;
    // There is no other gateway: it is used until it says no.
    ask(&east, &west).await.unwrap();
    west.tunnel.end_accepting();
    let mut late = east.open(&west, "echo", StreamKind::Tcp).await;
    let refused = late.recv.opened().await.unwrap().unwrap_err();
    assert_eq!((refused.code, refused.dispatched), (ErrorCode::Draining, Dispatched::No));
    old.send.data(Bytes::from_static(b"still here")).await.unwrap();
    let Part::Data(data) = old.recv.next().await.unwrap() else { panic!() };
    assert_eq!(data, "still here");
    let drained = tokio::spawn({
        let tunnel = west.tunnel.clone();
        async move { tunnel.drained().await }
    });
    old.send.end().await.unwrap();
    assert!(matches!(old.recv.next().await.unwrap(), Part::End));
    drop(old);
    tokio::time::timeout(crate::site::LONG, drained).await.unwrap().unwrap();
}

/// The last bytes are on their way for a while after they were handed over. The longer body goes on on a
/// bulk connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_until_what_was_sent_has_arrived() {
    for bytes in [200_000_u64, 4_000_000] {
        let path = wan::Impairment::delayed(std::time::Duration::from_millis(50));
        let (east, west, _relay) = relayed(path, Options::default).await;
        let service = format!("source-{bytes}");
        let mut exchange = east.open(&west, &service, StreamKind::Tcp).await;
        assert_eq!(exchange.recv.opened().await.unwrap(), Ok(()));
        let read = tokio::spawn(async move { read_pattern(&mut exchange).await });
        west.tunnel.start_drain(std::time::Duration::from_secs(10));
        west.tunnel.end_accepting();
        tokio::time::timeout(crate::site::LONG, west.tunnel.drained()).await.unwrap();
        west.tunnel.close();
        assert_eq!(read.await.unwrap().unwrap(), bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_worker_borrows_a_siblings_connection() {
    // West has four workers, of which east's one dials into at most one.
    let (east, west) = (crate::site::Cluster::new("east"), crate::site::Cluster::new("west"));
    let all = [&east, &west];
    let east = Site::start(&east, &all, Options::default());
    let west = Site::start(&west, &all, Options { workers: 4, ..Options::default() });
    east.tunnel.set_peers(vec![west.peer()]);
    west.tunnel.set_peers(vec![east.cluster.peer(&[])]);
    west.reaches(&east).await;
    for worker in &west.workers {
        let open = west.open_for("echo", StreamKind::Tcp);
        let mut exchange = worker.open(&east.cluster.name, &open).await.unwrap();
        assert_eq!(exchange.recv.opened().await.unwrap(), Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_exchanges_of_random_sizes_both_ways() {
    let (east, west) = pair(|| Options { workers: 2, ..Options::default() }).await;
    let (east, west) = (std::sync::Arc::new(east), std::sync::Arc::new(west));
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..32_u64 {
        let (from, to) = if seed % 2 == 0 { (&east, &west) } else { (&west, &east) };
        let (from, to) = (std::sync::Arc::clone(from), std::sync::Arc::clone(to));
        tasks.spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            for _ in 0..64 {
                let worker = &from.workers[rng.random_range(0..2)];
                let open = from.open_for("sink", StreamKind::Tcp);
                let mut exchange = worker.open(&to.cluster.name, &open).await.unwrap();
                let bytes = 1_u64 << rng.random_range(0..17);
                let mut sum = Checksum::default();
                let mut offset = 0;
                while offset < bytes {
                    let length = rng.random_range(1..=(bytes - offset).min(20_000)) as usize;
                    let piece = pattern(offset, length);
                    sum.add(&piece);
                    exchange.send.data(piece).await.unwrap();
                    offset += length as u64;
                }
                exchange.send.end().await.unwrap();
                let mut answer = Vec::new();
                while let Part::Data(data) = exchange.recv.next().await.unwrap() {
                    answer.extend_from_slice(&data);
                }
                assert_eq!(answer, sum.finish());
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(east.tunnel.counters().exchanges_opened, 16 * 64);
    ask(&east, &west).await.unwrap();
}
