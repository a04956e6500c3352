//! Who may enrol from another pod.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use model::code::{ENROLMENT_REFUSED, TOKEN_REVIEW_UNAVAILABLE};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::config::ServiceAccount;
use crate::kubernetes::{Bearer, Token, TokenError, TokenReviewer};
use crate::peer::Caller;
use crate::port::PortInfo;
use crate::refusal::refuse;

/// Whom a gateway's token is for.
pub(crate) const AUDIENCE: &str = "fedgate";

/// Pods of listed ServiceAccounts. The name is the pod's own, so that no two of them have the same
/// one, and none can take another's.
#[derive(Debug)]
pub(crate) struct PodEnrolment {
    pub(crate) accounts: BTreeSet<ServiceAccount>,
    pub(crate) reviewer: Arc<TokenReviewer>,
}

impl PodEnrolment {
    /// A token decides. If nobody can say whose it is, a gateway that has an SVID may renew it, so
    /// that an API server that is away for a day takes no cluster's traffic along. An SVID alone is
    /// not enough: whoever stole its key could renew it for ever.
    pub(super) async fn admit(
        &self,
        port: &PortInfo,
        metadata: &MetadataMap,
        now: SystemTime,
    ) -> Result<Caller, Status> {
        let token = Token::from_metadata(metadata).map_err(unknown)?;
        let gateway = match self.reviewer.review(&token, AUDIENCE).await {
            Ok(Bearer { account, pod }) => {
                if !self.accounts.contains(&account) {
                    return Err(denied(format!(
                        "ServiceAccount {account} may not enrol gateways; list it under \
                         `enrolment.serviceAccounts` of the federation node's configuration"
                    )));
                }
                pod.ok_or_else(|| {
                    denied("the token is bound to no pod; use a projected volume's".into())
                })?
            }
            Err(TokenError::Refused(text)) => return Err(unknown(text)),
            Err(TokenError::Unavailable(text)) => {
                let lives = port.peer.as_ref().is_some_and(|peer| now <= peer.not_after);
                let renewing = port.gateway().filter(|_| lives);
                let gateway = renewing.ok_or_else(|| {
                    refuse(tonic::Code::Unavailable, TOKEN_REVIEW_UNAVAILABLE, &text)
                })?;
                tracing::warn!(%gateway, problem = text, "an SVID is renewed without a token");
                gateway
            }
        };
        port.admit();
        Ok(Caller::Pod { gateway, remote: port.remote })
    }
}

fn unknown(text: String) -> Status {
    refuse(tonic::Code::Unauthenticated, ENROLMENT_REFUSED, text)
}

fn denied(text: String) -> Status {
    refuse(tonic::Code::PermissionDenied, ENROLMENT_REFUSED, text)
}
