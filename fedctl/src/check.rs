//! Checks, row by row: whether a cluster can take Fedgate, and whether what is there works. Each row
//! is a pure verdict on what was read.

mod around;
mod installed;
mod machine;
mod node;
mod pre;
mod report;
mod rights;

pub use around::Around;
pub use installed::{InCluster, installed_rows, read_in_cluster};
pub use machine::{Machine, machine_rows, read_machine};
pub use node::{FromNode, node_rows, read_from_node};
pub use pre::pre_rows;
pub use report::{Report, Row, Verdict};
pub use rights::{Missing, Rights, read_rights};
