//! The binary: its exit codes, its words, and its clean end.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use model::Revision;

use crate::fixture::{Gateway, Site, until};

const BINARY: &str = env!("CARGO_BIN_EXE_fedgate-federation");

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

#[test]
fn it_knows_its_version() {
    let output = run(&["--version"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, format!("fedgate-federation {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn mistakes_in_usage_and_configuration_exit_with_2() {
    let site = Site::new();
    let file = site.path("federation.yaml");
    fs::write(&file, site.yaml().replace("cluster: east", "cluster: East")).unwrap();
    let path = file.to_str().unwrap();
    let missing = site.path("none.yaml");
    for (arguments, wanted) in [
        (vec![], "--config <FILE>"),
        (vec!["--config", path], "error: FED1001: "),
        (vec!["--config", path], "federation.yaml:3: cluster = \"East\""),
        (vec!["--config", missing.to_str().unwrap()], "cannot read the configuration"),
        (
            vec!["--config", path, "--log-level", "a=b=c"],
            "FED1001: --log-level or FEDGATE_LOG: \"a=b=c\"",
        ),
        (vec!["--frobnicate"], "--frobnicate"),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(wanted), "{text}\n  is without {wanted}");
    }
}

#[test]
fn one_variable_says_which_log_lines_there_are() {
    let site = Site::new();
    let file = site.path("federation.yaml");
    fs::write(&file, site.yaml()).unwrap();
    let mut command = Command::new(BINARY);
    let output = command.args(["--config", file.to_str().unwrap()]).env("FEDGATE_LOG", "a=b=c");
    let output = output.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && text.contains("--log-level or FEDGATE_LOG: \"a=b=c\""),
        "{text}"
    );
}

#[test]
fn a_node_that_cannot_start_exits_with_1_and_the_reason() {
    let site = Site::new();
    fs::write(site.path("data"), "").unwrap();
    let file = site.path("federation.yaml");
    fs::write(&file, site.yaml()).unwrap();
    let output = run(&["--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("error: FED1003: dataDir ") && text.contains("is not a folder"),
        "{text}"
    );
}

#[tokio::test]
async fn a_killed_node_starts_again_in_its_place() {
    let site = Site::new();
    let file = site.path("federation.yaml");
    fs::write(&file, site.yaml()).unwrap();
    let mut child = Command::new(BINARY)
        .args(["--config", file.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let socket = site.path("run/operator.sock");
    let connect = |socket: &Path| std::os::unix::net::UnixStream::connect(socket).is_ok();
    until("the operator socket", || std::future::ready(connect(&socket)), |up| *up).await;
    let epoch = || fs::read_to_string(site.path("data/epoch")).unwrap().trim().parse::<u64>();
    let before = epoch().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(socket.exists(), "kill -9 leaves the sockets behind");
    let node = site.start().await;
    let mut gateway = Gateway::subscribe(&node, "gw-0", None).await;
    assert_eq!(gateway.next().await.to, Revision { epoch: before + 1, index: 1 });
    node.stop().await;
}

#[tokio::test]
async fn sigterm_ends_it_cleanly_and_removes_its_sockets() {
    let site = Site::new();
    let file = site.path("federation.yaml");
    fs::write(&file, site.yaml()).unwrap();
    let mut child = Command::new(BINARY)
        .args(["--log-format", "json", "--config", file.to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let socket = site.path("run/operator.sock");
    let connect = |socket: &Path| std::os::unix::net::UnixStream::connect(socket).is_ok();
    until("the operator socket", || std::future::ready(connect(&socket)), |up| *up).await;
    let terminated = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(terminated.success());
    let exited =
        until("the exit", || std::future::ready(child.try_wait().unwrap()), Option::is_some).await;
    assert_eq!(exited.unwrap().code(), Some(0));
    assert!(!socket.exists() && !site.path("run/resource.sock").exists());
    let log = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    let issued = log.lines().filter(|line| line.contains("fedgate::audit")).count();
    assert_eq!(issued, 1, "its own SVID is in the record, once: {log}");
}
