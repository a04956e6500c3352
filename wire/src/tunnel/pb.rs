//! The code generated from `proto/tunnel.proto`. It stays within this module: what others see are
//! the strict types around it.
#![expect(unreachable_pub, reason = "generated code makes everything public")]

tonic::include_proto!("fedgate.tunnel.v1");
