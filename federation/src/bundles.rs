//! SPIFFE federation by bundle endpoints (SPIFFE Federation §4 and §5): this cluster's bundle is served
//! to whoever asks, other trust domains' bundles are polled and kept.
//!
//! The flow of one poll is: [`poll`] waits for its time -> `fetch` knows the endpoint and reads its
//! document -> [`Kept`] compares its sequence, puts it on disk and into force -> the intake gives it to
//! this cluster's own ClusterPeers ([`Polled::renew`]). Whatever fails, the last good bundle stays.

mod fetch;
mod keep;
mod poll;
mod serve;

pub(crate) use keep::{Kept, Polled};
pub(crate) use poll::poll;
pub(crate) use serve::Endpoint;

#[cfg(test)]
mod tests;
