//! The two sites: real nodes and gateways, and in west what east calls.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fedctl::demo::manifests::{self, BackendRefKind, HTTP_PORT, clusterset_host, tcp_port};
use testkit::{Process, Site, SiteSpec, site};
use wan::netns::Netns;
use wan::{Impairment, PortConfig, TunConfig, TunRouter};

use crate::load::Target;
use crate::origin;
use crate::pair::first_answer;

const LIMIT: Duration = Duration::from_secs(30);
const EAST: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
const WEST: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 1);
/// Behind west's gateway.
const ORIGIN_PORT: u16 = 8081;
const REDIS_PORT: u16 = 6379;
const POSTGRES_PORT: u16 = 5432;
/// Debian's folder of PostgreSQL's programs.
const POSTGRES_PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// How east gets to what is in west.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// A TCP connection over the path.
    Direct(Control),
    /// East's gateway, the tunnel over the same path, west's gateway.
    Federation,
}

/// TCP's congestion control on the side that sends; kernels differ in their default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    Cubic,
    Bbr,
}

impl Control {
    const ALL: [Self; 2] = [Self::Cubic, Self::Bbr];

    fn as_str(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }

    /// Of the origin that sends by it, which nothing leads to but a direct connection.
    fn origin(self) -> SocketAddr {
        let port = match self {
            Self::Cubic => 8082,
            Self::Bbr => 8083,
        };
        SocketAddr::new(WEST.into(), port)
    }
}

/// Fields are dropped in this order: processes, then the router, then the namespaces.
#[derive(Debug)]
pub(super) struct Stage {
    _applications: Vec<Process>,
    sites: [Site; 2],
    router: TunRouter,
    pub(super) east: Arc<Netns>,
    west: Arc<Netns>,
    _folder: tempfile::TempDir,
}

impl Stage {
    pub(super) fn build() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("fg-far-").tempdir()?;
        // PostgreSQL refuses to run as root, and its user has to get in here.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let (east, west) = (Arc::new(Netns::create("east")?), Arc::new(Netns::create("west")?));
        let port = |name: &str, netns: &Netns, address: Ipv4Addr| {
            PortConfig::new(name, netns.name()).address(format!("{address}/24"))
        };
        let ports = vec![port("east", &east, EAST), port("west", &west, WEST)];
        let impairment = Impairment::default();
        let router = TunRouter::start(TunConfig { ports, impairment, seed: 7 })?;
        let origin = SocketAddr::new(WEST.into(), ORIGIN_PORT);
        west.enter(|| {
            for control in Control::ALL {
                origin::start_with(control.origin(), control.as_str())?;
            }
            origin::start(origin)
        })??;
        let applications =
            vec![start_redis(folder.path(), &west)?, start_postgres(folder.path(), &west)?];
        let sites = start_sites(folder.path(), [&east, &west])?;
        let stage =
            Self { _applications: applications, sites, router, east, west, _folder: folder };
        let target = stage.http(Way::Federation);
        stage.in_east(async { first_answer(&target).await })?;
        stage.fill_database()?;
        Ok(stage)
    }

    /// From now on, packets take half of `rtt` each way, and this share of them is lost.
    pub(super) fn impair(&self, rtt: Duration, loss: f64) -> anyhow::Result<()> {
        self.impair_by(&Impairment::delayed(rtt / 2).with_loss(loss))
    }

    pub(super) fn impair_by(&self, impairment: &Impairment) -> anyhow::Result<()> {
        Ok(self.router.handle().set_all(impairment)?)
    }

    /// Whether a firewall in west lets no UDP through.
    pub(super) fn block_udp(&self, is_blocked: bool) -> anyhow::Result<()> {
        let rule = |name: &str, hook: &str, device: &str| {
            format!(
                "chain {name} {{ type filter hook {hook} priority filter; policy accept; \
                 {device} != \"lo\" meta l4proto udp drop; }}\n"
            )
        };
        let rules = rule("incoming", "input", "iifname") + &rule("outgoing", "output", "oifname");
        match is_blocked {
            true => self.west.run("nft", [format!("table inet blocked {{ {rules} }}")])?,
            false => self.west.run("nft", ["delete", "table", "inet", "blocked"])?,
        };
        Ok(())
    }

    /// Calls west until all of east's links that live run over this; how long that took.
    pub(super) fn until_over(&self, transport: &str) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let target = self.http(Way::Federation);
        loop {
            // A pair that is idle finds nothing out.
            self.in_east(async { first_answer(&target).await })?;
            let links = self.sites[0].json(&["links"])?;
            let all = links["items"].as_array().into_iter().flatten();
            let mut live = all.filter(|link| link["state"] == "Up").peekable();
            if live.peek().is_some() && live.all(|link| link["transport"] == transport) {
                return Ok(begun.elapsed());
            }
            ensure!(begun.elapsed() < LIMIT, "not over {transport} in {LIMIT:?}: {links}");
        }
    }

    pub(super) fn http(&self, way: Way) -> Target {
        let address = match way {
            Way::Direct(control) => control.origin(),
            Way::Federation => SocketAddr::new(EAST.into(), HTTP_PORT),
        };
        Target { address, host: clusterset_host("web") }
    }

    pub(super) fn postgres(&self, way: Way) -> SocketAddr {
        tcp(way, POSTGRES_PORT, "web")
    }

    pub(super) fn redis(&self, way: Way) -> SocketAddr {
        tcp(way, REDIS_PORT, "api")
    }

    /// Runs on a thread in east's namespace.
    pub(super) fn in_east<T: Send>(
        &self,
        work: impl Future<Output = anyhow::Result<T>> + Send,
    ) -> anyhow::Result<T> {
        self.east.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work)
        })?
    }

    fn fill_database(&self) -> anyhow::Result<()> {
        let address = self.postgres(Way::Direct(Control::Cubic));
        let begun = Instant::now();
        loop {
            let mut pgbench = client(&self.east, "pgbench", address, "-p");
            pgbench.args([
                "--quiet",
                "--initialize",
                "--scale=1",
                "--username=postgres",
                "postgres",
            ]);
            let output = pgbench.output()?;
            if output.status.success() {
                return Ok(());
            }
            let problem = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(begun.elapsed() < LIMIT, "pgbench --initialize: {problem}");
            std::thread::yield_now();
        }
    }
}

fn tcp(way: Way, port: u16, service: &str) -> SocketAddr {
    match way {
        Way::Direct(_) => SocketAddr::new(WEST.into(), port),
        Way::Federation => SocketAddr::new(EAST.into(), tcp_port(service)),
    }
}

/// A program in east that calls `address`.
pub(super) fn client(east: &Netns, program: &str, address: SocketAddr, port: &str) -> Command {
    let mut command = east.command(program);
    command.args(["-h", &address.ip().to_string(), port, &address.port().to_string()]);
    command
}

fn start_redis(folder: &Path, west: &Netns) -> anyhow::Result<Process> {
    let (port, address) = (REDIS_PORT.to_string(), WEST.to_string());
    let arguments = ["--port", &port, "--bind", &address, "--save", "", "--protected-mode", "no"];
    let log = folder.join("redis.log");
    Process::start("redis-server", "redis-server", &arguments, Some(west.name()), &log)
}

fn start_postgres(folder: &Path, west: &Netns) -> anyhow::Result<Process> {
    let data = folder.join("postgres");
    std::fs::create_dir(&data)?;
    let as_postgres = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
    let owned = Command::new("chown").arg("postgres:postgres").arg(&data).status()?;
    ensure!(owned.success(), "chown of PostgreSQL's folder: {owned}");
    let initdb = Command::new("setpriv")
        .args(as_postgres)
        .arg(format!("{POSTGRES_PROGRAMS}/initdb"))
        .args(["--auth=trust", "--no-sync", "--pgdata"])
        .arg(&data)
        .current_dir("/")
        .output()
        .context("start initdb; it comes with Debian's package postgresql")?;
    ensure!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
    let hba = data.join("pg_hba.conf");
    std::fs::write(&hba, std::fs::read_to_string(&hba)? + "host all all 198.18.0.0/15 trust\n")?;
    let (data, address) = (data.display().to_string(), WEST.to_string());
    let postgres = format!("{POSTGRES_PROGRAMS}/postgres");
    // What the disk does is the same for both ways, and not what is measured.
    let own = [&*postgres, "-D", &data, "-h", &address, "-k", "", "-c", "fsync=off"];
    let arguments: Vec<&str> = as_postgres.into_iter().chain(own).collect();
    Process::start("postgres", "setpriv", &arguments, Some(west.name()), &folder.join("pg.log"))
}

fn start_sites(folder: &Path, [east, west]: [&Netns; 2]) -> anyhow::Result<[Site; 2]> {
    let mut sites = [prepare("east", EAST, folder, east)?, prepare("west", WEST, folder, west)?];
    for site in &mut sites {
        site.start_federation()?;
    }
    site::introduce(&sites)?;
    let [east, west] = &mut sites;
    let at = |port: u16| SocketAddr::new(WEST.into(), port);
    for (name, behind) in [("web", POSTGRES_PORT), ("api", REDIS_PORT)] {
        let service = manifests::service(name, at(ORIGIN_PORT), at(behind));
        west.write_manifest(&format!("service-{name}"), &service)?;
        west.write_manifest(&format!("export-{name}"), &manifests::export(name, &["east"]))?;
        east.write_manifest(&format!("import-{name}"), &manifests::import(name, &["west"]))?;
        let host = clusterset_host(name);
        let routes = manifests::routes(name, BackendRefKind::ServiceImport, &host);
        east.write_manifest(&format!("routes-{name}"), &routes)?;
    }
    east.write_manifest("gateway", &manifests::gateway(&["web", "api"]))?;
    for site in &mut sites {
        site.start_gateway()?;
    }
    Ok(sites)
}

fn prepare(name: &str, address: Ipv4Addr, folder: &Path, netns: &Netns) -> anyhow::Result<Site> {
    let address: IpAddr = address.into();
    Site::prepare(SiteSpec {
        name: name.into(),
        folder: folder.join(name),
        namespace: Some(netns.name().into()),
        advertise: SocketAddr::new(address, 8443),
        tunnel: SocketAddr::new(address, 8443),
        routes: address,
        admin: SocketAddr::from(([127, 0, 0, 1], 9901)),
        workers: 1,
    })
}
