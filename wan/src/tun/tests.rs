//! Real namespaces, real pings by the kernel's own ICMP. Needs root; says so otherwise.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::*;
use crate::netns::{Netns, unavailable};
use crate::{DropReason, Impairment, Rate, capture};

const PATIENCE: Duration = Duration::from_secs(20);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::yield_now();
    }
}

/// The time may be over, or a signal came: whoever asks again looks at the clock first.
fn is_retryable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// West speaks both families, east IPv6 only.
struct Lab {
    router: TunRouter,
    west: Netns,
    east: Netns,
    south: Netns,
}

const WEST_V4: &str = "10.9.1.2";
const SOUTH_V4: &str = "10.9.3.2";
const WEST_V6: &str = "fd00:9:1::2";
const EAST_V6: &str = "fd00:9:2::2";

impl Lab {
    /// None, after saying so, on a machine where this cannot be.
    fn new(test: &str, impairment: Impairment) -> Option<Self> {
        if let Some(reason) = unavailable() {
            println!("skipped: tun::tests::{test}: {reason}");
            return None;
        }
        let [west, east, south] =
            ["west", "east", "south"].map(|site| Netns::create(site).unwrap());
        let ports = vec![
            PortConfig::new("west", west.name())
                .address(format!("{WEST_V4}/24"))
                .address(format!("{WEST_V6}/64")),
            PortConfig::new("east", east.name()).address(format!("{EAST_V6}/64")),
            PortConfig::new("south", south.name()).address(format!("{SOUTH_V4}/24")),
        ];
        let router = TunRouter::start(TunConfig { ports, impairment, seed: 7 }).unwrap();
        Some(Self { router, west, east, south })
    }

    fn dropped(&self, site: &str, reason: PortDrop) -> u64 {
        let counters = self.router.counters();
        counters.ports.iter().find(|port| port.site == site).unwrap().dropped(reason)
    }
}

/// Sends echo requests by a raw socket in a namespace; the other namespace's kernel answers.
struct Pinger {
    socket: Socket,
    target: SockAddr,
    sequence: u16,
}

impl Pinger {
    fn new(netns: &Netns, target: &str) -> Self {
        let target = SocketAddr::new(target.parse().unwrap(), 0);
        let protocol = if target.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
        let socket = netns
            .enter(|| Socket::new(Domain::for_address(target), Type::RAW, Some(protocol)))
            .unwrap()
            .unwrap();
        Self { socket, target: target.into(), sequence: 0 }
    }

    /// The round-trip time of one ping; none if no answer comes in time.
    fn ping(&mut self, timeout: Duration) -> Option<Duration> {
        self.sequence += 1;
        let start = Instant::now();
        self.send(&[0x55; 48]);
        let mut buffer = [0; 2_000];
        loop {
            let left = timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero())?;
            self.socket.set_read_timeout(Some(left)).unwrap();
            let length = match (&self.socket).read(&mut buffer) {
                Ok(length) => length,
                Err(error) if is_retryable(&error) => continue,
                Err(error) => panic!("ping failed: {error}"),
            };
            if self.is_my_answer(&buffer[..length]) {
                return Some(start.elapsed());
            }
        }
    }

    fn send(&self, payload: &[u8]) {
        // Type, code, checksum, identifier, sequence; the kernel fills in ICMPv6's checksum.
        let kind = if self.is_v4() { 8 } else { 128 };
        let mut request = vec![kind, 0, 0, 0, 0xfe, 0xd6];
        request.extend(self.sequence.to_be_bytes());
        request.extend(payload);
        let mut sum: u32 =
            request.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        if self.is_v4() {
            request[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        }
        self.socket.send_to(&request, &self.target).unwrap();
    }

    fn is_v4(&self) -> bool {
        self.target.is_ipv4()
    }

    fn is_my_answer(&self, packet: &[u8]) -> bool {
        // A raw IPv4 socket sees the IP header too.
        let (kind, icmp) = if self.is_v4() { (0, &packet[20..]) } else { (129, packet) };
        icmp[0] == kind && icmp[4..6] == [0xfe, 0xd6] && icmp[6..8] == self.sequence.to_be_bytes()
    }
}

#[test]
fn pings_take_the_delay_that_is_set_and_losses_are_counted_in_both_families() {
    let name = "pings_take_the_delay_that_is_set_and_losses_are_counted_in_both_families";
    let Some(lab) = Lab::new(name, Impairment::delayed(ms(20))) else { return };
    for (target, to) in [(SOUTH_V4, "south"), (EAST_V6, "east")] {
        let mut pinger = Pinger::new(&lab.west, target);
        // A busy machine delays some of them, but hurries none.
        wait_for("a round trip is near the 40 ms that are set", || {
            let time = pinger.ping(PATIENCE).expect("an answer");
            assert!(time > ms(39), "{target}: {time:?}");
            time < ms(44)
        });

        lab.router.set("west", to, Impairment::default().with_loss(0.2)).unwrap();
        lab.router.set(to, "west", Impairment::default()).unwrap();
        let before = lab.router.path_counters("west", to).unwrap();
        for _ in 0..500 {
            pinger.sequence += 1;
            pinger.send(&[0; 8]);
        }
        let sent = || lab.router.path_counters("west", to).unwrap().received_packets;
        wait_for("all are seen", || sent() == before.received_packets + 500);
        let lost = lab.router.path_counters("west", to).unwrap().dropped.get(DropReason::Loss);
        assert!((60..140).contains(&lost), "{target}: {lost} of 500 at 20 %");
        let back = || lab.router.path_counters(to, "west").unwrap().forwarded_packets;
        wait_for("the others are answered", || back() == before.forwarded_packets + 500 - lost);
    }
}

#[test]
fn a_cut_is_total_and_heals_and_a_path_is_cut_one_way() {
    let name = "a_cut_is_total_and_heals_and_a_path_is_cut_one_way";
    let Some(lab) = Lab::new(name, Impairment::default()) else { return };
    let mut pinger = Pinger::new(&lab.west, EAST_V6);
    assert!(pinger.ping(PATIENCE).is_some());

    lab.router.cut("east").unwrap();
    assert_eq!(pinger.ping(ms(200)), None);
    let mut elsewhere = Pinger::new(&lab.west, SOUTH_V4);
    assert!(elsewhere.ping(PATIENCE).is_some(), "south is not cut");
    lab.router.heal("east").unwrap();
    assert!(pinger.ping(PATIENCE).is_some());

    lab.router.cut_path("east", "west").unwrap();
    assert_eq!(pinger.ping(ms(200)), None);
    let cut = |from, to| lab.router.path_counters(from, to).unwrap().dropped.get(DropReason::Cut);
    assert_eq!((cut("west", "east"), cut("east", "west")), (1, 1));
    lab.router.heal_path("east", "west").unwrap();
    assert!(pinger.ping(PATIENCE).is_some());
}

#[test]
fn tcp_passes_whole_at_its_rate_and_is_recorded() {
    let name = "tcp_passes_whole_at_its_rate_and_is_recorded";
    const BYTES: usize = 2_000_000;
    let rate = Rate::mbps(40);
    let Some(lab) = Lab::new(name, Impairment::delayed(ms(2)).with_rate(rate)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wan.pcap");
    lab.router.record(&path).unwrap();

    let bind = || TcpListener::bind(SocketAddr::new(EAST_V6.parse().unwrap(), 0));
    let listener = lab.east.enter(bind).unwrap().unwrap();
    let addr = listener.local_addr().unwrap();
    let mut client = lab.west.enter(|| TcpStream::connect(addr)).unwrap().unwrap();
    let (mut server, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), WEST_V6.parse::<IpAddr>().unwrap());
    let start = Instant::now();
    let sender = thread::spawn(move || {
        let data: Vec<u8> = (0..BYTES).map(|at| (at / 7) as u8).collect();
        client.write_all(b"a canary sings").unwrap();
        client.write_all(&data).unwrap();
        data
    });
    let mut received = Vec::new();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    server.read_to_end(&mut received).unwrap();
    let elapsed = start.elapsed();
    assert_eq!(received[..14], *b"a canary sings");
    assert!(received[14..] == sender.join().unwrap(), "the bytes arrive as they were");
    // 2 MB at 40 Mbit/s take 400 ms.
    assert!(elapsed > ms(380), "{elapsed:?}");

    let recording = lab.router.stop_recording().unwrap().unwrap();
    assert!(recording.packets > 1_000 && recording.skipped_packets == 0, "{recording:?}");
    assert!(capture::contains(&path, b"canary").unwrap());
    assert!(!capture::contains(&path, b"sparrow").unwrap());
}

#[test]
fn what_no_router_passes_on_is_dropped_and_counted() {
    let name = "what_no_router_passes_on_is_dropped_and_counted";
    let Some(lab) = Lab::new(name, Impairment::default()) else { return };
    let socket = lab.west.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let count = |reason| lab.dropped("west", reason);
    let before = [PortDrop::NoRoute, PortDrop::SamePort, PortDrop::TtlExpired].map(count);

    socket.send_to(b"nowhere", "192.0.2.1:9").unwrap();
    wait_for("there is no route", || count(PortDrop::NoRoute) > before[0]);
    socket.send_to(b"my own network", "10.9.1.77:9").unwrap();
    wait_for("it would go back", || count(PortDrop::SamePort) > before[1]);
    socket.set_ttl(1).unwrap();
    socket.send_to(b"too far", format!("{SOUTH_V4}:9")).unwrap();
    wait_for("its hops are used up", || count(PortDrop::TtlExpired) > before[2]);
    let noise = count(PortDrop::Noise);
    socket.set_multicast_ttl_v4(8).unwrap();
    socket.send_to(b"to many", "239.9.9.9:9").unwrap();
    wait_for("multicast is noise", || count(PortDrop::Noise) > noise);
    let text = lab.router.counters().to_string();
    assert!(text.contains("dropped 1 (ttl-expired)"), "{text}");
}

#[test]
fn an_mtu_black_hole_swallows_large_packets_only() {
    let name = "an_mtu_black_hole_swallows_large_packets_only";
    let Some(lab) = Lab::new(name, Impairment::default()) else { return };
    let settings = Impairment { mtu_bytes: Some(1_280), ..Impairment::default() };
    lab.router.set("west", "south", settings).unwrap();
    let bind = || UdpSocket::bind(format!("{SOUTH_V4}:0"));
    let receiver = lab.south.enter(bind).unwrap().unwrap();
    let addr = receiver.local_addr().unwrap();
    let sender = lab.west.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    for payload_bytes in [1_280 - 28 + 1, 1_280 - 28] {
        sender.send_to(&vec![0; payload_bytes], addr).unwrap();
    }
    let mut buffer = [0; 2_000];
    receiver.set_nonblocking(true).unwrap();
    let mut received = Err(io::ErrorKind::WouldBlock.into());
    wait_for("the smaller one arrives", || {
        received = receiver.recv(&mut buffer);
        !received.as_ref().is_err_and(is_retryable)
    });
    assert_eq!(received.unwrap(), 1_280 - 28);
    let counters = lab.router.path_counters("west", "south").unwrap();
    assert_eq!(counters.dropped.get(DropReason::Mtu), 1);
}

#[test]
fn dropping_it_removes_the_devices_and_silences_its_handles() {
    let name = "dropping_it_removes_the_devices_and_silences_its_handles";
    let Some(lab) = Lab::new(name, Impairment::default()) else { return };
    assert!(lab.west.run("ip", ["-o", "link"]).unwrap().contains("wan0"));
    let handle = lab.router.handle();
    drop(lab.router);
    // Another test's child keeps our descriptors open between its fork and its exec.
    wait_for("the device is gone", || {
        !lab.west.run("ip", ["-o", "link"]).unwrap().contains("wan0")
    });
    let error = handle.record("never-made.pcap").unwrap_err().to_string();
    assert!(error.starts_with("the router has stopped"), "{error}");
}

#[test]
fn a_namespace_that_goes_first_does_no_harm() {
    let name = "a_namespace_that_goes_first_does_no_harm";
    let Some(lab) = Lab::new(name, Impairment::default()) else { return };
    let mut pinger = Pinger::new(&lab.west, SOUTH_V4);
    drop(lab.east);
    assert!(pinger.ping(PATIENCE).is_some(), "the others go on");
    drop(lab.router);
}

#[test]
fn each_wrong_order_names_what_was_wrong() {
    let name = "each_wrong_order_names_what_was_wrong";
    let Some(lab) = Lab::new(name, Impairment::default()) else { return };
    let router = &lab.router;
    let start = |netns: &str, device: &str| {
        let port = PortConfig {
            device: device.into(),
            ..PortConfig::new("x", netns).address("10.1.1.1/24")
        };
        TunRouter::start(TunConfig { ports: vec![port], ..TunConfig::default() }).map(drop)
    };
    let known = "there is no such site; use one of east, south, west";
    let table = [
        (router.cut("wets"), format!("site = wets: {known}")),
        (router.set("wets", "east", Impairment::default()), format!("from = wets: {known}")),
        (router.path_counters("west", "eats").map(drop), format!("to = eats: {known}")),
        (
            router.set("west", "west", Impairment::default()),
            "to = west: must be another site than `from`".into(),
        ),
        (
            router.set_all(&Impairment::default().with_loss(-1.0)),
            "loss = -1: must be between 0 and 1; write 0.01 for 1 %".into(),
        ),
        (
            start("no-such-netns", "wan0"),
            "failed to enter network namespace no-such-netns: No such file or directory (os error 2)".into(),
        ),
        (
            start(lab.west.name(), "wan0"),
            format!(
                "failed to make TUN device wan0 in network namespace {}: Device or resource busy (os error 16); \
                 it needs root, /dev/net/tun, and a name that is free there",
                lab.west.name()
            ),
        ),
    ];
    for (result, text) in table {
        assert_eq!(result.unwrap_err().to_string(), text);
    }
}
