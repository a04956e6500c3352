//! Two real clusters on loopback, their gateways connected directly: what is measured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use fedctl::demo::manifests::{self, BackendRefKind, HTTP_PORT, clusterset_host};
use fedctl::demo::probe;
use testkit::{Site, SiteSpec, site};

use crate::load::Target;

const LIMIT: Duration = Duration::from_secs(30);

/// `east` imports what `west` exports; the origin is behind west's gateway.
#[derive(Debug)]
pub struct Pair {
    pub east: Site,
    pub west: Site,
    pub target: Target,
    /// From starting all four processes with everything on disk to the first answer.
    pub warm_start: Duration,
}

impl Pair {
    pub async fn start(folder: &Path, origin: SocketAddr) -> anyhow::Result<Self> {
        let mut sites = [prepare("east", 1, folder)?, prepare("west", 2, folder)?];
        for site in &mut sites {
            site.start_federation()?;
        }
        site::introduce(&sites)?;
        let [mut east, mut west] = sites;
        let host = clusterset_host("api");
        west.write_manifest("service", &manifests::service("api", origin, origin))?;
        west.write_manifest("export", &manifests::export("api", &["east"]))?;
        east.write_manifest("gateway", &manifests::gateway(&[]))?;
        east.write_manifest("import", &manifests::import("api", &["west"]))?;
        let routes = manifests::routes("api", BackendRefKind::ServiceImport, &host);
        // The HTTPRoute alone: nothing here speaks TCP.
        let route = routes.split("---\n").next().context("a manifest has a first document")?;
        east.write_manifest("route", route)?;
        let target = Target { address: SocketAddr::new(east.spec.routes, HTTP_PORT), host };
        east.start_gateway()?;
        west.start_gateway()?;
        first_answer(&target).await?;

        // All stopped and started again: now with keys, SVIDs and snapshots on disk.
        for site in [&mut east, &mut west] {
            site.stop_gateway()?;
            site.kill_federation()?;
        }
        let begun = Instant::now();
        for site in [&mut east, &mut west] {
            site.start_gateway()?;
        }
        first_answer(&target).await?;
        let warm_start = begun.elapsed();
        for site in [&mut east, &mut west] {
            site.start_federation()?;
        }
        Ok(Self { east, west, target, warm_start })
    }

    /// Process ids of the two gateways.
    pub fn gateways(&self) -> anyhow::Result<[u32; 2]> {
        let id = |site: &Site| site.gateway.as_ref().map(testkit::Process::id);
        Ok([id(&self.east).context("east is down")?, id(&self.west).context("west is down")?])
    }
}

fn prepare(name: &str, host: u8, folder: &Path) -> anyhow::Result<Site> {
    let address: IpAddr = Ipv4Addr::new(127, 72, 1, host).into();
    Site::prepare(SiteSpec {
        name: name.into(),
        folder: folder.join(name),
        namespace: None,
        advertise: SocketAddr::new(address, 8443),
        tunnel: SocketAddr::new(address, 8443),
        routes: address,
        admin: SocketAddr::new(address, 9901),
        workers: 1,
    })
}

/// Waits until a request is answered, but not for ever.
pub(crate) async fn first_answer(target: &Target) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    loop {
        pace.tick().await;
        match probe::get_once(target.address, &target.host).await {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed() > LIMIT => return Err(error.context("no first answer")),
            Err(_) => {}
        }
    }
}
