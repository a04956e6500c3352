//! The router's state: one pipe per pair of ports, behind one lock; and its timer.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::config::Parsed;
use super::device::Device;
use super::packet::{PortDrop, forward};
use super::table::Table;
use crate::capture::Tap;
use crate::impair::{DropReason, Pipe};
use crate::limits::RECV_BATCH_PACKETS;
use crate::lock;
use crate::sites::Sites;
use crate::timer::{SLACK, Timer};

/// What the router's threads and its handles share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The sites' names, by port.
    sites: Vec<String>,
    pub(super) tap: Tap,
    core: Mutex<Core>,
    timer: Timer,
}

/// Everything that changes.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) sites: Sites,
    pub(super) ports: Vec<PortState>,
    /// The pipe from port `a` to port `b` is at `a * ports + b`.
    paths: Vec<Pipe<()>>,
    table: Table,
    closed: bool,
}

/// One port's device and its counters.
#[derive(Debug)]
pub(super) struct PortState {
    device: Option<Arc<Device>>,
    pub(super) packets: u64,
    pub(super) dropped: [u64; PortDrop::ALL.len()],
}

impl Shared {
    pub(super) fn new(
        config: Parsed,
        devices: Vec<Arc<Device>>,
    ) -> Result<Self, crate::SettingError> {
        let sites: Vec<String> = config.ports.into_iter().map(|port| port.site).collect();
        let mut paths = Vec::with_capacity(sites.len() * sites.len());
        for index in 0..sites.len() * sites.len() {
            // Each path gets a sequence of its own.
            let mut pipe = Pipe::new(config.seed.wrapping_add((index as u64) << 32));
            pipe.set(config.impairment.clone())?;
            paths.push(pipe);
        }
        let ports = devices.into_iter().map(|device| PortState {
            device: Some(device),
            packets: 0,
            dropped: [0; PortDrop::ALL.len()],
        });
        let core = Core {
            sites: Sites::new(sites.iter().cloned()),
            ports: ports.collect(),
            paths,
            table: config.table,
            closed: false,
        };
        Ok(Self { sites, tap: Tap::default(), core: Mutex::new(core), timer: Timer::default() })
    }

    /// The site's name of a port.
    pub(super) fn site(&self, port: usize) -> &str {
        &self.sites[port]
    }

    pub(super) fn sites(&self) -> &[String] {
        &self.sites
    }

    /// The state under its lock.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Core) -> T) -> T {
        work(&mut lock(&self.core))
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.core).closed
    }

    /// Stops everything; the threads notice when they are woken.
    pub(super) fn close(&self) {
        let mut core = lock(&self.core);
        core.closed = true;
        core.ports.iter_mut().for_each(|port| port.device = None);
        drop(core);
        self.timer.stop();
        if let Err(error) = self.tap.stop() {
            tracing::warn!(%error, "the recording is incomplete");
        }
    }

    /// Takes in the packet at the start of `buffer`, and what else waits on the device.
    pub(super) fn receive(&self, port: usize, device: &Device, buffer: &mut [u8], length: usize) {
        let mut core = lock(&self.core);
        let now = Instant::now();
        core.receive(now, port, &mut buffer[..length]);
        for _ in 1..RECV_BATCH_PACKETS {
            match device.try_recv(buffer) {
                Ok(length) => core.receive(now, port, &mut buffer[..length]),
                Err(error) => {
                    // Another error than "nothing there" comes back when the reader waits next.
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::debug!(port = self.site(port), %error, "failed to read");
                    }
                    break;
                }
            }
        }
        core.deliver(now, &self.tap);
        if let Some(next_at) = core.next_at() {
            self.timer.ring(next_at);
        }
    }

    /// Delivers what becomes due, until the router stops.
    pub(super) fn run_timer(&self) {
        self.timer.run(|now| {
            let mut core = lock(&self.core);
            core.deliver(now, &self.tap);
            core.next_at()
        });
    }
}

impl Core {
    pub(super) fn path(&self, from: usize, to: usize) -> &Pipe<()> {
        &self.paths[from * self.ports.len() + to]
    }

    pub(super) fn path_mut(&mut self, from: usize, to: usize) -> &mut Pipe<()> {
        &mut self.paths[from * self.ports.len() + to]
    }

    fn receive(&mut self, now: Instant, port: usize, packet: &mut [u8]) {
        self.ports[port].packets += 1;
        match self.route(port, packet) {
            Ok(to) => self.path_mut(port, to).push(now, (), packet.to_vec()),
            Err(reason) => self.ports[port].dropped[reason as usize] += 1,
        }
    }

    fn route(&self, port: usize, packet: &mut [u8]) -> Result<usize, PortDrop> {
        let target = forward(packet)?;
        match self.table.find(target) {
            None => Err(PortDrop::NoRoute),
            Some(to) if to == port => Err(PortDrop::SamePort),
            Some(to) => Ok(to),
        }
    }

    fn deliver(&mut self, now: Instant, tap: &Tap) {
        let ports = self.ports.len();
        for (index, path) in self.paths.iter_mut().enumerate() {
            while let Some(((), packet)) = path.pop(now + SLACK) {
                let sent = match &self.ports[index % ports].device {
                    Some(device) => device.send(&packet),
                    None => Err(io::Error::other("the router has stopped")),
                };
                match sent {
                    Ok(_) => {
                        path.count_forwarded(packet.len());
                        tap.ip(&packet);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a packet could not be sent");
                        path.count_dropped(DropReason::SendFailed);
                    }
                }
            }
        }
    }

    fn next_at(&self) -> Option<Instant> {
        self.paths.iter().filter_map(Pipe::next_at).min()
    }
}
