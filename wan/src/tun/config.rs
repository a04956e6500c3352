//! What a router is told at its start.

use super::table::{Cidr, Table};
use crate::limits::{PORT_PREFIXES_MAX, PORTS_MAX};
use crate::sites::check_name;
use crate::{Impairment, SettingError};

/// A router: its ports and its seed.
#[derive(Clone, Debug, Default)]
pub struct TunConfig {
    /// One per site.
    pub ports: Vec<PortConfig>,
    /// What happens on every path at first; see [`super::TunHandle::set`].
    pub impairment: Impairment,
    /// Decides which packets are hit: same seed and same order of packets, same outcome.
    pub seed: u64,
}

/// A port: a TUN device in a site's namespace.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// The site's name.
    pub site: String,
    /// The namespace's name, as `ip netns` shows it.
    pub netns: String,
    /// The device's name there.
    pub device: String,
    /// The device's addresses, as `10.9.1.2/24`; the namespace gets a default route per family.
    /// Their networks are routed to this port.
    pub addresses: Vec<String>,
    /// Further networks behind this port.
    pub prefixes: Vec<String>,
    /// The device's MTU, which the namespace knows; a black hole is [`Impairment::mtu_bytes`].
    pub mtu_bytes: u16,
}

impl PortConfig {
    /// A port with device `wan0` and an MTU of 1500.
    pub fn new(site: impl Into<String>, netns: impl Into<String>) -> Self {
        Self {
            site: site.into(),
            netns: netns.into(),
            device: "wan0".to_owned(),
            addresses: Vec::new(),
            prefixes: Vec::new(),
            mtu_bytes: 1_500,
        }
    }

    /// The same with one more address.
    pub fn address(mut self, cidr: impl Into<String>) -> Self {
        self.addresses.push(cidr.into());
        self
    }

    /// The same with one more network behind it.
    pub fn prefix(mut self, cidr: impl Into<String>) -> Self {
        self.prefixes.push(cidr.into());
        self
    }
}

/// A checked port.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) site: String,
    pub(super) netns: String,
    pub(super) device: String,
    pub(super) addresses: Vec<Cidr>,
    pub(super) mtu_bytes: u16,
}

/// A checked configuration.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) ports: Vec<Port>,
    pub(super) table: Table,
    pub(super) impairment: Impairment,
    pub(super) seed: u64,
}

impl TunConfig {
    pub(super) fn parse(self) -> Result<Parsed, SettingError> {
        if self.ports.len() > PORTS_MAX {
            return Err(SettingError::new(
                "ports",
                format!("{} ports", self.ports.len()),
                format!("must be at most {PORTS_MAX}; start a second router"),
            ));
        }
        self.impairment.validate().map_err(|error| error.within("impairment"))?;
        let mut ports: Vec<Port> = Vec::with_capacity(self.ports.len());
        let mut table = Table::default();
        for (index, config) in self.ports.into_iter().enumerate() {
            let field = format!("ports[{index}]");
            if ports.iter().any(|port| port.site == config.site) {
                let fix = "is there already; write each site once";
                return Err(SettingError::new(format!("{field}.site"), config.site, fix));
            }
            let port = config.parse(index, &mut table, &ports);
            ports.push(port.map_err(|error| error.within(&field))?);
        }
        Ok(Parsed { ports, table, impairment: self.impairment, seed: self.seed })
    }
}

impl PortConfig {
    fn parse(self, index: usize, table: &mut Table, before: &[Port]) -> Result<Port, SettingError> {
        check_name("site", &self.site)?;
        check_netns(&self.netns)?;
        check_device(&self.device)?;
        let mut addresses = Vec::with_capacity(self.addresses.len());
        for (field, texts) in [("addresses", &self.addresses), ("prefixes", &self.prefixes)] {
            if texts.len() > PORT_PREFIXES_MAX {
                let fix = format!("must be at most {PORT_PREFIXES_MAX}");
                return Err(SettingError::new(field, format!("{} entries", texts.len()), fix));
            }
            for (at, text) in texts.iter().enumerate() {
                let field = format!("{field}[{at}]");
                let cidr = Cidr::parse(&field, text)?;
                table.add(cidr, index).map_err(|other| {
                    let site = before.get(other).map_or("another port", |port| &port.site);
                    let fix = format!("is behind {site} already; give each site its own network");
                    SettingError::new(field, text, fix)
                })?;
                addresses.push(cidr);
            }
        }
        if self.addresses.is_empty() {
            let fix = "must have at least one; write for example 10.9.1.2/24";
            return Err(SettingError::new("addresses", "[]", fix));
        }
        addresses.truncate(self.addresses.len());
        check_mtu(self.mtu_bytes, &addresses)?;
        let Self { site, netns, device, mtu_bytes, .. } = self;
        Ok(Port { site, netns, device, addresses, mtu_bytes })
    }
}

fn check_netns(name: &str) -> Result<(), SettingError> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        let fix = "must be a namespace's name as `ip netns` shows it";
        return Err(SettingError::new("netns", format!("{name:?}"), fix));
    }
    Ok(())
}

fn check_device(name: &str) -> Result<(), SettingError> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if name.is_empty() || name.len() > 15 || !is_plain || name.starts_with(['.', '-']) {
        let fix = "must be 1 to 15 letters, digits, `-`, `_` or `.`; write for example wan0";
        return Err(SettingError::new("device", format!("{name:?}"), fix));
    }
    Ok(())
}

fn check_mtu(mtu_bytes: u16, addresses: &[Cidr]) -> Result<(), SettingError> {
    // RFC 8200 §5 and RFC 791: below, the kernel takes the family off the device.
    let least = if addresses.iter().all(Cidr::is_ipv4) { 68 } else { 1_280 };
    if mtu_bytes < least {
        let fix = format!("must be at least {least}");
        return Err(SettingError::new("mtu_bytes", mtu_bytes, fix));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_field_names_itself_its_value_and_the_fix() {
        let port = || PortConfig::new("west", "ns-west").address("10.9.1.2/24");
        let device = "must be 1 to 15 letters, digits, `-`, `_` or `.`; write for example wan0";
        let table = [
            (
                vec![PortConfig { site: String::new(), ..port() }],
                "ports[0].site = \"\": must be a site's name of 1 to 63 bytes".to_owned(),
            ),
            (
                vec![PortConfig { netns: "../etc".into(), ..port() }],
                "ports[0].netns = \"../etc\": must be a namespace's name as `ip netns` shows it".into(),
            ),
            (
                vec![PortConfig { device: "a-device-too-long".into(), ..port() }],
                format!("ports[0].device = \"a-device-too-long\": {device}"),
            ),
            (
                vec![PortConfig { device: "a b".into(), ..port() }],
                format!("ports[0].device = \"a b\": {device}"),
            ),
            (
                vec![PortConfig::new("west", "ns-west")],
                "ports[0].addresses = []: must have at least one; write for example 10.9.1.2/24".into(),
            ),
            (
                vec![port().address("10.9.1.300/24")],
                "ports[0].addresses[1] = 10.9.1.300/24: must be an address, a slash and a prefix length; \
                 write for example 10.9.1.2/24"
                    .into(),
            ),
            (
                vec![port().prefix("10.0.0.0/33")],
                "ports[0].prefixes[0] = 10.0.0.0/33: the prefix length must be at most 32".into(),
            ),
            (
                vec![PortConfig { prefixes: vec!["::/0".into(); 65], ..port() }],
                "ports[0].prefixes = 65 entries: must be at most 64".into(),
            ),
            (
                vec![PortConfig { mtu_bytes: 67, ..port() }],
                "ports[0].mtu_bytes = 67: must be at least 68".into(),
            ),
            (
                vec![PortConfig { mtu_bytes: 1_279, ..port().address("fd00:1::2/64") }],
                "ports[0].mtu_bytes = 1279: must be at least 1280".into(),
            ),
            (vec![port(), port()], "ports[1].site = west: is there already; write each site once".into()),
            (
                vec![port(), PortConfig::new("east", "ns-east").address("10.9.1.3/24")],
                "ports[1].addresses[0] = 10.9.1.3/24: is behind west already; give each site its own network"
                    .into(),
            ),
            (
                vec![port(); 65],
                "ports = 65 ports: must be at most 64; start a second router".into(),
            ),
        ];
        for (ports, text) in table {
            let config = TunConfig { ports, ..TunConfig::default() };
            assert_eq!(config.parse().unwrap_err().to_string(), text);
        }
        let impairment = Impairment::default().with_loss(2.0);
        let config = TunConfig { impairment, ..TunConfig::default() };
        let text = "impairment.loss = 2: must be between 0 and 1; write 0.01 for 1 %";
        assert_eq!(config.parse().unwrap_err().to_string(), text);
    }
}
