//! A node in a temporary folder, and `fedctl` as a process that asks it.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use federation::app::{self, App};
use federation::config::FederationConfig;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// No condition of these tests takes longer, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec:
  ports: [{port: 80}]
";

/// The node runs as long as this lives.
pub(crate) struct Node {
    folder: TempDir,
    runtime: Runtime,
    app: Option<App>,
}

/// What `fedctl` said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Node {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("manifests")).unwrap();
        let runtime = Runtime::new().unwrap();
        let mut node = Self { folder, runtime, app: None };
        node.write("manifests/service.yaml", SERVICE);
        node.restart();
        node
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        let yaml = "\
apiVersion: fedgate.dev/v1alpha1
kind: FederationConfig
cluster: east
trustDomain: east.example
dataDir: data
manifests: manifests
sockets: {resource: run/r.sock, operator: run/o.sock}
advertise: [{transport: quic, host: gw.east.invalid, port: 8443}]
";
        let config = FederationConfig::from_yaml(yaml, &self.path("federation.yaml")).unwrap();
        self.app = Some(self.runtime.block_on(app::build(config)).unwrap());
    }

    pub(crate) fn stop(&mut self) {
        if let Some(app) = self.app.take() {
            self.runtime.block_on(app.stop());
        }
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file as a whole, as an editor does.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let staged = self.path("staged");
        fs::write(&staged, text).unwrap();
        fs::rename(staged, self.path(name)).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Runs `fedctl` in the node's folder, without a terminal.
    pub(crate) fn fedctl(&self, arguments: &[&str]) -> Said {
        self.fedctl_with(arguments, "")
    }

    pub(crate) fn fedctl_with(&self, arguments: &[&str], input: &str) -> Said {
        let server = format!("unix:{}", self.path("run/o.sock").display());
        let mut child = Command::new(env!("CARGO_BIN_EXE_fedctl"))
            .args(["--server", &server])
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("FEDCTL_CONTEXT")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that does not read its input has ended already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Said {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a command that must end well; returns its data.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let said = self.fedctl(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        said.out
    }

    /// Runs a command that must fail so; returns its words.
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let said = self.fedctl(arguments);
        assert_eq!(said.code, code, "{arguments:?}: {said:?}");
        assert_eq!(said.out, "", "no data when it fails: {arguments:?}");
        said.err
    }

    /// Asks again until the answer is as wanted.
    pub(crate) fn until(&self, arguments: &[&str], wanted: impl Fn(&Said) -> bool) -> Said {
        let begun = Instant::now();
        loop {
            let said = self.fedctl(arguments);
            if wanted(&said) {
                return said;
            }
            assert!(begun.elapsed() < PATIENCE, "{arguments:?} stays as it is: {said:?}");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}
