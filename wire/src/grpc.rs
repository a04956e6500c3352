//! Generated messages, clients and servers of the services that federation nodes serve.
//!
//! The modules are nested as the packages are, because generated code refers to its neighbours so.

#![expect(
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

/// What both sides name in the TLS handshake (RFC 9113 §3.3).
pub const ALPN: &[u8] = b"h2";

#[rustfmt::skip]
pub mod fedgate {
    pub mod resource {
        pub mod v1 {
            tonic::include_proto!("fedgate.resource.v1");
        }
    }

    pub mod relay {
        pub mod v1 {
            tonic::include_proto!("fedgate.relay.v1");
        }
    }

    pub mod store {
        pub mod v1 {
            tonic::include_proto!("fedgate.store.v1");
        }
    }

    pub mod replica {
        pub mod v1 {
            tonic::include_proto!("fedgate.replica.v1");
        }
    }

    pub mod join {
        pub mod v1 {
            tonic::include_proto!("fedgate.join.v1");
        }
    }

    pub mod operator {
        pub mod v1 {
            tonic::include_proto!("fedgate.operator.v1");
        }
    }
}
