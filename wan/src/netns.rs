//! Network namespaces that clean up after themselves, also after a panic. Needs root and iproute2.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

/// Every name begins so, then the process id: whose owner is gone can be removed.
const NAME_PREFIX: &str = "fedgate-";
const NETNS_FOLDER: &str = "/run/netns";
/// `ip netns exec` mounts what is below it over `/etc`.
const ETC_FOLDER: &str = "/etc/netns";

/// A network namespace of ours. Dropping it deletes it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

/// A process in a namespace. Dropping it kills it.
#[derive(Debug)]
pub struct NetnsChild(Child);

/// What failed around a namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// A program could not be started.
    #[error("failed to run `{command}`: {source}")]
    Start {
        /// The command line.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Failed {
        /// The command line.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it wrote to its standard error.
        stderr: String,
    },
    /// The namespace could not be entered.
    #[error("failed to enter network namespace {name}: {source}")]
    Enter {
        /// The namespace.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file below `/etc` of the namespace could not be written.
    #[error("failed to write {path}: {source}", path = path.display())]
    Etc {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why namespaces and TUN devices cannot be used here, if they cannot: the reason of a skipped test.
pub fn unavailable() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root");
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("needs /dev/net/tun");
    }
    if Command::new("ip").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return Some("needs the program ip (Debian's package iproute2)");
    }
    None
}

impl Netns {
    /// Makes a namespace with a name of its own and its loopback up. The label is for the reader of `ip netns`.
    pub fn create(label: &str) -> Result<Self, NetnsError> {
        static SWEEP: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(remove_stale);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{NAME_PREFIX}{}-{number}-{label}", std::process::id());
        ip(["netns", "add", &name])?;
        let netns = Self { name };
        ip(["-n", &netns.name, "link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// The name as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs inside; give it arguments and [`NetnsChild::start`] it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a program inside to its end and returns what it wrote to its standard output.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<String, NetnsError> {
        let output = run(self.command(program).args(args))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Calls `work` on a thread inside. A socket made there stays in the namespace and can be used anywhere.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        enter(&self.name, work)
    }

    /// Writes a file that programs inside see as `/etc/<name>`, for example `hosts`; it must exist
    /// outside. Programs that run already do not see it.
    pub fn write_etc(&self, name: &str, text: &str) -> Result<(), NetnsError> {
        let folder = Path::new(ETC_FOLDER).join(&self.name);
        let path = folder.join(name);
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&path, text))
            .map_err(|source| NetnsError::Etc { path, source })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

impl NetnsChild {
    /// Starts a command of [`Netns::command`].
    pub fn start(command: &mut Command) -> Result<Self, NetnsError> {
        let child = command.spawn();
        let line = || line_of(command);
        Ok(Self(child.map_err(|source| NetnsError::Start { command: line(), source })?))
    }

    /// Kills it and waits until it is gone.
    pub fn kill_now(&mut self) {
        // An error means that it is gone already, which is what was asked for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for NetnsChild {
    fn drop(&mut self) {
        self.kill_now();
    }
}

impl Deref for NetnsChild {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for NetnsChild {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

/// Calls `work` on a thread that has moved into the named namespace.
pub(crate) fn enter<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    let failed = |source| NetnsError::Enter { name: name.to_owned(), source };
    let netns = File::open(Path::new(NETNS_FOLDER).join(name)).map_err(failed)?;
    // A thread of its own, since the move is for the thread's whole life.
    let joined = std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(&netns, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            Ok(work())
        });
        inside.join()
    });
    match joined {
        Ok(result) => result.map_err(failed),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs `ip` with these arguments.
pub(crate) fn ip<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<(), NetnsError> {
    run(Command::new("ip").args(args)).map(drop)
}

fn run(command: &mut Command) -> Result<Output, NetnsError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| NetnsError::Start { command: line_of(command), source })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(NetnsError::Failed {
        command: line_of(command),
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Deletes a namespace; also in `drop`, so it can only log.
fn delete(name: &str) {
    if let Err(error) = ip(["netns", "delete", name]) {
        tracing::warn!(%error, "a network namespace is left behind");
    }
    // It is there only if a file was written.
    let _ = fs::remove_dir_all(Path::new(ETC_FOLDER).join(name));
}

/// Deletes namespaces whose process was killed before it could.
fn remove_stale() {
    let Ok(entries) = fs::read_dir(NETNS_FOLDER) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some((pid, _)) = name.strip_prefix(NAME_PREFIX).and_then(|rest| rest.split_once('-'))
        else {
            continue;
        };
        let is_pid = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
        if is_pid && !Path::new("/proc").join(pid).exists() {
            delete(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> String {
        let output = run(Command::new("ip").args(["netns", "list"])).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn it_is_entered_used_and_gone_also_after_a_panic() {
        if let Some(reason) = unavailable() {
            println!(
                "skipped: netns::tests::it_is_entered_used_and_gone_also_after_a_panic: {reason}"
            );
            return;
        }
        let netns = Netns::create("one").unwrap();
        let name = netns.name().to_owned();
        let outside = Netns::create("two").unwrap();
        assert!(names().contains(&name));

        // A listener inside is reached from inside only.
        let listener = netns.enter(|| std::net::TcpListener::bind("127.0.0.1:0")).unwrap().unwrap();
        let addr = listener.local_addr().unwrap();
        netns.enter(|| std::net::TcpStream::connect(addr)).unwrap().unwrap();
        assert!(outside.enter(|| std::net::TcpStream::connect(addr)).unwrap().is_err());

        assert!(netns.run("ip", ["-o", "link"]).unwrap().contains("lo:"));
        netns.write_etc("hosts", "192.0.2.1 api.example\n").unwrap();
        let hosts = netns.run("cat", ["/etc/hosts"]).unwrap();
        assert_eq!(hosts, "192.0.2.1 api.example\n");

        let mut sleeper = NetnsChild::start(netns.command("sleep").arg("1000")).unwrap();
        assert!(sleeper.try_wait().unwrap().is_none());
        sleeper.kill_now();
        assert!(sleeper.try_wait().unwrap().is_some());

        let panicked = std::thread::spawn(move || {
            let _netns = netns;
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        assert!(!names().contains(&name));
        assert!(!Path::new(ETC_FOLDER).join(&name).exists());
    }

    #[test]
    fn what_a_dead_process_left_is_removed_and_nothing_else() {
        if let Some(reason) = unavailable() {
            println!(
                "skipped: netns::tests::what_a_dead_process_left_is_removed_and_nothing_else: {reason}"
            );
            return;
        }
        let mut dead = Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let stale = format!("{NAME_PREFIX}{}-0-stale", dead.id());
        let foreign = format!("other-{}-{}", std::process::id(), dead.id());
        let kept = Netns::create("kept").unwrap();
        // Another test process may remove it while it is being made: then it did our work.
        let _ = ip(["netns", "add", &stale]);
        ip(["netns", "add", &foreign]).unwrap();
        remove_stale();
        let names = names();
        ip(["netns", "delete", &foreign]).unwrap();
        assert!(!names.contains(&stale), "{names}");
        assert!(names.contains(&foreign) && names.contains(kept.name()), "{names}");
    }

    #[test]
    fn failures_say_which_command_or_namespace_failed() {
        let error = enter("never-made", || ()).unwrap_err().to_string();
        assert!(
            error.starts_with("failed to enter network namespace never-made: No such file"),
            "{error}"
        );
        let error = run(&mut Command::new("/never-made-program")).unwrap_err().to_string();
        assert!(error.starts_with("failed to run `/never-made-program`: No such file"), "{error}");
        let error = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c echo why >&2; exit 3` failed (exit status: 3): why");
    }
}
