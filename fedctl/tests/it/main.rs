//! The real `fedctl` against a real node's socket: what it prints, where, and how it exits.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in its fixture too")]

mod analyze;
mod api_server;
mod bug_report;
mod changes;
mod federation;
mod fixture;
mod gateway;
mod kubernetes;
mod ping;
mod watch;
mod why;
