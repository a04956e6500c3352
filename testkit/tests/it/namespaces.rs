//! Three sites of real processes in three network namespaces, one of them IPv6-only, 40 ms and 1 %
//! loss apart: curl and redis-benchmark in east reach a real nginx in west and a real Redis in south
//! by name, while all federation nodes are killed and a gateway is restarted. The sites know each other
//! and their exports from the federation's store.

mod blocked;
mod federation;
mod load;
mod network;
mod rebinding;
mod world;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::{Process, Site, wait};
use wan::netns;

use network::{EAST, SOUTH, WEST};
use world::{World, output_of, start_nginx};

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
    let mut stage = Stage::build();
    stage.curl_speaks_every_http();
    stage.redis_answers(500);
    stage.survives_without_federation_nodes();
    stage.restarted_gateway_needs_nobody();
    stage.both_sides_logged();
}

/// East calls a real nginx in west and a real Redis in south.
struct Stage(World);

impl Stage {
    fn build() -> Self {
        let mut world = World::build(&[EAST, WEST, SOUTH]);
        let address = EAST.addresses[0];
        let hosts = format!("{address} {WEB} {CACHE}\n");
        world.network.netns("east").write_etc("hosts", &hosts).unwrap();
        let [west, south] = ["west", "south"].map(|site| world.network.netns(site).name());
        let folder = world.folder.path();
        let applications = vec![nginx(folder, west), start_redis(folder, south)];
        world.applications.extend(applications);
        world.start_everything();
        world.federate();
        for (site, intent) in [
            ("east", include_str!("namespaces/east.yaml")),
            ("west", include_str!("namespaces/west.yaml")),
            ("south", include_str!("namespaces/south.yaml")),
        ] {
            world.site(site).write_manifest("intent", intent).unwrap();
        }
        let [east, west, south] = &*world.sites else { panic!("three sites") };
        east.fedctl(&["namespace", "grant", "shop", "--clusters", "west,south"]).unwrap();
        west.fedctl(&["export", "shop/web", "--to", "cluster=east"]).unwrap();
        south.fedctl(&["export", "shop/cache", "--to", "trust-domain=east.example"]).unwrap();
        Self(world)
    }

    fn curl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut curl = self.0.network.netns("east").command("curl");
        output_of(curl.args(["-sS", "-m", "10"]).args(arguments))
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
        let mut command = self.0.network.netns("east").command("redis-benchmark");
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
        for site in &mut self.0.sites {
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
        let west = &mut self.0.sites[1];
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
        let east = wait::until("east's record", LIMIT, || record(&self.0.sites[0]));
        let west = wait::until("west's record", LIMIT, || record(&self.0.sites[1]));
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

fn nginx(folder: &Path, namespace: &str) -> Process {
    let files = [
        ("index.html", &*format!("{BODY}\n")),
        ("find-me", "found\n"),
        ("grpc/sized/call", "a message\n"),
        ("grpc/stream/call", "a message\n"),
    ];
    let configuration = include_str!("namespaces/nginx.conf");
    start_nginx(&folder.join("nginx"), configuration, &files, namespace)
}

fn start_redis(folder: &Path, namespace: &str) -> Process {
    let arguments = [
        "--port",
        "6379",
        "--bind",
        SOUTH.addresses[0],
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
