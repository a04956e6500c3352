//! The network under the sites: a namespace for each, our router between them, and for a site that
//! cannot be dialled a NAT of the kernel's in a namespace of its own.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use testkit::wait;
use wan::netns::Netns;
use wan::{Impairment, PortConfig, TunConfig, TunRouter};

use super::LIMIT;

/// One way between two sites.
const DELAY: Duration = Duration::from_millis(20);
const LOSS: f64 = 0.01;
/// How long a socket of [`Network::assert_no_inbound`] waits before more is sent.
const PATIENCE: Duration = Duration::from_millis(100);

/// A site and where it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) name: &'static str,
    /// Of its applications and its gateway; the first one is that of its listeners.
    pub(crate) addresses: &'static [&'static str],
    /// Where it says that others reach its gateway.
    pub(crate) advertise: &'static str,
    /// The NAT's addresses outside; empty for a site that is not behind one.
    pub(crate) nat: &'static [&'static str],
}

pub(crate) const EAST: Place = Place {
    name: "east",
    addresses: &["198.18.1.1", "2001:db8:1::1"],
    advertise: "2001:db8:1::1",
    nat: &[],
};
/// IPv6 only.
pub(crate) const WEST: Place =
    Place { name: "west", addresses: &["2001:db8:2::1"], advertise: "2001:db8:2::1", nat: &[] };
pub(crate) const SOUTH: Place = Place {
    name: "south",
    addresses: &["198.18.3.1", "2001:db8:3::1"],
    advertise: "2001:db8:3::1",
    nat: &[],
};
/// Behind a NAT whose address it advertises, though nobody comes in there.
pub(crate) const NORTH: Place = Place {
    name: "north",
    addresses: &["10.77.0.2", "fd77::2"],
    advertise: "198.18.4.1",
    nat: &["198.18.4.1", "2001:db8:4::1"],
};

/// Fields are dropped in this order: the router before the namespaces that its devices are in.
#[derive(Debug)]
pub(crate) struct Network {
    _router: TunRouter,
    sites: Vec<(Place, Arc<Netns>)>,
    nats: Vec<(&'static str, Netns)>,
}

impl Network {
    /// 40 ms and 1 % loss between any two of these.
    pub(crate) fn build(places: &[Place], folder: &Path) -> Self {
        let (mut sites, mut nats, mut ports) = (Vec::new(), Vec::new(), Vec::new());
        for place in places {
            let site = Arc::new(Netns::create(place.name).unwrap());
            let port = |netns: &Netns, addresses: &[&str]| {
                let port = PortConfig::new(place.name, netns.name());
                addresses.iter().fold(port, |port, address| port.address(network_of(address)))
            };
            if place.nat.is_empty() {
                ports.push(port(&site, place.addresses));
            } else {
                let nat = Netns::create("nat").unwrap();
                ports.push(port(&nat, place.nat));
                nats.push((nat, Arc::clone(&site), *place));
            }
            sites.push((*place, site));
        }
        let impairment = Impairment::delayed(DELAY).with_loss(LOSS);
        let router = TunRouter::start(TunConfig { ports, impairment, seed: 3 }).unwrap();
        for (nat, inside, place) in &nats {
            masquerade(nat, inside, place, folder);
        }
        let nats = nats.into_iter().map(|(nat, _, place)| (place.name, nat)).collect();
        Self { _router: router, sites, nats }
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        self.sites.iter().map(|(place, _)| *place)
    }

    pub(crate) fn netns(&self, site: &str) -> &Arc<Netns> {
        let found = self.sites.iter().find(|(place, _)| place.name == site);
        &found.expect("the site was built").1
    }

    /// The NAT of a site has these addresses outside from now on, and no others. With the old ones all of
    /// its mappings are gone.
    pub(crate) fn move_nat(&self, site: &str, old: &[&str], new: &[&str]) {
        let (_, nat) = self.nats.iter().find(|(name, _)| *name == site).expect("it has a NAT");
        let ip = |arguments: String| nat.run("ip", arguments.split_whitespace()).unwrap();
        // The new ones first: a device without addresses would lose its routes. Each is a network of its own,
        // so that the old ones do not take them along.
        for address in new {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            ip(format!("address add {address} dev wan0 {nodad}"));
        }
        for address in old {
            let family = if address.contains(':') { "-6" } else { "-4" };
            ip(format!("{family} address flush dev wan0 to {address}"));
        }
    }

    /// Shows that nothing comes in to the gateway's port of `inside` but answers: neither by the
    /// site's own address, nor by the NAT's, nor by the mapping that a packet to somebody else made.
    pub(crate) fn assert_no_inbound(&self, inside: Place, from: Place) {
        let socket = |site: &str, address: &str| {
            let bound = self.netns(site).enter(|| UdpSocket::bind(address)).unwrap().unwrap();
            bound.set_read_timeout(Some(PATIENCE)).unwrap();
            bound
        };
        let gateway = socket(inside.name, &format!("{}:8443", inside.addresses[0]));
        let friend = socket(from.name, &format!("{}:0", from.addresses[0]));
        let stranger = socket(from.name, &format!("{}:0", from.addresses[0]));
        let mapped = wait::until("a packet from inside", LIMIT, || {
            gateway.send_to(b"out", friend.local_addr().unwrap()).unwrap();
            Some(friend.recv_from(&mut [0; 64]).ok()?.1)
        });
        let own = SocketAddr::new(inside.addresses[0].parse().unwrap(), 8443);
        let advertised = SocketAddr::new(inside.advertise.parse().unwrap(), 8443);
        assert_eq!(mapped.ip(), advertised.ip(), "it does not go out by the NAT");
        for target in [own, advertised, mapped].repeat(5) {
            stranger.send_to(b"unasked", target).unwrap();
        }
        // The same way, after what nobody asked for.
        wait::until("the answer to come in", LIMIT, || {
            friend.send_to(b"answer", mapped).unwrap();
            let mut packet = [0; 64];
            let (length, _) = gateway.recv_from(&mut packet).ok()?;
            assert_eq!(&packet[..length], b"answer", "a packet came in that nobody asked for");
            Some(())
        });
    }
}

/// `2001:db8:1::1` is in a network of its own.
fn network_of(address: &str) -> String {
    let bits = if address.contains(':') { 64 } else { 24 };
    format!("{address}/{bits}")
}

/// Puts the site behind `nat`: what goes out has the NAT's address, and only answers come in.
fn masquerade(nat: &Netns, inside: &Netns, place: &Place, folder: &Path) {
    let run = |netns: &Netns, program: &str, arguments: &str| {
        netns.run(program, arguments.split_whitespace()).unwrap();
    };
    let peer = format!("link add lan0 type veth peer name wan0 netns {}", inside.name());
    run(nat, "ip", &peer);
    run(nat, "ip", "link set lan0 up");
    run(inside, "ip", "link set wan0 up");
    for (address, gateway) in std::iter::zip(place.addresses, ["10.77.0.1", "fd77::1"]) {
        // Duplicate address detection would keep an IPv6 address unusable for a second.
        let nodad = if address.contains(':') { "nodad" } else { "" };
        run(nat, "ip", &format!("address add {} dev lan0 {nodad}", network_of(gateway)));
        run(inside, "ip", &format!("address add {} dev wan0 {nodad}", network_of(address)));
        run(inside, "ip", &format!("route add default via {gateway} dev wan0"));
    }
    let forward = |family: &str| format!("echo 1 > /proc/sys/net/{family}/conf/all/forwarding");
    for family in ["ipv4", "ipv6"] {
        nat.run("sh", ["-c", &forward(family)]).unwrap();
    }
    let rules = folder.join("nat.nft");
    std::fs::write(&rules, include_str!("nat.nft")).unwrap();
    nat.run("nft", ["-f", rules.to_str().unwrap()]).unwrap();
}
