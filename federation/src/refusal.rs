//! What a caller on one of the sockets is told when its call is refused.

use model::code::Code;
use tonic::Status;
use tonic::metadata::MetadataValue;

/// The header of an answer that carries the failure's registered code.
pub(crate) const CODE_HEADER: &str = "x-fed-code";

/// A gRPC status whose text begins with the registered code.
pub(crate) fn refuse(grpc: tonic::Code, code: Code, text: impl std::fmt::Display) -> Status {
    let mut status = Status::new(grpc, format!("{code}: {text}"));
    let value = MetadataValue::try_from(code.to_string());
    let value = value.expect("a code is letters and digits");
    status.metadata_mut().insert(CODE_HEADER, value);
    status
}
