//! Clusters of real processes on loopback addresses, in one federation, with a relay between them that
//! delays, loses and cuts what they send each other; and what an operator and an application do there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use fedctl::demo::manifests::{self, BackendRefKind, HTTP_PORT, clusterset_host};
use fedctl::operator::Operator;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use wan::UdpRelay;
use wire::operator::proto::Store;

use crate::greeter::Greeter;
use crate::outside::Target;
use crate::{Site, SiteSpec, store, wait};

/// More than anything takes on a machine that does other work.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Of a federation of up to six clusters.
const VOTERS: usize = 3;

/// How far clusters are from each other, and what their store's timeouts are made for.
#[derive(Debug, Clone, Copy)]
pub struct Distance {
    pub profile: &'static str,
    pub one_way: Duration,
}

impl Distance {
    /// With nothing between them, not even a relay.
    pub const NONE: Self = Self { profile: "lan", one_way: Duration::ZERO };
    /// In one town.
    pub const NEAR: Self = Self { profile: "lan", one_way: Duration::from_millis(1) };
}

/// It dereferences to its sites. Fields are dropped in this order: processes first.
#[derive(Debug)]
pub struct Sites {
    sites: Vec<Site>,
    greeters: Vec<Greeter>,
    relay: Option<UdpRelay>,
    pub runtime: Runtime,
    folder: TempDir,
}

impl Sites {
    /// Prepares them; nothing runs yet.
    pub fn prepare(names: &[&str], distance: Distance) -> anyhow::Result<Self> {
        static COUNT: AtomicU8 = AtomicU8::new(0);
        let second = 80 + COUNT.fetch_add(1, Ordering::Relaxed) % 100;
        let third = u8::try_from(std::process::id() % 250)? + 1;
        let folder = tempfile::Builder::new().prefix("fg-sites-").tempdir()?;
        let mut sites = Vec::new();
        for (host, name) in (1..).zip(names) {
            let address: IpAddr = Ipv4Addr::new(127, second, third, host).into();
            let public = Ipv4Addr::new(127, second, third, 250).into();
            let site = Site::prepare(SiteSpec {
                name: (*name).into(),
                folder: folder.path().join(name),
                namespace: None,
                advertise: match distance.one_way.is_zero() {
                    true => SocketAddr::new(address, 8443),
                    false => SocketAddr::new(public, 8443 + u16::from(host)),
                },
                tunnel: SocketAddr::new(address, 8443),
                routes: address,
                admin: SocketAddr::new(address, 9901),
                workers: 1,
            })?;
            let profile = distance.profile;
            store::configure(&site, &format!("{{profile: {profile}, dialFrom: \"{address}\"}}"))?;
            sites.push(site);
        }
        let relay = match distance.one_way.is_zero() {
            true => None,
            false => Some(store::relay(&sites, distance.one_way)?),
        };
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let runtime = threads.worker_threads(1).enable_all().build()?;
        Ok(Self { sites, greeters: Vec::new(), relay, runtime, folder })
    }

    /// Prepares and starts them, and makes them one federation.
    pub fn start(names: &[&str], distance: Distance) -> anyhow::Result<Self> {
        let mut sites = Self::prepare(names, distance)?;
        sites.run()?;
        sites.federate()?;
        Ok(sites)
    }

    /// Starts all processes.
    pub fn run(&mut self) -> anyhow::Result<()> {
        for site in &mut self.sites {
            site.start_federation()?;
            site.start_gateway()?;
        }
        Ok(())
    }

    /// The first site founds, the others join.
    pub fn federate(&self) -> anyhow::Result<()> {
        self.runtime.block_on(store::found_and_join(&self.sites))?;
        if self.sites.len() >= VOTERS {
            self.settled()?;
        }
        Ok(())
    }

    /// Waits until the first three vote and follow one leader; returns its term and its place.
    pub fn settled(&self) -> anyhow::Result<(u64, usize)> {
        let voters = &self.sites[..VOTERS];
        let (term, leader) = self.runtime.block_on(store::settled(voters, VOTERS))?;
        Ok((term, self.place(&leader)))
    }

    /// Waits until those of these places follow one of themselves; returns the term and who.
    pub fn led_by_one_of(&self, places: &[usize]) -> (u64, usize) {
        let asked: Vec<&Site> = places.iter().map(|place| &self.sites[*place]).collect();
        wait::until("a leader among those that are left", LIMIT, || {
            let (term, leader) = self.runtime.block_on(store::leader(&asked))?;
            let place = self.place(&leader);
            places.contains(&place).then_some((term, place))
        })
    }

    /// Makes a site's node lead: it votes, has everything, and no change of the voters is under way.
    pub fn lead(&self, place: usize) {
        let name = &self.sites[place].spec.name;
        wait::until_ok(&format!("{name} to lead"), LIMIT, || {
            let (_, leader) = self.settled()?;
            if leader != place {
                self.sites[leader].fedctl(&["store", "transfer", "--to", name])?;
                anyhow::bail!("{leader} led");
            }
            Ok(())
        });
    }

    /// # Panics
    /// When there is no such site.
    pub fn place(&self, name: &str) -> usize {
        let found = self.sites.iter().position(|site| site.spec.name == name);
        found.unwrap_or_else(|| panic!("there is no site {name}"))
    }

    /// What lies between any two of them.
    ///
    /// # Panics
    /// When nothing does.
    pub fn relay(&self) -> &UdpRelay {
        self.relay.as_ref().expect("sites with a distance between them")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the node of a site says of the store, if it answers.
    pub fn store(&self, place: usize) -> Option<Store> {
        self.runtime.block_on(store::status(&self.sites[place]))
    }

    pub fn operator(&self, place: usize) -> anyhow::Result<Operator> {
        self.runtime.block_on(store::operator(&self.sites[place]))
    }

    /// Runs an application in a site that says `hello from` there, as the Service `name`.
    pub fn serve(&mut self, place: usize, name: &str) -> anyhow::Result<()> {
        let site = &self.sites[place];
        let text = format!("hello from {}", site.spec.name);
        let greeter = Greeter::start(&self.runtime, site.spec.routes, &text)?;
        let manifest = manifests::service(name, greeter.address, greeter.address);
        site.write_manifest(&format!("service-{name}"), &manifest)?;
        self.greeters.push(greeter);
        Ok(())
    }

    /// Lets these clusters reach a service of a site's.
    pub fn export(&self, place: usize, name: &str, to: &[&str]) -> anyhow::Result<()> {
        let manifest = manifests::export(name, to);
        self.sites[place].write_manifest(&format!("export-{name}"), &manifest)
    }

    /// Lets all clusters export in the one namespace that there is. The site's node is an admin.
    pub fn grant(&self, place: usize) -> anyhow::Result<()> {
        let names: Vec<&str> = self.sites.iter().map(|site| &*site.spec.name).collect();
        self.sites[place].write_manifest("grant", &manifests::grant(&names))
    }

    /// Gives a site a listener, and routes to services of the clusterset.
    pub fn route(&self, place: usize, services: &[&str]) -> anyhow::Result<()> {
        let site = &self.sites[place];
        site.write_manifest("gateway", &manifests::gateway(services))?;
        for service in services {
            let host = clusterset_host(service);
            let routes = manifests::routes(service, BackendRefKind::ServiceImport, &host);
            site.write_manifest(&format!("route-{service}"), &routes)?;
        }
        Ok(())
    }

    /// What an application in a site calls to reach a service.
    pub fn target(&self, place: usize, service: &str) -> Target {
        let address = SocketAddr::new(self.sites[place].spec.routes, HTTP_PORT);
        Target::new(address, clusterset_host(service))
    }

    /// Waits until a call in a site is answered by another one.
    pub fn until_answer(&self, place: usize, service: &str, from: usize) {
        let wanted = format!("hello from {}", self.sites[from].spec.name);
        let what = format!("{service} of {from} in {place}");
        let target = self.target(place, service);
        wait::until_ok(&what, LIMIT, || match target.get() {
            Ok(said) if said == wanted => Ok(()),
            Ok(said) => Err(said),
            Err(miss) => Err(miss.to_string()),
        });
    }
}

impl Deref for Sites {
    type Target = [Site];

    fn deref(&self) -> &[Site] {
        &self.sites
    }
}

impl DerefMut for Sites {
    fn deref_mut(&mut self) -> &mut [Site] {
        &mut self.sites
    }
}
