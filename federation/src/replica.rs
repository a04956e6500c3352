//! Reading the federation's state from other members, and serving it on: the watch stream with its
//! two ends, how fresh each owner's word is, and what gives a lying source away.
//!
//! [`Replica`] is the state of a node that is not in Raft. [`WatchServer`] serves a node's state,
//! whichever way it came. [`Observer`] knows of every owner's Heads, in voters and Replicas alike.

mod client;
mod compare;
mod feed;
mod freshness;
mod gossip;
mod heads;
pub mod limits;
mod notebook;
mod observer;
mod pick;
mod report;
mod server;
mod shelf;
mod state;
mod verify;

pub use client::{Links, TransportLinks};
pub use compare::SeenHead;
pub use feed::{Feed, Standpoint};
pub use freshness::{FreshnessConfig, Issue, OwnerAge, Standing};
pub use observer::{Now, Observer, Told};
pub use report::{MemberReport, OwnerReport, VerifyReport};
pub use server::{WatchServer, WatchStream};
pub use shelf::ShelfError;
pub use state::{Replica, ReplicaConfig};
pub use verify::verify_all;
