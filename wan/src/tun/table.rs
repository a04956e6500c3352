//! Addresses with a prefix length, and the longest-prefix table.

use std::fmt;
use std::net::IpAddr;

use crate::SettingError;

/// An address and the length of its network's prefix, as in `10.9.1.2/24` or `fd00:1::2/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    addr: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Parses `address/bits`; the error is for this field.
    pub(super) fn parse(field: &str, text: &str) -> Result<Self, SettingError> {
        let wrong = |fix: &str| SettingError::new(field, text, fix);
        let shape =
            "must be an address, a slash and a prefix length; write for example 10.9.1.2/24";
        let (addr, bits) = text.split_once('/').ok_or_else(|| wrong(shape))?;
        let addr: IpAddr = addr.parse().map_err(|_| wrong(shape))?;
        let bits: u8 = bits.parse().map_err(|_| wrong(shape))?;
        let bits_max = if addr.is_ipv4() { 32 } else { 128 };
        if bits > bits_max {
            return Err(wrong(&format!("the prefix length must be at most {bits_max}")));
        }
        Ok(Self { addr, bits })
    }

    /// The address itself.
    pub const fn addr(&self) -> IpAddr {
        self.addr
    }

    pub(super) const fn is_ipv4(&self) -> bool {
        self.addr.is_ipv4()
    }

    /// Whether an address lies in the network.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(own), IpAddr::V4(addr)) => {
                let differing = own.to_bits() ^ addr.to_bits();
                u32::from(self.bits) <= differing.leading_zeros()
            }
            (IpAddr::V6(own), IpAddr::V6(addr)) => {
                let differing = own.to_bits() ^ addr.to_bits();
                u32::from(self.bits) <= differing.leading_zeros()
            }
            _ => false,
        }
    }

    /// Whether both mean the same network.
    fn is_same_network(&self, other: &Self) -> bool {
        self.bits == other.bits && self.contains(other.addr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.bits)
    }
}

/// Which port a destination is behind.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Longest first.
    entries: Vec<(Cidr, usize)>,
}

impl Table {
    /// Adds a network; another port that has the same one is the error.
    pub(super) fn add(&mut self, network: Cidr, port: usize) -> Result<(), usize> {
        let taken = self.entries.iter().find(|(other, _)| other.is_same_network(&network));
        match taken {
            Some((_, other)) if *other != port => return Err(*other),
            Some(_) => return Ok(()),
            None => {}
        }
        let at = self.entries.partition_point(|(other, _)| other.bits >= network.bits);
        self.entries.insert(at, (network, port));
        Ok(())
    }

    pub(super) fn find(&self, addr: IpAddr) -> Option<usize> {
        let found = self.entries.iter().find(|(network, _)| network.contains(addr));
        found.map(|(_, port)| *port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        Cidr::parse("prefix", text).unwrap()
    }

    #[test]
    fn the_longest_prefix_wins_in_each_family() {
        let mut table = Table::default();
        for (network, port) in [
            ("0.0.0.0/0", 0),
            ("10.0.0.0/8", 1),
            ("10.9.0.0/16", 2),
            ("10.9.1.7/32", 3),
            ("fd00::/8", 4),
        ] {
            table.add(cidr(network), port).unwrap();
        }
        for (addr, port) in [
            ("192.0.2.1", Some(0)),
            ("10.1.1.1", Some(1)),
            ("10.9.1.8", Some(2)),
            ("10.9.1.7", Some(3)),
            ("fd12::1", Some(4)),
            ("2001:db8::1", None),
        ] {
            assert_eq!(table.find(addr.parse().unwrap()), port, "{addr}");
        }
        assert_eq!(table.add(cidr("10.9.200.200/16"), 5), Err(2), "the same network");
        assert_eq!(table.add(cidr("10.9.200.200/16"), 2), Ok(()));
    }

    #[test]
    fn each_wrong_prefix_names_field_value_and_fix() {
        let shape =
            "must be an address, a slash and a prefix length; write for example 10.9.1.2/24";
        for (text, fix) in [
            ("", shape),
            ("10.9.1.2", shape),
            ("10.9.1/24", shape),
            ("10.9.1.2/x", shape),
            ("10.9.1.2/-1", shape),
            ("10.9.1.2/33", "the prefix length must be at most 32"),
            ("fd00::1/129", "the prefix length must be at most 128"),
        ] {
            let error = Cidr::parse("address", text).unwrap_err().to_string();
            assert_eq!(error, format!("address = {text}: {fix}"));
        }
    }
}
