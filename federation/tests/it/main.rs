//! A federation node from outside: real sockets, real files, the real binary.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in its fixture too")]

mod bundles;
mod config;
mod enrol;
mod fixture;
mod fuzz;
mod kubernetes;
mod membership;
mod objects;
mod operator;
mod ports;
mod process;
mod replica;
mod rocksdb;
mod start;
mod store;
mod stream;
