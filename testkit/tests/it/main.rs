//! Whole fleets: the demo as a user runs it, and real processes in network namespaces.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in its fixture too")]

mod canary;
mod demo;
mod faults;
mod fleet;
mod guide;
mod herd;
mod linearizable;
mod namespaces;
mod outside;
mod three_machines;
mod why;
