//! What stands before every procedure: the caller's role, by its Unix user, against the table.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures_util::future::{Either, Ready, ready};
use model::code::OPERATOR_REFUSED;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::transport::server::UdsConnectInfo;

use super::roles::{OperatorUsers, Role, role_for};
use crate::audit::{Actor, Audit};
use crate::refusal::refuse;

/// A caller that was let in; it travels with the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) role: Role,
}

impl Caller {
    pub(crate) fn actor(self) -> Actor {
        Actor { uid: self.uid, role: self.role.as_str() }
    }
}

/// A service behind the role table. It judges by the path of the call, so that no procedure can
/// forget to.
#[derive(Debug, Clone)]
pub(crate) struct Gate<S> {
    inner: S,
    users: Arc<OperatorUsers>,
    audit: Arc<Audit>,
}

impl<S> Gate<S> {
    pub(crate) fn new(inner: S, users: Arc<OperatorUsers>, audit: Arc<Audit>) -> Self {
        Self { inner, users, audit }
    }

    fn admit(&self, request: &Request<Body>) -> Result<Caller, Status> {
        let procedure = request.uri().path().rsplit('/').next().unwrap_or_default();
        let info = request.extensions().get::<UdsConnectInfo>();
        let Some(credentials) = info.and_then(|info| info.peer_cred) else {
            return Err(denied("the kernel does not say which user calls".into()));
        };
        let uid = credentials.uid();
        let Some(role) = self.users.role_of(uid) else {
            return Err(denied(format!(
                "Unix user {uid} may not call here; run fedctl as the federation node's user or as \
                 root, or list the user under `operators` of the node's configuration"
            )));
        };
        let Some(needed) = role_for(procedure) else {
            return Err(Status::unimplemented(format!("there is no procedure {procedure}")));
        };
        let caller = Caller { uid, role };
        if role < needed {
            let text = too_low(caller, procedure, needed);
            self.audit.denied(caller.actor(), procedure, text.clone(), SystemTime::now());
            return Err(denied(text));
        }
        Ok(caller)
    }
}

/// What a caller is told whose role is too low.
pub(super) fn too_low(caller: Caller, what: &str, needed: Role) -> String {
    let Caller { uid, role } = caller;
    format!(
        "{what} needs the role {needed}, and Unix user {uid} has the role {role}; list it under \
         `operators.{needed}s` of the node's configuration, or ask somebody who has that role"
    )
}

pub(super) fn denied(text: String) -> Status {
    refuse(tonic::Code::PermissionDenied, OPERATOR_REFUSED, text)
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<Body>, Infallible>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.admit(&request) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Either::Right(self.inner.call(request))
            }
            Err(status) => Either::Left(ready(Ok(status.into_http()))),
        }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

#[cfg(test)]
mod tests {
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
            let mut gate = Gate::new(Echo, Arc::new(users), self.audit.clone());
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
