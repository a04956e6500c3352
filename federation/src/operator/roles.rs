//! Who may call what: one table of procedures, one of kinds, and the users of each role.

use std::collections::BTreeSet;
use std::fmt;

use model::ResourceKind;

use crate::config::{OperatorAccounts, OperatorUids, ServiceAccount};

/// What a caller may do. Each role may do everything that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Look.
    Viewer,
    /// Change what this cluster serves, exports and routes.
    Operator,
    /// Change whom it trusts, and its part in the federation.
    Admin,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Every procedure of the services in `operator.proto` and the least role that may call it. One
/// that is missing here is refused to everybody.
pub(crate) const PROCEDURES: &[(&str, Role)] = &[
    ("GetStatus", Role::Viewer),
    ("ListClusters", Role::Viewer),
    ("ListLinks", Role::Viewer),
    ("ListServices", Role::Viewer),
    ("ListDiagnostics", Role::Viewer),
    ("GetPeer", Role::Viewer),
    ("ListCertificates", Role::Viewer),
    ("ListTrust", Role::Viewer),
    ("RevokeSvid", Role::Admin),
    ("RotateTrust", Role::Admin),
    ("RotateCertificates", Role::Admin),
    ("ListObjects", Role::Viewer),
    ("CompareObjects", Role::Viewer),
    ("ApplyObjects", Role::Operator),
    ("DeleteObjects", Role::Operator),
    ("PingCluster", Role::Viewer),
    ("SetCordon", Role::Operator),
    ("ListAudit", Role::Viewer),
    ("VerifyAudit", Role::Viewer),
    ("Found", Role::Admin),
    ("ListMembers", Role::Viewer),
    ("ListExports", Role::Viewer),
    ("IssueToken", Role::Admin),
    ("ListTokens", Role::Viewer),
    ("RevokeToken", Role::Admin),
    ("TryToken", Role::Admin),
    ("Join", Role::Admin),
    ("ListPendingJoins", Role::Viewer),
    ("DecideJoin", Role::Admin),
    ("Leave", Role::Admin),
    ("RemoveMember", Role::Admin),
    ("Revoke", Role::Admin),
    ("GetStore", Role::Viewer),
    ("VerifyStore", Role::Viewer),
    ("TransferLeadership", Role::Admin),
    ("SetStandbys", Role::Admin),
    ("SaveSnapshot", Role::Admin),
    ("CheckSnapshot", Role::Admin),
    ("RestoreSnapshot", Role::Admin),
    ("RecoverStore", Role::Admin),
];

/// The least role that may call a procedure; `None` for one that does not exist.
pub(crate) fn role_for(procedure: &str) -> Option<Role> {
    PROCEDURES.iter().find(|(name, _)| *name == procedure).map(|(_, role)| *role)
}

/// The least role that may apply or delete objects of a kind.
pub(crate) fn role_for_kind(kind: ResourceKind) -> Role {
    match kind {
        // Whom this cluster trusts.
        ResourceKind::ClusterPeer => Role::Admin,
        // Whose exports other clusters are to believe.
        ResourceKind::NamespaceGrant => Role::Admin,
        ResourceKind::Service
        | ResourceKind::EndpointSlice
        | ResourceKind::ServiceExport
        | ResourceKind::ServiceImport
        | ResourceKind::Gateway
        | ResourceKind::HttpRoute
        | ResourceKind::TcpRoute
        | ResourceKind::ReferenceGrant
        | ResourceKind::AccessPolicy => Role::Operator,
    }
}

/// Somebody who may have a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum User {
    /// A Unix user, on the socket.
    Unix(u32),
    /// A ServiceAccount of the node's cluster, at the port.
    Account(ServiceAccount),
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(uid) => write!(f, "Unix user {uid}"),
            Self::Account(account) => write!(f, "ServiceAccount {account}"),
        }
    }
}

/// The Unix users and ServiceAccounts that have a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OperatorUsers {
    /// The node's own user and root always have the highest role: the data folder is theirs.
    owners: BTreeSet<u32>,
    listed: OperatorUids,
    accounts: OperatorAccounts,
}

impl OperatorUsers {
    pub(crate) fn new(own: u32, listed: OperatorUids, accounts: OperatorAccounts) -> Self {
        Self { owners: BTreeSet::from([own, 0]), listed, accounts }
    }

    /// Without root, which tests often run as.
    #[cfg(test)]
    pub(crate) fn with_owner(own: u32, listed: OperatorUids) -> Self {
        Self { owners: BTreeSet::from([own]), listed, accounts: OperatorAccounts::default() }
    }

    pub(crate) fn role_of(&self, user: &User) -> Option<Role> {
        match user {
            User::Unix(uid) => self.role_of_uid(*uid),
            User::Account(account) => self.role_of_account(account),
        }
    }

    fn role_of_account(&self, account: &ServiceAccount) -> Option<Role> {
        let OperatorAccounts { admins, operators, viewers } = &self.accounts;
        let lists = [(admins, Role::Admin), (operators, Role::Operator), (viewers, Role::Viewer)];
        lists.into_iter().find(|(list, _)| list.contains(account)).map(|(_, role)| role)
    }

    fn role_of_uid(&self, uid: u32) -> Option<Role> {
        let OperatorUids { admins, operators, viewers } = &self.listed;
        if self.owners.contains(&uid) || admins.contains(&uid) {
            Some(Role::Admin)
        } else if operators.contains(&uid) {
            Some(Role::Operator)
        } else if viewers.contains(&uid) {
            Some(Role::Viewer)
        } else {
            None
        }
    }

    /// Every Unix user who has one.
    pub(crate) fn all(&self) -> BTreeSet<u32> {
        let OperatorUids { admins, operators, viewers } = &self.listed;
        [&self.owners, admins, operators, viewers].into_iter().flatten().copied().collect()
    }

    /// A user who is neither the node's own nor root, if there is one.
    pub(crate) fn foreign(&self) -> Option<u32> {
        self.all().difference(&self.owners).next().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table has each procedure of the services exactly once.
    #[test]
    fn every_procedure_has_one_role() {
        let proto = include_str!("../../../wire/proto/operator.proto");
        let declared = proto.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
        let mut declared: Vec<_> = declared.filter_map(|line| line.split('(').next()).collect();
        let mut listed: Vec<_> = PROCEDURES.iter().map(|(name, _)| *name).collect();
        declared.sort_unstable();
        listed.sort_unstable();
        assert!(declared.len() > 10, "{declared:?}");
        assert_eq!(declared, listed);
    }

    /// What only looks is named so, and nothing else is for viewers.
    #[test]
    fn viewers_may_look_and_nothing_more() {
        let looks = ["Get", "List", "Compare", "Verify", "Ping"];
        for (name, role) in PROCEDURES {
            let looking = looks.iter().any(|verb| name.starts_with(verb));
            assert_eq!(looking, *role == Role::Viewer, "{name}");
        }
    }

    #[test]
    fn users_have_the_role_of_their_list() {
        let listed =
            OperatorUids { admins: [10].into(), operators: [11].into(), viewers: [12].into() };
        let account = |text| ServiceAccount::parse(text).unwrap();
        let accounts = OperatorAccounts {
            admins: [account("a/admin")].into(),
            operators: [account("a/operator")].into(),
            viewers: [account("a/viewer"), account("b/admin")].into(),
        };
        let users = OperatorUsers::new(5, listed, accounts);
        for (uid, role) in [
            (5, Some(Role::Admin)),
            (0, Some(Role::Admin)),
            (10, Some(Role::Admin)),
            (11, Some(Role::Operator)),
            (12, Some(Role::Viewer)),
            (13, None),
        ] {
            assert_eq!(users.role_of(&User::Unix(uid)), role, "{uid}");
        }
        for (text, role) in [
            ("a/admin", Some(Role::Admin)),
            ("a/operator", Some(Role::Operator)),
            ("a/viewer", Some(Role::Viewer)),
            ("b/admin", Some(Role::Viewer)),
            ("b/operator", None),
        ] {
            assert_eq!(users.role_of(&User::Account(account(text))), role, "{text}");
        }
        assert_eq!(users.foreign(), Some(10));
        let nobody = (OperatorUids::default(), OperatorAccounts::default());
        assert_eq!(OperatorUsers::new(5, nobody.0, nobody.1).foreign(), None);
        assert_eq!(users.all(), BTreeSet::from([0, 5, 10, 11, 12]));
    }
}
