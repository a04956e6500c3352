//! The file; the rules for values that only a gateway has stand where these values do.

use std::ops::Deref;
use std::path::Path;

use daemon::ConfigSource;

/// The file, for messages that point into it.
pub(super) struct Source<'a>(ConfigSource<'a>);

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str, path: &'a Path) -> Self {
        Self(ConfigSource { text, path })
    }
}

impl<'a> Deref for Source<'a> {
    type Target = ConfigSource<'a>;

    fn deref(&self) -> &ConfigSource<'a> {
        &self.0
    }
}
