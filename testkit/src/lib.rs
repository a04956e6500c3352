//! What tests share: fleets in one process, sites of real processes, waiting on conditions.
//!
//! Only tests and benches depend on it.

pub mod access_log;
pub mod client;
pub mod origin;
pub mod pattern;
pub mod process;
pub mod programs;
pub mod prometheus;
pub mod site;
pub mod store;
pub mod tcp_origin;
pub mod wait;

pub use client::{Answer, Client};
pub use fedctl::demo::{Cluster, Fleet, FleetSpec, Introduction};
pub use origin::{Origin, Speaks};
pub use process::Process;
pub use site::{Site, SiteSpec};
pub use tcp_origin::TcpOrigin;
