//! Enrolment: a certificate signing request for an SVID.

use model::{ClusterId, ObjectName, TrustBundle};

use super::convert::{cluster_id, list, parse};
use super::object::{bundle, certificate};
use super::object_encode::encode_bundle;
use super::{limits, proto};
use crate::error::{At, WireError};

/// Asks for the SVID `spiffe://<trust domain>/fedgate/gateway/<gateway>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolRequest {
    pub gateway: ObjectName,
    /// PKCS#10. What is in it is for the CA to judge.
    pub csr_der: Vec<u8>,
}

impl EnrolRequest {
    pub fn decode(message: proto::EnrolRequest) -> Result<Self, WireError> {
        let at = At::message("EnrolRequest");
        let gateway = parse(at.field("gateway"), &message.gateway, ObjectName::parse)?;
        let csr = at.field("csr_der");
        csr.check_bytes(message.csr_der.len(), limits::CSR_BYTES_MAX)?;
        if message.csr_der.is_empty() {
            return Err(csr.missing("send a PKCS#10 certificate signing request, DER"));
        }
        Ok(Self { gateway, csr_der: message.csr_der })
    }

    pub fn encode(&self) -> proto::EnrolRequest {
        let csr_der = self.csr_der.clone();
        proto::EnrolRequest { gateway: self.gateway.to_string(), csr_der }
    }
}

/// The issued SVID and what to verify others of the cluster with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolResponse {
    /// DER, leaf first, never empty.
    pub chain_der: Vec<Vec<u8>>,
    pub bundle: TrustBundle,
    /// The cluster's own.
    pub cluster_id: ClusterId,
}

impl EnrolResponse {
    pub fn decode(message: proto::EnrolResponse) -> Result<Self, WireError> {
        let at = At::message("EnrolResponse");
        let max = limits::CERTIFICATES_MAX;
        let chain_der = list(&at, "chain_der", message.chain_der, max, certificate)?;
        if chain_der.is_empty() {
            return Err(at.field("chain_der").missing("a chain begins with the leaf certificate"));
        }
        let missing = || at.field("bundle").missing("the cluster's own trust bundle is needed");
        let sent = message.bundle.ok_or_else(missing)?;
        let cluster_id = cluster_id(at.field("cluster_id"), &message.cluster_id)?;
        Ok(Self { chain_der, bundle: bundle(at.field("bundle"), sent)?, cluster_id })
    }

    pub fn encode(&self) -> proto::EnrolResponse {
        let bundle = Some(encode_bundle(&self.bundle));
        let cluster_id = self.cluster_id.as_bytes().to_vec();
        proto::EnrolResponse { chain_der: self.chain_der.clone(), bundle, cluster_id }
    }
}
