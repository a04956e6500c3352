//! A port's TUN device: made inside its namespace, read and written from outside.

use std::fmt;
use std::io;
use std::sync::Arc;

use tun_rs::{DeviceBuilder, InterruptEvent, SyncDevice};

use super::TunError;
use super::config::Port;
use crate::limits::TUN_QUEUE_PACKETS;
use crate::netns;

/// A TUN device, not blocking.
pub(super) struct Device {
    device: SyncDevice,
    name: String,
}

/// Wakes every thread that waits in [`Device::wait_recv`], for good.
#[derive(Clone)]
pub(super) struct Stop(Arc<InterruptEvent>);

impl Device {
    /// Makes a port's device and gives it its addresses and default routes.
    pub(super) fn open(port: &Port) -> Result<Self, TunError> {
        let build = || -> io::Result<SyncDevice> {
            let device = DeviceBuilder::new()
                .name(&port.device)
                .mtu(port.mtu_bytes)
                .enable(true)
                .build_sync()?;
            device.set_tx_queue_len(TUN_QUEUE_PACKETS)?;
            device.set_nonblocking(true)?;
            Ok(device)
        };
        let device = netns::enter(&port.netns, build)?.map_err(|source| TunError::Device {
            device: port.device.clone(),
            netns: port.netns.clone(),
            source,
        })?;
        let (netns, name) = (port.netns.as_str(), port.device.as_str());
        for address in &port.addresses {
            let address = address.to_string();
            // Duplicate address detection would keep an IPv6 address unusable for a second; nobody else is there.
            netns::ip(["-n", netns, "address", "add", &address, "dev", name, "nodad"])?;
        }
        for family in ["-4", "-6"] {
            let is_used =
                port.addresses.iter().any(|address| address.is_ipv4() == (family == "-4"));
            if is_used {
                netns::ip(["-n", netns, family, "route", "add", "default", "dev", name])?;
            }
        }
        Ok(Self { device, name: format!("{name} in {netns}") })
    }

    /// Waits for a packet; `Interrupted` once it is stopped.
    pub(super) fn wait_recv(&self, buffer: &mut [u8], stop: &Stop) -> io::Result<usize> {
        self.device.recv_intr(buffer, &stop.0)
    }

    /// A packet if one is there, else `WouldBlock`.
    pub(super) fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.device.recv(buffer)
    }

    /// Hands a packet to the namespace's kernel.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<usize> {
        self.device.send(packet)
    }
}

impl Stop {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(InterruptEvent::new()?)))
    }

    pub(super) fn trigger(&self) -> io::Result<()> {
        self.0.trigger()
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Device").field(&self.name).finish()
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stop")
    }
}
