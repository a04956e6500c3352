//! The router's controls: cut, heal, set, count, record. Every call takes effect before it returns.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::TunError;
use super::core::{Core, Shared};
use super::packet::PortDrop;
use crate::capture::Recording;
use crate::{Counters, Impairment, SettingError};

/// The router's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterCounters {
    /// What came from each site.
    pub ports: Vec<PortCounters>,
    /// What travelled, for each ordered pair of sites.
    pub paths: Vec<PathCounters>,
}

/// What came from a site, before it took a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortCounters {
    /// The site.
    pub site: String,
    /// Packets read from its device.
    pub packets: u64,
    dropped: [u64; PortDrop::ALL.len()],
}

/// What travelled from one site to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathCounters {
    /// The sending site.
    pub from: String,
    /// The receiving site.
    pub to: String,
    /// Its packets.
    pub counters: Counters,
}

impl PortCounters {
    /// Packets that took no path, for this reason.
    pub const fn dropped(&self, reason: PortDrop) -> u64 {
        self.dropped[reason as usize]
    }
}

impl fmt::Display for RouterCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for port in &self.ports {
            write!(f, "{}: sent {} packets", port.site, port.packets)?;
            for reason in PortDrop::ALL.into_iter().filter(|reason| port.dropped(*reason) > 0) {
                write!(f, ", dropped {} ({})", port.dropped(reason), reason.name())?;
            }
            writeln!(f)?;
        }
        for path in &self.paths {
            writeln!(f, "{} -> {}: {}", path.from, path.to, path.counters)?;
        }
        Ok(())
    }
}

/// Controls a router from any thread; cheap to clone.
#[derive(Clone)]
pub struct TunHandle {
    shared: Arc<Shared>,
}

impl TunHandle {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Impairs packets from one site to another; not the other way.
    pub fn set(&self, from: &str, to: &str, impairment: Impairment) -> Result<(), TunError> {
        let (from, to) = self.path(from, to)?;
        Ok(self.shared.with(|core| core.path_mut(from, to).set(impairment))?)
    }

    /// Impairs both directions between two sites.
    pub fn set_both(&self, one: &str, other: &str, impairment: Impairment) -> Result<(), TunError> {
        self.set(one, other, impairment.clone())?;
        self.set(other, one, impairment)
    }

    /// Impairs every path.
    pub fn set_all(&self, impairment: &Impairment) -> Result<(), TunError> {
        let set = |core: &mut Core| {
            self.pairs().try_for_each(|(from, to)| core.path_mut(from, to).set(impairment.clone()))
        };
        Ok(self.shared.with(set)?)
    }

    /// Drops every packet from and to this site, those under way too.
    pub fn cut(&self, site: &str) -> Result<(), TunError> {
        self.change_cuts(|core| core.sites.set_cut(site, true))
    }

    /// Undoes [`Self::cut`].
    pub fn heal(&self, site: &str) -> Result<(), TunError> {
        self.change_cuts(|core| core.sites.set_cut(site, false))
    }

    /// Drops every packet from one site to another; not the other way.
    pub fn cut_path(&self, from: &str, to: &str) -> Result<(), TunError> {
        self.change_cuts(|core| core.sites.set_path_cut(from, to, true))
    }

    /// Undoes [`Self::cut_path`].
    pub fn heal_path(&self, from: &str, to: &str) -> Result<(), TunError> {
        self.change_cuts(|core| core.sites.set_path_cut(from, to, false))
    }

    /// Everything that was counted.
    pub fn counters(&self) -> RouterCounters {
        let sites = self.shared.sites();
        self.shared.with(|core| RouterCounters {
            ports: std::iter::zip(sites, &core.ports)
                .map(|(site, port)| PortCounters {
                    site: site.clone(),
                    packets: port.packets,
                    dropped: port.dropped,
                })
                .collect(),
            paths: self
                .pairs()
                .map(|(from, to)| PathCounters {
                    from: sites[from].clone(),
                    to: sites[to].clone(),
                    counters: *core.path(from, to).counters(),
                })
                .collect(),
        })
    }

    /// What travelled from one site to another.
    pub fn path_counters(&self, from: &str, to: &str) -> Result<Counters, TunError> {
        let (from, to) = self.path(from, to)?;
        Ok(self.shared.with(|core| *core.path(from, to).counters()))
    }

    /// Records every packet forwarded from now on into a pcap file, which it creates or overwrites.
    /// A recording that was running ends.
    pub fn record(&self, path: impl AsRef<Path>) -> Result<(), TunError> {
        if self.shared.is_closed() {
            return Err(TunError::Stopped);
        }
        Ok(self.shared.tap.start(path.as_ref())?)
    }

    /// Writes out what was recorded so far, so that the file can be read; the recording goes on.
    pub fn flush_recording(&self) -> Result<Option<Recording>, TunError> {
        Ok(self.shared.tap.flush()?)
    }

    /// Ends the recording and says what is in the file; none if nothing was being recorded.
    pub fn stop_recording(&self) -> Result<Option<Recording>, TunError> {
        Ok(self.shared.tap.stop()?)
    }

    fn change_cuts(
        &self,
        change: impl FnOnce(&mut Core) -> Result<(), SettingError>,
    ) -> Result<(), TunError> {
        let sites = self.shared.sites();
        self.shared.with(|core| {
            change(core)?;
            for (from, to) in self.pairs() {
                let cut = core.sites.is_cut(&sites[from], &sites[to]);
                core.path_mut(from, to).set_cut(cut);
            }
            Ok(())
        })
    }

    /// Every ordered pair of different ports.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let ports = self.shared.sites().len();
        (0..ports * ports)
            .map(move |index| (index / ports, index % ports))
            .filter(|(from, to)| from != to)
    }

    fn path(&self, from: &str, to: &str) -> Result<(usize, usize), SettingError> {
        let port = |field, site: &str| {
            self.shared.with(|core| core.sites.check_known(field, site))?;
            Ok(self.shared.sites().iter().position(|known| known == site).expect("is known"))
        };
        let (from_port, to_port) = (port("from", from)?, port("to", to)?);
        if from_port == to_port {
            return Err(SettingError::new("to", to, "must be another site than `from`"));
        }
        Ok((from_port, to_port))
    }
}

impl fmt::Debug for TunHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunHandle").field("sites", &self.shared.sites()).finish()
    }
}
