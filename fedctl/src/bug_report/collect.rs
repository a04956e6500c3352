//! What goes into a report. Each part is collected on its own, so that what does not work any more
//! keeps nothing else away.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::admin_port;

/// How long one part may take.
const PART_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a gateway's admin port may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Of a part, its end: what happened last says most.
const PART_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Lines of each service's log.
const JOURNAL_LINES: &str = "20000";
/// Where packages put what belongs to the programs (`packaging/`).
const MACHINE_CONFIG: &str = "/etc/fedgate";
const MACHINE_UNITS: [&str; 2] = ["fedgate-federation", "fedgate-gateway"];

/// What is asked of the node, the file that has the answer, and its form.
const QUESTIONS: &[(&str, &[&str], &str)] = &[
    ("status.json", &["status"], "json"),
    ("clusters.json", &["clusters"], "json"),
    ("links.json", &["links"], "json"),
    ("services.json", &["services"], "json"),
    ("diagnostics.json", &["diagnostics"], "json"),
    ("objects.json", &["get", "all"], "json"),
    ("store.json", &["store", "status"], "json"),
    ("members.json", &["store", "peers"], "json"),
    ("certificates.json", &["certs", "list"], "json"),
    ("trust.json", &["trust", "list"], "json"),
    ("tokens.json", &["token", "list"], "json"),
    ("audit.json", &["audit", "list"], "json"),
    ("check.json", &["check"], "json"),
    ("check.txt", &["check"], "table"),
];

/// One file of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub text: String,
}

/// How `fedctl` is called for the same node.
#[derive(Debug, Clone)]
pub struct Way {
    pub program: PathBuf,
    /// The name it is called by.
    pub called: OsString,
    /// Options that name the node.
    pub options: Vec<OsString>,
    /// The node is on this machine, so that its gateways' admin ports, its logs and its configuration
    /// may be too.
    pub is_here: bool,
}

/// What was found, and what was not.
#[derive(Debug, Default)]
pub struct Collection {
    pub parts: Vec<Part>,
    /// What is missing, and why.
    pub missing: Vec<(String, String)>,
}

/// Everything that can be had. `files` are further ones that the user names.
pub async fn collect(way: &Way, files: &[PathBuf]) -> Collection {
    let mut found = Collection::default();
    found.put("versions.txt", Ok(versions()));
    for (name, words, format) in QUESTIONS {
        found.put(name, ask(way, words, format).await);
    }
    if way.is_here {
        found.admin_ports().await;
        found.configs();
        found.journals().await;
    } else {
        let why = "the node is elsewhere; `kubectl logs` of its pods, added with --file, has them";
        found.missing.push(("logs, metrics and configuration".into(), why.into()));
    }
    for path in files {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        found.put(&format!("files/{name}"), read_end(path));
    }
    found
}

impl Collection {
    fn put(&mut self, name: &str, text: Result<String, String>) {
        match text {
            Ok(text) => self.parts.push(Part { name: name.into(), text }),
            Err(why) => self.missing.push((name.into(), why)),
        }
    }

    /// A part that was found, read as JSON.
    pub fn json(&self, name: &str) -> Option<Value> {
        let part = self.parts.iter().find(|part| part.name == name)?;
        serde_json::from_str(&part.text).ok()
    }

    /// Metrics and configuration in service of the gateways that the node knows.
    async fn admin_ports(&mut self) {
        let status = self.json("status.json").unwrap_or_default();
        for gateway in status["gateways"].as_array().into_iter().flatten() {
            let text = |field: &str| gateway[field].as_str().unwrap_or_default().to_owned();
            let (name, address) = (text("name"), text("adminAddress"));
            for (path, file) in [
                ("/metrics", "metrics.txt"),
                ("/config_dump", "config.json"),
                ("/readyz", "readyz.txt"),
            ] {
                let answer =
                    admin_port::ask(&address, Method::GET, path, ADMIN_TIMEOUT, PART_BYTES_MAX);
                let answer = answer.await.map(|(_, text)| text);
                let answer = answer.map_err(|why| format!("http://{address}{path}: {why}"));
                self.put(&format!("gateways/{name}/{file}"), answer);
            }
        }
    }

    fn configs(&mut self) {
        for name in ["federation.yaml", "gateway.yaml"] {
            let path = Path::new(MACHINE_CONFIG).join(name);
            if path.exists() {
                self.put(&format!("config/{name}"), read_end(&path));
            }
        }
    }

    async fn journals(&mut self) {
        for unit in MACHINE_UNITS {
            let mut command = Command::new("journalctl");
            command.args(["--no-pager", "--quiet", "-o", "cat", "-n", JOURNAL_LINES, "-u", unit]);
            let text = match run(command).await {
                Ok(output) if !output.stdout.is_empty() => Ok(end_of(&output.stdout)),
                Ok(_) => Err("systemd's journal has nothing of it; add the log with --file".into()),
                Err(why) => Err(format!("journalctl: {why}; add the log with --file")),
            };
            self.put(&format!("logs/{unit}.log"), text);
        }
    }
}

fn versions() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    format!(
        "fedctl {}\nkernel {}\n{}",
        env!("CARGO_PKG_VERSION"),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/etc/os-release")
    )
}

/// What a command of ours prints, also if it finds something wrong.
async fn ask(way: &Way, words: &[&str], format: &str) -> Result<String, String> {
    let mut command = std::process::Command::new(&way.program);
    command.arg0(&way.called).args(&way.options).args(words).args(["-o", format]);
    let output = run(Command::from(command)).await?;
    match output.stdout.is_empty() && !output.status.success() {
        true => Err(end_of(&output.stderr).trim().replace('\n', "; ")),
        false => Ok(end_of(&output.stdout)),
    }
}

async fn run(mut command: Command) -> Result<Output, String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    match timeout(PART_TIMEOUT, command.output()).await {
        Ok(output) => output.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PART_TIMEOUT.as_secs())),
    }
}

fn read_end(path: &Path) -> Result<String, String> {
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = std::fs::File::open(path).map_err(told)?;
    let length = file.metadata().map_err(told)?.len();
    let skipped = length.saturating_sub(PART_BYTES_MAX as u64);
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(skipped)).map_err(told)?;
    let mut bytes = Vec::new();
    file.take(PART_BYTES_MAX as u64).read_to_end(&mut bytes).map_err(told)?;
    Ok(end_of(&bytes))
}

/// As much of the end as a part may have.
fn end_of(bytes: &[u8]) -> String {
    let kept = &bytes[bytes.len().saturating_sub(PART_BYTES_MAX)..];
    String::from_utf8_lossy(kept).into_owned()
}
