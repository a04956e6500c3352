//! The data plane of one cluster: it takes requests and connections from applications and clients,
//! and carries them to endpoints of its own cluster or through the tunnel to a peer's gateway.
//!
//! To follow one request: [`worker`] accepts, [`http`]`::handle_request` is the way from top to
//! bottom, [`attempts`] and [`balance`] say where it goes, `http/local.rs` and `http/remote.rs`
//! carry it there, [`peer`] is the other side of the tunnel, [`upstream`] has the connections to
//! endpoints, and [`access_log`] writes it down. TCP goes by [`tcp`] and [`splice`]. [`app`] starts
//! everything; [`control`] is the one writer of what the workers read.

pub mod access_log;
pub mod admin;
pub mod app;
pub mod attempts;
pub mod backoff;
pub mod balance;
pub mod body;
pub mod budget;
pub mod config;
pub mod control;
pub mod drain;
pub mod enrol;
pub mod error;
pub mod federation;
mod files;
mod folder_lock;
pub mod http;
mod json;
mod life;
pub mod limits;
pub mod listeners;
pub mod metrics;
pub mod peer;
mod ping;
pub mod relay;
pub mod report;
pub mod respond;
pub mod sent;
pub mod snapshot_file;
pub mod splice;
pub mod state;
pub mod subscribe;
pub mod tcp;
pub mod upstream;
pub mod worker;

pub use admin::LogLevel;
