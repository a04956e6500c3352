//! The outside client itself: it reports one injected failure of each kind, and nothing else.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use testkit::outside::{Failure, Outside, Target};

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
const CHUNKED: &[u8] =
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n4\r\nllo\n\r\n0\r\n\r\n";
const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\nhello\n";
const HALF_A_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Le";
const HALF_A_CHUNK: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhel";
const NO_LAST_CHUNK: &[u8] =
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello\n\r\n";
const REFUSAL: &[u8] = b"HTTP/1.1 503 No\r\nx-fed-code: FED2001\r\nContent-Length: 2\r\n\r\nno";
const OTHER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbye\n";
const ENDLESS: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nhello\n";

/// What a server does with one connection.
#[derive(Clone, Copy)]
enum Deed {
    Say(&'static [u8]),
    /// Unread bytes make the kernel send RST.
    Reset,
    /// Closes without a word, which is no RST.
    Close,
    /// Keeps the connection and says nothing.
    Hang,
}

/// Does one after the other, then refuses connections: its port is nobody's.
fn server(deeds: Vec<Deed>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut hung, mut listener) = (Vec::new(), Some(listener));
        for (number, deed) in (1..).zip(&deeds) {
            let (stream, _) = listener.as_ref().unwrap().accept().unwrap();
            if number == deeds.len() {
                // Before the last answer: who asks again after it is refused for certain.
                listener = None;
            }
            hung.extend(answer(stream, *deed));
        }
        // Held until the client has given up.
        for mut stream in hung {
            let _closed = stream.read(&mut [0; 1]);
        }
    });
    address
}

fn answer(mut stream: TcpStream, deed: Deed) -> Option<TcpStream> {
    let mut request = [0; 1024];
    stream.peek(&mut request).unwrap();
    if matches!(deed, Deed::Reset) {
        return None;
    }
    let length = stream.read(&mut request).unwrap();
    assert!(request[..length].ends_with(b"\r\n\r\n"), "a request in one piece");
    match deed {
        Deed::Say(bytes) => stream.write_all(bytes).unwrap(),
        Deed::Hang => return Some(stream),
        Deed::Reset | Deed::Close => {}
    }
    None
}

fn target(address: SocketAddr) -> Target {
    let mut target = Target::new(address, "api");
    target.body = Some("hello".into());
    target.limit = Duration::from_millis(300);
    target
}

#[test]
fn one_failure_of_each_kind_is_reported_as_what_it_is() {
    let good = Deed::Say(GOOD);
    let cases = [
        (Deed::Reset, Failure::Reset, "reset"),
        (Deed::Close, Failure::Reset, "was closed"),
        (Deed::Hang, Failure::TimedOut, ""),
        (Deed::Say(HALF), Failure::Truncated, "was closed"),
        (Deed::Say(HALF_A_HEAD), Failure::Truncated, "was closed"),
        (Deed::Say(HALF_A_CHUNK), Failure::Truncated, "was closed"),
        (Deed::Say(NO_LAST_CHUNK), Failure::Truncated, "was closed"),
        (Deed::Say(REFUSAL), Failure::Status, "FED2001"),
        (Deed::Say(OTHER), Failure::Wrong, "bye"),
        (Deed::Say(ENDLESS), Failure::Wrong, "no length"),
    ];
    for (deed, failure, text) in cases {
        let target = target(server(vec![good, Deed::Say(CHUNKED), deed, good]));
        let mut outcomes = (0..5).map(|_| target.get());
        assert_eq!(outcomes.next().unwrap(), Ok("hello".into()));
        assert_eq!(outcomes.next().unwrap(), Ok("hello".into()));
        let missed = outcomes.next().unwrap().unwrap_err();
        assert_eq!(missed.failure, failure, "{missed}");
        assert!(missed.text.contains(text), "{missed}");
        assert_eq!(outcomes.next().unwrap(), Ok("hello".into()));
        assert_eq!(outcomes.next().unwrap().unwrap_err().failure, Failure::Refused);
    }
}

#[test]
fn a_client_at_work_counts_all_of_them() {
    let mut deeds = vec![Deed::Say(GOOD); 40];
    deeds[10] = Deed::Reset;
    deeds[15] = Deed::Hang;
    deeds[20] = Deed::Say(HALF);
    deeds[25] = Deed::Say(REFUSAL);
    deeds[30] = Deed::Say(OTHER);
    let outside = Outside::start(&target(server(deeds)), 1);
    outside.more(45);
    let ledger = outside.end();
    let kinds =
        [Failure::Reset, Failure::TimedOut, Failure::Truncated, Failure::Status, Failure::Wrong];
    assert_eq!(kinds.map(|kind| ledger.count(kind)), [1; 5], "{ledger}");
    assert_eq!(ledger.good, 35, "{ledger}");
    assert_eq!(ledger.count(Failure::Refused), ledger.requests - 40, "{ledger}");
    assert!(ledger.count(Failure::Refused) >= 5, "{ledger}");
    assert!(std::panic::catch_unwind(|| ledger.assert_clean()).is_err());
}

/// A connection that stands is used again, and one that was closed under a request is a failure.
#[test]
fn nothing_is_tried_again_in_silence() {
    let address = server(vec![Deed::Say(GOOD); 6]);
    let mut target = target(address);
    target.per_connection = 2;
    let outside = Outside::start(&target, 1);
    outside.more(6);
    let ledger = outside.end();
    let reset = ledger.count(Failure::Reset);
    assert!(reset >= 2 && ledger.good.abs_diff(reset) <= 1, "{ledger}");
}
