//! The binary: its exit codes and its signals.

use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::site::Site;

fn gateway(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedgate-gateway"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = gateway(arguments).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn mistakes_end_it_with_2_and_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.yaml");
    let shown = path.to_str().unwrap();
    let (code, stdout, _) = run(&["--version"]).await;
    assert_eq!(
        (code, stdout.trim()),
        (Some(0), concat!("fedgate-gateway ", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(run(&[]).await.0, Some(2));
    assert_eq!(run(&["--nonsense"]).await.0, Some(2));
    let (code, _, stderr) = run(&["--config", shown]).await;
    assert!(code == Some(2) && stderr.contains("FED1001") && stderr.contains(shown), "{stderr}");
    std::fs::write(&path, "apiVersion: fedgate.dev/v1alpha1\nkind: Gatewy\n").unwrap();
    let (code, _, stderr) = run(&["--config", shown]).await;
    assert!(code == Some(2) && stderr.contains("gateway.yaml"), "{stderr}");
    let (code, _, stderr) = run(&["--config", shown, "--log-level", "a=b=c"]).await;
    assert!(code == Some(2) && stderr.contains("--log-level"), "{stderr}");
}

/// The configuration of `site` as a file.
fn write_config(site: &Site, path: &Path) {
    let config = &site.config;
    let text = format!(
        "apiVersion: fedgate.dev/v1alpha1\nkind: GatewayConfig\nname: {}\ncluster: {}\n\
         trustDomain: {}\ndataDir: {}\nlisten: {{tunnel: \"{}\", routes: \"{}\"}}\n\
         federation: {{socket: {}}}\nadmin: {{listen: \"{}\"}}\nworkers: 1\n\
         accessLog: {{path: /dev/stdout}}\n",
        config.name,
        config.cluster,
        config.trust_domain,
        config.data_dir.display(),
        config.tunnel_listen,
        config.routes_listen,
        config.federation,
        config.admin_listen,
    );
    std::fs::write(path, text).unwrap();
}

async fn wait_for(stderr: &mut Lines<BufReader<ChildStderr>>, text: &str) {
    let found = async {
        while let Some(line) = stderr.next_line().await.unwrap() {
            assert!(!line.contains('\u{1b}'), "colour in a file: {line:?}");
            if line.contains(text) {
                return;
            }
        }
        panic!("the log ended without {text:?}");
    };
    tokio::time::timeout(crate::PATIENCE, found).await.expect("the log line");
}

async fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().await.unwrap().success());
}

async fn ended(mut child: Child) -> ExitStatus {
    tokio::time::timeout(crate::PATIENCE, child.wait()).await.expect("it ends").unwrap()
}

#[tokio::test]
async fn sigterm_drains_and_a_second_signal_stops() {
    let origin = crate::origin::Origin::start("one").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.yaml");
    let site = Site::new("east");
    site.node.put(crate::local_http::routed(model::AppProtocol::Http, &[origin.address]));
    write_config(&site, &path);
    for signals in [1, 2] {
        let mut child = gateway(&["--config", path.to_str().unwrap()]).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut stdout = child.stdout.take().unwrap();
        wait_for(&mut stderr, "tunnel listening").await;
        let ready = async || tokio::net::TcpStream::connect(site.http()).await.ok();
        crate::eventually("listener", ready).await;
        let address = site.http();
        let before = origin.requests();
        let held = tokio::spawn(async move {
            let request = http::Request::get("/held").header("host", "api.test");
            crate::client::send(address, request.body(bytes::Bytes::new()).unwrap()).await
        });
        crate::eventually("held request", async || (origin.requests() > before).then_some(()))
            .await;
        signal(&child, "-TERM").await;
        wait_for(&mut stderr, "draining").await;
        if signals == 2 {
            signal(&child, "-INT").await;
            wait_for(&mut stderr, "a second signal").await;
        } else {
            origin.release.add_permits(1);
        }
        assert_eq!(ended(child).await.code(), Some(0));
        assert_eq!(held.await.unwrap().is_ok(), signals == 1);
        let mut log = String::new();
        stdout.read_to_string(&mut log).await.unwrap();
        let record: serde_json::Value = serde_json::from_str(log.trim()).unwrap();
        let flag = if signals == 1 { "-" } else { "UO" };
        assert_eq!(record["response_flags"], flag, "one record, on standard output: {log}");
    }
}
