//! Three sites of real processes in three network namespaces, one of them IPv6-only, 40 ms and 1 %
//! loss apart: curl and redis-benchmark in east reach a real nginx in west and a real Redis in south
//! by name, while all federation nodes are killed and a gateway is restarted.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::{Process, Site, SiteSpec, site, wait};
use wan::netns::{self, Netns};
use wan::{Impairment, PortConfig, TunConfig, TunRouter};

const EAST_V4: &str = "198.18.1.1";
const EAST_V6: &str = "2001:db8:1::1";
const WEST_V6: &str = "2001:db8:2::1";
const SOUTH_V4: &str = "198.18.3.1";
const SOUTH_V6: &str = "2001:db8:3::1";
const WEB: &str = "web.shop.svc.clusterset.local";
const CACHE: &str = "cache.shop.svc.clusterset.local";
const BODY: &str = "hello from west";
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn real_applications_talk_across_namespaces_while_control_dies() {
    if let Some(reason) = netns::unavailable() {
        println!(
            "skipped: namespaces::real_applications_talk_across_namespaces_while_control_dies: {reason}"
        );
        return;
    }
    let mut world = World::build();
    world.curl_speaks_every_http();
    world.redis_answers(500);
    world.survives_without_federation_nodes();
    world.restarted_gateway_needs_nobody();
    world.both_sides_logged();
}

/// Fields are dropped in this order: processes first, then the network under them.
struct World {
    _applications: Vec<Process>,
    sites: Vec<Site>,
    _router: TunRouter,
    east: Netns,
    _west: Netns,
    _south: Netns,
    _folder: tempfile::TempDir,
}

impl World {
    fn build() -> Self {
        let folder = tempfile::Builder::new().prefix("fg-ns-").tempdir().unwrap();
        let [east, west, south] =
            ["east", "west", "south"].map(|name| Netns::create(name).unwrap());
        let router = TunRouter::start(TunConfig {
            ports: vec![
                PortConfig::new("east", east.name())
                    .address(format!("{EAST_V4}/24"))
                    .address(format!("{EAST_V6}/64")),
                PortConfig::new("west", west.name()).address(format!("{WEST_V6}/64")),
                PortConfig::new("south", south.name())
                    .address(format!("{SOUTH_V4}/24"))
                    .address(format!("{SOUTH_V6}/64")),
            ],
            impairment: Impairment::delayed(Duration::from_millis(20)).with_loss(0.01),
            seed: 3,
        })
        .unwrap();
        east.write_etc("hosts", &format!("{EAST_V4} {WEB} {CACHE}\n")).unwrap();
        let mut sites = vec![
            prepare("east", &east, EAST_V4, EAST_V6, folder.path()),
            prepare("west", &west, WEST_V6, WEST_V6, folder.path()),
            prepare("south", &south, SOUTH_V4, SOUTH_V6, folder.path()),
        ];
        for site in &mut sites {
            site.start_federation().unwrap();
        }
        site::introduce(&sites).unwrap();
        write_intent(&sites);
        let applications =
            vec![start_nginx(folder.path(), west.name()), start_redis(folder.path(), south.name())];
        for site in &mut sites {
            site.start_gateway().unwrap();
        }
        Self {
            _applications: applications,
            sites,
            _router: router,
            east,
            _west: west,
            _south: south,
            _folder: folder,
        }
    }

    fn curl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.east.command("curl").args(["-sS", "-m", "10"]).args(arguments).output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(text),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
        }
    }

    fn page(&self) -> Option<()> {
        let page = self.curl(&[&format!("http://{WEB}/")]).ok()?;
        (page.trim() == BODY).then_some(())
    }

    fn curl_speaks_every_http(&self) {
        wait::until("west's page", LIMIT, || self.page());
        let url = |path: &str| format!("http://{WEB}{path}");
        let http1 = self.curl(&["-i", &url("/")]).unwrap();
        assert!(http1.starts_with("HTTP/1.1 200") && http1.contains(BODY), "{http1}");
        let http2 = self.curl(&["-i", "--http2-prior-knowledge", &url("/")]).unwrap();
        assert!(http2.starts_with("HTTP/2 200") && http2.contains(BODY), "{http2}");
        // What a gRPC client sends and gets, but for the protobuf inside: the status is a trailer.
        let grpc = [
            "-i",
            "--http2-prior-knowledge",
            "-H",
            "te: trailers",
            "-H",
            "content-type: application/grpc",
        ];
        let sized = self.curl(&[&grpc[..], &[&url("/grpc/sized/call")]].concat()).unwrap();
        assert!(sized.starts_with("HTTP/2 200") && sized.ends_with("a message\n"), "{sized}");
        let grpc = self.curl(&[&grpc[..], &[&url("/grpc/stream/call")]].concat()).unwrap();
        let (head, rest) = grpc.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains("application/grpc") && !head.contains("grpc-status"), "{grpc}");
        assert!(rest.contains("grpc-status: 0"), "the trailer is missing: {grpc}");
        let body = "x".repeat(300_000);
        let posted = self.curl(&["-i", "-d", &body[..100_000], &url("/")]).unwrap();
        // nginx refuses to POST to a file, after reading what we sent.
        assert!(posted.starts_with("HTTP/1.1 405"), "{posted}");
    }

    fn redis_benchmark(&self, requests: usize) -> Command {
        let mut command = self.east.command("redis-benchmark");
        let requests = requests.to_string();
        command.args([
            "-h", CACHE, "-p", "6379", "-c", "50", "-t", "set,get", "--csv", "-n", &requests,
        ]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn redis_answers(&self, requests: usize) {
        let output = self.redis_benchmark(requests).output().unwrap();
        assert_benchmark(&output);
    }

    /// Under load; traffic does not notice.
    fn survives_without_federation_nodes(&mut self) {
        let load = self.redis_benchmark(4000).spawn().unwrap();
        for site in &mut self.sites {
            site.kill_federation().unwrap();
        }
        for _ in 0..5 {
            self.curl(&[&format!("http://{WEB}/")]).unwrap();
        }
        assert_benchmark(&load.wait_with_output().unwrap());
    }

    /// No federation node runs any more: SVID, snapshot and bundles come from the disk.
    fn restarted_gateway_needs_nobody(&mut self) {
        let load = self.redis_benchmark(4000).spawn().unwrap();
        let west = &mut self.sites[1];
        west.stop_gateway().unwrap();
        west.start_gateway().unwrap();
        wait::until("west's page after the restart", LIMIT, || self.page());
        for _ in 0..5 {
            self.curl(&[&format!("http://{WEB}/")]).unwrap();
        }
        assert_benchmark(&load.wait_with_output().unwrap());
    }

    /// One record at the source and one at the destination, under one request id.
    fn both_sides_logged(&self) {
        self.curl(&[&format!("http://{WEB}/find-me")]).unwrap();
        let record = |site: &Site| -> Option<serde_json::Value> {
            let log = std::fs::read_to_string(site.access_log()).ok()?;
            let mut lines = log.lines().filter(|line| line.contains("/find-me"));
            let found = serde_json::from_str(lines.next()?).ok()?;
            assert_eq!(lines.next(), None, "more than one record for one request");
            Some(found)
        };
        let east = wait::until("east's record", LIMIT, || record(&self.sites[0]));
        let west = wait::until("west's record", LIMIT, || record(&self.sites[1]));
        assert!(east["request_id"].is_string(), "{east}");
        assert_eq!(east["request_id"], west["request_id"]);
    }
}

fn assert_benchmark(output: &std::process::Output) {
    let (told, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "redis-benchmark: {}\n{told}\n{error}", output.status);
    for line in ["\"SET\"", "\"GET\""] {
        assert!(told.contains(line), "{line} is missing:\n{told}\n{error}");
    }
    assert!(!told.contains("Error") && !error.contains("Error"), "{told}\n{error}");
}

fn prepare(name: &str, netns: &Netns, address: &str, advertise: &str, folder: &Path) -> Site {
    let [address, advertise]: [IpAddr; 2] = [address, advertise].map(|text| text.parse().unwrap());
    Site::prepare(SiteSpec {
        name: name.into(),
        folder: folder.join(name),
        namespace: Some(netns.name().into()),
        advertise: SocketAddr::new(advertise, 8443),
        tunnel: "[::]:8443".parse().unwrap(),
        routes: address,
        admin: "127.0.0.1:9901".parse().unwrap(),
        workers: 2,
    })
    .unwrap()
}

fn write_intent(sites: &[Site]) {
    let [east, west, south] = sites else { panic!("three sites") };
    east.write_manifest("intent", include_str!("namespaces/east.yaml")).unwrap();
    west.write_manifest("intent", include_str!("namespaces/west.yaml")).unwrap();
    south.write_manifest("intent", include_str!("namespaces/south.yaml")).unwrap();
}

fn start_nginx(folder: &Path, namespace: &str) -> Process {
    let home = folder.join("nginx");
    for path in ["html/grpc/sized", "html/grpc/stream", "temp"] {
        std::fs::create_dir_all(home.join(path)).unwrap();
    }
    std::fs::write(home.join("html/index.html"), format!("{BODY}\n")).unwrap();
    std::fs::write(home.join("html/find-me"), "found\n").unwrap();
    for call in ["sized", "stream"] {
        std::fs::write(home.join("html/grpc").join(call).join("call"), "a message\n").unwrap();
    }
    let configuration =
        include_str!("namespaces/nginx.conf").replace("HOME", home.to_str().unwrap());
    std::fs::write(home.join("nginx.conf"), configuration).unwrap();
    // Workers give up root, and must still be able to read what root wrote here.
    for path in [folder, &home] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, mode).unwrap();
    }
    let arguments = ["-p", home.to_str().unwrap(), "-c", "nginx.conf", "-e", "error.log"];
    Process::start("nginx", "nginx", &arguments, Some(namespace), &folder.join("nginx.log"))
        .unwrap()
}

fn start_redis(folder: &Path, namespace: &str) -> Process {
    let arguments = [
        "--port",
        "6379",
        "--bind",
        SOUTH_V4,
        "--save",
        "",
        "--protected-mode",
        "no",
        "--daemonize",
        "no",
    ];
    let log = folder.join("redis.log");
    Process::start("redis-server", "redis-server", &arguments, Some(namespace), &log).unwrap()
}
