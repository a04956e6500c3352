//! A configuration file that may change while the process runs.

use std::fmt::Display;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::difference::changed_fields;
use crate::limits::{CONFIG_BYTES_MAX, CONFIG_POLL};

/// Sees a file change: when it has been the same for [`CONFIG_POLL`], and at once after a SIGHUP.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    /// What the process started with.
    first: String,
    /// What was read last.
    last: String,
    seen: Option<Stamp>,
    /// It has changed, and may be in the middle of that.
    unsettled: bool,
    ticks: Interval,
    hangup: Signal,
}

/// What changes when a file does: by writing, by renaming, by a link to another one.
#[derive(Debug, PartialEq, Eq)]
struct Stamp([i64; 6]);

impl Stamp {
    fn of(file: &Metadata) -> Self {
        let (inode, size) = (file.ino().cast_signed(), file.size().cast_signed());
        let (modified, changed) = (file.mtime_nsec(), file.ctime_nsec());
        Self([inode, size, file.mtime(), modified, file.ctime(), changed])
    }
}

impl ConfigFile {
    /// `text` is what the process started with. Belongs into a runtime; from here on SIGHUP no longer
    /// ends the process.
    pub fn watch(path: &Path, text: String) -> io::Result<Self> {
        let mut ticks = interval(CONFIG_POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let hangup = signal(SignalKind::hangup())?;
        let (first, last) = (text.clone(), text);
        // It may have changed since it was read, so it is looked at in any case.
        Ok(Self { path: path.into(), first, last, seen: None, unsettled: false, ticks, hangup })
    }

    /// For the rest of the process's life: what the file says goes to `apply`, which puts the fields
    /// in `reloadable` into force. The log says which others wait for a restart, and what is wrong
    /// with a file that `parse` refuses; what was in force stays so then.
    pub async fn follow<C, E: Display>(
        mut self,
        reloadable: &[&str],
        parse: impl Fn(&str) -> Result<C, E>,
        mut apply: impl FnMut(C),
    ) {
        loop {
            let text = self.changed().await;
            let path = self.path.display();
            match parse(&text) {
                Ok(config) => apply(config),
                Err(error) => {
                    tracing::error!(%error, "the configuration stays as it was");
                    continue;
                }
            }
            let waiting = changed_fields(&self.first, &text);
            let waiting: Vec<String> =
                waiting.into_iter().filter(|field| !reloadable.contains(&&**field)).collect();
            if waiting.is_empty() {
                tracing::info!(%path, "configuration read again");
            } else {
                let fields = waiting.join(", ");
                tracing::warn!(%path, fields, "configuration read again; these fields change at the next start");
            }
        }
    }

    /// Waits for another text, or for a SIGHUP, after which it may be the same one.
    async fn changed(&mut self) -> String {
        loop {
            let asked = tokio::select! {
                _ = self.ticks.tick() => false,
                _ = self.hangup.recv() => true,
            };
            if !(asked || self.has_settled()) {
                continue;
            }
            match self.read() {
                Ok(text) if asked || text != self.last => {
                    self.last.clone_from(&text);
                    return text;
                }
                Ok(_) => {}
                Err(error) => {
                    let path = self.path.display();
                    tracing::error!(%path, %error, "the configuration stays as it was: the file cannot be read");
                }
            }
        }
    }

    /// Whether it has changed, and then not for a whole tick. A file that is away is about to be
    /// replaced.
    fn has_settled(&mut self) -> bool {
        let now = fs::metadata(&self.path).ok().as_ref().map(Stamp::of);
        let is_same = now == self.seen;
        if !is_same {
            self.unsettled = true;
            self.seen = now;
            return false;
        }
        self.seen.is_some() && std::mem::take(&mut self.unsettled)
    }

    fn read(&self) -> io::Result<String> {
        let mut text = String::new();
        // One more than any parser takes, so that it sees that there are too many.
        File::open(&self.path)?.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    async fn next(file: &mut ConfigFile) -> String {
        tokio::time::timeout(LIMIT, file.changed()).await.unwrap()
    }

    #[tokio::test]
    async fn a_change_is_seen_however_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        fs::write(&path, "one").unwrap();
        let mut file = ConfigFile::watch(&path, "one".into()).unwrap();
        fs::write(&path, "two").unwrap();
        assert_eq!(next(&mut file).await, "two");
        let fresh = folder.path().join("fresh");
        fs::write(&fresh, "333").unwrap();
        fs::rename(&fresh, &path).unwrap();
        assert_eq!(next(&mut file).await, "333");
        // What is away for a while and comes back as it was is no change; the one after it is.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "333").unwrap();
        fs::write(&fresh, "4").unwrap();
        fs::rename(&fresh, &path).unwrap();
        assert_eq!(next(&mut file).await, "4");
    }

    #[tokio::test]
    async fn a_wrong_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        fs::write(&path, "bad").unwrap();
        let file = ConfigFile::watch(&path, "good: 1".into()).unwrap();
        let (refused, applied) = (RefCell::new(0), RefCell::new(Vec::new()));
        let parse = |text: &str| {
            if text == "bad" {
                *refused.borrow_mut() += 1;
                return Err("bad");
            }
            Ok(text.to_owned())
        };
        let follow = file.follow(&[], parse, |text| applied.borrow_mut().push(text));
        let watch = async {
            while *refused.borrow() == 0 {
                tokio::task::yield_now().await;
            }
            assert!(applied.borrow().is_empty());
            fs::write(&path, "good: 2").unwrap();
            while applied.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = follow => panic!("it never ends"),
            told = tokio::time::timeout(LIMIT, watch) => told.unwrap(),
        }
        assert_eq!(*applied.borrow(), ["good: 2"]);
    }
}
