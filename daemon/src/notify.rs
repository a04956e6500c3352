//! What systemd is told about this process (sd_notify(3)): a datagram of lines `NAME=value` to the
//! socket that `$NOTIFY_SOCKET` names. Without that variable nothing is told, and nobody is missing it.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::limits::STATUS_CHARS_MAX;

/// The way to the service manager, if one listens.
#[derive(Debug, Clone, Default)]
pub struct Notifier {
    manager: Option<Arc<Channel>>,
    /// The manager wants a sign of life at least once in this time.
    watchdog: Option<Duration>,
}

#[derive(Debug)]
struct Channel {
    socket: UnixDatagram,
    /// What was told last: the same is not told twice.
    status: Mutex<String>,
}

impl Notifier {
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let Some(path) = variable("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Self::default();
        };
        let manager = match connect(&path) {
            Ok(socket) => Some(Arc::new(Channel { socket, status: Mutex::default() })),
            Err(error) => {
                tracing::warn!(path, %error, "NOTIFY_SOCKET cannot be used; nobody is told that this process is ready");
                None
            }
        };
        let own = std::process::id().to_string();
        // The variable may have been inherited from a process that it was meant for.
        let is_meant = variable("WATCHDOG_PID").is_none_or(|id| id == own);
        let time = variable("WATCHDOG_USEC").and_then(|time| time.parse().ok());
        let watchdog = time.filter(|time| *time > 0 && is_meant).map(Duration::from_micros);
        Self { manager, watchdog }
    }

    /// Started: whoever waits for this process may go on.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// One sentence for people, as `systemctl status` shows it.
    pub fn status(&self, sentence: &str) {
        let Some(manager) = &self.manager else { return };
        let line = sentence.replace('\n', " ");
        let line: String = line.chars().take(STATUS_CHARS_MAX).collect();
        let mut told = manager.status.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != line {
            self.tell(&format!("STATUS={line}"));
            *told = line;
        }
    }

    /// On its way out.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Twice in the time that the manager waits.
    fn watchdog_interval(&self) -> Option<Duration> {
        self.manager.as_ref().and(self.watchdog).map(|time| time / 2)
    }

    /// Gives the manager a sign of life for as long as `pulse` does: it comes back, with `true`, while
    /// the process does its work.
    pub async fn keep_alive<F: Future<Output = bool>>(self, pulse: impl Fn() -> F) {
        let Some(interval) = self.watchdog_interval() else { return };
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if pulse().await {
                self.tell("WATCHDOG=1");
            }
        }
    }

    /// The manager takes what it gets when it gets to it; a full queue loses a message, not time.
    fn tell(&self, lines: &str) {
        let Some(manager) = &self.manager else { return };
        if let Err(error) = manager.socket.send(lines.as_bytes()) {
            tracing::debug!(lines, %error, "the service manager does not listen");
        }
    }
}

/// A path, or with `@` a name in the abstract namespace (unix(7)).
fn connect(path: &str) -> io::Result<UnixDatagram> {
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn received(manager: &UnixDatagram) -> Vec<String> {
        manager.set_nonblocking(true).unwrap();
        let mut buffer = [0; 1024];
        std::iter::from_fn(|| manager.recv(&mut buffer).ok().map(|size| text(&buffer[..size])))
            .collect()
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn the_manager_hears_each_thing_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let named = path.to_str().unwrap().to_owned();
        let notifier =
            Notifier::from_variables(|name| (name == "NOTIFY_SOCKET").then(|| named.clone()));
        notifier.status("waits\nfor its node");
        notifier.status("waits for its node");
        notifier.ready();
        notifier.stopping();
        assert_eq!(received(&manager), ["STATUS=waits for its node", "READY=1", "STOPPING=1"]);
        assert_eq!(notifier.watchdog_interval(), None);
        drop(manager);
        notifier.ready(); // nobody listens any more, which is no reason to fail
    }

    #[test]
    fn a_name_without_a_file_works_too() {
        let name = format!("fedgate-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let own = std::process::id().to_string();
        let notifier = Notifier::from_variables(|variable| match variable {
            "NOTIFY_SOCKET" => Some(format!("@{name}")),
            "WATCHDOG_USEC" => Some("3000000".into()),
            "WATCHDOG_PID" => Some(own.clone()),
            _ => None,
        });
        assert_eq!(notifier.watchdog_interval(), Some(Duration::from_millis(1500)));
        notifier.tell("WATCHDOG=1");
        assert_eq!(received(&manager), ["WATCHDOG=1"]);
    }

    /// The manager hears of a process that works, and not of one whose work hangs.
    #[tokio::test(start_paused = true)]
    async fn a_pulse_that_does_not_come_back_is_no_sign_of_life() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let path = path.to_str().unwrap().to_owned();
        let notifier = Notifier::from_variables(|variable| match variable {
            "NOTIFY_SOCKET" => Some(path.clone()),
            "WATCHDOG_USEC" => Some("2000000".into()),
            _ => None,
        });
        let pulses = AtomicUsize::new(0);
        let beat = || async {
            if pulses.fetch_add(1, Ordering::Relaxed) == 3 {
                std::future::pending::<()>().await; // a worker that never answers
            }
            true
        };
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, notifier.keep_alive(beat)).await.is_err());
        assert_eq!(received(&manager).len(), 3);
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let notifier = Notifier::from_variables(|name| {
            (name == "WATCHDOG_USEC").then(|| "3000000".to_owned())
        });
        assert_eq!(notifier.watchdog_interval(), None);
        notifier.ready();
        notifier.status("nobody reads this");
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_fed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _manager = UnixDatagram::bind(&path).unwrap();
        let path = path.to_str().unwrap().to_owned();
        let notifier = Notifier::from_variables(|variable| match variable {
            "NOTIFY_SOCKET" => Some(path.clone()),
            "WATCHDOG_USEC" => Some("3000000".into()),
            "WATCHDOG_PID" => Some("1".into()),
            _ => None,
        });
        assert_eq!(notifier.watchdog_interval(), None);
    }
}
