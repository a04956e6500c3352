//! Every bound of this crate, by name: nothing here grows without one.

use std::time::Duration;

/// Packets that one direction of one link may hold for later delivery.
pub const PIPE_PACKETS_MAX: usize = 65_536;
/// Bytes that one direction of one link may hold for later delivery.
pub const PIPE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest delay, jitter or reorder hold that can be set.
pub const DELAY_MAX: Duration = Duration::from_secs(60);
/// Slowest rate that can be set, so that a packet's time on the wire stays finite.
pub const RATE_BITS_PER_S_MIN: u64 = 1_000;
/// Packets in the queue before a rate limit, unless the rate says otherwise.
pub const RATE_QUEUE_PACKETS_DEFAULT: usize = 400;
/// Smallest MTU that can be set: below it not even a minimal IPv4 packet passes.
pub const MTU_BYTES_MIN: usize = 68;

/// Links of one relay.
pub const LINKS_MAX: usize = 256;
/// Length of a site's name.
pub const SITE_NAME_BYTES_MAX: usize = 63;
/// Clients (source addresses) of one link; each has one upstream socket.
pub const CLIENTS_PER_LINK_MAX: usize = 256;
/// A client that was silent this long in both directions is forgotten (RFC 4787 REQ-5: at least two minutes).
pub const CLIENT_IDLE_MAX: Duration = Duration::from_secs(150);
/// How often idle clients are looked for.
pub const CLIENT_SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Largest datagram: 65,535 less the IPv4 and UDP headers, or 65,535 less the UDP header over IPv6.
pub const DATAGRAM_BYTES_MAX: usize = 65_527;
/// Datagrams taken from one socket before others get their turn.
pub const RECV_BATCH_PACKETS: usize = 32;
/// Kernel buffer asked for on each socket; the kernel clamps it to `net.core.rmem_max` / `wmem_max`.
pub const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of a recording; after that packets still pass, but are counted as skipped by the recording.
pub const CAPTURE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Largest packet in a capture file that is read back.
pub const CAPTURE_PACKET_BYTES_MAX: u32 = 256 * 1024;
/// Longest needle that is looked for in a capture file.
pub const CAPTURE_NEEDLE_BYTES_MAX: usize = 4096;
/// Flows whose last bytes are remembered while a capture file is searched.
pub const CAPTURE_FLOWS_MAX: usize = 65_536;

/// Ports of one router.
pub const PORTS_MAX: usize = 64;
/// Addresses, and prefixes besides, of one port.
pub const PORT_PREFIXES_MAX: usize = 64;
/// Largest IP packet that a TUN device hands over.
pub const PACKET_BYTES_MAX: usize = 65_535;
/// Packets that the kernel keeps for us per TUN device; it drops silently above, so this is generous.
pub const TUN_QUEUE_PACKETS: u32 = 4_096;
/// Longest time that the router's timer sleeps without being woken.
pub const TIMER_SLEEP_MAX: Duration = Duration::from_secs(10);
