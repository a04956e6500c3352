//! Suites that run on three real Kubernetes clusters. `scripts/` makes the clusters and the images;
//! this crate drives them through the command lines that operators use: kubectl, helm and fedctl.

pub mod cluster;
pub mod command;
pub mod debian;
pub mod limits;
pub mod machine;
pub mod report;
pub mod run;
pub mod runner;
pub mod suites;
