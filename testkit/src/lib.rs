//! What tests share: fleets in one process, sites of real processes, waiting on conditions.
//!
//! Only tests and benches depend on it.

pub mod access_log;
pub mod client;
pub mod disk;
pub mod greeter;
pub mod haproxy;
pub mod origin;
pub mod outside;
pub mod pattern;
pub mod process;
pub mod programs;
pub mod prometheus;
pub mod rss;
pub mod scenes;
pub mod site;
pub mod sites;
pub mod store;
pub mod tcp_origin;
pub mod wait;
pub mod writes;

pub use client::{Answer, Client};
pub use fedctl::demo::{Cluster, Fleet, FleetSpec, Introduction};
pub use origin::{Origin, Speaks};
pub use process::Process;
pub use site::{Site, SiteSpec};
pub use sites::Sites;
pub use tcp_origin::TcpOrigin;
