//! What a relay is told at its start.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::limits::LINKS_MAX;
use crate::sites::check_name;
use crate::{Impairment, SettingError};

/// A relay: its links and its seed.
#[derive(Clone, Debug, Default)]
pub struct RelayConfig {
    /// The directed links; each `(from, to)` once.
    pub links: Vec<LinkConfig>,
    /// Decides which packets are hit: same seed and same order of packets, same outcome.
    pub seed: u64,
}

/// A directed link: what site `from` dials to reach site `to`.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The site that dials.
    pub from: String,
    /// The site that is dialled.
    pub to: String,
    /// Where we listen; a loopback address, usually with port 0.
    pub listen: SocketAddr,
    /// Only what this host sends is the link's. So several sites can dial one address, each by a
    /// link of its own.
    pub client: Option<IpAddr>,
    /// Where packets go. Until it is known they are dropped and counted.
    pub target: Option<SocketAddr>,
    /// What happens to packets from `from` to `to`.
    pub forward: Impairment,
    /// What happens to the answers.
    pub back: Impairment,
}

impl LinkConfig {
    /// A link on a free port of 127.0.0.1, without impairment, its target to be set later.
    pub fn new(from: impl Into<String>, to: impl Into<String>) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            client: None,
            target: None,
            forward: Impairment::default(),
            back: Impairment::default(),
        }
    }

    /// The same, listening here.
    pub const fn listen(mut self, addr: SocketAddr) -> Self {
        self.listen = addr;
        self
    }

    /// The same for packets from this host only.
    pub const fn client(mut self, host: IpAddr) -> Self {
        self.client = Some(host);
        self
    }

    /// The same with this target.
    pub const fn target(mut self, addr: SocketAddr) -> Self {
        self.target = Some(addr);
        self
    }

    /// The same with this impairment in both directions.
    pub fn impaired(mut self, impairment: Impairment) -> Self {
        self.forward = impairment.clone();
        self.back = impairment;
        self
    }

    fn validate(&self) -> Result<(), SettingError> {
        check_name("from", &self.from)?;
        check_name("to", &self.to)?;
        if self.from == self.to {
            return Err(SettingError::new("to", &self.to, "must be another site than `from`"));
        }
        if !self.listen.ip().is_loopback() {
            return Err(SettingError::new(
                "listen",
                self.listen,
                "must be a loopback address, since the relay answers anybody; write 127.0.0.1:0 or [::1]:0",
            ));
        }
        if let Some(target) = self.target {
            check_target(target)?;
        }
        self.forward.validate().map_err(|error| error.within("forward"))?;
        self.back.validate().map_err(|error| error.within("back"))
    }
}

impl RelayConfig {
    pub(super) fn validate(&self) -> Result<(), SettingError> {
        if self.links.len() > LINKS_MAX {
            return Err(SettingError::new(
                "links",
                format!("{} links", self.links.len()),
                format!("must be at most {LINKS_MAX}; start a second relay"),
            ));
        }
        let (mut seen, mut listeners) = (BTreeSet::new(), BTreeMap::new());
        for (index, link) in self.links.iter().enumerate() {
            link.validate().map_err(|error| error.within(&format!("links[{index}]")))?;
            if !seen.insert((&link.from, &link.to)) {
                return Err(SettingError::new(
                    format!("links[{index}]"),
                    format!("{} -> {}", link.from, link.to),
                    "is there already; write each pair of sites once per direction",
                ));
            }
            if link.listen.port() != 0 {
                let clients: &mut Vec<_> = listeners.entry(link.listen).or_default();
                if clients.iter().any(|other: &Option<IpAddr>| {
                    other.is_none() || link.client.is_none() || *other == link.client
                }) {
                    return Err(SettingError::new(
                        format!("links[{index}].listen"),
                        link.listen,
                        "another link listens there; write another port, or a client of its own for each",
                    ));
                }
                clients.push(link.client);
            }
        }
        Ok(())
    }
}

/// A target must be an address that can be sent to.
pub(super) fn check_target(target: SocketAddr) -> Result<(), SettingError> {
    if target.port() == 0 || target.ip().is_unspecified() || target.ip().is_multicast() {
        return Err(SettingError::new(
            "target",
            target,
            "must be an address and port that a socket is bound to; bind first, then set the target",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_field_names_itself_its_value_and_the_fix() {
        let link = || LinkConfig::new("west", "east");
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let bad = Impairment::default().with_loss(2.0);
        let table = [
            (
                vec![LinkConfig::new("", "east")],
                "links[0].from = \"\": must be a site's name of 1 to 63 bytes",
            ),
            (
                vec![LinkConfig::new("west", "e".repeat(64))],
                "must be a site's name of 1 to 63 bytes",
            ),
            (
                vec![LinkConfig::new("west", "west")],
                "links[0].to = west: must be another site than `from`",
            ),
            (
                vec![link().listen(addr("0.0.0.0:0"))],
                "links[0].listen = 0.0.0.0:0: must be a loopback address, since the relay answers anybody; \
                 write 127.0.0.1:0 or [::1]:0",
            ),
            (
                vec![link().target(addr("127.0.0.1:0"))],
                "links[0].target = 127.0.0.1:0: must be an address and port that a socket is bound to; \
                 bind first, then set the target",
            ),
            (
                vec![link().target(addr("[::]:443"))],
                "links[0].target = [::]:443: must be an address and port",
            ),
            (
                vec![
                    LinkConfig::new("east", "west"),
                    LinkConfig { forward: bad.clone(), ..link() },
                ],
                "links[1].forward.loss = 2: must be between 0 and 1; write 0.01 for 1 %",
            ),
            (
                vec![LinkConfig { back: bad, ..link() }],
                "links[0].back.loss = 2: must be between 0 and 1; write 0.01 for 1 %",
            ),
            (
                vec![link(), link()],
                "links[1] = west -> east: is there already; write each pair of sites once per direction",
            ),
            (
                vec![
                    LinkConfig::new("west", "south").listen(addr("127.0.0.1:7")),
                    link().listen(addr("127.0.0.1:7")).client([127, 0, 0, 2].into()),
                ],
                "links[1].listen = 127.0.0.1:7: another link listens there; write another port, or",
            ),
            (
                (0..257).map(|n| LinkConfig::new(format!("s{n}"), "east")).collect(),
                "links = 257 links: must be at most 256; start a second relay",
            ),
        ];
        for (links, text) in table {
            let error = RelayConfig { links, seed: 0 }.validate().unwrap_err().to_string();
            assert!(error.contains(text), "{error:?} has not {text:?}");
        }
    }
}
