//! What a router does to an IP packet: look at it, refuse noise, count down its hops.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why a packet from a port never reached a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortDrop {
    /// Not an IPv4 or IPv6 packet of the length it says.
    Malformed,
    /// Link-local, multicast, broadcast, loopback or unspecified: nothing that a router passes on.
    Noise,
    /// Its TTL or hop limit is used up. No ICMP error is sent.
    TtlExpired,
    /// No port has its destination.
    NoRoute,
    /// Its destination is behind the port it came from.
    SamePort,
}

impl PortDrop {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 5] =
        [Self::Malformed, Self::Noise, Self::TtlExpired, Self::NoRoute, Self::SamePort];

    /// The name that counters and logs show.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Noise => "noise",
            Self::TtlExpired => "ttl-expired",
            Self::NoRoute => "no-route",
            Self::SamePort => "same-port",
        }
    }
}

/// Checks a packet, takes one hop off, and says where it wants to go.
pub(super) fn forward(packet: &mut [u8]) -> Result<IpAddr, PortDrop> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => forward_v4(packet),
        Some(6) => forward_v6(packet),
        _ => Err(PortDrop::Malformed),
    }
}

fn forward_v4(packet: &mut [u8]) -> Result<IpAddr, PortDrop> {
    const HEADER_BYTES_MIN: usize = 20;
    const TTL_AT: usize = 8;
    const CHECKSUM_AT: usize = 10;
    if packet.len() < HEADER_BYTES_MIN || be_u16(packet, 2) != packet.len() {
        return Err(PortDrop::Malformed);
    }
    let header_bytes = usize::from(packet[0] & 0x0f) * 4;
    if header_bytes < HEADER_BYTES_MIN || header_bytes > packet.len() {
        return Err(PortDrop::Malformed);
    }
    let source = Ipv4Addr::from(octets::<4>(packet, 12));
    let target = Ipv4Addr::from(octets::<4>(packet, 16));
    let is_noise = |ip: Ipv4Addr| {
        ip.is_link_local()
            || ip.is_multicast()
            || ip.is_broadcast()
            || ip.is_loopback()
            || ip.is_unspecified()
    };
    if is_noise(source) || is_noise(target) {
        return Err(PortDrop::Noise);
    }
    if packet[TTL_AT] <= 1 {
        return Err(PortDrop::TtlExpired);
    }
    packet[TTL_AT] -= 1;
    // RFC 1141: the TTL is the high byte of its word, so the sum grows by 0x0100, with end-around carry.
    let sum = be_u16(packet, CHECKSUM_AT) + 0x0100;
    let sum = ((sum & 0xffff) + (sum >> 16)) as u16;
    packet[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
    Ok(target.into())
}

fn forward_v6(packet: &mut [u8]) -> Result<IpAddr, PortDrop> {
    const HEADER_BYTES: usize = 40;
    const HOP_LIMIT_AT: usize = 7;
    if packet.len() < HEADER_BYTES || be_u16(packet, 4) + HEADER_BYTES != packet.len() {
        return Err(PortDrop::Malformed);
    }
    let source = Ipv6Addr::from(octets::<16>(packet, 8));
    let target = Ipv6Addr::from(octets::<16>(packet, 24));
    let is_noise = |ip: Ipv6Addr| {
        ip.is_unicast_link_local() || ip.is_multicast() || ip.is_loopback() || ip.is_unspecified()
    };
    if is_noise(source) || is_noise(target) {
        return Err(PortDrop::Noise);
    }
    if packet[HOP_LIMIT_AT] <= 1 {
        return Err(PortDrop::TtlExpired);
    }
    packet[HOP_LIMIT_AT] -= 1;
    Ok(target.into())
}

fn be_u16(packet: &[u8], at: usize) -> usize {
    usize::from(packet[at]) << 8 | usize::from(packet[at + 1])
}

fn octets<const N: usize>(packet: &[u8], at: usize) -> [u8; N] {
    let mut octets = [0; N];
    octets.copy_from_slice(&packet[at..at + N]);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(source: [u8; 4], target: [u8; 4], ttl: u8) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 24, 0, 0, 0, 0, ttl, 17, 0, 0];
        packet.extend(source);
        packet.extend(target);
        packet.extend([1, 2, 3, 4]);
        let sum = !fold(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn v6(source: &str, target: &str, hops: u8) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 4, 17, hops];
        packet.extend(source.parse::<Ipv6Addr>().unwrap().octets());
        packet.extend(target.parse::<Ipv6Addr>().unwrap().octets());
        packet.extend([1, 2, 3, 4]);
        packet
    }

    fn fold(bytes: &[u8]) -> u16 {
        let mut sum: u32 =
            bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn every_ttl_counts_down_and_leaves_a_right_checksum() {
        for ttl in 2..=255 {
            for last in 0..=255 {
                let mut packet = v4([10, 9, 1, 2], [10, 9, 2, last], ttl);
                assert_eq!(forward(&mut packet).unwrap(), IpAddr::from([10, 9, 2, last]));
                assert_eq!(packet[8], ttl - 1);
                assert_eq!(fold(&packet[..20]), 0xffff, "ttl {ttl}, last octet {last}");
            }
        }
        let mut packet = v6("fd00:1::2", "fd00:2::2", 64);
        assert_eq!(forward(&mut packet).unwrap(), "fd00:2::2".parse::<IpAddr>().unwrap());
        assert_eq!(packet[7], 63);
    }

    #[test]
    fn each_bad_packet_has_its_reason_and_stays_as_it_was() {
        let (a, b) = ([10, 9, 1, 2], [10, 9, 2, 2]);
        let with_header_words = |words: u8| {
            let mut packet = v4(a, b, 64);
            packet[0] = 0x40 | words;
            packet
        };
        let mut lies_about_its_length = v4(a, b, 64);
        lies_about_its_length.push(0);
        let mut v6_lies_about_its_length = v6("fd00:1::2", "fd00:2::2", 64);
        v6_lies_about_its_length.truncate(42);
        let table = [
            (vec![], PortDrop::Malformed),
            (vec![0x50; 40], PortDrop::Malformed),
            (v4(a, b, 64)[..19].to_vec(), PortDrop::Malformed),
            (lies_about_its_length, PortDrop::Malformed),
            (with_header_words(4), PortDrop::Malformed),
            (with_header_words(15), PortDrop::Malformed),
            (v6("fd00:1::2", "fd00:2::2", 64)[..39].to_vec(), PortDrop::Malformed),
            (v6_lies_about_its_length, PortDrop::Malformed),
            (v4(a, [224, 0, 0, 22], 64), PortDrop::Noise),
            (v4(a, [255; 4], 64), PortDrop::Noise),
            (v4([169, 254, 1, 1], b, 64), PortDrop::Noise),
            (v4([0; 4], b, 64), PortDrop::Noise),
            (v4(a, [127, 0, 0, 1], 64), PortDrop::Noise),
            (v6("fe80::1", "fd00:2::2", 64), PortDrop::Noise),
            (v6("fd00:1::2", "ff02::2", 64), PortDrop::Noise),
            (v6("fd00:1::2", "fe80::2", 64), PortDrop::Noise),
            (v6("::", "fd00:2::2", 64), PortDrop::Noise),
            (v6("fd00:1::2", "::1", 64), PortDrop::Noise),
            (v4(a, b, 1), PortDrop::TtlExpired),
            (v4(a, b, 0), PortDrop::TtlExpired),
            (v6("fd00:1::2", "fd00:2::2", 1), PortDrop::TtlExpired),
        ];
        for (mut packet, reason) in table {
            let before = packet.clone();
            assert_eq!(forward(&mut packet), Err(reason), "{before:02x?}");
            assert_eq!(packet, before);
        }
    }
}
