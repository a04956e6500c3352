//! `fedgate.resource.v1`: resources from a federation node to its gateways, reports back, enrolment.
//!
//! Every message has a plain type here, made of `model`'s nouns, and a strict conversion from the
//! generated one. A value that is refused is named with its message, field and value. Objects of a
//! kind or schema version that this build does not know are skipped and counted, because a newer
//! node may send them; everything else that is unexpected is an error.

pub(crate) mod convert;
mod delta;
mod diagnostic;
mod enrol;
pub mod limits;
mod news;
mod object;
mod object_encode;
mod ping;
mod report;
mod report_encode;

pub use crate::error::WireError;
pub use crate::grpc::fedgate::resource::v1 as proto;
pub use delta::{Ack, Delta, DeltaError, Subscribe, decode_key, encode_key};
pub use diagnostic::{decode_diagnostic, encode_diagnostic};
pub use enrol::{EnrolRequest, EnrolResponse};
pub use news::{HeardFromPeer, RenewSvids, ServingGateways, StoreNews};
pub(crate) use object::peer_address as decode_peer_address;
pub use object::{SCHEMA_VERSION, decode_resource};
pub(crate) use object_encode::peer_address as encode_peer_address;
pub use object_encode::{encode_bundle, encode_resource, encode_service_port};
pub use ping::{PathMtu, PingAnswer, PingRequest, PingedLink, RoundTrips};
pub use report::{
    ClusterExchanges, ClusterHealth, Counter, Link, LinkClass, LinkError, LinkState, Listener,
    ServiceHealth, StatusReport,
};

#[cfg(test)]
mod tests;
