//! HAProxy before a cluster's gateways: a load balancer that is none of ours. It asks each gateway's
//! `/readyz`, tries another one where it could not connect, and tries no request twice.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crate::outside::Target;
use crate::{Process, wait};

const PROGRAM: &str = "haproxy";
const STARTED: Duration = Duration::from_secs(20);

/// It ends when dropped.
#[derive(Debug)]
pub struct HaProxy {
    /// Where clients come.
    pub address: SocketAddr,
    state: SocketAddr,
    _process: Process,
}

impl HaProxy {
    /// Why it cannot be used here, if it cannot: the reason of a skipped test.
    pub fn unavailable() -> Option<&'static str> {
        let version = std::process::Command::new(PROGRAM).arg("-v").output();
        version.is_err().then_some("needs the program haproxy (Debian's package haproxy)")
    }

    /// Before gateways that listen at these addresses, on this port and with this admin port.
    pub fn start(
        folder: &Path,
        address: IpAddr,
        gateways: &[IpAddr],
        (port, admin): (u16, u16),
    ) -> anyhow::Result<Self> {
        let (clients, state) = (SocketAddr::new(address, 80), SocketAddr::new(address, 81));
        let mut text = format!(
            "\
defaults
  mode http
  timeout connect 1s
  timeout client 30s
  timeout server 30s
  timeout check 3s
  retries 3
  option redispatch 1
frontend clients
  bind {clients}
  default_backend gateways
frontend state
  bind {state}
  stats enable
  stats uri /
backend gateways
  balance roundrobin
  option httpchk GET /readyz
  default-server check port {admin} inter 100ms fall 1 rise 1
"
        );
        for (number, gateway) in gateways.iter().enumerate() {
            text += &format!("  server gw-{number} {gateway}:{port}\n");
        }
        let config = folder.join("haproxy.cfg");
        std::fs::write(&config, text)?;
        let arguments = ["-db", "-f", &config.display().to_string()].map(str::to_owned);
        let log = folder.join("haproxy.log");
        let process = Process::start(PROGRAM, PROGRAM, &arguments, None, &log)?;
        Ok(Self { address: clients, state, _process: process })
    }

    /// Waits until it sends requests to exactly these of its gateways.
    pub fn until_up(&self, wanted: &[bool]) {
        wait::until_ok(&format!("{wanted:?} at HAProxy"), STARTED, || {
            let page = self.page()?;
            let state = |number: usize| {
                let row = format!("gateways,gw-{number},");
                let line = page.lines().find(|line| line.starts_with(&row));
                line.is_some_and(|line| line.contains(",UP,"))
            };
            let seen: Vec<bool> = (0..wanted.len()).map(state).collect();
            if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    }

    fn page(&self) -> Result<String, String> {
        let mut target = Target::new(self.state, "state");
        target.path = "/;csv".into();
        target.get().map_err(|miss| miss.to_string())
    }
}
