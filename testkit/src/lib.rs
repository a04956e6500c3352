//! What tests share: fleets in one process, sites of real processes, waiting on conditions.
//!
//! Only tests and benches depend on it.

pub mod process;
pub mod programs;
pub mod site;
pub mod wait;

pub use fedctl::demo::{Cluster, Fleet, FleetSpec};
pub use process::Process;
pub use site::{Site, SiteSpec};
