//! A WAN in a box: packets pass through us and are delayed, lost, reordered, duplicated, corrupted,
//! slowed down, cut or recorded on their way.
//!
//! The decisions live in [`impair`], which is pure: no socket, no clock, no randomness of its own.
//! [`relay`] carries UDP datagrams over loopback through it, for the demo and for tests in one process.

pub mod capture;
mod cuts;
mod error;
pub mod impair;
pub mod limits;
pub mod relay;

pub use error::SettingError;
pub use impair::{Counters, DropReason, GilbertElliott, Impairment, Loss, Rate};
pub use relay::{Direction, LinkConfig, RelayConfig, RelayError, RelayHandle, UdpRelay};
