//! The error that every wrong setting gets: field, value, fix.

/// A setting that cannot be used; says which one, what it was, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value}: {fix}")]
pub struct SettingError {
    /// The field as written in the configuration, for example `links[0].forward.loss`.
    pub field: String,
    /// What it was.
    pub value: String,
    /// What it must be, and what to write.
    pub fix: String,
}

impl SettingError {
    pub(crate) fn new(
        field: impl Into<String>,
        value: impl ToString,
        fix: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), value: value.to_string(), fix: fix.into() }
    }

    /// The same error, seen from the struct around the field.
    pub(crate) fn within(mut self, parent: &str) -> Self {
        self.field = format!("{parent}.{}", self.field);
        self
    }
}
