//! What Fedgate processes say to each other: formats, their limits, and strict conversions to the
//! nouns of `model`. No sockets and no clock: bytes in, values out.

pub mod bundle;
mod error;
pub mod grpc;
pub mod operator;
pub mod relay;
pub mod replica;
pub mod resource;
pub mod store;
pub mod tunnel;

pub use error::WireError;
