//! The federation node of a cluster: it watches the cluster's objects, serves them to gateways as a
//! stream of deltas, issues their SVIDs, and answers operators.
//!
//! [`app::build`] is the whole wiring, top to bottom. The flow of one change is: `discovery` sees
//! it -> [`intake`] takes it up -> [`revisions`] makes a revision of it -> [`stream`] sends each
//! gateway the difference to what that gateway has.

mod alarms;
pub mod app;
mod applied;
mod audit;
mod bundles;
pub mod config;
mod cordon;
mod denied;
mod enrol;
mod epoch;
pub mod fleet;
mod folder;
mod gateways;
pub mod health;
mod intake;
mod judge;
mod kubernetes;
pub mod limits;
pub mod membership;
mod operator;
mod peer;
mod port;
mod refusal;
pub mod replica;
mod revisions;
mod room;
mod rotation;
mod socket;
pub mod store;
mod stream;
mod svid;
pub mod transport;

pub use judge::judge;
