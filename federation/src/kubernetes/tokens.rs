//! Whose a bearer token is: the API server says so (TokenReview, authentication.k8s.io/v1). A token is
//! kept as a hash only, and is in no message.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewStatus};
use kube::core::Request;
use kube::core::params::PostParams;
use model::code::{KUBECONFIG_UNUSABLE, TOKEN_REVIEW_UNAVAILABLE};
use model::{Namespace, ObjectName};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::metadata::MetadataMap;

use crate::config::{FederationConfig, ServiceAccount};
use crate::limits::{
    TOKEN_BYTES_MAX, TOKEN_CACHE_TIME, TOKEN_REVIEW_TIMEOUT, TOKEN_REVIEWS_MAX, TOKENS_CACHED_MAX,
};

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// What the API server puts before a ServiceAccount's `namespace:name`.
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// Of a token that is bound to a pod (KEP-1205).
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

/// A bearer token. What is shown of it is nothing.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// Takes it from `authorization: Bearer ...` (RFC 6750 §2.1); the error says what to send.
    pub(crate) fn from_metadata(metadata: &MetadataMap) -> Result<Self, String> {
        let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let header = header.ok_or("no token came: send `authorization: Bearer TOKEN`")?;
        let token = match header.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err("the scheme of `authorization` is not Bearer".into()),
        };
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Err(format!(
                "the token has {} bytes: 1 to {TOKEN_BYTES_MAX} are read",
                token.len()
            ));
        }
        Ok(Self(token.into()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Whose a good token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub(crate) account: ServiceAccount,
    /// The pod that it is bound to, if it is bound to one.
    pub(crate) pod: Option<ObjectName>,
}

/// Why a token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Unavailable(String),
}

/// Asks the API server of the cluster.
pub(crate) struct TokenReviewer {
    client: kube::Client,
    places: Semaphore,
    cache: Mutex<BTreeMap<CacheKey, (Bearer, Instant)>>,
}

/// A token's hash, and for whom it is.
type CacheKey = ([u8; 32], &'static str);

impl TokenReviewer {
    /// `None` if no port needs one. Does not speak with the API server. `client` is used in place of
    /// the one that the pod or the kubeconfig describes.
    pub(crate) async fn open(
        config: &FederationConfig,
        client: Option<kube::Client>,
    ) -> anyhow::Result<Option<Arc<Self>>> {
        if !config.listen.reviews_tokens() {
            return Ok(None);
        }
        let client = match client {
            Some(client) => client,
            None => inferred().await.context(KUBECONFIG_UNUSABLE.to_string())?,
        };
        Ok(Some(Arc::new(Self::new(client))))
    }

    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client, places: Semaphore::new(TOKEN_REVIEWS_MAX), cache: Mutex::default() }
    }

    /// Asks anew.
    pub(crate) async fn review(
        &self,
        token: &Token,
        audience: &'static str,
    ) -> Result<Bearer, TokenError> {
        let asked = timeout(TOKEN_REVIEW_TIMEOUT, self.ask(token, audience)).await;
        asked.unwrap_or_else(|_| {
            Err(unavailable(format_args!("no answer within {TOKEN_REVIEW_TIMEOUT:?}")))
        })
    }

    /// Asks, unless the same was asked a moment ago. A token that was taken back is good for that
    /// moment.
    pub(crate) async fn review_cached(
        &self,
        token: &Token,
        audience: &'static str,
        now: Instant,
    ) -> Result<Bearer, TokenError> {
        let key = (Sha256::digest(token.0.as_bytes()).into(), audience);
        if let Some((bearer, at)) = self.cache().get(&key)
            && now.saturating_duration_since(*at) < TOKEN_CACHE_TIME
        {
            return Ok(bearer.clone());
        }
        let bearer = self.review(token, audience).await?;
        let mut cache = self.cache();
        cache.retain(|_, (_, at)| now.saturating_duration_since(*at) < TOKEN_CACHE_TIME);
        if cache.len() < TOKENS_CACHED_MAX {
            cache.insert(key, (bearer.clone(), now));
        }
        Ok(bearer)
    }

    async fn ask(&self, token: &Token, audience: &'static str) -> Result<Bearer, TokenError> {
        let _place = self.places.acquire().await.map_err(unavailable)?;
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token.0, "audiences": [audience] },
        });
        let body = serde_json::to_vec(&review).map_err(unavailable)?;
        let request = Request::new(PATH).create(&PostParams::default(), body);
        // As text: kube logs an answer that it cannot read, and the token is in it.
        let answer = self.client.request_text(request.map_err(unavailable)?).await;
        let answer = answer.map_err(|error| unavailable(explained(&error)))?;
        let review: TokenReview = serde_json::from_str(&answer)
            .map_err(|_| unavailable("the API server's answer is no TokenReview"))?;
        judge(review.status.unwrap_or_default(), audience)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, BTreeMap<CacheKey, (Bearer, Instant)>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn inferred() -> anyhow::Result<kube::Client> {
    let config = kube::Config::infer().await.context(
        "`listen` has ports where tokens are reviewed, but this process runs in no pod with a \
         service account's token, and no kubeconfig was found; set KUBECONFIG",
    )?;
    Ok(kube::Client::try_from(config)?)
}

/// What an answer proves. An API server that does not know of audiences names none; its word is not
/// enough, since the token may be anybody's for anything.
fn judge(status: TokenReviewStatus, audience: &str) -> Result<Bearer, TokenError> {
    let refused = |text: String| Err(TokenError::Refused(text));
    if status.authenticated != Some(true) {
        let why = status.error.filter(|error| !error.is_empty());
        let why = why.unwrap_or_else(|| "it says no more".into());
        return refused(format!("the API server refuses the token: {why}"));
    }
    if !status.audiences.iter().flatten().any(|named| named == audience) {
        return refused(format!("the token is not for the audience {audience:?}"));
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let Some(account) = name.strip_prefix(ACCOUNT_PREFIX).and_then(account) else {
        return refused(format!("the token is {name:?}'s, who is no ServiceAccount"));
    };
    let pods = user.extra.as_ref().and_then(|extra| extra.get(POD_NAME));
    let pod = pods.and_then(|pods| pods.first()).map(|pod| ObjectName::parse(pod));
    match pod.transpose() {
        Ok(pod) => Ok(Bearer { account, pod }),
        Err(error) => refused(format!("the token's pod: {error}")),
    }
}

fn account(text: &str) -> Option<ServiceAccount> {
    let (namespace, name) = text.split_once(':')?;
    let (namespace, name) = (Namespace::parse(namespace).ok()?, ObjectName::parse(name).ok()?);
    Some(ServiceAccount { namespace, name })
}

fn unavailable(problem: impl fmt::Display) -> TokenError {
    TokenError::Unavailable(format!("the token could not be reviewed: {problem}"))
}

/// The API server's own words, or the innermost cause.
fn explained(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    format!("{TOKEN_REVIEW_UNAVAILABLE}: {cause}")
}

impl fmt::Debug for TokenReviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReviewer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
