//! What `identity` promises, proved with real certificates and real handshakes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod bundles;
mod ca;
mod certificates;
mod cluster;
mod endpoint;
mod handshakes;
mod issuing;
mod joining;
mod property;
mod roots;
mod rotation;
mod signatures;
mod store;
mod toy;
