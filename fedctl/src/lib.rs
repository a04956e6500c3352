//! `fedctl`, the operator's command line, and the demo: a federation in one process.

mod admin_port;
pub mod analysis;
pub mod bug_report;
pub mod check;
pub mod cli;
pub mod commands;
pub mod connect;
pub mod context;
pub mod demo;
pub mod error;
#[cfg(test)]
mod golden;
pub mod install;
pub mod kubernetes;
pub mod netcheck;
pub mod operator;
pub mod printer;
pub mod survey;
pub mod view;
pub mod why;
