//! What an endpoint may answer, and that the last good bundle outlasts it.

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::limits::BUNDLE_BODY_BYTES_MAX;

/// Answers each connection, once its request is there, with the bytes that come next; endlessly with
/// the last block if `endless`.
async fn scripted(world: &World, answers: Vec<(Vec<u8>, bool)>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = identity::spiffe_endpoint_config(world.cell.clone());
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        for (answer, endless) in answers {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let mut sent = stream.write_all(&answer).await;
            while endless && sent.is_ok() {
                sent = stream.write_all(&[b' '; 16 * 1024]).await;
            }
            let _ = stream.shutdown().await;
        }
    });
    address
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn document(bundle: &TrustBundle) -> Vec<u8> {
    ok(format_bundle(bundle).unwrap().as_bytes())
}

#[tokio::test]
async fn whatever_is_answered_the_last_good_bundle_stays() {
    let world = World::new();
    let answer = |text: &str| text.as_bytes().to_vec();
    let rows = [
        (answer("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"), false, "answered 500"),
        (
            answer("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\n\r\n"),
            false,
            "redirects are not followed",
        ),
        (answer("HTTP/1.1 204 None\r\n\r\n"), false, "answered 204"),
        (answer("SSH-2.0-OpenSSH_9.2\r\n"), false, "the answer cannot be read"),
        (answer(""), false, "the answer cannot be read"),
        (answer("HTTP/1.1 200 OK\r\nx: "), true, "the answer cannot be read"),
        (ok(b"<html>"), false, "the answer is no bundle"),
        (ok(b"{}"), false, "bundle.keys = (absent)"),
        (ok(b"{\"keys\": [], \"spiffe_sequence\": -1}"), false, "spiffe_sequence"),
        (ok(&[0xff; 64]), false, "it is not UTF-8"),
        (answer("HTTP/1.1 200 OK\r\n\r\n"), true, "the answer has more than 1048576 bytes"),
        (
            answer("HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n"),
            true,
            "the answer has more than 1048576 bytes",
        ),
        (ok(&vec![b' '; BUNDLE_BODY_BYTES_MAX + 1]), false, "the answer has more than"),
        (answer("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"), false, "cannot be read"),
    ];
    let answers = rows.iter().map(|(answer, endless, _)| (answer.clone(), *endless)).collect();
    let address = scripted(&world, answers).await;
    let source = world.by_spiffe(address, NODE);
    let kept = world.keep(&source);
    for (answer, _, wanted) in rows {
        let error = poll_once(&source, &kept).await.unwrap_err();
        let answer = String::from_utf8_lossy(&answer).chars().take(60).collect::<String>();
        assert!(error.to_string().contains(wanted), "{answer:?} gives {error}, not {wanted}");
        assert_eq!(error.code(), code::BUNDLE_ENDPOINT_FAILED, "{answer:?}");
        assert_eq!(in_force(&kept), Some(world.ca.bundle()), "{answer:?}");
        assert_eq!(told(&kept), [code::BUNDLE_ENDPOINT_FAILED], "{answer:?}");
    }
}

#[tokio::test]
async fn a_lower_sequence_is_refused_and_told_over_a_restart_too() {
    let world = World::new();
    world.ca.prepare(SystemTime::now()).unwrap();
    let whole = world.ca.bundle();
    let [one, two] = [0, 1].map(|index| vec![whole.x509_authorities[index].clone()]);
    let bundle = |sequence, authorities: &Vec<Vec<u8>>| TrustBundle {
        sequence,
        x509_authorities: authorities.clone(),
        ..whole.clone()
    };
    let last = whole.sequence + 10;
    let good = bundle(last, &one);
    let answers = [
        bundle(last - 1, &two),
        good.clone(),
        bundle(last - 1, &two),
        bundle(last, &two),
        bundle(0, &two),
        bundle(last - 1, &two),
        bundle(last + 1, &whole.x509_authorities),
    ];
    let answers = answers.iter().map(|bundle| (document(bundle), false)).collect();
    let source = world.by_spiffe(scripted(&world, answers).await, NODE);
    // Who remembers nothing takes it.
    let new = Kept::open(world.path("new"), std::slice::from_ref(&source)).unwrap();
    poll_once(&source, &new).await.unwrap();
    assert_eq!(in_force(&new), Some(bundle(last - 1, &two)));
    let kept = world.keep(&source);
    poll_once(&source, &kept).await.unwrap();
    assert_eq!(in_force(&kept), Some(good.clone()));
    for what in ["lower", "another content of the same", "none"] {
        let error = poll_once(&source, &kept).await.unwrap_err();
        assert_eq!(error.code(), code::BUNDLE_ROLLBACK, "{what}: {error}");
        assert_eq!((in_force(&kept), told(&kept)), (Some(good.clone()), vec![error.code()]));
    }
    let kept = world.keep(&source);
    assert_eq!((in_force(&kept), told(&kept)), (Some(good.clone()), vec![]));
    let error = poll_once(&source, &kept).await.unwrap_err();
    assert_eq!(error.code(), code::BUNDLE_ROLLBACK, "{error}");
    assert_eq!(poll_once(&source, &kept).await.unwrap(), BundleChange::Replaced);
    assert_eq!((in_force(&kept).unwrap().sequence, told(&kept)), (last + 1, vec![]));
}

#[tokio::test]
async fn a_bundle_without_keys_revokes_them_all_and_is_told() {
    let world = World::new();
    let (sequence, whole) = (world.ca.bundle().sequence + 1, world.ca.bundle());
    let empty = TrustBundle { sequence, x509_authorities: Vec::new(), ..whole };
    let source = world.by_spiffe(scripted(&world, vec![(document(&empty), false)]).await, NODE);
    let kept = world.keep(&source);
    poll_once(&source, &kept).await.unwrap();
    assert_eq!((in_force(&kept), told(&kept)), (Some(empty), vec![code::AUTHORITY_EXPIRED]));
}

/// Time passes as soon as nothing else is to be done.
#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_given_up() {
    let world = World::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = world.by_spiffe(silent.local_addr().unwrap(), NODE);
    let kept = world.keep(&source);
    let error = poll_once(&source, &kept).await.unwrap_err();
    assert!(error.to_string().contains("took longer than 15s"), "{error}");
    assert_eq!(in_force(&kept), Some(world.ca.bundle()));
}
