//! `fedctl status -w`: it shows what changes, and lives on when the node does not.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use crate::fixture::{Node, SERVICE};

const PATIENCE: Duration = Duration::from_secs(30);
/// Lines that wait to be read; a watch that prints more waits too.
const LINES_MAX: usize = 1024;

/// A watch, and the lines that it prints.
struct Watch {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Watch {
    fn start(node: &Node) -> Self {
        let server = format!("unix:{}", node.path("run/o.sock").display());
        let mut child = Command::new(env!("CARGO_BIN_EXE_fedctl"))
            .args(["--server", &server, "status", "-w"])
            .env_remove("FEDCTL_CONTEXT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = lines(child.stdout.take().unwrap());
        let err = lines(child.stderr.take().unwrap());
        Self { child, out, err }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(source: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Reads on until a line has this; returns what came before it.
fn until(lines: &Receiver<String>, wanted: &str) -> Vec<String> {
    let mut before = vec![];
    loop {
        let line =
            lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {wanted:?}: {before:?}"));
        if line.contains(wanted) {
            return before;
        }
        before.push(line);
    }
}

#[test]
fn a_watch_shows_each_change_once_and_outlasts_the_node() {
    let mut node = Node::start();
    let watch = Watch::start(&node);
    until(&watch.out, " 1 objects ");
    until(&watch.out, "In no federation.");
    node.write("manifests/second.yaml", &SERVICE.replace("name: api", "name: web"));
    let between = until(&watch.out, " 2 objects ");
    assert!(!between.iter().any(|line| line.contains(" 1 objects ")), "{between:?}");
    node.stop();
    until(&watch.err, "what is above is older");
    node.restart();
    until(&watch.err, "the node answers again");
}
