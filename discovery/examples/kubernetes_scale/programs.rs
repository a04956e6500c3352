//! `fedgate-federation` and `fedgate-gateway` as an operator would start them, beside this program.

use std::cell::RefCell;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{memory_kib, say};

/// The kernel counts CPU time in hundredths of a second (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// Both end with this value.
pub(crate) struct Programs {
    folder: PathBuf,
    children: RefCell<Vec<(&'static str, Child)>>,
}

impl Programs {
    /// `address` is what the gateway's tunnel is at. $KUBECONFIG says which cluster it is.
    pub(crate) fn start(address: IpAddr) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("fg-scale-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let data = folder.display();
        let head = "apiVersion: fedgate.dev/v1alpha1";
        let federation = format!(
            "{head}\nkind: FederationConfig\ncluster: east\ntrustDomain: east.example\n\
             dataDir: {data}/federation\n\
             sockets: {{resource: {data}/resource.sock, operator: {data}/operator.sock}}\n\
             advertise: [{{transport: quic, host: \"{address}\", port: 8443}}]\n\
             kubernetes: {{namespace: fedgate-system, gatewayServiceType: ClusterIP}}\n"
        );
        fs::write(folder.join("federation.yaml"), federation)?;
        let gateway = format!(
            "{head}\nkind: GatewayConfig\nname: gw-0\ncluster: east\ntrustDomain: east.example\n\
             dataDir: {data}/gateway\nlisten: {{tunnel: \"127.0.0.1:0\", routes: 127.0.0.1}}\n\
             federation: {{socket: {data}/resource.sock}}\nadmin: {{listen: \"127.0.0.1:0\"}}\n\
             workers: 1\naccessLog: {{path: /dev/null}}\n"
        );
        fs::write(folder.join("gateway.yaml"), gateway)?;
        let programs = Self { folder, children: RefCell::default() };
        programs.spawn("federation")?;
        programs.spawn("gateway")?;
        Ok(programs)
    }

    fn spawn(&self, part: &'static str) -> Result<()> {
        let own = std::env::current_exe()?;
        let folder = own.parent().and_then(Path::parent).context("examples/ has a parent")?;
        let program = folder.join(format!("fedgate-{part}"));
        let log = File::create(self.folder.join(format!("{part}.log")))?;
        let child = Command::new(&program)
            .arg("--config")
            .arg(self.folder.join(format!("{part}.yaml")))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} cannot be started: build it", program.display()))?;
        self.children.borrow_mut().push((part, child));
        Ok(())
    }

    /// Whether both still run.
    pub(crate) fn check(&self) -> Result<()> {
        for (part, child) in self.children.borrow_mut().iter_mut() {
            if let Some(status) = child.try_wait()? {
                let log = fs::read_to_string(self.folder.join(format!("{part}.log")))?;
                bail!("the {part} ended with {status}: {log}");
            }
        }
        Ok(())
    }

    pub(crate) fn tell_memory(&self, when: &str) -> Result<()> {
        let mut parts = Vec::new();
        for (part, child) in self.children.borrow().iter() {
            parts.push(format!("{part} {} MiB", memory_kib(child.id())? / 1024));
        }
        say(format!("memory {when}: {}", parts.join(", ")));
        Ok(())
    }

    /// User and system time that each has used (proc(5), `stat`, fields 14 and 15).
    pub(crate) fn cpu(&self) -> Result<Vec<(&'static str, Duration)>> {
        let children = self.children.borrow();
        let used = children.iter().map(|(part, child)| {
            let text = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
            let (_, rest) = text.rsplit_once(')').context("stat has a name")?;
            let ticks: Vec<u32> =
                rest.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
            Ok((*part, TICK * ticks.iter().sum()))
        });
        used.collect()
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        for (_, child) in self.children.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::env::var_os("KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
