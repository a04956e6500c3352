//! A site: one cluster's real processes, `fedgate-federation` and `fedgate-gateway`, as an operator
//! would start them, perhaps in a network namespace of its own.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::{Process, programs, wait};

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What a site needs to know of itself.
#[derive(Debug, Clone)]
pub struct SiteSpec {
    pub name: String,
    /// Configuration, manifests, data and logs; keep it short (Unix socket paths).
    pub folder: PathBuf,
    pub namespace: Option<String>,
    /// Where other sites reach its gateway.
    pub advertise: SocketAddr,
    pub tunnel: SocketAddr,
    pub routes: IpAddr,
    pub admin: SocketAddr,
    pub workers: usize,
}

/// A prepared site. Its processes end when it is dropped.
#[derive(Debug)]
pub struct Site {
    pub spec: SiteSpec,
    pub federation: Option<Process>,
    pub gateway: Option<Process>,
    /// A command that replaces itself by the node, such as `nsenter` or `env` with their arguments.
    pub node_under: Vec<String>,
}

impl Site {
    /// Writes folders and configuration; starts nothing.
    pub fn prepare(spec: SiteSpec) -> anyhow::Result<Self> {
        let SiteSpec { name, folder, advertise, tunnel, routes, admin, .. } = &spec;
        std::fs::create_dir_all(folder.join("manifests"))?;
        let data = folder.display();
        let federation = format!(
            "\
apiVersion: fedgate.dev/v1alpha1
kind: FederationConfig
cluster: {name}
trustDomain: {name}.example
dataDir: {data}/federation
manifests: {data}/manifests
sockets: {{resource: {data}/resource.sock, operator: {data}/operator.sock}}
advertise: [{{transport: quic, host: \"{host}\", port: {port}}}]
",
            host = advertise.ip(),
            port = advertise.port(),
        );
        std::fs::write(folder.join("federation.yaml"), federation)?;
        let listen = [tunnel.to_string(), routes.to_string(), admin.to_string()];
        let gateway = gateway_config(&spec, "gw-0", &listen, "gateway");
        std::fs::write(folder.join("gateway.yaml"), gateway)?;
        Ok(Self { spec, federation: None, gateway: None, node_under: Vec::new() })
    }

    /// Adds fields to the federation node's configuration.
    pub fn configure_federation(&self, yaml: &str) -> anyhow::Result<()> {
        let path = self.spec.folder.join("federation.yaml");
        let text = std::fs::read_to_string(&path)? + yaml;
        Ok(std::fs::write(path, text)?)
    }

    /// Says that others reach the site's gateways here too, before its node is started.
    pub fn advertise_also(&self, address: SocketAddr) -> anyhow::Result<()> {
        let path = self.spec.folder.join("federation.yaml");
        let (host, port) = (address.ip(), address.port());
        let more = format!("advertise: [{{transport: quic, host: \"{host}\", port: {port}}}, ");
        let text = std::fs::read_to_string(&path)?.replace("advertise: [", &more);
        Ok(std::fs::write(path, text)?)
    }

    /// Puts the node's data elsewhere, before it is started for the first time.
    pub fn move_federation_data(&self, to: &Path) -> anyhow::Result<()> {
        let path = self.spec.folder.join("federation.yaml");
        let here = format!("dataDir: {}/federation", self.spec.folder.display());
        let text = std::fs::read_to_string(&path)?;
        let text = text.replace(&here, &format!("dataDir: {}", to.display()));
        Ok(std::fs::write(path, text)?)
    }

    /// Starts the federation node and waits until its operator API answers.
    pub fn start_federation(&mut self) -> anyhow::Result<()> {
        self.spawn_federation()?;
        let what = format!("the federation node of {}", self.spec.name);
        wait::until(&what, START_LIMIT, || {
            let alive = self.federation.as_mut().is_some_and(Process::is_running);
            assert!(alive, "{what} ended: {}", self.log("federation"));
            self.fedctl(&["status"]).ok()
        });
        Ok(())
    }

    /// Starts the federation node, which may end again at once.
    pub fn spawn_federation(&mut self) -> anyhow::Result<()> {
        self.federation = Some(self.start("fedgate-federation", "federation", &self.node_under)?);
        Ok(())
    }

    /// Waits until the federation node has ended by itself; returns how.
    pub fn until_federation_ended(&mut self) -> anyhow::Result<ExitStatus> {
        let mut node = self.federation.take().context("no federation node is running")?;
        let what = format!("the end of the federation node of {}", self.spec.name);
        Ok(wait::until(&what, START_LIMIT, || node.ended()))
    }

    pub fn start_gateway(&mut self) -> anyhow::Result<()> {
        self.gateway = Some(self.start("fedgate-gateway", "gateway", &[])?);
        Ok(())
    }

    /// Starts another gateway of the site's, with the same ports at an address of its own.
    pub fn start_another_gateway(&self, name: &str, address: IpAddr) -> anyhow::Result<Process> {
        let SiteSpec { folder, tunnel, admin, .. } = &self.spec;
        let at = |port: u16| SocketAddr::new(address, port).to_string();
        let listen = [at(tunnel.port()), address.to_string(), at(admin.port())];
        let part = format!("gateway-{name}");
        let config = gateway_config(&self.spec, name, &listen, &part);
        std::fs::write(folder.join(format!("{part}.yaml")), config)?;
        self.start("fedgate-gateway", &part, &[])
    }

    /// SIGTERM, and the drain to its end.
    pub fn stop_gateway(&mut self) -> anyhow::Result<()> {
        let gateway = self.gateway.take().context("no gateway is running")?;
        let status = gateway.terminate(STOP_LIMIT)?;
        ensure!(status.success(), "the gateway ended with {status}: {}", self.log("gateway"));
        Ok(())
    }

    pub fn kill_federation(&mut self) -> anyhow::Result<()> {
        self.federation.take().context("no federation node is running")?.kill()
    }

    pub fn kill_gateway(&mut self) -> anyhow::Result<()> {
        self.gateway.take().context("no gateway is running")?.kill()
    }

    /// Puts a manifest into the site's folder in one step.
    pub fn write_manifest(&self, name: &str, yaml: &str) -> anyhow::Result<()> {
        let folder = self.spec.folder.join("manifests");
        let fresh = folder.join(format!(".{name}.new"));
        std::fs::write(&fresh, yaml)?;
        Ok(std::fs::rename(fresh, folder.join(format!("{name}.yaml")))?)
    }

    /// Runs `fedctl` against this site's node and returns what it printed.
    pub fn fedctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let server = format!("unix:{}/operator.sock", self.spec.folder.display());
        let mut command = Command::new(programs::path("fedctl"));
        let output = command.args(["--server", &server]).args(arguments).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The same as a JSON document.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        let text = self.fedctl(&[arguments, &["-o", "json"]].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    pub fn log(&self, part: &str) -> String {
        let path = self.spec.folder.join(format!("{part}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    pub fn access_log(&self) -> PathBuf {
        self.spec.folder.join("access.log")
    }

    fn start(&self, program: &str, part: &str, under: &[String]) -> anyhow::Result<Process> {
        let config = self.spec.folder.join(format!("{part}.yaml"));
        let log = self.spec.folder.join(format!("{part}.log"));
        let name = format!("{program} of {}", self.spec.name);
        let program = programs::path(program).display().to_string();
        let mut command = under.to_vec();
        command.extend([program, "--config".into(), config.display().to_string()]);
        let namespace = self.spec.namespace.as_deref();
        Process::start(&name, &command[0], &command[1..], namespace, &log)
    }
}

/// `listen` has the addresses of its tunnels, of its routes and of its admin port; its data and its
/// files are named after `part`.
fn gateway_config(spec: &SiteSpec, name: &str, listen: &[String; 3], part: &str) -> String {
    let SiteSpec { name: cluster, folder, workers, .. } = spec;
    let [tunnel, routes, admin] = listen;
    let data = folder.display();
    let log = if part == "gateway" { "access".to_owned() } else { format!("access-{name}") };
    format!(
        "\
apiVersion: fedgate.dev/v1alpha1
kind: GatewayConfig
name: {name}
cluster: {cluster}
trustDomain: {cluster}.example
dataDir: {data}/{part}
listen: {{tunnel: \"{tunnel}\", routes: \"{routes}\"}}
federation: {{socket: {data}/resource.sock}}
admin: {{listen: \"{admin}\"}}
workers: {workers}
accessLog: {{path: {data}/{log}.log}}
"
    )
}

/// Gives every site every other one's own ClusterPeer, as operators would by `fedctl peer`.
pub fn introduce(sites: &[Site]) -> anyhow::Result<()> {
    for site in sites {
        let manifest = site.fedctl(&["peer"])?;
        for other in sites.iter().filter(|other| other.spec.name != site.spec.name) {
            other.write_manifest(&format!("peer-{}", site.spec.name), &manifest)?;
        }
    }
    Ok(())
}
