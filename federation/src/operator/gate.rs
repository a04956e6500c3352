//! What stands before every procedure: the caller's role, by its Unix user or its token, against the
//! table.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use model::code::{OPERATOR_REFUSED, TOKEN_REVIEW_UNAVAILABLE};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::transport::server::UdsConnectInfo;

use super::roles::{OperatorUsers, Role, User, role_for};
use crate::audit::{Actor, Audit};
use crate::kubernetes::{Token, TokenError, TokenReviewer};
use crate::port::PortInfo;
use crate::refusal::refuse;

/// Whom an operator's token is for.
pub(crate) const AUDIENCE: &str = "fedgate-operator";
/// Log lines of this target are the record of who was refused.
const AUDIT: &str = "fedgate::audit";

/// A caller that was let in; it travels with the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) user: User,
    pub(crate) role: Role,
}

impl Caller {
    pub(crate) fn actor(&self) -> Actor {
        Actor { user: self.user.clone(), role: self.role.as_str() }
    }
}

/// A service behind the role table. It judges by the path of the call, so that no procedure can
/// forget to.
#[derive(Debug, Clone)]
pub(crate) struct Gate<S> {
    inner: S,
    judge: Judge,
}

impl<S> Gate<S> {
    /// `reviewer`: of tokens, at the port; the socket needs none.
    pub(crate) fn new(
        inner: S,
        users: Arc<OperatorUsers>,
        audit: Arc<Audit>,
        reviewer: Option<Arc<TokenReviewer>>,
    ) -> Self {
        Self { inner, judge: Judge { users, audit, reviewer } }
    }
}

#[derive(Debug, Clone)]
struct Judge {
    users: Arc<OperatorUsers>,
    audit: Arc<Audit>,
    reviewer: Option<Arc<TokenReviewer>>,
}

/// What a caller shows, taken from its request.
enum Shown {
    Unix(Option<u32>),
    Port(PortInfo, Result<Token, String>),
}

impl Shown {
    fn of(request: &Request<Body>) -> Self {
        match request.extensions().get::<PortInfo>() {
            Some(port) => {
                let headers = MetadataMap::from_headers(request.headers().clone());
                Self::Port(port.clone(), Token::from_metadata(&headers))
            }
            None => {
                let info = request.extensions().get::<UdsConnectInfo>();
                let credentials = info.and_then(|info| info.peer_cred);
                Self::Unix(credentials.map(|credentials| credentials.uid()))
            }
        }
    }
}

impl Judge {
    async fn admit(&self, shown: Shown, procedure: &str) -> Result<Caller, Status> {
        match shown {
            Shown::Unix(Some(uid)) => self.judge(User::Unix(uid), procedure),
            Shown::Unix(None) => Err(denied("the kernel does not say which user calls".into())),
            Shown::Port(port, token) => {
                let admitted = self.by_token(&port, token, procedure).await;
                admitted.inspect_err(|status| {
                    let remote = port.remote;
                    tracing::warn!(target: AUDIT, %remote, procedure, %status, "operator refused");
                })
            }
        }
    }

    async fn by_token(
        &self,
        port: &PortInfo,
        token: Result<Token, String>,
        procedure: &str,
    ) -> Result<Caller, Status> {
        let unknown = |text| refuse(tonic::Code::Unauthenticated, OPERATOR_REFUSED, text);
        let token = token.map_err(unknown)?;
        let Some(reviewer) = &self.reviewer else { return Err(unknown("no token counts".into())) };
        let bearer = reviewer.review_cached(&token, AUDIENCE, Instant::now()).await;
        let bearer = bearer.map_err(|error| match error {
            TokenError::Refused(text) => unknown(text),
            TokenError::Unavailable(text) => {
                refuse(tonic::Code::Unavailable, TOKEN_REVIEW_UNAVAILABLE, text)
            }
        })?;
        let user = User::Account(bearer.account);
        if self.users.role_of(&user).is_some() {
            port.admit();
        }
        self.judge(user, procedure)
    }

    fn judge(&self, user: User, procedure: &str) -> Result<Caller, Status> {
        let Some(role) = self.users.role_of(&user) else {
            return Err(denied(match user {
                User::Unix(uid) => format!(
                    "Unix user {uid} may not call here; run fedctl as the federation node's user \
                     or as root, or list the user under `operators` of the node's configuration"
                ),
                User::Account(account) => format!(
                    "ServiceAccount {account} may not call here; list it under \
                     `operators.serviceAccounts` of the node's configuration"
                ),
            }));
        };
        let Some(needed) = role_for(procedure) else {
            return Err(Status::unimplemented(format!("there is no procedure {procedure}")));
        };
        let caller = Caller { user, role };
        if role < needed {
            let text = too_low(&caller, procedure, needed);
            self.audit.denied(caller.actor(), procedure, text.clone(), SystemTime::now());
            return Err(denied(text));
        }
        Ok(caller)
    }
}

/// What a caller is told whose role is too low.
pub(super) fn too_low(caller: &Caller, what: &str, needed: Role) -> String {
    let Caller { user, role } = caller;
    let list = match user {
        User::Unix(_) => "operators",
        User::Account(_) => "operators.serviceAccounts",
    };
    format!(
        "{what} needs the role {needed}, and {user} has the role {role}; list it under \
         `{list}.{needed}s` of the node's configuration, or ask somebody who has that role"
    )
}

pub(super) fn denied(text: String) -> Status {
    refuse(tonic::Code::PermissionDenied, OPERATOR_REFUSED, text)
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (shown, judge) = (Shown::of(&request), self.judge.clone());
        // The one that was polled ready is called, as tower wants it.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let path = request.uri().path().to_string();
            let procedure = path.rsplit('/').next().unwrap_or_default();
            match judge.admit(shown, procedure).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

#[cfg(test)]
mod tests {
    use futures_util::future::{Ready, ready};
    use tokio::net::UnixStream;

    use super::*;
    use crate::config::OperatorUids;
    use crate::operator::roles::PROCEDURES;

    /// Answers with the caller that the gate let in.
    #[derive(Clone)]
    struct Echo;

    impl Service<Request<Body>> for Echo {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let caller = request.extensions().get::<Caller>().unwrap();
            let response = Response::builder().header("role", caller.role.as_str());
            ready(Ok(response.body(Body::empty()).unwrap()))
        }
    }

    struct Bench {
        folder: tempfile::TempDir,
        audit: Arc<Audit>,
        own: u32,
        info: UdsConnectInfo,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let audit = Arc::new(Audit::open(folder.path(), SystemTime::now()).unwrap());
            let (one, _other) = UnixStream::pair().unwrap();
            let peer_cred = Some(one.peer_cred().unwrap());
            let own = one.peer_cred().unwrap().uid();
            Self { folder, audit, own, info: UdsConnectInfo { peer_addr: None, peer_cred } }
        }

        /// What this process's user is told when it has the role.
        async fn call(&self, role: Option<Role>, procedure: &str) -> Result<String, Status> {
            let mut listed = OperatorUids::default();
            match role {
                Some(Role::Admin) => drop(listed.admins.insert(self.own)),
                Some(Role::Operator) => drop(listed.operators.insert(self.own)),
                Some(Role::Viewer) => drop(listed.viewers.insert(self.own)),
                None => {}
            }
            // Root is always an owner, so tests that run as root need an owner that is another user.
            let users = OperatorUsers::with_owner(self.own + 1, listed);
            let mut gate = Gate::new(Echo, Arc::new(users), self.audit.clone(), None);
            let uri =
                format!("http://node.invalid/fedgate.operator.v1.OperatorService/{procedure}");
            let mut request = Request::builder().uri(uri).body(Body::empty()).unwrap();
            request.extensions_mut().insert(self.info.clone());
            let response = gate.call(request).await.unwrap();
            match Status::from_header_map(response.headers()) {
                Some(status) => Err(status),
                None => Ok(response.headers()["role"].to_str().unwrap().to_string()),
            }
        }
    }

    #[tokio::test]
    async fn each_role_may_call_what_the_table_says_and_nothing_else() {
        let bench = Bench::new();
        let mut refused = 0;
        for (procedure, needed) in PROCEDURES {
            for role in [Role::Viewer, Role::Operator, Role::Admin] {
                let answer = bench.call(Some(role), procedure).await;
                if role >= *needed {
                    assert_eq!(answer.unwrap(), role.as_str(), "{procedure}");
                    continue;
                }
                refused += 1;
                let status = answer.unwrap_err();
                assert_eq!(status.code(), tonic::Code::PermissionDenied);
                let wanted = format!("FED1005: {procedure} needs the role {needed}, and Unix user");
                assert!(status.message().starts_with(&wanted), "{status}");
                assert_eq!(status.metadata().get("x-fed-code").unwrap(), "FED1005");
            }
            let status = bench.call(None, procedure).await.unwrap_err();
            assert!(status.message().contains("may not call here"), "{status}");
        }
        let audited = bench.audit.list(1000);
        assert_eq!(audited.len(), refused, "known users' refusals are in the record");
        assert!(audited.iter().all(|call| call.outcome == "denied"));
        assert!(bench.folder.path().join("audit.log").exists());
    }

    #[tokio::test]
    async fn what_is_in_no_table_is_refused_to_everybody() {
        let bench = Bench::new();
        let status = bench.call(Some(Role::Admin), "DropEverything").await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unimplemented);
    }
}
