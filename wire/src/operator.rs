//! `fedgate.operator.v1`: what an operator asks a cluster's federation node.
//!
//! The answers are for showing, so they stay as generated; their parts that a gateway reported have
//! been through the strict conversions of [`crate::resource`] on the node.

pub use crate::grpc::fedgate::operator::v1 as proto;

/// Longest answer: a client decodes no more.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest request: they are all empty in this version.
pub const REQUEST_BYTES_MAX: usize = 4 * 1024;
