//! `fedctl`, the operator's command line, and the demo: a federation in one process.

pub mod cli;
pub mod commands;
pub mod context;
pub mod demo;
pub mod error;
#[cfg(test)]
mod golden;
pub mod operator;
pub mod printer;
pub mod view;
