//! Who is at the other end of a Unix socket or of a port, and whether it may call.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use model::ObjectName;
use model::code::Code;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

use crate::refusal::refuse;

/// Who calls for a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A process on this host, as the kernel vouches for it. It says itself which gateway it is.
    Process {
        uid: u32,
        /// `None` when it is in a PID namespace that is not visible from here.
        pid: Option<i32>,
    },
    /// The gateway of this name, in another pod, as its SVID or the API server vouches for it.
    Pod { gateway: ObjectName, remote: SocketAddr },
}

impl Caller {
    /// Whether both are known to be different processes. Two pods of one name are not: the older one
    /// is gone, or has lost its node, once there is a younger one.
    pub(crate) fn is_other_process(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Process { pid: Some(a), .. }, Self::Process { pid: Some(b), .. }) => a != b,
            (Self::Process { .. }, Self::Process { .. }) => false,
            (Self::Pod { gateway: a, .. }, Self::Pod { gateway: b, .. }) => a != b,
            _ => true,
        }
    }

    /// Whether it may speak for the gateway of this name.
    pub(crate) fn may_be(&self, name: &ObjectName) -> bool {
        match self {
            Self::Process { .. } => true,
            Self::Pod { gateway, .. } => gateway == name,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid: Some(pid), .. } => write!(f, "pid {pid}"),
            Self::Process { pid: None, .. } => f.write_str("its number is not visible"),
            Self::Pod { remote, .. } => write!(f, "in a pod, from {remote}"),
        }
    }
}

/// The Unix users that may call on a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AllowedUsers {
    uids: BTreeSet<u32>,
    /// Of a refusal.
    code: Code,
    /// What to do when a user is missing.
    fix: &'static str,
}

impl AllowedUsers {
    pub(crate) fn new(uids: BTreeSet<u32>, code: Code, fix: &'static str) -> Self {
        Self { uids, code, fix }
    }

    /// Whether nobody else than `uid` may call.
    pub(crate) fn is_only(&self, uid: u32) -> bool {
        self.uids.iter().eq([&uid])
    }

    pub(crate) fn all(&self) -> BTreeSet<u32> {
        self.uids.clone()
    }

    /// Whether `uid` may call.
    pub(crate) fn lists(&self, uid: u32) -> bool {
        self.uids.contains(&uid)
    }

    /// Names the caller, or refuses it.
    pub(crate) fn admit<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let info = request.extensions().get::<UdsConnectInfo>();
        let credentials = info.and_then(|info| info.peer_cred);
        let Some(credentials) = credentials else {
            return Err(denied(self.code, "the kernel does not say which user calls"));
        };
        let uid = credentials.uid();
        if self.lists(uid) {
            let pid = credentials.pid().filter(|pid| *pid > 0);
            return Ok(Caller::Process { uid, pid });
        }
        let text = format!("Unix user {uid} may not call here; {}", self.fix);
        Err(denied(self.code, &text))
    }
}

fn denied(code: Code, text: &str) -> Status {
    refuse(tonic::Code::PermissionDenied, code, text)
}

/// The user of this process, as the other end of a socket sees it.
pub(crate) fn own_uid() -> io::Result<u32> {
    let (one, _other) = tokio::net::UnixStream::pair()?;
    one.peer_cred().map(|credentials| credentials.uid())
}

#[cfg(test)]
mod tests {
    use model::code::{ENROLMENT_REFUSED, OPERATOR_REFUSED};
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_refusal_has_the_code_of_its_socket() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer_cred = Some(one.peer_cred().unwrap());
        let own = one.peer_cred().unwrap().uid();
        let mut request = Request::new(());
        request.extensions_mut().insert(UdsConnectInfo { peer_addr: None, peer_cred });
        for (code, shown) in [(OPERATOR_REFUSED, "FED1005"), (ENROLMENT_REFUSED, "FED3005")] {
            let users = |uid| AllowedUsers::new(BTreeSet::from([uid]), code, "do this");
            let admitted = users(own).admit(&request).unwrap();
            assert!(matches!(admitted, Caller::Process { uid, .. } if uid == own));
            let refused = users(own + 1).admit(&request).unwrap_err();
            let wanted = format!("{shown}: Unix user {own} may not call here; do this");
            assert_eq!(refused.message(), wanted);
            assert_eq!(refused.metadata().get("x-fed-code").unwrap(), shown);
            let unknown = users(own).admit(&Request::new(())).unwrap_err();
            assert!(unknown.message().starts_with(shown), "{unknown}");
        }
    }
}
