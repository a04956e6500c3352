//! The node that the herd comes back to: a real process with a store on disk, what it serves, and what
//! the kernel says that it used.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, SystemTime};

use identity::Ca;
use model::{Revision, TrustDomain};
use testkit::{Process, Site, SiteSpec, programs, wait};

const LIMIT: Duration = Duration::from_secs(60);
/// Service, EndpointSlice, ServiceExport and AccessPolicy.
const OBJECTS_PER_SERVICE: usize = 4;
const SERVICES_PER_FILE: usize = 50;

pub(super) struct Node {
    site: Site,
    objects: usize,
    /// Where gateways come.
    pub(super) port: SocketAddr,
}

impl Node {
    /// `services` is a multiple of [`SERVICES_PER_FILE`].
    pub(super) fn prepare(folder: &Path, services: usize) -> Self {
        let any = "127.0.0.1:0".parse().unwrap();
        let spec = SiteSpec {
            name: "east".into(),
            folder: folder.into(),
            namespace: None,
            advertise: "127.0.0.1:8443".parse().unwrap(),
            tunnel: any,
            routes: any.ip(),
            admin: any,
            workers: 1,
        };
        let site = Site::prepare(spec).unwrap();
        let port = TcpListener::bind(any).unwrap().local_addr().unwrap();
        let more = format!(
            "listen: {{gateways: \"{port}\"}}\n\
             enrolment: {{serviceAccounts: [fedgate-system/fedgate-gateway]}}\n"
        );
        site.configure_federation(&more).unwrap();
        // Tokens are reviewed there; the herd has its SVIDs already.
        fs::write(folder.join("kubeconfig"), KUBECONFIG).unwrap();
        for first in (0..services).step_by(SERVICES_PER_FILE) {
            let objects: String = (first..first + SERVICES_PER_FILE).map(service).collect();
            site.write_manifest(&format!("services-{first}"), &objects).unwrap();
        }
        Self { site, objects: services * OBJECTS_PER_SERVICE, port }
    }

    /// Returns when its operator API answers.
    pub(super) fn start(&mut self) {
        let folder = &self.site.spec.folder;
        let kubeconfig = format!("KUBECONFIG={}", folder.join("kubeconfig").display());
        let program = programs::path("fedgate-federation").display().to_string();
        let config = folder.join("federation.yaml").display().to_string();
        let arguments = [kubeconfig, program, "--config".into(), config];
        let log = folder.join("federation.log");
        let process = Process::start("the node", "env", &arguments, None, &log).unwrap();
        self.site.federation = Some(process);
        wait::until_ok("the node's answer", LIMIT, || {
            let alive = self.site.federation.as_mut().is_some_and(Process::is_running);
            assert!(alive, "the node ended: {}", self.site.log("federation"));
            self.site.fedctl(&["status"])
        });
    }

    pub(super) fn kill(&mut self) {
        self.site.kill_federation().unwrap();
    }

    pub(super) fn found_federation(&self) {
        self.site.fedctl(&["init"]).unwrap();
    }

    /// What it serves: the revision, and how many objects; `None` until it is everything.
    pub(super) fn serves(&self) -> Option<(Revision, usize)> {
        let status = self.site.json(&["status"]).unwrap();
        let objects = usize::try_from(status["objects"].as_u64()?).unwrap();
        let (epoch, index) = status["revision"].as_str()?.split_once('.')?;
        let number = |text: &str| text.parse().unwrap();
        let revision = Revision { epoch: number(epoch), index: number(index) };
        (objects >= self.objects).then_some((revision, objects))
    }

    /// The node's own; it is there once the node has started.
    pub(super) fn ca(&self) -> Ca {
        let folder = self.site.spec.folder.join("federation/ca");
        let domain = TrustDomain::parse("east.example").unwrap();
        Ca::load_or_create(&folder, &domain, SystemTime::now()).unwrap()
    }

    /// Seconds on a processor, in user and kernel mode, since it started.
    pub(super) fn cpu_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        // Behind the name, which may hold anything: fields 14 and 15 of proc_pid_stat(5).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap());
        ticks.sum::<f64>() / f64::from(TICKS_PER_SECOND)
    }

    /// The most memory that it has had, in MiB.
    pub(super) fn peak_mib(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    }

    fn proc(&self, file: &str) -> String {
        let id = self.site.federation.as_ref().unwrap().id();
        fs::read_to_string(format!("/proc/{id}/{file}")).unwrap()
    }
}

/// `USER_HZ`, which has been 100 on every Linux since 2.6.
const TICKS_PER_SECOND: u32 = 100;

const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
current-context: none
clusters: [{name: none, cluster: {server: \"https://127.0.0.1:1\"}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
users: [{name: none, user: {}}]
";

fn service(number: usize) -> String {
    format!(
        "\
apiVersion: v1
kind: Service
metadata: {{name: s{number}, namespace: shop}}
spec:
  ports:
  - {{name: http, port: 80, appProtocol: http}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: s{number}-1, namespace: shop, labels: {{kubernetes.io/service-name: s{number}}}}}
addressType: IPv4
ports:
- {{name: http, port: 8080}}
endpoints:
- {{addresses: [10.1.0.1], conditions: {{ready: true}}}}
- {{addresses: [10.1.0.2], conditions: {{ready: true}}}}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {{name: s{number}, namespace: shop}}
---
apiVersion: fedgate.dev/v1alpha1
kind: AccessPolicy
metadata: {{name: s{number}-callers, namespace: shop}}
spec:
  targetRefs:
  - {{group: multicluster.x-k8s.io, kind: ServiceExport, name: s{number}}}
  allow:
  - {{cluster: west}}
---
"
    )
}
