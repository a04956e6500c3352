//! Two gateways of one cluster behind HAProxy are restarted in turn, as an upgrade would, while clients
//! call a service of another cluster through them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::ensure;
use fedctl::demo::manifests::HTTP_PORT;

use crate::haproxy::HaProxy;
use crate::outside::{Ledger, Outside, Target};
use crate::sites::{Distance, LIMIT};
use crate::{Process, Sites, wait};

const CLIENTS: usize = 4;
/// As browsers and other proxies do: some requests on each connection.
const REQUESTS_PER_CONNECTION: usize = 20;
const DRAINED: Duration = Duration::from_secs(40);
/// Requests that each state of the two gateways has to pass.
const REQUESTS_BETWEEN: u64 = 200;

/// East has two gateways behind HAProxy, west the service.
#[derive(Debug)]
pub struct Scene {
    pub sites: Sites,
    gateways: [(IpAddr, Option<Process>); 2],
    proxy: HaProxy,
    outside: Outside,
    pub restarts: usize,
}

impl Scene {
    pub fn start() -> anyhow::Result<Self> {
        let mut sites = Sites::prepare(&["east", "west"], Distance::NONE)?;
        let first = sites[0].spec.routes;
        let [second, before] = [next(first, 100), next(first, 200)];
        let tunnel = SocketAddr::new(second, sites[0].spec.tunnel.port());
        sites[0].advertise_also(tunnel)?;
        sites.run()?;
        sites.federate()?;
        sites.serve(1, "api")?;
        sites.export(1, "api", &["east"])?;
        sites.route(0, &["api"])?;
        let ports = (HTTP_PORT, sites[0].spec.admin.port());
        let proxy = HaProxy::start(sites.folder(), before, &[first, second], ports)?;
        let another = sites[0].start_another_gateway("gw-1", second)?;
        let gateways = [(first, sites[0].gateway.take()), (second, Some(another))];
        let mut target = sites.target(0, "api");
        target.address = proxy.address;
        target.body = Some("hello from west".into());
        target.per_connection = REQUESTS_PER_CONNECTION;
        target.pause = Duration::ZERO;
        for (address, _) in &gateways {
            let own = Target { address: SocketAddr::new(*address, HTTP_PORT), ..target.clone() };
            wait::until_ok("an answer by each gateway", LIMIT, || {
                own.get().map_err(|miss| miss.to_string())
            });
        }
        proxy.until_up(&[true, true]);
        let outside = Outside::start(&target, CLIENTS);
        Ok(Self { sites, gateways, proxy, outside, restarts: 0 })
    }

    /// Restarts them in turn until so many requests have been made, or `until` has come; each at least
    /// once.
    pub fn run(&mut self, requests: u64, until: Instant) -> anyhow::Result<Ledger> {
        while self.restarts < 2
            || (self.outside.ledger().requests < requests && Instant::now() < until)
        {
            let at = self.restarts % 2;
            self.outside.more(REQUESTS_BETWEEN);
            let gateway = self.gateways[at].1.take();
            let status = gateway.map(|gateway| gateway.terminate(DRAINED)).transpose()?;
            ensure!(status.is_some_and(|status| status.success()), "gw-{at} ended with {status:?}");
            self.outside.more(REQUESTS_BETWEEN);
            self.start_gateway(at)?;
            self.proxy.until_up(&[true, true]);
            self.restarts += 1;
        }
        Ok(self.outside.ledger())
    }

    /// A gateway dies without a word, and is started again.
    pub fn kill(&mut self, at: usize) -> anyhow::Result<()> {
        if let Some(gateway) = self.gateways[at].1.take() {
            gateway.kill()?;
        }
        self.outside.more(REQUESTS_BETWEEN);
        self.start_gateway(at)?;
        self.proxy.until_up(&[true, true]);
        Ok(())
    }

    pub fn ledger(&self) -> Ledger {
        self.outside.ledger()
    }

    fn start_gateway(&mut self, at: usize) -> anyhow::Result<()> {
        let address = self.gateways[at].0;
        self.gateways[at].1 = Some(match at {
            0 => {
                self.sites[0].start_gateway()?;
                self.sites[0].gateway.take().expect("it was started just now")
            }
            _ => self.sites[0].start_another_gateway("gw-1", address)?,
        });
        Ok(())
    }
}

/// Another address of the same network.
fn next(address: IpAddr, by: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            IpAddr::from([a, b, c, d.wrapping_add(by)])
        }
        IpAddr::V6(_) => address,
    }
}
