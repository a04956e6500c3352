//! Who may call: Unix users on the sockets, ServiceAccounts on the ports.

use std::collections::BTreeSet;
use std::fmt;

use model::{Namespace, ObjectName};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::source::Source;
use super::{ConfigError, Text};
use crate::limits::{ENROLMENT_UIDS_MAX, OPERATOR_UIDS_MAX, SERVICE_ACCOUNTS_MAX};

/// A ServiceAccount of the cluster that the node runs in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAccount {
    pub namespace: Namespace,
    pub name: ObjectName,
}

impl ServiceAccount {
    /// Reads `namespace/name`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((namespace, name)) = text.split_once('/') else {
            return Err("write namespace/name, such as fedgate-system/fedgate-gateway".into());
        };
        Ok(Self {
            namespace: Namespace::parse(namespace).map_err(|error| error.to_string())?,
            name: ObjectName::parse(name).map_err(|error| error.to_string())?,
        })
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Who may enrol gateways; each list is for one way in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnrolmentCallers {
    /// Unix users on the resource socket; empty means the node's own user alone.
    pub uids: BTreeSet<u32>,
    /// ServiceAccounts at `listen.gateways`.
    pub accounts: BTreeSet<ServiceAccount>,
}

/// Unix users by role; nobody is in two of the lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperatorUids {
    pub admins: BTreeSet<u32>,
    pub operators: BTreeSet<u32>,
    pub viewers: BTreeSet<u32>,
}

/// ServiceAccounts by role; none is in two of the lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperatorAccounts {
    pub admins: BTreeSet<ServiceAccount>,
    pub operators: BTreeSet<ServiceAccount>,
    pub viewers: BTreeSet<ServiceAccount>,
}

impl OperatorAccounts {
    /// Whether nobody is listed.
    pub fn is_empty(&self) -> bool {
        [&self.admins, &self.operators, &self.viewers].into_iter().all(BTreeSet::is_empty)
    }
}

type Uids = Spanned<Vec<Spanned<i64>>>;
type Accounts = Spanned<Vec<Text>>;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawEnrolment {
    uids: Option<Uids>,
    service_accounts: Option<Accounts>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawOperators {
    admins: Option<Uids>,
    operators: Option<Uids>,
    viewers: Option<Uids>,
    #[serde(default)]
    service_accounts: RawOperatorAccounts,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawOperatorAccounts {
    admins: Option<Accounts>,
    operators: Option<Accounts>,
    viewers: Option<Accounts>,
}

impl Source<'_> {
    pub(super) fn enrolment(&self, raw: &RawEnrolment) -> Result<EnrolmentCallers, ConfigError> {
        let uids = match &raw.uids {
            Some(uids) => {
                let meaning = "or leave the field out for the node's own user";
                let mut taken = BTreeSet::new();
                self.uids("enrolment.uids", uids, ENROLMENT_UIDS_MAX, meaning, &mut taken)?
            }
            None => BTreeSet::new(),
        };
        let field = "enrolment.serviceAccounts";
        let accounts = self.accounts(field, raw.service_accounts.as_ref(), &mut BTreeSet::new())?;
        Ok(EnrolmentCallers { uids, accounts })
    }

    pub(super) fn operators(
        &self,
        raw: &RawOperators,
    ) -> Result<(OperatorUids, OperatorAccounts), ConfigError> {
        let meaning = "or leave the field out; the node's own user and root are admins anyway";
        let mut taken = BTreeSet::new();
        let mut read = |field: &str, uids: &Option<Uids>| match uids {
            Some(uids) => self.uids(field, uids, OPERATOR_UIDS_MAX, meaning, &mut taken),
            None => Ok(BTreeSet::new()),
        };
        let uids = OperatorUids {
            admins: read("operators.admins", &raw.admins)?,
            operators: read("operators.operators", &raw.operators)?,
            viewers: read("operators.viewers", &raw.viewers)?,
        };
        let mut taken = BTreeSet::new();
        let mut read = |role: &str, accounts: &Option<Accounts>| {
            let field = format!("operators.serviceAccounts.{role}");
            self.accounts(&field, accounts.as_ref(), &mut taken)
        };
        let raw = &raw.service_accounts;
        let accounts = OperatorAccounts {
            admins: read("admins", &raw.admins)?,
            operators: read("operators", &raw.operators)?,
            viewers: read("viewers", &raw.viewers)?,
        };
        Ok((uids, accounts))
    }

    /// `taken`: users of earlier lists, to which these are added.
    fn uids(
        &self,
        field: &str,
        uids: &Uids,
        most: usize,
        meaning: &str,
        taken: &mut BTreeSet<u32>,
    ) -> Result<BTreeSet<u32>, ConfigError> {
        if uids.value.is_empty() || uids.value.len() > most {
            let line = uids.referenced.line();
            let count = uids.value.len();
            let problem =
                format!("{field} = {count} entries: list 1 to {most} Unix users, {meaning}");
            return Err(self.error(Some(line), problem));
        }
        let mut converted = BTreeSet::new();
        for (index, uid) in uids.value.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let Ok(number) = u32::try_from(uid.value) else {
                let problem = "a Unix user's number is 0 to 4294967295; `id -u NAME` prints it";
                return Err(self.refuse(&field, uid, problem));
            };
            if !taken.insert(number) {
                return Err(self.refuse(&field, uid, "it is listed twice; remove one"));
            }
            converted.insert(number);
        }
        Ok(converted)
    }
    /// `taken`: accounts of earlier lists, to which these are added.
    fn accounts(
        &self,
        field: &str,
        accounts: Option<&Accounts>,
        taken: &mut BTreeSet<ServiceAccount>,
    ) -> Result<BTreeSet<ServiceAccount>, ConfigError> {
        let Some(accounts) = accounts else { return Ok(BTreeSet::new()) };
        if accounts.value.is_empty() || accounts.value.len() > SERVICE_ACCOUNTS_MAX {
            let line = accounts.referenced.line();
            let count = accounts.value.len();
            let problem = format!(
                "{field} = {count} entries: list 1 to {SERVICE_ACCOUNTS_MAX} ServiceAccounts, or \
                 leave the field out"
            );
            return Err(self.error(Some(line), problem));
        }
        let mut converted = BTreeSet::new();
        for (index, text) in accounts.value.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let account = self.parse(&field, text, ServiceAccount::parse)?;
            if !taken.insert(account.clone()) {
                return Err(self.refuse(&field, text, "it is listed twice; remove one"));
            }
            converted.insert(account);
        }
        Ok(converted)
    }
}
