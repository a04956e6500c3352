//! A router between network namespaces: one TUN device in each, every packet through our hands.
//!
//! Needs root. TUN has no offloads here, so loss hits single packets, and what is measured are packets
//! as a wire would carry them. The device is made inside its namespace; its descriptor stays with us.
//! Emulated rates up to about 200 Mbit/s are honest; above, the router itself becomes the bottleneck.

mod config;
mod core;
mod device;
mod handle;
mod packet;
mod table;

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

pub use config::{PortConfig, TunConfig};
pub use handle::{PathCounters, PortCounters, RouterCounters, TunHandle};
pub use packet::PortDrop;
pub use table::Cidr;

use crate::SettingError;
use crate::capture::CaptureError;
use crate::limits::PACKET_BYTES_MAX;
use crate::netns::NetnsError;
use core::Shared;
use device::{Device, Stop};

/// Why a router could not start or do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// A wrong setting.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The namespace could not be entered, or its device not be configured.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The device could not be made.
    #[error(
        "failed to make TUN device {device} in network namespace {netns}: {source}; \
         it needs root, /dev/net/tun, and a name that is free there"
    )]
    Device {
        /// The device.
        device: String,
        /// Its namespace.
        netns: String,
        /// What the system said.
        source: io::Error,
    },
    /// A thread could not be made.
    #[error("failed to start the router's threads: {0}")]
    Thread(#[source] io::Error),
    /// The router has been dropped.
    #[error("the router has stopped; keep the TunRouter as long as its handles are used")]
    Stopped,
    /// The recording could not be made.
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

/// A running router, on threads of its own. Dropping it stops it and removes its devices.
///
/// It dereferences to its [`TunHandle`], which does the talking and can be cloned.
#[derive(Debug)]
pub struct TunRouter {
    handle: TunHandle,
    shared: Arc<Shared>,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

impl TunRouter {
    /// Makes the devices, configures them in their namespaces, and starts routing.
    pub fn start(config: TunConfig) -> Result<Self, TunError> {
        let config = config.parse()?;
        let mut devices = Vec::with_capacity(config.ports.len());
        for port in &config.ports {
            devices.push(Arc::new(Device::open(port)?));
        }
        let stop = Stop::new().map_err(TunError::Thread)?;
        let shared = Arc::new(Shared::new(config, devices.clone())?);
        let mut router = Self {
            handle: TunHandle::new(Arc::clone(&shared)),
            shared: Arc::clone(&shared),
            stop: stop.clone(),
            threads: Vec::with_capacity(devices.len() + 1),
        };
        for (index, device) in devices.into_iter().enumerate() {
            let (shared, stop) = (Arc::clone(&shared), stop.clone());
            router
                .spawn(&format!("wan-tun-{index}"), move || read(&shared, &device, index, &stop))?;
        }
        router.spawn("wan-tun-timer", move || shared.run_timer())?;
        Ok(router)
    }

    /// A handle that can be cloned and outlives the router (it then controls nothing).
    pub fn handle(&self) -> TunHandle {
        self.handle.clone()
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), TunError> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        self.threads.push(thread.map_err(TunError::Thread)?);
        Ok(())
    }
}

impl Deref for TunRouter {
    type Target = TunHandle;

    fn deref(&self) -> &TunHandle {
        &self.handle
    }
}

impl Drop for TunRouter {
    fn drop(&mut self) {
        self.shared.close();
        if let Err(error) = self.stop.trigger() {
            // Joining would wait for ever; the threads end with the process.
            tracing::error!(%error, "the router's threads could not be woken");
            return;
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the router panicked");
            }
        }
    }
}

/// Reads one port's packets until the router stops or the device goes away.
fn read(shared: &Shared, device: &Device, port: usize, stop: &Stop) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    while !shared.is_closed() {
        match device.wait_recv(&mut buffer, stop) {
            Ok(length) => shared.receive(port, device, &mut buffer, length),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(port = shared.site(port), %error, "the port's device has gone");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
