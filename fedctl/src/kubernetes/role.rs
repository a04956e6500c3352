//! As whom to ask: a short-lived token of one of three ServiceAccounts. Who may create tokens for
//! one of them may operate in its role; there is no other list of people.

use std::fmt;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use model::code;

use super::{Access, Cluster};
use crate::error::CommandError;

/// The node refuses tokens that were made for anything else.
const AUDIENCE: &str = "fedgate-operator";
/// The least that Kubernetes grants, and longer than any command takes.
const LIFETIME_SECONDS: i64 = 600;

/// What an operator may do (docs/reference/operator-api.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Everything
    Admin,
    /// What changes this cluster's own objects
    Operator,
    /// Only reading
    Viewer,
}

impl Role {
    const ALL: [Self; 3] = [Self::Admin, Self::Operator, Self::Viewer];

    pub fn service_account(self) -> &'static str {
        match self {
            Self::Admin => "fedgate-admin",
            Self::Operator => "fedgate-operator",
            Self::Viewer => "fedgate-viewer",
        }
    }
}

/// A bearer token; kept in memory only, and shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// As gRPC metadata; also there it is marked as secret.
    pub fn authorization(&self) -> Option<tonic::metadata::AsciiMetadataValue> {
        let mut value: tonic::metadata::AsciiMetadataValue =
            format!("Bearer {}", self.0).parse().ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A token for the role that is wanted, else for the strongest that the caller may have.
pub async fn token(
    cluster: &Cluster,
    namespace: &str,
    wanted: Option<Role>,
) -> Result<(Role, Token), CommandError> {
    if let Some(role) = wanted {
        return Ok((role, request(cluster, namespace, role).await?));
    }
    let mut weakest = None;
    for role in Role::ALL {
        match request(cluster, namespace, role).await {
            Ok(token) => return Ok((role, token)),
            Err(error) if error.code == Some(code::API_SERVER_FORBIDDEN) => weakest = Some(error),
            Err(error) => return Err(error),
        }
    }
    let message = format!(
        "cluster {}: you may not operate Fedgate in {namespace}, not even look at it",
        cluster.name
    );
    let hint = weakest.and_then(|error| error.hint).unwrap_or_default();
    Err(CommandError::failed(message).code(code::API_SERVER_FORBIDDEN).hint(hint))
}

async fn request(cluster: &Cluster, namespace: &str, role: Role) -> Result<Token, CommandError> {
    let name = role.service_account();
    let access = Access {
        verb: "create",
        group: "",
        resource: "serviceaccounts/token",
        namespace: Some(namespace),
        name: Some(name),
    };
    let spec = TokenRequestSpec {
        audiences: vec![AUDIENCE.into()],
        expiration_seconds: Some(LIFETIME_SECONDS),
        ..TokenRequestSpec::default()
    };
    let body = TokenRequest { spec, ..TokenRequest::default() };
    let accounts = Api::<ServiceAccount>::namespaced(cluster.client.clone(), namespace);
    let parameters = PostParams::default();
    let made = accounts.create_token_request(name, &parameters, &body);
    let made = cluster.ask_optional(access, made).await?;
    let Some(made) = made else {
        let message = format!("there is no ServiceAccount {namespace}/{name}");
        return Err(CommandError::failed(message)
            .code(code::NOT_INSTALLED)
            .hint("the chart makes it: `rbac.create` and `operators` in its values; or name another --role"));
    };
    let token = made.status.map(|status| status.token).filter(|token| !token.is_empty());
    token.map(Token).ok_or_else(|| {
        CommandError::failed(format!("the API server made no token for {namespace}/{name}"))
            .code(code::API_SERVER_UNREACHABLE)
    })
}
