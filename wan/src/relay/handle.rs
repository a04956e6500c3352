//! The relay's controls: cut, heal, set, count, record. Every call takes effect before it returns.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::RelayError;
use super::config::check_target;
use super::tasks::{Link, Shared};
use crate::capture::Recording;
use crate::sites::Sites;
use crate::{Counters, Impairment, SettingError, lock};

/// One of a link's two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the dialling site to the dialled one.
    Forward,
    /// The answers.
    Back,
}

/// One link's counters, both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkCounters {
    /// The dialling site.
    pub from: String,
    /// The dialled site.
    pub to: String,
    /// Client addresses known now.
    pub clients: usize,
    /// From `from` to `to`.
    pub forward: Counters,
    /// From `to` to `from`.
    pub back: Counters,
}

impl fmt::Display for LinkCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} -> {}: {}", self.from, self.to, self.forward)?;
        write!(f, "{} <- {}: {}", self.from, self.to, self.back)
    }
}

/// Controls a relay from any thread; cheap to clone.
#[derive(Clone)]
pub struct RelayHandle {
    shared: Arc<Shared>,
}

impl RelayHandle {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Where `from` must dial to reach `to`.
    pub fn addr(&self, from: &str, to: &str) -> Result<SocketAddr, RelayError> {
        Ok(self.link(from, to)?.lock().addr)
    }

    /// Where the link's packets go from now on, also those under way.
    pub fn set_target(&self, from: &str, to: &str, target: SocketAddr) -> Result<(), RelayError> {
        let link = self.link(from, to)?;
        check_target(target)?;
        link.lock().set_target(target);
        Ok(())
    }

    /// Impairs one direction of one link.
    pub fn set(
        &self,
        from: &str,
        to: &str,
        direction: Direction,
        impairment: Impairment,
    ) -> Result<(), RelayError> {
        self.link(from, to)?.lock().pipe_mut(direction).set(impairment)?;
        Ok(())
    }

    /// Impairs both directions of one link.
    pub fn set_both(&self, from: &str, to: &str, impairment: Impairment) -> Result<(), RelayError> {
        impairment.validate()?;
        self.set(from, to, Direction::Forward, impairment.clone())?;
        self.set(from, to, Direction::Back, impairment)
    }

    /// Impairs both directions of every link.
    pub fn set_all(&self, impairment: &Impairment) -> Result<(), RelayError> {
        impairment.validate()?;
        for link in &self.shared.links {
            let mut core = link.lock();
            core.pipe_mut(Direction::Forward).set(impairment.clone())?;
            core.pipe_mut(Direction::Back).set(impairment.clone())?;
        }
        Ok(())
    }

    /// Drops every packet from and to this site on all links, those under way too.
    pub fn cut(&self, site: &str) -> Result<(), RelayError> {
        self.change_cuts(|sites| sites.set_cut(site, true))
    }

    /// Undoes [`Self::cut`].
    pub fn heal(&self, site: &str) -> Result<(), RelayError> {
        self.change_cuts(|sites| sites.set_cut(site, false))
    }

    /// Drops every packet that travels from one site to the other, whichever link it uses; not the other way.
    pub fn cut_path(&self, from: &str, to: &str) -> Result<(), RelayError> {
        self.change_cuts(|sites| sites.set_path_cut(from, to, true))
    }

    /// Undoes [`Self::cut_path`].
    pub fn heal_path(&self, from: &str, to: &str) -> Result<(), RelayError> {
        self.change_cuts(|sites| sites.set_path_cut(from, to, false))
    }

    /// Every link's counters, in the order of the configuration.
    pub fn counters(&self) -> Vec<LinkCounters> {
        self.shared.links.iter().map(|link| link_counters(link)).collect()
    }

    /// One link's counters.
    pub fn link_counters(&self, from: &str, to: &str) -> Result<LinkCounters, RelayError> {
        Ok(link_counters(self.link(from, to)?))
    }

    /// Records every packet forwarded from now on into a pcap file, which it creates or overwrites.
    /// A recording that was running ends.
    pub fn record(&self, path: impl AsRef<Path>) -> Result<(), RelayError> {
        if self.shared.links.first().is_some_and(|link| !link.lock().is_open()) {
            return Err(RelayError::Stopped);
        }
        Ok(self.shared.tap.start(path.as_ref())?)
    }

    /// Writes out what was recorded so far, so that the file can be read; the recording goes on.
    pub fn flush_recording(&self) -> Result<Option<Recording>, RelayError> {
        Ok(self.shared.tap.flush()?)
    }

    /// Ends the recording and says what is in the file; none if nothing was being recorded.
    pub fn stop_recording(&self) -> Result<Option<Recording>, RelayError> {
        Ok(self.shared.tap.stop()?)
    }

    fn change_cuts(
        &self,
        change: impl FnOnce(&mut Sites) -> Result<(), SettingError>,
    ) -> Result<(), RelayError> {
        let mut sites = lock(&self.shared.sites);
        change(&mut sites)?;
        for link in &self.shared.links {
            let mut core = link.lock();
            let forward = sites.is_cut(&core.from, &core.to);
            let back = sites.is_cut(&core.to, &core.from);
            core.pipe_mut(Direction::Forward).set_cut(forward);
            core.pipe_mut(Direction::Back).set_cut(back);
        }
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> Result<&Link, SettingError> {
        let found = self.shared.links.iter().find(|link| {
            let core = link.lock();
            core.from == from && core.to == to
        });
        found.map(|link| &**link).ok_or_else(|| {
            let known = self.shared.links.iter().map(|link| link.lock().to_string());
            let fix = format!(
                "there is no such link; use one of {}",
                known.collect::<Vec<_>>().join(", ")
            );
            SettingError::new("link", format!("{from} -> {to}"), fix)
        })
    }
}

fn link_counters(link: &Link) -> LinkCounters {
    let core = link.lock();
    LinkCounters {
        from: core.from.clone(),
        to: core.to.clone(),
        clients: core.clients(),
        forward: *core.pipe(Direction::Forward).counters(),
        back: *core.pipe(Direction::Back).counters(),
    }
}

impl fmt::Debug for RelayHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayHandle").field("links", &self.shared.links.len()).finish()
    }
}
