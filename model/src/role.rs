//! What a member of a federation may do for the federation.

use std::fmt;

/// A right that an admission hands on (DESIGN §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Issues tokens, admits clusters, binds a new key to a cluster that lost its own.
    Admit,
    /// Revokes, names standbys, grants namespaces.
    Admin,
    /// Exports services.
    Export,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Admit, Self::Admin, Self::Export];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Admin => "admin",
            Self::Export => "export",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of roles. Written `admit,admin,export`, or `none`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RoleSet(u8);

/// A text that is no set of roles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{value:?} is not a role: write a list of admit, admin and export, such as \"admit,export\", or \"none\""
)]
pub struct RoleError {
    pub value: String,
}

impl RoleSet {
    pub const NONE: Self = Self(0);

    pub fn all() -> Self {
        Role::ALL.into_iter().collect()
    }

    pub fn parse(text: &str) -> Result<Self, RoleError> {
        if text == "none" {
            return Ok(Self::NONE);
        }
        let role = |part: &str| {
            let found = Role::ALL.into_iter().find(|role| role.as_str() == part);
            found.ok_or_else(|| RoleError { value: part.chars().take(80).collect() })
        };
        text.split(',').map(str::trim).map(role).collect()
    }

    pub fn contains(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    pub fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn with(self, role: Role) -> Self {
        Self(self.0 | role.bit())
    }

    /// In the order of [`Role::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.contains(*role))
    }
}

impl FromIterator<Role> for RoleSet {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for RoleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let names: Vec<_> = self.iter().map(Role::as_str).collect();
        f.write_str(&names.join(","))
    }
}

impl fmt::Debug for RoleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_as_they_are_read() {
        for text in ["none", "admit", "admin", "export", "admit,export", "admit,admin,export"] {
            assert_eq!(RoleSet::parse(text).unwrap().to_string(), text);
        }
        let loose = RoleSet::parse("export, admit,export").unwrap();
        assert_eq!(loose, RoleSet::parse("admit,export").unwrap());
        for text in ["", "root", "admit,", "Admit"] {
            let error = RoleSet::parse(text).unwrap_err().to_string();
            assert!(error.ends_with("such as \"admit,export\", or \"none\""), "{error}");
        }
    }

    #[test]
    fn a_subset_has_nothing_that_the_whole_lacks() {
        let both = RoleSet::NONE.with(Role::Admit).with(Role::Export);
        assert!(both.is_subset_of(RoleSet::all()) && both.is_subset_of(both));
        assert!(RoleSet::NONE.is_subset_of(RoleSet::NONE));
        assert!(!RoleSet::all().is_subset_of(both));
        assert!(!both.is_subset_of(RoleSet::NONE.with(Role::Admit)));
        assert!(both.contains(Role::Export) && !both.contains(Role::Admin));
        assert_eq!(both.iter().collect::<Vec<_>>(), [Role::Admit, Role::Export]);
    }
}
