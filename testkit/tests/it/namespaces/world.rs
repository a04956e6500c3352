//! Sites of real processes on a [`Network`]: a federation node and a gateway each, a web server that
//! says where it is, and what an operator does with `fedctl`.

#![expect(clippy::print_stdout, reason = "a test tells the times that were measured")]

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{Process, Site, SiteSpec, wait};

use super::LIMIT;
use super::load::{self, Load};
use super::network::{Network, Place};

/// A Replica leaves a source that it has not heard for this long.
const HEARD_MS_MAX: u64 = 16_000;

/// Fields are dropped in this order: processes first, then the network under them.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) applications: Vec<Process>,
    pub(crate) sites: Vec<Site>,
    pub(crate) network: Network,
    pub(crate) folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn build(places: &[Place]) -> Self {
        let folder = tempfile::Builder::new().prefix("fg-ns-").tempdir().unwrap();
        let network = Network::build(places, folder.path());
        let sites = network.places().map(|place| prepare(place, &network, folder.path()));
        Self { applications: vec![], sites: sites.collect(), network, folder }
    }

    pub(crate) fn start_everything(&mut self) {
        for site in &mut self.sites {
            site.start_federation().unwrap();
            site.start_gateway().unwrap();
        }
    }

    pub(crate) fn site(&self, name: &str) -> &Site {
        self.sites.iter().find(|site| site.spec.name == name).expect("the site was built")
    }

    pub(crate) fn site_mut(&mut self, name: &str) -> &mut Site {
        self.sites.iter_mut().find(|site| site.spec.name == name).expect("the site was built")
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.sites.iter().map(|site| site.spec.name.clone()).collect()
    }

    /// The first site founds a federation, and each of the others enters it by a token of the first.
    pub(crate) fn federate(&self) {
        let [root, others @ ..] = &*self.sites else { panic!("no sites") };
        root.fedctl(&["init"]).unwrap();
        for other in others {
            let name = &*other.spec.name;
            let issue = ["token", "issue", name, "--roles", "admit,export", "--depth", "1"];
            let token =
                wait::until_ok(&format!("a token for {name}"), LIMIT, || root.fedctl(&issue));
            let begun = Instant::now();
            other.fedctl(&["join", token.trim()]).unwrap();
            println!("{name} joined in {:?}", begun.elapsed());
        }
    }

    /// Waits until these have the same Heads of all members, and those of them that vote the same log
    /// and the same leader. (What a Replica may not see does not count for it.)
    pub(crate) fn converge(&self, names: &[&str]) -> Duration {
        let begun = Instant::now();
        wait::until_ok("the same state everywhere", LIMIT, || {
            let (mut voters, mut heads) = (Vec::new(), Vec::new());
            for name in names {
                let store = self.site(name).json(&["store", "status"])?;
                match store["mode"].as_str() {
                    Some("replica") => {
                        let heard = store["sourceHeard"]["ageMs"].as_u64();
                        anyhow::ensure!(heard.is_some_and(|ms| ms < HEARD_MS_MAX), "{store}");
                    }
                    _ => voters.push((*name, store)),
                }
                heads.push((*name, self.heads(name)?));
            }
            let same_heads = heads.iter().all(|(_, seen)| *seen == heads[0].1);
            anyhow::ensure!(same_heads, "{heads:?}\n{voters:?}");
            let (_, first) = voters.first().ok_or_else(|| anyhow::anyhow!("no voter"))?;
            let leads = names.iter().any(|name| first["leader"] == **name);
            let agrees = |field: &str| voters.iter().all(|(_, store)| store[field] == first[field]);
            anyhow::ensure!(leads && agrees("leader") && agrees("applied"), "{voters:?}");
            Ok(())
        });
        begun.elapsed()
    }

    /// Each member as a site's node has it, with the generation of what it publishes.
    fn heads(&self, site: &str) -> anyhow::Result<Vec<[Value; 4]>> {
        let members = self.site(site).json(&["store", "peers"])?;
        let rows = members["items"].as_array().cloned().unwrap_or_default();
        let fields = ["name", "state", "epoch", "generation"];
        Ok(rows.iter().map(|row| fields.map(|field| row[field].clone())).collect())
    }

    /// Waits until exactly these vote.
    pub(crate) fn until_voters(&self, at: &str, wanted: &[&str]) {
        wait::until_ok(&format!("the voters {wanted:?}"), LIMIT, || {
            let store = self.site(at).json(&["store", "status"])?;
            let mut voters: Vec<&str> = store["voters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            voters.sort_unstable();
            anyhow::ensure!(voters == wanted, "{store}");
            Ok(())
        });
    }

    pub(crate) fn leader(&self, at: &str) -> String {
        wait::until_ok("a leader", LIMIT, || {
            let store = self.site(at).json(&["store", "status"])?;
            let leader = store["leader"].as_str().filter(|leader| !leader.is_empty());
            leader.map(str::to_string).ok_or_else(|| anyhow::anyhow!("{store}"))
        })
    }

    /// Something that a quorum has to agree to, by the node of a site: how long until it has.
    pub(crate) fn write(&self, by: &str) -> Duration {
        let begun = Instant::now();
        let issue = ["token", "issue", "spare", "--roles", "none", "--force", "-o", "json"];
        let issued = wait::until_ok(&format!("a write by {by}"), LIMIT, || {
            Ok::<_, anyhow::Error>(serde_json::from_str::<Value>(&self.site(by).fedctl(&issue)?)?)
        });
        let took = begun.elapsed();
        let id = issued["id"].as_str().expect("a token has an id").to_string();
        wait::until_ok("the token's end", LIMIT, || {
            self.site(by).fedctl(&["token", "revoke", &id])
        });
        took
    }

    /// Starts a web server in a site that says `hello from` there, as the site's Service `name`.
    pub(crate) fn serve(&mut self, site: &str, name: &str) {
        let spec = &self.site(site).spec;
        let (address, namespace) = (spec.routes, spec.namespace.clone().unwrap());
        let listen = SocketAddr::new(address, 8080).to_string();
        let home = self.folder.path().join(format!("nginx-{site}"));
        let configuration = include_str!("hello.conf").replace("LISTEN", &listen);
        let page = format!("hello from {site}\n");
        let nginx = start_nginx(&home, &configuration, &[("index.html", &page)], &namespace);
        self.applications.push(nginx);
        let kind = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let yaml = format!(
            "\
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  ports: [{{name: http, port: 80, appProtocol: http}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: {kind}
ports: [{{name: http, port: 8080}}]
endpoints:
- addresses: [\"{address}\"]
"
        );
        self.site(site).write_manifest(&format!("service-{name}"), &yaml).unwrap();
    }

    /// Lets exactly these clusters reach a service of a site's.
    pub(crate) fn export(&self, site: &str, service: &str, to: &[&str]) {
        let service = format!("shop/{service}");
        let to: Vec<String> = to.iter().map(|cluster| format!("--to=cluster={cluster}")).collect();
        let mut arguments = vec!["export", &*service];
        arguments.extend(to.iter().map(String::as_str));
        self.site(site).fedctl(&arguments).unwrap();
    }

    /// Gives a site a listener on port 80, and routes to services of the clusterset.
    pub(crate) fn route(&self, site: &str, services: &[&str]) {
        let mut yaml = String::from(
            "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: fedgate, namespace: shop}
spec:
  gatewayClassName: fedgate
  listeners: [{name: http, port: 80, protocol: HTTP}]
",
        );
        for service in services {
            write!(
                yaml,
                "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {service}, namespace: shop}}
spec:
  parentRefs: [{{name: fedgate}}]
  hostnames: [{host}]
  rules:
  - backendRefs: [{{group: multicluster.x-k8s.io, kind: ServiceImport, name: {service}, port: 80}}]
",
                host = host(service),
            )
            .unwrap();
        }
        self.site(site).write_manifest("routes", &yaml).unwrap();
    }

    /// One GET from an application in a site, through the site's own gateway.
    pub(crate) fn get(&self, site: &str, service: &str) -> Result<String, String> {
        let gateway = self.gateway(site);
        let inside = self.network.netns(site);
        inside.enter(|| load::get(gateway, &host(service))).unwrap()
    }

    /// Waits until `site` is answered by `from`.
    pub(crate) fn until_answer(&self, site: &str, service: &str, from: &str) -> Duration {
        let begun = Instant::now();
        let wanted = format!("hello from {from}");
        wait::until_ok(&format!("{service} of {from} in {site}"), LIMIT, || {
            let told = self.get(site, service)?;
            if told == wanted { Ok(()) } else { Err(told) }
        });
        begun.elapsed()
    }

    /// Waits until `site` gets no answer of the service's any more, and shows what it gets.
    pub(crate) fn until_refused(&self, site: &str, service: &str) -> (Duration, String) {
        let begun = Instant::now();
        let what = format!("{service} to be refused in {site}");
        let answer = wait::until(&what, LIMIT, || self.get(site, service).err());
        (begun.elapsed(), answer)
    }

    /// An application that calls the service all the time, and has had answers.
    pub(crate) fn load(&self, site: &str, service: &str) -> Load {
        let load = Load::start(self.network.netns(site), self.gateway(site), host(service));
        wait::until("the first requests", LIMIT, || (load.requests() >= 5).then_some(()));
        load
    }

    /// The links of `site`'s gateway to another cluster, as `fedctl links` shows them.
    pub(crate) fn links(&self, site: &str, to: &str) -> anyhow::Result<Vec<Value>> {
        let links = self.site(site).json(&["links"])?;
        let all = links["items"].as_array().cloned().unwrap_or_default();
        Ok(all.into_iter().filter(|link| link["cluster"] == to).collect())
    }

    fn gateway(&self, site: &str) -> SocketAddr {
        SocketAddr::new(self.site(site).spec.routes, 80)
    }
}

/// The name of a service in the clusterset (KEP-1645).
pub(crate) fn host(service: &str) -> String {
    format!("{service}.shop.svc.clusterset.local")
}

fn prepare(place: Place, network: &Network, folder: &Path) -> Site {
    let address = |text: &str| -> IpAddr { text.parse().unwrap() };
    let site = Site::prepare(SiteSpec {
        name: place.name.into(),
        folder: folder.join(place.name),
        namespace: Some(network.netns(place.name).name().into()),
        advertise: SocketAddr::new(address(place.advertise), 8443),
        tunnel: "[::]:8443".parse().unwrap(),
        routes: address(place.addresses[0]),
        admin: "127.0.0.1:9901".parse().unwrap(),
        workers: 2,
    })
    .unwrap();
    // 40 ms and lost packets are more than the other profile is made for.
    site.configure_federation("store: {profile: wan}\n").unwrap();
    site
}

/// A web server of these files, whose configuration may say HOME.
pub(crate) fn start_nginx(
    home: &Path,
    configuration: &str,
    files: &[(&str, &str)],
    namespace: &str,
) -> Process {
    std::fs::create_dir_all(home.join("temp")).unwrap();
    for (name, text) in files {
        let path = home.join("html").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    std::fs::write(home.join("nginx.conf"), configuration.replace("HOME", home.to_str().unwrap()))
        .unwrap();
    // Workers give up root, and must still be able to read what root wrote here.
    for path in [home.parent().unwrap(), home] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, mode).unwrap();
    }
    let arguments = ["-p", home.to_str().unwrap(), "-c", "nginx.conf", "-e", "error.log"];
    let log = home.join("output.log");
    Process::start("nginx", "nginx", &arguments, Some(namespace), &log).unwrap()
}

/// What a program printed, or its complaint.
pub(crate) fn output_of(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
    }
}
