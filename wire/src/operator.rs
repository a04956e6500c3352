//! `fedgate.operator.v1`: what an operator asks a cluster's federation node, and the audit record of it.
//!
//! The answers are for showing, so they stay as generated; their parts that a gateway reported have
//! been through the strict conversions of [`crate::resource`] on the node.

pub mod audit;

pub use crate::grpc::fedgate::operator::v1 as proto;

/// Longest answer: a client decodes no more.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest request: a few manifests.
pub const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
