//! Real sockets on loopback. Waiting is on a packet or a counter, never on time alone.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use super::*;
use crate::capture;
use crate::{Impairment, Rate};

const PATIENCE: Duration = Duration::from_secs(20);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn socket() -> StdUdpSocket {
    bound("127.0.0.1:0")
}

fn bound(addr: &str) -> StdUdpSocket {
    let socket = bind_udp(addr.parse().unwrap()).unwrap();
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &StdUdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 70_000];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, source)) => {
                buffer.truncate(length);
                return (buffer, source);
            }
            // A signal came.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => panic!("no packet arrives: {error}"),
        }
    }
}

/// Nothing is readable now.
fn is_empty(socket: &StdUdpSocket) -> bool {
    socket.set_nonblocking(true).unwrap();
    let result = socket.recv_from(&mut [0; 2_000]);
    socket.set_nonblocking(false).unwrap();
    result.is_err()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::yield_now();
    }
}

/// west -> east and east -> west, targets being two sockets of ours.
struct Pair {
    relay: UdpRelay,
    west: StdUdpSocket,
    east: StdUdpSocket,
}

impl Pair {
    fn new(impairment: Impairment) -> Self {
        let (west, east) = (socket(), socket());
        let link = |from: &str, to: &str, target: &StdUdpSocket| {
            LinkConfig::new(from, to)
                .target(target.local_addr().unwrap())
                .impaired(impairment.clone())
        };
        let links = vec![link("west", "east", &east), link("east", "west", &west)];
        let relay = UdpRelay::spawn_thread(RelayConfig { links, seed: 7 }).unwrap();
        Self { relay, west, east }
    }

    fn to_east(&self) -> SocketAddr {
        self.relay.addr("west", "east").unwrap()
    }

    fn forward(&self) -> crate::Counters {
        self.relay.link_counters("west", "east").unwrap().forward
    }
}

#[test]
fn a_packet_goes_there_and_its_answer_back() {
    let pair = Pair::new(Impairment::default());
    pair.west.send_to(b"ping", pair.to_east()).unwrap();
    let (ping, source) = receive(&pair.east);
    assert_eq!(ping, b"ping");
    assert_ne!(source, pair.west.local_addr().unwrap());
    pair.east.send_to(b"pong", source).unwrap();
    assert_eq!(receive(&pair.west), (b"pong".to_vec(), pair.to_east()));

    let counters = pair.relay.link_counters("west", "east").unwrap();
    assert_eq!((counters.forward.received_packets, counters.forward.received_bytes), (1, 4));
    assert_eq!((counters.back.received_packets, counters.clients), (1, 1));
    let other = pair.relay.link_counters("east", "west").unwrap();
    assert_eq!(other.forward.received_packets + other.back.received_packets, 0);
}

#[tokio::test]
async fn it_runs_on_the_callers_runtime_too() {
    let east = tokio::net::UdpSocket::bind("[::1]:0").await.unwrap();
    let link = LinkConfig::new("west", "east")
        .listen(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)))
        .target(east.local_addr().unwrap())
        .impaired(Impairment::delayed(ms(15)));
    let relay = UdpRelay::spawn(RelayConfig { links: vec![link], seed: 0 }).unwrap();
    let west = tokio::net::UdpSocket::bind("[::1]:0").await.unwrap();
    let start = Instant::now();
    west.send_to(b"ping", relay.addr("west", "east").unwrap()).await.unwrap();
    let mut buffer = [0; 10];
    let (length, source) = east.recv_from(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..length], b"ping");
    assert!(start.elapsed() >= ms(14), "{:?}", start.elapsed());
    east.send_to(b"pong", source).await.unwrap();
    let (length, _) = west.recv_from(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..length], b"pong");
    assert!(start.elapsed() >= ms(28), "{:?}", start.elapsed());
}

#[test]
fn each_client_has_its_own_source_and_gets_its_own_answers() {
    let pair = Pair::new(Impairment::default());
    let second = socket();
    pair.west.send_to(b"first", pair.to_east()).unwrap();
    let (_, first_source) = receive(&pair.east);
    second.send_to(b"second", pair.to_east()).unwrap();
    let (_, second_source) = receive(&pair.east);
    assert_ne!(first_source, second_source);
    pair.east.send_to(b"for second", second_source).unwrap();
    pair.east.send_to(b"for first", first_source).unwrap();
    assert_eq!(receive(&second).0, b"for second");
    assert_eq!(receive(&pair.west).0, b"for first");

    // Its source stays the same.
    pair.west.send_to(b"again", pair.to_east()).unwrap();
    assert_eq!(receive(&pair.east), (b"again".to_vec(), first_source));
}

#[test]
fn answers_from_a_stranger_do_not_pass() {
    let pair = Pair::new(Impairment::default());
    pair.west.send_to(b"ping", pair.to_east()).unwrap();
    let (_, source) = receive(&pair.east);
    socket().send_to(b"forged", source).unwrap();
    pair.east.send_to(b"true", source).unwrap();
    assert_eq!(receive(&pair.west).0, b"true");
    let back = pair.relay.link_counters("west", "east").unwrap().back;
    assert_eq!(back.dropped.get(crate::DropReason::Stranger), 1);
}

#[test]
fn packets_before_the_target_is_known_are_dropped_and_counted() {
    let config = RelayConfig { links: vec![LinkConfig::new("west", "east")], seed: 0 };
    let relay = UdpRelay::spawn_thread(config).unwrap();
    let (west, east, elsewhere) = (socket(), socket(), bound("[::1]:0"));
    let addr = relay.addr("west", "east").unwrap();
    let dropped = || {
        let forward = relay.link_counters("west", "east").unwrap().forward;
        forward.dropped.get(crate::DropReason::NoTarget)
    };
    west.send_to(b"early", addr).unwrap();
    wait_for("the early packet is counted", || dropped() == 1);

    relay.set_target("west", "east", east.local_addr().unwrap()).unwrap();
    west.send_to(b"in time", addr).unwrap();
    assert_eq!(receive(&east).0, b"in time");

    // A gateway that restarts on another port, and even in the other family, is reached again.
    relay.set_target("west", "east", elsewhere.local_addr().unwrap()).unwrap();
    west.send_to(b"moved", addr).unwrap();
    let (moved, source) = receive(&elsewhere);
    assert_eq!(moved, b"moved");
    elsewhere.send_to(b"yes", source).unwrap();
    assert_eq!(receive(&west).0, b"yes");
}

#[test]
fn a_cut_site_is_silent_at_once_and_heals() {
    let pair = Pair::new(Impairment::default());
    let to_west = pair.relay.addr("east", "west").unwrap();
    pair.west.send_to(b"before", pair.to_east()).unwrap();
    let (_, source) = receive(&pair.east);

    pair.relay.cut("west").unwrap();
    pair.west.send_to(b"cut", pair.to_east()).unwrap();
    pair.east.send_to(b"cut", source).unwrap();
    pair.east.send_to(b"cut", to_west).unwrap();
    let cut = || {
        let reason = crate::DropReason::Cut;
        let of = |c: &LinkCounters| c.forward.dropped.get(reason) + c.back.dropped.get(reason);
        pair.relay.counters().iter().map(of).sum::<u64>()
    };
    wait_for("all three are dropped", || cut() == 3);
    assert!(is_empty(&pair.west) && is_empty(&pair.east));

    pair.relay.heal("west").unwrap();
    pair.west.send_to(b"after", pair.to_east()).unwrap();
    assert_eq!(receive(&pair.east), (b"after".to_vec(), source));
    pair.east.send_to(b"after", to_west).unwrap();
    assert_eq!(receive(&pair.west).0, b"after");
}

#[test]
fn a_cut_path_is_silent_one_way_only() {
    let pair = Pair::new(Impairment::default());
    pair.west.send_to(b"before", pair.to_east()).unwrap();
    let (_, source) = receive(&pair.east);
    pair.relay.cut_path("east", "west").unwrap();
    pair.west.send_to(b"still passes", pair.to_east()).unwrap();
    assert_eq!(receive(&pair.east).0, b"still passes");
    pair.east.send_to(b"cut", source).unwrap();
    let back = || pair.relay.link_counters("west", "east").unwrap().back;
    wait_for("the answer is dropped", || back().dropped.get(crate::DropReason::Cut) == 1);
    pair.relay.heal_path("east", "west").unwrap();
    pair.east.send_to(b"healed", source).unwrap();
    assert_eq!(receive(&pair.west).0, b"healed");
}

#[test]
fn a_cut_drops_what_is_under_way() {
    let pair = Pair::new(Impairment::delayed(Duration::from_secs(60)));
    pair.west.send_to(b"slow", pair.to_east()).unwrap();
    wait_for("it is under way", || pair.forward().queued_packets == 1);
    pair.relay.cut("east").unwrap();
    let forward = pair.forward();
    assert_eq!((forward.queued_packets, forward.dropped.get(crate::DropReason::Cut)), (0, 1));
}

#[test]
fn the_round_trip_is_around_what_is_set_and_changes_live() {
    let pair = Pair::new(Impairment::delayed(ms(10)));
    let round_trip = || {
        let start = Instant::now();
        pair.west.send_to(b"ping", pair.to_east()).unwrap();
        let (_, source) = receive(&pair.east);
        pair.east.send_to(b"pong", source).unwrap();
        receive(&pair.west);
        start.elapsed()
    };
    // A busy machine delays some of them, but hurries none.
    let near = |set_ms: u64| {
        wait_for("a round trip is near what is set", || {
            let time = round_trip();
            assert!(time + ms(1) > ms(set_ms), "{time:?} of {set_ms} ms");
            time < ms(set_ms + 4)
        });
    };
    near(20);
    pair.relay.set("west", "east", Direction::Back, Impairment::delayed(ms(40))).unwrap();
    near(50);
    pair.relay.set_all(&Impairment::default()).unwrap();
    near(0);
}

#[test]
fn loss_and_rate_show_in_the_counters() {
    let pair = Pair::new(Impairment::default());
    let rate = Rate { bits_per_s: 1_000_000, burst_bytes: 1_000, queue_packets: 10 };
    let settings = Impairment::default().with_rate(rate);
    pair.relay.set("west", "east", Direction::Forward, settings).unwrap();
    for _ in 0..100 {
        pair.west.send_to(&[0; 1_000], pair.to_east()).unwrap();
    }
    wait_for("all are received", || pair.forward().received_packets == 100);
    wait_for("the queue is empty", || pair.forward().queued_packets == 0);
    let forward = pair.forward();
    let queue_full = forward.dropped.get(crate::DropReason::QueueFull);
    assert!(queue_full > 50, "{forward}");
    assert_eq!(forward.forwarded_packets + queue_full, 100);

    pair.relay
        .set("west", "east", Direction::Forward, Impairment::default().with_loss(1.0))
        .unwrap();
    pair.west.send_to(b"lost", pair.to_east()).unwrap();
    let lost = || pair.forward().dropped.get(crate::DropReason::Loss);
    wait_for("it is lost", || lost() == 1);
}

#[test]
fn large_and_empty_datagrams_keep_their_boundaries() {
    let pair = Pair::new(Impairment::default());
    for length in [0, 1, 1_200, 9_000, 65_507] {
        let datagram: Vec<u8> = (0..length).map(|n| n as u8).collect();
        pair.west.send_to(&datagram, pair.to_east()).unwrap();
        assert_eq!(receive(&pair.east).0, datagram);
    }
}

#[test]
fn what_a_sender_segments_by_gso_arrives_as_the_segments() {
    use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
    let pair = Pair::new(Impairment::default());
    setsockopt(&pair.west, UdpGsoSegment, &1_200).expect("this kernel has UDP_SEGMENT");
    let buffer: Vec<u8> = (0..10 * 1_200 + 7).map(|at| (at / 1_200) as u8).collect();
    pair.west.send_to(&buffer, pair.to_east()).unwrap();
    for segment in 0..10 {
        assert_eq!(receive(&pair.east).0, vec![segment; 1_200]);
    }
    assert_eq!(receive(&pair.east).0, vec![10; 7]);
    assert_eq!(pair.forward().received_packets, 11);
}

#[test]
fn a_busy_link_loses_nothing_of_its_own() {
    const PACKETS: u32 = 30_000;
    /// Far below what the sockets' buffers hold.
    const UNDER_WAY_MAX: u32 = 400;
    let pair = Pair::new(Impairment::default());
    let (to_east, start) = (pair.to_east(), Instant::now());
    let mut sent = 0;
    for arrived in 0..PACKETS {
        while sent < PACKETS && sent - arrived < UNDER_WAY_MAX {
            let mut datagram = [0; 1_200];
            datagram[..4].copy_from_slice(&sent.to_be_bytes());
            pair.west.send_to(&datagram, to_east).unwrap();
            sent += 1;
        }
        let datagram = receive(&pair.east).0;
        assert_eq!(datagram.len(), 1_200);
        assert_eq!(datagram[..4], arrived.to_be_bytes(), "in order");
    }
    let per_s = f64::from(PACKETS) / start.elapsed().as_secs_f64();
    println!("{per_s:.0} packets/s of 1200 bytes, sender and receiver on the same machine");
    assert_eq!(pair.forward().dropped.total(), 0);
}

#[test]
fn a_recording_holds_what_passed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wan.pcap");
    let pair = Pair::new(Impairment::default());
    pair.west.send_to(b"before", pair.to_east()).unwrap();
    receive(&pair.east);

    pair.relay.record(&path).unwrap();
    pair.west.send_to(b"a canary sings", pair.to_east()).unwrap();
    let (_, source) = receive(&pair.east);
    pair.east.send_to(b"an answer", source).unwrap();
    receive(&pair.west);
    pair.relay.cut("west").unwrap();
    pair.west.send_to(b"never arrives", pair.to_east()).unwrap();
    wait_for("it is dropped", || pair.forward().dropped.total() == 1);
    pair.relay.heal("west").unwrap();
    assert_eq!(pair.relay.flush_recording().unwrap().unwrap().packets, 2);
    for (text, found) in
        [("canary", true), ("an answer", true), ("before", false), ("never arrives", false)]
    {
        assert_eq!(capture::contains(&path, text.as_bytes()).unwrap(), found, "{text}");
    }

    let recording = pair.relay.stop_recording().unwrap().unwrap();
    assert_eq!((recording.packets, recording.skipped_packets), (2, 0));
    assert_eq!(pair.relay.stop_recording().unwrap(), None);
    let records: Vec<_> = capture::Reader::open(&path).unwrap().map(Result::unwrap).collect();
    assert_eq!(records[0].payload().unwrap(), b"a canary sings");
    let ports = |packet: &[u8]| [20, 22].map(|at| u16::from_be_bytes([packet[at], packet[at + 1]]));
    let (west, east) =
        (pair.west.local_addr().unwrap().port(), pair.east.local_addr().unwrap().port());
    assert_eq!(ports(&records[0].packet), [west, east]);
    assert_eq!(ports(&records[1].packet), [east, west]);
}

#[test]
fn dropping_it_frees_the_port_and_silences_its_handles() {
    let pair = Pair::new(Impairment::default());
    let (addr, handle) = (pair.to_east(), pair.relay.handle());
    pair.west.send_to(b"ping", addr).unwrap();
    receive(&pair.east);
    drop(pair);
    // Another test's child keeps our descriptors open between its fork and its exec.
    wait_for("the port is free", || bind_udp(addr).is_ok());
    let error = handle.record("never-made.pcap").unwrap_err().to_string();
    assert!(error.starts_with("the relay has stopped"), "{error}");
    assert_eq!(handle.link_counters("west", "east").unwrap().clients, 0);
}

#[test]
fn the_client_table_is_bounded() {
    let pair = Pair::new(Impairment::default());
    let clients: Vec<_> = (0..=crate::limits::CLIENTS_PER_LINK_MAX).map(|_| socket()).collect();
    for client in &clients {
        client.send_to(b"hello", pair.to_east()).unwrap();
    }
    let no_client = || pair.forward().dropped.get(crate::DropReason::NoClient);
    wait_for("the last one is refused", || no_client() == 1);
    let counters = pair.relay.link_counters("west", "east").unwrap();
    assert_eq!(counters.clients, crate::limits::CLIENTS_PER_LINK_MAX);
    assert_eq!(counters.forward.forwarded_packets, clients.len() as u64 - 1);
}

#[test]
fn each_wrong_order_names_what_was_wrong() {
    let pair = Pair::new(Impairment::default());
    let relay = &pair.relay;
    let taken = socket();
    let listen = taken.local_addr().unwrap();
    let busy = LinkConfig::new("west", "east").listen(listen);
    let loss = Impairment::default().with_loss(3.0);
    let table: [(Result<(), RelayError>, String); 8] = [
        (
            UdpRelay::spawn_thread(RelayConfig { links: vec![busy], seed: 0 }).map(drop),
            format!(
                "failed to listen on {listen} for link west -> east: Address already in use (os error 98); \
                 free that port, or write port 0"
            ),
        ),
        (
            UdpRelay::spawn(RelayConfig::default()).map(drop),
            "failed to start the relay: no tokio runtime here; call it inside one, or use spawn_thread".into(),
        ),
        (
            relay.addr("west", "south").map(drop),
            "link = west -> south: there is no such link; use one of west -> east, east -> west".into(),
        ),
        (
            relay.cut("south"),
            "site = south: there is no such site; use one of east, west".into(),
        ),
        (
            relay.cut_path("west", "wets"),
            "to = wets: there is no such site; use one of east, west".into(),
        ),
        (
            relay.set("west", "east", Direction::Back, loss),
            "loss = 3: must be between 0 and 1; write 0.01 for 1 %".into(),
        ),
        (
            relay.set_target("west", "east", "127.0.0.1:0".parse().unwrap()),
            "target = 127.0.0.1:0: must be an address and port that a socket is bound to; \
             bind first, then set the target"
                .into(),
        ),
        (
            relay.record("/nonexistent/wan.pcap"),
            "failed to create capture file /nonexistent/wan.pcap: No such file or directory (os error 2)"
                .into(),
        ),
    ];
    for (result, text) in table {
        assert_eq!(result.unwrap_err().to_string(), text);
    }
}

#[test]
fn several_sites_can_dial_one_address() {
    let target = socket();
    let shared = bound("127.0.0.1:0");
    let listen = shared.local_addr().unwrap();
    drop(shared);
    let link = |from: &str, client: [u8; 4]| {
        LinkConfig::new(from, "east")
            .listen(listen)
            .client(client.into())
            .target(target.local_addr().unwrap())
    };
    let links = vec![link("west", [127, 0, 0, 2]), link("south", [127, 0, 0, 3])];
    let relay = UdpRelay::spawn_thread(RelayConfig { links, seed: 1 }).unwrap();
    assert_eq!(relay.addr("west", "east").unwrap(), relay.addr("south", "east").unwrap());
    let (west, south) = (bound("127.0.0.2:0"), bound("127.0.0.3:0"));
    for (socket, word) in [(&west, b"west"), (&south, b"sout")] {
        socket.send_to(word, listen).unwrap();
        let (datagram, source) = receive(&target);
        assert_eq!(datagram, word);
        target.send_to(b"back", source).unwrap();
        assert_eq!(receive(socket), (b"back".to_vec(), listen));
    }

    relay.cut("west").unwrap();
    west.send_to(b"lost", listen).unwrap();
    south.send_to(b"kept", listen).unwrap();
    assert_eq!(receive(&target).0, b"kept", "the other site's packets are not cut");
    bound("127.0.0.4:0").send_to(b"?", listen).unwrap();
    wait_for("the stranger's packet is counted", || {
        let counters = relay.link_counters("west", "east").unwrap().forward;
        counters.dropped.get(crate::DropReason::Stranger) == 1
    });
    assert!(is_empty(&target));
}
