//! A WAN in a box: packets pass through us and are delayed, lost, reordered, duplicated, corrupted,
//! slowed down, cut or recorded on their way.
//!
//! The decisions live in [`impair`], which is pure: no socket, no clock, no randomness of its own.
//! [`relay`] carries UDP datagrams over loopback through it, for the demo and for tests in one process;
//! [`FlowSpread`] is a load balancer of UDP flows, for tests;
//! [`tun`] carries whole IP packets between network namespaces, for tests with real processes.

pub mod capture;
mod error;
pub mod impair;
pub mod limits;
pub mod netns;
pub mod relay;
mod sites;
mod spread;
mod timer;
pub mod tun;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use error::SettingError;
pub use impair::{Counters, DropReason, GilbertElliott, Impairment, Loss, Rate};
pub use relay::{Direction, LinkConfig, RelayConfig, RelayError, RelayHandle, UdpRelay};
pub use spread::FlowSpread;
pub use tun::{PortConfig, TunConfig, TunError, TunHandle, TunRouter};

/// Locks. A panic elsewhere must not take the network down with it, and every update of ours is complete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
